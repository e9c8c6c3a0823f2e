package cache

import (
	"context"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"forebay/internal/pull"
)

// Limits bounds what one client makes the mirror ask for: a client is an address, see
// [pull.Client]. What is kept and fresh is served without bounds, and what the mirror wants
// for itself has none. In each field 0 means no limit.
type Limits struct {
	// NewPerMinute is how many requests a minute may go to registries for tags and digests
	// that are not known here, for each client.
	NewPerMinute int
	// Pulls is how many requests in six hours may go there that registries count as pulls.
	Pulls int
	// Fills is how many downloads a client has begun may be in progress.
	Fills int
}

const (
	// pullWindow is Docker Hub's, for anonymous and for free accounts.
	pullWindow = 6 * time.Hour
	// limitedClients bounds the clients that are remembered, of which each takes some 300
	// bytes. One that was forgotten begins anew.
	limitedClients = 8192
)

// limiter keeps the allowances of clients.
type limiter struct {
	Limits
	clients *lru.Cache[string, *allowance]
	refused atomic.Int64 // requests
}

// allowance is what one client may still do.
type allowance struct {
	asks, pulls *rate.Limiter
	fills       atomic.Int64 // in progress
}

func newLimiter(l Limits) limiter {
	clients, err := lru.New[string, *allowance](limitedClients)
	if err != nil {
		panic(err) // only for a size below one
	}
	return limiter{Limits: l, clients: clients}
}

// of returns the allowance of the client of ctx; nil for the mirror itself.
func (l *limiter) of(ctx context.Context) *allowance {
	client := pull.Client(ctx)
	if client == "" {
		return nil
	}
	if a, ok := l.clients.Get(client); ok {
		return a
	}
	every := func(n int, in time.Duration) *rate.Limiter {
		if n <= 0 {
			return rate.NewLimiter(rate.Inf, 0)
		}
		return rate.NewLimiter(rate.Every(in/time.Duration(n)), n)
	}
	a := &allowance{asks: every(l.NewPerMinute, time.Minute), pulls: every(l.Pulls, pullWindow)}
	if other, had, _ := l.clients.PeekOrAdd(client, a); had {
		return other
	}
	return a
}

// refuse counts and makes the error of a client that asks for too much.
func (l *limiter) refuse(repo Repo, what string, again time.Duration) error {
	l.refused.Add(1)
	return &pull.Error{Kind: pull.Limited, Detail: pull.ClientLimited, Upstream: repo.Upstream, Op: "ask for " + repo.Name, Message: what, RetryAfter: again}
}

// ask takes one request for something that is not known here from a client's allowance.
func (l *limiter) ask(ctx context.Context, repo Repo) error {
	if a := l.of(ctx); a != nil && !a.asks.Allow() {
		return l.refuse(repo, "this client asks for too much that is new", time.Minute/time.Duration(l.NewPerMinute)+time.Second)
	}
	return nil
}

// spend takes a pull, and the request for it, from a client's allowance.
func (c *Cache) spend(ctx context.Context, o *origin, repo Repo) error {
	if pull.Client(ctx) == "" {
		return nil
	}
	if o.atLastShare() && !c.pulled(repo) {
		c.limits.refused.Add(1)
		return &pull.Error{Kind: pull.Limited, Detail: pull.ClientLimited, Upstream: repo.Upstream, Op: "ask for " + repo.Name,
			Message: "what is left of its limit is for repositories that were pulled before", RetryAfter: time.Minute}
	}
	if err := c.limits.ask(ctx, repo); err != nil {
		return err
	}
	if !c.limits.of(ctx).pulls.Allow() {
		return c.limits.refuse(repo, "this client has spent its pulls", pullWindow/time.Duration(c.limits.Pulls))
	}
	return nil
}

// beginFill counts a download that a client begins, until ended is called.
func (l *limiter) beginFill(ctx context.Context, repo Repo) (ended func(), err error) {
	a := l.of(ctx)
	if a == nil {
		return func() {}, nil
	}
	if n := a.fills.Add(1); l.Fills > 0 && n > int64(l.Fills) {
		a.fills.Add(-1)
		return nil, l.refuse(repo, "this client has too many downloads in progress", time.Second)
	}
	return func() { a.fills.Add(-1) }, nil
}

// pulled reports whether anything of a repository has come here.
func (c *Cache) pulled(repo Repo) bool {
	pulled, err := c.store.Index.Holds(repo)
	return pulled || err != nil
}
