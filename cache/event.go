package cache

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/pull"
)

// Event is something that happened to what is kept or to an upstream, for people to read.
// Its texts come from registries and clients: whoever shows them must escape them.
type Event struct {
	At         time.Time
	Kind       EventKind
	Upstream   string // empty where no upstream is concerned
	Repository string // canonical; empty where no repository is concerned
	Tag        string
	Digest     v1.Hash // what it is now, or what is concerned
	Was        v1.Hash // of a tag that moved: what it pointed to before
	Count      int64   // of what Evicted and Purged removed: files
	Bytes      int64
	Detail     string // for people: why, or how; without secrets
}

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventTagMoved     EventKind = "tag_moved"
	EventReleaseMoved EventKind = "release_moved" // a tag of a full version, which nobody is expected to move
	EventEvicted      EventKind = "evicted"       // once for each time that room was made
	EventFillDone     EventKind = "fill_done"     // of a blob of at least 32 MiB
	EventFillFailed   EventKind = "fill_failed"
	// EventVerificationFailed: an upstream sent content that does not have its digest, or
	// what is kept does not have it any more. EventQuarantined: and it was put aside, for
	// somebody to look at.
	EventVerificationFailed EventKind = "verification_failed"
	EventQuarantined        EventKind = "quarantined"
	// EventDegraded: the store refuses to take or to give something, by the fault of the
	// disk. EventRecovered: it did so again. They come in pairs.
	EventDegraded  EventKind = "degraded"
	EventRecovered EventKind = "recovered"
	// EventUpstreamFailing and EventUpstreamBack come in pairs, one a minute at most for an
	// upstream, and so does EventLimited.
	EventUpstreamFailing EventKind = "upstream_failing"
	EventUpstreamBack    EventKind = "upstream_back"
	EventLimited         EventKind = "limited"
	EventServedStale     EventKind = "served_stale" // once a minute at most for a tag
	EventPurged          EventKind = "purged"
	EventPinned          EventKind = "pinned"
	EventUnpinned        EventKind = "unpinned"
)

// EventKinds returns all kinds.
func EventKinds() []EventKind {
	return []EventKind{
		EventTagMoved, EventReleaseMoved, EventEvicted, EventFillDone, EventFillFailed, EventVerificationFailed,
		EventQuarantined, EventDegraded, EventRecovered, EventUpstreamFailing, EventUpstreamBack, EventLimited,
		EventServedStale, EventPurged, EventPinned, EventUnpinned,
	}
}

const (
	// fillDoneLeast is how large a blob must be that its fill is worth an event.
	fillDoneLeast = 32 << 20
	// upstreamToldEvery is how often at most an event tells that an upstream fails or limits.
	upstreamToldEvery = time.Minute
)

// event tells of what happened. No lock of the cache is held that its methods take.
func (c *Cache) event(e Event) {
	if c.opts.OnEvent == nil || c.ctx.Err() != nil {
		return
	}
	e.At = time.Now()
	c.opts.OnEvent(e)
}

// eventOf is an event about something of a repository.
func eventOf(k EventKind, repo Repo, d v1.Hash) Event {
	return Event{Kind: k, Upstream: repo.Upstream, Repository: repo.Name, Digest: d}
}

// because adds why.
func (e Event) because(err error) Event {
	if err != nil {
		e.Detail = err.Error()
	}
	return e
}

// errTooLarge: it will never fit, which is no fault of the disk.
var errTooLarge = fmt.Errorf("too large: %w", errStorage)

// storeDoor is one way through which the store is used: what it refused last.
type storeDoor struct {
	broken atomic.Bool // why and since are set

	mu    sync.Mutex
	why   error
	since time.Time
}

// refused notes that the store did not do its work. It reports whether that is news.
func (s *storeDoor) refused(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := !s.broken.Swap(true)
	if s.why = err; news {
		s.since = time.Now()
	}
	return news
}

// worked notes that it did. It reports whether that is news.
func (s *storeDoor) worked() bool { return s.broken.Load() && s.broken.Swap(false) }

// trouble returns what was refused last, and since when; false when all is well.
func (s *storeDoor) trouble() (t Trouble, broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.broken.Load() || s.why == nil { // broken comes before why
		return Trouble{}, false
	}
	return Trouble{Cause: cmp.Or(causeOf(s.why), "other"), Why: s.why.Error(), Since: s.since}, true
}

// storeUsed takes in how the store took or gave something that it should have.
func (c *Cache) storeUsed(door *storeDoor, err error) {
	if err == nil {
		if door.worked() {
			c.event(Event{Kind: EventRecovered, Detail: c.doorName(door)})
		}
		return
	}
	if errors.Is(err, errTooLarge) || errors.Is(err, errClosed) || c.ctx.Err() != nil {
		return
	}
	if door.refused(err) {
		c.event(Event{Kind: EventDegraded, Detail: c.doorName(door) + ": " + err.Error()})
	}
}

func (c *Cache) doorName(door *storeDoor) string {
	switch door {
	case &c.reads:
		return Reading
	case &c.records:
		return Recording
	}
	return Writing
}

// What a [Trouble] may be about.
const (
	Reading   = "reading from the store"
	Writing   = "writing to the store"
	Recording = "writing to the index"
)

// Trouble is what the disk or the bucket could not do last, and has not done since.
// Clients are served all the same: from what is kept, or passed through.
type Trouble struct {
	What string `json:"what"` // Reading, Writing, Recording, or what the tier says of the bucket
	// Cause is "full", "read-only", "broken" (input or output errors), "descriptors" (too
	// many open files), "bucket" or "other".
	Cause string    `json:"cause"`
	Why   string    `json:"why"` // what was said last
	Since time.Time `json:"since"`
}

// Troubles returns what the store cannot do at present; nothing when all is well.
func (c *Cache) Troubles() []Trouble {
	all := []Trouble{}
	for _, door := range []*storeDoor{&c.reads, &c.writes, &c.records} {
		if t, broken := door.trouble(); broken {
			t.What = c.doorName(door)
			all = append(all, t)
		}
	}
	if c.tier != nil {
		for _, f := range c.tier.Faults() {
			all = append(all, Trouble{What: f.What, Cause: "bucket", Why: f.Err.Error(), Since: f.Since})
		}
	}
	return all
}

// telling makes events of how an upstream answers.
type telling struct {
	tell    func(Event)  // nil means that nobody wants to know
	failed  atomic.Int64 // Unix nanoseconds of the last EventUpstreamFailing
	limited atomic.Int64 // of the last EventLimited
	failing atomic.Bool  // it was told of as failing, and not as back since
}

// saw takes in the outcome of a request to the upstream.
func (t *telling) saw(err error, now time.Time) {
	if t.tell == nil {
		return
	}
	switch kind := pull.KindOf(err); {
	case err != nil && (kind == pull.Unavailable || kind == pull.Timeout):
		if t.due(&t.failed, now) && t.failing.CompareAndSwap(false, true) {
			t.tell(Event{Kind: EventUpstreamFailing}.because(err))
		}
		return
	case err != nil && kind == pull.Limited:
		if t.due(&t.limited, now) {
			t.tell(Event{Kind: EventLimited}.because(err))
		}
	}
	if t.failing.Load() && t.failing.CompareAndSwap(true, false) {
		t.tell(Event{Kind: EventUpstreamBack})
	}
}

// due reports whether last is long enough ago, and then sets it.
func (t *telling) due(last *atomic.Int64, now time.Time) bool {
	was := last.Load()
	return now.UnixNano()-was >= int64(upstreamToldEvery) && last.CompareAndSwap(was, now.UnixNano())
}
