package fill

import (
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/store"
	"forebay/internal/wire"
)

// Set holds the fills in progress: one of a digest and a domain, and beside them one that
// verifies a kept file. Its methods may be called concurrently.
type Set struct {
	wg *sync.WaitGroup // of all fills

	mu     sync.Mutex
	fills  map[v1.Hash][]*Fill // guarded by mu; removed when ended
	closed bool                // guarded by mu
}

// NewSet returns an empty set. wg counts the fills that run.
func NewSet(wg *sync.WaitGroup) *Set { return &Set{wg: wg, fills: map[v1.Hash][]*Fill{}} }

// Of returns a fill of d that has not ended, or nil.
func (s *Set) Of(d v1.Hash) *Fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live(d, func(*Fill) bool { return true })
}

// Ending returns the fill of d in domain that ends without the blob, or nil.
func (s *Set) Ending(d v1.Hash, domain string) *Fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live(d, func(f *Fill) bool { return f.Domain == domain && f.Ending() })
}

// live returns a fill of d that fits and has not ended. s.mu is held.
func (s *Set) live(d v1.Hash, fits func(*Fill) bool) *Fill {
	for _, f := range s.fills[d] {
		if _, ended, _ := f.State(); !ended && fits(f) {
			return f
		}
	}
	return nil
}

// Join holds the fill of d in domain that is running, or else starts the one that begin
// returns, in a goroutine of its own; without begin there is none then. No other fill of both
// begins meanwhile, and nothing comes between the look at the fill and the hold of it. With
// proven the repository of from may have what others of the domain bring. A kept file is verified
// in the domain "", to which only those come who have a right to what is kept.
// The error is begin's, store.ErrClosed after Close, or why the running fill cannot be held:
// [ErrUnproven], [ErrAbandoned] while it ends without the blob (see [Fill.Done]), or what the
// repository's registry said.
func (s *Set) Join(d v1.Hash, domain string, from Source, proven bool, begin func() (f *Fill, run func(), err error)) (h *Holder, joined bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.live(d, func(f *Fill) bool { return f.Domain == domain })
	if f != nil {
		h, err = f.hold(from, proven)
		return h, true, err
	}
	if begin == nil {
		return nil, false, nil
	}
	if s.closed {
		return nil, false, store.ErrClosed
	}
	f, run, err := begin()
	if err != nil {
		return nil, false, err
	}
	if h, err = f.hold(from, proven); err != nil { // before it runs, as one that nobody holds may end at once
		return nil, false, err
	}
	s.fills[d] = append(s.fills[d], f)
	s.wg.Go(func() {
		run()
		s.remove(f)
	})
	return h, false, nil
}

func (s *Set) remove(f *Fill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.DeleteFunc(s.fills[f.Digest], func(g *Fill) bool { return f == g })
	if len(left) == 0 {
		delete(s.fills, f.Digest)
		return
	}
	s.fills[f.Digest] = left
}

// Busy reports whether any fill is in progress.
func (s *Set) Busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.fills) > 0
}

// All returns the fills in progress, in no order. Some may have ended.
func (s *Set) All() (all []*Fill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fills := range s.fills {
		all = append(all, fills...)
	}
	return all
}

// Cancel ends the fills of a blob that have not come to their end, whoever reads them, and
// returns how many. The next request goes on from what has come.
func (s *Set) Cancel(d v1.Hash) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.fills[d] {
		f.mu.Lock()
		if f.state < verified && !f.ending && !f.verifies {
			f.stopped = true
			n++
		}
		f.mu.Unlock()
		f.nudge()
	}
	return n
}

// Close lets no more fills begin. Whoever closes ends those that run.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// Running returns the fills in progress, in no order.
func (s *Set) Running() (all []Status) {
	for _, f := range s.All() {
		if one, running := f.Status(); running {
			all = append(all, one)
		}
	}
	return all
}

// Info is a fill in progress.
type Info struct {
	Upstream   string      `json:"upstream"`
	Repository string      `json:"repository"`
	Digest     wire.Digest `json:"digest"`
	Bytes      int64       `json:"bytes"` // that have arrived
	Size       int64       `json:"size"`  // of the whole; -1 while unknown
	Clients    int         `json:"clients"`
	// Verifying is whether a kept blob is being verified beside its first reading: nothing
	// comes from the upstream.
	Verifying bool `json:"verifying,omitempty"`
}

// List lists the fills in progress, by name.
func (s *Set) List() []Info {
	list := []Info{}
	for _, one := range s.Running() {
		list = append(list, Info{
			Upstream: one.Upstream, Repository: one.Repository, Digest: wire.Digest{Hash: one.Digest},
			Bytes: one.Bytes, Size: one.Size, Clients: one.Holders, Verifying: one.Verifying,
		})
	}
	slices.SortFunc(list, func(a, b Info) int {
		return strings.Compare(a.Upstream+"/"+a.Repository+a.Digest.Hex, b.Upstream+"/"+b.Repository+b.Digest.Hex)
	})
	return list
}
