package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/test/cachetest"
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

func openBounded(t *testing.T, r Upstream, dir string, o store.Options) *Cache {
	t.Helper()
	o.Dir = dir
	c, err := Open(Options{Store: o, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFolderStaysWithinItsBound(t *testing.T) {
	const most = 24 << 20
	dir := t.TempDir()
	r := cachetest.NewRegistry()
	rnd := rand.New(rand.NewPCG(1, 1))
	var all []v1.Hash
	for i := range uint64(40) {
		s := &cachetest.Script{}
		s.Data, _ = cachetest.BlobOf(1+rnd.IntN(4<<20), i)
		all = append(all, r.Put(hub.Name, s))
	}
	c := openBounded(t, r, dir, store.Options{MaxBytes: most})
	worst := int64(0)
	for range 25 {
		var readers sync.WaitGroup
		for range 4 {
			d := all[rnd.IntN(len(all))]
			readers.Go(func() {
				s, err := r.Blob(hub.Name, d)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := readBlob(context.Background(), c, hub, d); err != nil || !bytes.Equal(got, s.Data) {
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
	if n := c.store.Figures().EvictedBlobs; n == 0 || worst < most/2 {
		t.Errorf("%d evicted with at most %d bytes kept, want a full folder", n, worst)
	}
	settle(t, c)
	_, before := c.store.Room.Counted()
	closeCache(t, c)
	// After a restart the same is known to be kept.
	c = openBounded(t, r, dir, store.Options{MaxBytes: most})
	<-c.store.Room.Loaded()
	files, got := c.store.Room.Counted()
	if got != before {
		t.Errorf("%d bytes are counted after a restart, want %d", got, before)
	}
	if u, err := c.store.Disk.Usage(); err != nil || int(u.Blobs) != files || u.Blobs != c.store.Index.Totals().Blobs {
		t.Errorf("disk has %+v (%v), %d files are counted, index %+v: want them to agree", u, err, files, c.store.Index.Totals())
	}
	closeCache(t, c)
}

func TestBlobLargerThanTheStoreIsPassedThrough(t *testing.T) {
	dir := t.TempDir()
	r := cachetest.NewRegistry()
	s := &cachetest.Script{Unsized: true, NoRanges: true}
	s.Data, _ = cachetest.BlobOf(20<<20, 1)
	d := r.Put(hub.Name, s)
	small := &cachetest.Script{Data: []byte("kept")}
	k := r.Put(hub.Name, small)
	c := openBounded(t, r, dir, store.Options{MaxBytes: 16 << 20})
	defer closeCache(t, c)
	if _, err := readBlob(t.Context(), c, hub, k); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, s.Data) {
			t.Fatalf("Blob = %d bytes, %v", len(got), err)
		}
	}
	if _, ok := c.store.DiskSize(k); !ok {
		t.Error("a blob that cannot be kept evicted one that can")
	}
	// Nothing but files and reservations is measured while the cache does not run.
	if _, kept := c.store.Room.Counted(); c.store.Figures().UsedBytes != kept {
		t.Errorf("%d bytes are still reserved", c.store.Figures().UsedBytes-kept)
	}
}

func TestManifestInUseKeepsItsLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := cachetest.NewRegistry()
		base := &cachetest.Script{}
		base.Data, _ = cachetest.BlobOf(4<<20, 99)
		d := r.Put(hub.Name, base)
		r.Push(hub.Name, "latest", fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"digest":%q,"size":%d}]}`, d, 4<<20))
		c := openBounded(t, r, dir, store.Options{MaxBytes: 64 << 20})
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
			if _, ok := c.store.DiskSize(d); !ok {
				lost++
				if _, err := readBlob(t.Context(), c, hub, d); err != nil {
					t.Fatal(err)
				}
			}
			s := &cachetest.Script{}
			s.Data, _ = cachetest.BlobOf(4<<20, i)
			o := r.Put(hub.Name, s)
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

// runOnce runs the cache until it has done what is due.
func runOnce(t *testing.T, c *Cache) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	synctest.Wait()
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestUnusedContentIsDroppedByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		old, used := &cachetest.Script{Data: []byte("old")}, &cachetest.Script{Data: []byte("used")}
		d, u := r.Put(hub.Name, old), r.Put(hub.Name, used)
		c := openBounded(t, r, t.TempDir(), store.Options{MaxAge: 48 * time.Hour})
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
		runOnce(t, c)
		if _, ok := c.store.DiskSize(d); ok {
			t.Error("content unused for 49 h is kept, want it dropped")
		}
		if _, ok := c.store.DiskSize(u); !ok {
			t.Error("content used 2 h ago is dropped")
		}
		r.Fail(&pull.Error{Kind: pull.Unavailable})
		if got, err := readBlob(t.Context(), c, hub, u); err != nil || string(got) != "used" {
			t.Errorf("Blob = %q, %v", got, err)
		}
	})
}
