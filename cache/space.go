package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/disk"
	"forebay/cache/evict"
	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/tally"
)

const (
	// Eviction begins in the background when the folder is fuller than highPercent of what
	// it may be, and goes on to lowPercent, so that fills rarely wait for it.
	highPercent = 95
	lowPercent  = 90
	// spaceTick is how often what nobody reserves, the index and parked fills, is measured.
	spaceTick = 10 * time.Second
	// blockSize is what file systems give files their space in.
	blockSize = 4096
	// reserveStep is what a fill of unknown size reserves at a time.
	reserveStep = 64 << 20
	// manyLoaded is from how many things on it is worth a collection to give memory back.
	manyLoaded = 100_000
	// dropBatch is how many records of the index are deleted at once.
	dropBatch = 256
)

// ErrNoRoom means that content does not fit into the store and not enough can be evicted.
var ErrNoRoom = fmt.Errorf("no room in the store: %w: %w", errStorage, syscall.ENOSPC)

// errNeverFits means that it would not help to evict everything.
var errNeverFits = fmt.Errorf("%w: %w", ErrNoRoom, errTooLarge)

// space keeps the storage folder within its bounds: a fill reserves what it will write
// before it writes it, and what is used least makes room. It never waits for the network.
type space struct {
	max     int64 // of the whole folder in bytes; 0 means no limit
	minFree int64 // of the file system, in bytes
	disk    *disk.Store
	policy  *evict.Policy
	log     *zap.Logger
	keep    func(v1.Hash) bool // pinned or in use: not now
	later   func(v1.Hash) bool // the only copy: rather not; may be nil
	drop    func([]v1.Hash) error
	loaded  chan struct{} // closed when policy knows what is kept

	reserved atomic.Int64 // promised to fills in progress
	other    atomic.Int64 // index, journal and parked fills, as measured last

	fitted   int64      // capacity that the policy was told; only keepAhead uses it
	evicting sync.Mutex // one eviction at a time
	evicted  atomic.Int64
	freed    atomic.Int64     // bytes
	ages     *tally.Histogram // how long what was evicted had not been used
	told     func(evicted)    // of each time that room was made; no lock is held
	unsaved  atomic.Int64     // evicted before they were uploaded
}

