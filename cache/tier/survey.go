package tier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"forebay/cache/index"
	"forebay/internal/logkey"
)

const (
	// surveyMost is how often a bucket without limits is listed: others may put things there.
	surveyMost = 24 * time.Hour
	// abandonedAfter is how long an upload in parts may take.
	abandonedAfter = 48 * time.Hour
	// listers is how many shards are listed at once.
	listers = 8
	// fewObjects are listed in one go; more by shards.
	fewObjects = 2000
	surveyNote = "bucket survey"
)

// Survey is what a listing of the bucket found.
type Survey struct {
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took_ns"`
	Objects int64         `json:"objects"`
	Bytes   int64         `json:"bytes"`
	New     int64         `json:"new"`     // that others put there
	Gone    int64         `json:"gone"`    // that were thought to be there
	Touched int64         `json:"touched"` // that we need, marked
	Removed int64         `json:"removed"` // for age or room
	Aborted int64         `json:"aborted"` // uploads that nobody went on with
}

// every is how often the bucket must be listed, so that objects that we need are marked
// before they are too old.
func (t *Tier) every() time.Duration {
	if t.opts.SurveyEvery > 0 {
		return t.opts.SurveyEvery
	}
	if !t.opts.Limited() {
		return surveyMost
	}
	return min(t.bound()/4, surveyMost)
}

// bound is the age at which an object may be removed. Those that we need are marked as young
// when they are half as old.
func (t *Tier) bound() time.Duration {
	if t.opts.MaxBytes > 0 && (t.opts.MaxAge <= 0 || t.opts.Grace < t.opts.MaxAge) {
		return t.opts.Grace
	}
	return t.opts.MaxAge
}

// surveys lists the bucket when it is due until ctx is done. An index that knows nothing
// of the bucket has it listed at once.
func (t *Tier) surveys(ctx context.Context) {
	last := t.readSurvey()
	next := last.At.Add(t.every())
	for {
		select {
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
			return
		}
		s, err := t.Survey(ctx)
		t.told(ctx, &t.reads, err)
		if err != nil {
			if ctx.Err() == nil {
				t.log.Warn("bucket not listed", logkey.Err(err))
			}
			next = time.Now().Add(min(t.every(), retryMost))
			continue
		}
		t.log.Info("bucket listed", zap.Int64("objects", s.Objects), logkey.Bytes(s.Bytes), zap.Int64("new", s.New),
			zap.Int64("gone", s.Gone), zap.Int64("touched", s.Touched), zap.Int64("removed", s.Removed),
			zap.Int64("aborted", s.Aborted), logkey.Took(s.Took))
		t.writeSurvey(s)
		// Several processes that share a bucket and started together drift apart.
		next = time.Now().Add(t.every() - rand.N(t.every()/8+1))
	}
}

func (t *Tier) readSurvey() (s Survey) {
	b, ok, err := t.index.Note(surveyNote)
	if err == nil && ok && json.Unmarshal(b, &s) == nil {
		t.survey.Store(&s)
		return s
	}
	return Survey{}
}

func (t *Tier) writeSurvey(s Survey) {
	t.survey.Store(&s)
	b, err := json.Marshal(s)
	if err == nil {
		err = t.index.Update(func(tx *index.Batch) error { return tx.PutNote(surveyNote, b) })
	}
	if err != nil {
		t.log.Warn("listing of the bucket not noted", logkey.Err(err))
	}
}

// Survey lists the bucket, makes the index agree with it, marks what we need as young, removes
// what is too old or beyond the limit of size, and ends abandoned uploads.
func (t *Tier) Survey(ctx context.Context) (Survey, error) {
	v := &survey{t: t, now: time.Now()}
	err := v.run(ctx)
	v.done.At, v.done.Took = v.now, time.Since(v.now)
	if err != nil {
		return v.done, fmt.Errorf("survey of the bucket: %w", err)
	}
	return v.done, nil
}

// survey is one run of Survey.
type survey struct {
	t   *Tier
	now time.Time

	done Survey
	old  []aged // no longer young
}

// aged is an object that is old enough to be marked or removed.
type aged struct {
	Object
	needed bool
}

func (v *survey) run(ctx context.Context) error {
	if err := EachShard(ctx, v.t.opts.Bucket, func(shard string, all []Object) error { return v.shard(ctx, shard, all) }); err != nil {
		return err
	}
	if err := v.remove(ctx); err != nil {
		return err
	}
	n, err := v.t.opts.Bucket.AbortUploads(ctx, v.now.Add(-abandonedAfter))
	v.done.Aborted = int64(n)
	return err
}

// EachShard lists a bucket and calls fn with the objects of each shard: one after the
// other in one go where there are few, else several shards at once, each call being alone.
// The shard "" is all of the bucket.
func EachShard(ctx context.Context, b Objects, fn func(shard string, all []Object) error) error {
	var few []Object
	many := errors.New("many")
	err := b.List(ctx, "", func(o Object) error {
		if few = append(few, o); len(few) > fewObjects {
			return many
		}
		return nil
	})
	if err == nil {
		return fn("", few)
	}
	if !errors.Is(err, many) {
		return err
	}
	var alone sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(listers)
	for _, shard := range shards() {
		group.Go(func() error {
			var all []Object
			err := b.List(ctx, shard, func(o Object) error {
				all = append(all, o)
				return nil
			})
			if err != nil {
				return err
			}
			alone.Lock()
			defer alone.Unlock()
			return fn(shard, all)
		})
	}
	return group.Wait()
}

