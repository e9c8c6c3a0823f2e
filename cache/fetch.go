package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"forebay/cache/disk"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

// sizing says how a download is cut up, in bytes. Tests use smaller ones.
type sizing struct {
	// first is what the first request for a blob of unknown size asks for, and the
	// smallest segment.
	first int64
	// whole is the size up to which one plain GET fetches a blob whose size its manifest
	// told: several connections would not be faster.
	whole int64
	// segment bounds what one connection is given at a time.
	segment int64
	// near is how far ahead of a connection a reader waits for it rather than have
	// another one opened at its place. It must be larger than block, so that a worker
	// that is cut short never has the other's bytes in its hands: no byte of the file is
	// written twice, and what the hasher saw is what readers get.
	near int64
	// block is what a connection reads at a time, at most readBlock.
	block int
}

// usual brings nearly all layers with one request (66 % of a registry's are under 1 MiB,
// facts/engines.md 6), whose Content-Range tells how large a larger one is.
var usual = sizing{first: 8 << 20, whole: 16 << 20, segment: 64 << 20, near: 1 << 20, block: readBlock}

const (
	// urgentExtra is how many connections beyond the limit readers of far ranges may have.
	urgentExtra = 4
	// readBlock is what a connection reads at a time.
	readBlock = 256 << 10
	// flushEvery is how many bytes are written before the kernel is told to write them
	// back, so that the sync before the commit finds little to do.
	flushEvery = 8 << 20
	// saveEvery is how often the state of a partial fill is noted: what a killed process
	// may lose of it.
	saveEvery = 500 * time.Millisecond
	// barrenMost is how many attempts in a row may bring next to nothing.
	barrenMost = 5
	// progressLeast is what an attempt must bring to count as progress.
	progressLeast = 64 << 10
)

// buffers are what connections read into: bounded by connections, not by blobs.
var buffers = sync.Pool{New: func() any { b := make([]byte, readBlock); return &b }}

// worker is one connection: it fetches [pos, end) of the blob.
type worker struct {
	pos, end int64 // guarded by fill.mu; end may shrink while the worker runs
	request  int64 // end of the range asked for, -1 for an open one
	extra    bool  // beyond the first; holds a place in lanes
	started  time.Time
	moved    int64 // bytes stored so far; guarded by fill.mu
}

// exit is what a worker leaves behind.
type exit struct {
	w     *worker
	moved int64
	err   error // nil when its claim is written
}

// fetcher downloads one fill. All of it but the workers runs in one goroutine.
type fetcher struct {
	*fill
	sizing   sizing
	parallel int
	open     func() (*disk.Partial, error) // makes or opens the partial file
	resumes  bool                          // an earlier fill left something
	hint     int64                         // size by the manifest, -1 when unknown: shapes requests, proves nothing
	lanes    *lanes
	space    *space // nil means no bounds
	roomy    sync.Mutex
	held     int64 // bytes reserved in space, guarded by roomy until the fill has ended
	exits    chan exit
	barren   int // attempts in a row without progress
	pausing  bool
	resume   <-chan time.Time
	saved    [][2]int64 // ranges noted last
	cancel   bool       // end when nobody reads any more
}

// owner is told how a fill went before its readers are.
type owner interface {
	// commit makes the verified blob part of the store, before its last bytes go out.
	commit(f *fill) error
	// failed learns why the fill ended without a blob that is kept.
	failed(f *fill, err error)
}

// run downloads and verifies the blob. It returns when everything it started has
// stopped; the fill has then ended.
func (t *fetcher) run(ctx context.Context, o owner) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	if t.resumes {
		t.prepare() // what is there decides what is asked for
	} else {
		running.Go(t.prepare) // beside the first request
	}
	verdict := make(chan error, 1)
	running.Go(func() { verdict <- t.follow(ctx) })
	err := t.fetch(ctx, &running, verdict)
	stop()
	running.Wait()
	t.finish(err, o)
}

