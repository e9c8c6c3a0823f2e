package store

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/event"
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
	// manyLoaded is from how many things on it is worth a collection to give memory back.
	manyLoaded = 100_000
	// dropBatch is how many records of the index are deleted at once.
	dropBatch = 256
)

// ErrNoRoom means that content does not fit into the store and not enough can be evicted.
var ErrNoRoom = fmt.Errorf("no room in the store: %w: %w", ErrUnkept, syscall.ENOSPC)

// errNeverFits means that it would not help to evict everything.
var errNeverFits = fmt.Errorf("%w: %w", ErrNoRoom, ErrTooLarge)

// Room keeps the storage folder within its bounds: a fill reserves what it will write
// before it writes it, and what is used least makes room. It never waits for the network.
type Room struct {
	s       *Store
	max     int64 // of the whole folder in bytes; 0 means no limit
	minFree int64 // of the file system, in bytes
	policy  *evict.Policy
	log     *zap.Logger
	load    sync.Once
	loaded  chan struct{} // closed when policy knows what is kept

	reserved atomic.Int64 // promised to fills in progress
	other    atomic.Int64 // index, journal and parked fills, as measured last

	fitted     int64      // capacity that the policy was told; only keepAhead uses it
	unmeasured string     // what was said last of what cannot be read there; only keepAhead uses it
	evicting   sync.Mutex // one eviction at a time
	counts     evictions
}

// evictions are what was evicted since the start.
type evictions struct {
	blobs, bytes atomic.Int64
	unsaved      atomic.Int64     // before they were uploaded
	ages         *tally.Histogram // how long what was evicted had not been used
}

func (s *Store) newRoom() *Room {
	return &Room{
		s: s, max: s.opts.MaxBytes, minFree: s.opts.MinFree, log: s.Log,
		policy: evict.New(evict.Options{Capacity: s.opts.MaxBytes / 100 * lowPercent}),
		loaded: make(chan struct{}),
		counts: evictions{ages: tally.NewHistogram(tally.Ages())},
	}
}

// mustStay reports whether d is not to be evicted now: it is pinned or in use.
func (r *Room) mustStay(d v1.Hash) bool {
	return r.s.hooks.Filling(d) || r.s.hooks.Pinned(d) || r.s.awaited.has(d)
}

// shouldStay is mustStay, and for what is not uploaded yet: it goes when nothing else is left.
func (r *Room) shouldStay(d v1.Hash) bool { return r.mustStay(d) || r.onlyCopy(d) }

// onlyCopy reports whether the file is all there is of content that belongs into the bucket.
func (r *Room) onlyCopy(d v1.Hash) bool { return r.s.Bucket != nil && r.s.Bucket.Pending(d) }

