package hubtest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// listener counts and remembers the connections that it accepts.
type listener struct {
	net.Listener
	server *server
}

func (l *listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, server: l.server}
	s := l.server
	s.mu.Lock()
	s.conns[c] = true
	s.mu.Unlock()
	s.hub.book.addConn(s.site.role)
	return c, nil
}

// conn is a connection of the hub. The server forgets it when it is closed.
type conn struct {
	net.Conn
	server   *server
	requests atomic.Int64
	pace     pacer
	once     sync.Once
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.server.mu.Lock()
		delete(c.server.conns, c)
		c.server.mu.Unlock()
	})
	return err
}

// reset closes the connection so that the peer sees a reset instead of an end.
func (c *conn) reset() {
	switch inner := c.Conn.(type) {
	case *net.TCPConn:
		_ = inner.SetLinger(0)
	case *pipeConn:
		inner.markReset()
	}
	_ = c.Close()
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

func noHTTP2() map[string]func(*http.Server, *tls.Conn, http.Handler) {
	return map[string]func(*http.Server, *tls.Conn, http.Handler){}
}

// hijack takes the connection over. It fails on HTTP/2.
func hijack(w http.ResponseWriter) (net.Conn, error) {
	j, ok := w.(http.Hijacker)
	if !ok {
		return nil, errors.New("a fault that writes raw bytes needs HTTP/1.1: switch Options.HTTP2 off")
	}
	c, _, err := j.Hijack()
	return c, err
}
