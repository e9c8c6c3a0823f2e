package governor

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/wire"
)

func said(limit, remaining int64, window time.Duration) wire.RateLimit {
	return wire.RateLimit{Limit: limit, Remaining: remaining, Window: window, Source: "203.0.113.7"}
}

func TestNothingSaidIsUnlimited(t *testing.T) {
	var a Account
	if a.Low(1, time.Now()) {
		t.Error("Low before anything was said")
	}
	if s := a.Statement(time.Now()); s.Limit != -1 || s.Remaining != -1 || !s.RunsOut.IsZero() {
		t.Errorf("Statement = %+v", s)
	}
}

func TestLastShareIsOfWholePulls(t *testing.T) {
	for _, tc := range []struct {
		limit, remaining int64
		want             bool
	}{{100, 6, false}, {100, 5, true}, {100, 1, true}, {20, 1, true}, {20, 2, false}, {10, 1, false}, {1, 1, false}} {
		var a Account
		a.See(said(tc.limit, tc.remaining, time.Hour), a.Asking(), time.Now())
		if got := a.AtLast(0.05, time.Now()); got != tc.want {
			t.Errorf("%d of %d left: %t, want %t", tc.remaining, tc.limit, got, tc.want)
		}
	}
}

func TestLow(t *testing.T) {
	for _, test := range []struct {
		what    string
		said    wire.RateLimit
		reserve float64
		age     time.Duration
		want    bool
	}{
		{"above the reserve", said(100, 20, time.Hour), 0.2, 0, false},
		{"below the reserve", said(100, 19, time.Hour), 0.2, 0, true},
		{"nothing left", said(100, 0, time.Hour), 0.2, 0, true},
		{"no reserve", said(100, 0, time.Hour), 0, 0, false},
		{"word of some minutes ago", said(100, 5, time.Hour), 0.2, 5 * time.Minute, true},
		{"word too old to be believed", said(100, 5, time.Hour), 0.2, 6 * time.Minute, false},
		{"six hours", said(100, 5, 6*time.Hour), 0.2, 30 * time.Minute, true},
		{"no window", said(100, 5, 0), 0.2, 30 * time.Second, true},
		{"no window, long ago", said(100, 5, 0), 0.2, time.Minute, false},
		{"only a remainder", said(-1, 5, 0), 0.2, 0, false},
		{"only a remainder of nothing", said(-1, 0, 0), 0.2, 0, true},
		{"only a limit", said(100, -1, time.Hour), 0.2, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var a Account
			a.See(test.said, a.Asking(), time.Now())
			time.Sleep(test.age)
			if got := a.Low(test.reserve, time.Now()); got != test.want {
				t.Errorf("%s: Low = %t, want %t", test.what, got, test.want)
			}
		})
	}
}

func TestWindowIsFollowedInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Account
		pull := func(limit, remaining int64, window time.Duration) {
			a.Spend("10.0.0.1", "library/nginx", time.Now())
			a.See(said(limit, remaining, window), a.Asking(), time.Now())
		}
		pull(100, 99, 6*time.Hour)
		time.Sleep(2 * time.Hour)
		pull(100, 98, 6*time.Hour)
		want := time.Now().Add(4 * time.Hour)
		if s := a.Statement(time.Now()); !s.Returns.Equal(want) || s.Window != 6*time.Hour || len(s.Spent) != 1 || s.Spent[0].Pulls != 2 {
			t.Errorf("Statement = %+v, want two pulls and more at %v", s, want)
		}
		pull(10, 9, time.Hour) // what was pulled two hours ago is over
		if s := a.Statement(time.Now()); s.Limit != 10 || s.Window != time.Hour || s.Spent[0].Pulls != 1 || s.Elsewhere != 0 {
			t.Errorf("Statement = %+v, want one pull of ten in an hour", s)
		}
	})
}

func TestStatementSaysWhoSpentIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Account
		left := int64(100)
		pull := func(client, repo string, times int) {
			for range times {
				left--
				a.Spend(client, repo, time.Now())
				a.See(said(100, left, time.Hour), a.Asking(), time.Now())
			}
		}
		pull("10.0.0.1", "library/nginx", 3)
		pull("10.0.0.2", "library/nginx", 5)
		pull("", "library/alpine", 2)
		left -= 7 // somebody else behind the same address
		a.See(said(100, left, time.Hour), a.Asking(), time.Now())
		want := []Spending{
			{"10.0.0.2", "library/nginx", 5}, {"10.0.0.1", "library/nginx", 3}, {"", "library/alpine", 2},
		}
		s := a.Statement(time.Now())
		if diff := cmp.Diff(want, s.Spent); diff != "" || s.Elsewhere != 7 {
			t.Errorf("Spent (-want +got):\n%s\nElsewhere = %d, want 7", diff, s.Elsewhere)
		}
		time.Sleep(59 * time.Minute)
		a.See(said(100, 99, time.Hour), a.Asking(), time.Now()) // the window began anew
		if s := a.Statement(time.Now()); len(s.Spent) != 1 || s.Elsewhere != 0 {
			t.Errorf("after a new window: %+v, want one pull", s)
		}
		time.Sleep(2 * time.Minute)
		if s := a.Statement(time.Now()); len(s.Spent) != 0 {
			t.Errorf("after the window: %+v, want none", s.Spent)
		}
	})
}

func TestForecast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Account
		first := time.Now()
		for i := range 40 { // one each 30 s: 120 an hour
			a.Spend("10.0.0.1", "library/nginx", time.Now())
			a.See(said(100, int64(99-i), time.Hour), a.Asking(), time.Now())
			time.Sleep(30 * time.Second)
		}
		s := a.Statement(time.Now())
		if math.Abs(s.Rate-120) > 12 {
			t.Errorf("Rate = %v an hour, want about 120", s.Rate)
		}
		if got := time.Until(s.RunsOut); got < 27*time.Minute || got > 33*time.Minute {
			t.Errorf("runs out in %v, want about half an hour: 60 left", got)
		}
		if want := first.Add(time.Hour); !s.Returns.Equal(want) {
			t.Errorf("Returns = %v, want %v", s.Returns, want)
		}
		time.Sleep(20 * time.Minute) // nobody pulls
		if s := a.Statement(time.Now()); s.Rate != 0 || !s.RunsOut.IsZero() {
			t.Errorf("idle: Rate %v, RunsOut %v; want none", s.Rate, s.RunsOut)
		}
		time.Sleep(time.Hour)
		if s := a.Statement(time.Now()); !s.Returns.IsZero() {
			t.Errorf("after the window: Returns = %v, want none", s.Returns)
		}
	})
}

func TestManyPullsAreBounded(t *testing.T) {
	var a Account
	now := time.Now()
	for i := range 3 * spentMost {
		a.Spend("10.0.0.1", "library/nginx", now)
		a.See(said(1e6, int64(1e6-i), time.Hour), a.Asking(), now)
	}
	if n := len(a.spent); n > spentMost {
		t.Errorf("%d pulls are remembered, want at most %d", n, spentMost)
	}
}

func TestAnswerFromBeforeAPullIsNotBelieved(t *testing.T) {
	var a Account
	now := time.Now()
	a.See(said(10, 5, time.Hour), a.Asking(), now)
	late := a.Asking()
	a.Spend("10.0.0.1", "library/app", now)
	a.See(said(10, 4, time.Hour), a.Asking(), now)
	a.See(said(10, 5, time.Hour), late, now) // it was counted before the pull was
	if got := a.Statement(now).Remaining; got != 4 {
		t.Errorf("Remaining = %d after an answer from before the last pull, want 4", got)
	}
	a.See(said(10, 2, time.Hour), late, now) // others have spent: what is worse is always believed
	a.See(said(10, 9, time.Hour), a.Asking(), now)
	if got := a.Statement(now).Remaining; got != 9 {
		t.Errorf("Remaining = %d after the window began anew, want 9", got)
	}
}
