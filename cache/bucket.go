package cache

import (
	"context"
	"errors"
	"io"
	"math"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/cache/tier"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

// bucketSizing asks the bucket once for the whole: it has no limits that pieces would keep
// to, and each request costs. Readers of far ranges get requests of their own.
var bucketSizing = sizing{first: math.MaxInt64 / 2, whole: math.MaxInt64, segment: math.MaxInt64 / 2, near: 1 << 20, block: readBlock}

const (
	// bucketLanes is how many connections fills may have to the bucket, all together.
	bucketLanes = 64
	// bucketParallel is how many of them one fill may have.
	bucketParallel = 8
	// supplyFaults of a bucket in one fill send it to the registry.
	supplyFaults = 3
)

// openTier puts the bucket behind the disk.
func (c *Cache) openTier(o tier.Options) {
	c.bucketLanes = newLanes(bucketLanes)
	c.tier = tier.New(o, tierOwner{c}, c.disk, c.index, c.log.Named("bucket"))
}

// tierOwner answers the tier.
type tierOwner struct{ c *Cache }

func (k tierOwner) Pinned(d v1.Hash) bool { return k.c.Pinned(d) }

// Busy reports whether a fill is in progress.
func (k tierOwner) Busy() bool {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return len(k.c.fills) > 0
}

// Changed makes an event of how the bucket does.
func (k tierOwner) Changed(what string, err error) {
	if err != nil {
		k.c.event(Event{Kind: EventDegraded, Detail: what + ": " + err.Error()})
		return
	}
	k.c.event(Event{Kind: EventRecovered, Detail: what})
}

// Damaged takes a file out that could not be uploaded, and fetches it again.
func (k tierOwner) Damaged(d v1.Hash) {
	if v := k.c.check(k.c.ctx, d, nil, nil); v.bad != nil {
		k.c.refetch(k.c.ctx, d)
	}
}

// SurveyBucket lists the bucket now, see [tier.Tier.Survey].
func (c *Cache) SurveyBucket(ctx context.Context) (tier.Survey, error) {
	if c.tier == nil {
		return tier.Survey{}, errors.New("there is no bucket")
	}
	return c.tier.Survey(ctx)
}

// inBucket returns the size of content that the bucket has. No request is made.
func (c *Cache) inBucket(d v1.Hash) (int64, bool) {
	if c.tier == nil {
		return 0, false
	}
	return c.tier.Has(d)
}

// storedSize returns the size of content that is on the disk or in the bucket: it can be
// served without its registry.
func (c *Cache) storedSize(d v1.Hash) (int64, bool) {
	if size, ok := c.keptSize(d); ok {
		return size, true
	}
	return c.inBucket(d)
}

// upload has content uploaded that is on the disk now.
func (c *Cache) upload(d v1.Hash, size int64) {
	if c.tier != nil {
		c.tier.Added(d, size)
	}
}

// onlyCopy returns what says whether a file is all there is, or nil without a bucket.
func (c *Cache) onlyCopy() func(v1.Hash) bool {
	if c.tier == nil {
		return nil
	}
	return c.tier.Pending
}

// noteUse writes the last use of what is evicted down beside its object.
func (c *Cache) noteUse(b *index.Batch, d v1.Hash) error {
	if c.tier == nil {
		return nil
	}
	used, err := c.tier.LastUse(d)
	if err != nil {
		return err
	}
	return b.NoteUse(d, used)
}

// supply is the bucket as the source of one fill. nil is none.
type supply struct {
	tier   *tier.Tier
	size   int64 // that the object must have
	used   atomic.Bool
	over   atomic.Bool // it is not asked any more
	faults atomic.Int32
}

// supply lets a fill that has not begun take its bytes from the bucket, if that has them.
// Only a repository that holds the blob gets here, see [Cache.possesses]. c.mu is held.
func (c *Cache) supply(t *fetcher) {
	size, ok := c.inBucket(t.digest)
	if !ok || !c.linked(t.source.repo, index.Blob, t.digest) || c.tier.Unreadable() {
		return
	}
	t.source.bucket = &supply{tier: c.tier, size: size}
	t.sizing, t.parallel, t.hint, t.lanes = bucketSizing, bucketParallel, size, c.bucketLanes
}

// gave reports whether bytes came from the bucket.
func (s *supply) gave() bool { return s != nil && s.used.Load() }

// open opens the bytes [off, end) of the object. Neither body nor error means that the
// registry is to be asked.
func (s *supply) open(ctx context.Context, d v1.Hash, off, end int64) (*pull.Body, error) {
	if s.over.Load() {
		return nil, nil
	}
	body, err := s.tier.Open(ctx, d, off, end)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		s.over.Store(true)
		if statusOf(err) == 416 {
			s.tier.Distrust(d) // it is shorter than it should be
		}
		return nil, nil
	}
	if body.Size >= 0 && body.Size != s.size {
		_ = body.Close() // nothing of it is used
		s.over.Store(true)
		s.tier.Distrust(d)
		return nil, nil
	}
	s.used.Store(true)
	body.ReadCloser = &supplied{ReadCloser: body.ReadCloser, s: s}
	return body, nil
}

func statusOf(err error) int {
	var e *pull.Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// supplied counts bodies that break off.
type supplied struct {
	io.ReadCloser
	s *supply
}

func (r *supplied) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) && r.s.faults.Add(1) >= supplyFaults {
		r.s.over.Store(true)
	}
	return n, err
}

// bucketManifest returns a manifest that repo holds and the bucket has, nil when it has
// not. It is on the disk then.
func (c *Cache) bucketManifest(ctx context.Context, repo Repo, d v1.Hash) *Manifest {
	if _, ok := c.inBucket(d); !ok {
		return nil
	}
	desc, ok := c.linkDesc(repo, d)
	if !ok {
		return nil
	}
	b, err := c.tier.Get(ctx, d, manifestMax)
	if err != nil {
		c.log.Debug("manifest not read from the bucket", logkey.Digest(d), logkey.Err(err))
		return nil
	}
	if err := matches(d, b); err != nil {
		c.tier.Distrust(d)
		return nil
	}
	m, err := c.keepManifest(repo, desc, b)
	if err != nil {
		return nil
	}
	return m.with(Hit)
}

// Redirect returns a URL from which a client may GET the blob d of repo itself, or "" when
// it is to be had here. The URL is as good as a key for a while: it must not be logged.
func (c *Cache) Redirect(ctx context.Context, repo Repo, d v1.Hash) (string, error) {
	if c.tier == nil || !c.tier.Redirecting() {
		return "", nil
	}
	size, ok := c.inBucket(d)
	if !ok || !c.tier.Redirects(size) || c.running(d) != nil {
		return "", nil
	}
	if _, here := c.keptSize(d); here {
		return "", nil
	}
	o, err := c.origin(repo)
	if err != nil {
		return "", err
	}
	if err := c.admitBlob(ctx, o, repo, d); err != nil {
		return "", err
	}
	if err := c.proveBlob(ctx, repo, d); err != nil {
		return "", err
	}
	return c.tier.Redirect(ctx, d, size), nil
}
