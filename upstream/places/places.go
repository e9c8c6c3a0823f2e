// Package places remembers where the blobs of a registry were redirected to, without I/O.
//
// It promises that the ranges of one blob cost the registry one request. It holds signed URLs, which
// must not be logged.
package places

import (
	"net/url"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// KeptFor is how long a redirect target is used again. GHCR signs for 5 to 10
	// minutes, Docker Hub for 15 at least; one that has expired costs one more request.
	KeptFor  = 4 * time.Minute
	keptMost = 1024
)

// Memory remembers redirect targets. It may be used concurrently.
type Memory struct {
	now func() time.Time

	mu   sync.Mutex
	kept *lru.LRU[Blob, place] // guarded by mu
}

// Blob is a blob as it is asked for.
type Blob struct {
	Endpoint *url.URL // the same pointer for the same endpoint
	Repo     string
	Digest   v1.Hash
}

type place struct {
	url   *url.URL
	until time.Time
}

// New returns a memory of nothing. now is the clock.
func New(now func() time.Time) *Memory {
	m := &Memory{now: now}
	m.kept, _ = lru.NewLRU[Blob, place](keptMost, nil) // fails only for a size below one
	return m
}

// Keep remembers where b was redirected to.
func (m *Memory) Keep(b Blob, to *url.URL) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept.Add(b, place{url: to, until: m.now().Add(KeptFor)})
}

// Get returns where b was redirected to, or nil.
func (m *Memory) Get(b Blob) *url.URL {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.kept.Get(b)
	if !ok || !m.now().Before(found.until) {
		return nil
	}
	return found.url
}

// Drop forgets where b was redirected to.
func (m *Memory) Drop(b Blob) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept.Remove(b)
}
