// Package stall ends transfers of which nothing comes any more.
//
// It promises that a body whose bytes stop ends with an error within a time, however long its reader
// takes between two Reads, and that one which breaks off never looks whole.
package stall

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"forebay/internal/wire"
)

// Err ends a body of which no byte came in time.
var Err = errors.New("no byte in time")

// Body is the body of an answer. It ends a transfer that stalls, and gives back the
// lane when it is closed. It is read by one goroutine at a time.
type Body struct {
	from    io.ReadCloser
	stall   time.Duration
	watch   *time.Timer // cancels the request; runs only during a Read
	stalled atomic.Bool
	cancel  context.CancelCauseFunc
	release func()
	fail    func(cause error) error
	close   sync.Once
	Whole   func()        // called at the end of a body that came whole
	Count   *atomic.Int64 // of bytes of all bodies of the registry; nil counts none

	// Left is how many announced bytes are still to come; -1 without an announcement.
	Left int64
}

// New returns the body that reads from, each Read of which may wait for the time stall. Then cancel is
// called, as at the end. release is called when it is closed, and fail makes the error of a Read.
func New(from io.ReadCloser, stall time.Duration, cancel context.CancelCauseFunc, release func(), fail func(error) error) *Body {
	b := &Body{from: from, stall: stall, cancel: cancel, release: release, fail: fail, Left: -1}
	b.watch = time.AfterFunc(stall, func() {
		b.stalled.Store(true)
		cancel(Err) // closes the connection, which wakes the Read
	})
	b.watch.Stop()
	return b
}

// Read reads what has arrived. The upstream stalls only while a Read waits: the time that
// the reader takes between two Reads does not count.
func (b *Body) Read(p []byte) (int, error) {
	if b.Left == 0 {
		b.Whole()
		return 0, io.EOF
	}
	if b.Left > 0 && int64(len(p)) > b.Left {
		p = p[:b.Left]
	}
	b.watch.Reset(b.stall)
	n, err := b.from.Read(p)
	b.watch.Stop()
	if b.Count != nil {
		b.Count.Add(int64(n))
	}
	if b.Left > 0 {
		b.Left -= int64(n)
	}
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && b.Left <= 0:
		b.Whole()
		return n, err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return n, b.fail(io.ErrUnexpectedEOF)
	case b.stalled.Load():
		return n, b.fail(Err)
	default:
		return n, b.fail(wire.RedactError(err))
	}
}

// Close ends the transfer. It may be called more than once.
func (b *Body) Close() error {
	var err error
	b.close.Do(func() {
		b.watch.Stop()
		err = b.from.Close()
		b.cancel(nil)
		b.release()
	})
	return err
}
