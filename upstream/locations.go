package upstream

import (
	"net/http"
	"net/url"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// locationFor is how long a redirect target is used again. GHCR signs for 5 to 10
	// minutes, Docker Hub for 15 at least; one that has expired costs one more request.
	locationFor   = 4 * time.Minute
	locationsKept = 1024
)

// locations remembers where blobs were redirected to, so that the ranges of one blob
// cost the registry one request. It holds signed URLs: it is never logged.
type locations struct {
	now func() time.Time

	mu   sync.Mutex
	kept *lru.LRU[locationKey, location]
}

type locationKey struct {
	endpoint *endpoint
	repo     string
	digest   v1.Hash
}

type location struct {
	url   *url.URL
	until time.Time
}

func newLocations(now func() time.Time) *locations {
	kept, err := lru.NewLRU[locationKey, location](locationsKept, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &locations{now: now, kept: kept}
}

// keep remembers the target of a GET for a blob. A HEAD's is signed for HEAD, and is not kept.
func (l *locations) keep(e *endpoint, a *ask, u *url.URL) {
	if !a.forBlob() || a.method != http.MethodGet {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept.Add(locationKey{e, a.repo, a.blob}, location{url: u, until: l.now().Add(locationFor)})
}

// get returns the target for a, or nil.
func (l *locations) get(e *endpoint, a *ask) *url.URL {
	if !a.forBlob() || a.method != http.MethodGet {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	found, ok := l.kept.Get(locationKey{e, a.repo, a.blob})
	if !ok || !l.now().Before(found.until) {
		return nil
	}
	return found.url
}

func (l *locations) drop(e *endpoint, a *ask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept.Remove(locationKey{e, a.repo, a.blob})
}
