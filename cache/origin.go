package cache

import (
	"sync/atomic"
	"time"

	"forebay/internal/pull"
)

// UpstreamOptions says how one upstream's content is fetched and kept.
type UpstreamOptions struct {
	Upstream Upstream
	TagTTL   time.Duration // how long a tag is served without asking; 0 means always ask
	TagRules []TagRule     // times to live of their own, first match wins
	// RefreshAhead is how often a tag must be pulled within its last two times to live to
	// be confirmed in the background before it expires. 0 means never.
	RefreshAhead int
	// StaleIfError is how old a tag may be that is served while the upstream fails, counted
	// from its last confirmation. 0 means any age.
	StaleIfError time.Duration
	// AccessTTL is how long a proof holds that the credentials may read a repository; then
	// one HEAD proves it anew before kept content of it is served. 0 means for ever.
	AccessTTL time.Duration
	OnGone    OnGone // what becomes of a tag that the upstream does not have any more
	Offline   bool   // the upstream is never asked
	Parallel  int    // connections per large blob; 0 means 4
	// MaxConnections bounds the connections for blobs over all fills. Fills use at most
	// half of it for connections beyond their first. 0 means 32.
	MaxConnections int
}

// origin is an upstream with what the cache learned of it.
type origin struct {
	UpstreamOptions
	fresh  freshness
	lanes  *lanes
	health health
	access *access // nil without AccessTTL
	// paying is held by the prefetch that is about to spend a pull.
	paying chan struct{}
}

func newOrigin(u UpstreamOptions) (*origin, error) {
	if u.Parallel <= 0 {
		u.Parallel = 4
	}
	if u.MaxConnections <= 0 {
		u.MaxConnections = 32
	}
	fresh, err := newFreshness(u.TagTTL, u.TagRules)
	if err != nil {
		return nil, err
	}
	o := &origin{UpstreamOptions: u, fresh: fresh, lanes: newLanes(u.MaxConnections), access: newAccess(u.AccessTTL), paying: make(chan struct{}, 1)}
	if o.access != nil {
		o.Upstream = proving{u.Upstream, o.access}
	}
	return o, nil
}

// ailingFor is how long after a failure an upstream counts as failing unless it answered since.
const ailingFor = 30 * time.Second

// health remembers whether an upstream answered lately. It never stops a request: it
// only tells clients that cannot fall back half-way whether to begin at all.
type health struct {
	last  atomic.Int64 // Unix nanoseconds of the last word from the upstream, negative when it was a failure
	heads atomic.Bool  // a HEAD of a manifest worked once
	telling
}

// saw takes in the outcome of a request to the upstream.
func (h *health) saw(err error) {
	at := time.Now()
	now := at.UnixNano()
	if err != nil {
		switch pull.KindOf(err) {
		case pull.Unavailable, pull.Timeout, pull.Limited:
			now = -now
		}
	}
	h.last.Store(now)
	h.telling.saw(err, at)
}

// ailingWait is how long a client waits for a confirmation while the upstream fails: one
// has waited the full time for nothing a moment ago.
const ailingWait = 300 * time.Millisecond

// patience returns how long a client waits that may be served what is known.
func (o *origin) patience(usual time.Duration) time.Duration {
	if o.health.ailing() {
		return min(usual, ailingWait)
	}
	return usual
}

// ailing reports whether the last word of the upstream was a failure, a short while ago.
func (h *health) ailing() bool {
	last := h.last.Load()
	return last < 0 && time.Since(time.Unix(0, -last)) < ailingFor
}
