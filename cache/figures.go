package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"forebay/cache/index"
	"forebay/internal/tally"
)

// Figures are what happened since the start, and what goes on, for metrics.
type Figures struct {
	Fills       Fills
	Transfers   Transfers
	Mismatches  Mismatches
	EvictedAges tally.Snapshot // how long what was evicted had not been used
	Index       index.Figures
	ScrubBehind time.Duration // how much later than planned the scrub is; 0 when it is not
	// ScrubOldest bounds how long the content was not read that the scrub reads next; 0
	// while it is off. Before its first round has ended that is since the round began.
	ScrubOldest time.Duration
	PinnedTags  int64     // tags that are pinned
	PinnedBlobs int64     // what their images are made of and is not evicted
	Troubles    []Trouble // what the store cannot do at present
}

// Fills are the fills since the start, and those in progress.
type Fills struct {
	Done      int64 // verified and kept
	Failed    int64 // by the upstream
	Wrong     int64 // the content had another digest
	NotKept   int64 // by the store: it was passed through
	Cancelled int64 // nobody waited any more, or the program ended

	Running   int64 // fetch from an upstream now
	Verifying int64 // read what is kept for the first time since the start
	Readers   int64 // clients that follow them
	Waiting   int64 // of those, the ones that have all that has arrived
}

// Transfers are single downloads of parts of blobs since the start.
type Transfers struct {
	Broken  int64 // ended early, of fills that went on
	Resumed int64 // fills that went on with what one before had left
	Passed  int64 // readers that were served past the store
}

// Mismatches are contents that did not have their digest.
type Mismatches struct {
	Sent int64 // by an upstream
	Kept int64 // by the store, whoever found it: clients, scrub or verification
}

// Figures returns what was counted. It reads no content and lists no index.
func (c *Cache) Figures() (Figures, error) {
	n := &c.counts
	f := Figures{
		Fills: Fills{Done: n.fills.done.Load(), Failed: n.fills.failed.Load(), Wrong: n.fills.wrong.Load(),
			NotKept: n.fills.notKept.Load(), Cancelled: n.fills.cancelled.Load()},
		Transfers:   Transfers{Broken: n.broken.Load(), Resumed: n.resumed.Load(), Passed: n.passed.Load()},
		Mismatches:  Mismatches{Sent: n.sentWrong.Load(), Kept: n.damaged.Load()},
		EvictedAges: c.space.ages.Read(),
		Troubles:    c.Troubles(),
	}
	c.countRunning(&f.Fills)
	f.ScrubBehind, f.ScrubOldest = c.scrubLag(time.Now())
	c.loadPins()
	c.pins.mu.RLock()
	f.PinnedTags, f.PinnedBlobs = int64(len(c.pins.tags)), int64(len(c.pins.held))
	c.pins.mu.RUnlock()
	var err error
	f.Index, err = c.index.Figures()
	return f, err
}

// countRunning counts the fills in progress.
func (c *Cache) countRunning(n *Fills) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.fills {
		f.mu.Lock()
		switch {
		case f.ended:
		case f.kept:
			n.Verifying++
		default:
			n.Running++
		}
		if !f.ended {
			n.Readers += int64(f.holders)
			for r := range f.readers {
				if r.waiting {
					n.Waiting++
				}
			}
		}
		f.mu.Unlock()
	}
}

// scrubLag tells how far the scrub is behind its plan, and how old the oldest reading is.
func (c *Cache) scrubLag(now time.Time) (behind, oldest time.Duration) {
	st := c.scrubbed.Load()
	if c.opts.ScrubInterval <= 0 || st == nil {
		return 0, 0
	}
	if !st.Next.IsZero() { // between two rounds
		if !st.Began.IsZero() {
			oldest = now.Sub(st.Began)
		}
		return max(now.Sub(st.Next), 0), max(oldest, 0)
	}
	behind = max(now.Sub(c.scrubDue(st.Began, st.After)), 0)
	if st.Ended.IsZero() {
		return behind, max(now.Sub(st.Began), 0)
	}
	return behind, behind + c.opts.ScrubInterval // the round before was where this one is an interval ago
}

// fillCounts are how fills ended.
type fillCounts struct{ done, failed, wrong, notKept, cancelled atomic.Int64 }

// ended counts a fill that ended with err.
func (n *fillCounts) ended(err error) {
	switch {
	case err == nil:
		n.done.Add(1)
	case errors.Is(err, errClosed), errors.Is(err, context.Canceled):
		n.cancelled.Add(1)
	case errors.Is(err, errStorage):
		n.notKept.Add(1)
	case errors.Is(err, errMismatch):
		n.wrong.Add(1)
	default:
		n.failed.Add(1)
	}
}
