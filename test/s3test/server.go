// Package s3test runs a real S3 server for tests, versitygw on a folder, with a proxy in
// front of it that counts what passes and misbehaves on request.
//
//	s := s3test.New(t)
//	s.Options()                                   // how to reach it
//	s.Add(s3test.Fault{Op: "GetObject", Status: 503, Times: 2})
//	s.Count("PutObject")
package s3test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
)

// What every server of this package has.
const (
	Bucket    = "forebay-test"
	AccessKey = "testkey"
	SecretKey = "testsecret-which-nobody-may-log"
	Region    = "eu-test-1"
)

// Server is a running S3 server with one bucket.
type Server struct {
	URL    string // base URL of the proxy
	Direct string // base URL of the server itself

	t    testing.TB
	root string // folder with the buckets
	bin  string
	addr string // of the server
	cmd  *exec.Cmd
	out  lockedBuffer

	mu     sync.Mutex
	faults []*Fault       // guarded by mu
	seen   []Request      // guarded by mu
	counts map[string]int // guarded by mu
	hung   chan struct{}  // closed at the end: what hangs is let go
}

// New starts a server, which is stopped when the test ends.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, bin: Binary(t), root: t.TempDir(), counts: map[string]int{}, hung: make(chan struct{})}
	if err := os.Mkdir(filepath.Join(s.root, Bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Stop)
	front := httptest.NewUnstartedServer(s.proxy())
	front.Config.ErrorLog = zap.NewStdLog(zap.NewNop()) // connections are reset on purpose
	front.Start()
	s.URL = front.URL
	t.Cleanup(func() {
		close(s.hung)
		front.CloseClientConnections()
		front.Close()
	})
	return s
}

// Binary returns the server's program: bin/versitygw of the module, or one in the PATH.
func Binary(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	name := filepath.Join(dir, "bin", "versitygw")
	if _, err := os.Stat(name); err == nil {
		return name
	}
	if name, err = exec.LookPath("versitygw"); err != nil {
		t.Fatal("the S3 server for tests is missing: build it with `make bin/versitygw`")
	}
	return name
}

// Start starts a server that was stopped, on its address and folder.
func (s *Server) Start() {
	s.t.Helper()
	if s.addr == "" {
		// The program takes no socket that is open already. On an address of its own nobody
		// takes the port in between.
		l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)))
		if err != nil {
			s.t.Fatal(err)
		}
		s.addr = l.Addr().String()
		_ = l.Close()
	}
	s.Direct = "http://" + s.addr
	s.cmd = exec.Command(s.bin, "--port", s.addr, "--region", Region, "--keep-alive", "--quiet", "posix", s.root)
	s.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start versitygw: %s", err)
	}
	Await(s.t, 20*time.Second, "the S3 server to listen", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// Stop ends the server as a kill does. The proxy goes on, and answers 502.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
	s.cmd = nil
	if s.t.Failed() {
		s.t.Logf("S3 server said:\n%s", s.out.String())
	}
}

// Await waits until ok, and fails the test after a while.
func Await(t testing.TB, most time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(most)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %s for %s", most, what)
		}
	}
}

// Object returns the file of an object below a prefix.
func (s *Server) Object(prefix string, d v1.Hash) string {
	return filepath.Join(s.root, Bucket, filepath.FromSlash(prefix), "blobs", d.Algorithm, d.Hex[:2], d.Hex)
}

// Objects returns the names of all content in the bucket. Uploads in parts are none.
func (s *Server) Objects() []string {
	return s.names(func(name string) bool { return !isSegment(name) })
}

// Segments returns the names of the segments of links and tags in the bucket.
func (s *Server) Segments() []string { return s.names(isSegment) }

func isSegment(name string) bool {
	return strings.HasPrefix(name, "refs/") || strings.Contains(name, "/refs/")
}

