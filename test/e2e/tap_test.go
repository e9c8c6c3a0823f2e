package e2e

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// tap stands between a client and the mirror and notes what they say.
type tap struct {
	addr string // host and port, for the client

	mu        sync.Mutex
	exchanges []exchange // guarded by mu
}

// exchange is one request and the header of its answer.
type exchange struct {
	asked, answered time.Time // answered: the header was there
	method, path    string
	request         http.Header
	status          int
	response        http.Header
}

func (e exchange) isBlob() bool { return strings.Contains(e.path, "/blobs/") }

// openTap starts a tap in front of a mirror.
func openTap(t testing.TB, m *mirror) *tap {
	t.Helper()
	p := &tap{}
	transport := &http.Transport{DisableCompression: true}
	proxy := &httputil.ReverseProxy{
		Transport:     roundTripper(func(r *http.Request) (*http.Response, error) { return p.forward(transport, r) }),
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: m.addr})
			r.Out.Host = r.In.Host
		},
	}
	s := httptest.NewServer(proxy)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		transport.CloseIdleConnections()
	})
	p.addr = strings.TrimPrefix(s.URL, "http://")
	return p
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (p *tap) forward(next http.RoundTripper, r *http.Request) (*http.Response, error) {
	e := exchange{asked: time.Now(), method: r.Method, path: r.URL.RequestURI(), request: r.Header.Clone()}
	resp, err := next.RoundTrip(r)
	e.answered = time.Now()
	if err == nil {
		e.status, e.response = resp.StatusCode, resp.Header.Clone()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exchanges = append(p.exchanges, e)
	return resp, err
}

// take returns what was said so far, in the order of the answers, and forgets it.
func (p *tap) take() []exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.exchanges
	p.exchanges = nil
	return all
}
