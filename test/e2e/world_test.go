package e2e

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"forebay/test/hubtest"
)

// world is one mirror between clients and the test hub, which has the catalogue
// from a real registry. Docker Hub itself is not there.
type world struct {
	images   map[string]image
	registry *registry
	hub      *hubtest.Hub
	mirror   *mirror
	front    *front
	// overlap is how many bytes of one blob may come twice, since clients ask for
	// ranges in the middle of what is on its way.
	overlap int64
}

// worldOptions configures a world. Zero means a hub without limits and without
// faults, and a mirror whose tags do not go stale.
type worldOptions struct {
	hub    hubtest.Options
	mirror mirrorOptions
}

func newWorld(t testing.TB, o worldOptions) *world {
	t.Helper()
	images, err := catalogue()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{images: images, registry: startFullRegistry(t)}
	o.hub.Backend = w.registry.url
	if o.hub.Anonymous == (hubtest.Plan{}) {
		o.hub.Anonymous = hubtest.Unlimited()
	}
	w.hub = hubtest.New(t, o.hub)
	o.mirror.endpoint = w.hub.RegistryURL()
	w.mirror = startMirror(t, o.mirror)
	w.front = openFront(t, nil)
	return w
}

// fullStorage is the folder of a registry that has the catalogue, filled once per run.
var fullStorage struct {
	fill sync.Once
	dir  string
}

// startFullRegistry starts a registry with the catalogue. All of them share one
// folder, so that only the first one is filled.
func startFullRegistry(t testing.TB) *registry {
	t.Helper()
	images, err := catalogue()
	if err != nil {
		t.Fatal(err)
	}
	fullStorage.fill.Do(func() { // the sandbox removes the folder
		r := startRegistry(t, filepath.Join(workDir(), "registry"))
		for repo, img := range images {
			r.push(t, repo, img, catalogueTag)
		}
		fullStorage.dir = r.dir
	})
	if fullStorage.dir == "" {
		t.Fatal("the registry could not be filled")
	}
	return startRegistry(t, fullStorage.dir)
}

// repos returns the catalogue's repositories that a client can unpack, in order.
func (w *world) repos(c client) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(w.images)), func(repo string) bool {
		_, cannot := c.cannot[repo]
		return cannot
	})
}

// everyClient calls f for all clients at once, each with an empty store.
func (w *world) everyClient(t testing.TB, f func(client, store)) {
	t.Helper()
	var running sync.WaitGroup
	for _, c := range clients() {
		s := c.open(t, w.mirror.addr)
		running.Go(func() { f(c, s) })
	}
	running.Wait()
}

// pull pulls an image, checks its digest, and runs it if the client can.
func pull(t testing.TB, s store, name string, want image) {
	t.Helper()
	if err := tryPull(t.Context(), s, name, want.digest.String()); err != nil {
		t.Errorf("pull %s: %v", name, err)
		return
	}
	r, ok := s.(runner)
	if !ok {
		return
	}
	got, err := r.run(t.Context(), name)
	if err != nil {
		t.Errorf("run %s: %v", name, err)
	} else if got != want.says {
		t.Errorf("run %s said %q, want %q", name, got, want.says)
	}
}

// tryPull pulls an image and compares its digest.
func tryPull(ctx context.Context, s store, name, want string) error {
	got, err := s.pull(ctx, name)
	if err != nil {
		return err
	}
	if !slices.Contains(got, want) {
		return fmt.Errorf("client says %s, want %s", strings.Join(got, " "), want)
	}
	return nil
}

// assertFetchedOnce fails the test if the hub sent anything twice, or was asked for
// more tokens than there are repositories.
func (w *world) assertFetchedOnce(t testing.TB) {
	t.Helper()
	w.hub.Settle(t)
	for repo, img := range w.images {
		for _, b := range img.blobs {
			size := int64(len(b.bytes))
			if sent := w.hub.BlobBytes(b.digest.String()); sent > size+size/50+w.overlap {
				t.Errorf("%s: hub sent %d bytes of blob %s, which has %d", repo, sent, b.digest, size)
			}
		}
		for _, m := range append([]image{img}, img.children...) {
			if n := w.hub.ManifestGets(m.digest.String()); n > 1 {
				t.Errorf("%s: hub sent manifest %s %d times", repo, m.digest, n)
			}
		}
	}
	if n := w.hub.TokenRequests(); n > len(w.images) {
		t.Errorf("hub was asked for %d tokens, want at most one for each of %d repositories", n, len(w.images))
	}
	w.assertClean(t)
}

// assertFetched fails the test if an image did not come from the hub.
func (w *world) assertFetched(t testing.TB, repo string) {
	t.Helper()
	img := w.images[repo]
	platform := img
	if len(img.children) > 0 {
		platform = img.children[0]
	}
	for _, b := range platform.blobs {
		if sent := w.hub.BlobBytes(b.digest.String()); sent < int64(len(b.bytes)) {
			t.Errorf("%s: hub sent %d bytes of blob %s, which has %d", repo, sent, b.digest, len(b.bytes))
		}
	}
}

// assertClean fails the test if the mirror did what it must never do, or a client
// went round it.
func (w *world) assertClean(t testing.TB) {
	t.Helper()
	w.hub.AssertClean(t)
	w.front.assertUnused(t)
	w.mirror.assertStoreClean(t)
	w.mirror.assertLogClean(t)
}
