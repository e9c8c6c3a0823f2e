package upkeep

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache"
	"forebay/cache/image"
	"forebay/cache/store"
	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

// pinned returns which of the digests are pinned.
func pinned(c *rig, all ...v1.Hash) (is []bool) {
	for _, d := range all {
		is = append(is, c.Pins.Pinned(d))
	}
	return is
}

func TestPinHoldsTheChosenPlatformWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := cachetest.NewRegistry(), t.TempDir()
		c := openCache(t, r, dir)
		img := r.Multi(t, hub.Name, "1")
		p, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, []string{"linux/arm64"})
		if err != nil || !p.Held || p.State != image.Incomplete || p.MissingBytes == 0 || p.Bytes <= p.MissingBytes {
			t.Fatalf("Pin = %+v, %v, want it held and two blobs missing", p, err)
		}
		// Blobs: config, base and layer of amd64, then those of arm64.
		all := append([]v1.Hash{img.Digest}, append(slices.Clone(img.Children), img.Blobs...)...)
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
		if list := c.Pins.List(); len(list) != 1 || list[0].State != image.Complete || list[0].Ref != "docker.io/library/app:1" {
			t.Errorf("Pins.List = %+v", list)
		}
		if i := inspect(t, c, hub, "1"); !i.Pinned {
			t.Error("the image is not shown as pinned")
		}
		for name, purge := range map[string]func(force bool) (Purged, error){
			"image": func(f bool) (Purged, error) {
				return c.PurgeImage(t.Context(), hub, "1", v1.Hash{}, PurgeOptions{Force: f})
			},
			"repository": func(f bool) (Purged, error) { return c.PurgeRepository(t.Context(), hub, PurgeOptions{Force: f}) },
			"digest": func(f bool) (Purged, error) {
				return c.PurgeDigest(t.Context(), img.Children[1], PurgeOptions{Force: f})
			},
		} {
			if _, err := purge(false); !errors.Is(err, ErrPinned) {
				t.Errorf("purge of a pinned %s = %v, want ErrPinned", name, err)
			}
		}
		if err := c.Pins.Remove(t.Context(), hub, "1", v1.Hash{}); err != nil {
			t.Errorf("Pins.Remove = %v", err)
		}
		if got := pinned(c, all...); slices.Contains(got, true) {
			t.Errorf("after Pins.Remove pinned: %v", got)
		}
		if err := c.Pins.Remove(t.Context(), hub, "1", v1.Hash{}); !errors.Is(err, store.ErrNotKept) {
			t.Errorf("Pins.Remove once more = %v, want store.ErrNotKept", err)
		}
	})
}

func TestPinWithoutPlatformsHoldsWhatIsPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.Multi(t, hub.Name, "1")
		if p, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, nil); err != nil || p.State != image.Absent {
			t.Fatalf("Pin = %+v, %v", p, err)
		}
		read(t, c, hub, img.Children[0].String(), img.Blobs[:3]...)
		for _, when := range []string{"at once", "when gathered anew"} {
			if got := pinned(c, img.Children[0], img.Blobs[0], img.Blobs[2]); !slices.Equal(got, []bool{true, true, true}) {
				t.Errorf("%s the platform that was pulled is pinned: %v", when, got)
			}
			if c.Pins.Pinned(img.Blobs[5]) {
				t.Errorf("%s a layer that nobody pulled is pinned", when)
			}
			if list := c.Pins.List(); list[0].State != image.Complete {
				t.Errorf("Pins.List = %+v", list)
			}
		}
	})
}

func TestPinFollowsItsTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		old := r.Image(t, hub.Name, "1", "old")
		if _, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, nil); err != nil {
			t.Fatal(err)
		}
		moved := r.Image(t, hub.Name, "1", "new")
		if _, err := c.Refresh(t.Context(), hub, "1"); err != nil {
			t.Fatal(err)
		}
		if got := pinned(c, moved.Digest, moved.Blobs[1]); !slices.Equal(got, []bool{true, true}) {
			t.Errorf("what the tag points to now is pinned: %v", got)
		}
		c.Pins.List()
		if got := pinned(c, old.Digest, old.Blobs[1], moved.Digest, moved.Blobs[1]); !slices.Equal(got, []bool{false, false, true, true}) {
			t.Errorf("pinned, former first: %v", got)
		}
	})
}

func TestPinHoldsSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.Image(t, hub.Name, "1", "x")
		if _, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, nil); err != nil {
			t.Fatal(err)
		}
		sig := r.Image(t, hub.Name, "sha256-"+img.Digest.Hex+".sig", "signature")
		read(t, c, hub, "sha256-"+img.Digest.Hex+".sig")
		// One that names its subject itself.
		blob := r.Put(hub.Name, &cachetest.Script{Data: []byte("provenance")})
		referrer := r.Push(hub.Name, "unseen", cachetest.JSONOf(t, map[string]any{
			"mediaType": types.OCIManifestSchema1, "subject": map[string]any{"digest": img.Digest.String()},
			"layers": []any{cachetest.DescOf(types.OCILayer, []byte("provenance"))},
		}))
		read(t, c, hub, referrer.String())
		if got := pinned(c, sig.Digest, sig.Blobs[1], referrer, blob); slices.Contains(got, false) {
			t.Errorf("referrers pinned: %v", got)
		}
		c.Pins.List()
		if got := pinned(c, sig.Digest, sig.Blobs[1]); slices.Contains(got, false) {
			t.Errorf("when gathered anew, pinned: %v", got)
		}
	})
}

