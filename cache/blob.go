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
)

// smallBlob is the size up to which a blob is verified whole before its first byte goes
// out, so that its failure is a status and not a short body.
const smallBlob = 1 << 20

// Blob is a blob opened for one reader, who must call Close. It is complete on disk
// (File is not nil) or still arriving (use Send).
type Blob struct {
	Digest v1.Hash
	Size   int64 // bytes; -1 while the upstream has not said
	Result Result

	file *os.File
	fill *fill.Fill
}

// File returns the verified file of a complete blob, positioned at its start, or nil
// while the blob is arriving. It stays open until Close.
func (b *Blob) File() *os.File { return b.file }

// Send writes the bytes [off, end) to w as they arrive, end -1 being the blob's end.
// It returns how many it wrote, and nil only when that is all of them. The blob's last
// byte is not written before the digest of the whole is right. After an error w has a
// prefix: the caller must end its body short.
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

// Close lets go of the blob. A fill goes on without its readers.
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

// onFill returns a blob that reads from f, which its caller holds.
func onFill(f *fill.Fill, size int64, res Result) *Blob {
	return &Blob{Digest: f.Digest, Size: size, Result: res, fill: f}
}

// Blob opens the blob d of repo for reading: from the disk, from a fill in progress, or
// from a new one. It returns when the blob's size is known, or that it cannot be.
func (c *Cache) Blob(ctx context.Context, repo Repo, d v1.Hash) (*Blob, error) {
	o, err := c.origin(repo)
	if err != nil {
		return nil, err
	}
	if err := c.admitBlob(ctx, o, repo, d); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		b, err := c.openBlob(ctx, o, repo, d)
		// A damaged file, a wrong answer nobody has seen a byte of yet, or a fill that ended
		// as its last reader left and this one came: once more.
		if err == nil || try > 0 || !errors.Is(err, sums.ErrMismatch) && !errors.Is(err, fill.ErrAbandoned) {
			return b, err
		}
		if err := c.awaitEnd(ctx, repo, d); err != nil {
			return nil, err
		}
	}
}

// awaitEnd waits until a fill of d has ended that was given up, so that another can begin.
func (c *Cache) awaitEnd(ctx context.Context, repo Repo, d v1.Hash) error {
	f := c.fills.Of(d)
	if f == nil || !f.Abandoned() {
		return nil
	}
	select {
	case <-f.Done():
		return nil
	case <-ctx.Done():
		return tooLate(ctx, repo, "get blob "+repo.Name+"@"+d.String())
	}
}

func (c *Cache) openBlob(ctx context.Context, o *origin, repo Repo, d v1.Hash) (*Blob, error) {
	linked := c.store.Linked(repo, index.Blob, d)
	if !linked && c.store.Possesses(d) {
		// Looked at again: a fill of this very repository may have begun, or ended, in between.
		if f := c.fills.Of(d); f == nil || f.Source.Repo != repo {
			if err := c.proveBlob(ctx, repo, d); err != nil {
				return nil, err
			}
			linked = true
		}
	}
	key := blobKey(repo, d)
	for try := 0; ; try++ {
		if f := c.fills.Hold(d, func(f *fill.Fill) bool { return linked || f.Source.Repo == repo }); f != nil {
			return c.ready(ctx, repo, onFill(f, -1, Joined))
		}
		if linked {
			if b, err := c.keptBlob(o, repo, d); err != nil || b != nil && b.file != nil {
				return b, err
			} else if b != nil {
				return c.ready(ctx, repo, b)
			}
		}
		_, stored := c.store.BucketSize(d)
		stored = stored && linked
		if o.Offline && !stored {
			return nil, c.offlineMiss(ctx, repo, "", d, true)
		}
		if err, ok := c.recall(key); ok && !stored {
			return nil, err
		}
		b, err := c.joinFill(ctx, source{repo: repo, origin: o, hops: pull.Hops(ctx)}, d, try == 0)
		if errors.Is(err, errCommitted) {
			if err := c.proveBlob(ctx, repo, d); err != nil {
				return nil, err
			}
			linked = true
			continue
		}
		if err != nil {
			return nil, err
		}
		if b, err = c.ready(ctx, repo, b); err != nil {
			c.remember(key, err)
		}
		return b, err
	}
}

