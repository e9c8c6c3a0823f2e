package image

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/wire"
	"forebay/test/cachetest"
)

// What an operator's program sends as after is bytes from outside.
func FuzzCursor(f *testing.F) {
	for _, s := range []string{"", "docker.io/library/nginx:1", "localhost:5000/a/b:1", "docker.io/a@sha256:00", "a", "/", ":", "@", "a/b:c@d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		repo, tag, d, err := splitCursor(s)
		if err != nil {
			if !errors.Is(err, store.ErrQuery) {
				t.Fatalf("splitCursor(%q) = %v, want store.ErrQuery", s, err)
			}
			return
		}
		if s == "" {
			return
		}
		if got := Name(repo, tag, d); got != s {
			t.Fatalf("splitCursor(%q) is %q again", s, got)
		}
		if !wire.ValidRepository(repo.Name) {
			t.Fatalf("splitCursor(%q) = %+v, which cannot be", s, repo)
		}
	})
}

func names(p *Page) (all []string) {
	for _, i := range p.Images {
		name := i.Name()
		if i.Tag == "" {
			name = i.Repository + "@"
		}
		all = append(all, strings.TrimPrefix(name, "docker.io/library/"))
	}
	return all
}

func TestImagesAreListedPageByPage(t *testing.T) {
	s := openShelf(t)
	r := s.registry
	for _, tag := range []string{"1", "2", "3"} {
		r.Image(t, hub.Name, tag, "layer "+tag)
		s.take(t, hub, tag)
	}
	lone := r.Image(t, other.Name, "unseen", "x")
	s.take(t, other, lone.Digest.String())
	whole := r.Image(t, other.Name, "whole", "y")
	s.take(t, other, "whole", whole.Blobs...)
	for query, want := range map[Query]string{
		{}:                                 "app:1 app:2 app:3 other:whole library/other@",
		{Match: "app"}:                     "app:1 app:2 app:3",
		{Match: "*:2"}:                     "app:2",
		{Match: "docker.io/*/app:[23]"}:    "app:2 app:3",
		{Match: "library/o*"}:              "other:whole library/other@",
		{Match: "none*"}:                   "",
		{Repo: other}:                      "other:whole library/other@",
		{Missing: true}:                    "app:1 app:2 app:3 library/other@",
		{After: "docker.io/library/app:2"}: "app:3 other:whole library/other@",
	} {
		for limit := range 4 {
			var got []string
			q := query
			q.Limit = limit
			for {
				page, err := s.List(t.Context(), q)
				if err != nil {
					t.Fatalf("List(%+v) = %v", q, err)
				}
				if limit > 0 && len(page.Images) > limit {
					t.Errorf("List(%+v) has %d images", q, len(page.Images))
				}
				got = append(got, names(page)...)
				if page.Next == "" {
					break
				}
				q.After = page.Next
			}
			if strings.Join(got, " ") != want {
				t.Errorf("List(%+v) = %v, want %s", q, got, want)
			}
		}
	}
	for _, q := range []Query{{Limit: -1}, {Limit: 1001}, {After: "x"}, {After: "a/b"}, {After: "docker.io/x@sha256:1"}, {Match: "["}} {
		if _, err := s.List(t.Context(), q); !errors.Is(err, store.ErrQuery) {
			t.Errorf("List(%+v) = %v, want store.ErrQuery", q, err)
		}
	}
}

// fillIndex makes n tags over n/100 repositories, without bytes on the disk.
func fillIndex(tb testing.TB, s *shelf, n int) {
	tb.Helper()
	for at := 0; at < n; at += 100 {
		repo := index.Repo{Upstream: "docker.io", Name: fmt.Sprintf("owner/app%d", at)}
		err := s.store.Index.Update(func(b *index.Batch) error {
			var errs []error
			for i := range 100 {
				d := cachetest.DigestOf(fmt.Append(nil, at, i))
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
	s := openShelf(b)
	fillIndex(b, s, 100_000)
	for name, q := range map[string]Query{
		"page of 100":                  {},
		"pattern, one of 100,000 tags": {Match: "owner/app99900:v99"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.List(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPinned(b *testing.B) {
	s := openShelf(b)
	d := cachetest.DigestOf([]byte("x"))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.Pins.Pinned(d)
		}
	})
}
