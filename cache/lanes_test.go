package cache

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLanesServeInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(2)
		for range 2 {
			if err := l.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var order []int
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				if err := l.enter(t.Context()); err != nil {
					t.Error(err)
				}
				order = append(order, i)
				l.leave()
			})
			synctest.Wait()
		}
		if l.enterExtra() {
			t.Error("enterExtra = true while others wait")
		}
		l.leave()
		all.Wait()
		if len(order) != 3 || order[0] != 0 || order[1] != 1 || order[2] != 2 {
			t.Errorf("served in order %v, want 0 1 2", order)
		}
		if !l.enterExtra() || l.enterExtra() {
			t.Error("want one place beyond the first, and no second")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("enter = %v, want out of time", err)
		}
		l.leaveExtra()
		l.leave()
		if l.free != 2 || l.extra != 1 || l.crowded() {
			t.Errorf("lanes = %d free, %d extra, crowded %t, want 2, 1, false", l.free, l.extra, l.crowded())
		}
	})
}

// TestLargeFillMakesWay: two large blobs hold both connections for minutes, a small one
// must not wait for their end.
func TestLargeFillMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openWith(t, r, UpstreamOptions{TagTTL: ttl, MaxConnections: 2})
		defer closeCache(t, c)
		var large sync.WaitGroup
		for seed := range uint64(2) {
			s := &script{pace: 64 * time.Millisecond} // 1 MiB/s
			s.data, _ = blobOf(64<<20, seed)
			d := r.put(hub.Name, s)
			large.Go(func() {
				if got, err := readBlob(context.Background(), c, hub, d); err != nil || !bytes.Equal(got, s.data) {
					t.Errorf("large blob = %d bytes, %v", len(got), err)
				}
			})
		}
		time.Sleep(time.Second)
		s := &script{}
		s.data, _ = blobOf(2<<20, 9)
		d := r.put(hub.Name, s)
		start := time.Now()
		if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, s.data) {
			t.Errorf("small blob = %d bytes, %v", len(got), err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("small blob took %v beside two large ones, want under 10 s of their 64", took)
		}
		large.Wait()
	})
}
