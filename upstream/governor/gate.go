// Package governor paces requests by what a registry says that it will still give.
//
// It promises that a registry that refuses us gets one probe an interval, however many
// requests wait, and that requests go on by themselves when a probe gets through. It does
// no I/O and starts no goroutine: its owner asks for a pass, sends, and reports the outcome.
//
// Lock order: no lock is taken while another is held.
package governor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Backoff says for how long a [Gate] closes when the registry did not say.
type Backoff struct {
	First time.Duration // at first, and twice as long each time that a probe is refused
	Most  time.Duration
}

// Gate stands before a registry. It closes when the registry refuses and opens when a probe
// gets through. Whoever comes while a probe is under way waits for its outcome.
type Gate struct {
	backoff Backoff
	now     func() time.Time

	mu    sync.Mutex
	shut  bool
	until time.Time     // when a probe may go; meaningful while shut
	why   string        // of the last closing
	pause time.Duration // the last one; 0 after a success
	probe chan struct{} // closed when the probe on its way is back; nil without one
	turn  uint64        // counts closings, so that old news is told from new
	may   func() bool   // whether a probe is ours to send; nil: always
	// When it closed last, and when it last opened after that.
	shutAt, openAt time.Time
}

// othersProbe is how long the outcome of another mirror's probe is waited for.
const othersProbe = 2 * time.Second

// NewGate returns an open gate. now is its clock.
func NewGate(b Backoff, now func() time.Time) *Gate { return &Gate{backoff: b, now: now} }

// ClosedError says that a gate is closed.
type ClosedError struct {
	Until time.Time // when the registry is asked again
	Why   string
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("%s; next try at %s", e.Why, e.Until.UTC().Format(time.RFC3339))
}

// Pass is the permission to send one request. Its owner must call Through, Refused or
// Unclear when the request has ended. The zero Pass belongs to no gate; its methods do nothing.
type Pass struct {
	gate  *Gate
	turn  uint64
	probe bool
}

// Enter returns a pass, or a [*ClosedError]. While a probe is under way it waits for the
// outcome or for the end of ctx. A nil gate is always open.
func (g *Gate) Enter(ctx context.Context) (Pass, error) {
	if g == nil {
		return Pass{}, nil
	}
	for {
		g.mu.Lock()
		switch {
		case !g.shut:
			p := Pass{gate: g, turn: g.turn}
			g.mu.Unlock()
			return p, nil
		case g.probe == nil && g.now().Before(g.until):
			err := &ClosedError{Until: g.until, Why: g.why}
			g.mu.Unlock()
			return Pass{}, err
		case g.probe == nil:
			g.probe = make(chan struct{})
			p, may := Pass{gate: g, turn: g.turn, probe: true}, g.may
			g.mu.Unlock()
			if may == nil || may() {
				return p, nil
			}
			g.mu.Lock()
			g.until = g.now().Add(othersProbe)
			g.back()
			g.mu.Unlock()
			continue
		}
		back := g.probe
		g.mu.Unlock()
		select {
		case <-back:
		case <-ctx.Done():
			return Pass{}, context.Cause(ctx)
		}
	}
}

// Closed returns why nobody may pass at this moment, or nil.
func (g *Gate) Closed() *ClosedError {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut || g.probe == nil && !g.now().Before(g.until) {
		return nil
	}
	return &ClosedError{Until: g.until, Why: g.why}
}

// Probe reports whether the gate is closed and p is the one that may try it.
func (p Pass) Probe() bool { return p.probe }

// Through says that the registry did not refuse. It opens the gate, unless the gate has
// closed since p was given.
func (p Pass) Through() {
	g := p.gate
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.turn == g.turn {
		if g.shut {
			g.openAt = g.now()
		}
		g.shut, g.pause = false, 0
		g.back()
	}
}

// Refused says that the registry refused: for the time d, or without saying for how long if
// d is 0. It closes the gate and reports whether the gate was open before.
func (p Pass) Refused(d time.Duration, why string) bool {
	g := p.gate
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.turn != g.turn { // it was sent before the gate closed
		if until := g.now().Add(d); g.shut && until.After(g.until) {
			g.until = until
		}
		return false
	}
	news := !g.shut
	if d <= 0 {
		d = min(max(2*g.pause, g.backoff.First), g.backoff.Most)
	}
	g.pause = d
	g.close(why)
	return news
}

// Unclear says that the request ended without telling whether the registry refuses. If it
// was a probe, the gate stays closed for the same time again.
func (p Pass) Unclear() {
	g := p.gate
	if g == nil || !p.probe {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.turn == g.turn {
		g.pause = min(max(g.pause, g.backoff.First), g.backoff.Most)
		g.close(g.why)
	}
}

// jitterMost bounds how much later than asked for a gate tries again.
const jitterMost = 30 * time.Second

// close shuts the gate for g.pause and up to an eighth more, so that many mirrors that were
// refused together do not return together. It is never less than the registry asked for.
func (g *Gate) close(why string) {
	if !g.shut {
		g.shutAt = g.now()
	}
	g.shut, g.why = true, why
	g.until = g.now().Add(g.pause + rand.N(min(g.pause/8, jitterMost)+1))
	g.turn++
	g.back()
}

// back wakes those who wait for the probe.
func (g *Gate) back() {
	if g.probe != nil {
		close(g.probe)
		g.probe = nil
	}
}
