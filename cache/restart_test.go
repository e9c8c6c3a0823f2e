package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"forebay/cache/evict"
)

func TestEvictionKnowsAfterARestartWhatItKnewBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := newRegistry(), t.TempDir()
		img := r.image(t, hub.Name, "1", "often", "once")
		c := openCache(t, r, dir)
		read(t, c, hub, "1", img.blobs...)
		for range 3 {
			time.Sleep(time.Hour)
			read(t, c, hub, "1", img.blobs[1])
		}
		before, _ := c.space.policy.State(img.blobs[1])
		closeCache(t, c)
		c = openCache(t, r, dir)
		<-c.Loaded()
		if got, ok := c.space.policy.State(img.digest); !ok || got.Kind != evict.Manifest {
			t.Errorf("the manifest is %+v, %t after a restart, want its kind", got, ok)
		}
		if got, ok := c.space.policy.State(img.blobs[1]); !ok || got.Kind != evict.Blob || got.Hint != before.Hint || before.Hint == 0 {
			t.Errorf("the layer is %+v, %t after a restart, was %+v", got, ok, before)
		}
	})
}

func TestSharesFollowWhatTheDiskLeaves(t *testing.T) {
	c, err := Open(Options{Dir: t.TempDir(), MaxBytes: 1 << 50, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer closeCache(t, c)
	<-c.Loaded()
	free, _, err := c.disk.Free()
	if err != nil {
		t.Fatal(err)
	}
	c.space.minFree = int64(free) - 1<<30
	c.space.fit()
	if got := c.space.fitted; got < 1<<28 || got > 1<<32 {
		t.Errorf("the policy was told %d bytes, want about a GiB: less is left than storage.max_size", got)
	}
}
