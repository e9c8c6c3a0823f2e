package refs

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"forebay/cache/index"
	"forebay/cache/index/journal"
	"forebay/cache/tier"
	"forebay/internal/logkey"
)

const (
	// mergeAt is how many segments are too many.
	mergeAt = 16
	// segmentMost bounds a merged segment: what S3 takes in one request.
	segmentMost = 5 << 30
	// forgetAfter is how long a removal is kept. A mirror that was away for longer and pushes what
	// was removed since brings it back.
	forgetAfter = 90 * 24 * time.Hour
	// leaseFile says who merges, until leaseFor is over. It only spares work: two who merge at once
	// lose nothing.
	leaseFile = folder + "/merging"
	leaseFor  = 10 * time.Minute
	// damagedMost is how often a segment with damage is read again before it goes: it may have been
	// the reading.
	damagedMost = 3
)

// lease says until when somebody merges.
type lease struct {
	Until time.Time `json:"until"`
}

// chosen returns the segments to be merged: the small ones, up to the first that is larger than all
// smaller ones together, so that each line is copied a few times only, however many there are.
func chosen(all []tier.File) []tier.File {
	if len(all) < mergeAt {
		return nil
	}
	bySize := slices.SortedFunc(slices.Values(all), func(a, b tier.File) int { return cmp.Compare(a.Size, b.Size) })
	n, sum := 0, int64(0)
	for n < len(bySize) && (n < mergeAt/2 || bySize[n].Size <= sum) && sum+bySize[n].Size < segmentMost {
		sum += bySize[n].Size
		n++
	}
	if n < 2 {
		return nil
	}
	some := bySize[:n]
	slices.SortFunc(some, func(a, b tier.File) int { return cmp.Compare(a.Name, b.Name) })
	return some
}

// merge makes one segment of many, if there are many and nobody else does.
//
// The new segment is there before the old ones go. Whoever reads in between reads lines twice, which
// changes nothing, and so does a kill.
func (r *Refs) merge(ctx context.Context) error {
	all, err := r.segments(ctx)
	if err != nil {
		return err
	}
	some := chosen(all)
	if some == nil {
		return nil
	}
	mine, err := r.lease(ctx)
	if err != nil || !mine {
		return err
	}
	forget := time.Time{}
	if len(some) == len(all) {
		forget = time.Now().Add(-forgetAfter)
	}
	err = r.mergeSome(ctx, some, forget)
	if errors.Is(err, errGone) {
		err = nil // somebody else did
	}
	return errors.Join(err, r.o.Files.RemoveFiles(ctx, []string{leaseFile}))
}

func (r *Refs) mergeSome(ctx context.Context, some []tier.File, forget time.Time) error {
	start := time.Now()
	f, err := os.CreateTemp(r.o.Dir, "refs-*.tmp")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil { // so that a kill leaves nothing
		return err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	_, err = w.Write(journal.Header(rand.Uint64()))
	lines := 0
	var damaged []string
	if err == nil {
		damaged, err = r.read(ctx, some, forget, func(group []journal.Line) error {
			for _, l := range group {
				lines++
				if _, err := w.Write(l.Bytes()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if err := r.o.Files.PutFile(ctx, newName(), f, size, tier.Condition{}); err != nil {
		return err
	}
	var old []string
	for _, s := range some {
		if !slices.Contains(damaged, s.Name) || r.giveUp(s.Name) {
			old = append(old, s.Name)
		}
	}
	r.log.Info("links and tags in the bucket merged", logkey.Count(lines), logkey.Bytes(size), logkey.Took(time.Since(start)))
	err = r.o.Files.RemoveFiles(ctx, old)
	if len(damaged) > 0 {
		// What this mirror knows of what was lost is put again.
		err = errors.Join(err, r.o.Index.Shipped(index.Mark{}))
	}
	return err
}

// giveUp reports whether a segment with damage was read often enough.
func (r *Refs) giveUp(name string) bool {
	r.tries[name]++
	return r.tries[name] >= damagedMost
}

// lease reports whether we are to merge.
func (r *Refs) lease(ctx context.Context) (mine bool, err error) {
	err = r.putLease(ctx, tier.Condition{Absent: true})
	if errors.Is(err, tier.ErrCondition) {
		var until lease
		body, version, oerr := r.o.Files.OpenFile(ctx, leaseFile, 0, -1)
		if oerr != nil {
			return false, nil // given back at this moment
		}
		defer body.Close()
		if derr := json.NewDecoder(io.LimitReader(body, 4096)).Decode(&until); derr == nil && time.Now().Before(until.Until) {
			return false, nil
		}
		err = r.putLease(ctx, tier.Condition{Version: version})
	}
	switch {
	case errors.Is(err, tier.ErrCondition):
		return false, nil
	case errors.Is(err, tier.ErrUnconditional):
		return true, nil
	}
	return err == nil, err
}

func (r *Refs) putLease(ctx context.Context, c tier.Condition) error {
	b, err := json.Marshal(lease{time.Now().Add(leaseFor)})
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	return r.o.Files.PutFile(ctx, leaseFile, bytes.NewReader(b), int64(len(b)), c)
}
