package fill

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLanesServeInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLanes(2)
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