// prepare opens the partial file and takes over what an earlier fill left.
func (t *fetcher) prepare() {
	defer close(t.ready)
	part, err := t.open()
	if err != nil {
		t.partErr = fmt.Errorf("%w: %w", errStorage, err)
		return
	}
	t.part, t.file = part, part.File()
	if s, ok := part.Meta(); ok && t.resumes {
		t.mu.Lock()
		if t.have, t.size = spans(s.Have), s.Size; t.counts != nil {
			t.counts.resumed.Add(1)
		}
		t.wakeAll(time.Now())
		t.mu.Unlock()
	}
}

// reader opens the partial file for one reader, once it is there.
func (t *fetcher) reader() (*os.File, error) {
	<-t.ready
	if t.partErr != nil {
		return nil, t.partErr
	}
	return t.part.OpenReader()
}

// fetch starts workers until the hasher has spoken or nothing more can be got.
func (t *fetcher) fetch(ctx context.Context, running *sync.WaitGroup, verdict <-chan error) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		if !t.pausing {
			t.start(ctx, running)
		}
		select {
		case err := <-verdict:
			return err
		case e := <-t.exits:
			if err := t.left(e); err != nil {
				return err
			}
		case <-t.kick:
			if t.cancel && t.abandoned() {
				return fmt.Errorf("fill %s: %w", t.digest, errAbandoned)
			}
		case <-t.resume:
			t.pausing, t.resume = false, nil
		case <-tick.C:
			t.save()
		case <-ctx.Done():
			return errClosed
		}
	}
}

func (t *fetcher) abandoned() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holders == 0
}

// start opens as many connections as the plan has work for.
func (t *fetcher) start(ctx context.Context, running *sync.WaitGroup) {
	for {
		w := t.plan()
		if w == nil {
			return
		}
		running.Go(func() {
			e := exit{w: w}
			e.moved, e.err = t.connect(ctx, w)
			select {
			case t.exits <- e:
			case <-ctx.Done():
			}
		})
	}
}

// left takes a worker off and decides how to go on. An error ends the fill.
func (t *fetcher) left(e exit) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, w := range t.active {
		if w == e.w {
			t.active = append(t.active[:i], t.active[i+1:]...)
			break
		}
	}
	if e.err == nil || e.moved >= progressLeast {
		t.barren = 0
	}
	switch {
	case e.err == nil:
		return nil
	case errors.Is(e.err, errSize) && t.barren == 0:
		// One odd answer is no reason to give up what is there.
	case errors.Is(e.err, errStorage), errors.Is(e.err, errMismatch), !t.isOpen:
		// The upstream has retried already what nobody answered.
		return t.hopeless(e.err)
	case len(t.active) > 0 && e.moved == 0 && refused(e.err):
		// It does not want more connections of us than it has.
		t.limit = 1
		return nil
	}
	if e.moved < progressLeast {
		t.barren++
	}
	if t.barren >= barrenMost {
		return t.hopeless(e.err)
	}
	if t.counts != nil {
		t.counts.broken.Add(1)
	}
	t.log.Warn("transfer broke off", logkey.Digest(t.digest), logkey.Upstream(t.source.repo.Upstream),
		logkey.Repository(t.source.repo.Name), logkey.Bytes(e.moved), logkey.Err(e.err))
	if t.barren > 0 {
		pause := 100 * time.Millisecond << t.barren
		t.pausing, t.resume = true, time.After(pause/2+rand.N(pause))
	}
	return nil
}

// connect does the work of w in a lane of its own.
func (t *fetcher) connect(ctx context.Context, w *worker) (moved int64, err error) {
	if w.extra {
		defer t.lanes.leaveExtra()
	} else {
		if err := t.lanes.enter(ctx); err != nil {
			return 0, err
		}
		defer t.lanes.leave()
	}
	return t.work(ctx, w)
}

// refused reports whether the upstream turned a connection away as one too many.
func refused(err error) bool {
	var e *pull.Error
	return errors.As(err, &e) &&
		(e.Kind == pull.Limited || e.Kind == pull.Overloaded || e.Status == 503)
}

