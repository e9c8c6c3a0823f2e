package server

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"

	"forebay/internal/logkey"
)

// filePiece is how much of a file is given to the kernel at once. The deadline is set
// anew for each.
const filePiece = 256 << 10

// listener accepts connections whose writes are bounded by progress.
type listener struct {
	net.Listener
	idle    time.Duration
	headers time.Duration  // for the line of a proxy
	proxies []netip.Prefix // that say in a line of their own whom they connect for
	guests  *guests
	log     *zap.Logger
	wrap    func(stream) stream // nil outside of tests
}

func (l *listener) Accept() (net.Conn, error) {
	s, left, err := l.accept()
	if err != nil {
		return nil, err
	}
	if l.proxied(s.RemoteAddr()) {
		s = forwarded{proxyproto.NewConn(s, proxyproto.WithPolicy(proxyproto.REQUIRE), proxyproto.SetReadHeaderTimeout(l.headers)), s}
	}
	if l.wrap != nil {
		s = l.wrap(s)
	}
	c := &conn{stream: s, idle: l.idle, left: left}
	if raw, is := s.(*net.TCPConn); is {
		c.gone = func() bool { return l.guests.crowded() && hungUp(raw) }
	}
	return c, nil
}

// accept returns the next connection that there is room for; left is to be called at its end.
func (l *listener) accept() (s stream, left func(), err error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, nil, err
		}
		s, is := accepted.(stream)
		if unix, ok := accepted.(*net.UnixConn); ok {
			s, is = local{unix}, true
		}
		if !is {
			_ = accepted.Close() // of no kind that listen makes
			return nil, nil, fmt.Errorf("a connection of type %T", accepted)
		}
		left, ok := l.guests.enter(s.RemoteAddr(), l.proxied(s.RemoteAddr()))
		if ok && l.guests.crowded() && hungUp(s) {
			left()
			_ = s.Close()
			continue
		}
		if ok {
			return s, left, nil
		}
		l.guests.refuse.Do(func() {
			l.log.Warn("too many connections: the next are closed", logkey.Addr(s.RemoteAddr().String()), logkey.Count(l.guests.most))
		})
		if tcp, is := s.(*net.TCPConn); is {
			_ = tcp.SetLinger(0) // nothing of it is kept
		}
		_ = s.Close()
	}
}

