package trouble

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"forebay/cache"
	"forebay/cache/upkeep"
	"forebay/internal/allowance"
	"forebay/internal/fleet"
	"forebay/internal/lane"
	"forebay/internal/pull"
	"forebay/upstream"
)

const (
	// lookEvery is how often [Watch.Run] looks, and freshFor is how old what [Watch.List] returns may
	// be: it looks itself, but never waits for a disk that somebody else waits for.
	lookEvery = time.Second
	freshFor  = 250 * time.Millisecond
	// linger is how long a trouble is told that was over a moment ago: a disk that is nearly full
	// takes what is small and refuses what is large, several times a second.
	linger = 2 * time.Second
	// tellAfter is how long a trouble must have lasted before its beginning is told, and been over before
	// its end is: what comes and goes is one trouble for who is called in the night.
	tellAfter = 15 * time.Second
	// clientsMost bounds those whose refusals are remembered, and refusedFor is for how long.
	clientsMost = 256
	refusedFor  = 6 * time.Second
)

// Sources are what a [Watch] looks at. Keeper is required.
type Sources struct {
	Keeper     *upkeep.Keeper
	Registries func() []*upstream.Registry // nil where there are none
	// Readable returns why the store cannot be read at all, or nil.
	Readable func() error
	// Drill returns until when an outage is rehearsed; nil means that none ever is.
	Drill func() time.Time
	// Away returns since when other mirrors cannot be told, and why; zero while they can. nil: there are none.
	Away func() (time.Time, error)
	// Mirrors are those of the fleet with which something is wrong; nil: there are none.
	Mirrors func() []fleet.Ailing
	// Notices are what is to be told of the configuration.
	Notices []string
	Names   Names
	// Tell is told of what has begun and ended, of each once, and must not wait; nil means nobody.
	// Notices are not told.
	Tell func(t Trouble, ended bool)
}

// Names are what settings are called where they are made, for texts that say what to change.
type Names struct {
	MaxSize        string // how much the store may hold
	Limits         string // of each client
	MaxConnections string // of an upstream
}

// Watch knows what is wrong. Its methods may be called concurrently.
type Watch struct {
	sources Sources

	looking sync.Mutex // held while somebody looks; taken before mu

	mu       sync.Mutex
	looked   time.Time           // guarded by mu; zero: never
	known    map[string]*lasting // guarded by mu; by ID
	told     map[string]*lasting // guarded by mu; by ID: whose beginning was told
	inUse    InUse               // guarded by mu
	list     []Trouble           // guarded by mu
	refused  map[refusal]*refusals
	counts   []sample  // guarded by mu; of the last hour, oldest first
	wrong    [2]int64  // guarded by mu; contents without their digest so far: sent, kept
	wrongAt  time.Time // guarded by mu; when there were more of them
	wrongNow [2]int64  // guarded by mu; how many more, in this hour
}

// lasting is a trouble with when it was seen last.
type lasting struct {
	Trouble
	seen time.Time
}

// refusal is who was refused, by what limit; refusals are how often.
type refusal struct {
	client, upstream string
	limit            string
}

type refusals struct {
	n           int
	since, last time.Time
}

// New returns a watch that has not looked yet. Its owner starts Run once, or nobody does.
func New(s Sources) *Watch {
	if s.Registries == nil {
		s.Registries = func() []*upstream.Registry { return nil }
	}
	return &Watch{sources: s, known: map[string]*lasting{}, told: map[string]*lasting{}, refused: map[refusal]*refusals{}}
}