// work fetches the claim of w. It returns how many bytes it brought that were not there.
func (t *fetcher) work(ctx context.Context, w *worker) (moved int64, err error) {
	t.mu.Lock()
	from, request := w.pos, w.request
	if t.noRanges {
		from, request = 0, -1
	}
	t.mu.Unlock()
	body, err := t.source.open(ctx, t.digest, from, request)
	if err != nil {
		return 0, t.shorter(err)
	}
	defer body.Close()
	if err := t.makeRoom(ctx, body.Size, false); err != nil {
		t.noteSize(body.Size) // those to whom it is passed through are told how long it is
		return 0, err
	}
	if err := t.answered(w, body, from > 0 || request >= 0); err != nil {
		return 0, err
	}
	if err := t.awaitFile(); err != nil {
		return 0, err
	}
	block := buffers.Get().(*[]byte)
	defer buffers.Put(block)
	buf := (*block)[:t.sizing.block]
	unflushed := int64(0)
	for pos := body.Offset; ; {
		n, rerr := body.Read(buf)
		if body.Size < 0 {
			if err := t.makeRoom(ctx, pos+int64(n), true); err != nil {
				return moved, err
			}
		}
		stored, more, err := t.write(w, pos, buf[:n])
		pos, moved = pos+int64(n), moved+stored
		if err != nil {
			return moved, err
		}
		if unflushed += int64(n); unflushed >= flushEvery {
			_ = t.part.Flush(pos-unflushed, unflushed) // advice; the sync before the commit decides
			unflushed = 0
		}
		if !more {
			return moved, nil
		}
		if moved >= t.sizing.first && t.yields(w) {
			return moved, nil
		}
		if errors.Is(rerr, io.EOF) {
			return moved, t.ranOut(w, pos, body)
		}
		if rerr != nil {
			return moved, rerr
		}
	}
}

// noteSize records the size of a blob that will not be kept.
func (t *fetcher) noteSize(size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.size < 0 {
		t.size = size
	}
}

// makeRoom reserves what the blob will take, in steps as it grows when its size is unknown.
func (t *fetcher) makeRoom(ctx context.Context, size int64, grows bool) error {
	if t.space == nil {
		return nil
	}
	t.roomy.Lock()
	defer t.roomy.Unlock()
	if size <= t.held {
		return nil
	}
	more := size - t.held
	if grows {
		more = max(more, reserveStep)
	}
	if err := t.space.reserve(ctx, more); err != nil {
		return err
	}
	t.held += more
	return nil
}

// shorter marks the upstream's word that the blob ends before a range of it begins.
func (t *fetcher) shorter(err error) error {
	var e *pull.Error
	if errors.As(err, &e) && e.Status == 416 {
		return fmt.Errorf("%w: %w", errSize, err)
	}
	return err
}

// hopeless returns the error of a fill that err ends. Where the upstream contradicts the
// size that it told, perhaps to an earlier fill that this one goes on with, what is there
// is of no use: it must be dropped, or every later fill would stumble over it too.
func (t *fetcher) hopeless(err error) error {
	if errors.Is(err, errSize) {
		return fmt.Errorf("%w: %w", errMismatch, err)
	}
	return err
}

// answered takes in what the head of an answer says; ranged is whether a range was asked for.
func (t *fetcher) answered(w *worker, body *pull.Body, ranged bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if body.Size >= 0 {
		if err := t.setSize(body.Size); err != nil {
			return err
		}
	}
	if body.Ranged {
		t.limit = t.parallel
		if t.size >= 0 {
			w.end = min(w.end, t.size)
		}
	} else {
		// The whole blob comes, from its start.
		if len(t.active) > 1 {
			return &pull.Error{Kind: pull.Unavailable, Upstream: t.source.repo.Upstream,
				Op: "range of " + t.digest.String(), Message: "ranges are ignored now and then"}
		}
		t.noRanges = t.noRanges || ranged
		w.pos, w.end = t.have.until(0), unknown
		if t.size >= 0 {
			w.end = t.size
		}
	}
	t.setOpen()
	t.wakeAll(time.Now())
	t.nudge()
	return nil
}

