package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/event"
	"forebay/cache/index"
	"forebay/internal/logkey"
)

// unclean is EUCLEAN, which Linux alone has: the file system found itself damaged.
const unclean = syscall.Errno(117)

// health is what the disk refused last, by what it was used for.
type health struct {
	reads, writes, records door
	look                   look
}

// door is one way through which the store is used: what it refused last.
type door struct {
	broken atomic.Bool // why and since are set

	mu    sync.Mutex
	why   error
	since time.Time
}

// refused notes that the store did not do its work. It reports whether that is news.
func (d *door) refused(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	news := !d.broken.Swap(true)
	if d.why = err; news {
		d.since = time.Now()
	}
	return news
}

// worked notes that it did. It reports whether that is news.
func (d *door) worked() bool { return d.broken.Load() && d.broken.Swap(false) }

// trouble returns what was refused last, and since when; false when all is well.
func (d *door) trouble() (t Trouble, broken bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.broken.Load() || d.why == nil { // broken comes before why
		return Trouble{}, false
	}
	return Trouble{Cause: cmp.Or(CauseOf(d.why), "other"), Why: d.why.Error(), Since: d.since}, true
}

// note takes in how the store took or gave something that it should have.
func (s *Store) note(d *door, err error) {
	if err == nil {
		if d.worked() {
			s.Tell(event.Event{Kind: event.Recovered, Detail: s.nameOf(d)})
		}
		return
	}
	// Another fill of the same content says nothing of the disk.
	if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrClosed) || errors.Is(err, disk.ErrInUse) || s.ctx.Err() != nil {
		return
	}
	if d.refused(err) {
		s.Tell(event.Event{Kind: event.Degraded, Detail: s.nameOf(d) + ": " + err.Error()})
	}
}

func (s *Store) nameOf(d *door) string {
	switch d {
	case &s.health.reads:
		return Reading
	case &s.health.records:
		return Recording
	}
	return Writing
}

// Wrote takes in how the disk took content: nil, or why it did not.
func (s *Store) Wrote(err error) { s.note(&s.health.writes, err) }

// Unreadable takes in that kept content cannot be read: to its readers it is absent, and
// comes from the upstream.
func (s *Store) Unreadable(d v1.Hash, err error) {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return
	}
	s.note(&s.health.reads, err)
	s.Log.Error("kept content cannot be read", logkey.Digest(d), logkey.Err(err))
}

// Unknown takes in that the index could not tell something: it counts as not known.
func (s *Store) Unknown(err error) {
	s.note(&s.health.records, err)
	s.Log.Error("index cannot be read", logkey.Err(err))
}

// What a [Trouble] may be about.
const (
	Reading   = "reading from the store"
	Writing   = "writing to the store"
	Recording = "writing to the index"
)

// Trouble is what the disk or the bucket could not do last, and has not done since.
// Clients are served all the same: from what is kept, or passed through.
type Trouble struct {
	What string // Reading, Writing, Recording, or what the tier says of the bucket
	// Cause is "full", "read-only", "broken" (input or output errors), "descriptors" (too
	// many open files), "bucket" or "other".
	Cause string
	Why   string // what was said last
	Since time.Time
}

// Troubles returns what the store cannot do at present; nothing when all is well.
func (s *Store) Troubles() []Trouble {
	all := []Trouble{}
	for _, d := range []*door{&s.health.reads, &s.health.writes, &s.health.records} {
		if t, broken := d.trouble(); broken {
			t.What = s.nameOf(d)
			all = append(all, t)
		}
	}
	if s.Bucket != nil {
		for _, f := range s.Bucket.Faults() {
			all = append(all, Trouble{What: f.What, Cause: "bucket", Why: f.Err.Error(), Since: f.Since})
		}
	}
	return all
}

// CauseOf names what an error says of the disk, "" for one that says nothing of it.
func CauseOf(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "full"
	case errors.Is(err, syscall.EROFS):
		return "read-only"
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO),
		errors.Is(err, unclean), errors.Is(err, syscall.EBADMSG): // ext4 and xfs say so of damaged metadata
		return "broken"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "descriptors"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOMEM), errors.Is(err, index.ErrUnwritable):
		return "other"
	}
	return ""
}

// Ailing returns what is wrong with the disk now, or nil. Everybody may be told: what was said
// names files, and is for those who may ask for [Store.Troubles].
func (s *Store) Ailing() error {
	var all []error
	for _, t := range s.Troubles() {
		all = append(all, fmt.Errorf("%s: %s", t.What, t.Cause))
	}
	return errors.Join(all...)
}

// probeEvery is how often a disk that failed is tried again.
const probeEvery = 5 * time.Second

// heal tries what failed until ctx is done.
func (s *Store) heal(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.Probe()
		}
	}
}

// Probe tries what failed, and has the index catch up when it can be written again; Run does
// so every few seconds. Reading is found to work by whoever reads next.
func (s *Store) Probe() {
	if s.health.writes.broken.Load() {
		err := s.Disk.Probe()
		if err == nil && s.Room.excess() > 0 {
			err = ErrNoRoom
		}
		if s.Wrote(err); err == nil {
			_ = s.settle() // was told of
		}
	}
	if !s.health.records.broken.Load() && !s.Index.Lags() { // another record may have been taken since one was lost
		return
	}
	err := s.Index.Probe()
	if err == nil {
		_ = s.settle() // was told of; what has no name yet is not found
		// What was evicted, purged or committed meanwhile may not have been recorded.
		var added, dropped int
		added, dropped, err = s.Index.Reconcile(s.ctx, s.Disk)
		s.Log.Info("index compared with the store", logkey.Count(added+dropped), logkey.Err(err))
	}
	s.note(&s.health.records, err)
}

// Update changes the index and notes whether its disk lets it.
func (s *Store) Update(fn func(*index.Batch) error) error {
	err := s.Index.Update(fn)
	if CauseOf(err) != "" {
		s.Index.Lag()
	}
	if err == nil || CauseOf(err) != "" {
		s.note(&s.health.records, err)
	}
	return err
}

// Record is Update for what a client is waiting for: that it cannot be recorded is no
// reason not to answer.
func (s *Store) Record(fn func(*index.Batch) error) error {
	if err := s.Update(fn); CauseOf(err) == "" {
		return err
	}
	return nil
}
