package hubtest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// pipeListener accepts connections without sockets.
type pipeListener struct {
	addr   pipeAddr
	queue  chan net.Conn
	done   chan struct{}
	closed sync.Once
}

func newPipeListener(addr string) *pipeListener {
	return &pipeListener{addr: pipeAddr(addr), queue: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.closed.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return l.addr }

// dial returns the client's end of a new connection.
func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := newPipe("127.0.0.1:40000", string(l.addr))
	select {
	case l.queue <- server:
		return client, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: l.addr, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: l.addr, Err: ctx.Err()}
	}
}

type pipeAddr string

func (pipeAddr) Network() string  { return "tcp" }
func (a pipeAddr) String() string { return string(a) }

// pipeConn is one end of a net.Pipe that has addresses and can be reset.
type pipeConn struct {
	net.Conn
	local, remote pipeAddr
	wasReset      *atomic.Bool // shared by both ends
	closed        atomic.Bool  // this end, by us
}

func newPipe(client, server string) (*pipeConn, *pipeConn) {
	c, s := net.Pipe()
	var flag atomic.Bool
	return &pipeConn{Conn: c, local: pipeAddr(client), remote: pipeAddr(server), wasReset: &flag},
		&pipeConn{Conn: s, local: pipeAddr(server), remote: pipeAddr(client), wasReset: &flag}
}

func (p *pipeConn) LocalAddr() net.Addr  { return p.local }
func (p *pipeConn) RemoteAddr() net.Addr { return p.remote }
func (p *pipeConn) markReset()           { p.wasReset.Store(true) }

func (p *pipeConn) Close() error {
	p.closed.Store(true)
	return p.Conn.Close()
}

func (p *pipeConn) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	return n, p.asSocket("read", err)
}

func (p *pipeConn) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	return n, p.asSocket("write", err)
}

// asSocket turns the errors of a net.Pipe into those of a TCP connection.
func (p *pipeConn) asSocket(op string, err error) error {
	switch {
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe):
		return err
	case p.closed.Load():
		err = net.ErrClosed
	case p.wasReset.Load():
		err = os.NewSyscallError(op, syscall.ECONNRESET)
	case errors.Is(err, io.EOF):
		return err
	default:
		err = os.NewSyscallError(op, syscall.EPIPE)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: p.local, Addr: p.remote, Err: err}
}

// DialFault is how dialling a host fails; see [Hub.FailDial].
type DialFault string

const (
	DialOK       DialFault = ""
	DialNXDomain DialFault = "nxdomain"
	DialTimeout  DialFault = "timeout" // nothing answers until the context ends
	DialRefused  DialFault = "refused"
	DialReset    DialFault = "reset"       // connects, then resets: in the handshake, under TLS
	TLSExpired   DialFault = "tls-expired" // an expired certificate; needs TLS
	TLSWrongName DialFault = "tls-wrong-name"
)

// dialer holds the dial faults.
type dialer struct {
	hub    *Hub
	mu     sync.Mutex
	faults map[string]DialFault // by host without port
}

func (d *dialer) fault(host string) DialFault {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.faults[host]
}

// FailDial makes [Hub.DialContext] fail for a role in the given way from now on;
// DialOK ends it. The TLS faults work whatever the client dials with.
func (h *Hub) FailDial(role Role, f DialFault) {
	s := h.servers[role]
	host, _, err := net.SplitHostPort(s.dialAddr())
	must(err)
	h.denials.mu.Lock()
	defer h.denials.mu.Unlock()
	h.denials.faults[host] = f
}

// dialAddr is the host:port that a client dials for this role.
func (s *server) dialAddr() string {
	if s.hub.fixed.Named {
		return net.JoinHostPort(s.site.name, s.site.port)
	}
	return s.host()
}

// DialContext connects to a role by the host:port of its URL. Any other address is
// refused and counted as egress_denied. It has the type of http.Transport.DialContext.
func (h *Hub) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	s := h.serverFor(addr)
	if s == nil {
		h.book.deny(addr)
		return nil, &net.OpError{Op: "dial", Net: network, Addr: pipeAddr(addr), Err: errors.New("test hub: not one of its addresses")}
	}
	opError := func(err error) error {
		return &net.OpError{Op: "dial", Net: network, Addr: pipeAddr(addr), Err: err}
	}
	switch h.denials.fault(host) {
	case DialNXDomain:
		return nil, opError(&net.DNSError{Err: "no such host", Name: host, IsNotFound: true})
	case DialTimeout:
		select {
		case <-ctx.Done():
			return nil, opError(ctx.Err())
		case <-h.ctx.Done():
			return nil, opError(os.ErrDeadlineExceeded)
		}
	case DialRefused:
		return nil, opError(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	case DialReset:
		client, server := newPipe("127.0.0.1:40000", addr)
		server.markReset()
		_ = server.Close()
		return client, nil
	}
	return s.dial(ctx)
}

// DialAll returns a DialContext for several hubs: each is dialled for its own
// addresses, and any other address is refused and counted by the first.
func DialAll(hubs ...*Hub) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		for _, h := range hubs {
			if h.serverFor(addr) != nil {
				return h.DialContext(ctx, network, addr)
			}
		}
		return hubs[0].DialContext(ctx, network, addr)
	}
}

func (h *Hub) serverFor(addr string) *server {
	for _, s := range h.servers {
		if s.dialAddr() == addr {
			return s
		}
	}
	if addr == "[fd00:ec2::254]:80" {
		return h.servers[RoleMeta]
	}
	return nil
}

func (s *server) dial(ctx context.Context) (net.Conn, error) {
	s.mu.Lock()
	pipes, addr := s.pipes, s.addr
	s.mu.Unlock()
	if pipes != nil {
		return pipes.dial(ctx)
	}
	if s.hub.fixed.InMemory {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: pipeAddr(addr), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	return d.DialContext(ctx, "tcp", addr)
}
