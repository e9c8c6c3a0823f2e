package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/evict"
	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
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
	fill *fill
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
		end = unknown
	}
	if b.file == nil {
		return b.fill.send(ctx, w, off, end)
	}
	if _, err := b.file.Seek(off, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read blob %s: %w", b.Digest, err)
	}
	return io.CopyN(w, b.file, min(end, b.Size)-off)
}

// Close lets go of the blob. A fill goes on without its readers.
func (b *Blob) Close() error {
	if b.fill != nil {
		b.fill.letGo()
		b.fill = nil
	}
	if b.file != nil {
		return b.file.Close()
	}
	return nil
}

// onFill returns a blob that reads from f.
func onFill(f *fill, size int64, res Result) *Blob {
	f.hold()
	return &Blob{Digest: f.digest, Size: size, Result: res, fill: f}
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
		if err == nil || try > 0 || !errors.Is(err, errMismatch) && !errors.Is(err, errAbandoned) {
			return b, err
		}
	}
}

func (c *Cache) openBlob(ctx context.Context, o *origin, repo Repo, d v1.Hash) (*Blob, error) {
	linked := c.linked(repo, index.Blob, d)
	if !linked && c.possesses(d) {
		// Looked at again: a fill of this very repository may have begun, or ended, in between.
		if f := c.running(d); f == nil || f.source.repo != repo {
			if err := c.proveBlob(ctx, repo, d); err != nil {
				return nil, err
			}
			linked = true
		}
	}
	key := "blob\x00" + repo.String() + "\x00" + d.String()
	for try := 0; ; try++ {
		if f := c.running(d); f != nil && (linked || f.source.repo == repo) {
			return c.ready(ctx, repo, onFill(f, -1, Joined))
		}
		if linked {
			if b, err := c.keptBlob(o, repo, d); err != nil || b != nil && b.file != nil {
				return b, err
			} else if b != nil {
				return c.ready(ctx, repo, b)
			}
		}
		_, stored := c.inBucket(d)
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
	if c.linked(repo, index.Blob, d) {
		return nil
	}
	_, _, err := c.StatBlob(ctx, repo, d)
	return err
}

// errCommitted means that a fill ended well while its caller looked for it.
var errCommitted = errors.New("blob is there already")

// ready waits until the first answer is in, and for small blobs until the whole is
// verified. It closes b when it returns an error.
func (c *Cache) ready(ctx context.Context, repo Repo, b *Blob) (_ *Blob, err error) {
	ctx, span := tracing.Start(ctx, "wait for fill", tracing.Reference(b.Digest.String()), tracing.Result(string(b.Result)))
	span.Link(b.fill.trace)
	defer func() {
		span.End(err)
		if err != nil {
			_ = b.Close() // it has no file yet
		}
	}()
	select {
	case <-b.fill.opened:
	case <-ctx.Done():
		return nil, tooLate(ctx, repo, "get blob "+repo.Name+"@"+b.Digest.String())
	}
	size, _, _ := b.fill.state()
	if size >= 0 && size <= smallBlob {
		select {
		case <-b.fill.done:
		case <-ctx.Done():
			return nil, tooLate(ctx, repo, "get blob "+repo.Name+"@"+b.Digest.String())
		}
	}
	size, ended, err := b.fill.state()
	if ended && err != nil {
		if !errors.Is(err, errStorage) {
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
	file, size, err := c.disk.Blob(d)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		c.unreadable(d, err)
		return nil, nil // fetch it again
	}
	c.storeUsed(&c.reads, nil)
	c.use(d)
	if c.isVerified(d, stampOf(file)) && !disk.Shared(file) {
		return &Blob{Digest: d, Size: size, Result: Hit, file: file}, nil
	}
	f, err := c.verifyKept(source{repo: repo, origin: o}, d, file, size)
	if err != nil {
		return nil, err
	}
	return onFill(f, size, Hit), nil
}

// verifyKept starts to compute the digest of a file, which it takes over. Should the disk
// fail, readers go on from src.
func (c *Cache) verifyKept(src source, d v1.Hash, file *os.File, size int64) (*fill, error) {
	found := stampOf(file)
	f, err := newFill(d, c.log)
	if err != nil {
		file.Close()
		return nil, err
	}
	f.source, f.file, f.size, f.have = src, file, size, spans{{0, size}}
	f.kept, f.counts = true, &c.counts
	f.reopen = func() (*os.File, error) {
		file, _, err := c.disk.Blob(d)
		return file, err
	}
	f.setOpen()
	c.mu.Lock()
	defer c.mu.Unlock()
	if running := c.live(d); running != nil {
		file.Close()
		return running, nil
	}
	if c.ctx.Err() != nil {
		file.Close()
		return nil, errClosed
	}
	c.fills[d] = f
	c.wg.Go(func() {
		f.verify(c.ctx, func(err error) {
			if err == nil {
				c.setVerified(d, found)
			} else if errors.Is(err, errStorage) {
				c.unreadable(d, err)
			} else if errors.Is(err, errMismatch) {
				c.event(eventOf(EventVerificationFailed, src.repo, d).because(err))
				c.condemn(d, file, err)
			}
		})
		c.ended(f)
	})
	return f, nil
}

// running returns the fill of d that has not ended, or nil.
func (c *Cache) running(d v1.Hash) *fill {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live(d)
}

// live is running for those who hold c.mu.
func (c *Cache) live(d v1.Hash) *fill {
	f := c.fills[d]
	if f == nil {
		return nil
	}
	if _, ended, _ := f.state(); ended {
		return nil
	}
	return f
}

// ended takes a fill off the list.
func (c *Cache) ended(f *fill) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fills[f.digest] == f {
		delete(c.fills, f.digest)
	}
}

// proof is a digest cut to 16 bytes: a million of them take 50 MB less than whole ones.
type proof [16]byte

func proofOf(d v1.Hash) (p proof) {
	_, _ = hex.Decode(p[:], []byte(d.Hex[:2*len(p)])) // digests were validated
	return p
}

// stamp tells the file that was verified from one that was changed since: whoever writes to
// it sets its time. It is 0, and never that of a verified one, when the file cannot tell.
type stamp uint64

func stampOf(f *os.File) stamp {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	// An odd factor, so that no size and time are those of another by a small change.
	return stamp(info.Size())*0x9e3779b97f4a7c15 ^ stamp(info.ModTime().UnixNano())
}

// isVerified reports whether the digest of d was computed since the start, of a file as it
// is now.
func (c *Cache) isVerified(d v1.Hash, s stamp) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.verified[proofOf(d)]
	return ok && n == s && s != 0
}

