package cache

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// recent remembers values for a while, a bounded number of them. The library's own
// expirable variant keeps a goroutine for ever, which nothing can stop.
type recent[K comparable, V any] struct {
	entries *lru.Cache[K, remembered[V]]
	ttl     time.Duration
}

type remembered[V any] struct {
	value V
	until time.Time
}

func newRecent[K comparable, V any](most int, ttl time.Duration) *recent[K, V] {
	entries, err := lru.New[K, remembered[V]](most)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &recent[K, V]{entries, ttl}
}

func (r *recent[K, V]) add(k K, v V) { r.addFor(k, v, r.ttl) }

func (r *recent[K, V]) addFor(k K, v V, ttl time.Duration) {
	r.entries.Add(k, remembered[V]{v, time.Now().Add(ttl)})
}

func (r *recent[K, V]) remove(k K) { r.entries.Remove(k) }

func (r *recent[K, V]) removeAll(of func(K) bool) {
	for _, k := range r.entries.Keys() {
		if of(k) {
			r.entries.Remove(k)
		}
	}
}

// get returns what was added for k, unless that is too long ago.
func (r *recent[K, V]) get(k K) (v V, ok bool) {
	e, ok := r.entries.Get(k)
	if !ok || time.Now().After(e.until) {
		return v, false
	}
	return e.value, true
}

// last returns what was added for k, however long ago: it stands in for an answer that cannot be
// had. most is how long ago it may have become too old; 0 means any time.
func (r *recent[K, V]) last(k K, most time.Duration) (v V, ok bool) {
	e, ok := r.entries.Get(k)
	if !ok || most != 0 && time.Since(e.until) > most {
		return v, false
	}
	return e.value, true
}

// first reports whether k was not added within the time, and adds it.
func (r *recent[K, V]) first(k K) bool {
	_, known := r.get(k)
	if !known {
		var v V
		r.add(k, v)
	}
	return !known
}
