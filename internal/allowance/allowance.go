// Package allowance keeps what each client may still ask for, and have the mirror ask registries for.
//
// It promises that what one client asks for beyond its limits is refused to that client, and
// takes nothing from the others. A client is an address or an identity, see [pull.Client], or one of
// those that share limits, see [Terms]; the mirror itself has no limits.
package allowance

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"forebay/internal/pull"
)

// Limits are those of one client. In each field 0 means no limit.
type Limits struct {
	// RequestsPerSecond is how many it may send, of which those of [burst] may come at once.
	RequestsPerSecond int
	// Transfers is how many blobs may be sent to it at once, BytesPerSecond how much of them.
	Transfers      int
	BytesPerSecond int64
	// NewPerMinute is how many requests a minute may go to registries for tags and digests
	// that are not known here.
	NewPerMinute int
	// Pulls is how many requests within [Window] may go there that registries count as pulls.
	Pulls int
	// Share is which part of the budget that each registry gives may be spent, in its window.
	Share float64
	// Fills is how many downloads a client has begun may be in progress.
	Fills int
}

const (
	// Window is Docker Hub's, for anonymous and for free accounts.
	Window = 6 * time.Hour
	// burst is what an image of many layers asks for at once on a node that starts.
	burst = 10 * time.Second
	// clientsMost bounds the clients that are remembered, of which each takes some 500 bytes.
	// One that was forgotten begins anew.
	clientsMost = 8192
)

// Terms are limits of clients that are not those of all. Where Name is set all that have the terms share
// what these allow.
type Terms struct {
	Name   string
	Limits Limits
}

// TermsKey is the key of a client's *Terms among the values of a context.
type TermsKey struct{}

// As returns a context in which things are asked for in the name of the client of caller.
func As(ctx, caller context.Context) context.Context {
	ctx = pull.WithClient(ctx, pull.Client(caller))
	if terms, _ := caller.Value(TermsKey{}).(*Terms); terms != nil {
		ctx = context.WithValue(ctx, TermsKey{}, terms)
	}
	return ctx
}

// Budget returns how many pulls a registry gives, and in which time; 0 when that is not known.
type Budget func(upstream string) (pulls int, in time.Duration)

// Clients are the allowances of all clients. Its methods may be called concurrently. Their errors
// are [pull.Error]s of kind Limited with the detail ClientLimited.
type Clients struct {
	limits  atomic.Pointer[Limits]
	budget  Budget // nil: none is known
	clients *lru.Cache[string, *client]
}

// client is what one may still do.
type client struct {
	limits                       Limits // by which it may do so; when there are others it begins anew
	requests, asks, pulls, bytes *rate.Limiter
	fills, transfers             atomic.Int64 // in progress

	mu     sync.Mutex
	shares map[string]*rate.Limiter // of the budget of each registry; guarded by mu
}

// New returns the allowances of clients of which none has asked for anything.
func New(l Limits, b Budget) *Clients {
	clients, err := lru.New[string, *client](clientsMost)
	if err != nil {
		panic(err) // only for a size below one
	}
	c := &Clients{budget: b, clients: clients}
	c.Set(l)
	return c
}

// Set sets the limits of clients without terms of their own, who begin anew if those were others.
func (c *Clients) Set(l Limits) { c.limits.Store(&l) }

// limitsOf returns the limits of the client of ctx and by which name it is known; "" for the mirror itself.
func (c *Clients) limitsOf(ctx context.Context) (name string, l *Limits) {
	name, l = pull.Client(ctx), c.limits.Load()
	if terms, _ := ctx.Value(TermsKey{}).(*Terms); terms != nil && name != "" {
		l = &terms.Limits
		if terms.Name != "" {
			name = terms.Name
		}
	}
	return name, l
}

// of returns the allowance of the client of ctx; nil for the mirror itself.
func (c *Clients) of(ctx context.Context) *client {
	name, limits := c.limitsOf(ctx)
	if name == "" {
		return nil
	}
	if known, ok := c.clients.Get(name); ok {
		if known.limits == *limits {
			return known
		}
		c.clients.Remove(name)
	}
	one := &client{
		limits: *limits, asks: every(limits.NewPerMinute, time.Minute), pulls: every(limits.Pulls, Window),
		requests: every(limits.RequestsPerSecond*int(burst/time.Second), burst),
		bytes:    rate.NewLimiter(rate.Limit(limits.BytesPerSecond), int(min(limits.BytesPerSecond, math.MaxInt32))),
	}
	if other, had, _ := c.clients.PeekOrAdd(name, one); had {
		return other
	}
	return one
}

// every allows n within a time, which may all come at once.
func every(n int, in time.Duration) *rate.Limiter {
	if n <= 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Every(in/time.Duration(n)), n)
}

