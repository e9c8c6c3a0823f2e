package upkeep

import (
	"time"

	"forebay/cache"
	"forebay/cache/image"
	"forebay/cache/index"
	"forebay/cache/store"
)

// Figures are what happened since the start, and what goes on, for metrics.
type Figures struct {
	Cache       cache.Figures
	Store       store.Figures
	Pins        image.Figures
	Index       index.Figures
	ScrubBehind time.Duration // how much later than planned the scrub is; 0 when it is not
	// ScrubOldest bounds how long the content was not read that the scrub reads next; 0
	// while it is off. Before its first round has ended that is since the round began.
	ScrubOldest time.Duration
	Troubles    []store.Trouble // what the store cannot do at present
}

// Figures returns what was counted. It reads no content and lists no index.
func (k *Keeper) Figures() (f Figures, err error) {
	f = Figures{Cache: k.Cache.Figures(), Store: k.Store.Figures(), Pins: k.Images.Pins.Figures(), Troubles: k.Store.Troubles()}
	f.ScrubBehind, f.ScrubOldest = k.scrubLag(time.Now())
	f.Index, err = k.Store.Index.Figures()
	return f, err
}

// scrubLag tells how far the scrub is behind its plan, and how old the oldest reading is.
func (k *Keeper) scrubLag(now time.Time) (behind, oldest time.Duration) {
	st := k.scrubbed.Load()
	if k.opts.ScrubInterval <= 0 || st == nil {
		return 0, 0
	}
	if !st.Next.IsZero() { // between two rounds
		if !st.Began.IsZero() {
			oldest = now.Sub(st.Began)
		}
		return max(now.Sub(st.Next), 0), max(oldest, 0)
	}
	behind = max(now.Sub(k.scrubDue(st.Began, st.After)), 0)
	if st.Ended.IsZero() {
		return behind, max(now.Sub(st.Began), 0)
	}
	return behind, behind + k.opts.ScrubInterval // the round before was where this one is an interval ago
}
