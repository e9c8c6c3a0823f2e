package hubtest

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Plan is a pull limit. The zero Plan means the default of its place: 100 an hour
// for anonymous pulls, 200 an hour for an account (headers captured in July 2026).
type Plan struct {
	Limit  int           // negative means unlimited, and no rate headers
	Window time.Duration // 0 means an hour
}

// Unlimited is the plan of a paid account.
func Unlimited() Plan { return Plan{Limit: -1} }

func (p Plan) or(fallback Plan) Plan {
	if p == (Plan{}) {
		return fallback
	}
	if p.Window == 0 {
		p.Window = time.Hour
	}
	return p
}

func anonymousPlan() Plan { return Plan{100, time.Hour} }
func personalPlan() Plan  { return Plan{200, time.Hour} }

// limiter counts pulls and requests by principal.
type limiter struct {
	mu         sync.Mutex
	plans      map[string]Plan // of accounts, and of addresses that differ from the rest
	pulls      map[string]*usage
	charged    map[string]int // ever
	abuse      map[string]*usage
	abuseUnits map[string]int // ever
	abuseUntil time.Time      // everything is refused until then; see TripAbuse
}

// usage is what one principal used up.
type usage struct {
	used  []time.Time // when each unit was spent
	pairs []pairPull  // for CountPair
}

type pairPull struct {
	at    time.Time
	index bool
}

func newLimiter() *limiter {
	return &limiter{
		plans: map[string]Plan{}, pulls: map[string]*usage{}, charged: map[string]int{},
		abuse: map[string]*usage{}, abuseUnits: map[string]int{},
	}
}

func (l *limiter) setPlan(principal string, p Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plans[principal] = p.or(personalPlan())
}

// SetPlan changes the plan of an account or of an anonymous address while the hub
// runs. Window and pulls used so far stay; use Options.Anonymous for all addresses.
func (h *Hub) SetPlan(principal string, p Plan) { h.limiter.setPlan(principal, p) }

// plan returns the limit that binds a principal.
func (h *Hub) plan(principal string) Plan {
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	return h.limiter.plans[principal].or(h.opts().Anonymous.or(anonymousPlan()))
}

// window drops what is older than the window. A fixed window starts with its first unit.
func (u *usage) window(now time.Time, w time.Duration, sliding bool) {
	if len(u.used) == 0 {
		return
	}
	if !sliding {
		if !now.Before(u.used[0].Add(w)) {
			u.used = nil
		}
		return
	}
	for len(u.used) > 0 && !now.Before(u.used[0].Add(w)) {
		u.used = u.used[1:]
	}
}

// left returns what a principal may still pull and when the window ends.
func (h *Hub) left(principal string, p Plan) (int, time.Time) {
	now := h.Now()
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	u := h.limiter.pulls[principal]
	if u == nil {
		return p.Limit, now.Add(p.Window)
	}
	u.window(now, p.Window, h.opts().SlidingWindow)
	if len(u.used) == 0 {
		return p.Limit, now.Add(p.Window)
	}
	return max(p.Limit-len(u.used), 0), u.used[0].Add(p.Window)
}

// take books a pull if the plan allows it. Unlimited plans always do and are not booked.
func (h *Hub) take(principal string, p Plan, isIndex bool) bool {
	if p.Limit < 0 {
		return true
	}
	now, o := h.Now(), h.opts()
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	u := h.limiter.pulls[principal]
	if u == nil {
		u = &usage{}
		h.limiter.pulls[principal] = u
	}
	u.window(now, p.Window, o.SlidingWindow)
	free := o.Count == CountChildOnly && isIndex || o.Count == CountPair && u.pairsUp(now, isIndex)
	if free {
		return true
	}
	if len(u.used) >= p.Limit {
		return false
	}
	u.used = append(u.used, now)
	h.limiter.charged[principal]++
	if o.Count == CountPair {
		u.pairs = append(u.pairs, pairPull{now, isIndex})
	}
	return true
}

// pairWindow is how far index and child may lie apart to count as one pull.
const pairWindow = time.Minute

// pairsUp reports whether a pull completes a pair, and forgets its other half.
func (u *usage) pairsUp(now time.Time, isIndex bool) bool {
	for i, p := range u.pairs {
		if p.index != isIndex && now.Sub(p.at) <= pairWindow {
			u.pairs = append(u.pairs[:i], u.pairs[i+1:]...)
			return true
		}
	}
	return false
}

// Charged returns the pulls ever charged to a principal: an account's name, or the
// address of an anonymous client ("127.0.0.1" unless Options.ClientIP says else).
func (h *Hub) Charged(principal string) int {
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	return h.limiter.charged[principal]
}

// ChargedTotal returns the pulls ever charged to anybody.
func (h *Hub) ChargedTotal() int {
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	n := 0
	for _, c := range h.limiter.charged {
		n += c
	}
	return n
}

