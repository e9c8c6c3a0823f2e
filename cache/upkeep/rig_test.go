package upkeep

import (
	"io"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/image"
	"forebay/cache/store"
)

var (
	hub = Repo{Upstream: "docker.io", Name: "library/app"}
	// other is a second repository of the same upstream.
	other = Repo{Upstream: "docker.io", Name: "library/other"}
)

const ttl = time.Minute

// rig is a cache with its keeper: what clients and operators use, and what is below.
type rig struct {
	*cache.Cache
	*Keeper
	*image.Images
	store *store.Store
}

// open opens a rig; it is closed at the end of the test unless the test has closed it.
func open(t *testing.T, co cache.Options, ko Options) *rig {
	t.Helper()
	c, err := cache.Open(co)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Cache: c, Keeper: New(c, ko), Images: c.Images(), store: c.Store()}
	t.Cleanup(func() {
		if c.Life().Err() == nil {
			closeCache(t, r)
		}
	})
	return r
}

// over is the upstreams of a cache whose only one is r.
func over(r cache.Upstream) map[string]cache.UpstreamOptions {
	return map[string]cache.UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}
}

// openCache opens a cache over r in dir.
func openCache(t *testing.T, r cache.Upstream, dir string) *rig {
	t.Helper()
	return openBounded(t, r, store.Options{Dir: dir})
}

func openBounded(t *testing.T, r cache.Upstream, o store.Options) *rig {
	t.Helper()
	return open(t, cache.Options{Store: o, Upstreams: over(r)}, Options{})
}

// openOffline opens a cache that has no upstream to ask.
func openOffline(t *testing.T, r cache.Upstream, dir string) *rig {
	t.Helper()
	upstreams := map[string]cache.UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl, Offline: true}}
	return open(t, cache.Options{Store: store.Options{Dir: dir}, Upstreams: upstreams}, Options{})
}

func closeCache(t *testing.T, c *rig) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

// read pulls what ref names, and with it the given blobs.
func read(t *testing.T, c *rig, repo Repo, ref string, blobs ...v1.Hash) {
	t.Helper()
	if _, err := c.Manifest(t.Context(), repo, ref, false); err != nil {
		t.Fatalf("manifest %s of %s: %v", ref, repo, err)
	}
	for _, d := range blobs {
		b, err := c.Blob(t.Context(), repo, d)
		if err != nil {
			t.Fatalf("blob %s of %s: %v", d, repo, err)
		}
		if _, err := b.Send(t.Context(), io.Discard, 0, -1); err != nil {
			t.Errorf("send %s: %v", d, err)
		}
		b.Close()
	}
	settle(t, c)
}

func states(i *image.Image) (all []string) {
	for _, p := range i.Platforms {
		all = append(all, p.Platform+" "+string(p.State))
	}
	return all
}

func inspect(t *testing.T, c *rig, repo Repo, tag string) *image.Image {
	t.Helper()
	i, err := c.Inspect(repo, tag, v1.Hash{})
	if err != nil {
		t.Fatalf("Inspect %s:%s = %v", repo, tag, err)
	}
	return i
}

// onDisk returns what the store holds.
func onDisk(t *testing.T, c *rig) map[v1.Hash]bool {
	t.Helper()
	all := map[v1.Hash]bool{}
	err := c.store.Walk(func(d v1.Hash, _ int64, _ time.Time) error {
		all[d] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// settle waits until what was served is on the disk.
func settle(t *testing.T, c *rig) {
	t.Helper()
	for start := time.Now(); len(c.Fills().List()) > 0 && time.Since(start) < time.Minute; <-time.After(time.Millisecond) {
	}
	if err := c.store.Settle(); err != nil {
		t.Errorf("Settle: %v", err)
	}
}

// agrees checks that index, evictor and disk count the same.
func agrees(t *testing.T, c *rig) {
	t.Helper()
	settle(t, c)
	usage, err := c.store.Disk.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if n := c.store.Index.Totals(); n.Blobs != usage.Blobs || n.Bytes != usage.BlobBytes {
		t.Errorf("index counts %d blobs of %d bytes, the disk has %d of %d", n.Blobs, n.Bytes, usage.Blobs, usage.BlobBytes)
	}
	var want int64
	err = c.store.Walk(func(_ v1.Hash, size int64, _ time.Time) error {
		want += (size + 4095) / 4096 * 4096 // in blocks
		return nil
	})
	if _, got := c.store.Room.Counted(); err != nil || got != want {
		t.Errorf("the evictor counts %d bytes, want %d (%v)", got, want, err)
	}
}
