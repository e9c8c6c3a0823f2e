package cache

import (
	"errors"
	"fmt"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/index"
	"forebay/internal/wire"
)

// What an operator's program sends as after is bytes from outside.
func FuzzCursor(f *testing.F) {
	for _, s := range []string{"", "docker.io/library/nginx:1", "localhost:5000/a/b:1", "docker.io/a@sha256:00", "a", "/", ":", "@", "a/b:c@d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		repo, tag, d, err := splitCursor(s)
		if err != nil {
			if !errors.Is(err, ErrQuery) {
				t.Fatalf("splitCursor(%q) = %v, want ErrQuery", s, err)
			}
			return
		}
		if s == "" {
			return
		}
		if got := refString(repo, tag, d); got != s {
			t.Fatalf("splitCursor(%q) is %q again", s, got)
		}
		if !wire.ValidRepository(repo.Name) {
			t.Fatalf("splitCursor(%q) = %+v, which cannot be", s, repo)
		}
	})
}

// Manifests come from registries, and from whoever pushed there.
func FuzzManifestParts(f *testing.F) {
	f.Add([]byte(`{"config":{"digest":"sha256:1"},"layers":[{"digest":"x","urls":["y"]}],"manifests":[{"platform":{"os":"linux"}}]}`))
	f.Add([]byte(`{"manifests":[{"platform":{"os":"\u001b[31m","architecture":"a,b"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}}]}`))
	f.Add([]byte(`{"fsLayers":[{"blobSum":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}],"subject":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, ok := parseDoc(b)
		if !ok {
			return
		}
		for _, part := range doc.blobs() {
			if _, err := wire.ParseDigest(part.Digest.String()); err != nil {
				t.Errorf("part %+v: %v", part, err)
			}
		}
		for _, name := range doc.platformNames() {
			for _, r := range name {
				if r <= ' ' || r > '~' || r == ',' {
					t.Errorf("platform %q has %q", name, r)
				}
			}
		}
	})
}

// fillIndex makes n tags over n/100 repositories, without bytes on the disk.
func fillIndex(tb testing.TB, c *Cache, n int) {
	tb.Helper()
	for at := 0; at < n; at += 100 {
		repo := index.Repo{Upstream: "docker.io", Name: fmt.Sprintf("owner/app%d", at)}
		err := c.index.Update(func(b *index.Batch) error {
			var errs []error
			for i := range 100 {
				d := digestOf(fmt.Append(nil, at, i))
				errs = append(errs, b.PutLink(repo, index.Manifest, d, index.Link{MediaType: string(types.OCIImageIndex), Size: 1}),
					b.PutTag(repo, fmt.Sprintf("v%d", i), index.Tag{Desc: v1.Descriptor{Digest: d}, CheckedAt: time.Now()}))
			}
			return errors.Join(errs...)
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
}

func BenchmarkImages(b *testing.B) {
	c, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	fillIndex(b, c, 100_000)
	for name, q := range map[string]ImageQuery{
		"page of 100":                  {},
		"pattern, one of 100,000 tags": {Match: "owner/app99900:v99"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := c.Images(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPinned(b *testing.B) {
	c, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	d := digestOf([]byte("x"))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Pinned(d)
		}
	})
}