func TestPinsThatDoNotFitAreRefusedWithFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openBounded(t, r, store.Options{Dir: t.TempDir(), MaxBytes: 1 << 20})
		half := strings.Repeat("x", 600<<10)
		r.Image(t, hub.Name, "1", half)
		r.Image(t, hub.Name, "2", half, "and this")
		r.Image(t, hub.Name, "3", strings.Repeat("y", 600<<10))
		for tag, fits := range map[string]bool{"1": true, "2": true} {
			if p, err := c.Pin(t.Context(), hub, tag, v1.Hash{}, nil); (err == nil) != fits {
				t.Errorf("Pin(%s) = %+v, %v", tag, p, err)
			}
		}
		_, err := c.Pin(t.Context(), hub, "3", v1.Hash{}, nil)
		if !errors.Is(err, image.ErrPinsTooLarge) || !strings.Contains(err.Error(), "it takes 600 KiB, the other pins take 60") || !strings.Contains(err.Error(), "at most 922 KiB may be pinned") {
			t.Errorf("Pin of too much = %v, want the figures", err)
		}
		if list := c.Pins.List(); len(list) != 2 {
			t.Errorf("after the refusal there are %d pins, want 2", len(list))
		}
	})
}

func TestPatternsOfTheConfigurationPin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := open(t, cache.Options{Store: store.Options{Dir: t.TempDir()}, Pins: []string{"app:v*"}, Upstreams: over(r)}, Options{})
		if len(c.Pins.List()) != 0 {
			t.Error("there are pins before anything was pulled")
		}
		match, not := r.Image(t, hub.Name, "v1", "x"), r.Image(t, hub.Name, "1", "y")
		read(t, c, hub, "v1")
		read(t, c, hub, "1")
		if got := pinned(c, match.Digest, match.Blobs[1], not.Digest, not.Blobs[1]); !slices.Equal(got, []bool{true, true, false, false}) {
			t.Errorf("pinned: %v", got)
		}
		list := c.Pins.List()
		if len(list) != 1 || list[0].Ref != "docker.io/library/app:v1" || list[0].Pattern != "app:v*" {
			t.Errorf("Pins.List = %+v", list)
		}
		if err := c.Pins.Remove(t.Context(), hub, "v1", v1.Hash{}); !errors.Is(err, store.ErrQuery) || !strings.Contains(err.Error(), "pins: app:v*") {
			t.Errorf("Pins.Remove of the configuration's = %v, want where to change it", err)
		}
		if _, err := cache.Open(cache.Options{Store: store.Options{Dir: t.TempDir()}, Pins: []string{"["}}); err == nil {
			t.Error("Open took a pattern that is none")
		}
	})
}

func TestPinNeedsWhatItNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		r.Multi(t, hub.Name, "1")
		if _, err := c.Pin(t.Context(), hub, "none", v1.Hash{}, nil); pull.KindOf(err) != pull.NotFound {
			t.Errorf("Pin of nothing = %v, want not found", err)
		}
		_, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, []string{"linux/s390x"})
		if !errors.Is(err, store.ErrQuery) || !strings.Contains(err.Error(), "it has no platform linux/s390x, but linux/amd64, linux/arm64") {
			t.Errorf("Pin of a platform that is not there = %v", err)
		}
		if _, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, []string{"x"}); !errors.Is(err, store.ErrQuery) {
			t.Errorf("Pin of no platform = %v", err)
		}
		if p, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, []string{manifest.AllPlatforms}); err != nil || p.State != image.Incomplete {
			t.Errorf("Pin of all platforms = %+v, %v", p, err)
		}
		if n := len(c.Pins.List()); n != 1 {
			t.Errorf("%d pins, want 1", n)
		}
	})
}

func TestPinnedContentIsNotEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		keep := r.Image(t, hub.Name, "keep", "a layer to keep")
		lose := r.Image(t, hub.Name, "lose", "a layer to lose")
		read(t, c, hub, "keep", keep.Blobs...)
		read(t, c, hub, "lose", lose.Blobs...)
		if _, err := c.Pin(t.Context(), hub, "keep", v1.Hash{}, nil); err != nil {
			t.Fatal(err)
		}
		c.store.Room.Evict(1 << 30)
		left := onDisk(t, c)
		if len(left) != 3 || !left[keep.Digest] || !left[keep.Blobs[0]] || !left[keep.Blobs[1]] {
			t.Errorf("left after everything was to be evicted: %v", left)
		}
		agrees(t, c)
	})
}
