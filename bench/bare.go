//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
)

// page is an answer as it went over the wire.
type page struct {
	Path   string
	Header http.Header
	Body   []byte
}

// runBare is the child that answers known paths with known bytes, and does nothing else:
// what net/http costs.
func runBare(in io.Reader, out io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	var served sync.WaitGroup
	defer served.Wait()
	server := &http.Server{ReadHeaderTimeout: startWithin}
	defer func() { _ = server.Close() }() // its connections have nothing more to say
	return answerCalls(in, out, methods{
		"serve": method(func(list []page) (string, error) {
			if server.Handler != nil {
				return "", errors.New("it serves already")
			}
			pages := make(map[string]page, len(list))
			for _, p := range list {
				pages[p.Path] = p
			}
			server.Handler = bareHandler(pages)
			served.Go(func() { _ = server.Serve(ln) }) // until Close
			return ln.Addr().String(), nil
		}),
		"pass": method(func(to passTo) (string, error) {
			if server.Handler != nil {
				return "", errors.New("it serves already")
			}
			var err error
			if server.Handler, err = to.handler(); err != nil {
				return "", err
			}
			served.Go(func() { _ = server.Serve(ln) }) // until Close
			return ln.Addr().String(), nil
		}),
	})
}

// passTo is a registry that requests are passed on to.
type passTo struct{ URL, Token string }

// handler is a proxy that keeps nothing and verifies nothing. It goes where the registry
// redirects to, as the client would have to, and as a mirror does.
func (p passTo) handler() (http.Handler, error) {
	at, err := url.Parse(p.URL)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(at)
			r.Out.Header.Set("Authorization", "Bearer "+p.Token)
		},
		Transport: following{client},
	}, nil
}

// following is a transport that follows redirects.
type following struct{ *http.Client }

func (f following) RoundTrip(r *http.Request) (*http.Response, error) {
	r.RequestURI = "" // as Do wants it
	return f.Do(r)
}

func bareHandler(pages map[string]page) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := pages[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		header := w.Header()
		for key, values := range p.Header {
			header[key] = values
		}
		_, _ = w.Write(p.Body) // a client that left needs no answer
	})
}

// bare is the child, seen by its parent.
type bare struct {
	*child
	addr string
}

func startBare(ctx context.Context, dir string, pages []page) (*bare, error) {
	c, err := startChild(ctx, childBare, dir, firstCPU)
	if err != nil {
		return nil, err
	}
	return serving(c, "serve", pages)
}

// startPassing starts a bare proxy in front of the hub.
func startPassing(ctx context.Context, dir string, to *hub) (*bare, error) {
	c, err := startChild(ctx, childBare, dir, anyCPU)
	if err != nil {
		return nil, err
	}
	return serving(c, "pass", passTo{to.url, to.token})
}

// get is a download of the blob through a proxy.
func (p *bare) get(d blob) download {
	return download{URL: "http://" + p.addr + blobPath(d), Size: d.Size}
}

func serving(c *child, how string, with any) (*bare, error) {
	addr, err := ask[string](c, how, with)
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return &bare{c, addr}, nil
}
