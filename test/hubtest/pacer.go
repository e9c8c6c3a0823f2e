package hubtest

import (
	"context"
	"sync"
	"time"
)

// pacer limits a flow of bytes. Its zero value is ready.
type pacer struct {
	mu   sync.Mutex
	next time.Time // when the next byte may go
}

// overslept bounds what a flow may catch up: timers and a busy machine wake a sender late,
// a millisecond each time, which would make one connection slower than its rate and
// several together not. A flow that paused for longer starts anew.
const overslept = 50 * time.Millisecond

// wait books n bytes at rate bytes per second and returns when they may go.
func (p *pacer) wait(ctx context.Context, n, rate int64) error {
	now := time.Now()
	p.mu.Lock()
	if p.next.Before(now.Add(-overslept)) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	until := p.next
	p.mu.Unlock()
	return pause(ctx, until.Sub(now))
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
