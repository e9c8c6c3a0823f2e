package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/event"
	"forebay/cache/fill"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/internal/sums"
	"forebay/internal/tracing"
	"forebay/internal/wire"
)

// Blob is a blob opened for one reader, who must call Close. It is complete on disk
// (File is not nil) or still arriving (use Send).
type Blob struct {
	Digest v1.Hash
	Size   int64 // bytes; -1 while the upstream has not said
	Result Result

	file *os.File
	fill *fill.Holder
}

// File returns the verified file of a complete blob, positioned at its start, or nil
// while the blob is arriving. It stays open until Close.
func (b *Blob) File() *os.File { return b.file }

// Send writes the bytes [off, end) to w as they arrive, end -1 being the blob's end.
// It returns how many it wrote, and nil only when that is all of them. The last byte of the
// whole, or up to an end of -1, is not written before the digest of the whole is right; another
// piece is, since who asks for it verifies it. After an error w has a prefix: the caller must
// end its body short.
func (b *Blob) Send(ctx context.Context, w io.Writer, off, end int64) (int64, error) {
	if end < 0 {
		end = fill.ToEnd
	}
	if b.file == nil {
		return b.fill.Send(ctx, w, off, end)
	}
	if _, err := b.file.Seek(off, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read blob %s: %w", b.Digest, err)
	}
	return io.CopyN(w, b.file, min(end, b.Size)-off)
}

// Close lets go of the blob. A fill that has brought anything goes on without its readers.
func (b *Blob) Close() error {
	if b.fill != nil {
		b.fill.LetGo()
		b.fill = nil
	}
	if b.file != nil {
		return b.file.Close()
	}
	return nil
}

// errOtherWay is an error that is about another's request: see [pull.Foreign].
var errOtherWay = errors.New("asked on behalf of another")

// Blob opens the blob d of repo for reading: from the disk, from a fill in progress, or
// from a new one. It returns when the blob's size is known, or that it cannot be. ranges are all
// that is wanted of it; none means the whole.
func (c *Cache) Blob(ctx context.Context, repo Repo, d v1.Hash, ranges ...wire.ByteRange) (*Blob, error) {
	o, err := c.origin(repo)
	if err != nil {
		return nil, err
	}
	if err := c.admitBlob(ctx, o, repo, d); err != nil {
		return nil, err
	}
	from := source{repo: repo, origin: o, asker: pull.AskerOf(ctx), ranges: ranges}
	for ended, again := 0, false; ; {
		b, err := c.openBlob(ctx, from, d)
		switch {
		case errors.Is(err, fill.ErrAbandoned) && ended < abandonedMost:
			ended++ // it ended as this one came
		case !again && (errors.Is(err, sums.ErrMismatch) || errors.Is(err, errOtherWay)):
			// A damaged file, a wrong answer nobody has seen a byte of yet, or what was said to
			// another who asked: once more.
			again = true
		default:
			return b, err
		}
		if err := c.awaitEnd(ctx, repo, d, c.fills.Ending(d, o.Trust)); err != nil {
			return nil, err
		}
	}
}

// abandonedMost is how often in a row a reader may come as a fill ends: each waits for the end.
const abandonedMost = 8

// awaitEnd waits until f, of d, has ended, if there is one, so that another can begin.
func (c *Cache) awaitEnd(ctx context.Context, repo Repo, d v1.Hash, f *fill.Fill) error {
	if f == nil {
		return nil
	}
	select {
	case <-f.Done():
		return nil
	case <-ctx.Done():
		return tooLate(ctx, repo, "get blob "+repo.Name+"@"+d.String())
	}
}

// blobLooks bounds how often a request looks again at what has changed since it looked.
const blobLooks = 4

// openBlob is one try of Blob. What others do in between is seen by the steps themselves, each
// of which takes a fill or a file only with the right to it: then it looks again.
func (c *Cache) openBlob(ctx context.Context, from source, d v1.Hash) (b *Blob, err error) {
	o, repo := from.origin, from.repo
	var headErr error // of a HEAD that says nothing of the blob
	for range blobLooks {
		right, claimed := c.right(o, repo, index.Blob, d)
		b, err = c.runningBlob(ctx, from, d, claimed)
		if b == nil && err == nil && right {
			b, err = c.keptBlob(ctx, o, repo, d)
		}
		if b == nil && err == nil {
			b, err = c.missingBlob(ctx, from, d, right, claimed, headErr != nil)
		}
		switch {
		case errors.Is(err, fill.ErrUnproven) && !right && c.store.Linked(repo, index.Blob, d):
			// It has arrived since we looked: look again.
		case errors.Is(err, fill.ErrUnproven) && headErr != nil:
			return nil, headErr
		case errors.Is(err, fill.ErrUnproven) && c.store.FindURLs(repo, d):
			if err := c.awaitEnd(ctx, repo, d, c.fills.Of(d)); err != nil {
				return nil, err
			}
		case errors.Is(err, fill.ErrUnproven):
			if _, _, headErr = c.headBlob(ctx, o, repo, d); decides(ctx, headErr) {
				return nil, headErr
			}
		case !errors.Is(err, errCommitted):
			return b, err
		}
	}
	return nil, &pull.Error{Kind: pull.Unavailable, Upstream: repo.Upstream, Op: "get blob " + repo.Name + "@" + d.String(), Err: err}
}

