package page

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"forebay/test/hubtest"
)

const adminToken = "a-token-for-the-page-0123456789"

// hostileAgent is what a client may call itself.
const hostileAgent = `<img src=x onerror="window.pwned=1">"'><script>window.pwned=1</script>`

// world is the mirrors that the browser looks at, and what is around them.
type world struct {
	hub, other, flaky    *hubtest.Hub // docker.io, registry.k8s.io, ghcr.io
	data, empty, guarded *server
	fleet, second        *server                   // of which second is killed
	images               map[string]*hubtest.Image // by name and tag
	pulls, cut           sync.WaitGroup
}

// server is a mirror in a process of its own.
type server struct {
	t               testing.TB
	program         string
	config          string
	registry, admin string // base URLs
	token           string // that it made for itself, unless one is configured
	cmd             *exec.Cmd
	log             string
}

func newWorld(t *testing.T, root string) *world {
	t.Helper()
	program := build(t, root)
	plan := hubtest.Options{Anonymous: hubtest.Plan{Limit: 200, Window: 6 * time.Hour}, SlidingWindow: true}
	w := &world{
		hub: hubtest.New(t, plan), other: hubtest.New(t, hubtest.Options{RateHeaders: hubtest.RateNone}),
		flaky: hubtest.New(t, hubtest.Options{RateHeaders: hubtest.RateNone}), images: map[string]*hubtest.Image{},
	}
	dir := t.TempDir()
	seed(t, filepath.Join(dir, "data"))
	w.data = newServer(t, program, dir, "data", fmt.Sprintf("pins: ['library/postgres:*']\nprefetch:\n- {name: base, images: ['alpine:3.20', 'nginx:1.27'], platforms: [linux/amd64, linux/arm64], schedule: '0 5 * * *'}\ncost: {per_gib: 0.09, currency: EUR}\nsigners: [{name: acme, keys: [%q]}]\npolicies: [{name: cooling, match: ['team/waits'], age: 7d, first_sight: hold}, {name: signed, match: ['library/postgres'], signed_by: [acme], mode: observe}]\nupstreams:\n%s%s%s",
		newKey(t, dir),
		upstreamOf("docker.io", w.hub), upstreamOf("ghcr.io", w.flaky), upstreamOf("registry.k8s.io", w.other)))
	w.empty = newServer(t, program, dir, "empty", "upstreams:\n"+upstreamOf("docker.io", w.hub))
	w.guarded = newServer(t, program, dir, "guarded", "admin_token: "+adminToken+"\nupstreams:\n"+upstreamOf("docker.io", w.hub))
	engine := newEngine(t)
	for name, s := range map[string]**server{"fleet": &w.fleet, "second": &w.second} {
		*s = newServer(t, program, dir, name, fmt.Sprintf("fleet: {engine: 'redis://%s', secret: %s, listen: '127.0.0.1:0', zone: zone-%s}\nupstreams:\n%s", engine, strings.Repeat("s", 32), name, upstreamOf("docker.io", w.hub)))
	}
	w.push()
	t.Cleanup(w.pulls.Wait)
	if err := w.first(); err != nil {
		t.Fatal(err)
	}
	return w
}

// newKey makes a key that has signed nothing, and returns the file with its public half.
func newKey(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	name := filepath.Join(dir, "acme.pub")
	if err := errors.Join(err, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)); err != nil {
		t.Fatal(err)
	}
	return name
}

// newEngine starts a server that mirrors share, and returns its address.
func newEngine(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("there is no redis-server: run make deps, or install Debian's redis-server")
	}
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	cmd := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	return address
}

// build makes the program from this tree.
func build(t *testing.T, root string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "forebay")
	cmd := exec.Command("go", "build", "-C", root, "-trimpath", "-ldflags", "-X main.version=v1.0.0", "-o", program, "./cmd/forebay")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build forebay: %v\n%s", err, out)
	}
	return program
}

func upstreamOf(name string, hub *hubtest.Hub) string {
	_, auth, _ := strings.Cut(hub.URL(hubtest.RoleAuth), "://")
	return fmt.Sprintf("  %s:\n    endpoints: [%q]\n    trusted_realms: [%q]\n    tag_ttl: 1h\n", name, hub.RegistryURL(), auth)
}

