// Package store keeps content: files on the disk, what the index knows of them, and the
// bucket behind both, as one.
//
// It promises that disk, index, bounds and bucket are never changed one without the others:
// there is one way to put content in, to open it, to take out what is damaged, to drop it
// and to link it to a repository. A file that it gives has had its digest when it was put;
// whether it still has is for who reads it, see [Store.Verified].
//
// Lock order: Room.evicting, then Store.mu, then the index's. None is held across I/O to
// the bucket.
package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"

	"forebay/cache/disk"
	"forebay/cache/event"
	"forebay/cache/index"
	"forebay/cache/refs"
	"forebay/cache/tier"
	"forebay/internal/logkey"
)

// Repo names a repository of an upstream: the scope of links and tags.
type Repo = index.Repo

var (
	// ErrUnkept: our own disk failed or is full; readers go on without the content being kept.
	ErrUnkept = errors.New("not kept")
	// ErrTooLarge: it will never fit, which is no fault of the disk.
	ErrTooLarge = fmt.Errorf("too large: %w", ErrUnkept)
	// ErrClosed: the program is stopping.
	ErrClosed = errors.New("cache is closed")
	// ErrNotKept means that nothing is known of what was asked for.
	ErrNotKept = errors.New("nothing is kept under this name")
	// ErrQuery means that a question cannot be answered as it was put.
	ErrQuery = errors.New("cannot be asked for")
)

// Options configures a [Store]. Dir is required.
type Options struct {
	Dir string // storage folder; created when missing
	// IndexDir is a folder that takes the database of the index, as on a faster disk; it is
	// moved there. The journal, from which it can be rebuilt, stays in Dir. Empty means Dir.
	IndexDir string
	// MaxBytes is what the folder may hold, index and partial fills included: what is used
	// least is evicted ahead of need. Larger blobs are passed through. 0 means no limit.
	MaxBytes int64
	// MinFree is how many bytes of the file system are left free, whoever fills it. 0 means none.
	MinFree int64
	// MaxAge is how long content is kept that nobody uses. 0 means for ever.
	MaxAge time.Duration
	// Bucket is a bucket behind the folder: all that is kept is uploaded, and what the folder
	// had to drop is read from there. nil means that there is none.
	Bucket *tier.Options
	Log    *zap.Logger // nil means no logging
	// OnEvent is told of what happens to what is kept and to the upstreams. It must not
	// block, nor call what asks an upstream. nil means that nobody is told.
	OnEvent func(event.Event)
	// Fault is asked before each change of the disk, for tests only: its error is returned
	// in place of making it. nil asks nobody.
	Fault func(step, name string) error
}

// Hooks are what the store asks of the cache. All are required.
type Hooks struct {
	// Filling reports whether a download of d is in progress, and Busy whether any is.
	Filling func(d v1.Hash) bool
	Busy    func() bool
	// Kept waits for a verified blob that is on its way to the disk, if d is one.
	Kept func(ctx context.Context, d v1.Hash)
	// Pinned reports whether d must be kept. It looks into a map: pins are gathered by
	// Gather, before anything is evicted.
	Pinned func(d v1.Hash) bool
	Gather func()
	// Restored is told that links, tags and pins came from the bucket.
	Restored func()
}

