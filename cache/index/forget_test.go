package index

import (
	"strconv"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestLinksOfWhatIsLongGoneAreForgotten(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	const many = 1200 // more than a batch
	kept, young, pinned := digest("kept"), digest("young"), digest("pinned")
	link := func(d v1.Hash, k Kind, when int) func(*Batch) error {
		return func(b *Batch) error { return b.PutLink(nginx, k, d, Link{Size: 1, At: at(when)}) }
	}
	update(t, ix, putBlob(kept, 1), link(kept, Blob, 0), link(young, Blob, 100), link(pinned, Blob, 0),
		putTag(nginx, "kept", kept, 0), putTag(nginx, "young", young, 100), putTag(nginx, "pinned", pinned, 0))
	for n := range many {
		d := digest(string(rune(n)) + "gone")
		update(t, ix, link(d, Blob, 0), link(d, Manifest, 0), putTag(nginx, "t"+strconv.Itoa(n), d, 0))
	}
	// A tag whose content is gone, but not what it pointed to before.
	update(t, ix, putTag(nginx, "moved", kept, 0), putTag(nginx, "moved", digest("later"), 1))
	want := Forgotten{Links: 2 * many, Tags: many}
	keep := func(d v1.Hash) bool { return d == pinned }
	for _, dryRun := range []bool{true, false} {
		if got, err := ix.ForgetAbsent(t.Context(), at(50), keep, dryRun); got != want || err != nil {
			t.Errorf("ForgetAbsent(dryRun %t) = %+v, %v, want %+v", dryRun, got, err, want)
		}
	}
	if got, err := ix.ForgetAbsent(t.Context(), at(50), keep, false); got != (Forgotten{}) || err != nil {
		t.Errorf("ForgetAbsent once more = %+v, %v", got, err)
	}
	if got := ix.Totals(); got.Links != 3 || got.Tags != 4 || got.Blobs != 1 {
		t.Errorf("Totals = %+v, want 3 links, 4 tags, 1 blob", got)
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	ix = f.open(t)
	if got := ix.Totals(); got.Links != 3 || got.Tags != 4 {
		t.Errorf("Totals after a start = %+v", got)
	}
}
