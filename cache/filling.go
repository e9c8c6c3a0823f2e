package cache

import (
	"context"
	"errors"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/event"
	"forebay/cache/fill"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/cache/tier"
	"forebay/internal/allowance"
	"forebay/internal/lane"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/sums"
	"forebay/internal/tracing"
	"forebay/internal/wire"
)

const (
	// bucketLanes is how many connections fills may have to the bucket, all together.
	bucketLanes = 64
	// bucketParallel is how many of them one fill may have.
	bucketParallel = 8
	// fillDoneLeast is how large a blob must be that its fill is worth an event.
	fillDoneLeast = 32 << 20
)

// source is where the bytes of a fill come from.
type source struct {
	repo   Repo
	origin *origin
	asker  pull.Asker       // on whose behalf, of who began the fill or joined it
	ranges []wire.ByteRange // all that is wanted; none means the whole
	bucket *tier.Source     // asked first; nil when the bucket has not got it
	urls   []string         // where a manifest says that it is too
}

// of returns the source of the blob d, whose connections have places in l.
func (s source) of(d v1.Hash, l *lane.Lane) fill.Source {
	open := func(ctx context.Context, off, end int64) (*pull.Body, error) {
		return s.open(pull.WithURLs(ctx, s.urls), d, off, end)
	}
	toEnd := func(r wire.ByteRange) bool { return r.First >= 0 && r.Last < 0 }
	return fill.Source{Repo: s.repo, Lane: l, Open: open, Piece: len(s.ranges) > 0 && !slices.ContainsFunc(s.ranges, toEnd)}
}

// sourceOf is of, with where the first piece is that is wanted, in a blob whose size a manifest
// or the registry told.
func (c *Cache) sourceOf(s source, d v1.Hash, l *lane.Lane) fill.Source {
	s.urls = c.store.URLs(s.repo, d)
	from := s.of(d, l)
	if !from.Piece {
		return from
	}
	size, ok := c.store.SizeGuess(s.repo, d)
	if said, claimed := c.claimed(s.repo, index.Blob, d); claimed && !ok {
		size = said.Size
	}
	if size > 0 {
		from.Size = size
		from.At, from.End, _ = s.ranges[0].Resolve(size)
	}
	return from
}

// open asks for the bytes [off, end) of d, see [Content].
func (s source) open(ctx context.Context, d v1.Hash, off, end int64) (*pull.Body, error) {
	if s.bucket != nil {
		if body, err := s.bucket.Open(ctx, d, off, end); body != nil || err != nil {
			return body, err
		}
	}
	if s.origin.offline() {
		return nil, offlineError(s.repo)
	}
	return s.origin.Upstream.OpenBlob(s.asker.In(ctx), s.repo.Name, d, off, end)
}

// errCommitted means that a fill ended well while its caller looked for it.
var errCommitted = errors.New("blob is there already")

// joinFill returns the fill of d in the trust domain of from, a new one when none is running.
// With proven its repository may have what others bring; with own it wants the bytes of its own
// registry, whatever is kept. Of ctx only its trace and its client
// go along: the fill belongs to nobody. The error is errCommitted when the blob has come
// within the domain since its caller looked.
func (c *Cache) joinFill(ctx context.Context, from source, d v1.Hash, proven, own bool) (*fill.Holder, Result, error) {
	res, src := Joined, c.sourceOf(from, d, from.origin.lane)
	h, _, err := c.fills.Join(d, from.origin.Trust, src, proven, func() (*fill.Fill, func(), error) {
		if _, kept := c.store.DiskSize(d); kept && !own && c.cameWithin(from.origin, from.repo, d, true) {
			if said, ok := c.claimed(from.repo, index.Blob, d); !proven || !ok || c.claim(from.origin, from.repo, said) {
				return nil, nil, errCommitted
			}
		}
		if n, _ := c.known.wrong.Get(blobKey(from.repo, d)); n >= wrongMost {
			return nil, nil, &pull.Error{Kind: pull.Invalid, Upstream: from.repo.Upstream, Op: "get blob " + from.repo.Name + "@" + d.String(),
				Message: "the upstream sent content with another digest twice in a row"}
		}
		ended, err := c.limits.Begin(ctx, from.repo.Upstream, from.repo.Name)
		if err != nil {
			return nil, nil, err
		}
		f, run, how, err := c.newFill(ctx, from, d)
		if err != nil {
			ended()
			return nil, nil, err
		}
		res = how
		return f, func() {
			defer ended()
			run()
		}, nil
	})
	return h, res, err
}