// shards are the parts of a bucket. All of sha512 is one, as is all of blake3, since hardly
// anything uses them.
func shards() []string {
	all := []string{"sha512", "blake3"}
	for i := range 256 {
		all = append(all, fmt.Sprintf("sha256/%02x", i))
	}
	return all
}

// inShard reports whether d is of a shard.
func inShard(d v1.Hash, shard string) bool {
	return shard == "" || shard == d.Algorithm || shard == d.Algorithm+"/"+d.Hex[:2]
}

// shard makes the index agree with a shard of the bucket.
func (v *survey) shard(ctx context.Context, shard string, all []Object) error {
	listed := make(map[v1.Hash]bool, len(all))
	var fresh []Object
	for _, o := range all {
		listed[o.Digest] = true
		v.done.Objects++
		v.done.Bytes += o.Size
		r, known, err := v.t.index.Remote(o.Digest)
		if err != nil {
			return err
		}
		size, onDisk := v.t.size(o.Digest)
		switch {
		case onDisk && size != o.Size:
			// The disk was verified, so that the object is wrong.
			v.t.Distrust(o.Digest)
			continue
		case !known:
			v.done.New++
			fresh = append(fresh, o)
		case r.Size != o.Size || !r.Stamp.Equal(o.Stamp):
			fresh = append(fresh, o)
		}
		v.judge(o, r)
	}
	for some := range slices.Chunk(fresh, page) {
		if err := v.t.known(some...); err != nil {
			return err
		}
	}
	return v.gone(shard, listed)
}

// size returns the size of content on the disk.
func (t *Tier) size(d v1.Hash) (int64, bool) {
	size, err := t.disk.Stat(d)
	return size, err == nil
}

// judge decides about the age of an object.
func (v *survey) judge(o Object, r index.Remote) {
	if !v.t.opts.Limited() {
		return
	}
	age := v.now.Sub(o.Stamp)
	if age < v.t.bound()/2 {
		return
	}
	used, err := v.t.LastUse(o.Digest)
	// Without an answer it is kept.
	needed := err != nil || used.After(o.Stamp) || r.Used.After(o.Stamp) || v.t.owner.Pinned(o.Digest)
	if needed || age >= v.t.bound() {
		v.old = append(v.old, aged{o, needed})
	}
}

// gone forgets what the listing did not have, but for uploads that ended since it began.
func (v *survey) gone(shard string, listed map[v1.Hash]bool) error {
	after := beforeShard(shard)
	for {
		some, err := v.t.index.RemotesAfter(after, page)
		if err != nil {
			return err
		}
		for _, r := range some {
			after = r.Digest
			if !inShard(r.Digest, shard) {
				return nil
			}
			if !listed[r.Digest] && r.Stamp.Before(v.now) {
				v.done.Gone++
				v.t.missing(r.Digest)
			}
		}
		if len(some) < page {
			return nil
		}
	}
}

// beforeShard returns a digest after which those of the shard come.
func beforeShard(shard string) v1.Hash {
	switch shard {
	case "", "sha256/00":
		return v1.Hash{}
	case "sha512":
		return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("f", 64)}
	case "blake3":
		return v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("f", 128)}
	}
	var n int
	_, _ = fmt.Sscanf(shard, "sha256/%02x", &n) // one of ours
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%02x", n-1) + strings.Repeat("f", 62)}
}

// removeBatch is how many objects are removed at once: what DeleteObjects takes.
const removeBatch = 1000

// remove marks what we need, and removes what is too old, or the oldest if there is too much.
func (v *survey) remove(ctx context.Context) error {
	slices.SortFunc(v.old, func(a, b aged) int { return a.Stamp.Compare(b.Stamp) })
	over := int64(0)
	if v.t.opts.MaxBytes > 0 {
		over = v.done.Bytes - v.t.opts.MaxBytes
	}
	var gone []Object
	for _, o := range v.old {
		age := v.now.Sub(o.Stamp)
		tooOld := v.t.opts.MaxAge > 0 && age >= v.t.opts.MaxAge
		tooMuch := over > 0 && age >= v.t.opts.Grace
		switch {
		case o.needed:
			if err := v.touch(ctx, o.Object); err != nil {
				return err
			}
		case tooOld || tooMuch:
			gone = append(gone, o.Object)
			over -= o.Size
		}
	}
	for some := range slices.Chunk(gone, removeBatch) {
		if err := v.drop(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

func (v *survey) touch(ctx context.Context, o Object) error {
	if err := v.t.opts.Bucket.Touch(ctx, o); err != nil {
		return err
	}
	v.done.Touched++
	o.Stamp = time.Now()
	return v.t.known(o)
}

func (v *survey) drop(ctx context.Context, some []Object) error {
	names := make([]v1.Hash, len(some))
	for i, o := range some {
		names[i] = o.Digest
	}
	if err := v.t.opts.Bucket.Remove(ctx, names); err != nil {
		return err
	}
	var bytes int64
	for _, o := range some {
		bytes += o.Size
	}
	v.done.Removed += int64(len(some))
	v.done.Objects -= int64(len(some))
	v.done.Bytes -= bytes
	v.t.dropped.Add(int64(len(some)))
	_, err := v.t.forget(names...)
	return err
}
