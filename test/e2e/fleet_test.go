package e2e

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
	"testing"
	"time"

	"forebay/test/hubtest"
)

// balanced starts three mirrors that are one fleet, and HAProxy before them as deploy/haproxy.cfg has it.
func (w *world) balanced(t *testing.T) (addr string, mirrors []*mirror) {
	t.Helper()
	const n = 3
	for _, program := range []string{"redis-server", "haproxy"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing: install it with `make deps`", program)
		}
	}
	engine := freeAddr(t)
	_, port, _ := net.SplitHostPort(engine)
	connects := func(addr string) func() error {
		return func() error {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				err = c.Close()
			}
			return err
		}
	}
	startProcess(t, "redis-server", exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", t.TempDir()), connects(engine))
	for range n {
		m := startMirror(t, mirrorOptions{endpoint: w.hub.RegistryURL(), more: fmt.Sprintf("fleet: {engine: \"valkey://%s\", secret: %q, listen: \"127.0.0.1:0\"}\n", engine, strings.Repeat("0123", 8))})
		mirrors = append(mirrors, m)
	}
	addr = freeAddr(t)
	config, err := filepath.Abs("../../deploy/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("haproxy", "-db", "-f", config)
	cmd.Env = append(os.Environ(), "FRONT="+addr)
	for i, m := range mirrors {
		cmd.Env = append(cmd.Env, fmt.Sprintf("FOREBAY%d=%s", i+1, m.addr))
	}
	startProcess(t, "haproxy", cmd, connects(addr))
	for _, m := range mirrors {
		err := eventually(time.Minute, func() error {
			text, err := metricsOf(m)
			if err == nil && !strings.Contains(text, fmt.Sprintf("\nforebay_fleet_members %d\n", n)) {
				err = fmt.Errorf("%s does not know of %d mirrors", m.addr, n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return addr, mirrors
}

func metricsOf(m *mirror) (string, error) {
	res, err := http.Get(m.admin + "/metrics")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var b strings.Builder
	_, err = io.Copy(&b, res.Body)
	return b.String(), err
}

// Docker and containerd, which asks for ranges in parallel, pull through a balancer over three mirrors, of
// which one is killed while it sends: both have their image, and the registry sent each blob once, but for
// what was on its way to the mirror that died.
func TestClientsThroughABalancerLoseAMirror(t *testing.T) {
	w := newWorld(t, worldOptions{})
	addr, mirrors := w.balanced(t)
	w.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 8 << 20 })

	layer := w.images[bigDocker].blobs[1].digest.String()
	var pulls sync.WaitGroup
	for _, s := range []store{openContainerd24Parallel(t, addr), openDocker(t, addr)} {
		pulls.Go(func() {
			name := bigDocker + ":" + catalogueTag
			if err := tryPull(t.Context(), s, name, w.images[bigDocker].digest.String()); err != nil {
				t.Logf("pulled again, as kubelet does, since an answer broke off: %v", err)
			}
			pull(t, s, name, w.images[bigDocker])
		})
	}
	w.hub.WaitFor(t, time.Minute, "the layer to be on its way", func() bool { return w.hub.BlobBytes(layer) > 2<<20 })
	mirrors[0].kill()
	pulls.Wait()
	size := int64(len(w.images[bigDocker].blobs[1].bytes))
	if n := w.hub.BlobBytes(layer); n > size+16<<20 {
		t.Errorf("the registry sent %d bytes of a layer of %d", n, size)
	}
	t.Logf("%.2f of the layer", float64(w.hub.BlobBytes(layer))/float64(size))
}
