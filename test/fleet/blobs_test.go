//go:build linux

package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// layer pushes an image of one layer of so many bytes, and returns the digest of that.
func (w *world) layer(size int64, seed uint64) (tag, digest string) {
	tag = fmt.Sprint("v", seed)
	img := w.hub.PushImage("library/app", tag, hubtest.ImageSpec{Layers: 1, LayerSize: size, Seed: seed})
	return tag, img.Children[0].Layers[0].Digest
}

// bytesOf returns the bytes of what the registry has, which are made once.
func (w *world) bytesOf(digest string) []byte {
	b, _ := w.bytes.LoadOrStore(digest, sync.OnceValue(func() []byte { return w.hub.Bytes(digest) }))
	return b.(func() []byte)()
}

// pull gets a blob from a mirror, and fails the test unless its bytes are right. It tells how many have come.
func (w *world) pull(m *mirror, digest string, come *atomic.Int64) {
	res, err := w.client.Get(m.url + "/v2/library/app/blobs/" + digest)
	if err != nil {
		w.t.Errorf("GET %s of %s: %v", digest, m.url, err)
		return
	}
	defer res.Body.Close()
	want, buf, n := w.bytesOf(digest), make([]byte, 256<<10), 0
	for err == nil {
		var more int
		began := time.Now()
		more, err = res.Body.Read(buf)
		w.waited(time.Since(began))
		if n+more > len(want) || !bytes.Equal(buf[:more], want[n:n+more]) {
			w.t.Errorf("GET %s of %s: wrong bytes after %d", digest, m.url, n)
			return
		}
		n += more
		come.Add(int64(more))
	}
	if !errors.Is(err, io.EOF) || res.StatusCode != http.StatusOK || n != len(want) {
		w.t.Errorf("GET %s of %s = %d, %d bytes, %v", digest, m.url, res.StatusCode, n, err)
	}
}

// waited notes how long a client waited for bytes.
func (w *world) waited(long time.Duration) {
	for longest := w.longest.Load(); int64(long) > longest && !w.longest.CompareAndSwap(longest, int64(long)); longest = w.longest.Load() {
	}
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// pullAll has clients of all mirrors pull a blob at once.
func (w *world) pullAll(tag, digest string, clients int) {
	var all sync.WaitGroup
	var come atomic.Int64
	for _, m := range w.mirrors {
		w.touch(m, tag)
	}
	for i := range clients {
		all.Go(func() { w.pull(w.mirrors[i%len(w.mirrors)], digest, &come) })
	}
	all.Wait()
}

// pullOthers has the first mirror begin to fetch a blob of size bytes, clients of the others want it, and
// something fail when these have so many percent of it.
func (w *world) pullOthers(tag, digest string, size, percent int64, fail func()) {
	var all sync.WaitGroup
	var first, come atomic.Int64
	for _, m := range w.mirrors {
		w.touch(m, tag)
	}
	all.Go(func() {
		res, err := w.client.Get(w.mirrors[0].url + "/v2/library/app/blobs/" + digest)
		if err != nil {
			w.t.Error(err)
			return
		}
		defer res.Body.Close()
		_, _ = io.Copy(counter{&first}, res.Body) // it may break off: what it asks is killed
	})
	w.await("the first mirror to lead", func() bool { return first.Load() > 0 })
	for i := range 20 {
		all.Go(func() { w.pull(w.mirrors[1+i%2], digest, &come) })
	}
	w.await("the others to have a part", func() bool { return come.Load() > 20*size*percent/100 })
	w.longest.Store(0)
	fail()
	all.Wait()
}

// touch asks a mirror for a tag, as clients do before they ask for blobs.
func (w *world) touch(m *mirror, tag string) {
	res, err := w.client.Get(m.url + "/v2/library/app/manifests/" + tag)
	if err != nil || res.StatusCode != http.StatusOK {
		w.t.Errorf("GET %s of %s: %v, %v", tag, m.url, res, err)
		return
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
}

// gather waits until each mirror knows of all.
func (w *world) gather() {
	w.t.Helper()
	for _, m := range w.mirrors {
		w.await("the mirrors to find each other", func() bool { return m.cmd == nil || w.metric(m, "forebay_fleet_members") == float64(len(w.mirrors)) })
	}
}

// One cold blob, thirty clients of three mirrors, or six hundred of a larger one with FOREBAY_FLEET_SOAK: its
// registry sends it once, its manifest is one counted pull, and who comes later gets it from another mirror
// although the registry is gone.
func TestOneFetchOfThreeMirrors(t *testing.T) {
	size, clients := int64(32<<20), 30
	if os.Getenv("FOREBAY_FLEET_SOAK") != "" {
		size, clients = 256<<20, 600
	}
	w := newWorld(t)
	w.gather()
	tag, digest := w.layer(size, 1)
	began := time.Now()
	w.pullAll(tag, digest, clients)
	if n := w.hub.BlobBytes(digest); n > size*102/100 && (w.failedCalls() == 0 || n > size*305/100) {
		t.Errorf("the registry sent %d bytes of a blob of %d, want it once", n, size)
	}
	t.Logf("%d clients of three mirrors: %s, %.3f of the blob", clients, time.Since(began).Round(time.Millisecond), float64(w.hub.BlobBytes(digest))/float64(size))
	if n := w.hub.Count(hubtest.Query{Route: hubtest.RouteManifest, Method: http.MethodGet, Status: http.StatusOK}); n != 1 && (w.failedCalls() == 0 || n > 3) {
		t.Errorf("%d manifests were fetched, want 1", n)
	}
	// The same number of clients of one mirror.
	alone, other := w.layer(size, 3)
	began = time.Now()
	w.touch(w.mirrors[0], alone)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() { w.pull(w.mirrors[0], other, new(atomic.Int64)) })
	}
	all.Wait()
	t.Logf("%d clients of one mirror: %s", clients, time.Since(began).Round(time.Millisecond))
	// Two mirrors have another one; the third gets it from them.
	tag, digest = w.layer(3<<20, 2)
	var come atomic.Int64
	for _, m := range w.mirrors[:2] {
		w.touch(m, tag)
		w.pull(m, digest, &come)
	}
	w.hub.SwitchOff()
	w.pull(w.mirrors[2], digest, &come)
	if n := w.hub.BlobBytes(digest); n != 3<<20 && (w.failedCalls() == 0 || n > 6<<20) {
		t.Errorf("the registry sent %d bytes of a blob of %d, want it once", n, 3<<20)
	}
}

