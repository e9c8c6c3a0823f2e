package index

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder is where a test keeps its index.
type folder struct{ dir, journal string }

func newFolder(t testing.TB) folder {
	t.Helper()
	top := t.TempDir()
	return folder{dir: filepath.Join(top, "index"), journal: filepath.Join(top, "refs.journal")}
}

func (f folder) open(t testing.TB) *Index {
	t.Helper()
	ix, err := Open(f.dir, f.journal, nil)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := ix.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return ix
}

func digest(s string) v1.Hash {
	h := sha256.Sum256([]byte(s))
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h[:])}
}

// at is a time that survives encoding, n seconds after some moment.
func at(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0) }

func update(t testing.TB, ix *Index, steps ...func(*Batch) error) {
	t.Helper()
	err := ix.Update(func(b *Batch) error {
		for _, step := range steps {
			if err := step(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
}

var nginx = Repo{Upstream: "docker.io", Name: "library/nginx"}

func putBlob(d v1.Hash, size int64) func(*Batch) error {
	return func(b *Batch) error { return b.PutBlob(d, BlobInfo{Size: size, Added: at(0)}) }
}

func putLink(r Repo, k Kind, d v1.Hash, size int64) func(*Batch) error {
	return func(b *Batch) error { return b.PutLink(r, k, d, Link{MediaType: "m/t", Size: size, At: at(1)}) }
}

func putTag(r Repo, tag string, d v1.Hash, when int) func(*Batch) error {
	return func(b *Batch) error {
		desc := v1.Descriptor{MediaType: "m/t", Digest: d, Size: 3}
		return b.PutTag(r, tag, Tag{Desc: desc, CheckedAt: at(when)})
	}
}

func TestRecordsSurviveReopen(t *testing.T) {
	f := newFolder(t)
	d := digest("a")
	ix := f.open(t)
	update(t, ix, putBlob(d, 5), putLink(nginx, Manifest, d, 5), putTag(nginx, "latest", d, 2))
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	ix = f.open(t)
	blob, ok, err := ix.Blob(d)
	if want := (BlobInfo{Size: 5, Added: at(0)}); err != nil || !ok || blob != want {
		t.Errorf("Blob = %v, %t, %v; want %v", blob, ok, err, want)
	}
	link, ok, err := ix.Link(nginx, Manifest, d)
	if want := (Link{MediaType: "m/t", Size: 5, At: at(1)}); err != nil || !ok || link != want {
		t.Errorf("Link = %v, %t, %v; want %v", link, ok, err, want)
	}
	tag, ok, err := ix.Tag(nginx, "latest")
	want := Tag{Desc: v1.Descriptor{MediaType: "m/t", Digest: d, Size: 3}, CheckedAt: at(2), ChangedAt: at(2)}
	if diff := cmp.Diff(want, tag); err != nil || !ok || diff != "" {
		t.Errorf("Tag: %t, %v, (-want +got)\n%s", ok, err, diff)
	}
	wantTotals := Totals{Blobs: 1, Bytes: 5, Links: 1, Tags: 1, Repositories: 1}
	if got := ix.Totals(); got != wantTotals {
		t.Errorf("Totals = %+v, want %+v", got, wantTotals)
	}
}

func TestLostIndexIsRebuilt(t *testing.T) {
	f := newFolder(t)
	kept, gone := digest("kept"), digest("gone")
	ix := f.open(t)
	update(t, ix, putBlob(kept, 4), putBlob(gone, 9),
		putLink(nginx, Manifest, kept, 4), putLink(nginx, Blob, gone, 9),
		putTag(nginx, "1", kept, 2), putTag(nginx, "2", kept, 2), putTag(nginx, "2", gone, 3))
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(f.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f.dir, f.journal, nil); !errors.Is(err, ErrDamaged) {
		t.Fatalf("Open without the folder: %v, want %v", err, ErrDamaged)
	}
	walk := func(fn func(v1.Hash, int64, time.Time) error) error { return fn(kept, 4, at(7)) }
	ix, err := OpenOrRebuild(context.Background(), f.dir, f.journal, walk, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	if want, got := (Totals{Blobs: 1, Bytes: 4, Links: 1, Tags: 1, Repositories: 1}), ix.Totals(); got != want {
		t.Errorf("Totals = %+v, want %+v", got, want)
	}
	if tag, ok, err := ix.Tag(nginx, "2"); ok || err != nil {
		t.Errorf("Tag whose content is gone = %v, %t, %v; want none", tag, ok, err)
	}
	if _, ok, err := ix.Link(nginx, Manifest, kept); !ok || err != nil {
		t.Errorf("Link of kept content: %t, %v; want it", ok, err)
	}
}
