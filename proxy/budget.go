package proxy

import (
	"context"
	"net"
	"sync"
	"time"

	"forebay/internal/pull"
)

// headerBudget bounds the time until the headers of an answer. dockerd, containerd up
// to 2.2, podman and CRI-O wait for headers for ever, and containerd from 2.3 on for
// 30 s; all are told something within 20 s, a second of which is the network's.
const headerBudget = 19 * time.Second

// budget is a context that ends with its parent, or at its deadline. It is a
// [context.WithDeadline] that is not made before somebody waits: a cached manifest is
// answered without a timer, which would cost it as much as the answer.
type budget struct {
	parent   context.Context
	deadline time.Time
	client   string // address and port, for pull.Client
	hops     string // mirrors that the request came through, for pull.Hops

	mu     sync.Mutex
	real   context.Context // guarded by mu; nil until somebody waits
	cancel context.CancelFunc
}

func (b *budget) made() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.real
}

func (b *budget) Deadline() (time.Time, bool) {
	if d, ok := b.parent.Deadline(); ok && d.Before(b.deadline) {
		return d, true
	}
	return b.deadline, true
}

func (b *budget) Done() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.real == nil {
		b.real, b.cancel = context.WithDeadline(b.parent, b.deadline)
	}
	return b.real.Done()
}

func (b *budget) Err() error {
	if real := b.made(); real != nil {
		return real.Err()
	}
	if err := b.parent.Err(); err != nil {
		return err
	}
	if !time.Now().Before(b.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

func (b *budget) Value(key any) any {
	if key == (pull.ClientKey{}) {
		host, _, err := net.SplitHostPort(b.client)
		if err != nil {
			return b.client
		}
		return host
	}
	if key == (pull.HopsKey{}) {
		return b.hops
	}
	// The made context answers for itself, so that its children are tied to it without
	// a goroutine each.
	if real := b.made(); real != nil {
		return real.Value(key)
	}
	return b.parent.Value(key)
}

// end lets go of the timer. Nobody waits any more.
func (b *budget) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		b.cancel()
	}
}
