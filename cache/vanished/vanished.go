// Package vanished knows which tags and repositories their registries say are gone that they had.
//
// It promises to believe that only of a registry that answers otherwise, and only when it has said so
// for a while: registries deny and miss what they have when their own parts fail. What it knows is kept in
// a file, within a bound. It asks nobody: it is told every answer, and says what is to be asked again.
package vanished

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"forebay/cache/event"
	"forebay/cache/index"
	"forebay/internal/pull"
	"forebay/internal/statefile"
)

const (
	// confirmAfter is for how long a registry must say so, and loneAfter for how long one of which nothing
	// else has answered meanwhile: it may deny everything.
	confirmAfter = 10 * time.Minute
	loneAfter    = 24 * time.Hour
	// askEvery is how often what may be gone is asked for, if no client does, and what is gone is.
	askEvery     = 5 * time.Minute
	askGoneEvery = 6 * time.Hour
	// askMost bounds how many are asked for at a time.
	askMost = 20
	// most bounds the list, and suspectsMost those on it of which it is not sure yet.
	most         = 2000
	suspectsMost = 500
	// clientsMost bounds who is remembered to have asked for one.
	clientsMost = 10
	fileMost    = 16 << 20
)

// Vanished is a tag, or without one a repository, that is gone.
type Vanished struct {
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
	// Denied: the registry refuses it. Where it is asked without credentials it was everybody's before,
	// and is served; else it may be that the credentials are not good for it any more, and it is not.
	Denied bool      `json:"denied,omitempty"`
	Served bool      `json:"served"` // what is kept of it
	Since  time.Time `json:"since,omitzero"`
	Said   string    `json:"said"` // by the registry
	// Pinned are the tags that are pinned since it is gone, and Bytes what they take. NotPinned says why not.
	Pinned    []string `json:"pinned,omitempty"`
	Bytes     int64    `json:"bytes,omitempty"`
	NotPinned string   `json:"not_pinned,omitempty"`
	// Asked is how often clients asked for it since, Last when the last did, and Clients who, the latest first.
	Asked   int64     `json:"asked"`
	Last    time.Time `json:"last,omitzero"`
	Clients []string  `json:"clients,omitempty"`

	Checked time.Time `json:"checked"`           // when it was last said
	Probe   string    `json:"probe,omitempty"`   // a tag of the repository to ask for
	First   time.Time `json:"first,omitzero"`    // when it was first said
	Handled bool      `json:"handled,omitempty"` // pinning was tried
	Back    bool      `json:"back,omitempty"`    // it is there again, and its pins are to be undone
}

// Repo is the repository.
func (v *Vanished) Repo() index.Repo { return index.Repo{Upstream: v.Upstream, Name: v.Repository} }

// Name is how people write it: "docker.io/library/nginx:1.27".
func (v *Vanished) Name() string {
	if v.Tag == "" {
		return v.Upstream + "/" + v.Repository
	}
	return v.Upstream + "/" + v.Repository + ":" + v.Tag
}

type name struct {
	repo index.Repo
	tag  string
}

// List knows them. Its methods may be called concurrently.
type List struct {
	file string
	tell func(event.Event) // called with no lock held
	any  atomic.Int64      // how many are gone or suspected

	mu       sync.Mutex
	list     map[name]*Vanished   // guarded by mu
	answered map[string]time.Time // guarded by mu; when each upstream gave something last
	dirty    bool                 // guarded by mu
}

// Open reads the list that an earlier run left in file, and tells what vanishes and returns. With an error it
// is empty, and usable.
func Open(file string, tell func(event.Event)) (*List, error) {
	l := &List{file: file, tell: tell, list: map[name]*Vanished{}, answered: map[string]time.Time{}}
	var kept []*Vanished
	err := statefile.Read(file, fileMost, &kept)
	for _, v := range kept {
		if len(l.list) < most && v != nil && v.Upstream != "" && v.Repository != "" {
			l.list[name{v.Repo(), v.Tag}] = v
		}
	}
	l.any.Store(int64(len(l.list)))
	return l, err
}

// Answer is what an upstream said of a repository.
type Answer struct {
	Repo index.Repo
	Tag  string // "" where it was not asked for a tag
	Err  error  // nil: it gave it
	// Public: it was asked without credentials, so that it said so to everybody.
	Public bool
	// Known reports whether something is known of the tag, without which nothing can vanish.
	Known func() bool
}

// Observe takes in an answer, and returns its error: that of kind NotFound where a repository that
// everybody could read is denied and gone.
func (l *List) Observe(a Answer, now time.Time) error {
	kind := pull.KindOf(a.Err)
	if a.Err == nil {
		l.answers(a, now)
		return nil
	}
	if kind != pull.NotFound && kind != pull.Denied || pull.DetailOf(a.Err) == pull.HeadOnly || pull.Foreign(a.Err) || kind == pull.NotFound && a.Tag == "" {
		return a.Err
	}
	at, denied := name{a.Repo, a.Tag}, kind == pull.Denied
	if denied {
		at.tag = ""
	}
	l.mu.Lock()
	v := l.list[at]
	l.mu.Unlock()
	if v == nil && (a.Tag == "" || !a.Known()) {
		return a.Err
	}
	l.mu.Lock()
	gone := l.suspect(at, a, denied, now)
	l.mu.Unlock()
	if gone != nil {
		l.told(event.Vanished, gone)
	}
	if denied && a.Public && l.isGone(at) {
		return &pull.Error{Kind: pull.NotFound, Upstream: a.Repo.Upstream, Op: "ask for " + a.Repo.Name, Message: "the repository, which everybody could read, is gone", Err: a.Err}
	}
	return a.Err
}

