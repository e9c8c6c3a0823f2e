package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"forebay/cache/store"
	"forebay/internal/lane"
	"forebay/internal/pull"
)

// worker is one connection: it fetches [pos, end) of the blob.
type worker struct {
	pos, end int64      // guarded by Fill.mu; end may shrink while the worker runs
	request  int64      // end of the range asked for, -1 for an open one
	extra    *lane.Lane // beyond the first, with a place in this lane; else nil
	from     *source    // that answered; set by the worker
	started  time.Time
	moved    int64         // bytes stored so far; guarded by Fill.mu
	waited   time.Duration // for bytes; guarded by Fill.mu
	worked   time.Duration // on them; guarded by Fill.mu
}

// result is what became of a worker.
type result struct {
	w     *worker
	moved int64
	err   error // nil when its claim is written
}

// connect does the work of w, which gives its place in the lane back.
func (t *download) connect(ctx context.Context, w *worker) (moved int64, err error) {
	if w.extra != nil {
		defer w.extra.LeaveExtra()
	}
	return t.work(ctx, w)
}

// oneTooMany reports whether the upstream turned a connection away because it has others.
func oneTooMany(err error) bool {
	var e *pull.Error
	return errors.As(err, &e) && (e.Kind == pull.Limited || e.Kind == pull.Overloaded || e.Detail == pull.Crowded)
}

