package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/event"
	"forebay/cache/fill"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/cache/tier"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/sums"
	"forebay/internal/tracing"
)

const (
	// bucketLanes is how many connections fills may have to the bucket, all together.
	bucketLanes = 64
	// bucketParallel is how many of them one fill may have.
	bucketParallel = 8
	// bucketFaults of a bucket in one fill send it to the registry.
	bucketFaults = 3
	// fillDoneLeast is how large a blob must be that its fill is worth an event.
	fillDoneLeast = 32 << 20
)

// source is where the bytes of a fill come from.
type source struct {
	repo   Repo
	origin *origin
	hops   string      // mirrors that the request came through which began the fill
	bucket *fromBucket // asked first; nil when the bucket has not got it
}

// of returns the source of the blob d.
func (s source) of(d v1.Hash) fill.Source {
	return fill.Source{Repo: s.repo, Open: func(ctx context.Context, off, end int64) (*pull.Body, error) { return s.open(ctx, d, off, end) }}
}

// open asks for the bytes [off, end) of d, see [Content].
func (s source) open(ctx context.Context, d v1.Hash, off, end int64) (*pull.Body, error) {
	if s.bucket != nil {
		if body, err := s.bucket.open(ctx, d, off, end); body != nil || err != nil {
			return body, err
		}
		if s.origin.Offline {
			return nil, offlineError(s.repo)
		}
	}
	return s.origin.Upstream.OpenBlob(pull.WithHops(ctx, s.hops), s.repo.Name, d, off, end)
}

// errCommitted means that a fill ended well while its caller looked for it.
var errCommitted = errors.New("blob is there already")

// joinFill returns the fill of d, a new one when none is running. With recheck it looks
// whether one has just ended, and then returns errCommitted. Of ctx only its trace goes
// along: the fill belongs to no client.
func (c *Cache) joinFill(ctx context.Context, from source, d v1.Hash, recheck bool) (*Blob, error) {
	res := Joined
	f, _, err := c.fills.Join(d, func() (*fill.Fill, func(), error) {
		if _, kept := c.store.DiskSize(d); kept && recheck {
			return nil, nil, errCommitted
		}
		if n, _ := c.known.wrong.get(d); n >= wrongMost {
			return nil, nil, &pull.Error{Kind: pull.Invalid, Upstream: from.repo.Upstream, Op: "get blob " + from.repo.Name + "@" + d.String(),
				Message: "the upstream sent content with another digest twice in a row"}
		}
		var f *fill.Fill
		var run func()
		var err error
		f, run, res, err = c.newFill(ctx, from, d)
		return f, run, err
	})
	if err != nil {
		return nil, err
	}
	return onFill(f, -1, res), nil
}

// newFill makes the fill of d, which run runs to its end.
func (c *Cache) newFill(ctx context.Context, from source, d v1.Hash) (f *fill.Fill, run func(), res Result, err error) {
	o := fill.Options{
		Digest: d, Parallel: from.origin.Parallel, SizeGuess: -1, Lanes: from.origin.lanes, Room: c.store.Room, MaxBytes: c.store.MaxBytes(),
		Partial: func() (*disk.Partial, error) { return c.store.Disk.Partial(d) }, Resumes: c.store.Disk.HasPartial(d),
		CancelAbandoned: c.opts.CancelAbandoned, Counts: &c.counts.fills, Log: c.log,
	}
	if size, ok := c.store.SizeGuess(d); ok {
		o.SizeGuess = size
	}
	res = Miss
	if from.bucket = c.bucketOf(from.repo, d); from.bucket != nil {
		o.AtOnce, o.Parallel, o.SizeGuess, o.Lanes, res = true, bucketParallel, from.bucket.size, c.bucketLanes, Hit
	}
	o.Source, o.Owner = from.of(d), fillOwner{c, from, d}
	f, download, err := fill.New(o)
	if err != nil {
		return nil, nil, "", err
	}
	life, span := tracing.Start(tracing.Carry(c.ctx, ctx), "fill", tracing.Upstream(from.repo.Upstream), tracing.Repository(from.repo.Name), tracing.Reference(d.String()))
	f.Trace = span.Context()
	return f, func() {
		start := time.Now()
		err := download(life)
		if err == nil {
			c.tellFilled(f, time.Since(start))
		}
		span.End(err)
	}, res, nil
}

