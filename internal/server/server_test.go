package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits for what must happen soon.
const patience = 20 * time.Second

// start runs a server until the test ends, or until stop is called, which returns what
// Serve returned.
func start(t *testing.T, o Options, change func(*Server)) (s *Server, stop func() error) {
	t.Helper()
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(s)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, stop
}

// await fails the test when c is not closed or sent to soon.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: did not happen", what)
	}
	panic("unreachable")
}

func bigFile(t testing.TB, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return name
}

// serveFile is a handler that sends a file and reports how that ended.
func serveFile(name string, ended chan<- error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(name)
		if err != nil {
			panic(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", fmt.Sprint(info.Size()))
		_, err = io.CopyN(w, f, info.Size())
		if ended != nil {
			ended <- err
		}
	})
}

func dial(t *testing.T, s *Server) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// seenStream writes down what reaches the TCP connection.
type seenStream struct {
	*net.TCPConn
	seen *seen
}

type seen struct {
	mu     sync.Mutex
	files  int // calls of ReadFrom with a file
	others int
	most   int64 // the largest piece
	bytes  int64 // by ReadFrom
}

func (s *seenStream) ReadFrom(r io.Reader) (int64, error) {
	lr, limited := r.(*io.LimitedReader)
	isFile, size := false, int64(0)
	if limited {
		_, isFile = lr.R.(*os.File)
		size = lr.N
	}
	n, err := s.TCPConn.ReadFrom(r)
	s.seen.mu.Lock()
	defer s.seen.mu.Unlock()
	if isFile {
		s.seen.files++
	} else {
		s.seen.others++
	}
	s.seen.most = max(s.seen.most, size)
	s.seen.bytes += n
	return n, err
}

func TestFilesGoOutBySendfile(t *testing.T) {
	const size = 3<<20 + 17
	var saw seen
	ended := make(chan error, 1)
	s, _ := start(t, Options{Handler: serveFile(bigFile(t, size), ended)}, func(s *Server) {
		s.wrap = func(in stream) stream { return &seenStream{in.(*net.TCPConn), &saw} }
	})
	resp, err := http.Get("http://" + s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if n != size || err != nil {
		t.Errorf("got %d bytes, %v, want %d", n, err, size)
	}
	if err := await(t, "the end of the handler", ended); err != nil { // the client may have all before the last piece is counted
		t.Error(err)
	}
	saw.mu.Lock()
	defer saw.mu.Unlock()
	// net/http sends the first 512 bytes by itself.
	if saw.others != 0 || saw.files < 12 || saw.most > filePiece || saw.bytes < size-4096 {
		t.Errorf("%d pieces of files of at most %d bytes, %d others, %d bytes in all, want everything from files", saw.files, saw.most, saw.others, saw.bytes)
	}
}

// A client that reads nothing is cut off, though not before its time.
func TestStalledClientIsCutOff(t *testing.T) {
	const size = 64 << 20
	ended := make(chan error, 1)
	s, _ := start(t, Options{Handler: serveFile(bigFile(t, size), ended), WriteIdle: 300 * time.Millisecond}, nil)
	c := dial(t, s)
	began := time.Now()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: m\r\n\r\n")
	err := await(t, "the end of a stalled answer", ended)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || !strings.Contains(err.Error(), "client takes nothing") {
		t.Errorf("the answer ended with %v, want a timeout", err)
	}
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Errorf("cut off after %s, want 300 ms", took)
	}
	// What is on its way arrives, and then the end: FIN, not RST.
	if n, err := io.Copy(io.Discard, c); err != nil || n >= size {
		t.Errorf("read %d bytes and %v, want fewer than %d and the end", n, err, size)
	}
}

// A slow client is served for many times WriteIdle, even when the kernel's buffer is so
// large that it takes nothing new for longer than that.
func TestSlowClientIsServed(t *testing.T) {
	const size = 16 << 20
	ended := make(chan error, 1)
	idle := 2 * time.Second
	s, _ := start(t, Options{Handler: serveFile(bigFile(t, size), ended), WriteIdle: idle}, func(s *Server) {
		s.wrap = func(in stream) stream {
			if err := in.(*net.TCPConn).SetWriteBuffer(1 << 20); err != nil {
				t.Error(err)
			}
			return in
		}
	})
	// The segments of a real network, so that what is read is acknowledged soon.
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		control := c.Control(func(fd uintptr) {
			err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400),
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10))
		})
		return errors.Join(control, err)
	}}
	c, err := dialer.DialContext(t.Context(), "tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: m\r\n\r\n")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	buf := make([]byte, 2<<10)
	rest := int64(size)
	for time.Since(began) < 4*idle { // at 100 KiB/s
		<-tick.C
		n, err := io.ReadFull(c, buf)
		if err != nil {
			t.Fatalf("after %s: %v", time.Since(began), err)
		}
		rest -= int64(n)
	}
	if _, err := io.CopyN(io.Discard, c, rest); err != nil { // the headers remain
		t.Errorf("the rest: %v", err)
	}
	if err := await(t, "the end of the answer", ended); err != nil {
		t.Errorf("the answer ended with %v", err)
	}
}