// newServer starts a mirror, which is stopped at the end.
func newServer(t *testing.T, program, dir, name, more string) *server {
	t.Helper()
	s := &server{t: t, program: program, config: filepath.Join(dir, name+".yaml"), log: filepath.Join(dir, name+".log")}
	registry, admin := freeAddress(t), freeAddress(t)
	s.registry, s.admin = "http://"+registry, "http://"+admin
	text := fmt.Sprintf("listen: %s\nadmin_listen: %s\nlog: {format: json}\nstorage: {dir: %s, max_size: 256MiB, min_free: 1MiB}\n%s", registry, admin, filepath.Join(dir, name), more)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		b, _ := os.ReadFile(s.log) // only to tell more
		t.Fatalf("start %s: %v\n%s", name, err, b)
	}
	if !strings.Contains(more, "admin_token") {
		token, err := os.ReadFile(filepath.Join(dir, name, "admin.token"))
		if err != nil {
			t.Fatal(err)
		}
		s.token = strings.TrimSpace(string(token))
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stop %s: %v", name, err)
		}
		if t.Failed() {
			if b, err := os.ReadFile(s.log); err == nil {
				t.Logf("%s logged, at the end:\n%s", name, b[max(0, len(b)-4000):])
			}
		}
	})
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts the process and waits until it is ready.
func (s *server) start() error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.program, "serve", "--config", s.config)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	return eventually(2*time.Minute, func() error {
		res, err := http.Get(s.admin + "/readyz")
		if err != nil {
			return err
		}
		defer http.DefaultClient.CloseIdleConnections()
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz answers %s", res.Status)
		}
		return nil
	})
}

// stop ends the process as SIGTERM does, if it runs.
func (s *server) stop() error {
	if s.cmd == nil {
		return nil
	}
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	return cmd.Wait()
}

// kill ends it without a word.
func (s *server) kill() error {
	if s.cmd == nil {
		return nil
	}
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	_ = cmd.Wait() // it was killed
	return nil
}

// push fills the hubs.
func (w *world) push() {
	put := func(hub *hubtest.Hub, repo, tag string, size int64, platforms ...string) {
		w.images[repo+":"+tag] = hub.PushImage(repo, tag, hubtest.ImageSpec{
			Platforms: platforms, Layers: 3, LayerSize: size, Index: len(platforms) > 1, Attestations: len(platforms) > 1,
		})
	}
	put(w.hub, "library/nginx", "1.27", 3<<20, "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x")
	put(w.hub, "library/postgres", "17", 4<<20, "linux/amd64", "linux/arm64")
	put(w.hub, "library/alpine", "3.20", 1<<20, "linux/amd64", "linux/arm64")
	put(w.hub, "library/golang", "1.23-bookworm", 6<<20, "linux/amd64", "linux/arm64")
	put(w.hub, "grafana/grafana", "11.3.0", 3<<20, "linux/amd64")
	put(w.hub, "bitnami/redis", "7.4", 2<<20, "linux/amd64", "linux/arm64")
	put(w.hub, "team/scratch", "old", 1<<18, "linux/amd64")
	put(w.hub, "library/cassandra", "5.0", 8<<20, "linux/amd64")
	put(w.hub, "library/influxdb", "2.7", 8<<20+1, "linux/amd64")
	put(w.hub, "library/memcached", "1.6", 1<<20, "linux/amd64", "linux/arm64")
	put(w.hub, "team/several", "old-1", 1<<18, "linux/amd64")
	put(w.hub, "team/several", "old-2", 1<<18+1, "linux/amd64")
	put(w.hub, "team/waits", "1", 1<<18, "linux/amd64")
	put(w.other, "pause", "3.10", 1<<18, "linux/amd64", "linux/arm64")
	put(w.other, "kube-proxy", "v1.31.2", 2<<20, "linux/amd64", "linux/arm64")
	put(w.flaky, "fluxcd/source-controller", "v1.4.1", 2<<20, "linux/amd64", "linux/arm64")
}

// first pulls what the views show.
func (w *world) first() error {
	return errors.Join(
		w.pull("11", "containerd/v2.0.0", w.images["library/nginx:1.27"]),
		w.pull("12", "containerd/v2.0.0", w.images["library/nginx:1.27"]),
		w.pull("13", "docker/27.3.1 go/go1.22.7", w.images["library/nginx:1.27"]),
		w.pull("11", "containerd/v2.0.0", w.images["library/postgres:17"]),
		w.pull("14", "buildkit/v0.17", w.images["library/golang:1.23-bookworm"]),
		w.pull("14", "buildkit/v0.17", w.images["library/golang:1.23-bookworm"]),
		w.pull("14", "buildkit/v0.17", w.images["library/alpine:3.20"]),
		w.pull("12", "containerd/v2.0.0", w.images["grafana/grafana:11.3.0"]),
		w.pull("13", "docker/27.3.1 go/go1.22.7", w.images["team/scratch:old"]),
		w.pull("13", "docker/27.3.1 go/go1.22.7", w.images["team/several:old-1"]),
		w.pull("13", "docker/27.3.1 go/go1.22.7", w.images["team/several:old-2"]),
		w.pullFrom("registry.k8s.io", "12", "containerd/v2.0.0", w.images["pause:3.10"], true),
		w.pullFrom("registry.k8s.io", "11", "containerd/v2.0.0", w.images["kube-proxy:v1.31.2"], true),
		w.pullFrom("ghcr.io", "12", "containerd/v2.0.0", w.images["fluxcd/source-controller:v1.4.1"], true),
		// A client that has the layers already, as after another image.
		w.pullFrom("docker.io", "15", hostileAgent, w.images["bitnami/redis:7.4"], false),
		w.missing("15"),
		w.waits("15"),
	)
}

