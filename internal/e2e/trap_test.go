package e2e

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// trap listens where the names of Docker Hub lead in the sandbox. A client that
// comes here has gone round the mirror. It finds no Hub: the handshake fails.
type trap struct {
	listener net.Listener
	done     chan struct{}

	mu    sync.Mutex
	calls []call // guarded by mu
}

// call is one connection to the trap.
type call struct {
	at   time.Time
	name string // the server name that the client wanted
}

func startTrap(t testing.TB) *trap {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(hubAddr, "443"))
	if err != nil {
		t.Fatal(err)
	}
	h := &trap{listener: l, done: make(chan struct{})}
	go h.serve()
	t.Cleanup(func() {
		l.Close()
		<-h.done
	})
	return h
}

var errTrap = errors.New("this is not Docker Hub")

// serve takes one connection after the other until the listener is closed.
func (h *trap) serve() {
	defer close(h.done)
	for {
		conn, err := h.listener.Accept()
		if err != nil {
			return
		}
		at := time.Now()
		conn.SetDeadline(at.Add(5 * time.Second))
		tls.Server(conn, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.calls = append(h.calls, call{at, hello.ServerName})
			return nil, errTrap
		}}).Handshake() // fails by design
		conn.Close()
	}
}

// take returns the calls so far and forgets them.
func (h *trap) take() []call {
	h.mu.Lock()
	defer h.mu.Unlock()
	calls := h.calls
	h.calls = nil
	return calls
}
