package index

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/row"
)

func TestTagsGoOnAfterAnyName(t *testing.T) {
	ix := newFolder(t).open(t)
	for _, tag := range []string{"1", "1.2", "1.2.3", "2", "latest"} {
		update(t, ix, putTag(nginx, tag, digest("x"), 1))
	}
	update(t, ix, putTag(Repo{Upstream: "docker.io", Name: "library/nginx2"}, "3", digest("x"), 1))
	for after, want := range map[string]string{
		"": "1 1.2 1.2.3 2 latest", "1": "1.2 1.2.3 2 latest", "1.1": "1.2 1.2.3 2 latest", "2": "latest", "zzz": "",
	} {
		var got []string
		err := ix.TagsAfter(nginx, after, func(tag string, _ Tag) error {
			got = append(got, tag)
			return nil
		})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("TagsAfter(%q) = %q, %v, want %q", after, got, err, want)
		}
	}
	n := 0
	err := ix.TagsAfter(nginx, "", func(string, Tag) error { n++; return ErrStop })
	if n != 1 || err != nil {
		t.Errorf("TagsAfter with ErrStop went on to %d tags with %v, want 1", n, err)
	}
}

func TestBlobsGoOnAfterAnyDigest(t *testing.T) {
	ix := newFolder(t).open(t)
	var all []v1.Hash
	for i := range 25 {
		d := digest(fmt.Sprint(i))
		all = append(all, d)
		update(t, ix, putBlob(d, int64(i)))
	}
	slices.SortFunc(all, func(a, b v1.Hash) int { return strings.Compare(a.Hex, b.Hex) })
	var got []v1.Hash
	var last v1.Hash
	for {
		page, err := ix.BlobsAfter(last, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, b := range page {
			got = append(got, b.Digest)
		}
		last = page[len(page)-1].Digest
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Errorf("blobs page by page (-want +got):\n%s", diff)
	}
}

func TestRepositoriesAreCounted(t *testing.T) {
	ix := newFolder(t).open(t)
	other := Repo{Upstream: "ghcr.io", Name: "a/b"}
	update(t, ix, putLink(nginx, Manifest, digest("m"), 1), putLink(nginx, Blob, digest("b"), 1), putTag(nginx, "1", digest("m"), 1))
	update(t, ix, putLink(other, Blob, digest("b"), 1))
	got, err := ix.ReposAfter("", 10)
	want := []RepoCounts{{Repo: nginx, Manifests: 1, Blobs: 1, Tags: 1}, {Repo: other, Blobs: 1}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("ReposAfter = %v (-want +got):\n%s", err, diff)
	}
	got, err = ix.ReposAfter(nginx.String(), 10)
	if diff := cmp.Diff(want[1:], got); err != nil || diff != "" {
		t.Errorf("ReposAfter the first = %v (-want +got):\n%s", err, diff)
	}
	for d, want := range map[v1.Hash]bool{digest("m"): true, digest("none"): false} {
		if held, err := ix.Held(d); err != nil || held != want {
			t.Errorf("Held(%s) = %t, %v, want %t", d, held, err, want)
		}
	}
}

func pins(t *testing.T, ix *Index) (all []Pin) {
	t.Helper()
	if err := ix.Pins(func(p Pin) error { all = append(all, p); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPinsSurviveReopenCompactionAndRebuild(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	tag := Pin{Repo: nginx, Ref: "1.27", At: at(5)}
	byDigest := Pin{Repo: Repo{Upstream: "ghcr.io", Name: "a/b"}, Ref: digest("m").String(), Platforms: []string{"linux/amd64", "linux/arm64/v8"}, At: at(6)}
	update(t, ix, func(b *Batch) error {
		return errors.Join(b.PutPin(Pin{Repo: nginx, Ref: "1.27", Platforms: []string{"linux/arm"}, At: at(1)}),
			b.PutPin(Pin{Repo: nginx, Ref: "gone", At: at(1)}))
	})
	update(t, ix, func(b *Batch) error {
		return errors.Join(b.PutPin(tag), b.PutPin(byDigest), b.DeletePin(nginx, "gone"), b.DeletePin(nginx, "never"))
	})
	want := []Pin{tag, byDigest}
	if diff := cmp.Diff(want, pins(t, ix)); diff != "" {
		t.Errorf("pins (-want +got):\n%s", diff)
	}
	ix.journal.Spoil()
	if err := ix.compactJournal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	ix = f.open(t)
	if diff := cmp.Diff(want, pins(t, ix)); diff != "" {
		t.Errorf("pins after a reopen (-want +got):\n%s", diff)
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	nothing := WalkFunc(func(func(v1.Hash, int64, time.Time) error) error { return nil })
	if _, err := Rebuild(t.Context(), f.options(), nothing, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, pins(t, f.open(t))); diff != "" {
		t.Errorf("pins after a rebuild (-want +got):\n%s", diff)
	}
}

func TestPinsThatCannotBeAreRefused(t *testing.T) {
	ix := newFolder(t).open(t)
	for name, p := range map[string]Pin{
		"no reference":   {Repo: nginx},
		"no repository":  {Repo: Repo{Upstream: "docker.io"}, Ref: "1"},
		"comma":          {Repo: nginx, Ref: "1", Platforms: []string{"a,b"}},
		"empty platform": {Repo: nginx, Ref: "1", Platforms: []string{""}},
		"too many":       {Repo: nginx, Ref: "1", Platforms: slices.Repeat([]string{"p"}, row.MaxPlatforms+1)},
	} {
		if err := ix.Update(func(b *Batch) error { return b.PutPin(p) }); err == nil {
			t.Errorf("PutPin with %s worked", name)
		}
	}
}

func TestNotesAreKept(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	if _, ok, err := ix.Note("scrub"); ok || err != nil {
		t.Errorf("Note of nothing = %t, %v", ok, err)
	}
	update(t, ix, func(b *Batch) error { return b.PutNote("scrub", []byte("half way")) })
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	if b, ok, err := f.open(t).Note("scrub"); string(b) != "half way" || !ok || err != nil {
		t.Errorf("Note after a reopen = %q, %t, %v", b, ok, err)
	}
	if err := new(Batch).PutNote("big", make([]byte, maxNote+1)); !errors.Is(err, ErrTooBig) {
		t.Errorf("PutNote of too much = %v, want ErrTooBig", err)
	}
}

// EachTag goes through all tags, of more repositories and with more tags than it reads at once; its function may ask
// the index, and end it.
func TestEachTagGoesThroughAll(t *testing.T) {
	ix := newFolder(t).open(t)
	want := 0
	for i := range 3 {
		repo := Repo{Upstream: "docker.io", Name: fmt.Sprintf("library/r%d", i)}
		err := ix.Update(func(b *Batch) error {
			for j := range 501*(i%2) + i {
				want++
				tag := fmt.Sprintf("t%04d", j)
				if err := b.PutTag(repo, tag, Tag{Desc: v1.Descriptor{Digest: digest(tag)}, CheckedAt: time.Now(), ChangedAt: time.Now()}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	got, last := 0, ""
	err := ix.EachTag(func(r Repo, tag string, _ Tag) error {
		if name := r.String() + ":" + tag; name <= last {
			t.Errorf("%s after %s", name, last)
		} else {
			last = name
		}
		if _, known, err := ix.Tag(r, tag); !known || err != nil {
			t.Errorf("Tag(%s, %s) = %t, %v", r, tag, known, err)
		}
		got++
		return nil
	})
	if err != nil || got != want {
		t.Errorf("EachTag went through %d tags with %v, want %d", got, err, want)
	}
	n := 0
	if err := ix.EachTag(func(Repo, string, Tag) error { n++; return ErrStop }); err != nil || n != 1 {
		t.Errorf("EachTag with ErrStop went on to %d tags with %v, want 1", n, err)
	}
	broken := errors.New("broken")
	if err := ix.EachTag(func(Repo, string, Tag) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("EachTag = %v, want %v", err, broken)
	}
}
