package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/pull"
)

// folderBytes is what du says.
func folderBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var n int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone since it was listed
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		n += info.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func openBounded(t *testing.T, r Upstream, dir string, o Options) *Cache {
	t.Helper()
	o.Dir, o.Upstreams = dir, map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFolderStaysWithinItsBound(t *testing.T) {
	const most = 24 << 20
	dir := t.TempDir()
	r := newRegistry()
	rnd := rand.New(rand.NewPCG(1, 1))
	var all []v1.Hash
	for i := range uint64(40) {
		s := &script{}
		s.data, _ = blobOf(1+rnd.IntN(4<<20), i)
		all = append(all, r.put(hub.Name, s))
	}
	c := openBounded(t, r, dir, Options{MaxBytes: most})
	worst := int64(0)
	for range 25 {
		var readers sync.WaitGroup
		for range 4 {
			d := all[rnd.IntN(len(all))]
			readers.Go(func() {
				s, err := r.blob(hub.Name, d)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := readBlob(context.Background(), c, hub, d); err != nil || !bytes.Equal(got, s.data) {
					t.Errorf("Blob = %d bytes, %v", len(got), err)
				}
			})
		}
		readers.Wait()
		worst = max(worst, folderBytes(t, dir))
	}
	if limit := int64(most * 105 / 100); worst > limit {
		t.Errorf("folder had up to %d bytes, want at most %d", worst, limit)
	}
	if c.space.evicted.Load() == 0 || worst < most/2 {
		t.Errorf("%d evicted with at most %d bytes kept, want a full folder", c.space.evicted.Load(), worst)
	}
	before := c.space.policy.Bytes()
	closeCache(t, c)
	// After a restart the same is known to be kept.
	c = openBounded(t, r, dir, Options{MaxBytes: most})
	<-c.space.loaded
	if got := c.space.policy.Bytes(); got != before {
		t.Errorf("policy holds %d bytes after a restart, want %d", got, before)
	}
	if u, err := c.disk.Usage(); err != nil || int(u.Blobs) != c.space.policy.Len() || u.Blobs != c.index.Totals().Blobs {
		t.Errorf("disk has %+v (%v), policy %d, index %+v: want them to agree", u, err, c.space.policy.Len(), c.index.Totals())
	}
	closeCache(t, c)
}

func TestBlobLargerThanTheStoreIsPassedThrough(t *testing.T) {
	dir := t.TempDir()
	r := newRegistry()
	s := &script{unsized: true, noRanges: true}
	s.data, _ = blobOf(20<<20, 1)
	d := r.put(hub.Name, s)
	small := &script{data: []byte("kept")}
	k := r.put(hub.Name, small)
	c := openBounded(t, r, dir, Options{MaxBytes: 16 << 20})
	defer closeCache(t, c)
	if _, err := readBlob(t.Context(), c, hub, k); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, s.data) {
			t.Fatalf("Blob = %d bytes, %v", len(got), err)
		}
	}
	if _, ok := c.keptSize(k); !ok {
		t.Error("a blob that cannot be kept evicted one that can")
	}
	if n := c.space.reserved.Load(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
}

func TestManifestInUseKeepsItsLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := newRegistry()
		base := &script{}
		base.data, _ = blobOf(4<<20, 99)
		d := r.put(hub.Name, base)
		r.push(hub.Name, "latest", fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"digest":%q,"size":%d}]}`, d, 4<<20))
		c := openBounded(t, r, dir, Options{MaxBytes: 64 << 20})
		defer closeCache(t, c)
		if _, err := readBlob(t.Context(), c, hub, d); err != nil {
			t.Fatal(err)
		}
		lost := 0
		for i := range uint64(40) {
			time.Sleep(11 * time.Minute)
			// The image is pulled by clients that have its layer.
			if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
				t.Fatal(err)
			}
			if _, ok := c.keptSize(d); !ok {
				lost++
				if _, err := readBlob(t.Context(), c, hub, d); err != nil {
					t.Fatal(err)
				}
			}
			s := &script{}
			s.data, _ = blobOf(4<<20, i)
			o := r.put(hub.Name, s)
			for range 2 { // twice, so that it is no one-hit wonder
				if _, err := readBlob(t.Context(), c, hub, o); err != nil {
					t.Fatal(err)
				}
				time.Sleep(11 * time.Minute)
			}
		}
		// What is not used is lost every dozen blobs; the first round has no past to judge by.
		if lost > 1 {
			t.Errorf("the layer of an image in use was evicted %d times, want at most once", lost)
		}
	})
}

func TestUnusedContentIsDroppedByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		old, used := &script{data: []byte("old")}, &script{data: []byte("used")}
		d, u := r.put(hub.Name, old), r.put(hub.Name, used)
		c := openBounded(t, r, t.TempDir(), Options{MaxAge: 48 * time.Hour})
		defer closeCache(t, c)
		for _, b := range []v1.Hash{d, u} {
			if _, err := readBlob(t.Context(), c, hub, b); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(47 * time.Hour)
		if _, err := readBlob(t.Context(), c, hub, u); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		c.dropOld()
		if _, ok := c.keptSize(d); ok {
			t.Error("content unused for 49 h is kept, want it dropped")
		}
		if _, ok := c.keptSize(u); !ok {
			t.Error("content used 2 h ago is dropped")
		}
		r.fail(&pull.Error{Kind: pull.Unavailable})
		if got, err := readBlob(t.Context(), c, hub, u); err != nil || string(got) != "used" {
			t.Errorf("Blob = %q, %v", got, err)
		}
	})
}

// A process killed between the rename of a blob and its record leaves a file that must
// become known, or it would stay for ever.
func TestFileWithoutRecordIsKnownAfterACrash(t *testing.T) {
	r := newRegistry()
	s := &script{data: []byte("recorded")}
	d := r.put(hub.Name, s)
	dir, crashed := t.TempDir(), filepath.Join(t.TempDir(), "crashed")
	c := openBounded(t, r, dir, Options{MaxBytes: 64 << 20})
	if _, err := readBlob(t.Context(), c, hub, d); err != nil {
		t.Fatal(err)
	}
	left := []byte("left behind")
	if err := c.disk.Put(digestOf(left), left); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	closeCache(t, c)
	c = openBounded(t, r, crashed, Options{MaxBytes: 64 << 20})
	defer closeCache(t, c)
	<-c.space.loaded
	if n, blobs := c.space.policy.Len(), c.index.Totals().Blobs; n != 2 || blobs != 2 {
		t.Errorf("%d files may be evicted and %d are recorded, want 2 and 2", n, blobs)
	}
}