// rounded is what a file of n bytes takes on the disk.
func rounded(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// used is what the folder holds and is promised to hold.
func (s *space) used() int64 { return s.policy.Bytes() + s.reserved.Load() + s.other.Load() }

// excess returns how many bytes are too many now, 0 or less when none are.
func (s *space) excess() int64 {
	over := int64(-1)
	if s.max > 0 {
		over = s.used() - s.max
	}
	if s.minFree > 0 {
		free, _, err := s.disk.Free()
		if err != nil {
			s.log.Warn("free space unknown", logkey.Err(err))
			return over
		}
		over = max(over, s.minFree+s.reserved.Load()-int64(min(free, 1<<62)))
	}
	return over
}

// reserve promises n bytes to a fill, evicting for them if need be. The error is
// ErrNoRoom when they cannot be had. What was reserved is given back by release.
func (s *space) reserve(ctx context.Context, n int64) error {
	if s.max <= 0 && s.minFree <= 0 {
		return nil
	}
	select {
	case <-s.loaded:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.max > 0 && n > s.max {
		return errNeverFits
	}
	s.reserved.Add(n)
	if over := s.excess(); over > 0 && !s.makeRoom(over) {
		s.reserved.Add(-n)
		return ErrNoRoom
	}
	return nil
}

func (s *space) release(n int64) {
	if s.max > 0 || s.minFree > 0 {
		s.reserved.Add(-n)
	}
}

// makeRoom evicts until nothing is too much, at least over bytes. When nothing else is
// left, what is not uploaded yet goes too: the registry has it, and the bound is hard.
func (s *space) makeRoom(over int64) bool {
	var all evicted
	defer func() { s.told(all) }() // after the lock is given back
	s.evicting.Lock()
	defer s.evicting.Unlock()
	for over > 0 {
		some := s.evict(over)
		all.blobs, all.bytes, all.unused = all.blobs+some.blobs, all.bytes+some.bytes, some.unused
		if some.bytes == 0 && s.later != nil {
			some = s.evictFrom(over, true)
			all.blobs, all.bytes, all.unused = all.blobs+some.blobs, all.bytes+some.bytes, some.unused
		}
		if some.bytes == 0 {
			return false
		}
		over = s.excess()
	}
	return true
}

// evicted is what was dropped to make room.
type evicted struct {
	blobs, bytes int64
	unused       time.Duration // how long the last of it had not been used
}

// evict drops what is worth least, at least need bytes if there are as many, and returns
// what it dropped. s.evicting is held.
func (s *space) evict(need int64) evicted { return s.evictFrom(need, false) }

// evictFrom is evict; with last, the only copies go too.
func (s *space) evictFrom(need int64, last bool) (done evicted) {
	keep := s.keep
	if s.later != nil && !last {
		keep = s.sure
	}
	victims := s.policy.Victims(need, keep)
	if last {
		s.unsaved.Add(int64(len(victims)))
	}
	for len(victims) > 0 {
		batch := victims[:min(len(victims), dropBatch)]
		victims = victims[len(batch):]
		names := make([]v1.Hash, len(batch))
		for i, v := range batch {
			names[i] = v.Digest
		}
		if err := s.drop(names); err != nil {
			s.log.Error("content not evicted", logkey.Err(err))
		}
		for _, v := range batch {
			if _, err := s.disk.Stat(v.Digest); err == nil {
				s.policy.Add(v.Digest, v.Size, v.Kind) // it is still there
				continue
			}
			done.blobs++
			done.bytes += v.Size
			s.evicted.Add(1)
			s.freed.Add(v.Size)
			s.ages.Since(v.Used)
		}
	}
	if done.bytes > 0 {
		done.unused = s.policy.Age()
		s.log.Info("evicted", logkey.Bytes(done.bytes), logkey.Took(done.unused))
	}
	return done
}

// sure is keep, and what is not uploaded yet.
func (s *space) sure(d v1.Hash) bool { return s.keep(d) || s.later != nil && s.later(d) }

// add says that d is kept now.
func (s *space) add(d v1.Hash, size int64, k evict.Kind) { s.policy.Add(d, rounded(size), k) }

// run keeps ahead of need until ctx is done.
func (s *space) run(ctx context.Context) {
	tick := time.NewTicker(spaceTick)
	defer tick.Stop()
	select {
	case <-s.loaded:
	case <-ctx.Done():
		return
	}
	for {
		s.keepAhead()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// fit tells the policy how much there may be, so that its shares are parts of that: less
// than the maximum when what must stay free on the file system leaves less.
func (s *space) fit() {
	most := s.max
	if s.minFree > 0 {
		free, _, err := s.disk.Free()
		if err != nil {
			return // told of elsewhere
		}
		room := max(s.used()+int64(min(free, 1<<62))-s.minFree-s.reserved.Load(), 1)
		if most <= 0 || room < most {
			most = room
		}
	}
	capacity := most / 100 * lowPercent
	// The shares need no exactness, and to change them takes a lock.
	if off := capacity - s.fitted; most > 0 && (off > s.fitted/20 || -off > s.fitted/20) {
		s.fitted = capacity
		s.policy.Resize(capacity)
	}
}

// keepAhead evicts to the low watermark when the high one is passed.
func (s *space) keepAhead() {
	defer s.fit()
	if other, err := s.disk.OtherBytes(); err == nil {
		s.other.Store(other)
	} else {
		s.log.Warn("storage folder not measured", logkey.Err(err))
	}
	over := s.excess()
	if s.max > 0 && s.used() > s.max/100*highPercent {
		over = max(over, s.used()-s.max/100*lowPercent)
	}
	if over > 0 {
		s.evicting.Lock()
		done := s.evict(over)
		s.evicting.Unlock()
		s.told(done)
	}
}

// openSpace sets up the bounds of c's folder and learns in the background what is kept.
func (c *Cache) openSpace() {
	c.space = &space{
		max: c.opts.MaxBytes, minFree: c.opts.MinFree, disk: c.disk, log: c.log,
		policy: evict.New(evict.Options{Capacity: c.opts.MaxBytes / 100 * lowPercent}),
		keep:   func(d v1.Hash) bool { return c.running(d) != nil || c.Pinned(d) || c.arriving.has(d) },
		later:  c.onlyCopy(),
		drop:   c.dropContent,
		loaded: make(chan struct{}),
		ages:   tally.NewHistogram(tally.Ages()),
		told: func(done evicted) {
			if done.blobs > 0 {
				c.event(Event{Kind: EventEvicted, Count: done.blobs, Bytes: done.bytes,
					Detail: "unused for " + done.unused.Round(time.Minute).String()})
			}
		},
	}
	c.index.RememberHints(func(d v1.Hash) uint8 {
		it, _ := c.space.policy.State(d)
		return uint8(it.Hint)
	})
	c.wg.Go(func() {
		defer close(c.space.loaded)
		defer func() {
			if c.space.policy.Len() > manyLoaded {
				// What a rebuild and the sorting used and nobody needs again is several times what
				// stays: it is given back now, not when the heap has doubled.
				debug.FreeOSMemory()
			}
		}()
		if c.index.Unclean() || c.doubtful {
			// A process that was killed between the rename of a file and its record left a
			// file that nothing would ever evict.
			added, dropped, err := c.index.Reconcile(c.ctx, c.disk)
			c.log.Info("index compared with the store after an unclean end", logkey.Count(added+dropped), logkey.Err(err))
		}
		c.loadPins() // so that it is a look into a map for those who evict
		c.space.policy.Load(func(yield func(evict.Item) bool) {
			err := c.index.Known(func(k index.Known) error {
				kind := evict.Blob
				if k.Manifest {
					kind = evict.Manifest
				}
				if !yield(evict.Item{Digest: k.Digest, Size: rounded(k.Size), Kind: kind, Used: k.Used, Hint: evict.Hint(k.Hint)}) {
					return errClosed
				}
				return c.ctx.Err()
			})
			if err != nil && c.ctx.Err() == nil {
				c.log.Error("kept content not listed: it will not be evicted", logkey.Err(err))
			}
		})
	})
}

// Loaded is closed once it is known what is kept, some time after Open: until then nothing
// is evicted, and fills wait.
func (c *Cache) Loaded() <-chan struct{} { return c.space.loaded }

// dropContent removes content for good. Links stay: they are still true, and the next
// request fetches the content again. Files that are being read stay readable. The file
// goes first: a record without its file is harmless, a file without record stays for ever.
func (c *Cache) dropContent(all []v1.Hash) error {
	var errs []error
	gone := all[:0:0]
	for _, d := range all {
		if err := c.disk.Remove(d); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, d)
		c.cool(d)
	}
	errs = append(errs, c.update(func(b *index.Batch) error {
		var errs []error
		for _, d := range gone {
			errs = append(errs, c.noteUse(b, d))
			errs = append(errs, b.DeleteBlob(d))
		}
		return errors.Join(errs...)
	}))
	return errors.Join(errs...)
}

// cool takes a manifest out of memory.
func (c *Cache) cool(d v1.Hash) {
	err := c.index.Holders(d, func(r index.Repo, k index.Kind) error {
		if k == index.Manifest {
			c.hot.Remove(hotKey(r, d))
		}
		return nil
	})
	if err != nil {
		c.log.Warn("holders not listed", logkey.Digest(d), logkey.Err(err))
	}
}

// dropOld removes what was not used for longer than the maximum age.
func (c *Cache) dropOld() {
	if c.opts.MaxAge <= 0 {
		return
	}
	<-c.space.loaded
	var old []v1.Hash
	for _, v := range c.space.policy.Unused(time.Now().Add(-c.opts.MaxAge), c.space.sure) {
		old = append(old, v.Digest)
	}
	for len(old) > 0 {
		batch := old[:min(len(old), dropBatch)]
		old = old[len(batch):]
		if err := c.dropContent(batch); err != nil {
			c.log.Error("old content not dropped", logkey.Err(err))
		}
		c.log.Info("old content dropped", logkey.Count(len(batch)))
		c.event(Event{Kind: EventEvicted, Count: int64(len(batch)), Detail: "unused for storage.max_age"})
	}
}

// useEvery bounds how often the use of a manifest is noted: eviction looks at days.
const useEvery = time.Minute

// useManifest notes that a manifest is used, and with it all that it refers to: clients
// skip the layers that they have, and shared ones would look idle.
func (c *Cache) useManifest(m *Manifest) {
	now, last := time.Now().Unix(), m.used.Load()
	if now-last < int64(useEvery/time.Second) || !m.used.CompareAndSwap(last, now) {
		return
	}
	c.use(m.Desc.Digest)
	c.space.policy.TouchRefs(m.refs...)
	for _, d := range m.refs {
		c.index.Touch(d)
	}
}

func (c *Cache) use(d v1.Hash) {
	c.index.Touch(d)
	c.space.policy.Touch(d)
}
