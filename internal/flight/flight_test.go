package flight

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newGroup(life context.Context) *Group[string, int] {
	return &Group[string, int]{Life: life, Work: new(sync.WaitGroup)}
}

func TestManyCallersMakeOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t.Context())
		calls, release := 0, make(chan struct{})
		fn := func(context.Context) (int, error) {
			calls++
			<-release
			return 42, nil
		}
		var joins int
		var mu sync.Mutex
		var callers sync.WaitGroup
		for range 10 {
			callers.Go(func() {
				v, joined, err := g.Do(t.Context(), "a", fn)
				if v != 42 || err != nil {
					t.Errorf("Do = %d, %v, want 42, nil", v, err)
				}
				mu.Lock()
				defer mu.Unlock()
				if joined {
					joins++
				}
			})
		}
		synctest.Wait()
		if !g.Running("a") || g.Running("b") {
			t.Errorf("Running(a), Running(b) = %t, %t, want true, false", g.Running("a"), g.Running("b"))
		}
		close(release)
		callers.Wait()
		g.Work.Wait()
		if calls != 1 || joins != 9 {
			t.Errorf("10 callers made %d calls and %d joined, want 1 and 9", calls, joins)
		}
		if g.Running("a") {
			t.Error("Running(a) = true after its end")
		}
		if _, joined, _ := g.Do(t.Context(), "a", fn); joined || calls != 2 {
			t.Errorf("a later caller joined: %t, calls = %d, want a second call", joined, calls)
		}
	})
}

func TestAnErrorOfAnotherIsAskedForAgainOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t.Context())
		foreign := errors.New("only about who began")
		g.Foreign = func(err error) bool { return errors.Is(err, foreign) }
		calls, release := 0, make(chan struct{})
		var mu sync.Mutex
		failing := func(context.Context) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			calls++
			return 0, foreign
		}
		var callers sync.WaitGroup
		callers.Go(func() {
			_, _, err := g.Do(t.Context(), "a", func(ctx context.Context) (int, error) { <-release; return failing(ctx) })
			if !errors.Is(err, foreign) {
				t.Errorf("who began gets %v, want its error", err)
			}
		})
		synctest.Wait()
		callers.Go(func() {
			v, joined, err := g.Do(t.Context(), "a", func(context.Context) (int, error) { return 7, nil })
			if v != 7 || joined || err != nil {
				t.Errorf("who joined gets %d, %t, %v, want 7 of a call of its own", v, joined, err)
			}
		})
		synctest.Wait()
		close(release)
		callers.Wait()
		// All have the same trouble: the joined ones make one call more, and no endless row of them.
		calls, release = 0, make(chan struct{})
		hang := release
		for range 5 {
			callers.Go(func() {
				_, _, err := g.Do(t.Context(), "b", func(ctx context.Context) (int, error) { <-hang; return failing(ctx) })
				if !errors.Is(err, foreign) {
					t.Errorf("Do = %v, want %v", err, foreign)
				}
			})
		}
		synctest.Wait()
		close(release)
		callers.Wait()
		g.Work.Wait()
		if calls < 2 || calls > 5 {
			t.Errorf("5 callers made %d calls, want one, and at most one more for each who joined", calls)
		}
	})
}

func TestEverybodyGetsTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, broken, release := newGroup(t.Context()), errors.New("broken"), make(chan struct{})
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				_, _, err := g.Do(t.Context(), "a", func(context.Context) (int, error) { <-release; return 0, broken })
				if !errors.Is(err, broken) {
					t.Errorf("Do = %v, want %v", err, broken)
				}
			})
		}
		synctest.Wait()
		close(release)
		callers.Wait()
	})
}

func TestCallOutlivesItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, release, ended := newGroup(t.Context()), make(chan struct{}), false
		ctx, leave := context.WithCancel(t.Context())
		go func() {
			synctest.Wait()
			leave()
		}()
		_, _, err := g.Do(ctx, "a", func(own context.Context) (int, error) {
			<-release
			ended = own.Err() == nil
			return 0, nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Do of a caller who left = %v, want %v", err, context.Canceled)
		}
		close(release)
		g.Work.Wait()
		if !ended {
			t.Error("the call ended with its caller")
		}
	})
}