// foreign reports whether d is a foreign layer, of which a HEAD says only that the registry has it not.
func (c *Cache) foreign(repo Repo, d v1.Hash) bool { return len(c.store.URLs(repo, d)) > 0 }

// decides reports whether the error of a HEAD is the answer to a GET too. Registries refuse and
// fail HEADs of what they give.
func decides(ctx context.Context, err error) bool {
	if err == nil {
		return false
	}
	switch pull.KindOf(err) {
	case pull.NotFound, pull.Limited, pull.Overloaded, pull.Timeout:
		return true
	}
	return ctx.Err() != nil
}

// runningBlob opens a blob that is arriving; nil when there is no fill of it.
func (c *Cache) runningBlob(ctx context.Context, from source, d v1.Hash, proven bool) (*Blob, error) {
	if c.fills.Of(d) == nil { // nearly always; the look that counts is that of Join
		return nil, nil
	}
	h, _, err := c.fills.Join(d, from.origin.Trust, from.of(d, from.origin.lane), proven, nil)
	if h == nil || err != nil {
		return nil, err
	}
	return c.ready(ctx, from.repo, h, Joined)
}

// missingBlob opens a blob that is not to be had here, by a fill. asked is whether a HEAD was
// of no use.
func (c *Cache) missingBlob(ctx context.Context, from source, d v1.Hash, right, claimed, asked bool) (*Blob, error) {
	o, repo := from.origin, from.repo
	_, stored := c.store.BucketSize(d)
	stored = right && (stored || o.offline() && c.store.Disk.HasWholeOf(d, o.Trust))
	if o.offline() && !stored {
		return nil, c.offlineMiss(ctx, repo, "", d, true)
	}
	key := blobKey(repo, d)
	if err, ok := c.recall(key); ok && !stored {
		return nil, err
	}
	foreign := c.foreign(repo, d)
	if _, named := c.store.SizeGuess(repo, d); !claimed && !asked && !foreign && (!named || c.keptWithin(o, repo, d)) {
		// A HEAD is free, and anybody can make up a digest. It proves what is here already, too.
		return nil, fill.ErrUnproven
	}
	h, res, err := c.joinFill(ctx, from, d, claimed, asked || foreign)
	if err != nil {
		return nil, err
	}
	b, err := c.ready(ctx, repo, h, res)
	c.remember(key, err)
	return b, c.orAbsent(o, key, err)
}

// ready returns a blob that reads from h, once the first answer is in, and for small blobs the
// whole is verified. It lets go of h when it returns an error.
func (c *Cache) ready(ctx context.Context, repo Repo, h *fill.Holder, res Result) (_ *Blob, err error) {
	ctx, span := tracing.Start(ctx, "wait for fill", tracing.Reference(h.Digest.String()), tracing.Result(string(res)))
	span.Link(h.Trace)
	defer func() {
		span.End(err)
		if err != nil {
			h.LetGo()
		}
	}()
	whole := h.Verified() // before it waits
	size, err := h.Ready(ctx, fill.Small)
	if said, ok := c.claimed(repo, index.Blob, h.Digest); err == nil && res == Joined && h.Repo != repo &&
		ok && size >= 0 && said.Size >= 0 && said.Size != size && !c.store.Linked(repo, index.Blob, h.Digest) {
		err = &pull.Error{Kind: pull.Invalid, Upstream: repo.Upstream, Op: "get blob " + repo.Name + "@" + h.Digest.String(),
			Message: "its registry tells another size than the blob has"} // so that its word proves nothing
	}
	switch {
	case err == nil && whole && res == Joined:
		res = Hit // nobody waited: what came is just being kept
	case err == nil:
	case errors.Is(err, store.ErrUnkept):
		res = Passed
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil, tooLate(ctx, repo, "get blob "+repo.Name+"@"+h.Digest.String())
	case res == Joined && pull.Foreign(err):
		return nil, fmt.Errorf("%w: %w", errOtherWay, err)
	default:
		return nil, err
	}
	return &Blob{Digest: h.Digest, Size: size, Result: res, fill: h}, nil
}

// keptBlob opens a committed blob that repo has a right to: nil without error when there is
// none. One that was not verified since the start is verified beside its first reading.
func (c *Cache) keptBlob(ctx context.Context, o *origin, repo Repo, d v1.Hash) (*Blob, error) {
	file, size := c.store.Blob(d)
	if file == nil {
		return nil, nil // fetch it, again if need be
	}
	if c.store.Verified(d, store.StampOf(file)) && !disk.Shared(file) {
		return &Blob{Digest: d, Size: size, Result: Hit, file: file}, nil
	}
	h, err := c.verifyKept(source{repo: repo, origin: o}, d, file, size)
	if err != nil {
		return nil, err
	}
	return c.ready(ctx, repo, h, Hit)
}

