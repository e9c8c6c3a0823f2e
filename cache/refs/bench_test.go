package refs

import (
	"fmt"
	"testing"
	"time"

	"forebay/cache/index"
	"forebay/cache/index/journal"
)

// A mirror with an empty folder learns a million links of 100,000 images, 20,000 of them with tags, from
// segments as another one left them.
func BenchmarkRestoreMillion(b *testing.B) {
	const million = 1_000_000
	f := newFiles()
	r := open(b, f, b.TempDir())
	var lines []journal.Line
	put := func() {
		if err := r.put(b.Context(), encode(lines)); err != nil {
			b.Fatal(err)
		}
		lines = lines[:0]
	}
	add := func(raw []byte) {
		l, err := journal.ParseLine(raw[:len(raw)-1])
		if err != nil {
			b.Fatal(err)
		}
		if lines = append(lines, identify([]journal.Line{l}, r.o.Identity)...); len(lines) >= 20_000 {
			put()
		}
	}
	now := time.Now()
	for i := range million {
		repo := index.Repo{Upstream: "docker.io", Name: fmt.Sprint("library/app", i/500)}
		kind, media := index.Blob, ""
		if i%10 == 0 {
			kind, media = index.Manifest, "application/vnd.oci.image.manifest.v1+json"
		}
		add(journal.LinkLine(repo, kind, digest(fmt.Sprint(i)), index.Link{MediaType: media, Size: int64(i), At: now}))
		if i%50 == 0 {
			t := index.Tag{ChangedAt: now}
			t.Desc.Digest, t.Desc.Size = digest(fmt.Sprint(i)), int64(i)
			add(journal.TagLine(repo, fmt.Sprint("v", i), t))
		}
	}
	put()
	start := time.Now()
	for len(f.named) > mergeAt {
		if err := r.merge(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(time.Since(start).Seconds(), "s/merges")
	for b.Loop() {
		f.asked = 0
		n := open(b, f, b.TempDir())
		start := time.Now()
		if err := n.Restore(b.Context()); err != nil {
			b.Fatal(err)
		}
		if got := n.ix.Totals(); got.Links != million {
			b.Fatalf("%d links, want a million", got.Links)
		}
		b.ReportMetric(time.Since(start).Seconds(), "s/restore")
		b.ReportMetric(float64(f.asked)/1e6, "MB-read")
	}
}
