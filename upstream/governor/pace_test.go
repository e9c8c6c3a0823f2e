package governor

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPaceIsLearnedFromRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(time.Now)
		for range 1000 {
			if err := p.Enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := p.Refused(0); n != 800 {
			t.Errorf("after a refusal of the 1000th request %d are sent in a minute, want 800", n)
		}
		var closed *ClosedError
		if err := p.Enter(t.Context()); !errors.As(err, &closed) || time.Until(closed.Until) > time.Minute {
			t.Errorf("the next request: %v, want to be told when", err)
		}
		time.Sleep(time.Until(closed.Until))
		start, sent := time.Now(), 0
		for time.Since(start) < time.Minute {
			if p.Enter(t.Context()) == nil {
				sent++
			} else {
				time.Sleep(time.Second)
			}
		}
		if sent < 700 || sent > 900 {
			t.Errorf("%d requests were sent in the next minute, want about 800", sent)
		}
		if n := p.Refused(100); n != 80 {
			t.Errorf("where 100 are allowed %d are sent, want 80", n)
		}
		if n := p.Refused(1); n != paceLeast {
			t.Errorf("where one is allowed %d are sent, want %d: others may share our address", n, paceLeast)
		}
		time.Sleep(time.Hour + time.Second)
		for range 10_000 {
			if err := p.Enter(t.Context()); err != nil {
				t.Fatalf("an hour later: %v", err)
			}
		}
	})
}

func TestPaceOfFewIsNotLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(time.Now)
		for range paceLeast - 1 {
			_ = p.Enter(t.Context())
		}
		if n := p.Refused(0); n != 0 {
			t.Errorf("a refusal of the %dth request in a minute is taken for a rate of %d", paceLeast-1, n)
		}
		for range 1000 {
			if err := p.Enter(t.Context()); err != nil {
				t.Fatalf("after a refusal that was not of our rate: %v", err)
			}
		}
	})
}

func TestPaceGrowsTheFasterTheLongerNothingIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(time.Now)
		inAMinute := func() (n int) {
			time.Sleep(paceWindow * time.Second)
			for p.Enter(t.Context()) == nil {
				n++
			}
			return n
		}
		for range paceLeast {
			_ = p.Enter(t.Context())
		}
		p.Refused(0)
		if n := inAMinute(); n < paceLeast || n > 70 {
			t.Errorf("%d requests in the second minute, want 66", n)
		}
		for range 5 {
			inAMinute()
		}
		if n := inAMinute(); n < 1000 {
			t.Errorf("%d requests in the eighth minute without a refusal: the registry takes them all", n)
		}
	})
}

func TestPaceHoldsARequestForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(time.Now)
		for range paceLeast {
			_ = p.Enter(t.Context())
		}
		p.Refused(paceLeast)
		time.Sleep((paceWindow - 2) * time.Second)
		start := time.Now()
		if err := p.Enter(t.Context()); err != nil || time.Since(start) > paceWait {
			t.Errorf("a request that fits in two seconds: %v after %s", err, time.Since(start))
		}
	})
}

func TestGatesAreByKey(t *testing.T) {
	g := NewGates(Backoff{First: time.Minute, Most: time.Minute}, time.Now)
	if g.Known("a") != nil {
		t.Error("there is a gate that nobody closed")
	}
	if !g.Refused("a", Pass{}, 0, "no") || g.Known("a").Closed() == nil || g.Of("b").Closed() != nil {
		t.Error("not the gate of a alone is closed")
	}
	for i := range gatesMost {
		g.Of(string(rune(i)) + "x")
	}
	if g.Known("a") != nil {
		t.Error("gates are not bounded")
	}
}
