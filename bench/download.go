//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// download is one body to fetch, and to forget.
type download struct {
	URL    string
	Token  string // bearer token; not sent on to where a redirect leads
	Range  string // value of the header; "" means none
	Size   int64  // bytes that the body must have
	Repeat int    // times over, each on a connection of its own; 0 means once
}

// downloads are fetched at the same time.
type downloads struct {
	List []download
	// Meet makes each wait, with its header read, until all have got that far, so that
	// all are in progress at the same time whatever their speed.
	Meet bool
}

// fetched is when the bytes of a download came, in seconds since the start of all.
type fetched struct {
	First   float64 // first byte of the body
	ButLast float64 // all but the last one
	Last    float64 // last byte
}

// stuckAfter ends a download that hangs. Figures take less, also on slow machines.
const stuckAfter = 10 * time.Minute

// fetchAll is what the load child does with downloads.
func fetchAll(d downloads) ([]fetched, error) {
	all := make([]fetched, len(d.List))
	errs := make([]error, len(d.List))
	meeting := func() {}
	if d.Meet {
		var here sync.WaitGroup
		here.Add(len(d.List))
		meeting = func() {
			here.Done()
			here.Wait()
		}
	}
	var running sync.WaitGroup
	start := time.Now()
	for i := range d.List {
		running.Go(func() {
			meet := sync.OnceFunc(meeting) // also when it fails: others wait
			defer meet()
			for range max(d.List[i].Repeat, 1) {
				if all[i], errs[i] = d.List[i].fetch(start, meet); errs[i] != nil {
					return
				}
			}
		})
	}
	running.Wait()
	return all, errors.Join(errs...)
}

// fetch gets the body once. meet is called when its header has come.
func (d download) fetch(start time.Time, meet func()) (f fetched, err error) {
	header := http.Header{"User-Agent": {"forebay-bench"}}
	if d.Token != "" {
		header.Set("Authorization", "Bearer "+d.Token)
	}
	if d.Range != "" {
		header.Set("Range", d.Range)
	}
	at := d.URL
	for range 3 {
		c, err := get(at, header)
		if err != nil {
			return f, err
		}
		if c.status/100 == 3 {
			at = c.location
			header.Del("Authorization")
			c.close()
			continue
		}
		meet()
		f, err = c.drain(d.Size, start)
		c.close()
		if err != nil {
			return f, fmt.Errorf("%s: %w", at, err)
		}
		return f, nil
	}
	return f, fmt.Errorf("%s: too many redirects", d.URL)
}

// clientConn is a connection with one answer whose header has been read.
type clientConn struct {
	tcp      *net.TCPConn
	status   int
	location string
	length   int64
	buffered int64 // bytes of the body that came with the header
}

// get sends a request on a connection of its own and reads the header of its answer.
func get(at string, header http.Header) (_ *clientConn, err error) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, err
	}
	nc, err := net.DialTimeout("tcp", u.Host, startWithin)
	if err != nil {
		return nil, err
	}
	c := &clientConn{tcp: nc.(*net.TCPConn)}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := c.tcp.SetDeadline(time.Now().Add(stuckAfter)); err != nil {
		return nil, err
	}
	request := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header}
	if err := request.Write(c.tcp); err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	r := bufio.NewReader(c.tcp)
	response, err := http.ReadResponse(r, request) //nolint:bodyclose // the body is read from the connection itself
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	c.status, c.length, c.location = response.StatusCode, response.ContentLength, response.Header.Get("Location")
	c.buffered = int64(r.Buffered())
	switch {
	case c.status/100 == 3 && c.location != "", c.status/100 == 2 && c.length >= 0:
		return c, nil
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 500)) // only to tell more
	return nil, fmt.Errorf("%s: %s: %s", at, response.Status, text)
}

func (c *clientConn) close() { _ = c.tcp.Close() }

// drain takes size bytes off the connection. The kernel throws them away (MSG_TRUNC), so
// that the client does not cost what the server should be measured for.
func (c *clientConn) drain(size int64, start time.Time) (f fetched, err error) {
	if c.length != size {
		return f, fmt.Errorf("the body has %d bytes, want %d", c.length, size)
	}
	got := c.buffered
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return f, err
	}
	nothing := make([]byte, 1) // its length is a lie that MSG_TRUNC never looks at
	for {
		now := time.Since(start).Seconds()
		if got > 0 && f.First == 0 {
			f.First = now
		}
		if got >= size-1 && f.ButLast == 0 {
			f.ButLast = now
		}
		if got == size {
			f.Last = now
			return f, nil
		}
		most := size - got
		if most > 1 {
			most-- // the last byte is asked for by itself
		}
		n, err := discard(raw.Read, nothing, min(most, mib))
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return f, fmt.Errorf("at %d of %d: %w", got, size, err)
		}
		got += n
	}
}
