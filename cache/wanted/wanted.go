// Package wanted keeps a list of what clients asked for while its registry was not to be
// contacted, in a file.
//
// It promises that the list has a bound, of which one client takes a tenth at most, and that a
// disk which refuses it loses nothing. The names come from clients: who may be told of them is
// for the caller.
package wanted

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"forebay/internal/statefile"
)

// Wanted is something that clients asked for in vain.
type Wanted struct {
	// Ref is an image by tag or by digest. Of Blob the digest is that of a blob which no
	// kept image of a tag needs.
	Ref   string    `json:"ref"`
	Blob  bool      `json:"blob,omitempty"`
	Count int64     `json:"count"` // how often it was asked for
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

func (w *Wanted) key() string {
	if w.Blob {
		return "blob " + w.Ref
	}
	return w.Ref
}

const (
	// most bounds the list. What was asked for longest ago makes room.
	most = 10_000
	// ofClient bounds what one client adds between two starts: a tenth, so that none alone
	// pushes out what others want, or steers what is fetched on the connected side.
	ofClient = most / 10
	// fileMost is far more than most entries of the longest names take.
	fileMost = 16 << 20
)

// List is the list of what is wanted. Its methods may be called concurrently.
type List struct {
	file string

	mu    sync.Mutex
	list  map[string]*Wanted // guarded by mu; by key
	added map[string]int     // guarded by mu; what each client has added
	dirty bool               // guarded by mu; there is something to write

	writing sync.Mutex // held while the file is written
}

// writeEvery is how soon a change is written.
const writeEvery = time.Second

// Run writes the list soon after it changed, and does also then, until ctx is done. It tells why it
// could not.
func (l *List) Run(ctx context.Context, also func() error, tell func(error)) {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := errors.Join(l.Write(), also()); err != nil {
				tell(err)
			}
		}
	}
}

// Open reads the list that an earlier run left in file. With an error it is empty, and usable.
func Open(file string) (*List, error) {
	l := &List{file: file, list: map[string]*Wanted{}, added: map[string]int{}}
	var kept []Wanted
	if err := statefile.Read(file, fileMost, &kept); err != nil {
		return l, err
	}
	for _, w := range kept {
		if len(l.list) < most && w.Ref != "" {
			l.list[w.key()] = &w
		}
	}
	return l, nil
}

// Add notes that a client asked for one.
func (l *List) Add(one Wanted, client string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.list[one.key()]; known != nil {
		l.dirty = true
		known.Count++
		known.Last = now
		return
	}
	if _, counted := l.added[client]; l.added[client] >= ofClient || !counted && len(l.added) >= most {
		return
	}
	l.added[client]++
	l.dirty = true
	if len(l.list) >= most {
		var oldest *Wanted
		for _, other := range l.list {
			if oldest == nil || other.Last.Before(oldest.Last) {
				oldest = other
			}
		}
		delete(l.list, oldest.key())
	}
	one.Count, one.First, one.Last = 1, now, now
	l.list[one.key()] = &one
}

// Drop takes one off.
func (l *List) Drop(one Wanted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.list, one.key())
	l.dirty = true
}

// Clear empties the list and returns how much there was.
func (l *List) Clear() (int, error) {
	l.mu.Lock()
	n := len(l.list)
	clear(l.list)
	l.dirty = true
	l.mu.Unlock()
	return n, l.Write()
}

// All returns the list, sorted by name.
func (l *List) All() []Wanted {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Wanted, 0, len(l.list))
	for _, one := range l.list {
		all = append(all, *one)
	}
	slices.SortFunc(all, func(a, b Wanted) int { return strings.Compare(a.key(), b.key()) })
	return all
}

// Write replaces the file if there is something new.
func (l *List) Write() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	dirty := l.dirty
	l.dirty = false
	l.mu.Unlock()
	if !dirty {
		return nil
	}
	err := statefile.Write(l.file, l.All())
	if err != nil { // the next time, then
		l.mu.Lock()
		l.dirty = true
		l.mu.Unlock()
	}
	return err
}
