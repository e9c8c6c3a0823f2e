package cache

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"forebay/cache/disk"
	"forebay/internal/pull"
)

// holdBack is how many of a blob's last bytes no reader gets before the digest of the
// whole is right. One byte less makes a body as incomplete as any number, and costs
// range readers of a blob's end (lazy-pulling snapshotters) the least.
const holdBack = 1

// unknown is the claim of a worker and the end of a reader while no size is known.
const unknown = math.MaxInt64

var (
	// errMismatch: the bytes do not have the digest that was asked for.
	errMismatch = errors.New("content does not have the digest asked for")
	// errSize: the upstream contradicts the size that it told before.
	errSize = errors.New("size was told wrong")
	// errStorage: our own disk failed or is full; readers go on without being kept.
	errStorage = errors.New("not kept")
	// errAbandoned: the last reader has left, and fills are not to go on then.
	errAbandoned = fmt.Errorf("nobody waits for it any more: %w", context.Canceled)
	// errClosed: the cache is stopping.
	errClosed = errors.New("cache is closed")
)

// fill is one blob on its way to the disk, or one already there that is being verified.
// Workers write ranges of it, one hasher follows the contiguous prefix, and readers follow
// at their own pace through files of their own. It ends once: verified or failed.
type fill struct {
	digest   v1.Hash
	source   source        // where the bytes come from; zero when only verifying
	part     *disk.Partial // nil when only verifying, and before ready is closed
	file     *os.File      // what workers write and the hasher reads; owned by the fill
	reopen   func() (*os.File, error)
	ready    chan struct{} // closed when part and file are there, or partErr
	partErr  error         // why there is no part
	near     int64         // see sizing
	maxBytes int64         // larger blobs are not kept; 0 means no limit
	// mismatched is told of wrong content that was passed through; nil when nobody counts.
	mismatched func(error)
	trace      trace.SpanContext // of its span, for those who wait for it; not valid without one
	counts     *counts           // nil when nobody counts
	kept       bool              // it is only being verified
	log        *zap.Logger

	opened chan struct{} // closed when the first answer came or the fill ended
	done   chan struct{} // closed when the fill has ended
	kick   chan struct{} // capacity 1: a reader wants bytes that nobody is fetching

	mu       sync.Mutex
	size     int64     // -1 while unknown
	have     spans     // ranges written to file
	hashed   int64     // length of the prefix in sum
	sum      hash.Hash // used by the hasher alone until the fill has ended
	active   []*worker // connections in progress
	readers  map[*reader]struct{}
	holders  int  // blobs opened on this fill and not closed
	limit    int  // connections allowed now
	noRanges bool // the upstream ignores Range
	isOpen   bool // opened is closed
	ended    bool // done is closed, err is final
	err      error
	released bool // verified: the last bytes may go out

	wake       chan struct{} // closed and replaced when have or an end changes
	waiting    int           // readers and hasher that wait on wake
	lastWake   time.Time
	timer      *time.Timer // wakes what a rate-limited wake left waiting
	rechecking bool        // a look at readers that wait for a fast connection is due
	armed      bool
}

// source is where the bytes of a fill come from.
type source struct {
	repo   Repo
	origin *origin
	hops   string  // mirrors that the request came through which began the fill
	bucket *supply // asked first; nil when the bucket has not got it
}

// open asks the upstream for the bytes [off, end) of d, see [Content].
func (s source) open(ctx context.Context, d v1.Hash, off, end int64) (*pull.Body, error) {
	if s.bucket != nil {
		if body, err := s.bucket.open(ctx, d, off, end); body != nil || err != nil {
			return body, err
		}
		if s.origin.Offline {
			return nil, offlineError(s.repo)
		}
	}
	body, err := s.origin.Upstream.OpenBlob(pull.WithHops(ctx, s.hops), s.repo.Name, d, off, end)
	if ctx.Err() == nil {
		s.origin.health.saw(err)
	}
	return body, err
}

// reader is one follower of a fill.
type reader struct {
	want    int64 // position it waits for
	waiting bool
}

func newFill(d v1.Hash, log *zap.Logger) (*fill, error) {
	sum, err := newHash(d)
	if err != nil {
		return nil, err
	}
	f := &fill{
		digest:  d,
		log:     log,
		opened:  make(chan struct{}),
		ready:   make(chan struct{}),
		done:    make(chan struct{}),
		kick:    make(chan struct{}, 1),
		wake:    make(chan struct{}),
		size:    -1,
		sum:     sum,
		readers: make(map[*reader]struct{}),
		limit:   1,
		near:    usual.near,
	}
	return f, nil
}

func newHash(d v1.Hash) (hash.Hash, error) {
	switch d.Algorithm {
	case "sha256":
		return sha256.New(), nil
	case "sha512":
		return sha512.New(), nil
	}
	return nil, fmt.Errorf("digest algorithm %q is not supported", d.Algorithm)
}

