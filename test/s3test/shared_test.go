package s3test_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/cache/tier"
	"forebay/cache/upkeep"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/test/s3test"
)

func drop2(m *mirrortest.Mirror, digest string) {
	m.Settle()
	_ = os.Remove(filepath.Join(m.Dir, "blobs", "sha256", digest[7:9], digest[7:]))
}

// Two mirrors share a bucket: what one of them needs is not removed by the other.
func TestSharedBucket(t *testing.T) {
	limits := func(o *tier.Options, _ *cache.Options) { o.MaxAge, o.SurveyEvery = 30*24*time.Hour, time.Hour }
	w := newWorld(t, limits)
	other := w.mirror(limits)
	w.listed(w.m)
	w.listed(other)
	var digests []string
	var raws [][]byte
	for i := range 3 {
		raw := noise(uint64(400+i), 10_000)
		digests, raws = append(digests, w.hub.PutBlob("library/app", raw)), append(raws, raw)
		w.pull(w.m, blobPath("library/app", digests[i]), "", raw)
	}
	w.settled(w.m)
	survey := func(m *mirrortest.Mirror) tier.Survey {
		t.Helper()
		s, err := m.Cache().Store().Bucket.Survey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := survey(other); s.New != 3 {
		t.Errorf("the other mirror found %d new objects, want 3", s.New)
	}
	// 0 is used by the first mirror, 1 by the other, 2 by nobody any more; all are old.
	for _, d := range digests {
		w.s3.Age("", hash(t, d), 40*24*time.Hour)
		drop(t, w.m, d)
	}
	survey(w.m) // learns how old they are; what it used since is marked
	for _, d := range digests {
		if _, err := os.Stat(w.s3.Object("", hash(t, d))); err != nil {
			t.Fatalf("removed although it was used a moment ago: %v", err)
		}
		w.s3.Age("", hash(t, d), 40*24*time.Hour)
	}
	w.m.Stop()
	w.pull(other, blobPath("library/app", digests[1]), "", raws[1])
	other.Settle() // the use is noted with the file
	if s := survey(other); s.Removed != 2 || s.Touched != 1 {
		t.Errorf("the other mirror removed %d and marked %d, want 2 and 1", s.Removed, s.Touched)
	}
	for i, want := range []bool{false, true, false} {
		_, err := os.Stat(w.s3.Object("", hash(t, digests[i])))
		if there := err == nil; there != want {
			t.Errorf("object %d is there: %t, want %t", i, there, want)
		}
	}
	// The first one thought that they were there. It fetches again, and puts them back.
	w.m.Start()
	for i, d := range digests {
		w.pull(w.m, blobPath("library/app", d), "", raws[i])
	}
	w.settled(w.m)
	if n := len(w.s3.Objects()); n != 3 {
		t.Errorf("%d objects, want 3 again", n)
	}
}

// More than the bucket may hold: the oldest go, and none that is younger than the grace.
func TestBucketCap(t *testing.T) {
	w := newWorld(t, func(o *tier.Options, _ *cache.Options) { o.MaxBytes, o.SurveyEvery = 50_000, time.Hour })
	w.listed(w.m)
	var digests []string
	for i := range 10 {
		raw := noise(uint64(500+i), 10_000)
		digests = append(digests, w.hub.PutBlob("library/app", raw))
		w.pull(w.m, blobPath("library/app", digests[i]), "", raw)
	}
	w.settled(w.m)
	s, err := w.m.Cache().Store().Bucket.Survey(t.Context())
	if err != nil || s.Removed != 0 {
		t.Fatalf("Survey = %+v, %v; want nothing removed: all are young", s, err)
	}
	fresh := w.mirror(func(o *tier.Options, _ *cache.Options) { o.MaxBytes, o.SurveyEvery = 50_000, time.Hour })
	w.listed(fresh)
	w.m.Stop()
	for i, d := range digests {
		w.s3.Age("", hash(t, d), time.Duration(100-i)*time.Hour)
	}
	if s, err = fresh.Cache().Store().Bucket.Survey(t.Context()); err != nil || s.Removed != 5 {
		t.Fatalf("Survey = %+v, %v; want 5 removed", s, err)
	}
	if n := w.s3.Count("DeleteObjects"); n != 1 {
		t.Errorf("%d requests to remove 5 objects, want 1", n)
	}
	for i, d := range digests {
		_, err := os.Stat(w.s3.Object("", hash(t, d)))
		if there := err == nil; there != (i >= 5) {
			t.Errorf("object %d is there: %t, want the oldest five gone", i, there)
		}
	}
}

// The index is lost with the disk's blobs: journal and bucket bring it back.
func TestRebuildFromTheBucket(t *testing.T) {
	w := newWorld(t, nil)
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 2})
	raws := map[string][]byte{"/v2/library/app/manifests/v1": nil}
	for _, d := range img.Manifests() {
		raws["/v2/library/app/manifests/"+d.Digest] = w.hub.Bytes(d.Digest)
	}
	for _, b := range img.Blobs() {
		raws[blobPath("library/app", b.Digest)] = w.hub.Bytes(b.Digest)
	}
	for path := range raws {
		if status, _, err := w.ask(w.m, path, ""); status != 200 || err != nil {
			t.Fatalf("GET %s = %d, %v", path, status, err)
		}
	}
	w.settled(w.m)
	w.m.Stop()
	for _, name := range []string{"index", "blobs"} {
		if err := os.RemoveAll(filepath.Join(w.m.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	told := 0
	done, err := store.RebuildIndex(t.Context(), store.Options{Dir: w.m.Dir, Bucket: &tier.Options{Bucket: openBucket(t, w.s3)}},
		func(progress) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(len(w.s3.Objects())); done.Blobs != 0 || done.Objects != want || done.Gone != 0 || told == 0 {
		t.Errorf("RebuildIndex = %+v after %d reports, want %d objects and nothing gone", done, told, want)
	}
	w.m.RestartWith(func(o *mirrortest.Options) { o.Upstreams = offline(w.hub) })
	for path, raw := range raws {
		status, got, err := w.ask(w.m, path, "")
		if err != nil || status != 200 || raw != nil && !bytes.Equal(got, raw) {
			t.Errorf("GET %s after the rebuild = %d with %d bytes, %v", path, status, len(got), err)
		}
	}
}

// An upload in parts that a crash interrupts goes on with the parts that are there.
func TestCrashDuringAnUpload(t *testing.T) {
	w := newWorld(t, nil)
	raw := noise(8, 23<<20) // five parts
	digest := w.hub.PutBlob("library/app", raw)
	stuck := make(chan struct{})
	w.s3.Add(s3test.Fault{Op: "UploadPart", After: 3, Hang: true, Gone: stuck})
	w.pull(w.m, blobPath("library/app", digest), "", raw)
	select {
	case <-stuck:
	case <-time.After(time.Minute):
		t.Fatal("the upload did not get to its fourth part")
	}
	if _, err := os.Stat(w.s3.Object("", hash(t, digest))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half an object is visible: %v", err)
	}
	w.m.Settle() // what came a moment before a crash may be lost, and its upload with it
	w.s3.Clear()
	w.s3.Forget()
	w.m.Crash()
	w.settled(w.m)
	b, err := os.ReadFile(w.s3.Object("", hash(t, digest)))
	if err != nil || !bytes.Equal(b, raw) {
		t.Errorf("object has %d bytes, %v; want %d", len(b), err, len(raw))
	}
	if n := w.s3.Count("UploadPart"); n > 2 {
		t.Errorf("%d parts were sent after the crash, want the 2 that were missing", n)
	}
	if n := w.s3.Uploads(); n != 0 {
		t.Errorf("%d uploads are left, want none", n)
	}
}

// What an operator takes out as a file returns from the bucket for that, registry or not.
func TestContentReturnsForOperators(t *testing.T) {
	w := newWorld(t, nil)
	raw := noise(10, 300_000)
	digest := w.hub.PutBlob("library/app", raw)
	w.pull(w.m, blobPath("library/app", digest), "", raw)
	w.settled(w.m)
	w.m.RestartWith(func(o *mirrortest.Options) { o.Upstreams = offline(w.hub) })
	drop(t, w.m, digest)
	f, size, err := w.m.Keeper().Content(hash(t, digest))
	if err != nil || size != int64(len(raw)) {
		t.Fatalf("Content = %d bytes, %v; want %d", size, err, len(raw))
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("Content has %d bytes, %v", len(got), err)
	}
}

// An operator's purge of a digest reaches the bucket.
func TestPurgeDigestRemovesTheObject(t *testing.T) {
	w := newWorld(t, nil)
	raw := noise(9, 10_000)
	digest := w.hub.PutBlob("library/app", raw)
	w.pull(w.m, blobPath("library/app", digest), "", raw)
	w.settled(w.m)
	if _, err := w.m.Keeper().PurgeDigest(context.Background(), hash(t, digest), upkeep.PurgeOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := len(w.s3.Objects()); n != 0 {
		t.Errorf("%d objects, want none", n)
	}
}