// awaitFile waits for the file to write to.
func (t *fetcher) awaitFile() error {
	<-t.ready
	return t.partErr
}

// write stores what arrived for position pos, as far as it is claimed and not there
// already. more is false when the claim is written.
func (t *fetcher) write(w *worker, pos int64, b []byte) (stored int64, more bool, err error) {
	last := pos + int64(len(b))
	if t.maxBytes > 0 && last > t.maxBytes {
		return 0, false, fmt.Errorf("more than %d bytes: %w", t.maxBytes, errTooLarge)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for from := max(pos, w.pos); ; {
		from = t.have.until(from) // readers have seen that; it stays as it is
		to := min(last, w.end, t.have.next(from, unknown))
		if from >= to {
			break
		}
		t.mu.Unlock()
		_, err := t.part.WriteAt(b[from-pos:to-pos], from)
		t.mu.Lock()
		if err != nil {
			return stored, false, fmt.Errorf("write %s: %w: %w", t.digest, errStorage, err)
		}
		t.have.add(from, to)
		stored += to - from
		w.moved += to - from
		t.progressed()
		from = to
	}
	w.pos = max(w.pos, min(last, w.end))
	if t.have.until(w.pos) >= w.end {
		w.pos = w.end
	}
	return stored, w.pos < w.end, nil
}

// yields gives up the rest of the claim of w when others wait for a connection: the rest
// is claimed again in turn. Where ranges do not work, nothing could go on.
func (t *fetcher) yields(w *worker) bool {
	if !t.lanes.crowded() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.noRanges || t.size < 0 || t.limit == 1 {
		return false
	}
	w.end = w.pos
	return true
}

// ranOut judges the clean end of a body at pos.
func (t *fetcher) ranOut(w *worker, pos int64, body *pull.Body) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if body.End < 0 && t.size < 0 {
		// Nobody said how long it is: this is the end, and the digest will tell.
		w.end = pos
		err := t.setSize(pos)
		t.wakeAll(time.Now())
		return err
	}
	if w.pos < w.end {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// save notes the state of the partial fill for a restart, if it has changed.
func (t *fetcher) save() {
	t.mu.Lock()
	if len(t.have) == 0 {
		t.mu.Unlock()
		return // there may be no file yet
	}
	s := disk.State{Size: t.size, Have: slices.Clone([][2]int64(t.have))}
	t.mu.Unlock()
	if slices.Equal(s.Have, t.saved) {
		return
	}
	t.saved = s.Have
	if err := t.part.SaveMeta(s); err != nil {
		t.log.Debug("state of a partial fill not noted", logkey.Digest(t.digest), logkey.Err(err))
	}
}

// finish commits, keeps or drops the partial file, then ends the fill.
func (t *fetcher) finish(err error, o owner) {
	if err == nil {
		if err = o.commit(t.fill); err == nil {
			t.end(nil)
			return
		}
		t.log.Error("blob not kept", logkey.Digest(t.digest), logkey.Err(err))
		err = fmt.Errorf("%w: %w", errStorage, err)
	}
	switch {
	case errors.Is(err, errMismatch):
		err = t.invalid(err)
		t.drop()
	case errors.Is(err, errStorage):
		// Readers go on from what is there, through descriptors of their own.
		defer t.drop()
	default:
		if t.part == nil {
			break
		}
		t.save()
		if rerr := t.part.Release(); rerr != nil {
			t.log.Warn("partial fill not kept", logkey.Digest(t.digest), logkey.Err(rerr))
		}
	}
	o.failed(t.fill, err)
	t.end(err)
}

func (t *fetcher) drop() {
	if t.part == nil {
		return
	}
	if err := t.part.Discard(); err != nil {
		t.log.Warn("partial fill not removed", logkey.Digest(t.digest), logkey.Err(err))
	}
}
