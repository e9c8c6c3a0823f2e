package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// Every kind of image, through every client: cold, then with the hub switched off
// and a client that has nothing.
func TestEveryClientPullsEveryImage(t *testing.T) {
	for _, c := range allClients() {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, worldOptions{})
			w.overlap = c.overlap
			s := c.open(t, w.mirror.addr)
			for _, repo := range w.repos(c) {
				start := time.Now()
				pull(t, s, repo+":"+catalogueTag, w.images[repo])
				t.Logf("cold %s in %s", repo, time.Since(start).Round(time.Millisecond))
				w.assertFetched(t, repo)
			}
			w.assertFetchedOnce(t)

			w.hub.SwitchOff()
			asked := w.hub.Requests()
			s = c.open(t, w.mirror.addr)
			for _, repo := range w.repos(c) {
				start := time.Now()
				pull(t, s, repo+":"+catalogueTag, w.images[repo])
				t.Logf("cached %s in %s", repo, time.Since(start).Round(time.Millisecond))
			}
			if n := w.hub.Requests() - asked; n != 0 {
				t.Errorf("hub saw %d requests for what is cached and fresh, want 0", n)
			}
			w.assertClean(t)
		})
	}
}

// A reference by digest needs no tag, on a mirror that knows none.
func TestEveryClientPullsByDigest(t *testing.T) {
	for _, c := range allClients() {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, worldOptions{})
			names := []string{plainDocker, manyOCI}
			for range 2 {
				s := c.open(t, w.mirror.addr)
				for _, repo := range names {
					pull(t, s, repo+"@"+w.images[repo].digest.String(), w.images[repo])
				}
				w.hub.SwitchOff() // for the second time
			}
			w.assertFetchedOnce(t)
		})
	}
}

// All clients at once want an image that nobody has.
func TestAllClientsAtOnceCostOneFetch(t *testing.T) {
	// Slow enough that all of them come while the big layer is on its way.
	w := newWorld(t, worldOptions{hub: hubtest.Options{LineBytesPerSecond: 32 << 20}})
	w.overlap = rangesTwice
	names := []string{bigDocker, manyOCI}
	w.everyClient(t, func(c client, s store) {
		for _, repo := range names {
			pull(t, s, repo+":"+catalogueTag, w.images[repo])
		}
	})
	for _, repo := range names {
		w.assertFetched(t, repo)
	}
	w.assertFetchedOnce(t)
}

// A tag that moves upstream moves for the clients once its time to live is over, and
// costs only what is new.
func TestClientsFollowMovedTag(t *testing.T) {
	const ttl = time.Second
	w := newWorld(t, worldOptions{mirror: mirrorOptions{tagTTL: ttl}})
	moved, err := movedImage()
	if err != nil {
		t.Fatal(err)
	}
	before, name := w.images[movingOCI], movingOCI+":moving"
	w.registry.push(t, movingOCI, before, "moving")
	for _, c := range clients() {
		pull(t, c.open(t, w.mirror.addr), name, before)
	}
	w.registry.push(t, movingOCI, moved, "moving")
	for _, c := range clients() {
		s := c.open(t, w.mirror.addr)
		if err := eventually(pullWithin, func() error {
			return tryPull(t.Context(), s, name, moved.digest.String())
		}); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		pull(t, s, name, moved)
	}
	w.assertFetchedOnce(t)
	if n := w.hub.ManifestGets(moved.digest.String()); n != 1 {
		t.Errorf("hub sent the moved manifest %d times, want 1", n)
	}
}

// T15 of docs/clients.md: containerd can fetch a layer in ranges, all open to the end, each
// of which it leaves after its part. Every answer must be 206 once the first one was.
func TestParallelRangesCostOneFetch(t *testing.T) {
	w := newWorld(t, worldOptions{})
	w.overlap = rangesTwice
	tap := openTap(t, w.mirror)
	for range 2 { // cold, then cached
		s := openContainerd24Parallel(t, tap.addr)
		pull(t, s, bigDocker+":"+catalogueTag, w.images[bigDocker])
		layer := w.images[bigDocker].blobs[1].digest.String()
		ranges := 0
		for _, e := range tap.take() {
			if !strings.Contains(e.path, layer) || e.request.Get("Range") == "" {
				continue
			}
			ranges++
			if e.status != http.StatusPartialContent {
				t.Errorf("%s %s with Range %s = %d, want 206", e.method, e.path, e.request.Get("Range"), e.status)
			}
		}
		if ranges < 2 {
			t.Errorf("containerd asked for %d ranges of the layer, want several", ranges)
		}
	}
	w.assertFetched(t, bigDocker)
	w.assertFetchedOnce(t)
}
