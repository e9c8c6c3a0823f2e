package lane

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"forebay/internal/pull"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line is a lane of which all places are taken, and who has got one since.
type line struct {
	*Lane
	t      *testing.T
	all    sync.WaitGroup
	served []string
}

func newLine(t *testing.T, places int) *line {
	l := &line{Lane: New(places), t: t}
	for range places {
		if err := l.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// wait lets a request of a client wait for a place, which it gives back at once.
func (l *line) wait(client, name string) {
	l.all.Go(func() {
		if err := l.Enter(pull.WithClient(l.t.Context(), client)); err != nil {
			l.t.Error(err)
			return
		}
		l.served = append(l.served, name)
		l.Leave()
	})
	synctest.Wait()
}

func TestClientsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 1)
		for i := range 4 {
			l.wait("crawler", "crawler "+strconv.Itoa(i))
		}
		l.wait("node", "node 0")
		l.wait("node", "node 1")
		l.wait("other", "other 0")
		if l.EnterExtra() {
			t.Error("EnterExtra = true while others wait")
		}
		l.Leave()
		l.all.Wait()
		want := []string{"crawler 0", "node 0", "other 0", "crawler 1", "node 1", "crawler 2", "crawler 3"}
		if !slices.Equal(l.served, want) {
			t.Errorf("served %q, want %q", l.served, want)
		}
		if len(l.queues) != 0 || len(l.turns) != 0 || l.free != 1 || l.Crowded() {
			t.Errorf("left behind: %d queues, %d turns, %d free, crowded %t", len(l.queues), len(l.turns), l.free, l.Crowded())
		}
	})
}

func TestExtraPlacesAreHalf(t *testing.T) {
	l := New(4)
	if first, second, third := l.EnterExtra(), l.EnterExtra(), l.EnterExtra(); !first || !second || third {
		t.Error("want two extra places of four, and no third")
	}
	l.LeaveExtra()
	if got := l.Used(); got != 1 {
		t.Errorf("Used = %d, want 1", got)
	}
}

func TestOneClientFillsOnlyItsShareOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 1)
		ctx, stop := context.WithCancel(t.Context())
		for client := range waitingMost/clientMost + 1 {
			name := strconv.Itoa(client)
			for range clientMost {
				l.all.Go(func() { _ = l.Enter(pull.WithClient(ctx, name)) })
			}
			synctest.Wait()
			if err := l.Enter(pull.WithClient(ctx, name)); !errors.Is(err, ErrFull) {
				t.Errorf("client %d: Enter = %v, want ErrFull", client, err)
			}
		}
		if l.waiting != waitingMost {
			t.Errorf("%d wait, want %d", l.waiting, waitingMost)
		}
		stop()
		l.all.Wait()
		l.Leave()
		if l.waiting != 0 || l.free != 1 || len(l.queues) != 0 || len(l.turns) != 0 {
			t.Errorf("left behind: %d wait, %d free, %d queues, %d turns", l.waiting, l.free, len(l.queues), len(l.turns))
		}
	})
}

func TestPlaceInTheQueueIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Enter = %v, want out of time", err)
		}
		left := make(chan struct{})
		close(left)
		if err := l.Enter(pull.WithUnwanted(t.Context(), left)); !errors.Is(err, ErrUnwanted) {
			t.Errorf("Enter = %v, want ErrUnwanted", err)
		}
		l.Leave()
		if l.free != 1 || l.waiting != 0 {
			t.Errorf("%d free, %d wait, want 1, 0", l.free, l.waiting)
		}
	})
}
