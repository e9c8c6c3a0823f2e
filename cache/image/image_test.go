package image

import (
	"errors"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/store"
	"forebay/test/cachetest"
)

func states(i *Image) (all []string) {
	for _, p := range i.Platforms {
		all = append(all, p.Platform+" "+string(p.State))
	}
	return all
}

func inspect(t *testing.T, s *shelf, repo Repo, tag string) *Image {
	t.Helper()
	i, err := s.Inspect(repo, tag, v1.Hash{})
	if err != nil {
		t.Fatalf("Inspect %s:%s = %v", repo, tag, err)
	}
	return i
}

func TestCompletenessIsThatOfWhatWasPulled(t *testing.T) {
	s := openShelf(t)
	img := s.registry.Multi(t, hub.Name, "1")
	if _, err := s.Inspect(hub, "1", v1.Hash{}); !errors.Is(err, store.ErrNotKept) {
		t.Errorf("Inspect of nothing = %v, want store.ErrNotKept", err)
	}
	s.take(t, hub, "1")
	if got := states(inspect(t, s, hub, "1")); !slices.Equal(got, []string{"linux/amd64 absent", "linux/arm64 absent"}) {
		t.Errorf("after the index alone: %v", got)
	}
	s.take(t, hub, img.Children[0].String(), img.Blobs[:2]...)
	got := inspect(t, s, hub, "1")
	layer := int64(len("for amd64 of 1"))
	if states := states(got); !slices.Equal(states, []string{"linux/amd64 incomplete", "linux/arm64 absent"}) || got.MissingBytes != layer || got.State != Incomplete {
		t.Errorf("with a layer missing: %v, %d bytes missing, %s, want %d bytes", states, got.MissingBytes, got.State, layer)
	}
	if p := got.Platforms[0]; len(p.Parts) != 4 || p.Parts[3].State != Missing || p.MissingBytes != layer {
		t.Errorf("parts of the platform: %+v", p)
	}
	s.take(t, hub, "1", img.Blobs[2])
	got = inspect(t, s, hub, "1")
	if got.State != Complete || got.MissingBytes != 0 || got.UsedAt.IsZero() || got.Platforms[1].Size != -1 {
		t.Errorf("after all of amd64: %+v", got)
	}
	// Another repository has proved nothing yet, though the bytes are here.
	s.registry.Multi(t, other.Name, "1")
	s.take(t, other, "1")
	s.take(t, other, img.Children[0].String())
	if p := inspect(t, s, other, "1").Platforms[0]; p.State != Incomplete || p.Parts[1].State != Unlinked {
		t.Errorf("in a repository without links: %+v", p)
	}
}

func TestStoredIsListedInPages(t *testing.T) {
	s := openShelf(t)
	var want []string
	for _, text := range []string{"a", "b", "c", "d", "e"} {
		want = append(want, cachetest.DigestOf([]byte(text)).String())
		s.put(t, []byte(text))
	}
	slices.Sort(want)
	var got []string
	var after v1.Hash
	for {
		page, err := s.StoredAfter(after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range page.Blobs {
			got = append(got, b.Digest.String())
		}
		if page.Next == "" {
			break
		}
		after, _ = v1.NewHash(page.Next)
	}
	if !slices.Equal(got, want) {
		t.Errorf("StoredAfter = %v, want %v", got, want)
	}
	if _, err := s.StoredAfter(v1.Hash{}, 1<<20); !errors.Is(err, store.ErrQuery) {
		t.Errorf("StoredAfter of too many = %v", err)
	}
}
