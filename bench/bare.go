//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
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
	})
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
	addr, err := ask[string](c, "serve", pages)
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return &bare{c, addr}, nil
}
