package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// oneConn is a listener with a single connection, without a network.
type oneConn struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error   { close(l.done); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// M63 of docs/clients.md: a body that never comes, or never ends, does not hold up the
// answer or the connection.
func TestUnsentBodyDoesNotHang(t *testing.T) {
	rows := map[string]string{
		"announced":     "POST /v2/nginx/blobs/uploads/ HTTP/1.1\r\nHost: m\r\nContent-Length: 100\r\n\r\nabc",
		"chunked":       "PUT /v2/nginx/manifests/x HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"too large":     "PATCH /v2/nginx/blobs/uploads/x HTTP/1.1\r\nHost: m\r\nContent-Length: 100000000000\r\n\r\nabc",
		"with GET":      "GET /v2/nginx/manifests/sha256:totallywrong HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\n\r\n",
		"to be invited": "PUT /v2/nginx/manifests/x HTTP/1.1\r\nHost: m\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n",
	}
	for name, request := range rows {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			l := &oneConn{make(chan net.Conn, 1), make(chan struct{})}
			l.conns <- theirs
			server := &http.Server{Handler: newHandler(t, &fakeCache{}, nil)}
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(l) }()
			began := time.Now()
			go func() { fmt.Fprint(ours, request) }()
			resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if resp.StatusCode != 405 && resp.StatusCode != 400 || !resp.Close {
				t.Errorf("%s = %d, close %t, want an error and the connection closed", name, resp.StatusCode, resp.Close)
			}
			if _, err := io.ReadAll(ours); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v, want the connection closed", name, err)
			}
			if took := time.Since(began); took > discardTime+2*time.Second {
				t.Errorf("%s: over after %s", name, took)
			}
			server.Close()
			<-ended
			ours.Close()
		})
	}
}
