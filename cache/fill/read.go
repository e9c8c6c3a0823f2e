package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"forebay/cache/store"
)

// holdBack is how many of a blob's last bytes no reader of the whole, or of all from a position
// on, gets before the digest of the whole is right. One byte less makes a body as incomplete as
// any number. Who asks for a piece verifies the piece, and gets it as it arrives: it is of no
// use as a blob.
const holdBack = 1

// worthWaiting is how long a reader waits for a connection that is on its way to its place,
// rather than have another one opened there and the bytes in between fetched by nobody.
const worthWaiting = 20 * time.Millisecond

// reader is one follower of a fill.
type reader struct {
	want    int64 // position it waits for
	end     int64 // of what it wants; ToEnd is the blob's
	off     int64 // where it began
	waiting bool
}

// piece reports whether r reads part of a blob of size bytes, up to an end that it named. What is
// small counts as whole: it is verified before any of it is believed.
func (r *reader) piece(size int64) bool {
	return r.end != ToEnd && size > Small && (r.off > 0 || r.end < size)
}

// Send writes the bytes [off, end) to w as they come, end [ToEnd] being the blob's end. It
// returns how many it wrote, and nil only when that is all of them. It waits as long as ctx
// and the fill last. Of the whole, and with ToEnd, the last byte comes when the digest is right.
func (f *Holder) Send(ctx context.Context, w io.Writer, off, end int64) (n int64, err error) {
	file, past, err := f.openFile(ctx)
	switch {
	case err != nil:
		return 0, err
	case past:
		return f.pass(ctx, w, nil, off, end)
	case file != nil:
		defer file.Close()
		if _, err := file.Seek(off, io.SeekStart); err != nil {
			return 0, fmt.Errorf("read blob %s: %w", f.Digest, err)
		}
	}
	r := f.addReader(off, end)
	defer f.removeReader(r)
	for pos := off; pos < end; {
		until, err := f.await(ctx, r, pos)
		if errors.Is(err, store.ErrUnkept) {
			n, err := f.pass(ctx, w, file, pos, end)
			return pos - off + n, err
		}
		if err != nil || until == pos {
			return pos - off, err // an error, or the blob's end
		}
		m, err := f.copyTo(w, file, pos, min(until, end))
		pos += m
		if err != nil {
			return pos - off, fmt.Errorf("send blob %s: %w", f.Digest, err)
		}
	}
	return end - off, nil
}

// copyTo writes the bytes [pos, until), which are there, to w. file is at pos, and nil for what is
// in memory.
func (f *Fill) copyTo(w io.Writer, file *os.File, pos, until int64) (int64, error) {
	if file == nil {
		n, err := w.Write(f.mem[pos:until])
		return int64(n), err
	}
	// CopyN hands the file itself to w, so that the kernel copies it. It must not see more than
	// what is there: sendfile does not wait for a growing file.
	return io.CopyN(w, file, until-pos)
}

// openFile opens the file for one reader, nil for what is in memory. past is whether there is none and the blob is to
// be sent past the disk: that did not keep it or does not give it, or it was evicted or
// purged since the reader came.
func (f *Fill) openFile(ctx context.Context) (file *os.File, past bool, err error) {
	file, err = f.reopen()
	if err == nil {
		return file, false, nil
	}
	if errors.Is(err, store.ErrUnkept) || store.CauseOf(err) != "" || errors.Is(err, fs.ErrClosed) {
		select {
		case <-f.done: // it ends for the same reason, has failed, or there are descriptors then
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
		file, err = f.reopen()
	}
	if err == nil {
		return file, false, nil
	}
	f.mu.Lock()
	at, ended := f.state, f.err
	f.mu.Unlock()
	gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrClosed) || store.CauseOf(err) != "" // closed: it was lost as it settled
	switch {
	case at == unkept, at != failed && gone:
		return nil, true, nil
	case at == failed && errors.Is(err, fs.ErrClosed):
		return nil, false, ended // before this reader came to its file, which is gone
	}
	return nil, false, fmt.Errorf("read blob %s: %w", f.Digest, err)
}

func (f *Fill) addReader(off, end int64) *reader {
	r := &reader{off: off, end: end}
	f.mu.Lock()
	f.readers[r] = struct{}{}
	f.mu.Unlock()
	return r
}

func (f *Fill) removeReader(r *reader) {
	f.mu.Lock()
	delete(f.readers, r)
	f.mu.Unlock()
}

// await returns how far r may read from pos, at least one byte unless pos is the end of
// the blob, waiting for it as long as ctx and the fill last.
func (f *Fill) await(ctx context.Context, r *reader, pos int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.want, r.waiting = pos, true
	defer func() { r.waiting = false }()
	for {
		if until := f.readable(r, pos); until > pos {
			return until, nil
		}
		switch {
		case f.state == verified && pos >= f.size:
			return pos, nil
		case f.state == verified:
			return pos, fmt.Errorf("blob %s ends at %d", f.Digest, f.size)
		case f.state > verified:
			return pos, f.err
		}
		if !f.covered(pos) {
			f.nudge()
		}
		if err := f.changed.wait(ctx); err != nil {
			return pos, err
		}
	}
}

// readable returns how far r may read from pos now. f.mu is held.
func (f *Fill) readable(r *reader, pos int64) int64 {
	until := f.have.until(pos)
	if f.state == verified || r.piece(f.size) {
		return until
	}
	// Of a blob of unknown size any byte may be the last.
	last := min(f.size, r.end)
	if last < 0 {
		last = f.have.until(0)
	}
	return min(until, max(pos, last-holdBack))
}

// covered reports whether pos is there or about to be. f.mu is held.
func (f *Fill) covered(pos int64) bool {
	if f.have.until(pos) > pos || (f.size >= 0 && pos >= f.size) {
		return true
	}
	for _, w := range f.connections.active {
		if w.pos <= pos && pos < w.end && f.comes(w, pos-w.pos) {
			return true
		}
	}
	return false
}

// comes reports whether w is about to fetch what lies ahead bytes before it: it is near, or
// fast, or so young that nobody knows. Other than near ones are looked at again. f.mu is held.
func (f *Fill) comes(w *worker, ahead int64) bool {
	if ahead <= f.connections.near {
		return true
	}
	age := time.Since(w.started)
	if age >= worthWaiting && float64(ahead)*float64(age) > float64(w.moved)*float64(worthWaiting) {
		return false
	}
	f.recheck()
	return true
}

// recheck has the download look again for work when it is known how fast a connection is.
// f.mu is held.
func (f *Fill) recheck() {
	if f.connections.rechecking {
		return
	}
	f.connections.rechecking = true
	time.AfterFunc(worthWaiting, func() {
		f.mu.Lock()
		f.connections.rechecking = false
		f.mu.Unlock()
		f.nudge()
	})
}