// Run looks every second until ctx is done, so that it is known since when something is wrong.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		w.look()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// List returns what is wrong, the most urgent first and then what began first.
func (w *Watch) List() []Trouble {
	w.mu.Lock()
	never, fresh := w.looked.IsZero(), time.Since(w.looked) < freshFor
	w.mu.Unlock()
	switch {
	case never:
		w.look()
	case !fresh && w.looking.TryLock():
		w.looking.Unlock()
		w.look()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

// State returns how an upstream does.
func (w *Watch) State(u cache.UpstreamInfo) State {
	for _, r := range w.sources.Registries() {
		if r.Name() == u.Name {
			return stateOf(u, r.Status(), time.Now())
		}
	}
	return stateOf(u, upstream.Status{}, time.Now())
}

// Public says in one line what everybody may be told, "" when all is well.
func (w *Watch) Public() string {
	var all []string
	for _, t := range w.List() {
		if t.Severity != Notice {
			all = append(all, t.What)
		}
	}
	return strings.Join(all, "; ")
}

// look finds out what is wrong now.
func (w *Watch) look() {
	w.looking.Lock()
	defer w.looking.Unlock()
	e := w.evidence()
	w.judge(&e)
}

// judge takes in what is wrong by e.
func (w *Watch) judge(e *evidence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remember(e)
	for _, t := range judge(e) {
		known := w.known[t.ID]
		if known == nil {
			known = &lasting{Trouble: Trouble{Since: e.now}}
			w.known[t.ID] = known
		}
		if t.Since.IsZero() || known.Since.Before(t.Since) {
			t.Since = known.Since
		}
		known.Trouble, known.seen = t, e.now
	}
	w.list = w.list[:0:0]
	for id, t := range w.known {
		if e.now.Sub(t.seen) >= linger {
			delete(w.known, id)
			continue
		}
		w.list = append(w.list, t.Trouble)
	}
	slices.SortFunc(w.list, func(a, b Trouble) int {
		return cmp.Or(cmp.Compare(a.Severity.rank(), b.Severity.rank()), a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	w.looked = e.now
	w.tell(e.now)
}

// tell tells what has begun and ended. w.mu is held.
func (w *Watch) tell(now time.Time) {
	if w.sources.Tell == nil {
		return
	}
	for id, t := range w.known {
		if told := w.told[id]; told != nil {
			told.seen = t.seen
		} else if t.Severity != Notice && now.Sub(t.Since) >= tellAfter && now.Sub(t.seen) < linger {
			w.told[id] = &lasting{t.Trouble, t.seen}
			w.sources.Tell(t.Trouble, false)
		}
	}
	for id, t := range w.told {
		if now.Sub(t.seen) >= tellAfter {
			delete(w.told, id)
			w.sources.Tell(t.Trouble, true)
		}
	}
}

// evidence is what is judged.
type evidence struct {
	now        time.Time
	unreadable error
	drill      time.Time
	upstreams  []cache.UpstreamInfo
	registries map[string]upstream.Status
	stats      upkeep.Stats
	statsErr   error
	figures    upkeep.Figures
	refused    map[refusal]refusals
	hour       sample    // what was evicted in the last hour
	away       time.Time // since when other mirrors cannot be told
	awayErr    error
	mirrors    []fleet.Ailing
	wrong      [2]int64
	wrongAt    time.Time
	notices    []string
	gone       int // images and repositories that their registries say are gone
	names      Names
}

// evidence gathers it. The disk may be slow to answer.
func (w *Watch) evidence() evidence {
	s := w.sources
	e := evidence{registries: map[string]upstream.Status{}, upstreams: s.Keeper.Cache.Upstreams(), notices: s.Notices, names: s.Names, gone: len(s.Keeper.Cache.Gone().All())}
	if s.Readable != nil {
		e.unreadable = s.Readable()
	}
	if s.Drill != nil {
		e.drill = s.Drill()
	}
	if s.Away != nil {
		e.away, e.awayErr = s.Away()
	}
	if s.Mirrors != nil {
		e.mirrors = s.Mirrors()
	}
	for _, r := range s.Registries() {
		status := r.Status()
		e.registries[status.Upstream] = status
	}
	e.stats, e.statsErr = s.Keeper.Stats()
	e.figures, _ = s.Keeper.Figures() // what it may lack is the size of the index
	e.now = time.Now()
	return e
}

// sample is what was evicted: files, and those that somebody had used in the six hours before.
type sample struct {
	at         time.Time
	all, young int64
	bytes      int64
}

// youngFor is how long ago what is evicted should have been used last: with less, what a day's work
// needs in the morning is not there any more in the afternoon.
const youngFor = 6 * time.Hour

// remember adds what was counted before. w.mu is held.
func (w *Watch) remember(e *evidence) {
	ages := e.figures.Store.EvictedAges
	now := sample{at: e.now, all: int64(ages.Count), bytes: e.stats.EvictedBytes}
	for _, b := range ages.Buckets {
		if b.UpTo <= youngFor {
			now.young = int64(b.Count)
		}
	}
	if n := len(w.counts); n == 0 || e.now.Sub(w.counts[n-1].at) >= time.Minute {
		w.counts = append(w.counts, now)
	}
	for len(w.counts) > 1 && e.now.Sub(w.counts[0].at) > time.Hour {
		w.counts = w.counts[1:]
	}
	first := w.counts[0]
	e.hour = sample{at: first.at, all: now.all - first.all, young: now.young - first.young, bytes: now.bytes - first.bytes}

	wrong := [2]int64{e.figures.Cache.SentWrong, e.figures.Store.Damaged}
	if wrong != w.wrong {
		if e.now.Sub(w.wrongAt) > time.Hour {
			w.wrongNow = [2]int64{}
		}
		for i := range wrong {
			w.wrongNow[i] += wrong[i] - w.wrong[i]
		}
		w.wrong, w.wrongAt = wrong, e.now
	}
	e.wrong, e.wrongAt = w.wrongNow, w.wrongAt

	e.refused = map[refusal]refusals{}
	for who, r := range w.refused {
		if e.now.Sub(r.last) > refusedFor {
			delete(w.refused, who)
			continue
		}
		e.refused[who] = *r
	}
}

// Refused takes in an error that a client got, whatever it is about.
func (w *Watch) Refused(client, upstream string, err error) {
	limit := LimitOf(err)
	if limit == "" {
		return
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	key := refusal{client, upstream, limit}
	r := w.refused[key]
	if r == nil {
		if len(w.refused) >= clientsMost {
			return
		}
		r = &refusals{since: now}
		w.refused[key] = r
	}
	r.n, r.last = r.n+1, now
}

// LimitOf returns which bound of the mirror's own err tells of: requests, transfers, new, pulls, share, fills and reserve are
// for one client, queue and connections for one registry; "" for none.
func LimitOf(err error) string {
	if err == nil {
		return "" // of most requests, and so before anything is allocated
	}
	var limit allowance.Limit
	switch {
	case errors.As(err, &limit):
		return string(limit)
	case errors.Is(err, lane.ErrFull):
		return "queue"
	case pull.KindOf(err) == pull.Overloaded:
		return "connections"
	}
	return ""
}