// Store keeps content. Its methods may be called concurrently.
type Store struct {
	// Disk, Index and Bucket are for reading. What changes content goes through the store.
	Disk   *disk.Store
	Index  *index.Index
	Bucket *tier.Tier // nil without a bucket
	Refs   *refs.Refs // links, tags and pins in the bucket; nil without one
	Room   *Room
	Log    *zap.Logger

	opts        Options
	hooks       Hooks
	onDamaged   func(v1.Hash)
	indexMayLag bool // the index may be older than the disk
	manifests   *lru.Cache[linkKey, *Manifest]
	taken       atomic.Int64                  // out of manifests, so far
	sizes       *lru.Cache[linkKey, int64]    // of blobs, as manifests say: guesses
	urls        *lru.Cache[linkKey, []string] // of foreign layers, as manifests say
	rereading   sync.Mutex                    // held while the kept manifests of a repository are read
	reread      *lru.Cache[Repo, struct{}]    // repositories of which that was done
	awaited     awaited
	damaged     atomic.Int64 // blobs that were found not to have their digest any more
	health      health
	willSettle  atomic.Bool // a settling is due
	settling    sync.Mutex  // one settling at a time

	ctx  context.Context // ended by Stop
	stop context.CancelFunc
	wg   sync.WaitGroup // of looks at the disk, the loading, and what settles

	mu       sync.Mutex
	verified map[ShortDigest]Stamp // guarded by mu; blobs whose digest was computed since the start
}

// linkKey is a digest in a repository.
type linkKey struct {
	repo   Repo
	digest v1.Hash
}

// Bounds of what is kept in memory; each entry is a few hundred bytes, but for manifests,
// which are at most hotManifest bytes.
const (
	hotEntries    = 2048
	hotManifest   = 64 << 10
	sizeEntries   = 65536
	urlEntries    = 1024
	rereadEntries = 8192
)