// waits is a client that asks for what a policy holds.
func (w *world) waits(client string) error {
	c, done := clientAt(client)
	defer done()
	return get(c, w.data.registry+"/v2/team/waits/manifests/1?ns=docker.io", "containerd/v2.0.0")
}

// traffic is a client that pulls what is kept.
func (w *world) traffic() error {
	return errors.Join(w.pull("12", "containerd/v2.0.0", w.images["library/postgres:17"]), w.pull("13", "docker/27.3.1 go/go1.22.7", w.images["library/alpine:3.20"]))
}

func (w *world) pull(client, agent string, image *hubtest.Image) error {
	return w.pullFrom("docker.io", client, agent, image, true)
}

// pullFrom pulls an image for linux/amd64 from 127.0.1.CLIENT as clients do: tag, child,
// configuration, and its layers unless it has them.
func (w *world) pullFrom(upstream, client, agent string, image *hubtest.Image, layers bool) error {
	c, done := clientAt(client)
	defer done()
	base := w.data.registry + "/v2/" + image.Repo
	paths := []string{base + "/manifests/" + image.Tag}
	child := image.Children[0]
	if image.Index {
		paths = append(paths, base+"/manifests/"+child.Digest)
	}
	paths = append(paths, base+"/blobs/"+child.Config.Digest)
	for _, l := range child.Layers {
		if layers {
			paths = append(paths, base+"/blobs/"+l.Digest)
		}
	}
	for _, path := range paths {
		if err := get(c, path+"?ns="+upstream, agent); err != nil {
			return err
		}
	}
	return nil
}

// missing asks for what is not there, which the registry refuses.
func (w *world) missing(client string) error {
	c, done := clientAt(client)
	defer done()
	if err := get(c, w.data.registry+"/v2/library/nginx/manifests/no-such-tag?ns=docker.io", hostileAgent); err == nil {
		return errors.New("a tag that does not exist was served")
	}
	return nil
}

func clientAt(last string) (*http.Client, func()) {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.1." + last)}}
	t := &http.Transport{DialContext: d.DialContext}
	return &http.Client{Transport: t, Timeout: time.Minute}, t.CloseIdleConnections
}

func get(c *http.Client, url, agent string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", agent)
	req.Header.Set("Accept", strings.Join([]string{hubtest.OCIIndex, hubtest.OCIManifest, hubtest.DockerList, hubtest.DockerManifest}, ", "))
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, res.Status)
	}
	return nil
}

// slow begins a pull that takes some seconds, which the page shows.
func (w *world) slow() error {
	w.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 3 << 20 })
	w.pulls.Go(func() {
		if err := w.pull("16", "containerd/v2.0.0", w.images["library/cassandra:5.0"]); err != nil {
			w.data.t.Errorf("slow pull: %v", err)
		}
	})
	return nil
}

// slowly is slow for a pull that an operator cancels.
func (w *world) slowly() error {
	w.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 1 << 20 })
	w.cut.Go(func() {
		if err := w.pull("16", "containerd/v2.0.0", w.images["library/influxdb:2.7"]); err == nil {
			w.data.t.Error("a pull whose fill was cancelled came to its end")
		}
	})
	return nil
}

func (w *world) slowlyOver() error {
	w.cut.Wait()
	w.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 0 })
	return w.pull("16", "containerd/v2.0.0", w.images["library/influxdb:2.7"])
}

func (w *world) fast() error {
	w.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 0 })
	w.pulls.Wait()
	return nil
}

// move makes a tag point to something else.
func (w *world) move() error {
	w.hub.PushImage("library/nginx", "1.27", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}, Index: true, LayerSize: 1 << 20, Seed: 77})
	return nil
}

// fail takes ghcr.io away, and lets the mirror find out. What is kept is served on.
func (w *world) fail() error {
	w.flaky.SwitchOff()
	c, done := clientAt("12")
	defer done()
	for n := range 30 { // more than were answered in the minute before
		_ = get(c, fmt.Sprintf("%s/v2/fluxcd/other/manifests/v%d?ns=ghcr.io", w.data.registry, n), "containerd/v2.0.0") // it fails, which is wanted
	}
	return nil
}

func (w *world) mend() error { return w.flaky.SwitchOn() }

// check looks at the hubs after all.
func (w *world) check(t *testing.T) {
	w.hub.AssertClean(t)
}