// newFill makes the fill of d, which run runs to its end.
func (c *Cache) newFill(ctx context.Context, from source, d v1.Hash) (f *fill.Fill, run func(), res Result, err error) {
	o := fill.Options{
		Digest: d, Domain: from.origin.Trust, Parallel: from.origin.Parallel, SizeGuess: -1, Room: c.store.Room, Memory: c.memory, MaxBytes: c.store.MaxBytes(),
		Partial:         func() (*disk.Partial, error) { return c.store.Disk.PartialOf(d, from.origin.Trust) },
		Resumes:         c.store.Disk.HasPartialOf(d, from.origin.Trust),
		CancelAbandoned: c.opts.CancelAbandoned, OnlyPieces: c.opts.OnlyRanges, Counts: &c.counts.fills, Log: c.log,
	}
	if size, ok := c.store.SizeGuess(from.repo, d); ok {
		o.SizeGuess = size
	}
	places := from.origin.lane
	res = Miss
	if from.bucket = c.bucketOf(from.repo, d); from.bucket != nil {
		places = c.bucketLane
		o.AtOnce, o.Parallel, o.SizeGuess, res = true, bucketParallel, from.bucket.Size, Hit
	}
	o.Source, o.Owner = c.sourceOf(from, d, places), fillOwner{c, from.bucket, d}
	f, download, err := fill.New(o)
	if err != nil {
		return nil, nil, "", err
	}
	life, span := tracing.Start(tracing.Carry(allowance.As(c.ctx, ctx), ctx), "fill", tracing.Upstream(from.repo.Upstream), tracing.Repository(from.repo.Name), tracing.Reference(d.String()))
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
	repo := f.Repo
	c.log.Info("blob cached", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Digest(f.Digest),
		logkey.Bytes(size), logkey.Took(took))
	if size >= fillDoneLeast {
		e := event.Of(event.FillDone, repo, f.Digest)
		e.Bytes, e.Detail = size, "in "+took.Round(time.Millisecond).String()
		c.store.Tell(e)
	}
}

// awaitKept waits for a blob that clients have and the store has not yet.
func (c *Cache) awaitKept(ctx context.Context, d v1.Hash) {
	if f := c.fills.Of(d); f != nil && f.Verified() {
		select {
		case <-f.Done():
		case <-ctx.Done():
		}
	}
}

// fillOwner takes in how a fill went.
type fillOwner struct {
	c      *Cache
	bucket *tier.Source
	digest v1.Hash
}

// Admit waits while too much is not on the disk yet.
func (o fillOwner) Admit() { o.c.store.Admit() }

// Keep makes a verified blob part of the store.
func (o fillOwner) Keep(repos []Repo, c fill.Content) (err error) {
	if c.Part == nil {
		err = o.c.store.KeepBytes(o.digest, c.Bytes, c.Reserved, repos...)
	} else {
		err = o.c.store.KeepFile(c.Part, c.File, c.Size, c.Reserved, repos...)
	}
	if err == nil {
		for _, repo := range repos {
			o.c.known.wrong.Remove(blobKey(repo, o.digest))
		}
	}
	return err
}

// Link notes that a further repository holds the blob.
func (o fillOwner) Link(repo Repo, size int64) error {
	return o.c.store.Link(repo, store.BlobLink(o.digest, size))
}

// Failed remembers what the next request for the blob or its repository should know.
func (o fillOwner) Failed(repo Repo, gave bool, err error) {
	c := o.c
	switch kind := pull.KindOf(err); {
	case errors.Is(err, store.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, store.ErrUnkept):
		c.log.Info("fill stopped", logkey.Digest(o.digest), logkey.Err(err))
		if errors.Is(err, store.ErrUnkept) {
			c.store.Wrote(err)
		}
		return
	case errors.Is(err, sums.ErrMismatch) && o.bucket.Gave():
		// The registry is not to blame. The next fill asks it.
		c.store.Bucket.Distrust(o.digest)
		return
	case errors.Is(err, sums.ErrMismatch) && c.opts.Fleet != nil && c.opts.Fleet.Distrust(o.digest):
		return
	case errors.Is(err, sums.ErrMismatch):
		if !gave {
			return // others sent that
		}
		o.Mismatched(repo, err)
		key := blobKey(repo, o.digest)
		n, _ := c.known.wrong.Get(key)
		c.known.wrong.Add(key, n+1)
	case kind == pull.NotFound, kind == pull.Denied, kind == pull.Overloaded:
		// What a client asked for in vain, or in too great a number, is its own affair: any
		// number of these may come, and must not push out what an operator relies on.
		c.log.Debug("fill refused", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Digest(o.digest), logkey.Err(err))
		return
	}
	if pull.Failing(err) {
		c.known.trouble.Add(repo, struct{}{})
	}
	c.log.Warn("fill failed", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Digest(o.digest), logkey.Err(err))
	c.store.Tell(event.Of(event.FillFailed, repo, o.digest).Because(err))
}

// Mismatched counts and tells of wrong content that went past the store, to nobody whole.
func (o fillOwner) Mismatched(repo Repo, err error) { o.c.mismatched(repo, o.digest, err) }

// mismatched counts and tells of content that an upstream sent without the digest d, which
// is zero where it was asked for by tag.
func (c *Cache) mismatched(repo Repo, d v1.Hash, err error) {
	c.counts.sentWrong.Add(1)
	c.store.Tell(event.Of(event.VerificationFailed, repo, d).Because(err))
}

// bucketOf returns the bucket as the source of a fill, nil if that has not got the blob. Only
// a repository that holds the blob gets it from there.
func (c *Cache) bucketOf(repo Repo, d v1.Hash) *tier.Source {
	size, ok := c.store.BucketSize(d)
	if !ok || !c.store.Linked(repo, index.Blob, d) || c.store.Bucket.Unreadable() {
		return nil
	}
	return c.store.Bucket.Source(size)
}