// Limit names what a client has used up. It is the cause of the errors of this package.
type Limit string

// The limits. ByReserve is the last share of a registry's limit, which is not for what is new.
const (
	ByNew     Limit = "new"
	ByPulls   Limit = "pulls"
	ByFills   Limit = "fills"
	ByReserve Limit = "reserve"

	ByRequests  Limit = "requests"
	ByTransfers Limit = "transfers"
	ByShare     Limit = "share"
)

func (l Limit) Error() string { return "limit: " + string(l) }

// Refused is the error of a client that is told to ask again after a while.
func Refused(upstream, repo string, by Limit, why string, again time.Duration) error {
	return &pull.Error{Kind: pull.Limited, Detail: pull.ClientLimited, Upstream: upstream, Op: "ask for " + repo, Message: why, RetryAfter: again, Err: by}
}

// Ask takes one request for something of a repository that is not known here.
func (c *Clients) Ask(ctx context.Context, upstream, repo string) error {
	if one := c.of(ctx); one != nil && !one.asks.Allow() {
		return Refused(upstream, repo, ByNew, "this client asks for too much that is new", time.Minute/time.Duration(one.limits.NewPerMinute)+time.Second)
	}
	return nil
}

// Spend takes one pull, and the request for it.
func (c *Clients) Spend(ctx context.Context, upstream, repo string) error {
	if err := c.Ask(ctx, upstream, repo); err != nil {
		return err
	}
	if one := c.of(ctx); one != nil && !one.pulls.Allow() {
		return Refused(upstream, repo, ByPulls, "this client has spent its pulls", Window/time.Duration(one.limits.Pulls))
	} else if one != nil {
		return c.spendShare(one, upstream, repo)
	}
	return nil
}

// spendShare takes a pull from the client's share of a registry's budget, as far as that is known.
func (c *Clients) spendShare(one *client, upstream, repo string) error {
	if one.limits.Share <= 0 || c.budget == nil {
		return nil
	}
	pulls, in := c.budget(upstream)
	if pulls <= 0 || in <= 0 {
		return nil
	}
	most := max(int(one.limits.Share*float64(pulls)), 1)
	one.mu.Lock()
	defer one.mu.Unlock()
	share := one.shares[upstream]
	if share == nil || share.Burst() != most || share.Limit() != rate.Every(in/time.Duration(most)) { // it is new, or the plan was changed
		if one.shares == nil {
			one.shares = map[string]*rate.Limiter{}
		}
		share = every(most, in)
		one.shares[upstream] = share
	}
	if !share.Allow() {
		return Refused(upstream, repo, ByShare, "this client, or those with whom it shares, has spent its share of the registry's limit", in/time.Duration(most))
	}
	return nil
}

// Request takes one request.
func (c *Clients) Request(ctx context.Context, upstream, repo string) error {
	if _, l := c.limitsOf(ctx); l.RequestsPerSecond <= 0 {
		return nil // at no cost, as most mirrors have it
	}
	if one := c.of(ctx); one != nil && !one.requests.Allow() {
		return Refused(upstream, repo, ByRequests, "this client sends too many requests", time.Second)
	}
	return nil
}

// Pace returns by what bytes are sent to the client of ctx, a second's worth at once; nil for no limit.
func (c *Clients) Pace(ctx context.Context) *rate.Limiter {
	if _, l := c.limitsOf(ctx); l.BytesPerSecond <= 0 {
		return nil
	}
	if one := c.of(ctx); one != nil {
		return one.bytes
	}
	return nil
}

// Transfer counts a blob that is sent to a client, until ended is called.
func (c *Clients) Transfer(ctx context.Context, upstream, repo string) (ended func(), err error) {
	if _, l := c.limitsOf(ctx); l.Transfers <= 0 {
		return func() {}, nil
	}
	one := c.of(ctx)
	if one == nil {
		return func() {}, nil
	}
	if n := one.transfers.Add(1); n > int64(one.limits.Transfers) {
		one.transfers.Add(-1)
		return nil, Refused(upstream, repo, ByTransfers, "this client has too many transfers in progress", time.Second)
	}
	return func() { one.transfers.Add(-1) }, nil
}

// Begin counts a download that a client begins, until ended is called.
func (c *Clients) Begin(ctx context.Context, upstream, repo string) (ended func(), err error) {
	one := c.of(ctx)
	if one == nil {
		return func() {}, nil
	}
	if n := one.fills.Add(1); one.limits.Fills > 0 && n > int64(one.limits.Fills) {
		one.fills.Add(-1)
		return nil, Refused(upstream, repo, ByFills, "this client has too many downloads in progress", time.Second)
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
