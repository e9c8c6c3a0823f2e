package upstream

import (
	"context"
	"math/rand/v2"
	"time"
)

// politeWait is the longest Retry-After that is waited for. A longer one is for the
// caller to decide on.
const politeWait = 3 * time.Second

// retrying asks the endpoints in order, and all of them again after a pause, as long as that
// may help.
func (r *Registry) retrying(ctx context.Context, a *ask) (*answer, *failure) {
	a.start = r.opts.Now()
	list, skipped := r.candidates(a)
	fails := make([]*failure, len(list))
	for n := 1; ; n++ {
		again, last := false, skipped
		for i, e := range list {
			ans, fail := r.atEndpoint(ctx, e, a)
			if fail == nil {
				r.noteAnswer(e, a)
				return ans, nil
			}
			fails[i] = fail
			if !fail.helps(tryEndpoint) {
				r.noteFailures(a, list, fails)
				return nil, fail
			}
			if fail.sick() {
				e.breaker.Cool(r.opts.Now())
			}
			again = again || fail.helps(tryAgain)
			last = better(last, fail)
		}
		if !again || !r.pause(ctx, n, last) {
			r.noteFailures(a, list, fails)
			return nil, last
		}
	}
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
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}

// backoff returns the pause after attempt n: a random part, half at least, of a time that
// triples each time, so that many requests that failed together do not return together.
func (r *Registry) backoff(n int) time.Duration {
	d := r.opts.Retry.Backoff
	for range n - 1 {
		d = min(3*d, r.opts.Retry.MaxBackoff)
	}
	return d/2 + rand.N(d/2+1)
}