// tellFilled tells of a fill that ended well.
func (c *Cache) tellFilled(f *fill.Fill, took time.Duration) {
	size, _, _ := f.State()
	repo := f.Source.Repo
	c.log.Info("blob cached", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Digest(f.Digest),
		logkey.Bytes(size), logkey.Took(took))
	if size >= fillDoneLeast {
		e := event.Of(event.FillDone, repo, f.Digest)
		e.Bytes, e.Detail = size, "in "+took.Round(time.Millisecond).String()
		c.store.Tell(e)
	}
}

// fillOwner takes in how a fill went.
type fillOwner struct {
	c      *Cache
	from   source
	digest v1.Hash
}

// Commit makes a verified blob part of the store: synced and renamed, then indexed.
func (o fillOwner) Commit(_ *fill.Fill, part *disk.Partial, file *os.File, size int64) error {
	err := o.c.store.CommitBlob(part, file, size, o.from.repo)
	if err == nil {
		o.c.known.wrong.remove(o.digest)
	}
	return err
}

// Failed remembers what the next request for the blob or its repository should know.
func (o fillOwner) Failed(_ *fill.Fill, err error) {
	c, repo := o.c, o.from.repo
	switch {
	case errors.Is(err, store.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, store.ErrUnkept):
		c.log.Info("fill stopped", logkey.Digest(o.digest), logkey.Err(err))
		if errors.Is(err, store.ErrUnkept) {
			c.store.Wrote(err)
		}
		return
	case errors.Is(err, sums.ErrMismatch) && o.from.bucket.gave():
		// The registry is not to blame. The next fill asks it.
		c.store.Bucket.Distrust(o.digest)
		return
	case errors.Is(err, sums.ErrMismatch):
		o.Mismatched(err)
		n, _ := c.known.wrong.get(o.digest)
		c.known.wrong.add(o.digest, n+1)
	}
	if pull.Failing(err) {
		c.known.trouble.add(repo, struct{}{})
	}
	c.log.Warn("fill failed", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Digest(o.digest), logkey.Err(err))
	c.store.Tell(event.Of(event.FillFailed, repo, o.digest).Because(err))
}

// Mismatched counts and tells of wrong content that went past the store, to nobody whole.
func (o fillOwner) Mismatched(err error) { o.c.mismatched(o.from.repo, o.digest, err) }

// mismatched counts and tells of content that an upstream sent without the digest d, which
// is zero where it was asked for by tag.
func (c *Cache) mismatched(repo Repo, d v1.Hash, err error) {
	c.counts.sentWrong.Add(1)
	c.store.Tell(event.Of(event.VerificationFailed, repo, d).Because(err))
}

// fromBucket is the bucket as the source of one fill. nil is none.
type fromBucket struct {
	tier   *tier.Tier
	size   int64 // that the object must have
	used   atomic.Bool
	over   atomic.Bool // it is not asked any more
	faults atomic.Int32
}

// bucketOf returns the bucket as the source of a fill, nil if that has not got the blob. Only
// a repository that holds the blob gets it from there.
func (c *Cache) bucketOf(repo Repo, d v1.Hash) *fromBucket {
	size, ok := c.store.BucketSize(d)
	if !ok || !c.store.Linked(repo, index.Blob, d) || c.store.Bucket.Unreadable() {
		return nil
	}
	return &fromBucket{tier: c.store.Bucket, size: size}
}

// gave reports whether bytes came from the bucket.
func (s *fromBucket) gave() bool { return s != nil && s.used.Load() }

// open opens the bytes [off, end) of the object. Neither body nor error means that the
// registry is to be asked.
func (s *fromBucket) open(ctx context.Context, d v1.Hash, off, end int64) (*pull.Body, error) {
	if s.over.Load() {
		return nil, nil
	}
	body, err := s.tier.Open(ctx, d, off, end)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		s.over.Store(true)
		if pull.DetailOf(err) == pull.OutOfRange {
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
	body.ReadCloser = &bucketBody{ReadCloser: body.ReadCloser, s: s}
	return body, nil
}

// bucketBody counts bodies that break off.
type bucketBody struct {
	io.ReadCloser
	s *fromBucket
}

func (r *bucketBody) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) && r.s.faults.Add(1) >= bucketFaults {
		r.s.over.Store(true)
	}
	return n, err
}
