package activity

import (
	"cmp"
	"container/heap"
	"slices"
	"sync"
	"time"
)

// How many are remembered of each. An entry takes about a kilobyte, so that all of them
// stay below 4 MiB.
const (
	clientsMost = 512
	reposMost   = 512
	pairsMost   = 2048
)

// hoursKept is for how many hours, the present one included, entries are counted by the hour.
const hoursKept = 24

// Tally is what was answered.
type Tally struct {
	Requests   int64 `json:"requests"`
	Hits       int64 `json:"hits"` // served without asking a registry for content
	Errors     int64 `json:"errors"`
	Pulls      int64 `json:"pulls"`       // GETs of manifests
	SavedPulls int64 `json:"saved_pulls"` // of these, those that cost no pull upstream
	Bytes      int64 `json:"bytes"`       // sent
}

func (t *Tally) add(o Tally) {
	t.Requests += o.Requests
	t.Hits += o.Hits
	t.Errors += o.Errors
	t.Pulls += o.Pulls
	t.SavedPulls += o.SavedPulls
	t.Bytes += o.Bytes
}

// ClientInfo is what one client asked for.
type ClientInfo struct {
	Address   string `json:"address"`
	Name      string `json:"name,omitempty"` // by a label, or by the name server
	User      string `json:"user,omitempty"` // who it proved to be last
	UserAgent string `json:"user_agent"`     // of its last request
	Tally
	LastSeen  time.Time `json:"last_seen"`
	Since     time.Time `json:"since"` // when counting it began
	LastError string    `json:"last_error,omitempty"`
	ErrorAt   time.Time `json:"error_at,omitzero"`
	// Repositories are those that it asked for, the most traffic first, at most 20.
	Repositories []RepositoryUse `json:"repositories"`
}

// RepositoryUse is what was asked for of one repository, by one client or by all.
type RepositoryUse struct {
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	Tally
	LastSeen time.Time `json:"last_seen"`
}

// Window is a time back from now.
type Window string

// The windows. An hour and a day count whole hours of the clock, the present one included.
const (
	Hour  Window = "hour"
	Day   Window = "day"
	Start Window = "start" // since the start, or since an entry is counted
)

// repoKey names a repository; client is empty in those of all clients.
type repoKey struct{ client, upstream, repository string }

// top are the clients, repositories, and pairs of both, that ask most.
type top struct {
	mu      sync.Mutex
	clients sketch[string]  // guarded by mu
	repos   sketch[repoKey] // guarded by mu
	pairs   sketch[repoKey] // guarded by mu
}

func (t *top) init() {
	t.clients, t.repos, t.pairs = newSketch[string](clientsMost), newSketch[repoKey](reposMost), newSketch[repoKey](pairsMost)
}

// Bounds of texts from outside.
const (
	addressLen    = 64
	agentLen      = 120
	upstreamLen   = 255
	repositoryLen = 255 // as long as one may be
	faultLen      = 300
)

func (t *top) observe(q *Request, what result, now time.Time) {
	one := Tally{Requests: 1, Bytes: q.Bytes}
	if what.saves() {
		one.Hits = 1
	}
	if what == failed {
		one.Errors = 1
	}
	if q.Pull {
		one.Pulls = 1
		if what.saves() {
			one.SavedPulls = 1
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.clients.count(q.Client, one, now, func(s string) string { return clip(s, addressLen) })
	if c.agent != q.UserAgent && !(len(c.agent) >= agentLen && len(q.UserAgent) > agentLen) {
		c.agent = clip(q.UserAgent, agentLen)
	}
	if q.User != c.user && q.User != "" {
		c.user = clip(q.User, nameLen)
	}
	c.wants(q, what, now)
	if what == failed {
		c.fault, c.faultAt = clip(q.Fault, faultLen), now
	}
	if q.Repository == "" {
		return
	}
	own := func(k repoKey) repoKey {
		return repoKey{clip(k.client, addressLen), clip(k.upstream, upstreamLen), clip(k.repository, repositoryLen)}
	}
	t.repos.count(repoKey{"", q.Upstream, q.Repository}, one, now, own)
	t.pairs.count(repoKey{q.Client, q.Upstream, q.Repository}, one, now, own)
}

// Clients returns the clients with the most traffic, at most n, with what they ask for.
func (r *Recorder) Clients(w Window, n int) []ClientInfo {
	list := r.clients(w, n)
	for i := range list {
		list[i].Name = r.opts.Names.Of(list[i].Address)
	}
	return list
}

func (r *Recorder) clients(w Window, n int) []ClientInfo {
	const reposOfClient = 20
	now := time.Now()
	r.top.mu.Lock()
	defer r.top.mu.Unlock()
	list := []ClientInfo{}
	for key, e := range r.top.clients.entries {
		if t := e.tally(w, now); t.Requests > 0 {
			list = append(list, ClientInfo{
				Address: key, User: e.user, UserAgent: e.agent, Tally: t, LastSeen: e.last, Since: e.since,
				LastError: e.fault, ErrorAt: e.faultAt, Repositories: []RepositoryUse{},
			})
		}
	}
	slices.SortFunc(list, func(a, b ClientInfo) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Address, b.Address))
	})
	list = list[:min(n, len(list))]
	at := make(map[string]int, len(list))
	for i := range list {
		at[list[i].Address] = i
	}
	for key, e := range r.top.pairs.entries {
		i, shown := at[key.client]
		if t := e.tally(w, now); shown && t.Requests > 0 {
			list[i].Repositories = append(list[i].Repositories, RepositoryUse{key.upstream, key.repository, t, e.last})
		}
	}
	for i := range list {
		list[i].Repositories = mostUsed(list[i].Repositories, reposOfClient)
	}
	return list
}

