package governor

import (
	"testing"
	"testing/synctest"
	"time"
)

// wantTurns asks n times at once and counts the turns.
func wantTurns(t *testing.T, b *Breaker, first, later, never int) {
	t.Helper()
	got := map[Turn]int{}
	for range first + later + never {
		got[b.Turn(time.Now())]++
	}
	if got[First] != first || got[Later] != later || got[Never] != never {
		t.Errorf("turns are %d first, %d later, %d never; want %d, %d, %d",
			got[First], got[Later], got[Never], first, later, never)
	}
}

func TestFailedEndpointIsLastForAWhileAndThenProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		wantTurns(t, &b, 3, 0, 0)
		b.Cool(time.Now())
		wantTurns(t, &b, 0, 3, 0)
		time.Sleep(coolDown)
		wantTurns(t, &b, 1, 9, 0)
		b.Good()
		wantTurns(t, &b, 3, 0, 0)
	})
}

func TestBreakerOpensAfterLastingFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		for range 50 { // of one moment
			if b.Bad(time.Now(), time.Now(), "reset") {
				t.Fatal("a moment's failures opened it")
			}
		}
		start := time.Now()
		time.Sleep(tripOver)
		if !b.Bad(start, time.Now(), "refused") {
			t.Fatal("lasting failures did not open it")
		}
		if h := b.Health(); !h.Open || h.Failures != 51 || h.Last != "refused" {
			t.Errorf("Health = %+v", h)
		}
		wantTurns(t, &b, 0, 0, 5)
		for _, pause := range []int{2, 4, 8, 16, 16} {
			time.Sleep(time.Duration(pause) * time.Second)
			wantTurns(t, &b, 1, 0, 9)
			probe := time.Now()
			time.Sleep(time.Second)
			b.Bad(probe, time.Now(), "refused")
			b.Bad(start, time.Now(), "refused") // was still on its way
		}
		time.Sleep(tripMost)
		wantTurns(t, &b, 1, 0, 1)
		b.Good()
		wantTurns(t, &b, 5, 0, 0)
	})
}

func TestHangsCountFromWhenTheyBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		start := time.Now()
		time.Sleep(10 * time.Second)
		opened := false
		for range tripAfter {
			opened = b.Bad(start, time.Now(), "no answer")
		}
		if !opened {
			t.Error("hanging requests of ten seconds did not open it")
		}
	})
}

func TestSuccessInBetweenKeepsItClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		for range 20 {
			for range tripAfter - 1 {
				if b.Bad(time.Now(), time.Now(), "503") {
					t.Fatal("opened")
				}
				time.Sleep(time.Second)
			}
			b.Good()
		}
	})
}