// The one who fetches is killed, or stopped for a while, and the engine is killed: no client of the others
// sees an error.
func TestLossWhileFetching(t *testing.T) {
	const size = 48 << 20
	w := newWorld(t)
	w.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 16 << 20 })
	leader := w.mirrors[0]
	type loss struct {
		name       string
		percent    int64 // that the others have by then
		fail, mend func()
		most       int64         // bytes of the registry, in percent
		stall      time.Duration // on a machine that others load
	}
	// What was under way is fetched again, 16 MiB at most, where nothing else runs; else a mirror may be left alone
	// that is only slow.
	full, again := os.Getenv("FOREBAY_FLEET_SOAK") != "", int64(250)
	if full {
		again = 134
	}
	killed := func(percent int64) loss {
		return loss{fmt.Sprintf("leader killed at %d %%", percent), percent, leader.kill, func() { w.start(leader) }, again, 6 * time.Second}
	}
	losses := []loss{
		killed(25),
		{"engine killed", 25, w.killEngine, w.startEngine, 225, 6 * time.Second},
		{"leader stopped", 25, func() {
			if err := leader.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Error(err)
			}
			time.AfterFunc(9*time.Second, func() { _ = leader.cmd.Process.Signal(syscall.SIGCONT) })
		}, func() {}, 275, 12 * time.Second},
	}
	if full {
		losses = append(losses, killed(1), killed(50), killed(90), killed(99))
	}
	for i, loss := range losses {
		w.gather()
		tag, digest := w.layer(size, uint64(10+i))
		began := time.Now()
		w.pullOthers(tag, digest, size, loss.percent, loss.fail)
		if n := w.hub.BlobBytes(digest); n > size*loss.most/100 {
			t.Errorf("%s: the registry sent %d bytes of a blob of %d, want at most %d %%", loss.name, n, size, loss.most)
		}
		stall := time.Duration(w.longest.Load()).Round(time.Millisecond)
		t.Logf("%s: %s, %.2f of the blob; no client waited for more than %s", loss.name, time.Since(began).Round(time.Millisecond), float64(w.hub.BlobBytes(digest))/size, stall)
		if stall > loss.stall {
			t.Errorf("%s: a client waited for %s", loss.name, stall)
		}
		loss.mend()
	}
}
