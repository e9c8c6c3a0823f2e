package upkeep

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

func TestPurgeOfATagLeavesWhatOthersName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		a := r.Image(t, hub.Name, "a", "shared", "only a")
		b := r.Image(t, hub.Name, "b", "shared", "only b")
		o := r.Image(t, other.Name, "o", "only a")
		read(t, c, hub, "a", a.Blobs...)
		read(t, c, hub, "b", b.Blobs...)
		read(t, c, other, "o", o.Blobs...)
		kept := len(onDisk(t, c))
		would, err := c.PurgeImage(t.Context(), hub, "a", v1.Hash{}, PurgeOptions{DryRun: true})
		if n := len(onDisk(t, c)); err != nil || n != kept || !c.store.Linked(hub, index.Manifest, a.Digest) {
			t.Errorf("a dry run left %d of %d files, %v", n, kept, err)
		}
		done, err := c.PurgeImage(t.Context(), hub, "a", v1.Hash{}, PurgeOptions{})
		if diff := cmp.Diff(done, would); diff != "" {
			t.Errorf("a dry run says something else (-done +would):\n%s", diff)
		}
		// Gone: manifest, config, and the link to "only a", whose bytes other holds.
		want := Purged{Tags: 1, Links: 3, Blobs: 2, Shared: 1, Pulls: 1, Bytes: done.Bytes}
		if diff := cmp.Diff(want, done); err != nil || diff != "" {
			t.Errorf("PurgeImage = %v (-want +got):\n%s", err, diff)
		}
		left := onDisk(t, c)
		if left[a.Digest] || left[a.Blobs[0]] || !left[a.Blobs[1]] || !left[a.Blobs[2]] || !left[b.Digest] {
			t.Errorf("left on the disk: %v", left)
		}
		if c.store.Linked(hub, index.Blob, a.Blobs[2]) || !c.store.Linked(hub, index.Blob, a.Blobs[1]) {
			t.Error("links are not what they should be")
		}
		agrees(t, c)
		gets := r.Count("Manifest")
		read(t, c, hub, "a", a.Blobs...)
		if n := r.Count("Manifest") - gets; n != 1 {
			t.Errorf("a pull after the purge asked for %d manifests, want 1", n)
		}
		if _, err := c.PurgeImage(t.Context(), hub, "none", v1.Hash{}, PurgeOptions{}); !errors.Is(err, store.ErrNotKept) {
			t.Errorf("PurgeImage of nothing = %v, want store.ErrNotKept", err)
		}
	})
}

// midway does something in the middle of what is given it: when the work looks whether it is to end,
// and now says so.
type midway struct {
	context.Context
	now func() bool
	do  func()
}

func (m *midway) Err() error {
	if do := m.do; do != nil && m.now() {
		m.do = nil
		do()
	}
	return m.Context.Err()
}

// What a client pulls while its repository is purged is purged too, and known to clients no longer than to
// operators.
func TestPullAmidAPurgeOfTheRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		a := r.Image(t, hub.Name, "a", "layer")
		read(t, c, hub, "a", a.Blobs...)
		ctx := &midway{t.Context(), func() bool { return !c.store.Linked(hub, index.Manifest, a.Digest) }, func() { read(t, c, hub, "a", a.Blobs...) }}
		if _, err := c.PurgeRepository(ctx, hub, PurgeOptions{}); err != nil || ctx.do != nil {
			t.Fatalf("PurgeRepository = %v, with a pull in its middle: %t", err, ctx.do == nil)
		}
		for _, ref := range []string{"a", a.Digest.String()} {
			read(t, c, hub, ref)
			if !c.store.Linked(hub, index.Manifest, a.Digest) {
				t.Errorf("%s is given to clients, and the index has no link", ref)
			}
			if _, err := c.Inspect(hub, "a", v1.Hash{}); err != nil {
				t.Errorf("after a pull of %s: Inspect = %v", ref, err)
			}
		}
		agrees(t, c)
	})
}

func TestPurgeOfADigestRepositoryAndEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.Multi(t, hub.Name, "1")
		again := r.Multi(t, other.Name, "1")
		for _, repo := range []Repo{hub, other} {
			read(t, c, repo, "1")
			read(t, c, repo, img.Children[0].String(), img.Blobs[:3]...)
			read(t, c, repo, img.Children[1].String(), img.Blobs[3:]...)
		}
		if again.Digest != img.Digest {
			t.Fatal("the two images are not the same")
		}
		// A child of an index, by digest: with what only it names.
		if _, err := c.PurgeImage(t.Context(), hub, "", img.Children[0], PurgeOptions{}); err != nil {
			t.Errorf("PurgeImage by digest = %v", err)
		}
		if got := states(inspect(t, c, hub, "1")); got[1] != "linux/arm64 complete" || got[0] != "linux/amd64 absent" {
			t.Errorf("after the purge of amd64: %v", got)
		}
		if got := states(inspect(t, c, other, "1")); got[0] != "linux/amd64 complete" {
			t.Errorf("of the other repository after that: %v", got)
		}
		agrees(t, c)
		done, err := c.PurgeDigest(t.Context(), img.Blobs[1], PurgeOptions{})
		if err != nil || done.Blobs != 1 || done.Links != 2 || done.Shared != 0 || onDisk(t, c)[img.Blobs[1]] {
			t.Errorf("PurgeDigest of the base = %+v, %v, want it gone with 2 links", done, err)
		}
		if _, err := c.PurgeDigest(t.Context(), img.Blobs[1], PurgeOptions{}); !errors.Is(err, store.ErrNotKept) {
			t.Errorf("PurgeDigest once more = %v, want store.ErrNotKept", err)
		}
		for _, repo := range []Repo{hub, other} {
			would, _ := c.PurgeRepository(t.Context(), repo, PurgeOptions{DryRun: true})
			if done, err := c.PurgeRepository(t.Context(), repo, PurgeOptions{}); err != nil || done != would {
				t.Errorf("PurgeRepository(%s) = %+v, %v, a dry run %+v", repo, done, err, would)
			}
			if _, err := c.PurgeRepository(t.Context(), repo, PurgeOptions{}); !errors.Is(err, store.ErrNotKept) {
				t.Errorf("PurgeRepository(%s) once more = %v, want store.ErrNotKept", repo, err)
			}
		}
		if left := onDisk(t, c); len(left) > 0 || c.store.Index.Totals() != (index.Totals{}) {
			t.Errorf("after everything was purged: %v, %+v", left, c.store.Index.Totals())
		}
		agrees(t, c)
	})
}

func TestPurgeClearsNegativeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		r.Image(t, hub.Name, "1", "x")
		read(t, c, hub, "1")
		if _, err := c.Manifest(t.Context(), hub, "2", false); pull.KindOf(err) != pull.NotFound {
			t.Fatalf("Manifest of nothing = %v", err)
		}
		r.Image(t, hub.Name, "2", "y")
		if _, err := c.Manifest(t.Context(), hub, "2", false); pull.KindOf(err) != pull.NotFound {
			t.Fatalf("Manifest = %v, want the absence remembered", err)
		}
		if _, err := c.PurgeRepository(t.Context(), hub, PurgeOptions{}); err != nil {
			t.Fatal(err)
		}
		read(t, c, hub, "2")
	})
}

func TestPurgeBreaksNoReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.Image(t, hub.Name, "1", "a layer that is kept")
		slow := &cachetest.Script{Data: []byte(strings.Repeat("slow", 1<<20)), Pace: time.Second}
		small := r.Put(hub.Name, &cachetest.Script{Data: []byte("small")})
		filling := r.Put(hub.Name, slow)
		read(t, c, hub, "1", img.Blobs...)
		kept, err := c.Blob(t.Context(), hub, img.Blobs[1])
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		arriving, err := c.Blob(t.Context(), hub, filling)
		if err != nil {
			t.Fatal(err)
		}
		defer arriving.Close()
		if _, err := c.PurgeRepository(t.Context(), hub, PurgeOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PurgeDigest(t.Context(), filling, PurgeOptions{}); err != nil {
			t.Errorf("PurgeDigest of a fill = %v", err)
		}
		// One that was kept when it was opened, and is not any more when it is sent.
		late, err := c.Blob(t.Context(), hub, small)
		if err != nil {
			t.Fatal(err)
		}
		defer late.Close()
		synctest.Wait()
		if _, err := c.PurgeDigest(t.Context(), small, PurgeOptions{}); err != nil {
			t.Errorf("PurgeDigest of what was just fetched = %v", err)
		}
		for _, b := range []*cache.Blob{kept, arriving, late} {
			var got strings.Builder
			if _, err := b.Send(t.Context(), &got, 0, -1); err != nil || cachetest.DigestOf([]byte(got.String())) != b.Digest {
				t.Errorf("reading %s over a purge = %v and %d bytes", b.Digest, err, got.Len())
			}
		}
		synctest.Wait()
		agrees(t, c)
	})
}

func TestCollectRemovesOnlyWhatNobodyHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := cachetest.NewRegistry(), t.TempDir()
		c := openCache(t, r, dir)
		img := r.Image(t, hub.Name, "1", "one")
		read(t, c, hub, "1", img.Blobs...)
		loose := []byte("nobody holds this")
		if err := c.store.Disk.Put(cachetest.DigestOf(loose), loose); err != nil {
			t.Fatal(err)
		}
		// A file without its record, and a record without its file.
		unknown, gone := img.Blobs[0], cachetest.DigestOf([]byte("gone"))
		err := errors.Join(c.store.Gone(unknown), c.store.Index.Update(func(b *index.Batch) error {
			return errors.Join(b.DeleteBlob(unknown), b.PutBlob(gone, index.BlobInfo{Size: 7}))
		}))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Collect(t.Context(), false, nil); err != nil || got.Blobs != 0 {
			t.Errorf("Collect right after a file came = %+v, %v, want it left alone", got, err)
		}
		past := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(dir, "blobs", "sha256", cachetest.DigestOf(loose).Hex[:2], cachetest.DigestOf(loose).Hex), past, past); err != nil {
			t.Fatal(err)
		}
		for _, dryRun := range []bool{true, false} {
			got, err := c.Collect(t.Context(), dryRun, nil)
			want := &Collected{DryRun: dryRun, Blobs: 1, BlobBytes: int64(len(loose))}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("Collect = %v (-want +got):\n%s", err, diff)
			}
		}
		if left := onDisk(t, c); len(left) != 3 || left[cachetest.DigestOf(loose)] {
			t.Errorf("left after Collect: %v", left)
		}
		agrees(t, c)
	})
}
