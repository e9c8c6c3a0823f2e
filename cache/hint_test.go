package cache

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/pull"
	"forebay/test/cachetest"
)

// hinting runs a test in virtual time with a cache that knows hub:latest.
func hinting(t *testing.T, u UpstreamOptions, f func(t *testing.T, r *cachetest.Registry, c *Cache)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
		u.TagTTL = time.Hour
		c := openWith(t, r, u)
		defer closeCache(t, c)
		for range 2 { // the first pull makes it known, the second shows that it is wanted
			if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
				t.Fatal(err)
			}
		}
		f(t, r, c)
	})
}

func TestHintFindsWhereATagMovedTo(t *testing.T) {
	hinting(t, UpstreamOptions{}, func(t *testing.T, r *cachetest.Registry, c *Cache) {
		two := r.Push(hub.Name, "latest", cachetest.ManifestOf("two"))
		heads, gets := r.Count("Resolve"), r.Count("Manifest")
		c.Hint(hub, "latest")
		synctest.Wait()
		if h, g := r.Count("Resolve")-heads, r.Count("Manifest")-gets; h != 1 || g != 1 {
			t.Errorf("a hint cost %d HEADs and %d GETs, want 1 of each for a tag that moved and is pulled", h, g)
		}
		m, err := c.Manifest(t.Context(), hub, "latest", false)
		if err != nil || m.Desc.Digest != two || m.Result != Hit || m.StaleFor != 0 {
			t.Errorf("Manifest after a hint = %+v, %v; want a fresh hit on %s", m, err, two)
		}
	})
}

func TestHintOfATagThatStayedIsOneHead(t *testing.T) {
	hinting(t, UpstreamOptions{}, func(t *testing.T, r *cachetest.Registry, c *Cache) {
		heads, gets := r.Count("Resolve"), r.Count("Manifest")
		c.Hint(hub, "latest")
		synctest.Wait()
		if h, g := r.Count("Resolve")-heads, r.Count("Manifest")-gets; h != 1 || g != 0 {
			t.Errorf("a hint cost %d HEADs and %d GETs, want 1 HEAD", h, g)
		}
	})
}

func TestHintOfWhatIsNotKnownCostsNothing(t *testing.T) {
	hinting(t, UpstreamOptions{}, func(t *testing.T, r *cachetest.Registry, c *Cache) {
		before := r.Count("Resolve")
		c.Hint(hub, "other")
		c.Hint(Repo{Upstream: hub.Upstream, Name: "acme/other"}, "latest")
		c.Hint(Repo{Upstream: "ghcr.io", Name: hub.Name}, "latest")
		synctest.Wait()
		if n := r.Count("Resolve") - before; n != 0 {
			t.Errorf("hints of unknown tags cost %d HEADs, want none", n)
		}
	})
}

func TestHintOfAnOfflineUpstreamCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openWith(t, r, UpstreamOptions{Offline: true})
		defer closeCache(t, c)
		c.Hint(hub, "latest")
		synctest.Wait()
		if n := r.Count("Resolve"); n != 0 {
			t.Errorf("hint cost %d HEADs, want none", n)
		}
	})
}

// TestHintsAreCoalesced: many hints are one request, and one more for those that came
// while it was under way, since it may have been answered before the last move.
func TestHintsAreCoalesced(t *testing.T) {
	hinting(t, UpstreamOptions{}, func(t *testing.T, r *cachetest.Registry, c *Cache) {
		before := r.Count("Resolve")
		r.Lock()
		r.Slow = time.Second
		r.Unlock()
		c.Hint(hub, "latest")
		synctest.Wait() // its HEAD is under way
		two := r.Push(hub.Name, "latest", cachetest.ManifestOf("two"))
		for range 100 {
			c.Hint(hub, "latest")
		}
		time.Sleep(10 * time.Second)
		if n := r.Count("Resolve") - before; n < 2 || n > 3 {
			t.Errorf("101 hints cost %d HEADs, want 2 or 3", n)
		}
		if got, err := c.tag(hub, "latest"); err != nil || got.Desc.Digest != two {
			t.Errorf("tag = %+v, %v; want %s", got, err, two)
		}
	})
}

func TestHintsAreBounded(t *testing.T) {
	hinting(t, UpstreamOptions{}, func(t *testing.T, r *cachetest.Registry, c *Cache) {
		for i := range 50 {
			tag := fmt.Sprintf("t%d", i)
			r.Push(hub.Name, tag, cachetest.ManifestOf(tag))
			if _, err := c.Manifest(t.Context(), hub, tag, true); err != nil {
				t.Fatal(err)
			}
		}
		before := r.Count("Resolve")
		r.Lock()
		r.Slow = time.Second
		r.Unlock()
		for i := range 50 {
			c.Hint(hub, fmt.Sprintf("t%d", i))
		}
		synctest.Wait()
		if n := r.Count("Resolve") - before; n != hintsAtOnce {
			t.Errorf("hints make %d requests at once, want %d", n, hintsAtOnce)
		}
		for i := range 2 * hintsMost {
			c.Hint(hub, fmt.Sprintf("unknown-%d", i))
		}
		c.hints.mu.Lock()
		if n := len(c.hints.waiting); n > hintsMost {
			t.Errorf("%d hints wait, want at most %d", n, hintsMost)
		}
		c.hints.mu.Unlock()
		time.Sleep(time.Minute)
		if n := r.Count("Resolve") - before; n != 50 {
			t.Errorf("50 hints made %d requests, want 50", n)
		}
		c.hints.mu.Lock()
		defer c.hints.mu.Unlock()
		if c.hints.running != 0 || len(c.hints.waiting) != 0 || len(c.hints.known) != 0 {
			t.Errorf("left over: %d workers, %d tags, %d known", c.hints.running, len(c.hints.waiting), len(c.hints.known))
		}
	})
}

func TestHintClearsANegativeAnswer(t *testing.T) {
	hinting(t, UpstreamOptions{}, func(t *testing.T, r *cachetest.Registry, c *Cache) {
		if _, err := c.Manifest(t.Context(), hub, "new", true); pull.KindOf(err) != pull.NotFound {
			t.Fatalf("Manifest = %v, want not found", err)
		}
		r.Push(hub.Name, "new", cachetest.ManifestOf("new"))
		if _, err := c.Manifest(t.Context(), hub, "new", true); pull.KindOf(err) != pull.NotFound {
			t.Fatalf("Manifest = %v, want not found as remembered", err)
		}
		c.Hint(hub, "new")
		synctest.Wait()
		if _, err := c.Manifest(t.Context(), hub, "new", true); err != nil {
			t.Errorf("Manifest after the hint = %v", err)
		}
	})
}

func TestHintWhileTheUpstreamFailsChangesNothing(t *testing.T) {
	hinting(t, UpstreamOptions{}, func(t *testing.T, r *cachetest.Registry, c *Cache) {
		r.Fail(&pull.Error{Kind: pull.Unavailable})
		c.Hint(hub, "latest")
		synctest.Wait()
		if m, err := c.Manifest(t.Context(), hub, "latest", false); err != nil || m.Result != Hit {
			t.Errorf("Manifest = %+v, %v; want a hit", m, err)
		}
	})
}
