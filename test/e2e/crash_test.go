package e2e

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// slowLine gives the big layer about four seconds.
const slowLine = 16 << 20

// The mirror is killed in the middle of a layer. After a restart every client gets
// the image whole, and nothing that was half there passes for complete.
func TestKilledMirrorComesBackWhole(t *testing.T) {
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, worldOptions{hub: hubtest.Options{LineBytesPerSecond: slowLine}})
			name, big := bigDocker+":"+catalogueTag, w.images[bigDocker]
			// A test of its own, since it ends the daemon too: dockerd would go on for
			// a minute and then look for the rest at Docker Hub.
			t.Run("killed", func(t *testing.T) {
				s := c.open(t, w.mirror.addr)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				first := make(chan error, 1)
				go func() { first <- tryPull(ctx, s, name, big.digest.String()) }()
				w.waitHalf(t, big.blobs[1])
				w.mirror.kill()
				cancel()
				if err := <-first; err == nil {
					t.Error("the pull did not notice that the mirror was killed")
				}
			})
			w.front.take()
			w.mirror.assertStoreClean(t)

			w.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 0 })
			w.mirror.start(t)
			pull(t, c.open(t, w.mirror.addr), name, big)
			w.assertClean(t)
			layer := big.blobs[1]
			t.Logf("hub sent %.2f of the layer", float64(w.hub.BlobBytes(layer.digest.String()))/float64(len(layer.bytes)))
		})
	}
}

// T13 of docs/clients.md: a mirror that is told to stop refuses connections at once, the
// cleanest sign for every client to go elsewhere, and lets a running transfer end.
func TestStoppingMirrorFinishesTransfers(t *testing.T) {
	w := newWorld(t, worldOptions{hub: hubtest.Options{LineBytesPerSecond: slowLine}})
	big := w.images[bigDocker]
	s := openCrane(t, w.mirror.addr).(*craneStore)
	done := make(chan error, 1)
	go func() {
		_, err := s.crane(t.Context(), "blob", s.ref(bigDocker)+"@"+big.blobs[1].digest.String())
		done <- err
	}()
	w.waitHalf(t, big.blobs[1])
	start := time.Now()
	w.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = slowLine / 2 })
	w.mirror.signal(syscall.SIGTERM)
	if err := eventually(stopWithin, func() error {
		if accepts(w.mirror.addr) {
			return errors.New("still accepted")
		}
		return nil
	}); err != nil {
		t.Errorf("connections to a stopping mirror: %v", err)
	}
	select {
	case err := <-done:
		t.Errorf("connections were accepted until the transfer ended (%v)", err)
		return
	default:
	}
	if err := <-done; err != nil {
		t.Errorf("transfer that ran when the mirror was told to stop: %v", err)
	}
	select {
	case <-w.mirror.exited:
	case <-time.After(stopWithin):
		t.Fatalf("mirror still runs %s after its last transfer", stopWithin)
	}
	if w.mirror.err != nil {
		t.Errorf("mirror ended with %v, want status 0", w.mirror.err)
	}
	t.Logf("stopped in %s", time.Since(start).Round(time.Millisecond))
	w.assertClean(t)
}

// accepts reports whether somebody accepts connections at addr.
func accepts(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// waitHalf waits until the hub has sent half of a blob.
func (w *world) waitHalf(t testing.TB, b blob) {
	t.Helper()
	w.hub.WaitFor(t, pullWithin, "half of the layer", func() bool {
		return w.hub.BlobBytes(b.digest.String()) > int64(len(b.bytes)/2)
	})
}
