// Package refs keeps in the bucket what the journal of the index says: links, tags with their
// histories, and pins, so that a mirror with an empty folder serves what the bucket holds although
// the registries do not answer.
//
// It promises that no mirror's lines take another's away, whoever writes and whoever is killed at
// whatever moment; that what was removed stays removed, since each line has its time and the newest
// counts; and that a line gives a right to none but a mirror that asks the same upstream in the same
// name. It does not promise that content is there of which a line tells.
//
// Files called refs/TIME-RANDOM.journal are segments: journals as that of the index, sorted, with the
// identity of each upstream behind its name. They are never changed. Each mirror adds one when
// something happened; when there are many, one of the mirrors makes one of them. All the order that
// there is lies in the times of the lines, so that nothing depends on who does what first.
//
// Warning: who may write to the bucket may write lines. It is for mirrors alone.
package refs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"forebay/cache/index"
	"forebay/cache/index/journal"
	"forebay/cache/tier"
	"forebay/internal/logkey"
)

// Options configures a [Refs]. Files, Index and Dir are required.
type Options struct {
	Files tier.Files
	Index *index.Index
	Dir   string // takes what is merged, without a name
	// Identity names what the rights of an upstream depend on; see [tier.Options].
	Identity func(upstream string) string
	// Every is how often lines go to the bucket. 0 means 30 s.
	Every time.Duration
	// Found is told of content that a link says is in the bucket; nil tells nobody. It may be wrong.
	Found func([]tier.Object) error
	// Restored is called when an index that was empty has got all; nil calls nobody.
	Restored func()
	Log      *zap.Logger // nil means no logging
}

// Refs keeps the lines of one mirror in the bucket. Its methods may be called concurrently, but for
// Restore and Run.
type Refs struct {
	o     Options
	log   *zap.Logger
	tries map[string]int // of segments with damage; used by who merges

	due      atomic.Bool  // the index was empty and has not got all yet
	behind   atomic.Int64 // Unix seconds since when lines wait; 0 when none do
	pushed   atomic.Int64 // segments since the start
	restored atomic.Int64 // lines since the start
	damaged  atomic.Int64 // segments with damage, when they were read last
}

const (
	everyDefault = 30 * time.Second
	// pushMost is how much of the journal becomes one segment.
	pushMost = 4 << 20
	// mergeEvery is after how many segments of ours we look whether there are too many.
	mergeEvery = 8
	// lastPush bounds the one at the stop.
	lastPush = 10 * time.Second
	// listMost is how long a list of segments may take for a restore.
	listMost = 10 * time.Second
	// restoreBatch is how many lines are taken in at once.
	restoreBatch = 1000
	// identitiesNote names what the upstreams' identities were when lines were pushed.
	identitiesNote = "refs identities"
	// dueNote is there while an index that was empty has not got all.
	dueNote = "refs due"
)

// New returns the record in the bucket of an index. An index without links and tags is to get what
// the bucket knows: see [Refs.Restore].
func New(o Options) (*Refs, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Every <= 0 {
		o.Every = everyDefault
	}
	if o.Identity == nil {
		o.Identity = func(string) string { return "all" }
	}
	r := &Refs{o: o, log: o.Log, tries: map[string]int{}}
	if err := o.Index.Ship(); err != nil {
		return nil, err
	}
	note, _, err := o.Index.Note(dueNote)
	if err != nil {
		return nil, err
	}
	r.due.Store(len(note) > 0)
	if t := o.Index.Totals(); t.Links == 0 && t.Tags == 0 && len(note) == 0 {
		return r, r.setDue(true)
	}
	return r, nil
}

// setDue notes whether the bucket is to be read.
func (r *Refs) setDue(due bool) error {
	note := []byte(nil)
	if due {
		note = []byte("yes")
	}
	err := r.o.Index.Update(func(b *index.Batch) error { return b.PutNote(dueNote, note) })
	if err == nil || due {
		r.due.Store(due)
	}
	return err
}

// Restore gives an index that was empty all that the bucket knows, and nothing to one that was not.
// It may be called again after an error. What the index learned meanwhile stays.
func (r *Refs) Restore(ctx context.Context) error {
	if !r.due.Load() {
		return nil
	}
	start := time.Now()
	var err error
	for range 5 { // each time that somebody merged meanwhile
		if err = r.restore(ctx); !errors.Is(err, errGone) {
			break
		}
	}
	if err == nil {
		err = errors.Join(r.o.Index.Restored(), r.setDue(false))
	}
	if err != nil {
		return fmt.Errorf("links and tags from the bucket: %w", err)
	}
	if r.o.Restored != nil {
		r.o.Restored()
	}
	if n := r.restored.Load(); n > 0 {
		r.log.Info("links and tags restored from the bucket", zap.Int64("lines", n), logkey.Took(time.Since(start)))
	}
	return nil
}

