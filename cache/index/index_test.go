package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/journal"
	"forebay/cache/index/row"
)

// folder is where a test keeps its index.
type folder struct{ dir, journal string }

func newFolder(t testing.TB) folder {
	t.Helper()
	top := t.TempDir()
	return folder{dir: filepath.Join(top, "index"), journal: filepath.Join(top, "refs.journal")}
}

func (f folder) options() Options { return Options{Dir: f.dir, Journal: f.journal} }

func (f folder) open(t testing.TB) *Index {
	t.Helper()
	ix, err := Open(f.options())
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
		putTag(nginx, "1", kept, 2), putTag(nginx, "2", gone, 2), putTag(nginx, "2", gone, 3),
		putTag(nginx, "3", kept, 2), putTag(nginx, "3", kept, 4), putTag(nginx, "3", gone, 9),
		func(b *Batch) error { return b.Decide(Decision{Name: "freeze/a b", Text: "{}", At: at(5)}) },
		func(b *Batch) error { return b.Decide(Decision{Name: "freeze/lifted", Text: "{}"}) },
		func(b *Batch) error { return b.Undecide("freeze/lifted") })
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(f.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f.options()); !errors.Is(err, ErrDamaged) {
		t.Fatalf("Open without the folder: %v, want %v", err, ErrDamaged)
	}
	walk := func(fn func(v1.Hash, int64, time.Time) error) error { return fn(kept, 4, at(7)) }
	ix, err := OpenOrRebuild(context.Background(), f.options(), walk)
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	if want, got := (Totals{Blobs: 1, Bytes: 4, Links: 1, Tags: 2, Repositories: 1}), ix.Totals(); got != want {
		t.Errorf("Totals = %+v, want %+v", got, want)
	}
	var decided []Decision
	err = ix.Decisions("freeze/", func(d Decision) error {
		decided = append(decided, d)
		return nil
	})
	if want := []Decision{{Name: "freeze/a b", Text: "{}", At: at(5)}}; err != nil || !slices.EqualFunc(decided, want, func(a, b Decision) bool { return a.Name == b.Name && a.Text == b.Text && a.At.Equal(b.At) }) {
		t.Errorf("Decisions = %v, %v, want %v", decided, err, want)
	}
	// What a tag pointed to before may be what answers by a rule; it does not become what it points to.
	tag, ok, err := ix.Tag(nginx, "3")
	if want := []Binding{{Digest: kept, FirstSeen: at(2), LastSeen: at(4)}}; !ok || err != nil || tag.Desc.Digest != gone || !slices.Equal(tag.History, want) {
		t.Errorf("Tag whose former content is left = %v, %t, %v; want history %v", tag, ok, err, want)
	}
	if tag, ok, err := ix.Tag(nginx, "2"); ok || err != nil {
		t.Errorf("Tag whose content is gone = %v, %t, %v; want none", tag, ok, err)
	}
	if _, ok, err := ix.Link(nginx, Manifest, kept); !ok || err != nil {
		t.Errorf("Link of kept content: %t, %v; want it", ok, err)
	}
}

func TestDeletedRecordsAreGone(t *testing.T) {
	f := newFolder(t)
	d := digest("a")
	ix := f.open(t)
	update(t, ix, putBlob(d, 5), putLink(nginx, Manifest, d, 5), putTag(nginx, "latest", d, 2))
	ix.Touch(d)
	if err := ix.flushAccess(); err != nil {
		t.Fatal(err)
	}
	update(t, ix,
		func(b *Batch) error { return b.DeleteBlob(d) },
		func(b *Batch) error { return b.DeleteLink(nginx, Manifest, d) },
		func(b *Batch) error { return b.DeleteTag(nginx, "latest") })
	if got := ix.Totals(); got != (Totals{}) {
		t.Errorf("Totals = %+v, want none", got)
	}
	if _, ok, _ := ix.Blob(d); ok {
		t.Error("Blob is still there")
	}
	if at, ok, _ := ix.Used(d); ok {
		t.Errorf("Used = %v, want none", at)
	}
	if holders := holders(t, ix, d); len(holders) > 0 {
		t.Errorf("Holders = %v, want none", holders)
	}
	if repos, err := ix.Repositories("", 10); err != nil || len(repos) > 0 {
		t.Errorf("Repositories = %v, %v; want none", repos, err)
	}
}

