package server

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
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
	left, ok := g.enter(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, false)
	if !ok {
		t.Fatal("no room for the first")
	}
	left()
	left() // a second Close counts for nothing
	if g.all != 0 || len(g.by) != 0 {
		t.Errorf("%d are counted, %v", g.all, g.by)
	}
}

// While there are many, who has hung up already is not served; while there are few, whoever closes
// its side after the request has its answer, as a client at the end of a pipe does.
func TestWhoHasHungUpIsNotLetIn(t *testing.T) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	s, err := New(Options{Addr: "127.0.0.1:0", Handler: hello, MaxConnections: 4 * crowd})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	l := s.listener.(*listener)
	defer l.Close()
	dial := func() *net.TCPConn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.TCPConn)
	}
	accept := func() net.Addr {
		t.Helper()
		_ = l.Listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.RemoteAddr()
	}
	halfClosed := func() *net.TCPConn {
		t.Helper()
		c := dial()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := halfClosed(); accept().String() != c.LocalAddr().String() {
		t.Error("the only client was not let in")
	}
	for range crowd {
		dial()
		accept()
	}
	gone, there := halfClosed(), dial()
	if got := accept().String(); got != there.LocalAddr().String() {
		t.Errorf("%s was let in, want %s; %s has hung up", got, there.LocalAddr(), gone.LocalAddr())
	}
	_ = gone.SetReadDeadline(time.Now().Add(patience))
	if n, err := gone.Read(make([]byte, 1)); n > 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("who hung up got %d bytes, %v; want an end", n, err)
	}
	if n := l.guests.all; n != crowd+2 {
		t.Errorf("%d are counted, want %d", n, crowd+2)
	}
}
