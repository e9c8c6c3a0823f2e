package allowance

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/pull"
)

// as is a request of a client with terms.
func as(t *testing.T, client string, terms *Terms) context.Context {
	return As(t.Context(), context.WithValue(pull.WithClient(t.Context(), client), TermsKey{}, terms))
}

func limitOf(err error) Limit {
	var l Limit
	if errors.As(err, &l) {
		var e *pull.Error
		if errors.As(err, &e) && (e.Kind != pull.Limited || e.Detail != pull.ClientLimited || e.RetryAfter <= 0) {
			return "of no client"
		}
	}
	return l
}

func TestATeamSharesWhatOthersHaveEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{RequestsPerSecond: 2, Transfers: 2, Pulls: 4, BytesPerSecond: 1 << 20}
		for _, shared := range []bool{false, true} {
			c := New(Limits{}, nil)
			terms := &Terms{Limits: limits}
			if shared {
				terms.Name = "team"
			}
			alice, bob, other := as(t, "alice", terms), as(t, "bob", terms), as(t, "eve", nil)
			for what, take := range map[Limit]func(context.Context) error{
				ByRequests:  func(ctx context.Context) error { return c.Request(ctx, "docker.io", "a") },
				ByTransfers: func(ctx context.Context) error { _, err := c.Transfer(ctx, "docker.io", "a"); return err },
				ByPulls:     func(ctx context.Context) error { return c.Spend(ctx, "docker.io", "a") },
			} {
				most := map[Limit]int{ByRequests: 20, ByTransfers: 2, ByPulls: 4}[what]
				for i := range most {
					if err := take(alice); err != nil {
						t.Fatalf("%s %d: %v", what, i, err)
					}
				}
				if got := limitOf(take(alice)); got != what {
					t.Errorf("beyond its %s: %q", what, got)
				}
				if got := limitOf(take(bob)); (got == what) != shared {
					t.Errorf("%s of the other one, shared %t: %q", what, shared, got)
				}
				for range 2 * most {
					if err := take(other); err != nil {
						t.Fatalf("%s of who has other terms: %v", what, err)
					}
				}
				if err := take(t.Context()); err != nil {
					t.Errorf("%s of the mirror itself: %v", what, err)
				}
			}
			if (c.Pace(alice) == c.Pace(bob)) != shared || c.Pace(alice) == nil || c.Pace(other) != nil {
				t.Errorf("bytes, shared %t: %p %p %p", shared, c.Pace(alice), c.Pace(bob), c.Pace(other))
			}
			time.Sleep(time.Second)
			more := 0
			for c.Request(alice, "", "") == nil {
				more++
			}
			if more != 2 {
				t.Errorf("a second later there are %d requests more, want 2", more)
			}
		}
	})
}

func TestTransfersEnd(t *testing.T) {
	c := New(Limits{Transfers: 1}, nil)
	ctx := pull.WithClient(t.Context(), "10.0.0.7")
	for range 3 {
		ended, err := c.Transfer(ctx, "docker.io", "a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Transfer(ctx, "docker.io", "a"); limitOf(err) != ByTransfers {
			t.Errorf("a second transfer: %v", err)
		}
		ended()
	}
}

// A team's share is of what the registry gives, each registry for itself, and follows it.
func TestATeamHasAShareOfEachBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gives := map[string]int{"docker.io": 200, "small.lan": 2}
		c := New(Limits{}, func(upstream string) (int, time.Duration) { return gives[upstream], Window })
		team := &Terms{Name: "team", Limits: Limits{Share: 0.25}}
		alice, bob := as(t, "alice", team), as(t, "bob", team)
		spent := func(ctx context.Context, upstream string) (n int) {
			for c.Spend(ctx, upstream, "a") == nil && n < 1000 {
				n++
			}
			return n
		}
		if got := spent(alice, "docker.io"); got != 50 {
			t.Errorf("alice spends %d of 200, want 50", got)
		}
		if got := limitOf(c.Spend(bob, "docker.io", "a")); got != ByShare {
			t.Errorf("bob is limited by %q, want the share", got)
		}
		if got := spent(bob, "small.lan"); got != 1 {
			t.Errorf("bob spends %d of 2, want one at least", got)
		}
		if got := spent(bob, "ghcr.io"); got != 1000 {
			t.Errorf("bob spends %d where nothing is known of a limit", got)
		}
		time.Sleep(Window / 5)
		if got := spent(bob, "docker.io"); got != 10 {
			t.Errorf("after a fifth of the time there are %d more, want 10", got)
		}
		gives["docker.io"] = 400
		if got := spent(alice, "docker.io"); got != 100 {
			t.Errorf("of another plan alice spends %d, want 100", got)
		}
	})
}
