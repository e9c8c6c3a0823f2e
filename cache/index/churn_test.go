package index

import (
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// BenchmarkChurn replaces the content of an index many times over and tells what its files
// take on the disk beside those of an index that never had anything else.
func BenchmarkChurn(b *testing.B) {
	const live, turns = 50_000, 12
	fresh := newFolder(b)
	size := func(ix *Index) int64 {
		f, err := ix.Figures()
		if err != nil {
			b.Fatal(err)
		}
		return f.Bytes
	}
	fill := func(ix *Index, from, n int) {
		for i := from; i < from+n; {
			update(b, ix, func(batch *Batch) error {
				for range 500 {
					if err := addAll(batch, benchRepo(i), digest(fmt.Sprint(i)), i); err != nil {
						return err
					}
					if old := i - live; old >= 0 {
						if err := removeAll(batch, benchRepo(old), digest(fmt.Sprint(old)), old); err != nil {
							return err
						}
					}
					i++
				}
				return nil
			})
		}
	}
	ix := fresh.open(b)
	fill(ix, 0, live)
	want := size(ix)
	var most, sum int64
	for n := range turns {
		fill(ix, live*(n+1), live)
		now := size(ix)
		most, sum = max(most, now), sum+now
		b.Logf("turn %d: %.1f MiB", n, float64(now)/(1<<20))
	}
	b.ReportMetric(float64(most)/float64(want), "most-ratio")
	b.ReportMetric(float64(sum)/turns/float64(want), "mean-ratio")
	b.ReportMetric(float64(want)/(1<<20), "fresh-MiB")
	if err := ix.Close(); err != nil {
		b.Fatal(err)
	}
}

func removeAll(batch *Batch, r Repo, d v1.Hash, i int) error {
	if err := batch.DeleteBlob(d); err != nil {
		return err
	}
	if i%10 != 0 {
		return batch.DeleteLink(r, Blob, d)
	}
	if err := batch.DeleteLink(r, Manifest, d); err != nil {
		return err
	}
	return batch.DeleteTag(r, fmt.Sprint("tag-", i))
}