// wasVerified reports whether the digest of d was computed since the start.
func (c *Cache) wasVerified(d v1.Hash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.verified[proofOf(d)]
	return ok
}

func (c *Cache) setVerified(d v1.Hash, s stamp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verified[proofOf(d)] = s
}

// joinFill returns the fill of d, a new one when none is running. With recheck it looks
// whether one has just ended, and then returns errCommitted.
func (c *Cache) joinFill(ctx context.Context, from source, d v1.Hash, recheck bool) (*Blob, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.live(d); f != nil {
		return onFill(f, -1, Joined), nil
	}
	if c.ctx.Err() != nil {
		return nil, errClosed
	}
	if _, kept := c.keptSize(d); kept && recheck {
		return nil, errCommitted
	}
	if n, _ := c.wrong.get(d); n >= wrongMost {
		return nil, &pull.Error{Kind: pull.Invalid, Upstream: from.repo.Upstream, Op: "get blob " + from.repo.Name + "@" + d.String(),
			Message: "the upstream sent content with another digest twice in a row"}
	}
	return c.startFill(ctx, from, d)
}

// startFill starts a fill in a goroutine of its own, under the cache's context: it belongs
// to no client. It returns the blob of the client that wants it, held from before the fill
// runs, as one that nobody holds may end at once. Of ctx only its trace goes along. c.mu is held.
func (c *Cache) startFill(ctx context.Context, from source, d v1.Hash) (*Blob, error) {
	o, repo := from.origin, from.repo
	f, err := newFill(d, c.log)
	if err != nil {
		return nil, err
	}
	f.source = from
	f.maxBytes = c.opts.MaxBytes
	f.mismatched = func(err error) { c.mismatched(repo, d, err) }
	f.counts = &c.counts
	hint := int64(-1)
	if size, ok := c.sizes.Get(d); ok {
		hint = size
	}
	t := &fetcher{fill: f, sizing: usual, parallel: o.Parallel, hint: hint, lanes: o.lanes, space: c.space, exits: make(chan exit),
		cancel: c.opts.CancelAbandoned, resumes: c.disk.HasPartial(d),
		open: func() (*disk.Partial, error) { return c.disk.Partial(d) }}
	f.reopen = t.reader
	c.supply(t)
	c.fills[d] = f
	res := Miss
	if f.source.bucket != nil {
		res = Hit
	}
	b := onFill(f, -1, res)
	life, span := tracing.Start(tracing.Carry(c.ctx, ctx), "fill", tracing.Upstream(repo.Upstream), tracing.Repository(repo.Name), tracing.Reference(d.String()))
	f.trace = span.Context()
	c.wg.Go(func() { span.End(c.runFill(life, t)) })
	return b, nil
}

