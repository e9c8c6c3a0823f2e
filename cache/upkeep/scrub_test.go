package upkeep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/image"
	"forebay/cache/store"
	"forebay/test/cachetest"
)

// spoil overwrites a byte of a kept blob.
func spoil(t *testing.T, dir string, d v1.Hash) {
	t.Helper()
	name := filepath.Join(dir, "blobs", d.Algorithm, d.Hex[:2], d.Hex)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, b, 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyTakesOutWhatRotted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := cachetest.NewRegistry(), t.TempDir()
		c := openCache(t, r, dir)
		img := r.Image(t, hub.Name, "1", "one", "two", "three")
		read(t, c, hub, "1", img.Blobs...)
		got, err := c.Verify(t.Context(), false, nil)
		if err != nil || got.Blobs != 5 || got.Faults != 0 {
			t.Errorf("Verify of what is well = %+v, %v", got, err)
		}
		spoil(t, dir, img.Blobs[1])
		spoil(t, dir, img.Digest)
		got, err = c.Verify(t.Context(), false, nil)
		if err != nil || got.Faults != 2 || len(got.Damaged) != 2 || got.Fetched != 0 || got.Damaged[0].Quarantine == "" {
			t.Errorf("Verify of what rotted = %+v, %v", got, err)
		}
		for _, bad := range got.Damaged {
			if _, err := os.Stat(filepath.Join(dir, bad.Quarantine)); err != nil {
				t.Errorf("quarantine: %v", err)
			}
		}
		agrees(t, c)
		if n := c.Scrub().Damaged; n != 2 {
			t.Errorf("%d damaged blobs counted, want 2", n)
		}
		read(t, c, hub, "1", img.Blobs...)
		spoil(t, dir, img.Blobs[2])
		spoil(t, dir, img.Digest)
		got, err = c.Verify(t.Context(), true, nil)
		if err != nil || got.Faults != 2 || got.Fetched != 2 {
			t.Errorf("Verify with repair = %+v, %v, want 2 fetched again", got, err)
		}
		if i := inspect(t, c, hub, "1"); i.State != image.Complete {
			t.Errorf("after the repair: %+v", i)
		}
		agrees(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Verify(ctx, false, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Verify that is cancelled = %v", err)
		}
	})
}

func TestQuarantineIsBoundedAndSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := cachetest.NewRegistry(), t.TempDir()
		c := openBounded(t, r, store.Options{Dir: dir, MaxBytes: 20 << 20})
		img := r.Image(t, hub.Name, "1", strings.Repeat("a", 700<<10), strings.Repeat("b", 700<<10))
		read(t, c, hub, "1", img.Blobs...)
		spoil(t, dir, img.Blobs[1])
		spoil(t, dir, img.Blobs[2])
		if got, err := c.Verify(t.Context(), false, nil); err != nil || got.Faults != 2 {
			t.Fatalf("Verify = %+v, %v", got, err)
		}
		if held, err := c.store.Disk.Quarantined(); err != nil || held.Files != 1 {
			t.Errorf("Quarantined = %+v, %v, want only one of the two, which take more than a twentieth", held, err)
		}
		if n, err := c.store.Disk.SweepQuarantine(time.Now().Add(-time.Hour)); n != 0 || err != nil {
			t.Errorf("SweepQuarantine of what is new = %d, %v", n, err)
		}
		if n, err := c.store.Disk.SweepQuarantine(time.Now().Add(100 * 365 * 24 * time.Hour)); n != 1 || err != nil {
			t.Errorf("SweepQuarantine = %d, %v, want 1", n, err)
		}
	})
}

func TestScrubReadsEverythingWithinItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := cachetest.NewRegistry(), t.TempDir()
		const interval = 20 * time.Minute // Badger looks at itself every 50 ms, in virtual time too
		start := func() *rig {
			upstreams := map[string]cache.UpstreamOptions{"docker.io": {Upstream: r, TagTTL: cache.Forever}}
			return open(t, cache.Options{Store: store.Options{Dir: dir}, Upstreams: upstreams}, Options{ScrubInterval: interval})
		}
		c := start()
		var layers []string
		for i := range 40 {
			layers = append(layers, fmt.Sprintf("layer %d", i))
		}
		img := r.Image(t, hub.Name, "1", layers...)
		read(t, c, hub, "1", img.Blobs...)
		run := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			done := make(chan struct{})
			go func() { defer close(done); c.scrub(ctx) }()
			<-done
		}
		run(interval * 4 / 10)
		if got := c.Scrub(); got.Done < 0.35 || got.Done > 0.65 || got.Ended.After(got.Began) {
			t.Errorf("after 4/10 of the interval, of which a round takes 8: %+v", got)
		}
		for _, d := range img.Blobs {
			spoil(t, dir, d)
		}
		closeCache(t, c)
		c = start()
		run(interval / 2)
		got := c.Scrub()
		if !got.Ended.After(got.Began) || got.Done != 1 || got.Damaged < 10 || got.Damaged > 31 {
			t.Errorf("after a restart and the rest of the round: %+v, want the damage in the second half found", got)
		}
		run(interval)
		if got := c.Scrub(); got.Damaged != int64(len(img.Blobs)) {
			t.Errorf("after another interval %d damaged blobs were found, want %d", got.Damaged, len(img.Blobs))
		}
		if i := inspect(t, c, hub, "1"); i.State != image.Complete {
			t.Errorf("what was damaged was not fetched again: %s", i.State)
		}
		closeCache(t, c)
	})
}
