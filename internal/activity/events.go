package activity

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// ringMost is how many events of one kind are remembered for one upstream. Each has a ring
	// of its own, so that neither what happens all the time nor what clients and registries can
	// make happen pushes out anything else.
	ringMost = 200
	// ringStored is how many of them are stored at most.
	ringStored = 100
)

// Event is something that happened.
type Event struct {
	// ID grows with each event, over restarts too.
	ID         int64     `json:"id"`
	At         time.Time `json:"at"`
	Kind       string    `json:"kind"` // "tag_moved", "evicted"
	Upstream   string    `json:"upstream,omitempty"`
	Repository string    `json:"repository,omitempty"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest,omitempty"`
	Was        string    `json:"was,omitempty"`   // of a tag that moved: its digest before
	Count      int64     `json:"count,omitempty"` // files that were removed
	Bytes      int64     `json:"bytes,omitempty"`
	Detail     string    `json:"detail,omitempty"`
	Actor      string    `json:"actor,omitempty"` // the operator who did it
}

// ring tells the rings of events apart. Kinds are ours, and upstreams are configured: there are
// a few hundred at most.
type ring struct{ kind, upstream string }

// Events is a log of bounded length. Its methods may be called concurrently.
type Events struct {
	mu    sync.Mutex
	last  int64            // guarded by mu; ID of the last event
	rings map[ring][]Event // guarded by mu; each oldest first
	more  chan struct{}    // guarded by mu; closed with the next event
	saved int64            // guarded by mu; ID of the last event that encode wrote
}

// newEvents returns an empty log. IDs begin with the time, so that they grow even when
// what was stored is lost.
func newEvents(now time.Time) *Events {
	return &Events{last: now.UnixMilli(), rings: map[ring][]Event{}, more: make(chan struct{})}
}

// Add appends an event; its ID is set here.
func (l *Events) Add(e Event) {
	e.Kind, e.Upstream, e.Repository = clip(e.Kind, 40), clip(e.Upstream, upstreamLen), clip(e.Repository, repositoryLen)
	e.Tag, e.Digest, e.Was, e.Detail, e.Actor = clip(e.Tag, 128), clip(e.Digest, 140), clip(e.Was, 140), clip(e.Detail, faultLen), clip(e.Actor, nameLen)
	if e.At.IsZero() {
		e.At = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.ID = l.last
	to := ring{e.Kind, e.Upstream}
	l.rings[to] = appendRing(l.rings[to], e, ringMost)
	close(l.more)
	l.more = make(chan struct{})
}

// appendRing appends, and drops the oldest in bulk, so that copying costs little for each.
func appendRing(list []Event, e Event, most int) []Event {
	if len(list) >= most+most/4 {
		list = append(list[:0], list[len(list)-most+1:]...)
	}
	return append(list, e)
}

func newest(list []Event, most int) []Event { return list[max(len(list)-most, 0):] }

// EventQuery says which events are asked for. Empty fields admit all.
type EventQuery struct {
	Kinds    []string
	Upstream string
	Text     string    // part of the repository, tag, digest or detail, in any case
	Before   int64     // only events with a lower ID; 0 means all
	Until    time.Time // only events before; zero means all
	Limit    int
}

func (q *EventQuery) admits(e *Event) bool {
	if q.Before > 0 && e.ID >= q.Before || q.Upstream != "" && q.Upstream != e.Upstream || !q.Until.IsZero() && !e.At.Before(q.Until) {
		return false
	}
	if len(q.Kinds) > 0 && !slices.Contains(q.Kinds, e.Kind) {
		return false
	}
	if q.Text == "" {
		return true
	}
	whole := strings.ToLower(e.Upstream + "/" + e.Repository + ":" + e.Tag + " " + e.Digest + " " + e.Was + " " + e.Detail + " " + e.Actor)
	return strings.Contains(whole, strings.ToLower(q.Text))
}

// List returns events, the latest first, and whether there are older ones that match.
func (l *Events) List(q EventQuery) (list []Event, more bool) {
	list = []Event{}
	all := l.all()
	for i := len(all) - 1; i >= 0; i-- {
		if !q.admits(&all[i]) {
			continue
		}
		if len(list) == q.Limit {
			return list, true
		}
		list = append(list, all[i])
	}
	return list, false
}

// all returns a copy of all events, oldest first.
func (l *Events) all() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest(ringMost)
}

// newest returns a copy of the latest events, at most most of each ring, oldest first. l.mu is held.
func (l *Events) newest(most int) (list []Event) {
	for _, one := range l.rings {
		list = append(list, newest(one, most)...)
	}
	slices.SortFunc(list, func(a, b Event) int { return int(a.ID - b.ID) })
	return list
}

// Last returns the ID of the latest event, or what it would have been.
func (l *Events) Last() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// After returns the events after one, oldest first, and a channel that is closed when
// there are others. Readers follow at their own pace: nobody waits for them, and nothing
// is kept for them.
func (l *Events) After(id int64) ([]Event, <-chan struct{}) {
	l.mu.Lock()
	more, none := l.more, l.last <= id
	l.mu.Unlock()
	if none {
		return nil, more
	}
	list := l.all()
	from, _ := slices.BinarySearchFunc(list, id+1, func(e Event, id int64) int { return int(e.ID - id) })
	return list[from:], more
}

// encode writes the latest events, as many as fit, and tells whether there are new ones.
func (l *Events) encode() (b []byte, changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed = l.saved != l.last
	l.saved = l.last
	for most := ringStored; ; most /= 2 {
		b, err := json.Marshal(l.newest(most))
		if err != nil {
			panic("activity: an event cannot be JSON: " + err.Error()) // texts and numbers can
		}
		if len(b) <= NoteMost || most == 0 {
			return b, changed
		}
	}
}

// decode reads what encode wrote, into a log without events.
func (l *Events) decode(b []byte) error {
	var list []Event
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("stored events: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range list {
		if e.ID <= 0 || e.ID >= 1<<53 {
			return fmt.Errorf("stored events: %d is no ID", e.ID)
		}
		to := ring{e.Kind, e.Upstream}
		l.rings[to] = appendRing(l.rings[to], e, ringMost)
		l.last = max(l.last, e.ID)
	}
	l.saved = l.last
	return nil
}
