// Package health says how an upstream does: by the share of its answers in the last minute, and
// not by its last word.
//
// It promises that what cannot be had of one repository makes no registry a failing one, and that
// an upstream that wavers is told of once. It stops no request: it only tells.
package health

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"forebay/cache/event"
	"forebay/internal/pull"
)

const (
	// FailingFor is how long after a failure an upstream counts as failing to who waits for it
	// unless it answered since.
	FailingFor = 30 * time.Second
	// step is that in which answers are counted, and steps are so many as make the last minute.
	step, steps = 2 * time.Second, 30
	// calm is the steps of which less than a fifth must have failed before an upstream counts as back
	// that wavered. One of which half of the requests fail has ten good answers in a row now and then.
	calm = 3
	// staleAfter is how long a failure is news that nobody has asked about since.
	staleAfter = 2 * time.Minute
	// thingsMost bounds what is remembered of an upstream: manifests and blobs that failed.
	thingsMost = 256
	// limitedEvery is how often at most an event tells that an upstream limits.
	limitedEvery = time.Minute
)

// Upstream watches one upstream. Tell is required, and is called for events without their upstream.
// Its methods may be called concurrently.
type Upstream struct {
	Tell func(event.Event)

	mu        sync.Mutex
	last      time.Time // guarded by mu, as all below; of the last answer or failure
	failed    bool      // its last word was a failure or a limit
	words     string    // of the last failure
	reached   bool      // and it was an answer
	failedAt  time.Time
	limitedAt time.Time // of the last event.Limited
	counts    [steps]count
	things    map[thing]*fault
	failing   time.Time // since when it fails; zero while it does not
	wavers    bool      // while it fails, some answers come
}

// count is what came in one step.
type count struct {
	step      int64
	good, bad int
}

// thing is what is asked for of a repository: a tag, a digest or a list.
type thing struct{ repository, what string }

// fault is a thing that failed, and was not to be had since.
type fault struct {
	times       int
	first, last time.Time
	words       string
}

// Observe takes in how a request for a thing of a repository ended.
func (u *Upstream) Observe(repository, what string, err error) {
	now := time.Now()
	kind := pull.KindOf(err)
	bad := err != nil && (kind == pull.Unavailable || kind == pull.Timeout)
	limited := err != nil && kind == pull.Limited
	var told []event.Event
	defer func() { u.tell(told) }()
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.at(now)
	if bad {
		c.bad++
		var e *pull.Error
		u.wavers = u.last.After(u.failedAt)
		u.failedAt, u.reached = now, errors.As(err, &e) && e.Status != 0
		// One that is left alone for a while was not asked, and its error tells that of another request.
		if e == nil || u.reached || e.RetryAfter == 0 {
			u.words = pull.Words(err)
		}
		u.fail(thing{repository, what}, now)
	} else {
		c.good++
		delete(u.things, thing{repository, what})
	}
	if limited && now.Sub(u.limitedAt) >= limitedEvery {
		u.limitedAt = now
		told = append(told, event.Event{Kind: event.Limited}.Because(err))
	}
	u.last, u.failed = now, bad || limited
	told = append(told, u.judge(now)...)
}

func (u *Upstream) tell(all []event.Event) {
	for _, e := range all {
		u.Tell(e)
	}
}

// at returns the count of the step of now. u.mu is held.
func (u *Upstream) at(now time.Time) *count {
	n := now.UnixNano() / int64(step)
	c := &u.counts[n%steps]
	if c.step != n {
		*c = count{step: n}
	}
	return c
}

// fail remembers that a thing failed. u.mu is held.
func (u *Upstream) fail(t thing, now time.Time) {
	if u.things == nil {
		u.things = map[thing]*fault{}
	}
	f := u.things[t]
	if f == nil {
		if len(u.things) >= thingsMost {
			u.forget(now)
		}
		if len(u.things) >= thingsMost {
			return
		}
		f = &fault{first: now}
		u.things[t] = f
	}
	f.times, f.last, f.words = f.times+1, now, u.words
}