// rounded is what a file of n bytes takes on the disk.
func rounded(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// used is what the folder holds and is promised to hold.
func (r *Room) used() int64 { return r.policy.Bytes() + r.reserved.Load() + r.other.Load() }

// excess returns how many bytes are too many now, 0 or less when none are.
func (r *Room) excess() int64 {
	over := int64(-1)
	if r.max > 0 {
		over = r.used() - r.max
	}
	if r.minFree > 0 {
		free, _, err := r.s.Disk.Free()
		if err != nil {
			r.log.Warn("free space unknown", logkey.Err(err))
			return over
		}
		over = max(over, r.minFree+r.reserved.Load()-int64(min(free, 1<<62)))
	}
	return over
}

// Reservation is what one fill or import may write: of Room, or without bounds where that is nil.
type Reservation struct {
	Room *Room

	growing sync.Mutex
	bytes   int64
}

// Grow reserves size bytes in all, evicting for them if need be, and at least step more than
// there are. The error is ErrNoRoom when they cannot be had.
func (r *Reservation) Grow(ctx context.Context, size, step int64) error {
	if r.Room == nil {
		return nil
	}
	r.growing.Lock()
	defer r.growing.Unlock()
	if size <= r.bytes {
		return nil
	}
	more := max(size-r.bytes, step)
	if err := r.Room.reserve(ctx, more); err != nil {
		return err
	}
	r.bytes += more
	return nil
}

// Release gives back what was reserved, unless it was counted as content already.
func (r *Reservation) Release() {
	if r == nil || r.Room == nil {
		return
	}
	r.growing.Lock()
	defer r.growing.Unlock()
	r.Room.reserved.Add(-r.bytes)
	r.bytes = 0
}

// reserve promises n bytes, evicting for them if need be.
func (r *Room) reserve(ctx context.Context, n int64) error {
	if r.max <= 0 && r.minFree <= 0 {
		r.reserved.Add(n)
		return nil
	}
	if err := r.wait(ctx); err != nil {
		return err
	}
	if r.max > 0 && n > r.max {
		return errNeverFits
	}
	r.reserved.Add(n)
	// What would not fit if all were evicted is refused before anything is.
	if over := r.excess(); over > 0 && (over > r.policy.Bytes() || !r.makeRoom(over)) {
		r.reserved.Add(-n)
		return ErrNoRoom
	}
	return nil
}

// makeRoom evicts until nothing is too much, at least over bytes. When nothing else is
// left, what is not uploaded yet goes too: the registry has it, and the bound is hard.
func (r *Room) makeRoom(over int64) bool {
	var all evicted
	defer func() { r.tell(all) }() // after the lock is given back
	r.evicting.Lock()
	defer r.evicting.Unlock()
	if over > 0 && r.dropParked() {
		over = r.excess()
	}
	for over > 0 {
		some := r.evict(over, r.shouldStay)
		all.add(some)
		if some.bytes == 0 && r.s.Bucket != nil {
			some = r.evict(over, r.mustStay)
			r.counts.unsaved.Add(some.blobs)
			all.add(some)
		}
		if some.bytes == 0 {
			return false
		}
		over = r.excess()
	}
	return true
}

// parkedLeast is how long what fills left is kept in any case: whoever broke off comes back.
const parkedLeast = time.Hour

// dropParked drops what fills left that nobody came back to, and pieces of blobs that nobody
// reads any more. It reports whether that was anything.
func (r *Room) dropParked() bool {
	n, err := r.s.Disk.SweepPartials(time.Now().Add(-parkedLeast))
	if err != nil {
		r.log.Warn("partial fills not swept", logkey.Err(err))
	}
	if n == 0 {
		return false
	}
	if other, err := r.s.Disk.OtherBytes(); err == nil {
		r.other.Store(other)
	}
	return true
}

// evicted is what was dropped to make room.
type evicted struct {
	blobs, bytes int64
	unused       time.Duration // how long the last of it had not been used
}

func (e *evicted) add(more evicted) {
	e.blobs, e.bytes, e.unused = e.blobs+more.blobs, e.bytes+more.bytes, more.unused
}

// tell makes an event of each time that room was made.
func (r *Room) tell(done evicted) {
	if done.blobs > 0 {
		r.s.Tell(event.Event{Kind: event.Evicted, Count: done.blobs, Bytes: done.bytes,
			Detail: "unused for " + done.unused.Round(time.Minute).String()})
	}
}

// evict drops what is worth least but for what is to stay, at least need bytes if there are
// as many, and returns what it dropped. r.evicting is held.
func (r *Room) evict(need int64, stays func(v1.Hash) bool) (done evicted) {
	victims := r.policy.Victims(need, stays)
	for len(victims) > 0 {
		batch := victims[:min(len(victims), dropBatch)]
		victims = victims[len(batch):]
		names := make([]v1.Hash, len(batch))
		for i, v := range batch {
			names[i] = v.Digest
		}
		if err := r.s.drop(names); err != nil {
			r.log.Error("content not evicted", logkey.Err(err))
		}
		for _, v := range batch {
			if _, err := r.s.Disk.Stat(v.Digest); err == nil {
				r.policy.Add(v.Digest, v.Size, v.Kind) // it is still there
				continue
			}
			done.blobs++
			done.bytes += v.Size
			r.counts.blobs.Add(1)
			r.counts.bytes.Add(v.Size)
			r.counts.ages.Since(v.Used)
		}
	}
	if done.bytes > 0 {
		done.unused = r.policy.Age()
		r.log.Info("evicted", logkey.Bytes(done.bytes), logkey.Unused(done.unused))
	}
	return done
}

// add says that d is kept now, for which there was a reservation or nil: nothing counts twice.
func (r *Room) add(d v1.Hash, size int64, k evict.Kind, reserved *Reservation) {
	r.policy.Add(d, rounded(size), k)
	reserved.Release()
}

// hint is what the policy knows of d, for the index to keep over a restart.
func (r *Room) hint(d v1.Hash) uint8 {
	it, _ := r.policy.State(d)
	return uint8(it.Hint)
}

// run keeps ahead of need until ctx is done.
func (r *Room) run(ctx context.Context) {
	tick := time.NewTicker(spaceTick)
	defer tick.Stop()
	if r.wait(ctx) != nil {
		return
	}
	for {
		r.keepAhead()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// fit tells the policy how much there may be, so that its shares are parts of that: less
// than the maximum when what must stay free on the file system leaves less.
func (r *Room) fit() {
	most := r.max
	if r.minFree > 0 {
		free, _, err := r.s.Disk.Free()
		if err != nil {
			return // told of elsewhere
		}
		room := max(r.used()+int64(min(free, 1<<62))-r.minFree-r.reserved.Load(), 1)
		if most <= 0 || room < most {
			most = room
		}
	}
	capacity := most / 100 * lowPercent
	// The shares need no exactness, and to change them takes a lock.
	if off := capacity - r.fitted; most > 0 && (off > r.fitted/20 || -off > r.fitted/20) {
		r.fitted = capacity
		r.policy.Resize(capacity)
	}
}

// keepAhead evicts to the low watermark when the high one is passed.
func (r *Room) keepAhead() {
	defer r.fit()
	other, err := r.s.Disk.OtherBytes()
	r.other.Store(other)
	unmeasured := ""
	if err != nil {
		unmeasured = err.Error()
	}
	if unmeasured != r.unmeasured && err != nil {
		r.log.Warn("part of the storage folder not measured", logkey.Err(err))
	}
	r.unmeasured = unmeasured
	over := r.excess()
	if r.max > 0 && r.used() > r.max/100*highPercent {
		over = max(over, r.used()-r.max/100*lowPercent)
	}
	if over > 0 {
		r.Evict(over)
	}
}

// Evict drops what is worth least, at least need bytes if there are as many, and returns how
// many were freed. What is pinned, in use, awaited by an import or not uploaded yet stays.
func (r *Room) Evict(need int64) (freed int64) {
	r.evicting.Lock()
	done := r.evict(need, r.shouldStay)
	r.evicting.Unlock()
	r.tell(done)
	return done.bytes
}

// Counted returns how many files count towards the bounds, and what they take on the disk:
// once [Room.Loaded] is closed, all that is kept.
func (r *Room) Counted() (files int, bytes int64) { return r.policy.Len(), r.policy.Bytes() }

// Loaded is closed once it is known what is kept, some time after the store is first used:
// until then nothing is evicted, and fills wait.
func (r *Room) Loaded() <-chan struct{} {
	r.load.Do(func() {
		if !r.s.start(r.learn) {
			close(r.loaded)
		}
	})
	return r.loaded
}

// wait waits until it is known what is kept.
func (r *Room) wait(ctx context.Context) error {
	select {
	case <-r.Loaded():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// learn tells the policy what is kept.
func (r *Room) learn() {
	s := r.s
	defer close(r.loaded)
	defer func() {
		if r.policy.Len() > manyLoaded {
			// What a rebuild and the sorting used and nobody needs again is several times what
			// stays: it is given back now, not when the heap has doubled.
			debug.FreeOSMemory()
		}
	}()
	if s.Index.Unclean() || s.indexMayLag {
		// A process that was killed between the rename of a file and its record left a
		// file that nothing would ever evict.
		added, dropped, err := s.Index.Reconcile(s.ctx, s.Disk)
		r.log.Info("index compared with the store after an unclean end", logkey.Count(added+dropped), logkey.Err(err))
	}
	s.hooks.Gather()
	r.policy.Load(func(yield func(evict.Item) bool) {
		err := s.Index.Known(func(k index.Known) error {
			kind := evict.Blob
			if k.Manifest {
				kind = evict.Manifest
			}
			if !yield(evict.Item{Digest: k.Digest, Size: rounded(k.Size), Kind: kind, Used: k.Used, Hint: evict.Hint(k.Hint)}) {
				return ErrClosed
			}
			return s.ctx.Err()
		})
		if err != nil && s.ctx.Err() == nil {
			r.log.Error("kept content not listed: it will not be evicted", logkey.Err(err))
		}
	})
}