// work fetches the claim of w. It returns how many bytes it brought that were not there.
func (t *download) work(ctx context.Context, w *worker) (moved int64, err error) {
	t.mu.Lock()
	from, request := w.pos, w.request
	if t.connections.noRanges {
		from, request = 0, -1
	}
	t.mu.Unlock()
	body, err := t.open(ctx, w, from, request)
	if err != nil {
		return 0, sizeError(err)
	}
	defer body.Close()
	if err := t.reserveFor(ctx, body, 0); err != nil {
		t.noteSize(body.Size) // those to whom it is passed through are told how long it is
		return 0, err
	}
	if err := t.answered(w, body, from > 0 || request >= 0); err != nil {
		return 0, err
	}
	runtime.Gosched() // to who waits for this: his header goes out before we are busy with the body
	if err := t.awaitFile(); err != nil {
		return 0, err
	}
	block := buffers.Get().(*[]byte)
	defer buffers.Put(block)
	buf := (*block)[:t.sizing.block]
	unflushed := int64(0)
	for pos, came := body.Offset, time.Now(); ; {
		asked := time.Now()
		n, rerr := body.Read(buf)
		t.spent(w, time.Since(asked), asked.Sub(came))
		came = time.Now()
		if err := t.reserveFor(ctx, body, pos+int64(n)); err != nil {
			return moved, err
		}
		stored, more, err := t.write(w, pos, buf[:n])
		pos, moved = pos+int64(n), moved+stored
		if err != nil {
			return moved, err
		}
		if moved > 0 && moved == stored {
			runtime.Gosched() // to who waits for the first of it
		}
		if unflushed += int64(n); unflushed >= flushEvery && t.part != nil {
			_ = t.part.Flush(pos-unflushed, unflushed) // advice; the sync before the commit decides
			unflushed = 0
		}
		if !more {
			return moved, nil
		}
		if moved >= t.sizing.first && t.makesWay(w) {
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
func (t *download) noteSize(size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.size < 0 {
		t.size = size
	}
}

// reserveFor reserves what the blob takes once body is read to a position: all of it as soon as its
// size is known, unless only pieces of it come.
func (t *download) reserveFor(ctx context.Context, body *pull.Body, until int64) error {
	t.mu.Lock()
	pieces, have := t.onlyPieces() && body.Ranged, t.have.total()
	t.mu.Unlock()
	switch {
	case pieces:
		return t.reserved.Grow(ctx, have+min(max(until-body.Offset, 0), readBlock), pieceStep)
	case body.Size < 0:
		return t.reserved.Grow(ctx, until, reserveStep)
	}
	return t.reserved.Grow(ctx, body.Size, 0)
}

// sizeError marks the upstream's word that the blob ends before a range of it begins.
func sizeError(err error) error {
	if pull.DetailOf(err) == pull.OutOfRange {
		return fmt.Errorf("%w: %w", errSize, err)
	}
	return err
}

// answered takes in what the head of an answer says; ranged is whether a range was asked for.
func (t *download) answered(w *worker, body *pull.Body, ranged bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if body.Size >= 0 {
		if err := t.setSize(body.Size, t.opts.MaxBytes); err != nil {
			return err
		}
	}
	if body.Ranged {
		t.connections.limit = t.opts.Parallel
		if t.size >= 0 {
			w.end = min(w.end, t.size)
		}
		t.all = t.all || t.size >= 0 && t.size <= Small
	} else {
		// The whole blob comes, from its start.
		t.all = true
		if len(t.connections.active) > 1 {
			return &pull.Error{Kind: pull.Unavailable, Upstream: t.Repo.Upstream,
				Op: "range of " + t.Digest.String(), Message: "ranges are ignored now and then"}
		}
		t.connections.noRanges = t.connections.noRanges || ranged
		w.pos, w.end = t.have.until(0), ToEnd
		if t.size >= 0 {
			w.end = t.size
		}
	}
	t.setArriving()
	t.changed.all()
	t.nudge()
	return nil
}

// awaitFile makes the file to write to, or waits until it is there.
func (t *download) awaitFile() error {
	t.preparing.Do(t.prepare)
	<-t.ready
	return t.partErr
}

// spent notes how long a connection waited for bytes, and worked on those before them.
func (t *download) spent(w *worker, waited, worked time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w.waited += waited
	w.worked += worked
}

// write stores what arrived for position pos, as far as it is claimed and not there already. more
// is false when the claim is written.
func (t *download) write(w *worker, pos int64, b []byte) (stored int64, more bool, err error) {
	last := pos + int64(len(b))
	if t.opts.MaxBytes > 0 && last > t.opts.MaxBytes {
		return 0, false, fmt.Errorf("more than %d bytes: %w", t.opts.MaxBytes, store.ErrTooLarge)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for from := max(pos, w.pos); ; {
		from = t.have.until(from) // readers have seen that; it stays as it is
		to := min(last, w.end, t.have.next(from, ToEnd))
		if from >= to {
			break
		}
		t.mu.Unlock()
		err := t.writeAt(b[from-pos:to-pos], from)
		t.mu.Lock()
		if err != nil {
			return stored, false, fmt.Errorf("write %s: %w: %w", t.Digest, store.ErrUnkept, err)
		}
		t.have.add(from, to)
		stored += to - from
		w.moved += to - from
		t.changed.soon()
		if t.hash(b[from-pos:to-pos], from) {
			t.nudge()
		}
		from = to
	}
	w.pos = max(w.pos, min(last, w.end))
	if t.have.until(w.pos) >= w.end {
		w.pos = w.end
	}
	return stored, w.pos < w.end, nil
}

func (t *download) writeAt(b []byte, pos int64) error {
	if t.mem != nil {
		copy(t.mem[pos:], b)
		return nil
	}
	_, err := t.part.WriteAt(b, pos)
	return err
}

// makesWay gives up the rest of the claim of w when others wait for a connection: the rest
// is claimed again in turn. Where ranges do not work, nothing could go on.
func (t *download) makesWay(w *worker) bool {
	if !w.from.Lane.Crowded() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.connections.noRanges || t.size < 0 || t.connections.limit == 1 {
		return false
	}
	w.end = w.pos
	return true
}

// ranOut judges the clean end of a body at pos.
func (t *download) ranOut(w *worker, pos int64, body *pull.Body) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if body.End < 0 && t.size < 0 {
		// Nobody said how long it is: this is the end, and the digest will tell.
		w.end = pos
		err := t.setSize(pos, t.opts.MaxBytes)
		t.changed.all()
		return err
	}
	if w.pos < w.end {
		return io.ErrUnexpectedEOF
	}
	return nil
}