// Repositories returns the repositories with the most traffic, at most n.
func (r *Recorder) Repositories(w Window, n int) []RepositoryUse {
	now := time.Now()
	r.top.mu.Lock()
	defer r.top.mu.Unlock()
	list := []RepositoryUse{}
	for key, e := range r.top.repos.entries {
		if t := e.tally(w, now); t.Requests > 0 {
			list = append(list, RepositoryUse{key.upstream, key.repository, t, e.last})
		}
	}
	return mostUsed(list, n)
}

func mostUsed(list []RepositoryUse, n int) []RepositoryUse {
	slices.SortFunc(list, func(a, b RepositoryUse) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Requests, a.Requests),
			cmp.Compare(a.Upstream, b.Upstream), cmp.Compare(a.Repository, b.Repository))
	})
	return list[:min(n, len(list))]
}

// sketch keeps the heaviest keys of a stream in bounded memory, by the Space-Saving algorithm
// (Metwally, Agrawal, El Abbadi 2005). A new key replaces the lightest and inherits its
// weight, so that a heavy key stays however many others pass by. The tally of an entry
// counts only from when the key got its place.
type sketch[K comparable] struct {
	most    int
	entries map[K]*entry[K]
	order   lightest[K]
	hour    int64 // as of which weights are; they halve with each, so that the past yields
}

type entry[K comparable] struct {
	key     K
	weight  int64
	place   int // in the heap
	total   Tally
	hours   [hoursKept]Tally
	stamps  [hoursKept]int64 // the hour that each of hours is of
	since   time.Time
	last    time.Time
	agent   string
	user    string
	blobs   bool                 // it asked for one
	lone    map[string]time.Time // when it got a manifest that was new here of repositories of which it asked for no blob
	fault   string
	faultAt time.Time
}

func newSketch[K comparable](most int) sketch[K] {
	return sketch[K]{most: most, entries: make(map[K]*entry[K])}
}

// count adds to the entry of a key, which own copies if it is new.
func (s *sketch[K]) count(key K, t Tally, now time.Time, own func(K) K) *entry[K] {
	hour := now.Unix() / 3600
	s.age(hour)
	e := s.entries[key]
	if e == nil {
		e = s.admit(own(key), now)
	}
	// A request weighs as much as 64 KiB, so that clients with many small requests are kept
	// as well as those with a few large ones.
	e.weight += t.Requests + t.Bytes>>16
	heap.Fix(&s.order, e.place)
	e.total.add(t)
	i := hour % hoursKept
	if e.stamps[i] != hour {
		e.stamps[i], e.hours[i] = hour, Tally{}
	}
	e.hours[i].add(t)
	e.last = now
	return e
}

func (s *sketch[K]) admit(key K, now time.Time) *entry[K] {
	if e := s.entries[key]; e != nil { // two keys that are the same once clipped
		return e
	}
	e := &entry[K]{key: key, since: now}
	if len(s.entries) < s.most {
		heap.Push(&s.order, e)
	} else {
		least := s.order[0]
		delete(s.entries, least.key)
		e.weight, s.order[0] = least.weight, e
	}
	s.entries[key] = e
	return e
}

// age halves the weights once for each hour that has passed, which keeps their order.
func (s *sketch[K]) age(hour int64) {
	passed := hour - s.hour
	if passed == 0 {
		return
	}
	s.hour = hour
	for _, e := range s.order {
		e.weight >>= min(max(passed, 0), 62)
	}
}

func (e *entry[K]) tally(w Window, now time.Time) Tally {
	if w == Start {
		return e.total
	}
	var sum Tally
	hour, back := now.Unix()/3600, int64(1) // the last whole hour too, else little is seen at the beginning of one
	if w == Day {
		back = hoursKept - 1
	}
	for i, stamp := range e.stamps {
		if stamp > hour-back-1 && stamp <= hour {
			sum.add(e.hours[i])
		}
	}
	return sum
}

// lightest is a heap of entries, the lightest first.
type lightest[K comparable] []*entry[K]

func (l lightest[K]) Len() int           { return len(l) }
func (l lightest[K]) Less(i, j int) bool { return l[i].weight < l[j].weight }
func (l lightest[K]) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].place, l[j].place = i, j
}
func (l *lightest[K]) Push(x any) {
	e := x.(*entry[K])
	e.place = len(*l)
	*l = append(*l, e)
}
func (l *lightest[K]) Pop() any { // heap.Interface wants it; entries are replaced, never popped
	e := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return e
}
