package evict

import "time"

// Oldest returns the earliest last use of all that the cache holds. It looks at all
// entries, some milliseconds for a million.
func (p *Policy) Oldest() (time.Time, bool) {
	oldest, found := uint32(0), false
	for chunk := 0; ; chunk++ {
		more := p.chunk(chunk, func(_ uint32, e *entry) {
			if at := e.usedAt(); !found || at < oldest {
				oldest, found = at, true
			}
		})
		if !more {
			return fromMinutes(oldest), found
		}
	}
}

// Share is a part of what a policy knows.
type Share struct {
	Len   int
	Bytes int64
}

// Shares says how the content of a cache is divided.
type Shares struct {
	Manifests Share
	Small     Share // blobs below 1 MiB
	Fresh     Share // others, not used again yet
	Proven    Share // others, used again
	Kept      Share // what the caller would not have dropped lately; in no other share
	Ghosts    Share // what was dropped and is remembered by name; not in the cache
}

// Shares returns the division at this moment.
func (p *Policy) Shares() Shares {
	p.mu.RLock()
	defer p.mu.RUnlock()
	of := func(q queue) Share { return Share{Len: p.queues[q].n, Bytes: p.queues[q].bytes} }
	return Shares{
		Manifests: of(manifests), Small: of(small), Fresh: of(fresh), Proven: of(proven),
		Kept: of(aside), Ghosts: of(gone),
	}
}
