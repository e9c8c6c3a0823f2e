// Package evict decides what a full cache drops. It knows names, sizes and uses, and touches
// no file: its caller removes what it names.
//
// Large blobs go through a byte-weighted S3-FIFO: new content waits in a tenth of the
// capacity, and moves on to the main queue only if it is used a second time there.
// Manifests and small blobs have shares of their own and do not compete with layers: to
// lose one costs a request to the upstream, to keep it costs hardly any space. The choice
// was measured; see docs/adr and bench/evictsim.
//
// A [Policy] knows only the content that it was told of, and drops nothing else.
package evict

import (
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Kind is what content is.
type Kind uint8

// The kinds. A config or layer is a blob.
const (
	Blob     Kind = iota
	Manifest      // of an image, or an index
)

// Shares of the capacity, all of them measured with bench/evictsim. Small changes of
// any of them change little.
const (
	// smallMax is the size below which a blob is small. Two of three layers are small, and
	// together they have about one byte in a hundred.
	smallMax = 1 << 20

	manifestShare = 0.02 // of 100 GiB, half a million manifests in blocks of 4 KiB
	smallShare    = 0.08
	freshShare    = 0.10 // the S3-FIFO paper's
	ghostShare    = 0.90 // bytes of dropped content whose names are remembered
)

// Options configures a [Policy].
type Options struct {
	// Capacity is the number of bytes that the cache may hold. The shares of manifests,
	// small and new content are parts of it. 0 or less means that the shares are parts
	// of what the cache holds.
	Capacity int64
	Now      func() time.Time // nil means time.Now
}

// Policy knows what a cache holds and says what to drop. Its methods may be called by
// many goroutines at once. Those that say nothing else take constant time.
type Policy struct {
	now func() time.Time

	mu       sync.RWMutex
	capacity int64 // guarded by mu, like all that follows
	slots    slab
	names    names
	queues   [queueCount]list
	stored   int           // entries that are no ghosts
	bytes    int64         // theirs
	recalled uint32        // minute of the last recall
	age      time.Duration // of the last victim
	returned Again
}

// Again is what came back after it had been dropped: what a cache of about twice the capacity would
// have kept, since names are remembered of as many bytes of dropped content as the cache may hold.
type Again struct{ Count, Bytes int64 }

// New returns a policy that knows of nothing.
func New(o Options) *Policy {
	p := &Policy{now: o.Now, capacity: o.Capacity, names: newNames()}
	if p.now == nil {
		p.now = time.Now
	}
	p.recalled = p.minute()
	return p
}

// Add says that d is in the cache now. Its size is what dropping it frees: the caller may
// round to blocks of the file system, and a size below 0 counts as 0. What is known
// already is used; its size and kind are replaced.
func (p *Policy) Add(d v1.Hash, size int64, k Kind) {
	size = max(size, 0)
	p.mu.Lock()
	defer p.mu.Unlock()
	s, known := p.names.find(&p.slots, d)
	home := homeOf(size, k)
	if known {
		e := p.slots.at(s)
		if !e.dropped() && e.size == size && e.kind == k {
			e.use(p.minute())
			if e.queue == picked {
				p.move(s, e.home)
			}
			return
		}
		if e.queue == gone || e.queue == past {
			p.returned.Count++
			p.returned.Bytes += size
		}
		if home == fresh && e.queue != past && (e.queue == gone || e.home == proven) {
			home = proven // dropped too early, or known under another size
		}
		p.forget(s)
	}
	p.insert(d, size, k, home)
}

// insert makes the entry of d, which must not be known.
func (p *Policy) insert(d v1.Hash, size int64, k Kind, home queue) {
	s := p.slots.take()
	e := p.slots.at(s)
	e.size, e.kind, e.home = size, k, home
	e.reset(p.minute(), 0)
	p.names.add(&p.slots, d, s)
	p.push(s, home)
	p.stored++
	p.bytes += size
}

// forget takes an entry out of everything.
func (p *Policy) forget(s uint32) {
	e := p.slots.at(s)
	if !e.dropped() {
		p.stored--
		p.bytes -= e.size
	}
	p.unlink(s)
	p.names.remove(&p.slots, s)
	p.slots.give(s)
}

// Touch says that content is asked for now. Unknown content is passed over. Two uses
// within ten minutes count once.
//
// Touch waits for no other Touch and never for [Policy.Victims] longer than some
// microseconds. It is fit for every request.
func (p *Policy) Touch(all ...v1.Hash) {
	p.touch(all, func(e *entry, now uint32) { e.use(now) })
}

// TouchRefs says that something that references this content is used now. When a manifest is
// served, or a HEAD for it is answered, it must be called with all that the manifest lists,
// for an index with its manifests and theirs: clients do not ask for layers that they have,
// so that these would look idle. A reference saves a blob from being dropped once each time
// that its turn comes, but does not make it more valuable than what clients ask for. It
// costs as much as Touch.
//
// A manifest that is referenced counts as asked for, so that no index outlives what it
// lists: add an index before its manifests, and always name them when it is used.
func (p *Policy) TouchRefs(all ...v1.Hash) {
	p.touch(all, func(e *entry, now uint32) {
		if e.kind == Manifest {
			e.use(now)
		} else {
			e.refer(now)
		}
	})
}

func (p *Policy) touch(all []v1.Hash, how func(*entry, uint32)) {
	now := p.minute()
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, d := range all {
		if s, ok := p.names.find(&p.slots, d); ok {
			how(p.slots.at(s), now)
		}
	}
}

// Remove says that d is not in the cache any more, for reasons other than eviction. The
// policy forgets it altogether.
func (p *Policy) Remove(d v1.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.names.find(&p.slots, d); ok {
		p.forget(s)
	}
}

// Resize changes the capacity. It drops nothing: the next [Policy.Victims] does.
func (p *Policy) Resize(capacity int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.capacity = capacity
	p.trimGhosts()
}

// Bytes returns the size of all that the cache holds.
func (p *Policy) Bytes() int64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.bytes
}

// Len returns how many things the cache holds.
func (p *Policy) Len() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.stored
}

// Age returns how long the last victim had not been used when it was named; 0 before the
// first. While it is short, the cache is too small for its clients.
func (p *Policy) Age() time.Duration {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.age
}

// Again returns what came back since the start.
func (p *Policy) Again() Again {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.returned
}

func (p *Policy) minute() uint32 { return minutes(p.now()) }
