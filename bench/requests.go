//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// hammer asks for one thing over and over on connections that are kept.
type hammer struct {
	Addr   string // host:port
	Path   string
	Accept string
	// Authorization is shown; "" shows none.
	Authorization string
	Connections   int
	Seconds       float64
}

// hammered is how many requests were answered.
type hammered struct {
	Requests int64
	Seconds  float64
}

// run asks until the time is over. All answers must be alike: 200, and as long as the
// first one. One thread does it all (epoll), which costs the machine much less than the
// servers that it measures.
func (h hammer) run() (done hammered, err error) {
	p := &pounder{request: h.request(), answer: make([]byte, 256<<10)}
	if p.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return done, fmt.Errorf("epoll: %w", err)
	}
	defer p.close()
	for range h.Connections {
		if err := p.connect(h.Addr); err != nil {
			return done, err
		}
	}
	start := time.Now()
	err = p.pound(start.Add(time.Duration(h.Seconds * float64(time.Second))))
	return hammered{p.answered, time.Since(start).Seconds()}, err
}

func (h hammer) request() []byte {
	login := ""
	if h.Authorization != "" {
		login = "Authorization: " + h.Authorization + "\r\n"
	}
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: forebay-bench\r\nAccept: %s\r\n%s\r\n", h.Path, h.Addr, h.Accept, login)
}

// pounder is a hammer at work.
type pounder struct {
	request  []byte
	poll     int
	conns    []*keptConn
	answer   []byte // scratch
	length   int    // of every answer, header included; 0 before the first one
	answered int64
}

// keptConn is one connection with a request on its way.
type keptConn struct {
	tcp net.Conn
	fd  int
	got int // bytes of the answer so far
}

func (p *pounder) close() {
	for _, c := range p.conns {
		_ = c.tcp.Close()
	}
	_ = unix.Close(p.poll) // there is nothing to lose with it
}

func (p *pounder) connect(addr string) error {
	tcp, err := net.DialTimeout("tcp", addr, startWithin)
	if err != nil {
		return err
	}
	c := &keptConn{tcp: tcp, fd: -1}
	p.conns = append(p.conns, c)
	raw, err := tcp.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	// The connection stays open, and with it the number valid, until close.
	if err := raw.Control(func(fd uintptr) { c.fd = int(fd) }); err != nil {
		return err
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(p.conns) - 1)}
	if err := unix.EpollCtl(p.poll, unix.EPOLL_CTL_ADD, c.fd, &event); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// pound sends a request on every connection, and the next when its answer has come.
func (p *pounder) pound(until time.Time) error {
	for _, c := range p.conns {
		if err := p.send(c); err != nil {
			return err
		}
	}
	ready := make([]unix.EpollEvent, len(p.conns))
	for time.Now().Before(until) {
		n, err := unix.EpollWait(p.poll, ready, int(startWithin.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("epoll: %w", err)
		case n == 0:
			return fmt.Errorf("no answer within %s", startWithin)
		}
		for _, e := range ready[:n] {
			if err := p.receive(p.conns[e.Fd]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pounder) send(c *keptConn) error {
	// A request is far smaller than a socket's buffer and the last one was taken, so it
	// is written whole or not at all.
	n, err := unix.Write(c.fd, p.request)
	if err != nil || n != len(p.request) {
		return fmt.Errorf("write %d bytes: %d written: %w", len(p.request), n, err)
	}
	return nil
}

// receive takes what has come on c, and asks again if that completes an answer.
func (p *pounder) receive(c *keptConn) error {
	n, err := unix.Read(c.fd, p.answer)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("read answer: %w", err)
	case n == 0:
		return errors.New("read answer: the server closed the connection")
	}
	if c.got == 0 {
		if err := p.begin(p.answer[:n]); err != nil {
			return err
		}
	}
	if c.got += n; c.got < p.length {
		return nil
	}
	if c.got > p.length {
		return fmt.Errorf("an answer of %d bytes, the first one had %d", c.got, p.length)
	}
	c.got = 0
	p.answered++
	return p.send(c)
}

// begin looks at the start of an answer, which has the whole header.
func (p *pounder) begin(b []byte) error {
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answer begins with %q", b[:min(len(b), 200)])
	}
	if p.length > 0 {
		return nil
	}
	head, _, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return fmt.Errorf("the header does not come in one piece: %q", b)
	}
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		if http.CanonicalHeaderKey(string(key)) != "Content-Length" {
			continue
		}
		length, err := strconv.Atoi(string(bytes.TrimSpace(value)))
		if err != nil {
			return fmt.Errorf("Content-Length: %w", err)
		}
		p.length = len(head) + 4 + length
		return nil
	}
	return fmt.Errorf("answer without Content-Length: %q", head)
}
