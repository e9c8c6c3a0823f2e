// Package cache decides what is served from what is kept and what an upstream is asked for.
//
// It promises that no caller sees a complete body whose digest is not the one
// asked for, and that any number of callers of one thing cost one upstream request.
// It speaks no HTTP: the proxy above and the upstream below do.
//
// Below it are its floors: fill (one download and who reads it), store (what is kept), and
// image (what an image is made of). No lock of its own is held across I/O.
package cache

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"

	"forebay/cache/fill"
	"forebay/cache/health"
	"forebay/cache/image"
	"forebay/cache/store"
	"forebay/cache/vanished"
	"forebay/cache/wanted"
	"forebay/internal/allowance"
	"forebay/internal/flight"
	"forebay/internal/lane"
	"forebay/internal/pull"
	"forebay/internal/recent"
	"forebay/internal/tracing"
)

// Repo names a repository of an upstream: the scope of links and tags.
type Repo = store.Repo

// Result says how a request was answered, for logs and metrics.
type Result string

// The results. Joined means that another request's upstream fetch was shared.
const (
	Hit    Result = "hit"
	Joined Result = "joined"
	Miss   Result = "miss"
	Stale  Result = "stale"
	Passed Result = "passed" // streamed through without being kept
)

// Manifest is a manifest or index with its bytes as the upstream gave them.
type Manifest struct {
	Desc v1.Descriptor // media type, digest, size
	// Bytes are shared and must not be changed. They are nil when only a HEAD was
	// asked for and the content is not kept.
	Bytes  []byte
	Result Result
	// StaleFor is how long ago the tag should have been confirmed; 0 when it is fresh.
	StaleFor time.Duration
	// Since is when the tag that was asked for was first seen to point here; zero when not known.
	Since time.Time
}

// Listing is a list of tags: all of them, or a page.
type Listing struct {
	Tags   []string // shared, must not be changed; all are sorted, a page is as the upstream gave it
	Next   string   // query of the page after this one; "" if there is none
	Result Result
}

// Referrers are the descriptors of the manifests that refer to a digest.
type Referrers struct {
	Manifests []json.RawMessage // shared, must not be changed
	Result    Result
}

// Options configures a [Cache]. Store and Upstreams are required.
type Options struct {
	Store     store.Options
	Upstreams map[string]UpstreamOptions // by public name
	// RevalidateTimeout bounds how long a client waits for the confirmation of a tag that
	// is known; then it gets what is known. 0 means 2 s.
	RevalidateTimeout time.Duration
	// NegativeTTL is how long "not found" is remembered. 0 means 10 s, negative never.
	NegativeTTL time.Duration
	// CancelAbandoned ends a fill when its last reader leaves; what was fetched is kept
	// for a later resume. By default fills finish.
	CancelAbandoned bool
	// OnlyRanges fetches of a blob of which only ranges are asked for nothing but those, and keeps
	// them for a day after the last use. By default the whole is fetched.
	OnlyRanges bool
	Limits     allowance.Limits // of one client
	Budget     allowance.Budget // of each registry; nil: none is known
	Fleet      Fleet            // what other mirrors know; nil when there are none
	// Pins are patterns of "docker.io/library/nginx:1.27": images of tags that match are not evicted.
	Pins []string
}

// Fleet is what several mirrors know together.
type Fleet interface {
	// Confirm returns what a tag points to, and when its registry said so: as another mirror was told after
	// since and within ttl, or else by ask.
	Confirm(ctx context.Context, upstream, repo, tag string, since time.Time, ttl time.Duration, ask func(context.Context) (v1.Descriptor, error)) (v1.Descriptor, time.Time, error)
	// Spend waits for the turn to spend a pull of an upstream that no client waits for, which ends with done.
	// The error is ctx's.
	Spend(ctx context.Context, upstream string) (done func(), err error)
	// Distrust learns that a blob was wrong, and reports whether another mirror sent it.
	Distrust(d v1.Hash) bool
}

// Cache keeps what upstreams gave. Its methods may be called concurrently.
type Cache struct {
	opts       Options
	log        *zap.Logger
	store      *store.Store
	images     *image.Images
	drill      atomic.Int64                       // until when no upstream is asked; see Rehearse
	upstreams  atomic.Pointer[map[string]*origin] // see origins
	policy     atomic.Pointer[Policy]             // nil without rules
	unruled    Ruling                             // that of no rule
	bucketLane *lane.Lane

	ctx  context.Context // life of fills and upstream calls; ended by Close
	stop context.CancelFunc
	wg   sync.WaitGroup // fills and upstream calls

	fills  *fill.Set
	memory *fill.Memory
	calls  calls
	known  known
	limits *allowance.Clients
	hints  hints
	wanted *wanted.List
	gone   *vanished.List
	counts counts

	forgotten atomic.Int64 // tags taken out of the index
	heading   sync.Mutex   // held while known.headed changes
}

// calls are the upstream calls in progress.
type calls struct {
	resolves  flight.Group[key, resolved]
	manifests flight.Group[key, *Manifest]
	blobs     flight.Group[key, int64]
	lists     flight.Group[key, []byte]
	rulings   flight.Group[key, *Ruling]
}

// known is what is remembered of upstreams, in memory, for a while.
type known struct {
	tags      *lru.Cache[tagName, *tagState] // as in the index
	unfetched *recent.Map[key, error]        // why manifests could not be fetched lately
	absent    *recent.Map[key, error]        // negative answers; nil when off
	tagLists  *tagLists                      // decoded
	claims    *recent.Map[key, store.Link]   // what registries say that they hold, see claim
	wrong     *recent.Map[key, int]          // mismatches in a row
	trouble   *recent.Map[Repo, struct{}]    // repositories whose fill failed
	headed    *recent.Map[key, []string]     // tags that are known by a HEAD only, by what they point to
	moved     *recent.Map[tagName, error]    // tags that are not asked for while the budget is low, and why
	warned    *recent.Map[key, struct{}]     // what the log told of lately
}

