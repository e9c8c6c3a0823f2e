package upstream

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"forebay/internal/wire"
)

// body is the body of an answer. It ends a transfer that stalls, and gives back the
// lane when it is closed. It is read by one goroutine at a time.
type body struct {
	from    io.ReadCloser
	stall   time.Duration
	watch   *time.Timer // cancels the request; runs only during a Read
	stalled atomic.Bool
	cancel  context.CancelCauseFunc
	release func()
	fail    func(cause error) error
	close   sync.Once
	whole   func()        // called at the end of a body that came whole
	count   *atomic.Int64 // of bytes of all bodies of the registry; nil counts none

	// left is how many announced bytes are still to come; -1 without an announcement.
	left int64
}

func newBody(from io.ReadCloser, stall time.Duration, cancel context.CancelCauseFunc, release func(), fail func(error) error) *body {
	b := &body{from: from, stall: stall, cancel: cancel, release: release, fail: fail, left: -1}
	b.watch = time.AfterFunc(stall, func() {
		b.stalled.Store(true)
		cancel(errStalled) // closes the connection, which wakes the Read
	})
	b.watch.Stop()
	return b
}

// Read reads what has arrived. The upstream stalls only while a Read waits: the time that
// the reader takes between two Reads does not count.
func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		b.whole()
		return 0, io.EOF
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	b.watch.Reset(b.stall)
	n, err := b.from.Read(p)
	b.watch.Stop()
	if b.count != nil {
		b.count.Add(int64(n))
	}
	if b.left > 0 {
		b.left -= int64(n)
	}
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && b.left <= 0:
		b.whole()
		return n, err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return n, b.fail(io.ErrUnexpectedEOF)
	case b.stalled.Load():
		return n, b.fail(errStalled)
	default:
		return n, b.fail(wire.RedactError(err))
	}
}

// Close ends the transfer. It may be called more than once.
func (b *body) Close() error {
	var err error
	b.close.Do(func() {
		b.watch.Stop()
		err = b.from.Close()
		b.cancel(nil)
		b.release()
	})
	return err
}