// Remaining returns what a principal may still pull in its window, -1 if unlimited.
func (h *Hub) Remaining(principal string) int {
	p := h.plan(principal)
	if p.Limit < 0 {
		return -1
	}
	n, _ := h.left(principal, p)
	return n
}

// SpendAll uses up the limit of a principal, as others behind the same address would.
func (h *Hub) SpendAll(principal string) {
	p := h.plan(principal)
	for p.Limit >= 0 && h.Remaining(principal) > 0 {
		now := h.Now()
		h.limiter.mu.Lock()
		u := h.limiter.pulls[principal]
		if u == nil {
			u = &usage{}
			h.limiter.pulls[principal] = u
		}
		u.used = append(u.used, now)
		h.limiter.mu.Unlock()
	}
}

// rateHeaders puts the rate-limit headers on a manifest answer.
func (h *Hub) rateHeaders(x *exchange, a *Reply, opts RepoOpts) {
	p := h.plan(x.Principal)
	style := h.opts().RateHeaders
	if p.Limit < 0 || opts.UnlimitedPulls || style == RateNone {
		return
	}
	left, _ := h.left(x.Principal, p)
	w := int(p.Window / time.Second)
	limit := fmt.Sprintf("%d;w=%d", p.Limit, w)
	remaining := fmt.Sprintf("%d;w=%d", left, w)
	switch style {
	case RateSpaces:
		limit, remaining = fmt.Sprintf("%d ; w=%d", p.Limit, w), fmt.Sprintf("%d ; w=%d", left, w)
	case RateNegative:
		remaining = fmt.Sprintf("-%d;w=%d", p.Limit-left+1, w)
	case RateGarbage:
		limit, remaining = "lots;w=soon", ";;w="
	}
	if style != RateXOnly {
		a.Header.Set("Ratelimit-Limit", limit)
		a.Header.Set("Ratelimit-Remaining", remaining)
	}
	if style != RatePlain {
		a.Header.Set("X-Ratelimit-Limit", limit)
		a.Header.Set("X-Ratelimit-Remaining", remaining)
	}
	a.Header.Set("Docker-Ratelimit-Source", x.Principal)
}

// limitReply is the 429 of the pull limit.
func (h *Hub) limitReply(x *exchange) *Reply {
	text := "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"
	if x.claim != nil && x.claim.Subject != "" {
		text = "You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: " +
			"https://www.docker.com/increase-rate-limits"
	}
	p := h.plan(x.Principal)
	_, end := h.left(x.Principal, p)
	if p.Limit < 0 {
		end = h.Now().Add(time.Hour)
	}
	var key, value string
	switch h.opts().RetryAfter {
	case RetrySeconds:
		key, value = "Retry-After", strconv.Itoa(int(end.Sub(h.Now())/time.Second))
	case RetryDate:
		key, value = "Retry-After", end.UTC().Format(http.TimeFormat)
	case RetryPast:
		key, value = "Retry-After", h.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	case RetryUnix:
		key, value = "X-Retry-After", strconv.FormatInt(end.Unix(), 10)
	case RetryDuration:
		text = "retry-after: 160.574µs, allowed: 44000/minute"
	}
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	a := jsonReply(http.StatusTooManyRequests, map[string][]item{"errors": {{"TOOMANYREQUESTS", text}}})
	if key != "" {
		a.Header.Set(key, value)
	}
	return a
}

// abused books a request of an address and reports whether it is one too many.
func (l *limiter) abused(address string, limit int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.abuseUnits[address]++
	if now.Before(l.abuseUntil) {
		return true
	}
	if limit <= 0 {
		return false
	}
	u := l.abuse[address]
	if u == nil {
		u = &usage{}
		l.abuse[address] = u
	}
	u.window(now, time.Minute, false)
	u.used = append(u.used, now)
	return len(u.used) > limit
}

// TripAbuse makes all roles answer the abuse 429 for d of the hub's time.
func (h *Hub) TripAbuse(d time.Duration) {
	now := h.Now()
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	h.limiter.abuseUntil = now.Add(d)
}

// abuseReply is the 429 of the abuse limit: plain text, from any role.
func (h *Hub) abuseReply() *Reply {
	style := h.opts().AbuseStyle
	text := "Too Many Requests"
	if style != AbusePlain {
		text = "Too Many Requests (HAP429).\n"
	}
	a := newReply(http.StatusTooManyRequests, "text/plain", []byte(text))
	a.Header.Set("Cache-Control", "no-cache")
	a.Header.Set("Retry-After", "60")
	a.Header.Set("Connection", "close")
	if style == AbuseRawLF {
		a.wire.bareLF = true
		a.wire.framing = untilClose // the capture of 2020 has no Content-Length
	}
	return a
}