func TestStartDoesNotWait(t *testing.T) {
	g, release, got := newGroup(t.Context()), make(chan struct{}), 0
	fn := func(context.Context) (int, error) { <-release; got++; return got, nil }
	g.Start(t.Context(), "a", fn)
	g.Start(t.Context(), "a", fn)
	close(release)
	g.Work.Wait()
	if got != 1 {
		t.Errorf("two starts made %d calls, want 1", got)
	}
}

func TestNothingBeginsAfterTheEnd(t *testing.T) {
	fn := func(context.Context) (int, error) { t.Error("called"); return 0, nil }
	life, end := context.WithCancel(t.Context())
	ended, closed := newGroup(life), newGroup(t.Context())
	end()
	closed.Close()
	for name, g := range map[string]*Group[string, int]{"ended": ended, "closed": closed} {
		if _, _, err := g.Do(t.Context(), "a", fn); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Do = %v, want %v", name, err, context.Canceled)
		}
		g.Start(t.Context(), "a", fn)
		g.Work.Wait()
	}
}

type keyOfCaller struct{}

func TestCarryTakesAlongWhatTheOwnerWants(t *testing.T) {
	g := newGroup(t.Context())
	g.Carry = func(life, caller context.Context, _ <-chan struct{}) context.Context {
		return context.WithValue(life, keyOfCaller{}, caller.Value(keyOfCaller{}))
	}
	ctx := context.WithValue(t.Context(), keyOfCaller{}, 7)
	v, _, _ := g.Do(ctx, "a", func(ctx context.Context) (int, error) { return ctx.Value(keyOfCaller{}).(int), nil })
	if v != 7 {
		t.Errorf("the call saw %d of its caller, want 7", v)
	}
}

func TestCallThatNobodyWaitsForIsAbandoned(t *testing.T) {
	for _, abandons := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := newGroup(t.Context())
			g.Abandons = abandons
			var left <-chan struct{}
			g.Carry = func(life, _ context.Context, l <-chan struct{}) context.Context {
				left = l
				return life
			}
			release := make(chan struct{})
			fn := func(ctx context.Context) (int, error) {
				select {
				case <-release:
					return 1, nil
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			}
			first, leave := context.WithCancel(t.Context())
			second, leaveToo := context.WithCancel(t.Context())
			var callers sync.WaitGroup
			for _, ctx := range []context.Context{first, second} {
				callers.Go(func() { _, _, _ = g.Do(ctx, "a", fn) })
			}
			synctest.Wait()
			leave()
			synctest.Wait()
			select {
			case <-left:
				t.Error("told that all have left while one waits")
			default:
			}
			leaveToo()
			callers.Wait()
			synctest.Wait()
			select {
			case <-left:
			default:
				t.Error("not told that all have left")
			}
			if got := g.Running("a"); got == abandons {
				t.Errorf("abandons %t: the call runs = %t", abandons, got)
			}
			close(release)
			g.Work.Wait()
		})
	}
}

func TestCallerWhoComesAsACallIsAbandonedGetsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t.Context())
		g.Abandons = true
		calls, late := 0, make(chan struct{})
		fn := func(ctx context.Context) (int, error) {
			calls++
			if calls > 1 {
				return calls, nil
			}
			<-ctx.Done()
			<-late
			return 0, ctx.Err()
		}
		ctx, leave := context.WithCancel(t.Context())
		leave()
		_, _, _ = g.Do(ctx, "a", fn)
		var v int
		var err error
		var caller sync.WaitGroup
		caller.Go(func() { v, _, err = g.Do(t.Context(), "a", fn) })
		synctest.Wait()
		close(late)
		caller.Wait()
		if v != 2 || err != nil {
			t.Errorf("Do = %d, %v, want the answer of a second call", v, err)
		}
	})
}