func (s *Server) names(of func(name string) bool) []string {
	s.t.Helper()
	var all []string
	top := filepath.Join(s.root, Bucket)
	err := filepath.WalkDir(top, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.IsDir() && strings.HasPrefix(e.Name(), ".sgwtmp") {
			return filepath.SkipDir
		}
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			rel, _ := filepath.Rel(top, name) // it is below
			if rel = filepath.ToSlash(rel); of(rel) {
				all = append(all, rel)
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// Damage changes the bytes of an object behind the server's back.
func (s *Server) Damage(name string, change func([]byte) []byte) {
	s.t.Helper()
	file := filepath.Join(s.root, Bucket, filepath.FromSlash(name))
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, change(b), 0o644)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// Uploads returns how many uploads in parts are under way.
func (s *Server) Uploads() int {
	n := 0
	_ = filepath.WalkDir(filepath.Join(s.root, Bucket, ".sgwtmp", "multipart"), func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Count(strings.TrimPrefix(name, s.root), string(filepath.Separator)) == 5 {
			n++
		}
		return nil
	})
	return n
}

// Age makes an object older than it is.
func (s *Server) Age(prefix string, d v1.Hash, by time.Duration) {
	s.t.Helper()
	name := s.Object(prefix, d)
	then := time.Now().Add(-by)
	if err := os.Chtimes(name, then, then); err != nil {
		s.t.Fatal(err)
	}
}

// Request is a request that passed the proxy.
type Request struct {
	Op, Key, Range string
	Status         int // 0 when there was no answer
}

// Fault is what the proxy does wrong.
type Fault struct {
	Op    string // "GetObject"; "" for all
	After int    // how many requests that fit pass first
	Times int    // how many are concerned; 0 means all that follow

	Status  int           // answered in place of the server
	Code    string        // its error code; "" means "SlowDown"
	Delay   time.Duration // before the request is passed on
	Hang    bool          // no answer until the end, or until the client goes
	Reset   bool          // the connection is reset in place of an answer
	CutBody int64         // the answer's body breaks off after so many bytes
	Lost    bool          // the request is passed on and the connection reset instead of its answer
	Flip    bool          // a bit of the answer's body is wrong
	Rate    int64         // bytes per second of the answer's body
	CutSend int64         // the request's body breaks off after so many bytes
	Gone    chan struct{} // closed, if not nil, when the first request is concerned

	gone bool
}

// Add makes the proxy misbehave from now on.
func (s *Server) Add(f Fault) *Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
	return s
}

// Clear makes it behave.
func (s *Server) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Count returns how many requests of an operation passed, "" for all.
func (s *Server) Count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op == "" {
		return len(s.seen)
	}
	return s.counts[op]
}

// Requests returns what passed since the last Forget.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.seen...)
}

// Forget begins to count anew.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen, s.counts = nil, map[string]int{}
}

// Op names the operation of a request.
func Op(r *http.Request) string {
	q := r.URL.Query()
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodPost && q.Has("delete"):
		return "DeleteObjects"
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == http.MethodPost && q.Has("uploadId"):
		return "CompleteMultipartUpload"
	case r.Method == http.MethodPut && q.Has("uploadId") && r.Header.Get("X-Amz-Copy-Source") != "":
		return "UploadPartCopy"
	case r.Method == http.MethodPut && q.Has("uploadId"):
		return "UploadPart"
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		return "CopyObject"
	case r.Method == http.MethodPut:
		return "PutObject"
	case r.Method == http.MethodDelete:
		return "AbortMultipartUpload"
	case r.Method == http.MethodHead && key == "":
		return "HeadBucket"
	case r.Method == http.MethodHead:
		return "HeadObject"
	case q.Has("uploads"):
		return "ListMultipartUploads"
	case q.Has("uploadId"):
		return "ListParts"
	case key == "":
		return "ListObjectsV2"
	}
	return "GetObject"
}