func holders(t *testing.T, ix *Index, d v1.Hash) (got []string) {
	t.Helper()
	err := ix.Holders(d, func(r Repo, k Kind) error {
		got = append(got, k.String()+" of "+r.String())
		return nil
	})
	if err != nil {
		t.Errorf("Holders: %v", err)
	}
	return got
}

func TestLinkIsPerRepositoryAndKind(t *testing.T) {
	ix := newFolder(t).open(t)
	d := digest("a")
	update(t, ix, putLink(nginx, Blob, d, 5), putLink(Repo{Upstream: "ghcr.io", Name: "a/b"}, Manifest, d, 5))
	for _, tt := range []struct {
		r    Repo
		k    Kind
		want bool
	}{
		{nginx, Blob, true},
		{nginx, Manifest, false},
		{Repo{Upstream: "ghcr.io", Name: "a/b"}, Manifest, true},
		{Repo{Upstream: "ghcr.io", Name: "library/nginx"}, Blob, false},
		{Repo{Upstream: "docker.io", Name: "library/ngin"}, Blob, false},
	} {
		if _, ok, err := ix.Link(tt.r, tt.k, d); ok != tt.want || err != nil {
			t.Errorf("Link(%s, %s) = %t, %v; want %t", tt.r, tt.k, ok, err, tt.want)
		}
	}
	want := []string{"blob of docker.io/library/nginx", "manifest of ghcr.io/a/b"}
	if diff := cmp.Diff(want, holders(t, ix, d)); diff != "" {
		t.Errorf("Holders (-want +got)\n%s", diff)
	}
}

func TestLinkKeepsWhatIsKnown(t *testing.T) {
	ix := newFolder(t).open(t)
	d := digest("a")
	put := func(l Link) { update(t, ix, func(b *Batch) error { return b.PutLink(nginx, Blob, d, l) }) }
	put(Link{Size: -1, At: at(1)})
	put(Link{MediaType: "a/b", Size: 7, At: at(2)})
	put(Link{Size: -1, At: at(3)})
	got, _, err := ix.Link(nginx, Blob, d)
	if want := (Link{MediaType: "a/b", Size: 7, At: at(1)}); got != want || err != nil {
		t.Errorf("Link = %+v, %v; want %+v", got, err, want)
	}
}