// proxied reports whether a connection is of a proxy that speaks for its clients.
func (l *listener) proxied(from net.Addr) bool {
	tcp, is := from.(*net.TCPAddr)
	if !is || len(l.proxies) == 0 {
		return false
	}
	addr := tcp.AddrPort().Addr().Unmap()
	return slices.ContainsFunc(l.proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// local is a connection of a Unix socket.
type local struct{ *net.UnixConn }

// ReadFrom is that of [io.ReaderFrom]; the one of packets, which it hides, is of no use here.
func (l local) ReadFrom(r io.Reader) (int64, error) { return io.Copy(onlyWriter{l.UnixConn}, r) }

// forwarded is a connection whose first line says whom a proxy connects for (the PROXY protocol,
// versions 1 and 2). Files go out by sendfile all the same.
type forwarded struct {
	*proxyproto.Conn
	raw stream
}

func (f forwarded) ReadFrom(r io.Reader) (int64, error) { return f.raw.ReadFrom(r) }
func (f forwarded) CloseWrite() error                   { return f.raw.CloseWrite() }

// stream is what a conn needs of a connection of TCP or of a Unix socket. Its ReadFrom is sendfile for files.
type stream interface {
	net.Conn
	io.ReaderFrom
	CloseWrite() error
}

// conn is a connection on which a write may last as long as the client keeps taking bytes.
// It fails when the client takes none for the time idle.
type conn struct {
	stream
	idle time.Duration
	left func() // tells that it is closed; nil when nobody counts
	// gone reports whether the client has left before anything was read; nil once it was asked.
	gone func() bool

	mu    sync.Mutex
	limit time.Time // guarded by mu; a write deadline set from outside, zero if none
	dead  error     // guarded by mu; why nothing is written any more
}

// errStalled is a client that takes nothing. It is a timeout, so that it reads as one.
type errStalled struct{}

func (errStalled) Error() string   { return "client takes nothing" }
func (errStalled) Timeout() bool   { return true }
func (errStalled) Temporary() bool { return false }

// Read reads what has come. Of a client that has left in a crowd nothing is: many come and go before
// a processor is free for them.
func (c *conn) Read(p []byte) (int, error) {
	if gone := c.gone; gone != nil {
		if c.gone = nil; gone() {
			return 0, io.EOF
		}
	}
	return c.stream.Read(p)
}

// Close closes the connection.
func (c *conn) Close() error {
	if c.left != nil {
		defer c.left()
	}
	return c.stream.Close()
}

// SetDeadline keeps the write deadline as a limit on those that conn sets itself.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.stream.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline bounds writes beside the progress that they must make.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = t
	return c.stream.SetWriteDeadline(t)
}

func (c *conn) Write(p []byte) (int, error) {
	written := 0
	stuck := false
	for {
		if err := c.extend(); err != nil {
			return written, err
		}
		n, err := c.stream.Write(p[written:])
		written += n
		if err == nil || !c.goesOn(&stuck, int64(n), err) {
			return written, c.final(err)
		}
	}
}

// file is what the kernel can copy from: an [os.File], or the wrapper that its WriteTo makes.
type file interface {
	io.ReadSeeker
	syscall.Conn
}

// ReadFrom sends a file, or the part of it in an [io.LimitedReader], by sendfile.
// Anything else is copied.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	limited := &io.LimitedReader{R: r, N: math.MaxInt64}
	if lr, ok := r.(*io.LimitedReader); ok {
		limited = lr
	}
	f, ok := limited.R.(file)
	if !ok {
		return io.Copy(onlyWriter{c}, r)
	}
	start, err := f.Seek(0, io.SeekCurrent)
	if err != nil { // a pipe, say
		return io.Copy(onlyWriter{c}, r)
	}
	var sent int64
	stuck := false
	for limited.N > 0 {
		if err := c.extend(); err != nil {
			return sent, err
		}
		piece := io.LimitedReader{R: f, N: min(limited.N, filePiece)}
		n, err := c.stream.ReadFrom(&piece)
		sent += n
		limited.N -= n
		switch {
		case err == nil && piece.N > 0: // the end of the file
			return sent, nil
		case err == nil:
			stuck = false
		case !c.goesOn(&stuck, n, err):
			return sent, c.final(err)
		default:
			// Without sendfile, more of the file was read than was written.
			if _, err := f.Seek(start+sent, io.SeekStart); err != nil {
				return sent, err
			}
		}
	}
	return sent, nil
}

// extend sets the deadline of the next piece. It is half of idle: a client is given up
// when it made no progress in two of them.
func (c *conn) extend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil {
		return c.dead
	}
	t := time.Now().Add(c.idle / 2)
	if !c.limit.IsZero() && c.limit.Before(t) {
		t = c.limit
	}
	return c.stream.SetWriteDeadline(t)
}

// goesOn reports whether a write that failed after n bytes is tried again with the rest.
// stuck remembers, from one passed deadline to the next, that nothing was written. The
// kernel wakes a writer only when a good part of its buffer is free, which takes minutes on
// a slow line; a write that is tried again takes what is free at once.
func (c *conn) goesOn(stuck *bool, n int64, err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.limitReached() {
		return false
	}
	before := *stuck
	*stuck = n == 0
	return n > 0 || !before
}

func (c *conn) limitReached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.limit.IsZero() && !time.Now().Before(c.limit)
}

// final makes a stall the last error of the connection: net/http would wait once more
// when it flushes what is left.
func (c *conn) final(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.limitReached() {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = &net.OpError{Op: "write", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: errStalled{}}
	return c.dead
}

// onlyWriter hides ReadFrom from io.Copy.
type onlyWriter struct{ io.Writer }
