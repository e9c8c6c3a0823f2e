package e2e

import (
	"testing"
	"time"

	"forebay/test/hubtest"
)

// stale is a time to live that is over at once.
const stale = time.Millisecond

// What is cached is served past its time to live when the hub is gone.
func TestStaleTagsOutliveHub(t *testing.T) {
	w := newWorld(t, worldOptions{mirror: mirrorOptions{tagTTL: stale}})
	names := []string{plainDocker, manyOCI}
	warm(t, w, names...)
	w.hub.SwitchOff()
	w.everyClient(t, func(c client, s store) {
		for _, repo := range names {
			start := time.Now()
			pull(t, s, repo+":"+catalogueTag, w.images[repo])
			t.Logf("%s: %s in %s", c.name, repo, time.Since(start).Round(time.Millisecond))
		}
	})
	w.assertClean(t)
}

// A limited hub costs nobody what is cached, fresh or stale.
func TestCachedImagesOutliveLimit(t *testing.T) {
	w := newWorld(t, worldOptions{mirror: mirrorOptions{tagTTL: stale}})
	names := []string{plainDocker, manyOCI}
	warm(t, w, names...)
	w.hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Do: hubtest.RateLimited()})
	w.everyClient(t, func(_ client, s store) {
		for _, repo := range names {
			pull(t, s, repo+":"+catalogueTag, w.images[repo])
		}
	})
	w.assertClean(t)
}

// What is not cached fails while the hub limits, soon and with the true reason for
// a client that asks the mirror by its own name.
func TestLimitIsToldForWhatIsNotCached(t *testing.T) {
	w := newWorld(t, worldOptions{hub: hubtest.Options{Anonymous: hubtest.Plan{Limit: 1, Window: time.Hour}}})
	warm(t, w, plainOCI) // spends it
	w.everyClient(t, func(c client, s store) {
		if c.name == "skopeo" {
			return // by itself it waits for what Retry-After says, five times
		}
		start := time.Now()
		err := tryPull(t.Context(), s, plainDocker+":"+catalogueTag, w.images[plainDocker].digest.String())
		took := time.Since(start)
		if err == nil {
			t.Errorf("%s: pulled what the hub refuses", c.name)
		}
		t.Logf("%s: after %s: %v", c.name, took.Round(time.Millisecond), err)
		// crane tries again after 1 s and 3 s, podman after 1 s three times.
		if took > time.Minute {
			t.Errorf("%s: was told after %s, want at once", c.name, took)
		}
	})
	// Those that have Docker Hub to go to have gone there; it is not here.
	if len(w.front.take()) == 0 {
		t.Error("no client went on to Docker Hub")
	}
	w.hub.AssertClean(t)
}

// warm makes the mirror hold images, by a client that takes all platforms.
func warm(t testing.TB, w *world, repos ...string) {
	t.Helper()
	s := openSkopeo(t, w.mirror.addr)
	for _, repo := range repos {
		pull(t, s, repo+":"+catalogueTag, w.images[repo])
	}
	w.front.assertUnused(t)
}
