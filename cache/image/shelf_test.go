package image

import (
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/wire"
	"forebay/test/cachetest"
)

var (
	hub = Repo{Upstream: "docker.io", Name: "library/app"}
	// other is a second repository of the same upstream.
	other = Repo{Upstream: "docker.io", Name: "library/other"}
)

// shelf is a store with what is known of its images, and the registry that they are from.
type shelf struct {
	*Images
	registry *cachetest.Registry
}

func openShelf(tb testing.TB) *shelf {
	tb.Helper()
	kept, err := store.Open(store.Options{Dir: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := kept.Close(); err != nil {
			tb.Errorf("Close = %v", err)
		}
	})
	images, err := New(kept, nil, func(Repo) error { return nil })
	if err != nil {
		tb.Fatal(err)
	}
	return &shelf{images, cachetest.NewRegistry()}
}

// take keeps what ref names, and with it the given blobs, as if somebody had pulled them.
func (s *shelf) take(t *testing.T, repo Repo, ref string, blobs ...v1.Hash) {
	t.Helper()
	desc, content, err := s.registry.Manifest(t.Context(), repo.Name, ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.PutManifest(repo, desc, content); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.ParseDigest(ref); err != nil {
		err := s.store.Update(func(b *index.Batch) error {
			return b.PutTag(repo, ref, index.Tag{Desc: desc, CheckedAt: time.Now(), ChangedAt: time.Now()})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range blobs {
		blob, err := s.registry.Blob(repo.Name, d)
		if err != nil {
			t.Fatal(err)
		}
		s.put(t, blob.Data)
		if err := s.store.Link(repo, store.BlobLink(d, int64(len(blob.Data)))); err != nil {
			t.Fatal(err)
		}
	}
}

// put keeps content that no repository holds.
func (s *shelf) put(t *testing.T, content []byte) {
	t.Helper()
	d := cachetest.DigestOf(content)
	part, err := s.store.Disk.Partial(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	size := int64(len(content))
	if err := s.store.Take(d, size, nil, func() error { return part.Commit(size) }); err != nil {
		t.Fatal(err)
	}
}
