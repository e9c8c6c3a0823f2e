package upstream

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// politeWait is the longest Retry-After that is waited for. A longer one is for the
	// caller to decide on.
	politeWait = 3 * time.Second
	// coolDown is for how long an endpoint that failed is tried after the others.
	coolDown = 10 * time.Second
)

// retrying asks the endpoints in order, and all of them again after a pause, while that
// may help.
func (r *Registry) retrying(ctx context.Context, a *ask) (*answer, *failure) {
	for n := 1; ; n++ {
		var last *failure
		for _, e := range r.candidates(a) {
			ans, fail := r.attempt(ctx, e, a)
			if fail == nil {
				e.coolUntil.Store(0)
				return ans, nil
			}
			if !fail.elsewhere {
				return nil, fail
			}
			e.coolUntil.Store(time.Now().Add(coolDown).UnixNano())
			last = better(last, fail)
		}
		if !last.again || !r.pause(ctx, n, last) {
			return nil, last
		}
	}
}

// better returns which of the failures of two endpoints says more: one that can be
// retried, else the first, which is the one that the operator prefers.
func better(first, second *failure) *failure {
	if first == nil || (second.again && !first.again) {
		return second
	}
	return first
}

// candidates returns the endpoints to try, those that failed lately last.
func (r *Registry) candidates(a *ask) []*endpoint {
	if a.from != nil {
		return []*endpoint{a.from}
	}
	if len(r.endpoints) == 1 {
		return r.endpoints
	}
	now := time.Now().UnixNano()
	list := slices.Clone(r.endpoints)
	slices.SortStableFunc(list, func(x, y *endpoint) int {
		return boolOrder(x.coolUntil.Load() > now) - boolOrder(y.coolUntil.Load() > now)
	})
	return list
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

// pause waits before attempt n+1 and reports whether there should be one.
func (r *Registry) pause(ctx context.Context, n int, last *failure) bool {
	if n >= r.opts.Retry.Attempts || last.err.RetryAfter > politeWait || !r.retries.Allow() {
		return false
	}
	wait := max(r.backoff(n), last.err.RetryAfter)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// backoff returns the pause after attempt n: between half and all of a time that
// triples each time, so that many clients that failed together do not return together.
func (r *Registry) backoff(n int) time.Duration {
	d := r.opts.Retry.Backoff
	for range n - 1 {
		d = min(3*d, r.opts.Retry.MaxBackoff)
	}
	return d/2 + rand.N(d/2+1)
}