func TestSlowHeadersAreCutOff(t *testing.T) {
	s, _ := start(t, Options{Handler: http.NotFoundHandler(), ReadHeaderTimeout: 100 * time.Millisecond}, nil)
	for _, sent := range []string{"", "GET / HTTP/1.1\r\nHost: m\r\nX-Slow: "} {
		c := dial(t, s)
		fmt.Fprint(c, sent)
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("after %q: %v, want the connection closed", sent, err)
		}
	}
}

func TestLargeHeadersAreRefused(t *testing.T) {
	s, _ := start(t, Options{Handler: http.NotFoundHandler(), MaxHeaderBytes: 8 << 10}, nil)
	c := dial(t, s)
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: m\r\nX-Large: %s\r\n\r\n", strings.Repeat("x", 20<<10))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, "431") {
		t.Errorf("answer %q, %v, want 431", line, err)
	}
}

// The order of a graceful stop: readiness, the port, the running answers.
func TestGracefulStop(t *testing.T) {
	core, logged := observer.New(zapcore.WarnLevel)
	inside, release := make(chan struct{}), make(chan struct{})
	drained := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4")
		fmt.Fprint(w, "ab")
		_ = http.NewResponseController(w).Flush()
		close(inside)
		<-release
		if err := r.Context().Err(); err != nil {
			t.Errorf("the context of a running request ended: %v", err)
		}
		fmt.Fprint(w, "cd")
	})
	// Below the five seconds after which net/http closes what has no request.
	s, stop := start(t, Options{Handler: handler, Draining: func() { close(drained) }, ShutdownGrace: 4 * time.Second, Log: zap.New(core)}, nil)
	c := dial(t, s)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: m\r\n\r\n")
	await(t, "the request", inside)
	idle := dial(t, s) // has no request yet
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	await(t, "draining", drained)
	for deadline := time.Now().Add(patience); ; {
		n, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			break // the port is closed
		}
		n.Close()
		if time.Now().After(deadline) {
			t.Fatal("the port stays open")
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("Serve returned %v while an answer was running", err)
	default:
	}
	close(release)
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasSuffix(string(got), "abcd") {
		t.Errorf("the running answer: %q, %v, want it whole", got, err)
	}
	// What has no request by then is not waited for.
	if got, err := io.ReadAll(idle); err != nil || len(got) > 0 {
		t.Errorf("the connection without a request: %q, %v, want its end", got, err)
	}
	if err := await(t, "the end of Serve", ended); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if n := logged.FilterMessage("running answers cut off").Len(); n != 0 {
		t.Error("answers were cut off")
	}
}

// What does not finish within the grace is cut, by FIN, and Serve waits for its handler.
func TestStopCutsAfterGrace(t *testing.T) {
	core, logged := observer.New(zapcore.WarnLevel)
	inside := make(chan struct{})
	left := false
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4")
		fmt.Fprint(w, "ab")
		_ = http.NewResponseController(w).Flush()
		close(inside)
		<-r.Context().Done()
		left = true // read after Serve has returned
	})
	s, stop := start(t, Options{Handler: handler, ShutdownGrace: 50 * time.Millisecond, Log: zap.New(core)}, nil)
	c := dial(t, s)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: m\r\n\r\n")
	await(t, "the request", inside)
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if !left {
		t.Error("Serve returned before its handler")
	}
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasSuffix(string(got), "ab") {
		t.Errorf("the cut answer: %q, %v, want its beginning and the end of the connection", got, err)
	}
	if n := logged.FilterMessage("running answers cut off").Len(); n != 1 {
		t.Errorf("%d lines about it, want 1", n)
	}
}

func TestListenOnTakenPort(t *testing.T) {
	first, _ := start(t, Options{Handler: http.NotFoundHandler()}, nil)
	second, err := New(Options{Handler: http.NotFoundHandler(), Addr: first.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Serve(t.Context()); err == nil || !strings.Contains(err.Error(), first.Addr().String()) {
		t.Errorf("Serve on a taken port: %v, want an error that names it", err)
	}
	if second.Addr() != nil {
		t.Errorf("Addr = %s without a listener", second.Addr())
	}
}

func TestNewRefuses(t *testing.T) {
	rows := map[string]Options{
		"no handler":     {},
		"half a pair":    {Handler: http.NotFoundHandler(), TLSCert: "cert.pem"},
		"no such files":  {Handler: http.NotFoundHandler(), TLSCert: "/nowhere/cert.pem", TLSKey: "/nowhere/key.pem"},
		"not PEM at all": {Handler: http.NotFoundHandler(), TLSCert: "server.go", TLSKey: "server.go"},
	}
	for name, o := range rows {
		if _, err := New(o); err == nil {
			t.Errorf("New with %s succeeded, want an error", name)
		}
	}
}

func TestPanicIsLoggedAsError(t *testing.T) {
	core, logged := observer.New(zapcore.DebugLevel)
	s, _ := start(t, Options{Log: zap.New(core), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("broken invariant") })}, nil)
	if resp, err := http.Get("http://" + s.Addr().String()); err == nil {
		resp.Body.Close()
		t.Errorf("got %s, want no answer", resp.Status)
	}
	for deadline := time.Now().Add(patience); ; {
		lines := logged.FilterMessage("http server").All()
		if len(lines) == 1 {
			if text := fmt.Sprint(lines[0].ContextMap()["text"]); lines[0].Level != zapcore.ErrorLevel || !strings.Contains(text, "broken invariant") {
				t.Errorf("logged %s %s", lines[0].Level, text)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing logged")
		}
	}
}