// runFill runs a fill to its end, and returns how that was.
func (c *Cache) runFill(ctx context.Context, t *fetcher) error {
	start := time.Now()
	defer func() { c.space.release(t.held) }()
	t.run(ctx, c)
	c.ended(t.fill)
	size, _, err := t.state()
	c.counts.fills.ended(err)
	if err == nil {
		c.log.Info("blob cached", logkey.Upstream(t.source.repo.Upstream), logkey.Repository(t.source.repo.Name),
			logkey.Digest(t.digest), logkey.Bytes(size), logkey.Took(time.Since(start)))
		if size >= fillDoneLeast {
			e := eventOf(EventFillDone, t.source.repo, t.digest)
			e.Bytes, e.Detail = size, "in "+time.Since(start).Round(time.Millisecond).String()
			c.event(e)
		}
	}
	return err
}

// commit makes a verified blob part of the store: synced and renamed, then indexed.
func (c *Cache) commit(f *fill) error {
	written := stampOf(f.file) // which Commit closes
	if err := f.part.Commit(f.size); err != nil {
		return err
	}
	c.storeUsed(&c.writes, nil)
	c.setVerified(f.digest, written)
	c.wrong.remove(f.digest)
	c.space.add(f.digest, f.size, evict.Blob)
	defer c.upload(f.digest, f.size)
	return c.record(func(b *index.Batch) error {
		return errors.Join(b.PutBlob(f.digest, index.BlobInfo{Size: f.size, Added: time.Now()}),
			b.PutLink(f.source.repo, index.Blob, f.digest, index.Link{Size: f.size, At: time.Now()}))
	})
}

// failed remembers what the next request for the blob or its repository should know.
func (c *Cache) failed(f *fill, err error) {
	repo := f.source.repo
	switch {
	case errors.Is(err, errClosed), errors.Is(err, context.Canceled), errors.Is(err, errStorage):
		c.log.Info("fill stopped", logkey.Digest(f.digest), logkey.Err(err))
		if errors.Is(err, errStorage) {
			c.storeUsed(&c.writes, err)
		}
		return
	case errors.Is(err, errMismatch) && f.source.bucket.gave():
		// The registry is not to blame. The next fill asks it.
		c.tier.Distrust(f.digest)
		return
	case errors.Is(err, errMismatch):
		c.mismatched(repo, f.digest, err)
		n, _ := c.wrong.get(f.digest)
		c.wrong.add(f.digest, n+1)
	}
	if pull.Failing(err) {
		c.trouble.add(repo, struct{}{})
	}
	c.log.Warn("fill failed", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name),
		logkey.Digest(f.digest), logkey.Err(err))
	c.event(eventOf(EventFillFailed, repo, f.digest).because(err))
}

// mismatched counts and tells of content that an upstream sent without the digest d, which
// is zero where it was asked for by tag.
func (c *Cache) mismatched(repo Repo, d v1.Hash, err error) {
	c.counts.sentWrong.Add(1)
	c.event(eventOf(EventVerificationFailed, repo, d).because(err))
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
	link, linked, err := c.index.Link(repo, index.Blob, d)
	if err != nil {
		c.unread(err)
	}
	if linked {
		size, ok := c.storedSize(d)
		if ok && (link.Size < 0 || link.Size == size || c.wasVerified(d)) {
			return size, Hit, nil
		}
		if link.Size >= 0 && c.running(d) != nil {
			return link.Size, Joined, nil
		}
	}
	if o.Offline {
		return 0, "", c.offlineMiss(ctx, repo, "", d, true)
	}
	key := "blob\x00" + repo.String() + "\x00" + d.String()
	if err, ok := c.recall(key); ok {
		return 0, "", err
	}
	size, joined, err := c.stats.do(ctx, key, func(ctx context.Context) (int64, error) {
		size, err := o.Upstream.StatBlob(ctx, repo.Name, d)
		o.health.saw(err)
		if err != nil {
			c.remember(key, err)
			return 0, err
		}
		return size, c.record(func(b *index.Batch) error {
			return b.PutLink(repo, index.Blob, d, index.Link{Size: size, At: time.Now()})
		})
	})
	if joined {
		return size, Joined, err
	}
	return size, Miss, err
}
