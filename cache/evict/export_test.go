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
