// Package recent remembers what was learned lately.
//
// It promises a bounded number of things, each for a while: what is old is not told as if it were
// new, and what is too much goes, the longest unused first.
package recent

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Map remembers values for a while. The library's own expirable variant keeps a goroutine for
// ever, which nothing can stop. It may be used concurrently.
type Map[K comparable, V any] struct {
	entries *lru.Cache[K, remembered[V]]
	ttl     time.Duration
}

type remembered[V any] struct {
	value V
	until time.Time
}

// New returns a Map of at most so many values, each for ttl.
func New[K comparable, V any](most int, ttl time.Duration) *Map[K, V] {
	entries, err := lru.New[K, remembered[V]](most)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &Map[K, V]{entries, ttl}
}

// Add remembers v for k.
func (r *Map[K, V]) Add(k K, v V) { r.AddFor(k, v, r.ttl) }

// AddFor is Add for another time.
func (r *Map[K, V]) AddFor(k K, v V, ttl time.Duration) {
	r.entries.Add(k, remembered[V]{v, time.Now().Add(ttl)})
}

// Remove forgets k.
func (r *Map[K, V]) Remove(k K) { r.entries.Remove(k) }

// RemoveAll forgets what of holds for.
func (r *Map[K, V]) RemoveAll(of func(K) bool) {
	for _, k := range r.entries.Keys() {
		if of(k) {
			r.entries.Remove(k)
		}
	}
}

// Get returns what was added for k, unless that is too long ago.
func (r *Map[K, V]) Get(k K) (v V, ok bool) {
	e, ok := r.entries.Get(k)
	if !ok || time.Now().After(e.until) {
		return v, false
	}
	return e.value, true
}

// Last returns what was added for k, however long ago: it stands in for an answer that cannot be
// had. most is how long ago it may have become too old; 0 means any time.
func (r *Map[K, V]) Last(k K, most time.Duration) (v V, ok bool) {
	e, ok := r.entries.Get(k)
	if !ok || most != 0 && time.Since(e.until) > most {
		return v, false
	}
	return e.value, true
}

// First reports whether k was not added within the time, and adds it.
func (r *Map[K, V]) First(k K) bool {
	_, known := r.Get(k)
	if !known {
		var v V
		r.Add(k, v)
	}
	return !known
}
