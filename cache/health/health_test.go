package health

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"forebay/cache/event"
	"forebay/internal/pull"
)

var (
	errGone   = &pull.Error{Kind: pull.Unavailable, Err: syscall.ECONNREFUSED}
	errServer = &pull.Error{Kind: pull.Unavailable, Status: 500}
)

// watch returns an upstream and the kinds of events that it told.
func watch() (*Upstream, *[]event.Kind) {
	told := &[]event.Kind{}
	return &Upstream{Tell: func(e event.Event) { *told = append(*told, e.Kind) }}, told
}

func wantTold(t *testing.T, told *[]event.Kind, want ...event.Kind) {
	t.Helper()
	if fmt.Sprint(*told) != fmt.Sprint(want) {
		t.Errorf("told %v, want %v", *told, want)
	}
}

// One blob that answers 500, among what is well, makes no registry a failing one: neither beside
// much traffic, nor beside little, nor alone.
func TestOneBadBlobIsAFaultOfItsRepository(t *testing.T) {
	for _, beside := range []int{0, 1, 100} {
		t.Run(fmt.Sprint(beside), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u, told := watch()
				began := time.Now()
				for i := range 30 {
					u.Observe("team/app", "sha256:bad", errServer)
					for n := range beside {
						u.Observe("library/nginx", fmt.Sprint(i, n), nil)
					}
					time.Sleep(3 * time.Second)
				}
				r := u.Report()
				if !r.FailsFrom.IsZero() || len(r.Faults) != 1 {
					t.Fatalf("Report = %+v, want one fault of a registry that answers", r)
				}
				want := Fault{Repository: "team/app", Things: 1, Times: 30, Since: began, Words: "answers 500 Internal Server Error"}
				if r.Faults[0] != want {
					t.Errorf("fault %+v, want %+v", r.Faults[0], want)
				}
				u.Observe("team/app", "sha256:bad", nil)
				if r := u.Report(); len(r.Faults) != 0 {
					t.Errorf("faults after it came: %+v", r.Faults)
				}
				wantTold(t, told)
			})
		})
	}
}

func TestWhatNobodyAsksForAgainIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, _ := watch()
		u.Observe("a", "ok", nil)
		for range 2 {
			u.Observe("team/app", "bad", errServer)
		}
		time.Sleep(staleAfter + time.Second)
		if r := u.Report(); len(r.Faults) != 0 {
			t.Errorf("faults %+v of what was asked for long ago", r.Faults)
		}
	})
}

// A server that is gone fails with its second failure, and is back with its first answer, two
// seconds later at the latest.
func TestAServerThatIsGoneAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, told := watch()
		u.Observe("a", "x", nil)
		time.Sleep(2 * time.Minute)
		u.Observe("a", "x", errGone)
		if r := u.Report(); !r.FailsFrom.IsZero() {
			t.Error("one failure makes it fail")
		}
		u.Observe("a", "x", errGone)
		r := u.Report()
		if r.FailsFrom.IsZero() || r.Words != "refuses connections" {
			t.Errorf("Report = %+v, want a server that refuses connections", r)
		}
		time.Sleep(20 * time.Second)
		u.Observe("a", "x", errGone)
		time.Sleep(4 * time.Second)
		u.Observe("a", "x", nil)
		if r := u.Report(); !r.FailsFrom.IsZero() || len(r.Faults) > 0 {
			t.Errorf("Report after its answer = %+v", r)
		}
		wantTold(t, told, event.UpstreamFailing, event.UpstreamBack)
	})
}

// That nobody has asked for two minutes is no answer: nothing is known, and nothing is told until one comes.
func TestAServerThatNobodyAsksIsNotBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, told := watch()
		for range 3 {
			u.Observe("a", "x", errGone)
		}
		time.Sleep(staleAfter + time.Second)
		if r := u.Report(); !r.FailsFrom.IsZero() {
			t.Errorf("Report = %+v of what nobody has asked", r)
		}
		wantTold(t, told, event.UpstreamFailing)
		u.Observe("a", "x", errGone)
		if r := u.Report(); r.FailsFrom.IsZero() {
			t.Error("it fails, and is called well")
		}
		time.Sleep(staleAfter + time.Second)
		u.Observe("a", "x", nil)
		wantTold(t, told, event.UpstreamFailing, event.UpstreamBack)
	})
}

// Half of the requests fail for a while: that is one outage, and no flapping.
func TestAnUpstreamThatWaversIsToldOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, told := watch()
		for i := range 2000 {
			err := error(nil)
			if i*7%10 < 6 {
				err = errServer
			}
			u.Observe("a", fmt.Sprint(i), err)
			time.Sleep(50 * time.Millisecond)
			u.Report()
		}
		wantTold(t, told, event.UpstreamFailing)
		for range 160 {
			u.Observe("a", "well", nil)
			time.Sleep(50 * time.Millisecond)
			u.Report()
		}
		wantTold(t, told, event.UpstreamFailing, event.UpstreamBack)
	})
}

// What a registry says of content or rights, and its limits, are answers.
func TestAnswersAreNoFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, told := watch()
		for _, kind := range []pull.Kind{pull.NotFound, pull.Denied, pull.Limited, pull.Unsupported, pull.Overloaded} {
			for i := range 5 {
				u.Observe("a", fmt.Sprint(i), &pull.Error{Kind: kind})
			}
		}
		if r := u.Report(); !r.FailsFrom.IsZero() || r.Bad != 0 || len(r.Faults) > 0 {
			t.Errorf("Report = %+v", r)
		}
		wantTold(t, told, event.Limited)
		u.Observe("a", "x", errors.New("nobody classified it"))
		if r := u.Report(); r.Bad != 1 {
			t.Errorf("%d failures, want that which nobody classified", r.Bad)
		}
	})
}
