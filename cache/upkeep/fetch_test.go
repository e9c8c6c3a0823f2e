package upkeep

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/image"
	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

func TestRepairFetchesWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.Multi(t, hub.Name, "1")
		read(t, c, hub, "1")
		read(t, c, hub, img.Children[0].String(), img.Blobs[0])
		var told []Progress
		got, err := c.Repair(t.Context(), hub, "1", v1.Hash{}, nil, func(p Progress) { told = append(told, p) })
		if err != nil || got.Fetched != 2 || len(got.Failed) != 0 || got.State != image.Complete {
			t.Errorf("Repair = %+v, %v, want the two layers of amd64", got, err)
		}
		if last := told[len(told)-1]; last.Items != 2 || last.Bytes != last.BytesTotal || last.ItemsTotal != 2 {
			t.Errorf("last progress = %+v", last)
		}
		if s := states(inspect(t, c, hub, "1")); s[1] != "linux/arm64 absent" {
			t.Errorf("after Repair: %v", s)
		}
		got, err = c.Repair(t.Context(), hub, "1", v1.Hash{}, []string{"linux/arm64"}, nil)
		if err != nil || got.Fetched != 3 || got.State != image.Complete {
			t.Errorf("Repair of arm64 = %+v, %v, want manifest, config and layer", got, err)
		}
		if _, err := c.Repair(t.Context(), hub, "1", v1.Hash{}, []string{"linux/s390x"}, nil); !errors.Is(err, store.ErrQuery) {
			t.Errorf("Repair of a platform that is not there = %v, want store.ErrQuery", err)
		}
		if _, err := c.PurgeDigest(t.Context(), img.Blobs[1], PurgeOptions{}); err != nil {
			t.Fatal(err)
		}
		r.Fail(&pull.Error{Kind: pull.Unavailable, Message: "down"})
		got, err = c.Repair(t.Context(), hub, "1", v1.Hash{}, nil, nil)
		if err != nil || got.Fetched != 0 || len(got.Failed) != 1 || got.State != image.Incomplete {
			t.Errorf("Repair while the upstream is down = %+v, %v, want one failure", got, err)
		}
		if _, err := c.Repair(t.Context(), hub, "1", v1.Hash{}, []string{"x"}, nil); !errors.Is(err, store.ErrQuery) {
			t.Errorf("Repair of no platform = %v, want store.ErrQuery", err)
		}
	})
}

// An index may lie within another that does not say what it is for.
func TestPlatformsAreFoundInNestedIndexes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		r.Multi(t, hub.Name, "inner")
		inner, err := c.Manifest(t.Context(), hub, "inner", true)
		if err != nil {
			t.Fatal(err)
		}
		desc := map[string]any{"mediaType": types.OCIImageIndex, "digest": inner.Desc.Digest, "size": inner.Desc.Size}
		r.Push(hub.Name, "1", cachetest.JSONOf(t, map[string]any{"mediaType": types.OCIImageIndex, "manifests": []any{desc}}))
		got, err := c.Prefetch(t.Context(), Request{Repo: hub, Tag: "1", Platforms: []string{"linux/aarch64"}}, nil)
		if err != nil || len(got.Failed) != 0 || got.Fetched != 6 {
			t.Errorf("Prefetch = %+v, %v, want two indexes and the image for arm64", got, err)
		}
		if got, err = c.Prefetch(t.Context(), Request{Repo: hub, Tag: "1", Platforms: []string{"linux/s390x"}}, nil); err != nil ||
			len(got.Failed) != 1 || !strings.Contains(got.Failed[0].Error, "it has no platform linux/s390x, but linux/amd64, linux/arm64") {
			t.Errorf("Prefetch of what is not there = %+v, %v", got, err)
		}
		if p, err := c.Pin(t.Context(), hub, "1", v1.Hash{}, []string{"linux/arm64"}); err != nil || p.State != image.Complete {
			t.Errorf("Pin = %+v, %v, want it complete", p, err)
		}
	})
}
