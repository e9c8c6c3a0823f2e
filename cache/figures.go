package cache

import (
	"slices"
	"strings"

	"forebay/cache/fill"
	"forebay/cache/health"
)

// Figures are what happened since the start, and what goes on.
type Figures struct {
	Fills         Fills
	Transfers     Transfers
	SentWrong     int64 // contents that came from an upstream without the digest asked for
	TagsMoved     int64
	ReleasesMoved int64 // tags of full versions, which nobody is expected to move
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

// Figures returns what was counted.
func (c *Cache) Figures() Figures {
	n := &c.counts.fills
	f := Figures{
		Fills:     Fills{Done: n.Done.Load(), Failed: n.Failed.Load(), Wrong: n.Wrong.Load(), NotKept: n.Unkept.Load(), Cancelled: n.Cancelled.Load()},
		Transfers: Transfers{Broken: n.Broken.Load(), Resumed: n.Resumed.Load(), Passed: n.Passed.Load()},
		SentWrong: c.counts.sentWrong.Load(), TagsMoved: c.counts.tagsMoved.Load(), ReleasesMoved: c.counts.releasesMoved.Load(),
	}
	for _, s := range c.fills.Running() {
		if s.Verifying {
			f.Fills.Verifying++
		} else {
			f.Fills.Running++
		}
		f.Fills.Readers += int64(s.Holders)
		f.Fills.Waiting += int64(s.Waiting)
	}
	return f
}

// FillInfo is a fill in progress.
type FillInfo = fill.Info

// Fills are those in progress.
func (c *Cache) Fills() *fill.Set { return c.fills }

// UpstreamInfo is how an upstream does, as far as the cache has seen.
type UpstreamInfo struct {
	Name    string
	Offline bool // it is never asked
	// Sparing is whether so little is left of its budget that tags that moved are served stale.
	Sparing bool
	health.Report
}

// Upstreams tells how the upstreams do, by name.
func (c *Cache) Upstreams() []UpstreamInfo {
	list := make([]UpstreamInfo, 0, len(c.origins()))
	for name, o := range c.origins() {
		list = append(list, UpstreamInfo{Name: name, Offline: o.offline(), Sparing: o.low(), Report: o.health.Report()})
	}
	slices.SortFunc(list, func(a, b UpstreamInfo) int { return strings.Compare(a.Name, b.Name) })
	return list
}