// wakeEvery bounds how often a crowd of readers is woken: a fast line would otherwise
// wake all of them for every few kilobytes.
func wakeEvery(waiting int) time.Duration {
	return time.Millisecond * time.Duration(1+waiting/32)
}

// progressed tells those who wait that bytes arrived, soon. f.mu is held.
func (f *fill) progressed() {
	if f.waiting == 0 || f.armed {
		return
	}
	now := time.Now()
	pause := wakeEvery(f.waiting) - now.Sub(f.lastWake)
	if pause <= 0 {
		f.wakeAll(now)
		return
	}
	f.armed = true
	if f.timer == nil {
		f.timer = time.AfterFunc(pause, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.armed = false
			f.wakeAll(time.Now())
		})
		return
	}
	f.timer.Reset(pause)
}

// wakeAll tells those who wait to look again, now. f.mu is held.
func (f *fill) wakeAll(now time.Time) {
	close(f.wake)
	f.wake = make(chan struct{})
	f.lastWake = now
}

// wait sleeps until something changed or ctx is done. f.mu is held before and after.
func (f *fill) wait(ctx context.Context) error {
	ch := f.wake
	f.waiting++
	f.mu.Unlock()
	var err error
	select {
	case <-ch:
	case <-ctx.Done():
		err = ctx.Err()
	}
	f.mu.Lock()
	f.waiting--
	return err
}

// setOpen lets those go on who wait for the first answer. f.mu is held.
func (f *fill) setOpen() {
	if !f.isOpen {
		f.isOpen = true
		close(f.opened)
	}
}

// setSize records the size of the whole blob, which must not change. f.mu is held.
func (f *fill) setSize(size int64) error {
	if f.size >= 0 && f.size != size {
		return f.invalid(fmt.Errorf("size of %s changed from %d to %d bytes: %w", f.digest, f.size, size, errSize))
	}
	f.size = size
	if f.maxBytes > 0 && size > f.maxBytes {
		return fmt.Errorf("%d bytes are more than the store may hold: %w", size, errTooLarge)
	}
	return nil
}

// end finishes the fill: err nil means verified. It is called once, by run.
func (f *fill) end(err error) {
	f.mu.Lock()
	f.ended, f.err = true, err
	f.released = err == nil
	f.setOpen()
	f.wakeAll(time.Now())
	if f.timer != nil {
		f.timer.Stop()
	}
	f.mu.Unlock()
	close(f.done)
}

// readable returns how far a reader at pos may read now. f.mu is held.
func (f *fill) readable(pos int64) int64 {
	until := f.have.until(pos)
	if f.released {
		return until
	}
	// Of a blob of unknown size any byte may be the last.
	last := f.size
	if last < 0 {
		last = f.have.until(0)
	}
	return min(until, max(pos, last-holdBack))
}

// covered reports whether pos is there or about to be. f.mu is held.
func (f *fill) covered(pos int64) bool {
	if f.have.until(pos) > pos || (f.size >= 0 && pos >= f.size) {
		return true
	}
	for _, w := range f.active {
		if w.pos <= pos && pos < w.end && f.soon(w, pos-w.pos) {
			return true
		}
	}
	return false
}

// patience is how long a reader waits for a connection that is on its way to its place,
// rather than have another one opened there and the bytes in between fetched by nobody.
const patience = 20 * time.Millisecond

// soon reports whether w is about to fetch what lies ahead bytes before it: it is near, or
// fast, or so young that nobody knows. Other than near ones are looked at again. f.mu is held.
func (f *fill) soon(w *worker, ahead int64) bool {
	if ahead <= f.near {
		return true
	}
	age := time.Since(w.started)
	if age >= patience && float64(ahead)*float64(age) > float64(w.moved)*float64(patience) {
		return false
	}
	if !f.rechecking {
		f.rechecking = true
		time.AfterFunc(patience, func() {
			f.mu.Lock()
			f.rechecking = false
			f.mu.Unlock()
			f.nudge()
		})
	}
	return true
}

// await returns how far r may read from pos, at least one byte unless pos is the end of
// the blob, waiting for it as long as ctx and the fill last.
func (f *fill) await(ctx context.Context, r *reader, pos int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.want, r.waiting = pos, true
	defer func() { r.waiting = false }()
	for {
		if until := f.readable(pos); until > pos {
			return until, nil
		}
		if f.ended {
			if f.err == nil && pos >= f.size {
				return pos, nil
			}
			if f.err == nil {
				return pos, fmt.Errorf("blob %s ends at %d", f.digest, f.size)
			}
			return pos, f.err
		}
		if !f.covered(pos) {
			f.nudge()
		}
		if err := f.wait(ctx); err != nil {
			return pos, err
		}
	}
}