// suspect notes that something may be gone, and returns it when it is taken for gone from now on. l.mu is held.
func (l *List) suspect(at name, a Answer, denied bool, now time.Time) *Vanished {
	v := l.list[at]
	if v == nil {
		if len(l.list) >= most || l.suspects() >= suspectsMost {
			return nil
		}
		v = &Vanished{Upstream: at.repo.Upstream, Repository: at.repo.Name, Tag: at.tag, Denied: denied, First: now, Probe: a.Tag}
		l.list[at] = v
		l.any.Add(1)
	}
	v.Checked, v.Said, v.Served, v.Back, l.dirty = now, pull.Words(a.Err), !denied || a.Public, false, true
	long := now.Sub(v.First)
	if !v.Since.IsZero() || long < confirmAfter || long < loneAfter && !l.answered[at.repo.Upstream].After(v.First) {
		return nil
	}
	v.Since = v.First
	gone := *v
	return &gone
}

func (l *List) suspects() (n int) {
	for _, v := range l.list {
		if v.Since.IsZero() {
			n++
		}
	}
	return n
}

// answers notes that an upstream gave something, which may have been thought gone.
func (l *List) answers(a Answer, now time.Time) {
	var back []*Vanished
	l.mu.Lock()
	l.answered[a.Repo.Upstream] = now
	for _, at := range []name{{a.Repo, a.Tag}, {a.Repo, ""}} {
		v := l.list[at]
		if v == nil || v.Back {
			continue
		}
		l.dirty = true
		if v.Since.IsZero() {
			delete(l.list, at)
			l.any.Add(-1)
			continue
		}
		v.Back = true
		known := *v
		back = append(back, &known)
	}
	l.mu.Unlock()
	for _, v := range back {
		l.told(event.Returned, v)
	}
}

func (l *List) told(k event.Kind, v *Vanished) {
	e := event.Event{Kind: k, Upstream: v.Upstream, Repository: v.Repository, Tag: v.Tag, Detail: v.Said}
	if k == event.Returned {
		e.Detail = "it was gone since " + v.Since.UTC().Format(time.RFC3339)
	}
	l.tell(e)
}

func (l *List) isGone(at name) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.list[at]
	return v != nil && !v.Since.IsZero() && !v.Back
}

// Asked notes that a client asks for a tag; "" is not one. It costs next to nothing while nothing is gone.
func (l *List) Asked(repo index.Repo, tag, client string, now time.Time) {
	if l.any.Load() == 0 || client == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range []name{{repo, tag}, {repo, ""}} {
		v := l.list[at]
		if v == nil || v.Since.IsZero() {
			continue
		}
		v.Asked++
		v.Last, l.dirty = now, true
		if len(v.Clients) == 0 || v.Clients[0] != client {
			v.Clients = slices.DeleteFunc(v.Clients, func(c string) bool { return c == client })
			v.Clients = slices.Insert(v.Clients, 0, client)
			v.Clients = v.Clients[:min(len(v.Clients), clientsMost)]
		}
	}
}

// Due returns what is to be asked for again, by its tag or by Probe, what was not for the longest time first.
func (l *List) Due(now time.Time) []Vanished {
	due := l.some(func(v *Vanished) bool {
		every := askEvery
		if !v.Since.IsZero() {
			every = askGoneEvery
		}
		return !v.Back && now.Sub(v.Checked) >= every
	})
	slices.SortFunc(due, func(a, b Vanished) int { return a.Checked.Compare(b.Checked) })
	return due[:min(len(due), askMost)]
}

// Unhandled returns what is gone and was not tried to be pinned, and what is back.
func (l *List) Unhandled() []Vanished {
	return l.some(func(v *Vanished) bool { return v.Back || !v.Since.IsZero() && !v.Handled })
}

// All returns what is gone, sorted by name.
func (l *List) All() []Vanished {
	all := l.some(func(v *Vanished) bool { return !v.Since.IsZero() && !v.Back })
	slices.SortFunc(all, func(a, b Vanished) int { return cmp.Compare(a.Name(), b.Name()) })
	return all
}

func (l *List) some(of func(*Vanished) bool) []Vanished {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := []Vanished{}
	for _, v := range l.list {
		if of(v) {
			one := *v
			one.Clients, one.Pinned = slices.Clone(v.Clients), slices.Clone(v.Pinned)
			all = append(all, one)
		}
	}
	return all
}

// Pin notes what became of the pins of something that is gone.
func (l *List) Pin(v *Vanished) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.list[name{v.Repo(), v.Tag}]; known != nil {
		known.Pinned, known.Bytes, known.NotPinned, known.Handled, l.dirty = v.Pinned, v.Bytes, v.NotPinned, true, true
	}
}

// Drop takes one off the list: it is back, or an operator lets it go. It is on it again when the registry says so again.
func (l *List) Drop(v *Vanished) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := (name{v.Repo(), v.Tag}); l.list[at] != nil {
		delete(l.list, at)
		l.any.Add(-1)
		l.dirty = true
	}
}

// Find returns what is on the list by its name.
func (l *List) Find(text string) (Vanished, bool) {
	all := l.some(func(v *Vanished) bool { return strings.EqualFold(v.Name(), text) })
	if len(all) == 0 {
		return Vanished{}, false
	}
	return all[0], true
}

// Write replaces the file if there is something new.
func (l *List) Write() error {
	l.mu.Lock()
	dirty := l.dirty
	l.dirty = false
	l.mu.Unlock()
	if !dirty {
		return nil
	}
	err := statefile.Write(l.file, l.some(func(*Vanished) bool { return true }))
	if err != nil { // the next time, then
		l.mu.Lock()
		l.dirty = true
		l.mu.Unlock()
	}
	return err
}
