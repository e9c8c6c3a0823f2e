package cache

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/pull"
)

// pinned returns which of the digests are pinned.
func pinned(c *Cache, all ...v1.Hash) (is []bool) {
	for _, d := range all {
		is = append(is, c.Pinned(d))
	}
	return is
}

func TestPinHoldsTheChosenPlatformWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := newRegistry(), t.TempDir()
		c := openCache(t, r, dir)
		img := r.multi(t, hub.Name, "1")
		p, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, []string{"linux/arm64"})
		if err != nil || !p.Held || p.State != Incomplete || p.MissingBytes == 0 || p.Bytes <= p.MissingBytes {
			t.Fatalf("Pin = %+v, %v, want it held and two blobs missing", p, err)
		}
		// Blobs: config, base and layer of amd64, then those of arm64.
		all := append([]v1.Hash{img.digest}, append(slices.Clone(img.children), img.blobs...)...)
		want := []bool{true, false, true, false, true, false, true, true, true}
		for _, when := range []string{"after Pin", "after a restart"} {
			if got := pinned(c, all...); !slices.Equal(got, want) {
				t.Errorf("%s pinned: %v, want %v", when, got, want)
			}
			closeCache(t, c)
			c = openCache(t, r, dir)
		}
		if got, err := c.Repair(t.Context(), hub, "1", v1.Hash{}, nil, nil); err != nil || got.Fetched != 3 {
			t.Errorf("Repair of what is pinned = %+v, %v, want config and two layers", got, err)
		}
		if list := c.Pins(); len(list) != 1 || list[0].State != Complete || list[0].Ref != "docker.io/library/app:1" {
			t.Errorf("Pins = %+v", list)
		}
		if i := inspect(t, c, hub, "1"); !i.Pinned {
			t.Error("the image is not shown as pinned")
		}
		for name, purge := range map[string]func(force bool) (Purged, error){
			"image":      func(f bool) (Purged, error) { return c.PurgeImage(t.Context(), hub, "1", v1.Hash{}, f) },
			"repository": func(f bool) (Purged, error) { return c.PurgeRepository(t.Context(), hub, f) },
			"digest":     func(f bool) (Purged, error) { return c.PurgeDigest(t.Context(), img.children[1], f) },
		} {
			if _, err := purge(false); !errors.Is(err, ErrPinned) {
				t.Errorf("purge of a pinned %s = %v, want ErrPinned", name, err)
			}
		}
		if err := c.Unpin(hub, "1", v1.Hash{}); err != nil {
			t.Errorf("Unpin = %v", err)
		}
		if got := pinned(c, all...); slices.Contains(got, true) {
			t.Errorf("after Unpin pinned: %v", got)
		}
		if err := c.Unpin(hub, "1", v1.Hash{}); !errors.Is(err, ErrNotKept) {
			t.Errorf("Unpin once more = %v, want ErrNotKept", err)
		}
	})
}

func TestPinWithoutPlatformsHoldsWhatIsPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.multi(t, hub.Name, "1")
		if p, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, nil); err != nil || p.State != Absent {
			t.Fatalf("Pin = %+v, %v", p, err)
		}
		read(t, c, hub, img.children[0].String(), img.blobs[:3]...)
		for _, when := range []string{"at once", "when gathered anew"} {
			if got := pinned(c, img.children[0], img.blobs[0], img.blobs[2]); !slices.Equal(got, []bool{true, true, true}) {
				t.Errorf("%s the platform that was pulled is pinned: %v", when, got)
			}
			if c.Pinned(img.blobs[5]) {
				t.Errorf("%s a layer that nobody pulled is pinned", when)
			}
			if list := c.Pins(); list[0].State != Complete {
				t.Errorf("Pins = %+v", list)
			}
		}
	})
}

func TestPinFollowsItsTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		old := r.image(t, hub.Name, "1", "old")
		if _, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, nil); err != nil {
			t.Fatal(err)
		}
		moved := r.image(t, hub.Name, "1", "new")
		if _, err := c.Refresh(t.Context(), hub, "1"); err != nil {
			t.Fatal(err)
		}
		if got := pinned(c, moved.digest, moved.blobs[1]); !slices.Equal(got, []bool{true, true}) {
			t.Errorf("what the tag points to now is pinned: %v", got)
		}
		c.Pins()
		if got := pinned(c, old.digest, old.blobs[1], moved.digest, moved.blobs[1]); !slices.Equal(got, []bool{false, false, true, true}) {
			t.Errorf("pinned, former first: %v", got)
		}
	})
}

func TestPinHoldsSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.image(t, hub.Name, "1", "x")
		if _, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, nil); err != nil {
			t.Fatal(err)
		}
		sig := r.image(t, hub.Name, "sha256-"+img.digest.Hex+".sig", "signature")
		read(t, c, hub, "sha256-"+img.digest.Hex+".sig")
		// One that names its subject itself.
		blob := r.put(hub.Name, &script{data: []byte("provenance")})
		referrer := r.push(hub.Name, "unseen", jsonOf(t, map[string]any{
			"mediaType": types.OCIManifestSchema1, "subject": map[string]any{"digest": img.digest.String()},
			"layers": []any{descOf(types.OCILayer, []byte("provenance"))},
		}))
		read(t, c, hub, referrer.String())
		if got := pinned(c, sig.digest, sig.blobs[1], referrer, blob); slices.Contains(got, false) {
			t.Errorf("referrers pinned: %v", got)
		}
		c.Pins()
		if got := pinned(c, sig.digest, sig.blobs[1]); slices.Contains(got, false) {
			t.Errorf("when gathered anew, pinned: %v", got)
		}
	})
}

func TestPinsThatDoNotFitAreRefusedWithFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c, err := Open(Options{Dir: t.TempDir(), MaxBytes: 1 << 20, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
		if err != nil {
			t.Fatal(err)
		}
		defer closeCache(t, c)
		half := strings.Repeat("x", 600<<10)
		r.image(t, hub.Name, "1", half)
		r.image(t, hub.Name, "2", half, "and this")
		r.image(t, hub.Name, "3", strings.Repeat("y", 600<<10))
		for tag, fits := range map[string]bool{"1": true, "2": true} {
			if p, err := c.Pin(t.Context(), hub, tag, v1.Hash{}, nil); (err == nil) != fits {
				t.Errorf("Pin(%s) = %+v, %v", tag, p, err)
			}
		}
		_, err = c.Pin(t.Context(), hub, "3", v1.Hash{}, nil)
		if !errors.Is(err, ErrPinsTooLarge) || !strings.Contains(err.Error(), "it takes 600 KiB, the other pins take 60") || !strings.Contains(err.Error(), "at most 922 KiB may be pinned") {
			t.Errorf("Pin of too much = %v, want the figures", err)
		}
		if list := c.Pins(); len(list) != 2 {
			t.Errorf("after the refusal there are %d pins, want 2", len(list))
		}
	})
}

func TestPatternsOfTheConfigurationPin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c, err := Open(Options{Dir: t.TempDir(), Pins: []string{"app:v*"}, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
		if err != nil {
			t.Fatal(err)
		}
		defer closeCache(t, c)
		if len(c.Pins()) != 0 {
			t.Error("there are pins before anything was pulled")
		}
		match, not := r.image(t, hub.Name, "v1", "x"), r.image(t, hub.Name, "1", "y")
		read(t, c, hub, "v1")
		read(t, c, hub, "1")
		if got := pinned(c, match.digest, match.blobs[1], not.digest, not.blobs[1]); !slices.Equal(got, []bool{true, true, false, false}) {
			t.Errorf("pinned: %v", got)
		}
		list := c.Pins()
		if len(list) != 1 || list[0].Ref != "docker.io/library/app:v1" || list[0].Pattern != "app:v*" {
			t.Errorf("Pins = %+v", list)
		}
		if err := c.Unpin(hub, "v1", v1.Hash{}); !errors.Is(err, ErrQuery) || !strings.Contains(err.Error(), "pins: app:v*") {
			t.Errorf("Unpin of the configuration's = %v, want where to change it", err)
		}
		if _, err := Open(Options{Dir: t.TempDir(), Pins: []string{"["}}); err == nil {
			t.Error("Open took a pattern that is none")
		}
	})
}

func TestPinNeedsWhatItNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		r.multi(t, hub.Name, "1")
		if _, err := c.Pin(t.Context(), hub, "none", v1.Hash{}, nil); pull.KindOf(err) != pull.NotFound {
			t.Errorf("Pin of nothing = %v, want not found", err)
		}
		_, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, []string{"linux/s390x"})
		if !errors.Is(err, ErrQuery) || !strings.Contains(err.Error(), "it has no platform linux/s390x, but linux/amd64, linux/arm64") {
			t.Errorf("Pin of a platform that is not there = %v", err)
		}
		if _, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, []string{"x"}); !errors.Is(err, ErrQuery) {
			t.Errorf("Pin of no platform = %v", err)
		}
		if p, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, []string{AllPlatforms}); err != nil || p.State != Incomplete {
			t.Errorf("Pin of all platforms = %+v, %v", p, err)
		}
		if n := len(c.Pins()); n != 1 {
			t.Errorf("%d pins, want 1", n)
		}
	})
}

func TestPinnedContentIsNotEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		keep := r.image(t, hub.Name, "keep", "a layer to keep")
		lose := r.image(t, hub.Name, "lose", "a layer to lose")
		read(t, c, hub, "keep", keep.blobs...)
		read(t, c, hub, "lose", lose.blobs...)
		if _, err := c.Pin(t.Context(), hub, "keep", v1.Hash{}, nil); err != nil {
			t.Fatal(err)
		}
		c.space.evicting.Lock()
		c.space.evict(1 << 30)
		c.space.evicting.Unlock()
		left := onDisk(t, c)
		if len(left) != 3 || !left[keep.digest] || !left[keep.blobs[0]] || !left[keep.blobs[1]] {
			t.Errorf("left after everything was to be evicted: %v", left)
		}
		agrees(t, c)
	})
}
