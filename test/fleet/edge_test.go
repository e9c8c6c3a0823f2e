//go:build linux

package fleet

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// edge is a TCP proxy on one way between the parts, which can be broken.
type edge struct {
	listener net.Listener
	work     sync.WaitGroup

	mu    sync.Mutex
	to    string
	state string // "", "cut", "hung" or "slow"
	conns map[net.Conn]bool
	woken chan struct{} // closed when the state changes
}

// slowBy is how much later what comes over a slow edge is passed on.
const slowBy = 20 * time.Millisecond

func newEdge(t *testing.T) *edge {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{listener: l, conns: map[net.Conn]bool{}, woken: make(chan struct{})}
	e.work.Go(e.accept)
	t.Cleanup(func() {
		_ = l.Close() // ends accept
		e.set("cut")
		e.work.Wait()
	})
	return e
}

func (e *edge) addr() string { return e.listener.Addr().String() }

// set breaks the edge, or mends it. Connections of one that is cut, and of one that is mended after it
// hung, are reset.
func (e *edge) set(state string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if state == "cut" || e.state == "hung" {
		for c := range e.conns {
			_ = c.(*net.TCPConn).SetLinger(0) // or it is gone
			_ = c.Close()
		}
	}
	e.state = state
	close(e.woken)
	e.woken = make(chan struct{})
}

func (e *edge) now() (state, to string, woken <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state, e.to, e.woken
}

func (e *edge) track(c net.Conn, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if on {
		e.conns[c] = true
	} else {
		delete(e.conns, c)
	}
}

func (e *edge) accept() {
	for {
		c, err := e.listener.Accept()
		if err != nil {
			return
		}
		e.work.Go(func() {
			defer func() { _ = c.Close() }() // it may be closed
			e.track(c, true)
			defer e.track(c, false)
			state, to, _ := e.now()
			if state == "cut" {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			e.track(up, true)
			defer e.track(up, false)
			var both sync.WaitGroup
			both.Go(func() { e.copy(up, c) })
			e.copy(c, up)
			both.Wait()
		})
	}
}

// copy passes on what comes, as the state has it, and closes both at the end.
func (e *edge) copy(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }() // they may be closed
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil && !errors.Is(err, io.EOF) {
			return
		}
		for {
			state, _, woken := e.now()
			if state == "slow" {
				<-time.After(slowBy)
			}
			if state != "hung" {
				break
			}
			<-woken
		}
		if _, werr := to.Write(b[:n]); werr != nil || err != nil {
			return
		}
	}
}
