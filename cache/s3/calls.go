package s3

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/middleware"

	"forebay/cache/tier"
)

// calls counts requests: those that really were made, repetitions included.
type calls struct {
	mu   *sync.Mutex
	seen map[[2]string]*tier.Calls // guarded by mu; by operation and outcome
}

func newCalls() calls { return calls{mu: new(sync.Mutex), seen: map[[2]string]*tier.Calls{}} }

// add counts a request.
func (c *calls) add(operation, outcome string, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [2]string{operation, outcome}
	n := c.seen[key]
	if n == nil {
		n = &tier.Calls{Operation: operation, Outcome: outcome, Within: make([]int64, len(tier.LatencyBounds()))}
		c.seen[key] = n
	}
	n.Count++
	n.Seconds += took.Seconds()
	for i, bound := range tier.LatencyBounds() {
		if took.Seconds() <= bound {
			n.Within[i]++
		}
	}
}

// Calls returns how many requests were made since the start, by operation and outcome.
func (b *Bucket) Calls() []tier.Calls {
	b.calls.mu.Lock()
	defer b.calls.mu.Unlock()
	all := []tier.Calls{}
	for _, key := range slices.SortedFunc(maps.Keys(b.calls.seen), func(x, y [2]string) int { return slices.Compare(x[:], y[:]) }) {
		n := *b.calls.seen[key]
		n.Within = slices.Clone(n.Within)
		all = append(all, n)
	}
	return all
}

// counting counts the requests that pass.
type counting struct {
	next  http.RoundTripper
	calls *calls
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	start := time.Now()
	res, err := c.next.RoundTrip(r)
	operation := middleware.GetOperationName(r.Context())
	if operation == "" {
		operation = "credentials" // of web identities and roles
	}
	c.calls.add(operation, outcome(res, err), time.Since(start))
	return res, err
}

func outcome(res *http.Response, err error) string {
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case err != nil:
		return "error"
	case res.StatusCode < 300:
		return "ok"
	}
	switch res.StatusCode {
	case http.StatusNotFound:
		return "absent"
	case http.StatusPreconditionFailed:
		return "exists"
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return "throttled"
	case http.StatusUnauthorized, http.StatusForbidden:
		return "denied"
	}
	return "error"
}