// proxy passes requests on with the Host that they were signed for.
func (s *Server) proxy() http.Handler {
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", s.addr, r.In.Host
		},
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		FlushInterval: -1,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	s.t.Cleanup(pass.Transport.(*http.Transport).CloseIdleConnections)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op := Op(r)
		f := s.saw(r, op)
		answer := &answer{ResponseWriter: w, s: s, request: len(s.Requests()) - 1, left: -1}
		if f != nil {
			if !s.spoil(answer, r, f) {
				return
			}
		}
		pass.ServeHTTP(answer, r)
	})
}

// saw counts a request and returns what is to go wrong with it.
func (s *Server) saw(r *http.Request, op string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	s.seen = append(s.seen, Request{Op: op, Key: key, Range: r.Header.Get("Range")})
	s.counts[op]++
	for _, f := range s.faults {
		if f.Op != "" && f.Op != op || f.Times < 0 {
			continue
		}
		if f.After > 0 {
			f.After--
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				f.Times = -1
			}
		}
		if f.Gone != nil {
			if !f.gone {
				f.gone = true
				close(f.Gone)
			}
		}
		return f
	}
	return nil
}

// spoil does what goes wrong, and reports whether the request is to be passed on.
func (s *Server) spoil(w *answer, r *http.Request, f *Fault) bool {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return false
		case <-s.hung:
			return false
		}
	}
	switch {
	case f.Hang:
		select {
		case <-r.Context().Done():
		case <-s.hung:
		}
		reset(w.ResponseWriter)
		return false
	case f.Reset:
		reset(w.ResponseWriter)
		return false
	case f.Status != 0:
		code := f.Code
		if code == "" {
			code = "SlowDown"
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(f.Status)
		if r.Method != http.MethodHead {
			fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>by the test</Message></Error>`, code)
		}
		return false
	}
	if f.CutSend > 0 {
		r.Body = &cutReader{ReadCloser: r.Body, left: f.CutSend}
	}
	w.flip, w.rate, w.lost = f.Flip, f.Rate, f.Lost
	if f.CutBody > 0 {
		w.left = f.CutBody
	}
	return true
}

// reset ends a connection without an answer.
func reset(w http.ResponseWriter) {
	if h, ok := w.(http.Hijacker); ok {
		if c, _, err := h.Hijack(); err == nil {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = c.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// answer is an answer on its way to the client.
type answer struct {
	http.ResponseWriter
	s       *Server
	request int
	left    int64 // bytes until it breaks off; -1 means never
	rate    int64
	flip    bool
	lost    bool
	wrote   int64
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	if a.lost {
		reset(a.ResponseWriter)
		panic(http.ErrAbortHandler)
	}
	a.s.mu.Lock()
	if a.request >= 0 && a.request < len(a.s.seen) {
		a.s.seen[a.request].Status = status
	}
	a.s.mu.Unlock()
	a.ResponseWriter.WriteHeader(status)
	if a.rate > 0 {
		_ = http.NewResponseController(a.ResponseWriter).Flush() // the head is in time
	}
}

func (a *answer) Write(b []byte) (int, error) {
	if a.flip && len(b) > 0 {
		b = append([]byte(nil), b...)
		b[len(b)/2] ^= 1
		a.flip = false
	}
	if a.left >= 0 && int64(len(b)) >= a.left {
		n, _ := a.ResponseWriter.Write(b[:a.left])
		_ = http.NewResponseController(a.ResponseWriter).Flush()
		a.left = 0
		reset(a.ResponseWriter)
		return n, errors.New("cut by the test")
	}
	if a.left > 0 {
		a.left -= int64(len(b))
	}
	if a.rate > 0 {
		select {
		case <-time.After(time.Duration(float64(len(b)) / float64(a.rate) * float64(time.Second))):
		case <-a.s.hung:
		}
	}
	n, err := a.ResponseWriter.Write(b)
	a.wrote += int64(n)
	return n, err
}

// cutReader breaks off.
type cutReader struct {
	io.ReadCloser
	left int64
}

func (c *cutReader) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

// lockedBuffer may be written by a process while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
