// Package allowance keeps what each client may still have the mirror ask registries for.
//
// It promises that what one client asks for beyond its limits is refused to that client, and
// takes nothing from the others. A client is an address, see [pull.Client]; the mirror itself
// has no limits.
package allowance

import (
	"context"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"forebay/internal/pull"
)

// Limits are those of one client. In each field 0 means no limit.
type Limits struct {
	// NewPerMinute is how many requests a minute may go to registries for tags and digests
	// that are not known here.
	NewPerMinute int
	// Pulls is how many requests within [Window] may go there that registries count as pulls.
	Pulls int
	// Fills is how many downloads a client has begun may be in progress.
	Fills int
}

const (
	// Window is Docker Hub's, for anonymous and for free accounts.
	Window = 6 * time.Hour
	// clientsMost bounds the clients that are remembered, of which each takes some 300 bytes.
	// One that was forgotten begins anew.
	clientsMost = 8192
)

// Clients are the allowances of all clients. Its methods may be called concurrently. Their errors
// are [pull.Error]s of kind Limited with the detail ClientLimited.
type Clients struct {
	limits  atomic.Pointer[Limits]
	clients *lru.Cache[string, *client]
}

// client is what one may still do.
type client struct {
	limits      *Limits // by which it may do so; when there are others it begins anew
	asks, pulls *rate.Limiter
	fills       atomic.Int64 // in progress
}

// New returns the allowances of clients of which none has asked for anything.
func New(l Limits) *Clients {
	clients, err := lru.New[string, *client](clientsMost)
	if err != nil {
		panic(err) // only for a size below one
	}
	c := &Clients{clients: clients}
	c.Set(l)
	return c
}

// Set sets the limits of all clients, who begin anew if those were others.
func (c *Clients) Set(l Limits) {
	if was := c.limits.Load(); was == nil || *was != l {
		c.limits.Store(&l)
	}
}

// of returns the allowance of the client of ctx; nil for the mirror itself.
func (c *Clients) of(ctx context.Context) *client {
	name := pull.Client(ctx)
	if name == "" {
		return nil
	}
	limits := c.limits.Load()
	if known, ok := c.clients.Get(name); ok {
		if known.limits == limits {
			return known
		}
		c.clients.Remove(name)
	}
	every := func(n int, in time.Duration) *rate.Limiter {
		if n <= 0 {
			return rate.NewLimiter(rate.Inf, 0)
		}
		return rate.NewLimiter(rate.Every(in/time.Duration(n)), n)
	}
	one := &client{limits: limits, asks: every(limits.NewPerMinute, time.Minute), pulls: every(limits.Pulls, Window)}
	if other, had, _ := c.clients.PeekOrAdd(name, one); had {
		return other
	}
	return one
}

// Refused is the error of a client that is told to ask again after a while.
func Refused(upstream, repo, why string, again time.Duration) error {
	return &pull.Error{Kind: pull.Limited, Detail: pull.ClientLimited, Upstream: upstream, Op: "ask for " + repo, Message: why, RetryAfter: again}
}

// Ask takes one request for something of a repository that is not known here.
func (c *Clients) Ask(ctx context.Context, upstream, repo string) error {
	if one := c.of(ctx); one != nil && !one.asks.Allow() {
		return Refused(upstream, repo, "this client asks for too much that is new", time.Minute/time.Duration(one.limits.NewPerMinute)+time.Second)
	}
	return nil
}

// Spend takes one pull, and the request for it.
func (c *Clients) Spend(ctx context.Context, upstream, repo string) error {
	if err := c.Ask(ctx, upstream, repo); err != nil {
		return err
	}
	if one := c.of(ctx); one != nil && !one.pulls.Allow() {
		return Refused(upstream, repo, "this client has spent its pulls", Window/time.Duration(one.limits.Pulls))
	}
	return nil
}

// Begin counts a download that a client begins, until ended is called.
func (c *Clients) Begin(ctx context.Context, upstream, repo string) (ended func(), err error) {
	one := c.of(ctx)
	if one == nil {
		return func() {}, nil
	}
	if n := one.fills.Add(1); one.limits.Fills > 0 && n > int64(one.limits.Fills) {
		one.fills.Add(-1)
		return nil, Refused(upstream, repo, "this client has too many downloads in progress", time.Second)
	}
	return func() { one.fills.Add(-1) }, nil
}

// Running returns how many downloads the client of ctx has begun that are in progress.
func (c *Clients) Running(ctx context.Context) int64 {
	if one := c.of(ctx); one != nil {
		return one.fills.Load()
	}
	return 0
}
