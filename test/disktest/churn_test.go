package disktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forebay/cache"
)

// diskUse is the space that a file system has given away, in bytes, of one moment: a walk over
// the files of a folder counts what was evicted meanwhile beside what took its place, and
// leaves out what is deleted and still open.
func diskUse(t *testing.T, dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Errorf("statfs: %v", err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

func TestFolderStaysWithinItsCapUnderChurn(t *testing.T) {
	const most = 256 << 20
	images, clients := 1200, 6 // some 1.9 GiB in all
	if !full() {
		images = 400
	}
	w := newWorld()
	dir := smallDisk(t, "ext4", 512)
	empty := diskUse(t, dir)
	o := w.options(dir, false)
	o.Store.MaxBytes = most
	c, err := cache.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	var largest, sum, samples int64
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		for ctx.Err() == nil {
			n := diskUse(t, dir) - empty
			largest, sum, samples = max(largest, n), sum+n, samples+1
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	var next atomic.Int64
	var crowd sync.WaitGroup
	errs := make(chan error, clients)
	for range clients {
		crowd.Go(func() {
			for n := next.Add(1); n <= int64(images); n = next.Add(1) {
				name := fmt.Sprintf("churn%d", n)
				// From a few kilobytes to 12 MiB, as layers are.
				size := 4<<10 + int(n*n*7919%(3<<20))
				if n%40 == 0 {
					size = 12 << 20
				}
				i, _ := w.single("library/"+name, "1", "amd64", map[string]int{name: size, name + "s": small}, name, name+"s")
				if err := pullImage(ctx, c, i); err != nil {
					errs <- err
					return
				}
				w.drop(i)
			}
		})
	}
	crowd.Wait()
	stop()
	<-measured
	close(errs)
	if err := errors.Join(<-ran, <-errs); err != nil {
		t.Fatal(err)
	}
	s, err := keeperOf(c).Stats()
	if err != nil || s.EvictedBlobs == 0 {
		t.Fatalf("nothing was evicted: %+v, %v", s, err)
	}
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	t.Logf("%d images, %d blobs evicted: folder at most %.1f MiB, on average %.1f, cap %.0f (%.1f %%), %d samples",
		images, s.EvictedBlobs, mib(largest), mib(sum/samples), mib(most), float64(largest)/most*100, samples)
	if largest > most/100*105 {
		t.Errorf("the folder had %.1f MiB, the cap is %.0f", mib(largest), mib(most))
	}
	if sum/samples < most/2 {
		t.Errorf("the folder had %.1f MiB on average: the cap was not reached", mib(sum/samples))
	}
	checkCounters(t, "after the churn", dir, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err = cache.Open(o); err != nil {
		t.Fatal(err)
	}
	<-c.Store().Room.Loaded()
	checkCounters(t, "after a start", dir, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// drop forgets the content of an image, as there would be much of it.
func (s *source) drop(i image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range i.blobs {
		delete(s.blobs, i.repo+"@"+d.String())
	}
}
