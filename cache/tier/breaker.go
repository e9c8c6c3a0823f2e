package tier

import (
	"context"
	"sync"
	"time"
)

const (
	// failuresMost failures in a row are the fault of the bucket and not of a request: each was tried
	// several times.
	failuresMost = 2
	// The bucket is asked again after pauseLeast, then less and less often.
	pauseLeast = time.Second
	pauseMost  = time.Minute
	// probeTick is how often somebody looks whether it is time to ask.
	probeTick = 250 * time.Millisecond
)

// breaker keeps requests from a bucket that fails.
type breaker struct {
	mu       *sync.Mutex
	failures int           // guarded by mu; in a row
	pause    time.Duration // guarded by mu; 0 while it answers
	next     time.Time     // guarded by mu; when it may be asked again
	probing  bool          // guarded by mu; somebody asks
	since    time.Time     // guarded by mu; when it began to fail
	last     error         // guarded by mu; of the last failure
	lastAt   time.Time     // guarded by mu
}

func newBreaker() breaker { return breaker{mu: new(sync.Mutex)} }

// change is what a result changed.
type change uint8

const (
	same change = iota
	opened
	closed
)

// told learns how a request ended, and returns what that changed.
func (b *breaker) told(err error, now time.Time) change {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		was := b.pause
		b.failures, b.pause, b.probing = 0, 0, false
		if was > 0 {
			return closed
		}
		return same
	}
	b.last, b.lastAt = err, now
	if b.failures++; b.failures < failuresMost {
		return same
	}
	was := b.pause
	if was == 0 {
		b.since = now
	} else if !b.probing && now.Before(b.next) {
		return same // one that was under way
	}
	b.probing = false
	b.pause = min(max(2*b.pause, pauseLeast), pauseMost)
	b.next = now.Add(b.pause)
	if was == 0 {
		return opened
	}
	return same
}

// allow reports whether a request may be made: always while the bucket answers, else one
// after each pause.
func (b *breaker) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause == 0 {
		return true
	}
	now := time.Now()
	if now.Before(b.next) {
		return false
	}
	b.next, b.probing = now.Add(b.pause), true // the next one waits for how this goes
	return true
}

// wait waits until a request may be made, and reports false if ctx was done before.
func (b *breaker) wait(ctx context.Context) bool {
	if b.allow() {
		return ctx.Err() == nil
	}
	tick := time.NewTicker(probeTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
		if b.allow() {
			return true
		}
	}
}

// open reports whether the bucket is left alone.
func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pause > 0
}

// failure returns when the last failure was, if there was one, and since when the bucket is
// left alone, zero while it is not.
func (b *breaker) failure() (at, since time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause > 0 {
		since = b.since
	}
	return b.lastAt, since, b.last
}
