//go:build linux

// Package fleet runs several mirrors as processes of the program with a real redis-server between them.
package fleet

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"forebay/test/hubtest"
)

const secret = "0123456789abcdef0123456789abcdef"

// world is a registry, an engine and three mirrors.
type world struct {
	t       *testing.T
	hub     *hubtest.Hub
	engine  string
	server  *exec.Cmd
	program string
	mirrors []*mirror
	client  *http.Client
	bytes   sync.Map     // of func() []byte, by digest
	longest atomic.Int64 // ns that a client waited for more bytes
}

type mirror struct {
	url, admin, config, log string
	cmd                     *exec.Cmd
	engine, peers           *edge // on its way to the engine, and of the others to it; nil without
}

func newWorld(t *testing.T) *world { return newWorldOn(t, nil) }

// newWorldOn is a world whose ways can be broken, if between makes them.
func newWorldOn(t *testing.T, between func() *edge) *world {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is missing: install it with `make deps`")
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	w := &world{t: t, hub: hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()}), engine: freeAddr(t), client: &http.Client{Transport: transport}}
	dir := t.TempDir()
	w.program = filepath.Join(dir, "forebay")
	if out, err := exec.Command("go", "build", "-o", w.program, "forebay/cmd/forebay").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	w.startEngine()
	t.Cleanup(w.killEngine)
	for i := range 3 {
		m := &mirror{config: filepath.Join(dir, fmt.Sprint(i, ".yaml")), log: filepath.Join(dir, fmt.Sprint(i, ".log"))}
		listen, admin, engine, peers, advertise := freeAddr(t), freeAddr(t), w.engine, "127.0.0.1:0", ""
		if between != nil {
			peers = freeAddr(t)
			m.engine, m.peers = between(), between()
			m.engine.to, m.peers.to = engine, peers
			engine, advertise = m.engine.addr(), "advertise: "+m.peers.addr()
		}
		m.url, m.admin = "http://"+listen, "http://"+admin
		text := fmt.Sprintf(`listen: %s
admin_listen: %s
storage: {dir: %q, max_size: 1GiB, min_free: 1MiB}
log: {access: false, format: json}
limits: {new_per_minute: 0, pulls: 0, fills: 0}
fleet:
  engine: valkey://%s
  password: hunter2
  secret: %q
  listen: %s
  %s
upstreams:
  docker.io: {endpoints: [%q], tag_ttl: 2s, refresh_ahead: {min_pulls: 0}}
`, listen, admin, filepath.Join(dir, fmt.Sprint("storage", i)), engine, secret, peers, advertise, w.hub.RegistryURL())
		if err := os.WriteFile(m.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.mirrors = append(w.mirrors, m)
		w.start(m)
		t.Cleanup(func() {
			m.kill()
			if log, err := os.ReadFile(m.log); err == nil && t.Failed() {
				t.Logf("%s logged:\n%s", m.url, log)
			}
		})
	}
	return w
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (w *world) startEngine() {
	w.t.Helper()
	_, port, _ := net.SplitHostPort(w.engine)
	w.server = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--requirepass", "hunter2", "--dir", w.t.TempDir())
	w.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := w.server.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.await("the engine to listen", func() bool {
		c, err := net.Dial("tcp", w.engine)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (w *world) killEngine() {
	if w.server != nil {
		_ = w.server.Process.Kill()
		_ = w.server.Wait() // it was killed
		w.server = nil
	}
}

func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited for %s", what)
		}
	}
}

func (w *world) start(m *mirror) {
	w.t.Helper()
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	m.cmd = exec.Command(w.program, "serve", "--config", m.config)
	m.cmd.Stdout, m.cmd.Stderr, m.cmd.Env = log, log, []string{"HOME=" + filepath.Dir(m.config)}
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.await("a mirror to be ready", func() bool {
		res, err := w.client.Get(m.admin + "/readyz")
		if err == nil {
			_ = res.Body.Close()
		}
		return err == nil && res.StatusCode == http.StatusOK
	})
}

func (m *mirror) kill() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait() // it was killed
		m.cmd = nil
	}
}