// forget drops what nobody has asked for since it failed a while ago. u.mu is held.
func (u *Upstream) forget(now time.Time) {
	for t, f := range u.things {
		if now.Sub(f.last) > staleAfter {
			delete(u.things, t)
		}
	}
}

// sum counts the last steps. u.mu is held.
func (u *Upstream) sum(now time.Time, last int64) (good, bad int) {
	n := now.UnixNano() / int64(step)
	for _, c := range u.counts {
		if c.step > n-last && c.step <= n {
			good, bad = good+c.good, bad+c.bad
		}
	}
	return good, bad
}

// judge decides anew whether the upstream fails, and returns what is to be told of that. u.mu is held.
func (u *Upstream) judge(now time.Time) []event.Event {
	switch {
	case u.failing.IsZero() && u.fails(now):
		u.failing = now
		return []event.Event{{Kind: event.UpstreamFailing, Detail: u.words}}
	case !u.failing.IsZero() && u.back(now):
		u.failing, u.things = time.Time{}, nil // those that failed with it say nothing of themselves
		return []event.Event{{Kind: event.UpstreamBack}}
	}
	return nil
}

// fails reports whether what failed in the last minute says something of the upstream: half of what
// it was asked for, and of several things; or all of it, and no answer came at all.
func (u *Upstream) fails(now time.Time) bool {
	good, bad := u.sum(now, steps)
	several := 0
	for _, f := range u.things {
		if now.Sub(f.last) < steps*step {
			several++
		}
	}
	if good == 0 {
		return bad >= 2 && (several > 1 || !u.reached)
	}
	return bad >= 3 && bad >= good && several > 1
}

// back reports whether an upstream that failed answers again.
func (u *Upstream) back(now time.Time) bool {
	good, bad := u.sum(now, calm)
	return u.last.After(u.failedAt) && now.Sub(u.failedAt) >= step && (!u.wavers || bad*5 < good+bad)
}

// Failing reports whether its last word was a failure or a limit, a short while ago: what a client
// need not wait for that can be served otherwise.
func (u *Upstream) Failing() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failed && time.Since(u.last) < FailingFor
}

// Report is how an upstream does.
type Report struct {
	LastAsked time.Time // zero: not since the start
	FailsFrom time.Time // since when it fails; zero while it does not, and when nobody has asked it for a while
	Good, Bad int       // answers and failures of the last minute
	Words     string    // what it did when it failed last; see [pull.Words]
	// Faults are the repositories of which something failed again and again, and was not to be had
	// since: the one with most failures first.
	Faults []Fault
}

// Fault is a repository of which something cannot be had.
type Fault struct {
	Repository string
	Things     int // manifests, blobs and lists that cannot be had
	Times      int // requests that failed
	Since      time.Time
	Words      string // of the last one
}

// Report returns how it does at this moment.
func (u *Upstream) Report() Report {
	now := time.Now()
	var told []event.Event
	defer func() { u.tell(told) }()
	u.mu.Lock()
	defer u.mu.Unlock()
	told = u.judge(now)
	u.forget(now)
	r := Report{LastAsked: u.last, Words: u.words}
	if now.Sub(u.failedAt) <= staleAfter {
		r.FailsFrom = u.failing
	}
	r.Good, r.Bad = u.sum(now, steps)
	at := map[string]int{}
	latest := time.Time{}
	for t, f := range u.things {
		if f.times < 2 {
			continue
		}
		i, ok := at[t.repository]
		if !ok {
			i = len(r.Faults)
			at[t.repository] = i
			r.Faults = append(r.Faults, Fault{Repository: t.repository, Since: f.first})
		}
		one := &r.Faults[i]
		one.Things, one.Times = one.Things+1, one.Times+f.times
		if f.first.Before(one.Since) {
			one.Since = f.first
		}
		if one.Words == "" || f.last.After(latest) {
			one.Words, latest = f.words, f.last
		}
	}
	slices.SortFunc(r.Faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(b.Times, a.Times), cmp.Compare(a.Repository, b.Repository))
	})
	return r
}
