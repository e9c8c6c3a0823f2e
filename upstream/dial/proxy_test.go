package dial

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http/httpproxy"

	"forebay/config/unit"
)

// reach asks for target as an endpoint at base.test would, with proxies as opts says.
func reach(t *testing.T, opts Options, target string) (string, error) {
	t.Helper()
	opts.Connect = 5 * time.Second
	opts.Lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		return nil, errors.New("looked up here")
	}
	d, err := New(&url.URL{Scheme: "http", Host: "base.test"}, opts)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := d.Transport()
	if err != nil {
		t.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(target)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

func TestProxiesOfTheEnvironment(t *testing.T) {
	var seen []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.URL.Host)
		fmt.Fprint(w, "by proxy")
	}))
	defer proxy.Close()
	host := strings.TrimPrefix(proxy.URL, "http://")
	env := &httpproxy.Config{HTTPProxy: host, NoProxy: "direct.test,.inside.test"}
	opts := Options{Environment: env}
	if text, err := reach(t, opts, "http://base.test/v2/"); err != nil || text != "by proxy" {
		t.Errorf("through the proxy on loopback: %q, %v", text, err)
	}
	for _, target := range []string{"http://direct.test/", "http://a.inside.test/"} {
		if text, err := reach(t, opts, target); err == nil || !strings.Contains(err.Error(), "looked up here") {
			t.Errorf("%s, which NO_PROXY names: %q, %v", target, text, err)
		}
	}
	if len(seen) != 1 || seen[0] != "base.test" {
		t.Errorf("the proxy saw %q, want base.test alone", seen)
	}
	// What the configuration says goes before it.
	other, _ := url.Parse(proxy.URL)
	if text, err := reach(t, Options{Proxy: other, Environment: &httpproxy.Config{HTTPProxy: "nowhere.test:1"}}, "http://base.test/"); err != nil || text != "by proxy" {
		t.Errorf("with both: %q, %v", text, err)
	}
	for _, bad := range []string{"ftp://user:hunter2@p:1"} {
		_, err := New(&url.URL{Scheme: "https", Host: "base.test"}, Options{Environment: &httpproxy.Config{HTTPSProxy: bad}})
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "HTTPS_PROXY") {
			t.Errorf("HTTPS_PROXY=%s: %v, want an error that names the variable and no password", bad, err)
		}
	}
}

// TestSOCKS5ProxyResolvesNames speaks enough of RFC 1928 to see what it is asked for.
func TestSOCKS5ProxyResolvesNames(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	done := make(chan struct{})
	go func() { // ends with its only connection
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		head := make([]byte, 2)
		_, _ = io.ReadFull(r, head)
		_, _ = r.Discard(int(head[1]))
		_, _ = conn.Write([]byte{5, 0})
		request := make([]byte, 5) // version, connect, 0, a name, its length
		_, _ = io.ReadFull(r, request)
		name := make([]byte, int(request[4])+2)
		_, _ = io.ReadFull(r, name)
		asked <- fmt.Sprintf("%d %s", request[3], name[:request[4]])
		_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nby socks")
		}
	}()
	defer func() { l.Close(); <-done }()
	p, _ := url.Parse("socks5://" + l.Addr().String())
	text, err := reach(t, Options{Proxy: p}, "http://base.test/v2/")
	if err != nil || text != "by socks" {
		t.Fatalf("through SOCKS5: %q, %v", text, err)
	}
	if got := <-asked; got != "3 base.test" {
		t.Errorf("the proxy was asked for %q, want the name", got)
	}
}

func TestBandwidthGoesByTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hours := func(s string) unit.Hours {
			h, err := unit.ParseHours(s)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		now := time.Now() // midnight UTC
		b := NewBandwidth(128<<10, hours(now.Add(time.Hour).Format("15:04")+"-"+now.Add(2*time.Hour).Format("15:04")+"=256KiB"), hours(now.Add(2*time.Hour).Format("15:04")+"-"+now.Add(3*time.Hour).Format("15:04")+"=auto"))
		read := func() time.Duration {
			time.Sleep(time.Minute) // past what was held back before
			near, far := net.Pipe()
			go func() { // ends when all is read
				_, _ = far.Write(make([]byte, 1<<20))
				far.Close()
			}()
			c := &slowConn{Conn: near, limit: b, closed: make(chan struct{})}
			defer c.Close()
			begin := time.Now()
			if n, err := io.Copy(io.Discard, c); n != 1<<20 || err != nil {
				t.Errorf("read %d bytes, %v", n, err)
			}
			return time.Since(begin).Round(time.Second)
		}
		for hour, want := range []time.Duration{8 * time.Second, 4 * time.Second, 0, 8 * time.Second} {
			time.Sleep(time.Until(now.Add(time.Duration(hour) * time.Hour)))
			if took := read(); took != want {
				t.Errorf("in hour %d a MiB takes %s, want %s", hour, took, want)
			}
		}
	})
}

func TestBandwidthIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 256 << 10, 1 << 20
		limit := NewBandwidth(rate)
		start := time.Now()
		done := make(chan time.Duration, 2)
		for range 2 {
			near, far := net.Pipe()
			go func() { // ends when all is read
				_, _ = far.Write(make([]byte, size))
				far.Close()
			}()
			go func() { // ends with the other side
				c := &slowConn{Conn: near, limit: limit, closed: make(chan struct{})}
				n, _ := io.Copy(io.Discard, c)
				if n != size {
					t.Errorf("read %d bytes, want %d", n, size)
				}
				c.Close()
				done <- time.Since(start)
			}()
		}
		<-done
		if took := <-done; took < 7*time.Second || took > 9*time.Second {
			t.Errorf("two connections took %s for 2 MiB at 256 KiB/s, want 8 s", took)
		}
		// Close ends a wait.
		near, far := net.Pipe()
		c := &slowConn{Conn: near, limit: NewBandwidth(1), closed: make(chan struct{})}
		go func() { _, _ = far.Write(make([]byte, 2*bandwidthChunk)); far.Close() }()
		start = time.Now()
		go func() { time.Sleep(time.Second); c.Close() }()
		_, _ = io.Copy(io.Discard, c)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("a read went on for %s after Close", took)
		}
	})
	if NewBandwidth(0) != nil {
		t.Error("no bound is one")
	}
}
