package governor

import (
	"time"

	"forebay/internal/wire"
)

// Word is what a registry said, to one mirror of several that it takes for one: of an account, or of all
// requests.
type Word struct {
	Said wire.RateLimit
	At   time.Time // when; zero: it never said anything
	// Until is when it is asked again, which refused at Shut; zero while requests go through. Open is when
	// they last did after it had refused.
	Until, Shut, Open time.Time
	Why               string
}

// Word returns what was last said of the limit.
func (a *Account) Word() (said wire.RateLimit, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.said, a.seenAt
}

// Learn takes in what was said to another mirror at the time at, if that is news and about the same: from
// another address anonymous pulls have another limit.
func (a *Account) Learn(said wire.RateLimit, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !at.After(a.seenAt) || a.said.Source != "" && said.Source != "" && a.said.Source != said.Source {
		return
	}
	a.take(said, at)
}

// Share has a gate ask, before a probe goes, whether it is this mirror's to send: may must not take long.
func (g *Gate) Share(may func() bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.may = may
}

// Word fills in what a gate knows.
func (g *Gate) Word(w *Word) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.Shut, w.Open = g.shutAt, g.openAt
	if g.shut {
		w.Until, w.Why = g.until, g.why
	}
}

// Learn takes in how another mirror's gate stands.
func (g *Gate) Learn(w Word) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.probe != nil: // its outcome is the better news
	case w.Until.After(g.now()) && w.Shut.After(g.openAt) && (!g.shut || w.Until.After(g.until)):
		g.shut, g.until, g.why, g.shutAt = true, w.Until, w.Why, w.Shut
		g.turn++
	case g.shut && w.Until.IsZero() && w.Open.After(g.shutAt):
		g.shut, g.pause, g.openAt = false, 0, w.Open
		g.turn++
	}
}