// verifyKept starts to compute the digest of a file, which it takes over, and returns what
// is held of that. Should the disk fail, readers go on from src.
func (c *Cache) verifyKept(src source, d v1.Hash, file *os.File, size int64) (*fill.Holder, error) {
	found := store.StampOf(file)
	begun, from := false, src.of(d, nil)
	h, _, err := c.fills.Join(d, "", from, true, func() (*fill.Fill, func(), error) {
		begun = true
		f, run, err := fill.Verify(fill.Verification{
			Digest: d, Source: from, File: file, Size: size, Counts: &c.counts.fills, Log: c.log,
			Reopen: func() (*os.File, error) {
				file, _, err := c.store.Disk.Blob(d)
				return file, err
			},
			Judged: func(err error) {
				switch {
				case err == nil:
					c.store.SetVerified(d, found)
				case errors.Is(err, store.ErrUnkept):
					c.store.Unreadable(d, err)
				case errors.Is(err, sums.ErrMismatch):
					c.store.Tell(event.Of(event.VerificationFailed, src.repo, d).Because(err))
					c.store.Condemn(d, file, err)
				}
			},
		})
		return f, func() { run(c.ctx) }, err
	})
	if !begun {
		file.Close()
	}
	return h, err
}

// StatBlob returns the size of the blob d of repo without fetching it: of one that is not kept as
// its registry has told it lately, or a manifest of repo, or, while the registry fails, as it
// told it last.
func (c *Cache) StatBlob(ctx context.Context, repo Repo, d v1.Hash) (size int64, res Result, err error) {
	o, err := c.origin(repo)
	if err != nil {
		return 0, "", err
	}
	if err := c.admitBlob(ctx, o, repo, d); err != nil {
		return 0, "", err
	}
	if link, linked := c.store.LinkOf(repo, index.Blob, d); linked {
		size, ok := c.store.Size(d)
		if ok && (link.Size < 0 || link.Size == size || c.store.WasVerified(d)) {
			return size, Hit, nil
		}
		if link.Size >= 0 && c.fills.Of(d) != nil {
			return link.Size, Joined, nil
		}
	}
	if o.offline() {
		return 0, "", c.offlineMiss(ctx, repo, "", d, true)
	}
	key := blobKey(repo, d)
	if proven, _ := o.access.state(repo.Name); proven {
		if err, ok := c.recall(key); ok {
			return 0, "", err
		}
		if said, claimed := c.claimed(repo, index.Blob, d); claimed && said.Size >= 0 {
			return said.Size, Hit, nil
		}
		if size, named := c.store.SizeGuess(repo, d); named {
			return size, Hit, nil
		}
	}
	size, joined, err := c.headBlob(ctx, o, repo, d)
	if last, told := c.known.claims.Last(key, 0); err != nil && told && last.Size >= 0 && pull.Failing(err) && pull.DetailOf(err) == pull.NoDetail {
		return last.Size, Stale, nil
	}
	if joined {
		return size, Joined, err
	}
	return size, Miss, err
}

// progressEvery is how often progress is told.
const progressEvery = 250 * time.Millisecond

// FetchBlob makes sure that a blob is kept and linked. arrived is told of the bytes of it
// that come. The result is Joined when the fill had been begun for another.
func (c *Cache) FetchBlob(ctx context.Context, repo Repo, d v1.Hash, arrived func(bytes int64)) (Result, error) {
	b, err := c.Blob(ctx, repo, d)
	if err != nil {
		return "", err
	}
	defer func() { _ = b.Close() }() // only read from
	if b.file != nil {
		return b.Result, nil
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	var reported int64
	for {
		over := false
		select {
		case <-b.fill.Done():
			over = true
		case <-ctx.Done():
			return "", ctx.Err()
		case <-tick.C:
		}
		have, err := b.fill.Arrived()
		if b.Result != Hit { // then it is only being verified
			arrived(have - reported)
			reported = have
		}
		if !over {
			continue
		}
		if errors.Is(err, store.ErrUnkept) {
			return "", fmt.Errorf("blob %s does not fit into the store: %w", d, err)
		}
		return b.Result, err
	}
}

// Redirect returns a URL from which a client may GET the blob d of repo itself, or "" when
// it is to be had here. The URL is as good as a key for a while: it must not be logged.
func (c *Cache) Redirect(ctx context.Context, repo Repo, d v1.Hash) (string, error) {
	if c.store.Bucket == nil || !c.store.Bucket.Redirecting() {
		return "", nil
	}
	size, ok := c.store.BucketSize(d)
	if !ok || !c.store.Bucket.Redirects(size) || c.fills.Of(d) != nil {
		return "", nil
	}
	if _, here := c.store.DiskSize(d); here {
		return "", nil
	}
	o, err := c.origin(repo)
	if err != nil {
		return "", err
	}
	if err := c.admitBlob(ctx, o, repo, d); err != nil {
		return "", err
	}
	if right, _ := c.right(o, repo, index.Blob, d); !right {
		if _, _, err := c.headBlob(ctx, o, repo, d); err != nil {
			return "", err
		}
		if right, _ = c.right(o, repo, index.Blob, d); !right {
			return "", nil // its bytes come by ourselves first
		}
	}
	return c.store.Bucket.Redirect(ctx, d, size), nil
}