// restore reads all segments.
func (r *Refs) restore(ctx context.Context) error {
	// Who waits for a start does not wait for a bucket that does not answer.
	listing, cancel := context.WithTimeout(ctx, listMost)
	defer cancel()
	files, err := r.segments(listing)
	if err != nil {
		return err
	}
	var batch []journal.Entry
	others := 0
	flush := func() error {
		err := ctx.Err()
		if err == nil {
			err = r.take(batch)
		}
		batch = batch[:0]
		return err
	}
	_, err = r.read(ctx, files, time.Time{}, func(group []journal.Line) error {
		for _, l := range group {
			if l.Remove {
				continue
			}
			l, ok := unidentified(l, r.o.Identity)
			if !ok {
				others++
				continue
			}
			if e, err := l.Entry(); err == nil { // else a newer program wrote it
				batch = append(batch, e)
			}
		}
		if len(batch) < restoreBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if others > 0 {
		r.log.Info("links and tags in the bucket are of upstreams with other settings: left out", logkey.Count(others))
	}
	return err
}

// take gives entries to the index, and says which content the bucket should have.
func (r *Refs) take(batch []journal.Entry) error {
	if len(batch) == 0 {
		return nil
	}
	if err := r.o.Index.Restore(batch); err != nil {
		return err
	}
	r.restored.Add(int64(len(batch)))
	if r.o.Found == nil {
		return nil
	}
	var found []tier.Object
	for _, e := range batch {
		if e.Tag == "" && e.Pin.Ref == "" && e.Desc.Size >= 0 {
			found = append(found, tier.Object{Digest: e.Desc.Digest, Size: e.Desc.Size})
		}
	}
	return r.o.Found(found)
}

// Run puts lines into the bucket and merges what is there until ctx is done, and puts what is left
// then. A [Refs.Restore] that is due is tried again, too.
func (r *Refs) Run(ctx context.Context) {
	tick := time.NewTicker(r.o.Every)
	defer tick.Stop()
	var failing bool
	merged := int64(-mergeEvery) // so that the first push looks
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastPush)
			defer cancel()
			r.report(r.push(last), failing)
			return
		case <-tick.C:
		}
		err := errors.Join(r.Restore(ctx), r.push(ctx))
		if n := r.pushed.Load(); err == nil && n-merged >= mergeEvery {
			if err = r.merge(ctx); err == nil {
				merged = n
			}
		}
		if ctx.Err() == nil {
			failing = r.report(err, failing)
		}
	}
}

// report logs when it begins to fail and when it works again, not every failure.
func (r *Refs) report(err error, failing bool) bool {
	switch {
	case err != nil && !failing:
		r.log.Warn("links and tags are not in the bucket", logkey.Err(err))
	case err == nil && failing:
		r.log.Info("links and tags are in the bucket again")
	}
	return err != nil
}

// push puts the lines that are not in the bucket.
func (r *Refs) push(ctx context.Context) error {
	for end := (index.Mark{}); ; {
		before := end
		var raw []byte
		var err error
		if raw, end, err = r.o.Index.Unshipped(pushMost); err != nil {
			return err
		}
		if r.o.Index.AllShipped() {
			r.behind.Store(0)
			return nil
		}
		r.behind.CompareAndSwap(0, time.Now().Unix())
		if end == before || end.Run == 0 {
			return nil // the journal is to be rewritten first
		}
		var lines []journal.Line
		if _, err := journal.ReadLines(bytes.NewReader(raw), func(l journal.Line) error {
			lines = append(lines, l)
			return nil
		}); err != nil {
			return err
		}
		changed, err := r.identities(lines)
		if err != nil {
			return err
		}
		if changed { // all is put again, with the new identities
			if err := r.o.Index.Shipped(index.Mark{}); err != nil {
				return err
			}
			end = index.Mark{}
			continue
		}
		if lines = identify(lines, r.o.Identity); len(lines) > 0 {
			if err := r.put(ctx, encode(lines)); err != nil {
				return err
			}
			r.pushed.Add(1)
		}
		if err := r.o.Index.Shipped(end); err != nil {
			return err
		}
	}
}

// identities notes those of the upstreams that lines are of, and reports whether one has changed.
func (r *Refs) identities(lines []journal.Line) (changed bool, err error) {
	note, _, err := r.o.Index.Note(identitiesNote)
	if err != nil {
		return false, err
	}
	known := map[string]string{}
	_ = json.Unmarshal(note, &known) // ours; else it is written anew
	fresh := false
	for _, l := range lines {
		if _, ok := forms(l.Noun); !ok || l.Noun == decision || len(l.Fields) == 0 {
			continue
		}
		upstream := l.Fields[0]
		id := r.o.Identity(upstream)
		was, ok := known[upstream]
		if ok && was == id {
			continue
		}
		known[upstream] = id
		fresh, changed = true, changed || ok
	}
	if !fresh {
		return false, nil
	}
	if note, err = json.Marshal(known); err != nil {
		return false, err
	}
	return changed, r.o.Index.Update(func(b *index.Batch) error { return b.PutNote(identitiesNote, note) })
}

// Stats are figures of the record.
type Stats struct {
	Behind   time.Time // since when lines wait to get into the bucket; zero when none do
	Due      bool      // an index that was empty has not got all yet
	Pushed   int64     // segments since the start
	Restored int64     // lines since the start
	Damaged  int64     // segments with lines that could not be read, when they were read last
}

// Stats returns figures. It makes no request.
func (r *Refs) Stats() Stats {
	s := Stats{Due: r.due.Load(), Pushed: r.pushed.Load(), Restored: r.restored.Load(), Damaged: r.damaged.Load()}
	if at := r.behind.Load(); at > 0 {
		s.Behind = time.Unix(at, 0)
	}
	return s
}