// proveBlob makes sure that repo holds the blob d, by a HEAD unless that is known.
func (c *Cache) proveBlob(ctx context.Context, repo Repo, d v1.Hash) error {
	if c.store.Linked(repo, index.Blob, d) {
		return nil
	}
	_, _, err := c.StatBlob(ctx, repo, d)
	return err
}

// ready waits until the first answer is in, and for small blobs until the whole is
// verified. It closes b when it returns an error.
func (c *Cache) ready(ctx context.Context, repo Repo, b *Blob) (_ *Blob, err error) {
	ctx, span := tracing.Start(ctx, "wait for fill", tracing.Reference(b.Digest.String()), tracing.Result(string(b.Result)))
	span.Link(b.fill.Trace)
	defer func() {
		span.End(err)
		if err != nil {
			_ = b.Close() // it has no file yet
		}
	}()
	select {
	case <-b.fill.Opened():
	case <-ctx.Done():
		return nil, tooLate(ctx, repo, "get blob "+repo.Name+"@"+b.Digest.String())
	}
	size, _, _ := b.fill.State()
	if size >= 0 && size <= smallBlob {
		select {
		case <-b.fill.Done():
		case <-ctx.Done():
			return nil, tooLate(ctx, repo, "get blob "+repo.Name+"@"+b.Digest.String())
		}
	}
	size, ended, err := b.fill.State()
	if ended && err != nil {
		if !errors.Is(err, store.ErrUnkept) {
			return nil, err
		}
		b.Result = Passed
	}
	b.Size = size
	return b, nil
}

// keptBlob opens a committed blob: nil without error when there is none. One that was not
// verified since the start is verified beside its first reading.
func (c *Cache) keptBlob(o *origin, repo Repo, d v1.Hash) (*Blob, error) {
	file, size := c.store.Blob(d)
	if file == nil {
		return nil, nil // fetch it, again if need be
	}
	if c.store.Verified(d, store.StampOf(file)) && !disk.Shared(file) {
		return &Blob{Digest: d, Size: size, Result: Hit, file: file}, nil
	}
	f, err := c.verifyKept(source{repo: repo, origin: o}, d, file, size)
	if err != nil {
		return nil, err
	}
	return onFill(f, size, Hit), nil
}

// verifyKept starts to compute the digest of a file, which it takes over, and returns what
// is held of that. Should the disk fail, readers go on from src.
func (c *Cache) verifyKept(src source, d v1.Hash, file *os.File, size int64) (*fill.Fill, error) {
	found := store.StampOf(file)
	begun := false
	f, _, err := c.fills.Join(d, func() (*fill.Fill, func(), error) {
		begun = true
		f, run, err := fill.Verify(fill.Verification{
			Digest: d, Source: src.of(d), File: file, Size: size, Counts: &c.counts.fills, Log: c.log,
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
	return f, err
}

// StatBlob returns the size of the blob d of repo without fetching it.
func (c *Cache) StatBlob(ctx context.Context, repo Repo, d v1.Hash) (size int64, res Result, err error) {
	o, err := c.origin(repo)
	if err != nil {
		return 0, "", err
	}
	if err := c.admitBlob(ctx, o, repo, d); err != nil {
		return 0, "", err
	}
	link, linked := c.store.LinkOf(repo, index.Blob, d)
	if linked {
		size, ok := c.store.Size(d)
		if ok && (link.Size < 0 || link.Size == size || c.store.WasVerified(d)) {
			return size, Hit, nil
		}
		if link.Size >= 0 && c.fills.Of(d) != nil {
			return link.Size, Joined, nil
		}
	}
	if o.Offline {
		return 0, "", c.offlineMiss(ctx, repo, "", d, true)
	}
	key := blobKey(repo, d)
	if err, ok := c.recall(key); ok {
		return 0, "", err
	}
	size, joined, err := c.calls.blobs.Do(ctx, key, func(ctx context.Context) (int64, error) {
		size, err := o.Upstream.StatBlob(ctx, repo.Name, d)
		if err != nil {
			c.remember(key, err)
			return 0, err
		}
		return size, c.store.Link(repo, store.BlobLink(d, size))
	})
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
	if err := c.proveBlob(ctx, repo, d); err != nil {
		return "", err
	}
	return c.store.Bucket.Redirect(ctx, d, size), nil
}