func TestTagHistory(t *testing.T) {
	ix := newFolder(t).open(t)
	update(t, ix, putTag(nginx, "latest", digest("0"), 0))
	update(t, ix, putTag(nginx, "latest", digest("0"), 5))
	update(t, ix, putTag(nginx, "latest", digest("1"), 9))
	update(t, ix, putTag(nginx, "latest", digest("1"), 8)) // a slow answer does not turn time back
	got, _, err := ix.Tag(nginx, "latest")
	want := Tag{
		Desc:      v1.Descriptor{MediaType: "m/t", Digest: digest("1"), Size: 3},
		CheckedAt: at(9), ChangedAt: at(9),
		History: []Binding{{Digest: digest("0"), FirstSeen: at(0), LastSeen: at(5)}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Tag: %v (-want +got)\n%s", err, diff)
	}
	for i := range 2 * row.MaxHistory {
		update(t, ix, putTag(nginx, "latest", digest(fmt.Sprint(i)), 10+i))
	}
	got, _, err = ix.Tag(nginx, "latest")
	if len(got.History) != row.MaxHistory || err != nil || got.History[0].Digest != digest(fmt.Sprint(2*row.MaxHistory-2)) {
		t.Errorf("History has %d entries, %v, the first %v; want the last %d", len(got.History), err, got.History[0], row.MaxHistory)
	}
	var names []string
	update(t, ix, putTag(nginx, "1.0", digest("0"), 0), putTag(Repo{Upstream: "docker.io", Name: "library/nginx2"}, "x", digest("0"), 0))
	if err := ix.Tags(nginx, func(tag string, _ Tag) error { names = append(names, tag); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1.0", "latest"}, names); diff != "" {
		t.Errorf("Tags (-want +got)\n%s", diff)
	}
}

func TestRepositoriesArePagedInCatalogOrder(t *testing.T) {
	ix := newFolder(t).open(t)
	d := digest("a")
	for _, r := range []Repo{{Upstream: "docker.io", Name: "library/nginx"}, {Upstream: "docker.io", Name: "a"}, {Upstream: "docker.io.example", Name: "z"}, {Upstream: "docker", Name: "y"}, {Upstream: "ghcr.io:5000", Name: "b/c"}} {
		update(t, ix, putLink(r, Manifest, d, 1))
	}
	update(t, ix, putLink(Repo{Upstream: "docker.io", Name: "only/blobs"}, Blob, d, 1), putTag(Repo{Upstream: "docker.io", Name: "only/tags"}, "x", d, 1))
	want := []string{"docker.io.example/z", "docker.io/a", "docker.io/library/nginx", "docker/y", "ghcr.io:5000/b/c"}
	if !slices.IsSorted(want) {
		t.Fatal("want is not sorted")
	}
	var got []string
	for after := ""; ; {
		page, err := ix.Repositories(after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			after = r.String()
			got = append(got, after)
		}
		if len(page) < 2 {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Repositories (-want +got)\n%s", diff)
	}
	if page, err := ix.Repositories("docker.io/b", 1); err != nil || len(page) != 1 || page[0].Name != "library/nginx" {
		t.Errorf("Repositories after a name that is not there = %v, %v; want library/nginx", page, err)
	}
	if page, err := ix.Repositories("zzz", 1); err != nil || len(page) != 0 {
		t.Errorf("Repositories after the last = %v, %v; want none", page, err)
	}
}

func TestHostileNamesAreRefused(t *testing.T) {
	ix := newFolder(t).open(t)
	d := digest("a")
	for _, r := range []Repo{{}, {Upstream: "docker.io", Name: ""}, {Upstream: "", Name: "a"}, {Upstream: "docker.io\x00a", Name: "b"}, {Upstream: "docker.io", Name: "a\x00b"}, {Upstream: "a/b", Name: "c"}, {Upstream: "docker.io", Name: strings.Repeat("a", 2000)}} {
		err := ix.Update(func(b *Batch) error { return b.PutLink(r, Blob, d, Link{}) })
		if err == nil {
			t.Errorf("PutLink to %q works, want an error", r)
		}
		if _, ok, err := ix.Link(r, Blob, d); ok || err == nil {
			t.Errorf("Link of %q = %t, %v; want an error", r, ok, err)
		}
	}
	for name, step := range map[string]func(*Batch) error{
		"empty digest":   func(b *Batch) error { return b.PutBlob(v1.Hash{}, BlobInfo{}) },
		"short digest":   func(b *Batch) error { return b.PutBlob(v1.Hash{Algorithm: "sha256", Hex: "ab"}, BlobInfo{}) },
		"negative size":  func(b *Batch) error { return b.PutBlob(d, BlobInfo{Size: -1}) },
		"kind":           func(b *Batch) error { return b.PutLink(nginx, 'x', d, Link{}) },
		"media type":     func(b *Batch) error { return b.PutLink(nginx, Blob, d, Link{MediaType: strings.Repeat("x", 5000)}) },
		"tag":            func(b *Batch) error { return b.PutTag(nginx, "a\x00b", Tag{Desc: v1.Descriptor{Digest: d}}) },
		"tag's digest":   func(b *Batch) error { return b.PutTag(nginx, "a", Tag{}) },
		"document's key": func(b *Batch) error { return b.PutDoc(nginx, TagList, "a\x00b", nil, at(0)) },
	} {
		if err := ix.Update(step); err == nil {
			t.Errorf("%s: Update works, want an error", name)
		}
	}
	if got := ix.Totals(); got != (Totals{}) {
		t.Errorf("Totals = %+v, want none", got)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	stop := errors.New("stop")
	err := ix.Update(func(b *Batch) error {
		return errors.Join(b.PutBlob(digest("a"), BlobInfo{}), stop)
	})
	if !errors.Is(err, stop) {
		t.Errorf("Update = %v, want the function's error", err)
	}
	err = ix.Update(func(b *Batch) error {
		for i := range 100_000 {
			if err := putLink(nginx, Blob, digest(fmt.Sprint(i)), 1)(b); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, ErrTooBig) {
		t.Errorf("Update of 100,000 links = %v, want %v", err, ErrTooBig)
	}
	if got := ix.Totals(); got != (Totals{}) {
		t.Errorf("Totals = %+v, want none", got)
	}
	if _, ok, err := ix.Link(nginx, Blob, digest("0")); ok || err != nil {
		t.Errorf("Link of a refused batch: %t, %v; want none", ok, err)
	}
	if b, err := os.ReadFile(f.journal); err != nil || len(b) != int(journal.HeaderSize) {
		t.Errorf("journal has %d bytes, %v; want its header alone", len(b), err)
	}
}

func TestDocuments(t *testing.T) {
	ix := newFolder(t).open(t)
	noise := make([]byte, 1_500_000) // does not compress: six parts
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	put := func(kind DocKind, key string, b []byte) error {
		return ix.Update(func(batch *Batch) error { return batch.PutDoc(nginx, kind, key, b, at(4)) })
	}
	for name, doc := range map[string][]byte{"empty": nil, "small": []byte(`["a"]`), "large": bytes.Repeat([]byte("tag "), 1_000_000), "noise": noise, "small again": []byte("x")} {
		if err := put(TagList, "", doc); err != nil {
			t.Fatalf("%s: PutDoc: %v", name, err)
		}
		got, when, ok, err := ix.Doc(nginx, TagList, "")
		if err != nil || !ok || !bytes.Equal(got, doc) || !when.Equal(at(4)) {
			t.Errorf("%s: Doc has %d bytes, %v, %t, %v; want %d", name, len(got), when, ok, err, len(doc))
		}
	}
	if _, _, ok, err := ix.Doc(nginx, ReferrerList, ""); ok || err != nil {
		t.Errorf("Doc of another kind: %t, %v; want none", ok, err)
	}
	if err := put(ReferrerList, "k", noise); err != nil {
		t.Fatal(err)
	}
	for name, doc := range map[string][]byte{"long": make([]byte, row.MaxDoc+1), "noisy": append(slices.Clone(noise), noise...)} {
		if err := put(ReferrerList, "k", doc); !errors.Is(err, ErrTooBig) {
			t.Errorf("%s: PutDoc = %v, want %v", name, err, ErrTooBig)
		}
	}
	if got, _, _, err := ix.Doc(nginx, ReferrerList, "k"); err != nil || !bytes.Equal(got, noise) {
		t.Errorf("Doc after a refused one has %d bytes, %v; want the one before", len(got), err)
	}
}

func TestDropRepo(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	other := Repo{Upstream: "docker.io", Name: "library/nginx-other"}
	d := digest("a")
	update(t, ix, putLink(other, Manifest, d, 1), putTag(other, "x", d, 1))
	want := ix.Totals()
	for i := range 3 {
		update(t, ix, func(b *Batch) error {
			for j := range purgeBatch { // more than one batch holds
				n := digest(fmt.Sprint(i, j))
				if err := errors.Join(putLink(nginx, Blob, n, 1)(b), putTag(nginx, fmt.Sprint(i, "-", j), n, 1)(b)); err != nil {
					return err
				}
			}
			return b.PutDoc(nginx, ReferrerList, fmt.Sprint(i), []byte("x"), at(1))
		})
	}
	if err := ix.DropRepo(context.Background(), nginx); err != nil {
		t.Fatal(err)
	}
	if got := ix.Totals(); got != want {
		t.Errorf("Totals = %+v, want those of the other repository: %+v", got, want)
	}
	if _, _, ok, err := ix.Doc(nginx, ReferrerList, "1"); ok || err != nil {
		t.Errorf("Doc of the dropped repository: %t, %v; want none", ok, err)
	}
}

func TestUseIsGatheredAndWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder(t)
		d := digest("a")
		ix := f.open(t)
		update(t, ix, func(b *Batch) error { return b.PutBlob(d, BlobInfo{Size: 1, Added: time.Now()}) })
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- ix.Run(ctx) }()
		time.Sleep(time.Hour)
		ix.Touch(d)
		ix.Touch(digest("not kept"))
		now := time.Now().Truncate(time.Minute)
		if got, ok, err := ix.Used(d); !got.Equal(now) || !ok || err != nil {
			t.Errorf("Used before it is written = %v, %t, %v; want %v", got, ok, err, now)
		}
		time.Sleep(touchEvery + 2*time.Second)
		if got, ok := ix.access.pending(d); ok {
			t.Errorf("use %v is still in memory after %v", got, touchEvery)
		}
		if got, ok, err := ix.Used(d); !got.Equal(now) || !ok || err != nil {
			t.Errorf("Used = %v, %t, %v; want %v", got, ok, err, now)
		}
		if _, ok, err := ix.Used(digest("not kept")); ok || err != nil {
			t.Errorf("Used of what is not kept: %t, %v; want none", ok, err)
		}
		time.Sleep(time.Hour)
		ix.Touch(d) // written by Close
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		now = time.Now().Truncate(time.Minute)
		if err := ix.Close(); err != nil {
			t.Fatal(err)
		}
		ix = f.open(t)
		var got time.Time
		err := ix.Blobs(func(_ v1.Hash, _ BlobInfo, used time.Time) error { got = used; return nil })
		if err != nil || !got.Equal(now) {
			t.Errorf("Blobs after reopen: used %v, %v; want %v", got, err, now)
		}
		if err := ix.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestBlobsTellUse(t *testing.T) {
	ix := newFolder(t).open(t)
	want := map[v1.Hash]bool{}
	for i := range 100 {
		d := digest(fmt.Sprint(i))
		update(t, ix, putBlob(d, 1))
		if i%3 == 0 {
			ix.Touch(d)
		}
		if i == 50 {
			if err := ix.flushAccess(); err != nil {
				t.Fatal(err)
			}
		}
		want[d] = i%3 == 0
	}
	got := map[v1.Hash]bool{}
	err := ix.Blobs(func(d v1.Hash, b BlobInfo, used time.Time) error {
		got[d] = !used.Equal(b.Added)
		return nil
	})
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Blobs: %v: use (-want +got)\n%s", err, diff)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	err := ix.db.Update(func(txn *badger.Txn) error { return txn.Set(row.VersionKey, row.EncodeVersion(schemaVersion+1)) })
	if err := errors.Join(err, ix.Close()); err != nil {
		t.Fatal(err)
	}
	nothing := func(func(v1.Hash, int64, time.Time) error) error { return nil }
	if _, err := OpenOrRebuild(context.Background(), f.options(), nothing); !errors.Is(err, ErrNewer) {
		t.Errorf("OpenOrRebuild = %v, want %v", err, ErrNewer)
	}
}

func TestDamagedRecordIsAnErrorAndCanBeReplaced(t *testing.T) {
	ix := newFolder(t).open(t)
	d := digest("a")
	update(t, ix, putBlob(d, 1), putTag(nginx, "x", d, 1))
	key, err := row.TagKey(nginx, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := ix.db.Update(func(txn *badger.Txn) error { return txn.Set(key, []byte{1, 0xff}) }); err != nil {
		t.Fatal(err)
	}
	if tag, ok, err := ix.Tag(nginx, "x"); ok || !errors.Is(err, ErrDamaged) {
		t.Errorf("Tag = %v, %t, %v; want %v", tag, ok, err, ErrDamaged)
	}
	update(t, ix, putTag(nginx, "x", d, 2))
	if _, ok, err := ix.Tag(nginx, "x"); !ok || err != nil {
		t.Errorf("Tag after PutTag: %t, %v; want it", ok, err)
	}
}

func TestIndexHasOneOwner(t *testing.T) {
	f := newFolder(t)
	f.open(t)
	nothing := func(func(v1.Hash, int64, time.Time) error) error { return nil }
	if _, err := OpenOrRebuild(context.Background(), f.options(), nothing); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("second Open = %v, want an error that is not %v", err, ErrDamaged)
	}
}

// An index that cannot be opened for want of files or memory is whole: it must not be made anew.
func TestWhatAMachineLacksIsNoDamage(t *testing.T) {
	for text, damaged := range map[string]bool{
		"During db.vlog.open err: Error while creating log file in valueLog.open err: while opening file: 000002.vlog err: too many open files": false,
		"Opening table: 000001.sst: while mmapping 000001.sst with size: 1024: cannot allocate memory":                                          false,
		"Unable to parse table: checksum mismatch": true,
	} {
		if err := causeOf(errors.New(text)); errors.Is(err, ErrDamaged) != damaged || !strings.Contains(err.Error(), text) {
			t.Errorf("causeOf(%q) = %v, want damage: %t", text, err, damaged)
		}
	}
	table := &fs.PathError{Op: "open", Path: "000001.sst", Err: syscall.EMFILE}
	if err := causeOf(fmt.Errorf("table: %w", table)); errors.Is(err, ErrDamaged) || !errors.Is(err, syscall.EMFILE) {
		t.Errorf("causeOf(%v) = %v", table, err)
	}
}
