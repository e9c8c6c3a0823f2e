package governor

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// enter returns a pass, or fails the test.
func enter(t *testing.T, g *Gate) Pass {
	t.Helper()
	p, err := g.Enter(t.Context())
	if err != nil {
		t.Fatalf("Enter: %v", err)
	}
	return p
}

// wantClosed fails the test unless the gate is closed for about d.
func wantClosed(t *testing.T, g *Gate, d time.Duration) {
	t.Helper()
	var closed *ClosedError
	if _, err := g.Enter(t.Context()); !errors.As(err, &closed) {
		t.Fatalf("Enter: %v, want a ClosedError", err)
	}
	if got := time.Until(closed.Until); got < d || got > d+d/8+time.Nanosecond {
		t.Errorf("closed for %v, want %v and at most an eighth more", got, d)
	}
}

func TestGateOpensByOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Backoff{First: time.Minute, Most: time.Hour}, time.Now)
		if !enter(t, g).Refused(0, "limit reached") {
			t.Error("first refusal is no news")
		}
		wantClosed(t, g, time.Minute)
		var probes, passed atomic.Int32
		for range 10 { // intervals
			time.Sleep(70 * time.Second)
			var wg sync.WaitGroup
			before := probes.Load()
			for range 100 {
				wg.Go(func() {
					p, err := g.Enter(t.Context())
					if err != nil {
						return
					}
					passed.Add(1)
					if p.Probe() {
						probes.Add(1)
						time.Sleep(time.Second)
						p.Refused(time.Minute, "limit reached")
					}
				})
			}
			wg.Wait()
			if n := probes.Load() - before; n != 1 {
				t.Fatalf("%d probes in an interval, want 1", n)
			}
		}
		if n := passed.Load(); n != 10 {
			t.Errorf("%d requests passed, want the 10 probes", n)
		}
	})
}

func TestThoseWhoWaitFollowTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Backoff{First: time.Minute, Most: time.Hour}, time.Now)
		enter(t, g).Refused(time.Minute, "limit reached")
		time.Sleep(2 * time.Minute)
		probe := enter(t, g)
		if !probe.Probe() {
			t.Fatal("first pass after the pause is no probe")
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if p, err := g.Enter(t.Context()); err != nil || p.Probe() {
					t.Errorf("Enter beside the probe: %+v, %v", p, err)
				}
			})
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Enter(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Enter with a context that ends: %v", err)
		}
		probe.Through()
		wg.Wait()
		if g.Closed() != nil {
			t.Error("gate is closed after a probe got through")
		}
	})
}

func TestPausesDoubleUntilSomethingGetsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Backoff{First: 10 * time.Second, Most: time.Minute}, time.Now)
		enter(t, g).Refused(0, "limit reached")
		for _, seconds := range []int{10, 20, 40, 60, 60} {
			want := time.Duration(seconds) * time.Second
			wantClosed(t, g, want)
			time.Sleep(want * 9 / 8)
			enter(t, g).Refused(0, "limit reached")
		}
		wantClosed(t, g, time.Minute)
		time.Sleep(2 * time.Minute)
		enter(t, g).Through()
		enter(t, g).Refused(0, "limit reached")
		wantClosed(t, g, 10*time.Second)
	})
}

func TestGateIsClosedForAsLongAsTheRegistrySays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Backoff{First: time.Second, Most: time.Second}, time.Now)
		enter(t, g).Refused(time.Hour, "limit reached")
		wantClosed(t, g, time.Hour)
	})
}

func TestAnswersFromBeforeTheClosingAreOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Backoff{First: time.Minute, Most: time.Hour}, time.Now)
		var before []Pass
		for range 10 {
			before = append(before, enter(t, g))
		}
		for i, p := range before[:9] {
			if news := p.Refused(0, "limit reached"); news != (i == 0) {
				t.Errorf("refusal %d is news: %t", i, news)
			}
		}
		wantClosed(t, g, time.Minute) // and not doubled nine times
		before[9].Through()
		wantClosed(t, g, time.Minute)
	})
}

func TestUnclearProbeClosesForAsLongAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Backoff{First: time.Minute, Most: time.Hour}, time.Now)
		p := enter(t, g)
		p.Unclear() // of no probe
		enter(t, g).Refused(0, "limit reached")
		for range 3 {
			time.Sleep(2 * time.Minute)
			enter(t, g).Unclear()
			wantClosed(t, g, time.Minute)
		}
	})
}

func TestNoGateIsOpen(t *testing.T) {
	var g *Gate
	p := enter(t, g)
	p.Through()
	p.Unclear()
	if p.Refused(0, "") || p.Probe() {
		t.Error("pass of no gate has an effect")
	}
}
