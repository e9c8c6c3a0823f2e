package cache

import (
	"context"
	"sync"

	"forebay/internal/pull"
	"forebay/internal/tracing"
)

// flights makes one call of any number of concurrent ones with the same key. The call
// runs under the group's own context, so it outlives the callers that leave, and every
// caller gets the same answer: value or error. The zero value is not usable: set ctx.
type flights[T any] struct {
	ctx context.Context // life of the cache; the one context kept, as the calls' owner
	wg  *sync.WaitGroup // counts running calls

	mu    sync.Mutex
	calls map[string]*call[T] // guarded by mu
}

type call[T any] struct {
	done  chan struct{} // closed when value and err are set
	value T
	err   error
}

// do returns fn's answer, joining a call of the same key in progress. It returns early
// with ctx's error when ctx ends; the call goes on.
func (g *flights[T]) do(ctx context.Context, key string, fn func(context.Context) (T, error)) (value T, joined bool, err error) {
	g.mu.Lock()
	c, joined := g.calls[key]
	if !joined {
		if err := g.ctx.Err(); err != nil {
			g.mu.Unlock()
			return value, false, err
		}
		c = &call[T]{done: make(chan struct{})}
		if g.calls == nil {
			g.calls = make(map[string]*call[T])
		}
		g.calls[key] = c
		// The call is let go of its first caller here: it belongs to the group. Only the
		// name of its client goes along, to whom it is charged, the mirrors that it came through, and its trace.
		on := tracing.Carry(pull.WithHops(pull.WithClient(g.ctx, pull.Client(ctx)), pull.Hops(ctx)), ctx)
		g.wg.Go(func() { g.run(on, key, c, fn) })
	}
	g.mu.Unlock()
	select {
	case <-c.done:
		return c.value, joined, c.err
	case <-ctx.Done():
		return value, joined, ctx.Err()
	}
}

// running reports whether a call of that key is in progress.
func (g *flights[T]) running(key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.calls[key]
	return ok
}

func (g *flights[T]) run(ctx context.Context, key string, c *call[T], fn func(context.Context) (T, error)) {
	c.value, c.err = fn(ctx)
	g.mu.Lock()
	delete(g.calls, key)
	g.mu.Unlock()
	close(c.done)
}
