package upstream

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/upstream/auth"
	"forebay/upstream/governor"
)

// Budget is what a registry will still give to one credential.
type Budget struct {
	Credential string // user name, or "anonymous"
	Host       string // where it holds
	governor.Statement
	Low bool // less than the reserve remains
	// PausedUntil is when the next pull is tried, and Why says what was refused; zero
	// while pulls go through.
	PausedUntil time.Time
	Why         string
}

// Budget returns what the registry and its stand-ins have said of their limits, one entry
// for each credential that they said something about, the preferred credential first.
func (r *Registry) Budget() []Budget {
	var list []Budget
	now := r.opts.Now()
	for _, l := range r.Limits() {
		if l.Account == nil {
			continue
		}
		b := Budget{Credential: l.credential, Host: l.host, Statement: l.Account.Statement(now), Low: l.Account.Low(r.opts.Reserve, now)}
		if closed := l.Gate.Closed(); closed != nil {
			b.PausedUntil, b.Why = closed.Until, closed.Why
		}
		if !b.SeenAt.IsZero() || !b.PausedUntil.IsZero() {
			list = append(list, b)
		}
	}
	return list
}

// Limit is one that the registry sets: to an account, or to all requests.
type Limit struct {
	Name             string            // tells it from the others of the registry
	Account          *governor.Account // nil of all requests
	Gate             *governor.Gate
	host, credential string
}

// Limits returns the limits that mirrors with the same settings share: not those of clients' logins.
func (r *Registry) Limits() (list []Limit) {
	for _, s := range r.sites {
		list = append(list, Limit{Name: s.host, Gate: s.all})
		for i, a := range slices.Concat(s.accounts, s.matched) {
			list = append(list, Limit{fmt.Sprint(s.host, " ", i), &a.budget, a.pulls, s.host, a.name()})
		}
	}
	return list
}

// Rate returns what the registry last said of the limit of the credential that would be
// used; ok is false if it said nothing, or if that is too long ago to be told to others.
func (r *Registry) Rate() (l wire.RateLimit, ok bool) {
	now := r.opts.Now()
	for _, a := range r.own.accounts {
		if a.pulls.Closed() == nil || a == r.own.accounts[len(r.own.accounts)-1] {
			s := a.budget.Statement(now)
			if s.SeenAt.IsZero() || s.Window > 0 && now.Sub(s.SeenAt) > s.Window {
				return l, false
			}
			return wire.RateLimit{Limit: s.Limit, Remaining: s.Remaining, Window: s.Window}, true
		}
	}
	return l, false
}

// Low reports whether less than the reserve is left, or everything is refused, so that the
// registry should be asked only for what is not kept at all.
func (r *Registry) Low() bool { return r.low((*governor.Account).Low) }

// AtReserve reports whether one more pull would take from the reserve. Fetching ahead of
// need then has to wait.
func (r *Registry) AtReserve() bool { return r.low((*governor.Account).AtReserve) }

// lastShare is the part of the reserve that is for repositories which are known.
const lastShare = 0.25

// AtLastShare reports whether only the last share of the reserve is left, with every account.
// When nothing is left the registry's own word is worth more.
func (r *Registry) AtLastShare() (last bool) {
	now := r.opts.Now()
	for _, a := range r.own.accounts {
		if a.pulls.Closed() != nil || a.budget.Spent(now) {
			continue
		}
		if !a.budget.AtLast(lastShare*r.opts.Reserve, now) {
			return false
		}
		last = true
	}
	return last
}

func (r *Registry) low(is func(*governor.Account, float64, time.Time) bool) bool {
	if r.opts.Reserve <= 0 {
		return false
	}
	if r.own.all.Closed() != nil {
		return true
	}
	for _, a := range r.own.accounts {
		if a.pulls.Closed() == nil { // the one that would be used
			return is(&a.budget, r.opts.Reserve, r.opts.Now())
		}
	}
	return true
}

// Status is a snapshot of a registry for people and metrics.
type Status struct {
	Upstream  string
	Low       bool
	Budgets   []Budget
	Endpoints []EndpointStatus
	// Limited counts the 429s by what was limited: pulls, requests, rate, blobs, tokens.
	Limited   map[string]int64
	Probes    int64 // HEADs that asked whether pulls go through again
	Failovers int64 // requests that an endpoint answered after another had failed
}

// EndpointStatus is one endpoint of a [Status].
type EndpointStatus struct {
	URL     string // without a path
	StandIn bool
	governor.Health
	// PausedUntil is when the next request of any kind is tried; zero while they go
	// through. Why says what was refused.
	PausedUntil time.Time
	Why         string
}

// Status returns a snapshot.
func (r *Registry) Status() Status {
	s := Status{
		Upstream: r.opts.Name, Low: r.Low(), Budgets: r.Budget(), Limited: r.counts.limited(false),
		Probes: r.counts.probes.Load(), Failovers: r.counts.failovers.Load(),
	}
	for _, e := range r.endpoints {
		one := EndpointStatus{URL: e.base.Scheme + "://" + e.base.Host, StandIn: e.site.standIn != nil, Health: e.breaker.Health()}
		if closed := e.site.all.Closed(); closed != nil {
			one.PausedUntil, one.Why = closed.Until, closed.Why
		}
		s.Endpoints = append(s.Endpoints, one)
	}
	return s
}

// use remembers the name that the credential has, which its source may change.
func (a *account) use(who auth.Identity) {
	if name := who.Name(); a.name() != name {
		a.who.Store(&name)
	}
}

// noteBudget remembers what an answer of the registry says of the limits of the credential
// that it was asked with, and books a pull. since is of the account as the request began.
func (r *Registry) noteBudget(ctx context.Context, a *ask, resp *http.Response, since int64) {
	limit, ok := wire.ParseRateLimit(resp.Header)
	if !ok {
		return
	}
	now := r.opts.Now()
	if a.charged() && resp.StatusCode == http.StatusOK {
		a.who.budget.Spend(pull.Client(ctx), a.repo, now)
		since++ // it knows of itself
	}
	a.who.budget.See(limit, since, now)
}