// nudge makes run look for work again.
func (f *fill) nudge() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// send writes the bytes [off, end) to w as they come, end unknown being the blob's end.
// It returns how many it wrote, and nil only when that is all of them.
func (f *fill) send(ctx context.Context, w io.Writer, off, end int64) (n int64, err error) {
	file, err := f.reopen()
	if errors.Is(err, errStorage) || causeOf(err) != "" || errors.Is(err, fs.ErrClosed) {
		select {
		case <-f.done: // it ends for the same reason, has failed, or there are descriptors then
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		file, err = f.reopen()
	}
	if err != nil {
		// The disk did not keep it or does not give it, or it was evicted or purged since
		// the reader came.
		_, _, ferr := f.state()
		if errors.Is(ferr, errStorage) || ferr == nil && (errors.Is(err, fs.ErrNotExist) || causeOf(err) != "") {
			return f.pass(ctx, w, nil, off, end)
		}
		if ferr != nil && errors.Is(err, fs.ErrClosed) {
			return 0, ferr // it failed before this reader came to its file, which is gone
		}
		return 0, fmt.Errorf("read blob %s: %w", f.digest, err)
	}
	defer file.Close()
	if _, err := file.Seek(off, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read blob %s: %w", f.digest, err)
	}
	r := &reader{}
	f.join(r)
	defer f.leave(r)
	for pos := off; pos < end; {
		until, err := f.await(ctx, r, pos)
		if errors.Is(err, errStorage) {
			n, err := f.pass(ctx, w, file, pos, end)
			return pos - off + n, err
		}
		if err != nil || until == pos {
			return pos - off, err // an error, or the blob's end
		}
		// CopyN hands the file itself to w, so that the kernel copies it. It must not
		// see more than what is there: sendfile does not wait for a growing file.
		m, err := io.CopyN(w, file, min(until, end)-pos)
		pos += m
		if err != nil {
			return pos - off, fmt.Errorf("send blob %s: %w", f.digest, err)
		}
	}
	return end - off, nil
}

func (f *fill) join(r *reader) {
	f.mu.Lock()
	f.readers[r] = struct{}{}
	f.mu.Unlock()
}

func (f *fill) leave(r *reader) {
	f.mu.Lock()
	delete(f.readers, r)
	f.mu.Unlock()
}

// hold counts one who has the fill open, until letGo.
func (f *fill) hold() {
	f.mu.Lock()
	f.holders++
	f.mu.Unlock()
}

func (f *fill) letGo() {
	f.mu.Lock()
	f.holders--
	f.mu.Unlock()
	f.nudge()
}

// state returns the size, -1 while unknown, and whether and how the fill has ended.
func (f *fill) state() (size int64, ended bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size, f.ended, f.err
}

// hashBlock is how much the hasher reads at a time; larger blocks gain nothing
// measurable and fall out of the processor's cache.
const hashBlock = 256 << 10

// follow hashes the contiguous prefix as it grows and returns nil when the whole blob
// has the right digest, errMismatch when it has not. It is the only one that uses sum.
func (f *fill) follow(ctx context.Context) error {
	buf := make([]byte, hashBlock)
	for {
		until, whole, err := f.awaitPrefix(ctx)
		if err != nil {
			return err
		}
		if whole {
			if got := hex.EncodeToString(f.sum.Sum(nil)); got != f.digest.Hex {
				return fmt.Errorf("%w: got %s:%s", errMismatch, f.digest.Algorithm, got)
			}
			return nil
		}
		for pos := f.hashed; pos < until; {
			n, err := f.file.ReadAt(buf[:min(until-pos, hashBlock)], pos)
			if n == 0 {
				return fmt.Errorf("read back %s: %w: %w", f.digest, errStorage, err)
			}
			f.sum.Write(buf[:n])
			pos += int64(n)
			f.mu.Lock()
			f.hashed = pos
			f.mu.Unlock()
		}
	}
}

// awaitPrefix waits until the prefix is longer than what is hashed, or all is hashed.
func (f *fill) awaitPrefix(ctx context.Context) (until int64, whole bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if until = f.have.until(0); until > f.hashed {
			return until, false, nil
		}
		if f.size >= 0 && f.hashed >= f.size {
			return until, true, nil
		}
		if err := f.wait(ctx); err != nil {
			return 0, false, err
		}
	}
}

func (f *fill) invalid(err error) error {
	return &pull.Error{Kind: pull.Invalid, Upstream: f.source.repo.Upstream,
		Op: "fill " + f.digest.String(), Err: err}
}

// verify reads the whole file against its digest while readers already follow it, tells
// judged how that went while the file is still open, then ends the fill.
func (f *fill) verify(ctx context.Context, judged func(error)) {
	err := f.follow(ctx)
	judged(err)
	f.file.Close()
	f.end(err)
}