// Open opens the store in o.Dir and rebuilds its index when that is missing or damaged. It
// starts nothing: the caller sets the hooks, starts Run once, and calls Stop and Close at
// the end.
func Open(o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	files, err := disk.Open(o.Dir, o.Log)
	if err != nil {
		return nil, err
	}
	if o.Fault != nil {
		files.SetFault(func(step disk.Step, name string) error { return o.Fault(string(step), name) })
	}
	indexMayLag, err := o.placeIndex(files)
	if err != nil {
		return nil, errors.Join(err, files.Close())
	}
	where := o.indexOptions()
	where.KeepGone = o.Bucket != nil // it is not listed now
	ix, err := index.OpenOrRebuild(context.Background(), where, files.Walk)
	if err != nil {
		return nil, errors.Join(err, files.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{Disk: files, Index: ix, Log: o.Log, opts: o, hooks: noHooks(), indexMayLag: indexMayLag, ctx: ctx, stop: stop, verified: map[ShortDigest]Stamp{}}
	s.manifests, _ = lru.New[linkKey, *Manifest](hotEntries)
	s.sizes, _ = lru.New[linkKey, int64](sizeEntries)
	s.urls, _ = lru.New[linkKey, []string](urlEntries)
	s.reread, _ = lru.New[Repo, struct{}](rereadEntries)
	if o.Bucket != nil {
		s.Bucket = tier.New(*o.Bucket, tierOwner{s}, files, ix, o.Log.Named("bucket"))
		s.Refs, err = refs.New(refs.Options{
			Files: s.Bucket, Index: ix, Dir: o.Dir, Identity: o.Bucket.Identity, Every: o.Bucket.RefsEvery,
			Found: s.Bucket.Expect, Restored: func() { s.hooks.Restored() }, Log: o.Log.Named("bucket"),
		})
		if err != nil {
			stop()
			return nil, errors.Join(err, ix.Close(), files.Close())
		}
	}
	s.Room = s.newRoom()
	ix.RememberHints(s.Room.hint)
	return s, nil
}

// noHooks are those of a store that nobody fills and pins.
func noHooks() Hooks {
	never := func(v1.Hash) bool { return false }
	return Hooks{Filling: never, Kept: func(context.Context, v1.Hash) {}, Pinned: never, Busy: func() bool { return false }, Gather: func() {}, Restored: func() {}}
}

// SetHooks says what the store asks of others. It is called once, before anything else.
func (s *Store) SetHooks(h Hooks) { s.hooks = h }

// AwaitKept waits for d, or for the end of ctx, if clients have it already and it is on its way to the disk.
func (s *Store) AwaitKept(ctx context.Context, d v1.Hash) { s.hooks.Kept(ctx, d) }

// OnDamaged sets who is told of a file that seems not to have its digest any more. It is
// called before Run.
func (s *Store) OnDamaged(fn func(d v1.Hash)) { s.onDamaged = fn }

// RebuildIndex makes the index of the storage folder o.Dir anew from its blobs and its
// journal of links and tags, and from the bucket behind it if there is one. No server may
// use the folder meanwhile. progress may be nil.
func RebuildIndex(ctx context.Context, o Options, progress func(index.Progress)) (done index.Progress, err error) {
	files, err := disk.Open(o.Dir, o.Log)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	if _, err := o.placeIndex(files); err != nil {
		return done, err
	}
	where := o.indexOptions()
	if o.Bucket != nil {
		where.Bucket = walkBucket(ctx, o.Bucket.Bucket)
	}
	return index.Rebuild(ctx, where, files.Walk, progress)
}

// walkBucket returns a walk over the objects of a bucket.
func walkBucket(ctx context.Context, b tier.Objects) index.WalkFunc {
	return func(fn func(v1.Hash, int64, time.Time) error) error {
		return tier.EachShard(ctx, b, func(_ string, all []tier.Object) error {
			for _, o := range all {
				if err := fn(o.Digest, o.Size, o.Stamp); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

const (
	// PartialAge is how long a partial fill waits to be asked for again.
	PartialAge = 24 * time.Hour
	sweepEvery = time.Hour
)

// Run does the store's work until ctx is done: it writes what was gathered in memory, keeps
// the folder within its bounds, uploads, heals, and sweeps partial fills that nobody asked
// for again.
func (s *Store) Run(ctx context.Context) error {
	errs := make(chan error, 1)
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { errs <- s.Index.Run(ctx) })
	work.Go(func() { s.Room.run(ctx) })
	work.Go(func() { s.heal(ctx) })
	if s.Bucket != nil {
		work.Go(func() { s.Bucket.Run(ctx) })
		work.Go(func() { s.Refs.Run(ctx) })
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		s.dropOld(ctx)
		if _, err := s.Disk.SweepPartials(time.Now().Add(-PartialAge)); err != nil {
			s.Log.Warn("old partial fills not swept", logkey.Err(err))
		}
		select {
		case <-tick.C:
		case err := <-errs:
			return err
		}
	}
}

// restoreMost is how long a start waits for what the bucket knows.
const restoreMost = 2 * time.Minute

// Restore gives a folder that was empty the links, tags and pins that the bucket knows. It is called
// before clients are served, so that they need not ask registries for what is there. When the bucket
// does not answer, Run tries it again.
func (s *Store) Restore(ctx context.Context) {
	if s.Refs == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, restoreMost)
	defer cancel()
	if err := s.Refs.Restore(ctx); err != nil {
		s.Log.Warn("started without what the bucket knows", logkey.Err(err))
	}
}

// Stop says that the program ends: what fails from now on is no news, and nothing begins.
func (s *Store) Stop() {
	s.mu.Lock() // so that nothing is started once Close waits
	defer s.mu.Unlock()
	s.stop()
}

// Close closes index and disk after Stop. Whoever uses the store must be gone.
func (s *Store) Close() error {
	s.Stop()
	s.wg.Wait()
	return errors.Join(s.Index.Close(), s.Disk.Close())
}

// start runs fn in a goroutine that Close waits for, unless the store is being closed.
func (s *Store) start(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.wg.Go(fn)
	return true
}

// Tell tells of an event. No lock is held that methods of the cache take.
func (s *Store) Tell(e event.Event) {
	if s.opts.OnEvent == nil || s.ctx.Err() != nil {
		return
	}
	e.At = time.Now()
	s.opts.OnEvent(e)
}

// Dir returns the storage folder.
func (s *Store) Dir() string { return s.opts.Dir }

// MaxBytes returns what the folder may hold; 0 means any number of bytes.
func (s *Store) MaxBytes() int64 { return s.opts.MaxBytes }
