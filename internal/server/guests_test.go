package server

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestConnectionsAreBounded(t *testing.T) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	s, _ := start(t, Options{Handler: hello, MaxConnections: 8}, nil)
	ask := func(from string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
		c, err := d.DialContext(t.Context(), "tcp", s.Addr().String())
		if err != nil {
			return nil, err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return c, err
		}
		_, err = http.ReadResponse(bufio.NewReader(c), nil)
		return c, err
	}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	// One client has half of them and no more, idle as they may be; another has its own half.
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		for i := range 5 {
			c, err := ask(from)
			if c != nil {
				open = append(open, c)
			}
			if refused := err != nil; refused != (i == 4) {
				t.Errorf("connection %d of %s: %v", i+1, from, err)
			}
		}
	}
	if _, err := ask("127.0.0.4"); err == nil {
		t.Error("a ninth connection is served")
	}
	// Whoever leaves makes room.
	open[0].Close()
	deadline := time.Now().Add(patience)
	for {
		c, err := ask("127.0.0.2")
		if err == nil {
			open = append(open, c)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody is served after one has left: %v", err)
		}
	}
}

func TestDescriptorsAreLeftForEverythingElse(t *testing.T) {
	if n := connectionsMost(descriptors()); n < connectionsLeast {
		t.Errorf("connectionsMost = %d", n)
	}
	g := guests{most: 2}
	left, ok := g.enter(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)})
	if !ok {
		t.Fatal("no room for the first")
	}
	left()
	left() // a second Close counts for nothing
	if g.all != 0 || len(g.by) != 0 {
		t.Errorf("%d are counted, %v", g.all, g.by)
	}
}
