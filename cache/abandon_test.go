package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"forebay/cache/fill"
	"forebay/cache/store"
	"forebay/test/cachetest"
)

func TestFillWaitsForTheReaderWhoStartedIt(t *testing.T) {
	// Not in virtual time: the fill must be able to outrun the one who starts it.
	r := cachetest.NewRegistry()
	c, err := Open(Options{Store: store.Options{Dir: t.TempDir()}, CancelAbandoned: true, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeCache(t, c)
	for n := range 300 {
		d := r.Put(hub.Name, &cachetest.Script{Data: fmt.Appendf(nil, "blob %d", n)})
		b, err := c.Blob(t.Context(), hub, d)
		if err != nil {
			t.Fatalf("blob %d: %v", n, err)
		}
		if _, err := b.Send(t.Context(), io.Discard, 0, -1); err != nil {
			t.Fatalf("blob %d: send: %v", n, err)
		}
		b.Close()
	}
}

// An operator ends a fill: its readers are cut short, and the next one goes on from what has come.
func TestCancelledFillGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openWith(t, r, UpstreamOptions{TagTTL: ttl, MaxConnections: 1})
		defer closeCache(t, c)
		s := &cachetest.Script{Pace: 64 * time.Millisecond} // 1 MiB/s
		s.Data, _ = cachetest.BlobOf(32<<20, 1)
		d := r.Put(hub.Name, s)
		read := make(chan error, 1)
		go func() {
			_, err := readBlob(context.Background(), c, hub, d)
			read <- err
		}()
		time.Sleep(16 * time.Second)
		came := c.Fills().List()[0].Bytes
		if n := c.Fills().Cancel(d); n != 1 {
			t.Errorf("CancelFill = %d, want 1", n)
		}
		if err := <-read; !errors.Is(err, fill.ErrCancelled) {
			t.Errorf("its reader got %v, want that it was cancelled", err)
		}
		synctest.Wait()
		if n := c.Fills().Cancel(d); n != 0 || len(c.Fills().List()) != 0 {
			t.Errorf("CancelFill of nothing = %d, with %d fills", n, len(c.Fills().List()))
		}
		before := time.Now()
		if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, s.Data) {
			t.Errorf("the next pull = %d bytes, %v", len(got), err)
		}
		if took := time.Since(before); came < 8<<20 || took > 26*time.Second {
			t.Errorf("the next pull took %s after %d bytes had come, want the rest only", took, came)
		}
	})
}

// TestLargeFillMakesWay: two large blobs hold both connections for minutes, a small one
// must not wait for their end.
func TestLargeFillMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openWith(t, r, UpstreamOptions{TagTTL: ttl, MaxConnections: 2})
		defer closeCache(t, c)
		var large sync.WaitGroup
		for seed := range uint64(2) {
			s := &cachetest.Script{Pace: 64 * time.Millisecond} // 1 MiB/s
			s.Data, _ = cachetest.BlobOf(64<<20, seed)
			d := r.Put(hub.Name, s)
			large.Go(func() {
				if got, err := readBlob(context.Background(), c, hub, d); err != nil || !bytes.Equal(got, s.Data) {
					t.Errorf("large blob = %d bytes, %v", len(got), err)
				}
			})
		}
		time.Sleep(time.Second)
		s := &cachetest.Script{}
		s.Data, _ = cachetest.BlobOf(2<<20, 9)
		d := r.Put(hub.Name, s)
		start := time.Now()
		if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, s.Data) {
			t.Errorf("small blob = %d bytes, %v", len(got), err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("small blob took %v beside two large ones, want under 10 s of their 64", took)
		}
		large.Wait()
	})
}

// TestReaderWhoComesAsAFillIsGivenUpGetsAnother: between the decision to end and the end
// lies a write to the disk, which the test holds up.
func TestReaderWhoComesAsAFillIsGivenUpGetsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		s := &cachetest.Script{Pace: time.Millisecond}
		s.Data, _ = cachetest.BlobOf(24<<20, 1)
		d := r.Put(hub.Name, s)
		var held atomic.Bool
		release := make(chan struct{})
		hold := func(step, name string) error {
			if held.Load() && strings.HasSuffix(name, ".json") {
				<-release
			}
			return nil
		}
		c, err := Open(Options{Store: store.Options{Dir: t.TempDir(), Fault: hold}, CancelAbandoned: true,
			Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
		if err != nil {
			t.Fatal(err)
		}
		defer closeCache(t, c)
		b, err := c.Blob(t.Context(), hub, d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Send(t.Context(), io.Discard, 0, 4<<20); err != nil {
			t.Fatal(err)
		}
		held.Store(true)
		b.Close()
		synctest.Wait() // it is given up, and waits for the disk
		got := make(chan []byte)
		go func() {
			all, err := readBlob(t.Context(), c, hub, d)
			if err != nil {
				t.Errorf("Blob = %d bytes, %v, want another fill", len(all), err)
			}
			got <- all
		}()
		synctest.Wait()
		held.Store(false)
		close(release)
		if all := <-got; !bytes.Equal(all, s.Data) {
			t.Errorf("Blob = %d bytes, want the %d of the blob", len(all), len(s.Data))
		}
	})
}
