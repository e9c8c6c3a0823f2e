package fill

import (
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/store"
)

// Set holds the fills in progress, one of a digest. Its methods may be called concurrently.
type Set struct {
	wg *sync.WaitGroup // of all fills

	mu     sync.Mutex
	fills  map[v1.Hash]*Fill // guarded by mu; removed when ended
	closed bool              // guarded by mu
}

// NewSet returns an empty set. wg counts the fills that run.
func NewSet(wg *sync.WaitGroup) *Set { return &Set{wg: wg, fills: map[v1.Hash]*Fill{}} }

// Of returns the fill of d that has not ended, or nil.
func (s *Set) Of(d v1.Hash) *Fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live(d)
}

// Hold is Of for who reads from the fill, which is held by [Fill.Hold]; nil if it is not fit.
func (s *Set) Hold(d v1.Hash, fit func(*Fill) bool) *Fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.live(d)
	if f == nil || !fit(f) || !f.Hold() {
		return nil
	}
	return f
}

// live is Of for those who hold s.mu.
func (s *Set) live(d v1.Hash) *Fill {
	f := s.fills[d]
	if f == nil {
		return nil
	}
	if _, ended, _ := f.State(); ended {
		return nil
	}
	return f
}

// Join returns the fill of d that is running, held by [Fill.Hold], or starts the one that
// begin returns, in a goroutine of its own. No other fill of d begins meanwhile. The error is begin's, store.ErrClosed
// after Close, or ErrAbandoned while a fill of d ends that nobody had open: see [Fill.Done].
func (s *Set) Join(d v1.Hash, begin func() (f *Fill, run func(), err error)) (f *Fill, joined bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.live(d); f != nil {
		if !f.Hold() {
			return nil, false, ErrAbandoned
		}
		return f, true, nil
	}
	if s.closed {
		return nil, false, store.ErrClosed
	}
	f, run, err := begin()
	if err != nil {
		return nil, false, err
	}
	f.Hold() // before it runs, as one that nobody holds may end at once
	s.fills[d] = f
	s.wg.Go(func() {
		run()
		s.remove(f)
	})
	return f, false, nil
}

func (s *Set) remove(f *Fill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fills[f.Digest] == f {
		delete(s.fills, f.Digest)
	}
}

// Busy reports whether any fill is in progress.
func (s *Set) Busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.fills) > 0
}

// All returns the fills in progress, in no order. Some may have ended.
func (s *Set) All() []*Fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Fill, 0, len(s.fills))
	for _, f := range s.fills {
		all = append(all, f)
	}
	return all
}

// Close lets no more fills begin. Whoever closes ends those that run.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}
