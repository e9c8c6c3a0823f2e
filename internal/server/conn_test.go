package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipeStream is a connection without a network: its time is that of the test.
type pipeStream struct{ net.Conn }

// ReadFrom copies like TCP without sendfile: what was read and not written is lost.
func (p pipeStream) ReadFrom(r io.Reader) (int64, error) {
	buf, err := io.ReadAll(r)
	if err != nil {
		return 0, err
	}
	n, err := p.Write(buf)
	return int64(n), err
}

func (p pipeStream) CloseWrite() error { return p.Close() }

func newPipe() (*conn, net.Conn) {
	ours, theirs := net.Pipe()
	return &conn{stream: pipeStream{ours}, idle: time.Minute}, theirs
}

// readSlowly reads everything in pieces with a pause before each.
func readSlowly(c net.Conn, piece int, pause time.Duration) <-chan []byte {
	got := make(chan []byte, 1)
	go func() {
		var all []byte
		buf := make([]byte, piece)
		for {
			<-time.After(pause)
			n, err := c.Read(buf)
			all = append(all, buf[:n]...)
			if err != nil {
				got <- all
				return
			}
		}
	}()
	return got
}

func TestSlowWriteGoesOn(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789"), 100)
	write := map[string]func(*conn) (int64, error){
		"Write": func(c *conn) (int64, error) {
			n, err := c.Write(want)
			return int64(n), err
		},
		"ReadFrom a reader": func(c *conn) (int64, error) { return c.ReadFrom(bytes.NewReader(want)) },
		"ReadFrom a file": func(c *conn) (int64, error) {
			name := t.TempDir() + "/file"
			if err := os.WriteFile(name, append(want, "more"...), 0o600); err != nil {
				return 0, err
			}
			f, err := os.Open(name)
			if err != nil {
				return 0, err
			}
			defer f.Close()
			return c.ReadFrom(&io.LimitedReader{R: f, N: int64(len(want))})
		},
	}
	for name, write := range write {
		synctest.Test(t, func(t *testing.T) {
			c, theirs := newPipe()
			got := readSlowly(theirs, 25, 29*time.Second) // 20 minutes in all
			began := time.Now()
			n, err := write(c)
			if n != int64(len(want)) || err != nil {
				t.Errorf("%s = %d, %v after %s, want %d", name, n, err, time.Since(began), len(want))
			}
			c.Close()
			if all := <-got; !bytes.Equal(all, want) {
				t.Errorf("%s: the client got %d bytes, want the same %d", name, len(all), len(want))
			}
		})
	}
}

func TestStalledWriteEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, theirs := newPipe()
		defer theirs.Close()
		defer c.Close()
		began := time.Now()
		_, err := c.Write([]byte("x"))
		if took := time.Since(began); took != time.Minute || !errors.As(err, new(errStalled)) {
			t.Errorf("Write ended after %s with %v, want a stall after a minute", took, err)
		}
		// What net/http does next must not wait once more.
		if _, err := c.Write([]byte("x")); time.Since(began) != time.Minute || !errors.As(err, new(errStalled)) {
			t.Errorf("second Write ended after %s with %v, want at once", time.Since(began), err)
		}
		if _, err := c.ReadFrom(strings.NewReader("x")); time.Since(began) != time.Minute || err == nil {
			t.Errorf("ReadFrom ended after %s with %v, want at once", time.Since(began), err)
		}
	})
}

// crypto/tls and net/http set deadlines of their own, which hold.
func TestDeadlineFromOutsideHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, theirs := newPipe()
		defer theirs.Close()
		defer c.Close()
		began := time.Now()
		if err := c.SetDeadline(began.Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("Write ended after %s with %v, want the deadline after 5 s", time.Since(began), err)
		}
		if err := c.SetWriteDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		got := readSlowly(theirs, 10, time.Second)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Errorf("Write after the deadline was taken back: %v", err)
		}
		c.Close()
		<-got
	})
}

func TestReadFromEndsWithFile(t *testing.T) {
	name := t.TempDir() + "/file"
	if err := os.WriteFile(name, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c, theirs := newPipe()
		got := readSlowly(theirs, 400, time.Second)
		limited := &io.LimitedReader{R: f, N: 5000}
		if n, err := c.ReadFrom(limited); n != 1000 || err != nil || limited.N != 4000 {
			t.Errorf("ReadFrom = %d, %v with %d left, want 1000 and 4000 left", n, err, limited.N)
		}
		c.Close()
		<-got
	})
}