// get asks a mirror for a tag, and fails the test unless it gets the manifest.
func (w *world) get(m *mirror, tag string, want []byte) {
	res, err := w.client.Get(m.url + "/v2/library/app/manifests/" + tag)
	if err != nil {
		w.t.Errorf("GET %s: %v", tag, err)
		return
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || string(got) != string(want) {
		w.t.Errorf("GET %s of %s = %d, %q, %v", tag, m.url, res.StatusCode, got, err)
	}
}

// failedCalls returns how many calls to the engine have failed, of all mirrors that run. On a machine that is
// loaded one may take longer than a mirror waits: then it goes on alone, as it should.
func (w *world) failedCalls() (n float64) {
	w.t.Helper()
	for _, m := range w.mirrors {
		if m.cmd != nil {
			n += w.metric(m, "forebay_fleet_failed_calls_total")
		}
	}
	return n
}

// crowd has many clients of all mirrors that run ask for a tag at once.
func (w *world) crowd(tag string, want []byte) {
	var all sync.WaitGroup
	for i := range 600 {
		if m := w.mirrors[i%len(w.mirrors)]; m.cmd != nil {
			all.Go(func() { w.get(m, tag, want) })
		}
	}
	all.Wait()
}

// metric reads one of a mirror.
func (w *world) metric(m *mirror, line string) (value float64) {
	w.t.Helper()
	res, err := w.client.Get(m.admin + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, line+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				w.t.Fatalf("%s: %v", l, err)
			}
			return value
		}
	}
	w.t.Fatalf("no metric %s in\n%s", line, b)
	return 0
}

// Six hundred clients of three mirrors and a tag whose time is over: one HEAD. The same, fewer mirrors
// and no engine: everybody is served, by one HEAD of each mirror at most. With the engine back: one again.
func TestOneHeadOfThreeMirrors(t *testing.T) {
	w := newWorld(t)
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 1})
	want := w.hub.Bytes(img.Digest)
	for _, m := range w.mirrors {
		w.get(m, "v1", want)
		w.await("the engine to be reached", func() bool {
			w.get(m, "v1", want)
			return w.metric(m, `forebay_fleet_tags_total{result="shared"}`)+w.metric(m, `forebay_fleet_tags_total{result="asked"}`) > 0
		})
	}
	// A mirror that has no token yet is refused first.
	heads := func() int {
		return w.hub.Count(hubtest.Query{Route: hubtest.RouteManifest, Method: http.MethodHead, Ref: "v1", Status: http.StatusOK})
	}
	expire := func() { <-time.After(2100 * time.Millisecond) }
	// once has everybody ask for the tag when its time is over.
	once := func(what string) {
		t.Helper()
		expire()
		before, failed := heads(), w.failedCalls()
		w.crowd("v1", want)
		if n := heads() - before; n != 1 && (w.failedCalls() == failed || n > 3) {
			t.Errorf("%d HEADs of three mirrors %s, want 1", n, what)
		}
	}
	once("at first")
	// It moved: all have the new one when the time of the old is over.
	img = w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 1, Seed: 9})
	want = w.hub.Bytes(img.Digest)
	once("after a move")
	for _, m := range w.mirrors {
		if n := w.metric(m, "forebay_fleet_duplicates_total"); n != 0 && w.failedCalls() == 0 {
			t.Errorf("%s counts %v duplicates, want none", m.url, n)
		}
	}
	w.killEngine()
	w.mirrors[0].kill()
	expire()
	before := heads()
	w.crowd("v1", want)
	if n := heads() - before; n < 1 || n > 2 {
		t.Errorf("%d HEADs of two mirrors without an engine, want 1 or 2", n)
	}
	w.await("the mirrors to say that they are alone", func() bool {
		w.get(w.mirrors[1], "v1", want)
		return w.metric(w.mirrors[1], "forebay_fleet_degraded") == 1
	})
}
