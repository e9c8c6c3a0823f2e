package cache

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
	"forebay/cache/index"
	"forebay/cache/tier"
)

// Options configures a [Cache]. Dir and Upstreams are required.
type Options struct {
	Dir string // storage folder; created when missing
	// IndexDir is a folder that takes the database of the index, as on a faster disk; it is
	// moved there. The journal, from which it can be rebuilt, stays in Dir. Empty means Dir.
	IndexDir  string
	Upstreams map[string]UpstreamOptions // by public name
	// MaxBytes is what the folder may hold, index and partial fills included: what is used
	// least is evicted ahead of need. Larger blobs are passed through. 0 means no limit.
	MaxBytes int64
	// MinFree is how many bytes of the file system are left free, whoever fills it. 0 means none.
	MinFree int64
	// MaxAge is how long content is kept that nobody uses. 0 means for ever.
	MaxAge time.Duration
	// RevalidateTimeout bounds how long a client waits for the confirmation of a tag that
	// is known; then it gets what is known. 0 means 2 s.
	RevalidateTimeout time.Duration
	// NegativeTTL is how long "not found" is remembered. 0 means 10 s, negative never.
	NegativeTTL time.Duration
	// CancelAbandoned ends a fill when its last reader leaves; what was fetched is kept
	// for a later resume. By default fills finish.
	CancelAbandoned bool
	// Pins are patterns of "docker.io/library/nginx:1.27": images of tags that match are not evicted.
	Pins []string
	// ScrubInterval is how long everything that is kept may go unread before it is compared
	// with its digest again. 0 means never.
	ScrubInterval time.Duration
	ScrubRate     int64 // bytes per second that this reads at most; 0 means 16 MiB
	// Bucket is a bucket behind the folder: all that is kept is uploaded, and what the folder
	// had to drop is read from there. nil means that there is none.
	Bucket *tier.Options
	Log    *zap.Logger // nil means no logging
	// OnEvent is told of what happens to what is kept and to the upstreams. It must not
	// block, nor call what asks an upstream. nil means that nobody is told.
	OnEvent func(Event)
	// Fault is asked before each change of the disk, for tests only: its error is returned
	// in place of making it. nil asks nobody.
	Fault func(step, name string) error
}

// Cache keeps what upstreams gave. Its methods may be called concurrently.
type Cache struct {
	opts      Options
	log       *zap.Logger
	disk      *disk.Store
	index     *index.Index
	tier      *tier.Tier // nil without a bucket
	upstreams map[string]*origin

	bucketLanes *lanes

	ctx  context.Context // life of fills and upstream calls; ended by Close
	stop context.CancelFunc
	wg   sync.WaitGroup // fills and upstream calls

	resolves  flights[resolved]
	manifests flights[*Manifest]
	stats     flights[int64]
	docs      flights[[]byte]
	hints     hints

	hot       *lru.Cache[string, *Manifest] // manifest bytes by link
	tags      *lru.Cache[string, *tagState] // tags as in the index
	sizes     *lru.Cache[v1.Hash, int64]    // blob sizes by manifest: hints
	unfetched *recent[v1.Hash, error]       // why manifests could not be fetched lately
	absent    *recent[string, error]        // negative answers; nil when off
	wrong     *recent[v1.Hash, int]         // mismatches in a row
	trouble   *recent[Repo, struct{}]       // repositories whose fill failed

	told     *recent[string, struct{}] // stale tags that the log told of lately
	spared   *recent[string, error]    // tags that are not asked for while the budget is low, and why
	counts   counts
	space    *space
	doubtful bool // the index may be older than the store
	pins     pins
	wants    wants
	arriving arrivals
	scrubbed atomic.Pointer[scrubState] // as of the last blob; nil while it is off

	reads, writes, records storeDoor
	looked                 looking

	mu       sync.Mutex
	fills    map[v1.Hash]*fill // guarded by mu; removed when ended
	verified map[proof]stamp   // guarded by mu; blobs whose digest was computed since the start
}

// counts is what happened since the start.
type counts struct {
	tagsMoved     atomic.Int64
	releasesMoved atomic.Int64 // tags of full versions, which nobody is expected to move
	fills         fillCounts
	broken        atomic.Int64 // transfers that ended early, of fills that went on
	resumed       atomic.Int64 // fills that went on with what one before had left
	passed        atomic.Int64 // readers that were served past the store
	sentWrong     atomic.Int64 // contents that came from an upstream without the digest asked for
	damaged       atomic.Int64 // blobs that were found not to have their digest any more
}

