package governor

import (
	"sync"
	"time"
)

const (
	// coolDown is for how long an endpoint that failed once is tried after the others.
	coolDown = 10 * time.Second
	// A breaker opens after tripAfter requests in a row failed over a time of at least
	// tripOver, so that a short fault that hits many requests at once does not open it.
	tripAfter = 5
	tripOver  = 2 * time.Second
	// An open breaker lets one probe through after tripFirst, then after twice as long
	// each time, but often enough that nobody waits long for an endpoint that is back, and that an
	// operator who has mended it sees that within ten seconds.
	tripFirst = 2 * time.Second
	tripMost  = 4 * time.Second
)

// Turn is when an endpoint is to be tried.
type Turn uint8

// The turns.
const (
	First Turn = iota // as the configuration orders it
	Later             // after those that are well
	Never             // not now
)

// Breaker remembers how an endpoint fared. The zero value has seen no failure.
type Breaker struct {
	mu       sync.Mutex
	failures int       // requests in a row
	since    time.Time // when the first of them began
	last     string    // what went wrong last
	cool     time.Time // until then others come first
	open     bool
	until    time.Time     // when a probe may go; meaningful while open
	pause    time.Duration // between probes
}

// Turn returns when a request that begins now should try the endpoint. After a failure it
// is First for one request each interval, the probe, of which the caller need not know. A
// request asks once and keeps its turn for its retries.
func (b *Breaker) Turn(now time.Time) Turn {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.failures == 0 && b.cool.IsZero():
		return First
	case b.open && now.Before(b.until):
		return Never
	case b.open:
		b.until = now.Add(b.pause)
		return First
	case now.Before(b.cool):
		return Later
	default:
		b.cool = now.Add(coolDown)
		return First
	}
}

// Good says that the endpoint answered as it should.
func (b *Breaker) Good() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.cool, b.open, b.pause, b.last = 0, time.Time{}, false, 0, ""
}

// Cool says that an attempt failed that may be repeated.
func (b *Breaker) Cool(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cool = now.Add(coolDown)
}

// Bad says that a request that began at start has failed, retries and all. It reports
// whether the breaker has opened by it.
func (b *Breaker) Bad(start, now time.Time, why string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures == 0 || start.Before(b.since) {
		b.since = start
	}
	b.failures++
	b.last, b.cool = why, now.Add(coolDown)
	if b.open {
		if !start.Before(b.until.Add(-b.pause)) { // the latest probe, and none that was still on its way
			b.pause = min(2*b.pause, tripMost)
			b.until = now.Add(b.pause)
		}
		return false
	}
	if b.failures < tripAfter || now.Sub(b.since) < tripOver {
		return false
	}
	b.open, b.pause = true, tripFirst
	b.until = now.Add(b.pause)
	return true
}

// Health is what a breaker knows.
type Health struct {
	Failures int       // requests in a row
	Open     bool      // the endpoint is not asked but for probes
	Until    time.Time // of the next probe, while open
	Last     string    // what went wrong last; empty after a success
}

// Health returns a snapshot.
func (b *Breaker) Health() Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Health{Failures: b.failures, Open: b.open, Until: b.until, Last: b.last}
}
