package e2e

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// front listens where the names of Docker Hub lead in the sandbox. Who comes here
// has gone round the mirror, or is a mirror with its default endpoints.
type front struct {
	hub       *hubtest.Hub // nil: every connection is closed at once
	listeners []net.Listener
	serving   sync.WaitGroup

	mu    sync.Mutex
	calls []call            // guarded by mu
	conns map[net.Conn]bool // guarded by mu
}

// call is one connection.
type call struct {
	at   time.Time
	name string // the name that was dialled
	from string // the address of who did
}

// openFront makes the names of Docker Hub lead to hub, which must be a Named one,
// or nowhere.
func openFront(t testing.TB, hub *hubtest.Hub) *front {
	t.Helper()
	f := &front{hub: hub, conns: map[net.Conn]bool{}}
	t.Cleanup(f.close)
	for _, h := range hubHosts {
		l, err := net.Listen("tcp", net.JoinHostPort(h.addr, "443"))
		if err != nil {
			t.Fatal(err)
		}
		f.listeners = append(f.listeners, l)
		f.serving.Go(func() { f.accept(l, h.name) })
	}
	return f
}

func (f *front) close() {
	for _, l := range f.listeners {
		l.Close()
	}
	f.mu.Lock()
	for c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.serving.Wait()
}

func (f *front) accept(l net.Listener, name string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.calls = append(f.calls, call{time.Now(), name, conn.RemoteAddr().String()})
		f.mu.Unlock()
		f.serving.Go(func() { f.forward(conn, name) })
	}
}

// forward joins the connection to the hub's own listener for that name.
func (f *front) forward(conn net.Conn, name string) {
	defer f.hold(conn)()
	if f.hub == nil {
		return
	}
	up, err := f.hub.DialContext(context.Background(), "tcp", net.JoinHostPort(name, "443"))
	if err != nil {
		return // the hub counts it
	}
	defer f.hold(up)()
	join(conn, up)
}

// hold keeps a connection among those that close ends. The caller must call what
// it returns, which closes the connection.
func (f *front) hold(c net.Conn) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[c] = true
	return func() {
		c.Close()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.conns, c)
	}
}

// join copies both ways until either end is done.
func join(a, b net.Conn) {
	var g sync.WaitGroup
	g.Go(func() { io.Copy(a, b); a.Close(); b.Close() })
	g.Go(func() { io.Copy(b, a); a.Close(); b.Close() })
	g.Wait()
}

// take returns the calls so far and forgets them.
func (f *front) take() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// assertUnused fails the test if anybody has gone round the mirror.
func (f *front) assertUnused(t testing.TB) {
	t.Helper()
	for _, c := range f.take() {
		t.Errorf("a client went to %s instead of the mirror", c.name)
	}
}
