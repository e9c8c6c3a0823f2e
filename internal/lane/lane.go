// Package lane bounds how much goes on at once for one registry, and who waits for it.
//
// It promises that clients take turns: who has a thousand requests waiting waits behind his
// own, and everybody else behind one of them. What waits is bounded too, for each client and
// in all, since anybody may ask for what does not exist.
package lane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"forebay/internal/pull"
)

const (
	// waitingMost bounds who waits in one lane. At a few kilobytes each that is some 40 MB.
	waitingMost = 2048
	// clientMost bounds those of one client. A node of a hundred pods asks for some 300 blobs
	// at once when it starts; behind a child mirror stand several nodes.
	clientMost = 512
)

var (
	// ErrFull: as many wait already as may.
	ErrFull = errors.New("too many requests wait already")
	// ErrUnwanted: everybody who wanted the answer has left before the request's turn came.
	ErrUnwanted = fmt.Errorf("nobody waits for it any more: %w", context.Canceled)
)

// Lane is a bounded number of places. Those who wait get the next free one by turns of their
// clients (see [pull.Client]), each client's in the order in which they came. Its methods may
// be called concurrently.
type Lane struct {
	places int

	mu      sync.Mutex
	free    int                        // guarded by mu
	extra   int                        // guarded by mu; how many more may be taken by EnterExtra
	waiting int                        // guarded by mu; over all clients
	queues  map[string][]chan struct{} // guarded by mu; of clients who wait; closed when a place is handed over
	turns   []string                   // guarded by mu; the clients in queues, whose turn is next first
}

// New returns a lane of so many places, all free.
func New(places int) *Lane {
	return &Lane{places: places, free: places, extra: places / 2, queues: map[string][]chan struct{}{}}
}

// Used returns how many places are taken.
func (l *Lane) Used() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.places - l.free
}

// Enter waits for a place, in the name of the client of ctx. After nil its caller must call
// Leave. The error is [ErrFull] at once, or why it was given up: [ErrUnwanted] or ctx's cause.
func (l *Lane) Enter(ctx context.Context) error {
	client := pull.Client(ctx)
	l.mu.Lock()
	if l.free > 0 && l.waiting == 0 {
		l.free--
		l.mu.Unlock()
		return nil
	}
	queue := l.queues[client]
	if l.waiting >= waitingMost || len(queue) >= clientMost {
		l.mu.Unlock()
		return ErrFull
	}
	turn := make(chan struct{})
	if len(queue) == 0 {
		l.turns = append(l.turns, client)
	}
	l.queues[client] = append(queue, turn)
	l.waiting++
	l.mu.Unlock()
	var err error
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-pull.Unwanted(ctx):
		err = ErrUnwanted
	}
	if !l.giveUp(client, turn) {
		l.Leave() // the place was handed over meanwhile
	}
	return err
}

// giveUp takes one who waits out of its queue; false if it does not wait there any more.
func (l *Lane) giveUp(client string, turn chan struct{}) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.queues[client], turn)
	if i < 0 {
		return false
	}
	l.take(client, i)
	return true
}

// take takes the i-th of a client's out of its queue. l.mu is held.
func (l *Lane) take(client string, i int) {
	l.waiting--
	queue := slices.Delete(l.queues[client], i, i+1)
	if len(queue) > 0 {
		l.queues[client] = queue
		return
	}
	delete(l.queues, client)
	if at := slices.Index(l.turns, client); at >= 0 {
		l.turns = slices.Delete(l.turns, at, at+1)
	}
}

// Leave gives a place to the first of the client whose turn it is, or back.
func (l *Lane) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == 0 {
		l.free++
		return
	}
	client := l.turns[0]
	turn := l.queues[client][0]
	l.turns = append(l.turns[1:], client) // the last in turn, if it waits for more
	l.take(client, 0)
	close(turn)
}

// EnterExtra takes a place that nobody waits for, of at most half of all. Its caller must
// call LeaveExtra if it was to be had.
func (l *Lane) EnterExtra() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free == 0 || l.extra == 0 || l.waiting > 0 {
		return false
	}
	l.free--
	l.extra--
	return true
}

// LeaveExtra gives back what EnterExtra took.
func (l *Lane) LeaveExtra() {
	l.mu.Lock()
	l.extra++
	l.mu.Unlock()
	l.Leave()
}

// Crowded reports whether somebody waits for a place.
func (l *Lane) Crowded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting > 0
}
