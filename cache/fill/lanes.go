package fill

import (
	"context"
	"slices"
	"sync"
)

// Lanes bounds the connections for blobs to one upstream over all fills, fairly: those
// who wait get the next free one in turn, connections beyond a fill's first are given
// only from what nobody waits for and at most half of all, and a long transfer makes way
// at the end of a piece while others wait.
type Lanes struct {
	mu      sync.Mutex
	free    int             // guarded by mu
	extra   int             // guarded by mu; how many more may be beyond a fill's first
	waiting []chan struct{} // guarded by mu; closed when a place is handed over
}

// NewLanes returns lanes for so many connections at once.
func NewLanes(connections int) *Lanes {
	return &Lanes{free: connections, extra: connections / 2}
}

// enter waits for a place. Its caller must call leave.
func (l *Lanes) enter(ctx context.Context) error {
	l.mu.Lock()
	if l.free > 0 && len(l.waiting) == 0 {
		l.free--
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	l.waiting = append(l.waiting, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	i := slices.Index(l.waiting, turn)
	if i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
	l.mu.Unlock()
	if i < 0 {
		l.leave() // it was handed over meanwhile
	}
	return ctx.Err()
}

// leave gives a place to the first who waits, or back.
func (l *Lanes) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
		return
	}
	l.free++
}

// enterExtra takes a place beyond a fill's first, if there is one to spare. Its caller
// must call leaveExtra.
func (l *Lanes) enterExtra() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free == 0 || l.extra == 0 || len(l.waiting) > 0 {
		return false
	}
	l.free--
	l.extra--
	return true
}

func (l *Lanes) leaveExtra() {
	l.mu.Lock()
	l.extra++
	l.mu.Unlock()
	l.leave()
}

// crowded reports whether somebody waits for a place.
func (l *Lanes) crowded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) > 0
}
