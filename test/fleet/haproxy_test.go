//go:build linux

package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"forebay/test/hubtest"
)

// balance starts the HAProxy of deploy/haproxy.cfg in front of the mirrors, and returns its URL.
func (w *world) balance() *mirror {
	w.t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program = "/usr/sbin/haproxy"
		if _, err := os.Stat(program); err != nil {
			w.t.Fatal("haproxy is missing: install it with `make deps`")
		}
	}
	config, err := filepath.Abs("../../deploy/haproxy.cfg")
	if err != nil {
		w.t.Fatal(err)
	}
	front := freeAddr(w.t)
	log, err := os.Create(filepath.Join(w.t.TempDir(), "haproxy.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	proxy := exec.Command(program, "-db", "-f", config) // without a master process, which would outlive it
	proxy.Env = append(os.Environ(), "FRONT="+front)
	for i, m := range w.mirrors {
		proxy.Env = append(proxy.Env, "FOREBAY"+string(rune('1'+i))+"="+strings.TrimPrefix(m.url, "http://"))
	}
	proxy.Stdout, proxy.Stderr = log, log
	proxy.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := proxy.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = proxy.Process.Kill()
		_ = proxy.Wait() // it was killed
		if text, err := os.ReadFile(log.Name()); err == nil && w.t.Failed() {
			w.t.Logf("haproxy logged:\n%s", text)
		}
	})
	balanced := &mirror{url: "http://" + front}
	w.await("HAProxy to answer for a mirror", func() bool {
		res, err := w.client.Get(balanced.url + "/v2/")
		if err == nil {
			_ = res.Body.Close()
		}
		return err == nil && res.StatusCode == 200
	})
	return balanced
}

// pullOn is pull by a client that goes on where a body ended short, as real ones do. It reports whether none did.
func (w *world) pullOn(m *mirror, digest string, come *atomic.Int64) (whole bool) {
	sum, got, size := sha256.New(), int64(0), int64(-1)
	for tries := 0; size < 0 || got < size; tries++ {
		if tries == 5 {
			w.t.Errorf("%s: %d of %d bytes after %d tries", digest, got, size, tries)
			return false
		}
		r, err := http.NewRequest(http.MethodGet, m.url+"/v2/library/app/blobs/"+digest, nil)
		if err != nil {
			w.t.Error(err)
			return false
		}
		if got > 0 {
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-", got))
		}
		res, err := w.client.Do(r)
		if err != nil {
			continue
		}
		if want := map[bool]int{true: http.StatusPartialContent, false: http.StatusOK}[got > 0]; res.StatusCode != want {
			_ = res.Body.Close()
			continue
		}
		size = got + res.ContentLength
		n, _ := io.Copy(sum, io.TeeReader(res.Body, counter{come})) // it may end short
		got += n
		_ = res.Body.Close()
		whole = tries == 0
	}
	if d := "sha256:" + hex.EncodeToString(sum.Sum(nil)); d != digest {
		w.t.Errorf("%d bytes with %s, want %s", got, d, digest)
	}
	return whole
}

// Behind HAProxy, as deploy/ has it, any of three mirrors serves any request: of what is new the registry sends
// one copy. Of the pulls that a mirror was in the middle of when it was killed clients see a body that ends
// short, and have the rest at once where they go on, as containerd and dockerd do; none sees a wrong byte.
func TestBehindHAProxyAMirrorMayDie(t *testing.T) {
	w := newWorld(t)
	w.gather()
	b := w.balance()
	const size = 24 << 20
	tag, digest := w.layer(size, 7)
	w.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 16 << 20 })
	w.touch(b, tag)
	var all sync.WaitGroup
	var come, short atomic.Int64
	for range 30 {
		all.Go(func() {
			if !w.pullOn(b, digest, &come) {
				short.Add(1)
			}
		})
	}
	w.await("the pulls to be under way", func() bool { return come.Load() > size })
	w.mirrors[0].kill()
	all.Wait()
	if short.Load() == 30 {
		t.Error("all pulls went through the mirror that was killed")
	}
	t.Logf("%d of 30 pulls had to go on after the kill", short.Load())
	if n := w.hub.BlobBytes(digest); n > 2*size {
		t.Errorf("the registry sent %d bytes of %d, want at most twice as many", n, size)
	}
	w.await("the dead mirror to be left alone", func() bool {
		for range 10 {
			res, err := w.client.Get(b.url + "/v2/")
			if err != nil {
				return false
			}
			_ = res.Body.Close()
			if res.StatusCode != 200 {
				return false
			}
		}
		return true
	})
	w.pull(b, digest, &come)
	img := w.hub.PushImage("library/app", "new", hubtest.ImageSpec{Layers: 1, Seed: 70})
	w.get(b, "new", w.hub.Bytes(img.Digest))
}
