package governor

import (
	"context"
	"sync"
	"time"
)

const (
	// paceWindow is over what requests are counted. Registries that refuse a rate (GHCR: "allowed:
	// 2000/minute") name minutes or seconds.
	paceWindow = 60 // seconds
	// paceShare is the part of what was refused that is sent from then on.
	paceShare = 0.8
	// paceLeast is what is always sent in a window: others behind our address may have used up the rest.
	paceLeast = 60
	// paceGrowth is by what part more is tried after a window without a refusal, and by twice as much
	// after each further one, up to paceGrowthMost: a registry that refuses once an hour was hardly
	// refusing our rate.
	paceGrowth     = 0.1
	paceGrowthMost = 1.0
	// paceFor is how long after the last refusal a pace is kept to.
	paceFor = time.Hour
	// paceWait bounds how long a request is held so that it fits.
	paceWait = 3 * time.Second
)

// Pace keeps requests below a rate that was learned from refusals, of a registry that tells of no limit
// before. While it has learned nothing it holds nobody. Its methods may be called concurrently.
type Pace struct {
	now func() time.Time

	mu      sync.Mutex
	sent    [paceWindow]int // requests by second
	last    int64           // Unix second of the last one
	most    float64         // in a window; 0: nothing is known
	refused time.Time       // when that was learned
	grown   time.Time       // when it last changed
	growth  float64         // by what part it grows next
}

// NewPace returns a pace that knows nothing. now is its clock.
func NewPace(now func() time.Time) *Pace { return &Pace{now: now} }

// Enter counts a request that is about to be sent. It waits for a short while if more are under way
// than the registry takes, and returns a [*ClosedError] if that is not enough.
func (p *Pace) Enter(ctx context.Context) error {
	for deadline := p.now().Add(paceWait); ; {
		wait := p.take()
		if wait == 0 {
			return nil
		}
		if until := p.now().Add(wait); until.After(deadline) {
			return &ClosedError{Until: until, Why: "it has refused more requests in a minute"}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Refused learns from a refusal: by what the registry allows in a minute, or, if that is 0, by what was
// sent. Where less was sent than always is, nothing is learned: it was not our rate that was too high. It
// returns what is sent in a minute from now on, or 0 where nothing is known.
func (p *Pace) Refused(allowed int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.roll(now)
	p.refused, p.grown, p.growth = now, now, paceGrowth
	if allowed <= 0 {
		if allowed = p.count(); allowed < paceLeast {
			return int(p.most)
		}
	}
	learned := max(paceShare*float64(allowed), paceLeast)
	if p.most == 0 || learned < p.most {
		p.most = learned
	}
	return int(p.most)
}

// take counts a request if it fits, else it returns how long it will take until one does.
func (p *Pace) take() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.roll(now)
	if p.most > 0 && now.Sub(p.refused) >= paceFor {
		p.most = 0
	}
	for p.most > 0 && now.Sub(p.grown) >= paceWindow*time.Second {
		p.most *= 1 + p.growth
		p.growth = min(2*p.growth, paceGrowthMost)
		p.grown = p.grown.Add(paceWindow * time.Second)
	}
	if p.most == 0 || p.count() < int(p.most) {
		p.sent[now.Unix()%paceWindow]++
		return 0
	}
	for s := now.Unix() - paceWindow + 1; ; s++ { // until the oldest ones leave the window
		if p.sent[s%paceWindow] > 0 {
			return time.Unix(s+paceWindow, 0).Sub(now)
		}
	}
}

// roll forgets what left the window.
func (p *Pace) roll(now time.Time) {
	second := now.Unix()
	for s := max(p.last+1, second-paceWindow+1); s <= second; s++ {
		p.sent[s%paceWindow] = 0
	}
	p.last = max(p.last, second)
}

func (p *Pace) count() (n int) {
	for _, s := range p.sent {
		n += s
	}
	return n
}