// Bounds of what is kept in memory; each entry is a few hundred bytes, but for hot,
// whose manifests are at most hotManifest bytes.
const (
	hotEntries  = 2048
	hotManifest = 64 << 10
	tagEntries  = 16384
	sizeEntries = 65536
	// troubleFor is how long the manifests of a repository whose fill failed answer 503
	// to clients that can only fall back there (facts/clients.md 0.1).
	troubleFor = time.Minute
	// toldFor is how often the log tells of one tag that is served stale: each pull of an
	// outage would fill it.
	toldFor = time.Minute
	// sparedFor is how long a tag that moved while the budget is low is not asked for again.
	sparedFor = time.Minute
	// wrongFor is how long a blob is refused that came wrong twice in a row.
	wrongFor  = 30 * time.Second
	wrongMost = 2
)

// Open opens the cache in o.Dir and rebuilds its index when that is missing or damaged.
// The caller starts Run once and calls Close at the end.
func Open(o Options) (*Cache, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.RevalidateTimeout == 0 {
		o.RevalidateTimeout = 2 * time.Second
	}
	if o.NegativeTTL == 0 {
		o.NegativeTTL = 10 * time.Second
	}
	store, err := disk.Open(o.Dir, o.Log)
	if err != nil {
		return nil, err
	}
	if o.Fault != nil {
		store.SetFault(func(step disk.Step, name string) error { return o.Fault(string(step), name) })
	}
	doubtful, err := o.placeIndex()
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	where := o.indexOptions()
	where.KeepGone = o.Bucket != nil // it is not listed now
	ix, err := index.OpenOrRebuild(context.Background(), where, store.Walk)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Cache{
		opts: o, log: o.Log, disk: store, index: ix, ctx: ctx, stop: stop,
		upstreams: make(map[string]*origin, len(o.Upstreams)),
		wrong:     newRecent[v1.Hash, int](1024, wrongFor),
		unfetched: newRecent[v1.Hash, error](4096, ailingFor),
		told:      newRecent[string, struct{}](4096, toldFor),
		spared:    newRecent[string, error](tagEntries, sparedFor),
		trouble:   newRecent[Repo, struct{}](4096, troubleFor),
		fills:     make(map[v1.Hash]*fill),
		verified:  make(map[proof]stamp),
	}
	c.doubtful = doubtful
	c.hot, _ = lru.New[string, *Manifest](hotEntries)
	c.tags, _ = lru.New[string, *tagState](tagEntries)
	c.sizes, _ = lru.New[v1.Hash, int64](sizeEntries)
	if o.NegativeTTL > 0 {
		c.absent = newRecent[string, error](65536, o.NegativeTTL)
	}
	if c.pins.patterns, err = compilePins(o.Pins); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	for name, u := range o.Upstreams {
		if c.upstreams[name], err = newOrigin(u); err != nil {
			return nil, errors.Join(fmt.Errorf("upstream %s: %w", name, err), c.Close())
		}
		if o.OnEvent != nil {
			c.upstreams[name].health.telling.tell = func(e Event) {
				e.Upstream = name
				c.event(e)
			}
		}
	}
	c.resolves = flights[resolved]{ctx: ctx, wg: &c.wg}
	c.manifests = flights[*Manifest]{ctx: ctx, wg: &c.wg}
	c.stats = flights[int64]{ctx: ctx, wg: &c.wg}
	c.docs = flights[[]byte]{ctx: ctx, wg: &c.wg}
	if o.Bucket != nil {
		c.openTier(*o.Bucket)
	}
	c.openSpace()
	c.openWants()
	return c, nil
}

// RebuildIndex makes the index of the storage folder o.Dir anew from its blobs and its
// journal of links and tags, and from the bucket behind it if there is one. No server may
// use the folder meanwhile. progress may be nil.
func RebuildIndex(ctx context.Context, o Options, progress func(index.Progress)) (done index.Progress, err error) {
	store, err := disk.Open(o.Dir, o.Log)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if _, err := o.placeIndex(); err != nil {
		return done, err
	}
	where := o.indexOptions()
	if o.Bucket != nil {
		where.Bucket = walkBucket(ctx, o.Bucket.Bucket)
	}
	return index.Rebuild(ctx, where, store.Walk, progress)
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
