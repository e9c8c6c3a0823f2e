package hubapi

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"forebay/internal/wire"
)

// Budget is how many requests the API will still answer for our address.
type Budget struct {
	Limit     int       // requests in a minute; -1 when it has not said
	Remaining int       // requests left; -1 when it has not said
	Reset     time.Time // when the limit is whole again, by our clock; zero when it has not said
}

const (
	// defaultPause is for a refusal that does not say for how long.
	defaultPause = time.Minute
	// resetMax bounds the pause that headers can make: the window is a minute.
	resetMax = 5 * time.Minute
)

// budget counts down between answers, so that requests made at the same time do not
// all take the last one.
type budget struct {
	now func() time.Time

	mu    sync.Mutex
	known bool
	last  Budget
	until time.Time // nothing is asked before: a 429 said so
}

// take books a request. It returns how long to wait when none is left.
func (b *budget) take() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if wait := b.until.Sub(now); wait > 0 {
		return wait
	}
	if !b.known || b.last.Remaining < 0 {
		return 0
	}
	if !now.Before(b.last.Reset) {
		b.known = false // a new window, of which nothing is known until its first answer
		return 0
	}
	if b.last.Remaining == 0 {
		return b.last.Reset.Sub(now)
	}
	b.last.Remaining--
	return 0
}

// see takes in the headers of an answer.
func (b *budget) see(h http.Header, status int) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if limit, ok := parseBudget(h, now); ok {
		b.known, b.last = true, limit
	}
	if status != http.StatusTooManyRequests {
		return
	}
	pause := wire.ParseRetryAfter(h, "", serverTime(h, now))
	if pause == 0 && b.known && b.last.Reset.After(now) {
		pause = b.last.Reset.Sub(now)
	}
	if pause == 0 {
		pause = defaultPause
	}
	b.until = now.Add(pause)
}

// wait returns how long nothing may be asked.
func (b *budget) wait() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(b.until.Sub(b.now()), 0)
}

func (b *budget) get() Budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.known {
		return Budget{Limit: -1, Remaining: -1}
	}
	return b.last
}

// parseBudget reads X-RateLimit-Limit, -Remaining and -Reset, of which the last is a Unix
// time by the server's clock.
func parseBudget(h http.Header, now time.Time) (Budget, bool) {
	b := Budget{Limit: -1, Remaining: -1}
	if n, ok := count(h.Get("X-Ratelimit-Limit")); ok {
		b.Limit = n
	}
	if n, ok := count(h.Get("X-Ratelimit-Remaining")); ok {
		b.Remaining = n
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(h.Get("X-Ratelimit-Reset")), 10, 64); err == nil && n > 0 {
		left := time.Unix(min(n, 1<<40), 0).Sub(serverTime(h, now))
		b.Reset = now.Add(min(max(left, 0), resetMax))
	}
	if b.Reset.IsZero() && b.Remaining >= 0 {
		b.Reset = now.Add(defaultPause)
	}
	return b, b.Limit >= 0 || b.Remaining >= 0
}

// count reads a number of requests. Docker Hub's counters have shown negative ones, which
// do not count.
func count(s string) (int, bool) {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	return max(n, 0), err == nil
}

// serverTime returns the time by the server's clock, which its reset times refer to.
func serverTime(h http.Header, now time.Time) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t
	}
	return now
}