// counts is what happened since the start.
type counts struct {
	fills         fill.Counts
	tagsMoved     atomic.Int64
	releasesMoved atomic.Int64 // tags of full versions, which nobody is expected to move
	sentWrong     atomic.Int64 // contents that came from an upstream without the digest asked for
}

const (
	// fillMemory is what small blobs may take, all together, until they are kept and sent.
	fillMemory = 16 << 20
	// tagEntries bounds the tags in memory; each takes a few hundred bytes.
	tagEntries = 16384
	// troubleFor is how long the manifests of a repository whose fill failed answer 503
	// to clients that can only fall back there (docs/clients.md).
	troubleFor = time.Minute
	// warnedFor is how often the log tells of one tag that is served stale: each pull of an
	// outage would fill it.
	warnedFor = time.Minute
	// movedFor is how long a tag that moved while the budget is low is not asked for again.
	movedFor = time.Minute
	// wrongFor is how long a blob is refused that came wrong twice in a row.
	wrongFor  = 30 * time.Second
	wrongMost = 2
)

// Open opens the cache in its folder and rebuilds its index when that is missing or damaged.
// It starts nothing: the caller starts Run once and calls Close at the end.
func Open(o Options) (*Cache, error) {
	if o.RevalidateTimeout == 0 {
		o.RevalidateTimeout = 2 * time.Second
	}
	if o.NegativeTTL == 0 {
		o.NegativeTTL = 10 * time.Second
	}
	kept, err := store.Open(o.Store)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Cache{
		opts: o, log: kept.Log, store: kept, ctx: ctx, stop: stop, bucketLane: lane.New(bucketLanes),
	}
	c.fills, c.memory = fill.NewSet(&c.wg), fill.NewMemory(fillMemory)
	c.calls = calls{
		resolves:  callsOf[resolved](c),
		manifests: callsOf[*Manifest](c),
		blobs:     callsOf[int64](c),
		lists:     callsOf[[]byte](c),
		rulings:   callsOf[*Ruling](c),
	}
	c.calls.blobs.Abandons = true // a HEAD that nobody waits for is worth nothing
	c.known = newKnown(o.NegativeTTL)
	c.limits = allowance.New(o.Limits, o.Budget)
	if c.images, err = image.New(kept, o.Pins, c.Configured); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	kept.SetHooks(store.Hooks{
		Filling: func(d v1.Hash) bool { return c.fills.Of(d) != nil }, Busy: c.fills.Busy, Kept: c.awaitKept,
		Pinned: c.images.Pins.Pinned, Gather: c.images.Pins.Gather,
		Restored: func() { c.images.Pins.List() },
	})
	c.upstreams.Store(&map[string]*origin{})
	if err := c.Configure(o.Upstreams, o.Limits); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.openWanted()
	if c.gone, err = vanished.Open(filepath.Join(o.Store.Dir, "vanished.json"), kept.Tell); err != nil {
		c.log.Warn("list of what has vanished is lost", zap.Error(err))
	}
	return c, nil
}

func newKnown(negativeTTL time.Duration) known {
	k := known{
		tagLists:  newTagLists(),
		claims:    recent.New[key, store.Link](claimEntries, claimFor),
		wrong:     recent.New[key, int](1024, wrongFor),
		unfetched: recent.New[key, error](4096, health.FailingFor),
		warned:    recent.New[key, struct{}](4096, warnedFor),
		headed:    recent.New[key, []string](tagEntries, claimFor),
		moved:     recent.New[tagName, error](tagEntries, movedFor),
		trouble:   recent.New[Repo, struct{}](4096, troubleFor),
	}
	k.tags, _ = lru.New[tagName, *tagState](tagEntries)
	if negativeTTL > 0 {
		k.absent = recent.New[key, error](65536, negativeTTL)
	}
	return k
}

// callsOf returns a group of upstream calls. Of the caller who begins one only the name of
// its client goes along, to whom it is charged, the mirrors that it came through, the types of
// manifests that it takes, and its trace.
func callsOf[T any](c *Cache) flight.Group[key, T] {
	return flight.Group[key, T]{Life: c.ctx, Work: &c.wg, Foreign: pull.Foreign, Carry: func(life, caller context.Context, left <-chan struct{}) context.Context {
		life = pull.WithUnwanted(allowance.As(life, caller), left)
		return tracing.Carry(pull.WithAccept(pull.AskerOf(caller).In(life), pull.Accept(caller)), caller)
	}}
}

// Run does the cache's work in the background until ctx is done.
func (c *Cache) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { c.refreshAhead(ctx) })
	work.Go(func() { c.keepWanted(ctx) })
	return c.store.Run(ctx)
}

// Close stops the fills, keeping what they have for a later start, and closes the store.
// Readers must be gone.
func (c *Cache) Close() error {
	c.store.Stop()
	c.fills.Close()
	c.stop()
	c.wg.Wait()
	var err error
	if c.wanted != nil { // it was opened whole
		err = errors.Join(c.wanted.Write(), c.gone.Write())
	}
	return errors.Join(err, c.store.Close())
}

// tooLate is what a caller gets whose own time is over.
func tooLate(ctx context.Context, repo Repo, op string) error {
	return &pull.Error{Kind: pull.Timeout, Upstream: repo.Upstream, Op: op, Err: ctx.Err()}
}
