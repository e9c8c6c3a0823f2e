package trouble

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/cache/store"
)

// What is short is not told, what comes and goes is told once, and each beginning has its end.
func TestTroublesAreToldInPairs(t *testing.T) {
	var got []string
	w := New(Sources{Tell: func(t Trouble, ended bool) {
		state := " began"
		if ended {
			state = " ended"
		}
		got = append(got, string(t.Kind)+state)
	}})
	start := time.Now()
	full := func(from, to int, wrong func(second int) bool) {
		for second := from; second < to; second++ {
			e := evidence{now: start.Add(time.Duration(second) * time.Second), notices: []string{"listen: whoever reaches it can pull"}}
			if wrong(second) {
				e.stats.Troubles = []store.Trouble{{What: store.Writing, Cause: "full", Since: start.Add(time.Duration(from) * time.Second)}}
			}
			w.judge(&e)
		}
	}
	full(0, 10, func(int) bool { return true })
	full(10, 60, func(int) bool { return false })
	if len(got) != 0 {
		t.Errorf("of ten seconds of trouble and of a notice was told %v, want nothing", got)
	}
	full(60, 90, func(int) bool { return true })
	full(90, 120, func(second int) bool { return second%8 < 4 })
	if diff := cmp.Diff([]string{"disk began"}, got); diff != "" {
		t.Errorf("while it comes and goes (-want +got)\n%s", diff)
	}
	full(120, 160, func(int) bool { return false })
	if diff := cmp.Diff([]string{"disk began", "disk ended"}, got); diff != "" {
		t.Errorf("told (-want +got)\n%s", diff)
	}
}
