// Package flight makes one call out of many that ask for the same thing at the same time.
//
// It promises that at most one call of a key is in progress, and that everybody who asked
// meanwhile gets its answer: value or error. The call belongs to the group and not to the
// caller who came first, so it goes on when he leaves. Values are shared by all callers: they
// must not change them.
package flight

import (
	"context"
	"errors"
	"sync"
)

// Group is a set of calls that are told apart by their keys. Life and Work are required.
type Group[K comparable, T any] struct {
	// Life is the context of the calls: they end with it, and none begins after it.
	Life context.Context
	// Work counts the calls in progress, so that the owner can wait for them.
	Work *sync.WaitGroup
	// Carry adds to life what goes along from the caller who begins a call, such as its
	// trace. left is closed when all who wait for the call have gone. nil: nothing goes along.
	Carry func(life, caller context.Context, left <-chan struct{}) context.Context
	// Foreign reports whether an error is about the caller who began a call alone. Whoever joined
	// it asks once more then. nil: none is.
	Foreign func(err error) bool
	// Abandons ends the context of a call when all who wait for it have gone.
	Abandons bool

	mu     sync.Mutex
	calls  map[K]*call[T] // in progress; guarded by mu
	closed bool           // guarded by mu
}

// call is one call in progress. Its value and err are set before done is closed.
type call[T any] struct {
	done  chan struct{}
	value T
	err   error

	callers int           // who wait; guarded by the group's mu
	left    chan struct{} // closed when there are none any more; nil from then on; guarded likewise
	cancel  context.CancelFunc
}

// Do returns the answer of fn, or that of a call of the same key in progress, which it has
// then joined. It returns ctx's error as soon as ctx ends; the call goes on unless the group
// abandons it.
func (g *Group[K, T]) Do(ctx context.Context, key K, fn func(context.Context) (T, error)) (value T, joined bool, err error) {
	again := false
	for {
		c, joined, err := g.begin(ctx, key, fn)
		if err != nil {
			return value, false, err
		}
		select {
		case <-c.done:
			foreign := !again && g.Foreign != nil && g.Foreign(c.err)
			if joined && (foreign || errors.Is(c.err, context.Canceled)) && ctx.Err() == nil && g.Life.Err() == nil {
				again = again || foreign
				continue // no answer to this caller, or given up for the lack of callers as it came
			}
			return c.value, joined, c.err
		case <-ctx.Done():
			g.leave(c)
			return value, joined, ctx.Err()
		}
	}
}

// Start is Do for a caller who does not wait for the answer. The call goes on to its end.
func (g *Group[K, T]) Start(ctx context.Context, key K, fn func(context.Context) (T, error)) {
	_, _, _ = g.begin(ctx, key, fn) // fails only when Life has ended, and then nobody needs it
}

// leave takes off a caller who does not wait any more.
func (g *Group[K, T]) leave(c *call[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.callers--; c.callers > 0 || c.left == nil {
		return
	}
	close(c.left)
	c.left = nil
	if g.Abandons {
		c.cancel()
	}
}

// Running reports whether a call of that key is in progress.
func (g *Group[K, T]) Running(key K) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.calls[key]
	return ok
}

// Close lets no further call begin. An owner who does not know whether anybody still asks
// must call it before it waits for Work.
func (g *Group[K, T]) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// begin returns the call of that key in progress, or a new one.
func (g *Group[K, T]) begin(ctx context.Context, key K, fn func(context.Context) (T, error)) (c *call[T], joined bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, joined = g.calls[key]; joined {
		c.callers++
		return c, true, nil
	}
	if err := g.Life.Err(); err != nil {
		return nil, false, err
	}
	if g.closed {
		return nil, false, context.Canceled
	}
	c = &call[T]{done: make(chan struct{}), callers: 1, left: make(chan struct{})}
	if g.calls == nil {
		g.calls = make(map[K]*call[T])
	}
	g.calls[key] = c
	// The call is let go of its first caller here: it has the group's context.
	life := g.Life
	if g.Carry != nil {
		life = g.Carry(life, ctx, c.left)
	}
	life, c.cancel = context.WithCancel(life)
	g.Work.Go(func() { g.run(life, key, c, fn) })
	return c, false, nil
}

func (g *Group[K, T]) run(ctx context.Context, key K, c *call[T], fn func(context.Context) (T, error)) {
	defer c.cancel()
	c.value, c.err = fn(ctx)
	g.mu.Lock()
	delete(g.calls, key)
	g.mu.Unlock()
	close(c.done)
}
