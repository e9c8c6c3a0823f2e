package index

import (
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// filled makes a closed index of n blobs, each linked to one of 200 repositories, with a
// tag for every tenth.
func filled(b *testing.B, n int) folder {
	b.Helper()
	f := newFolder(b)
	ix, err := Open(f.options())
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < n; {
		update(b, ix, func(batch *Batch) error {
			for range 1000 {
				d, r := digest(fmt.Sprint(i)), benchRepo(i)
				if err := addAll(batch, r, d, i); err != nil {
					return err
				}
				i++
			}
			return nil
		})
	}
	for i := range n {
		ix.Touch(digest(fmt.Sprint(i)))
	}
	if err := ix.Close(); err != nil {
		b.Fatal(err)
	}
	return f
}

func benchRepo(i int) Repo {
	return Repo{Upstream: "docker.io", Name: fmt.Sprintf("library/repository-%d", i%200)}
}

func addAll(batch *Batch, r Repo, d v1.Hash, i int) error {
	if err := putBlob(d, int64(i))(batch); err != nil {
		return err
	}
	if i%10 != 0 {
		return putLink(r, Blob, d, int64(i))(batch)
	}
	if err := putLink(r, Manifest, d, int64(i))(batch); err != nil {
		return err
	}
	return putTag(r, fmt.Sprint("tag-", i), d, i)(batch)
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := filled(b, n)
			for b.Loop() {
				ix, err := Open(f.options())
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := ix.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkHit is what a hit asks of the index: a tag, a link, a blob, and a note of its use.
func BenchmarkHit(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ix := filled(b, n).open(b)
			i := 0
			for b.Loop() {
				i = (i + 7919*10) % n // every tenth has a tag
				d, r := digest(fmt.Sprint(i)), benchRepo(i)
				_, tag, err1 := ix.Tag(r, fmt.Sprint("tag-", i))
				_, link, err2 := ix.Link(r, Manifest, d)
				_, blob, err3 := ix.Blob(d)
				if !tag || !link || !blob || err1 != nil || err2 != nil || err3 != nil {
					b.Fatalf("entry %d: %t %t %t, %v %v %v", i, tag, link, blob, err1, err2, err3)
				}
				ix.Touch(d)
			}
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	ix := newFolder(b).open(b)
	i := 0
	for b.Loop() {
		i++
		d := digest(fmt.Sprint(i))
		update(b, ix, putBlob(d, 1), putLink(nginx, Blob, d, 1))
	}
}
