package index

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/row"
)

func remoteHash(text string) v1.Hash {
	d, _, _ := v1.SHA256(strings.NewReader(text)) // memory never fails
	return d
}

func TestRemotes(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: filepath.Join(dir, "index"), Journal: filepath.Join(dir, "journal")}
	ix, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	d, now := remoteHash("x"), time.UnixMilli(1_800_000_000_000)
	update := func(fn func(*Batch) error) {
		t.Helper()
		if err := ix.Update(fn); err != nil {
			t.Fatal(err)
		}
	}
	update(func(b *Batch) error { return b.NoteUse(d, now) }) // of what is not there: nothing
	if _, ok, err := ix.Remote(d); ok || err != nil {
		t.Fatalf("Remote of what was never there = %t, %v", ok, err)
	}
	update(func(b *Batch) error { return b.PutRemote(d, Remote{Size: 7, Stamp: now}) })
	update(func(b *Batch) error { return b.NoteUse(d, now.Add(time.Hour)) })
	update(func(b *Batch) error { return b.NoteUse(d, now) }) // an earlier one changes nothing
	update(func(b *Batch) error { return b.PutRemote(d, Remote{Size: 8, Stamp: now.Add(time.Minute)}) })
	want := Remote{Size: 8, Stamp: now.Add(time.Minute), Used: now.Add(time.Hour)}
	if got, ok, err := ix.Remote(d); !ok || err != nil || !got.Stamp.Equal(want.Stamp) || !got.Used.Equal(want.Used) || got.Size != want.Size {
		t.Errorf("Remote = %+v, %t, %v; want %+v", got, ok, err, want)
	}
	u := Upload{ID: "some id", PartSize: 5 << 20, At: now}
	update(func(b *Batch) error { return b.PutUpload(d, u) })
	if got, ok, err := ix.Upload(d); !ok || err != nil || got.ID != u.ID || got.PartSize != u.PartSize || !got.At.Equal(u.At) {
		t.Errorf("Upload = %+v, %t, %v; want %+v", got, ok, err, u)
	}
	for _, bad := range []Upload{{}, {ID: "x"}, {PartSize: 1}, {ID: strings.Repeat("x", row.MaxName+1), PartSize: 1}} {
		if err := ix.Update(func(b *Batch) error { return b.PutUpload(d, bad) }); err == nil {
			t.Errorf("PutUpload(%+v) works, want an error", bad)
		}
	}
	if err := ix.Update(func(b *Batch) error { return b.PutRemote(d, Remote{Size: -1}) }); err == nil {
		t.Error("PutRemote of a negative size works")
	}
	for _, text := range []string{"a", "b", "c"} {
		update(func(b *Batch) error { return b.PutRemote(remoteHash(text), Remote{Size: 1, Stamp: now}) })
	}
	var after v1.Hash
	n := 0
	for {
		some, err := ix.RemotesAfter(after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(some) == 0 {
			break
		}
		for _, r := range some {
			if n++; after != (v1.Hash{}) && r.Digest.Hex <= after.Hex {
				t.Errorf("%s comes after %s", r.Digest, after)
			}
			after = r.Digest
		}
	}
	if n != 4 {
		t.Errorf("RemotesAfter lists %d, want 4", n)
	}
	if ix.Totals() != (Totals{}) {
		t.Errorf("Totals = %+v, want objects not counted as blobs", ix.Totals())
	}
	update(func(b *Batch) error { return b.DeleteRemote(d) })
	update(func(b *Batch) error { return b.DeleteUpload(d) })
	update(func(b *Batch) error { return b.DeleteRemote(d) }) // again
	_, remote, _ := ix.Remote(d)
	_, upload, _ := ix.Upload(d)
	if remote || upload {
		t.Errorf("Remote, Upload after their deletion = %t, %t", remote, upload)
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
}

// Links to what is in a bucket come back with a rebuild, whether the bucket is listed or not.
func TestRebuildKeepsLinksToTheBucket(t *testing.T) {
	repo := Repo{Upstream: "docker.io", Name: "library/x"}
	listed, other := remoteHash("listed"), remoteHash("other")
	for name, tt := range map[string]struct {
		keepGone   bool
		wantListed bool
		wantOther  bool
		objects    int64
	}{
		"listed":     {false, true, false, 1},
		"not listed": {true, true, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{Dir: filepath.Join(dir, "index"), Journal: filepath.Join(dir, "journal")}
			ix, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range []v1.Hash{listed, other} {
				if err := ix.Update(func(b *Batch) error { return b.PutLink(repo, Blob, d, Link{Size: 1, At: time.Now()}) }); err != nil {
					t.Fatal(err)
				}
			}
			if err := ix.Close(); err != nil {
				t.Fatal(err)
			}
			o.KeepGone = tt.keepGone
			if !tt.keepGone {
				o.Bucket = func(fn func(v1.Hash, int64, time.Time) error) error { return fn(listed, 9, time.Now()) }
			}
			nothing := func(func(v1.Hash, int64, time.Time) error) error { return nil }
			done, err := Rebuild(context.Background(), o, nothing, nil)
			if err != nil || done.Objects != tt.objects {
				t.Fatalf("Rebuild = %+v, %v; want %d objects", done, err, tt.objects)
			}
			if ix, err = Open(o); err != nil {
				t.Fatal(err)
			}
			defer ix.Close()
			_, gotListed, _ := ix.Link(repo, Blob, listed)
			_, gotOther, _ := ix.Link(repo, Blob, other)
			if gotListed != tt.wantListed || gotOther != tt.wantOther {
				t.Errorf("links = %t, %t; want %t, %t", gotListed, gotOther, tt.wantListed, tt.wantOther)
			}
			if r, ok, _ := ix.Remote(listed); ok != (tt.objects == 1) || ok && r.Size != 9 {
				t.Errorf("Remote = %+v, %t", r, ok)
			}
		})
	}
}
