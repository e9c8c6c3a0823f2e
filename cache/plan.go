package cache

import (
	"time"
)

// plan claims the next range worth a connection: where a reader waits, else the first
// gap. nil when there is none, or no connection to spare.
func (t *fetcher) plan() *worker {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil
	}
	extra := len(t.active) > 0
	if extra && (t.noRanges || t.size < 0) {
		return nil // one at a time, until it is known that ranges work
	}
	w := t.planUrgent()
	if w == nil && len(t.active) < t.limit {
		w = t.planNext()
	}
	if w == nil {
		return nil
	}
	if w.extra = extra; extra && !t.lanes.enterExtra() {
		return nil
	}
	t.claim(w)
	return w
}

// planUrgent returns a worker for the first reader whom nobody serves.
func (t *fetcher) planUrgent() *worker {
	if t.noRanges || t.limit == 1 && len(t.active) > 0 || len(t.active) >= t.limit+urgentExtra {
		return nil
	}
	for r := range t.readers {
		if r.waiting && !t.covered(r.want) && (t.size < 0 || r.want < t.size) {
			if t.size < 0 && r.want > 0 && len(t.have) == 0 {
				// The size is not known: begin there and learn it.
				return &worker{pos: r.want, end: r.want + t.sizing.first}
			}
			return &worker{pos: r.want, end: t.gapEnd(r.want)}
		}
	}
	return nil
}

// planNext returns a worker for the first range that nobody has or fetches.
func (t *fetcher) planNext() *worker {
	pos := t.have.until(0)
	for {
		moved := false
		for _, w := range t.active {
			if w.pos <= pos && pos < w.end {
				pos, moved = t.have.until(w.end), true
			}
		}
		if !moved {
			break
		}
	}
	if t.size >= 0 && pos >= t.size {
		return nil
	}
	return &worker{pos: pos, end: t.gapEnd(pos)}
}

// gapEnd returns where a worker that starts at pos should stop: at what is there or
// claimed, at the end of a segment, at the blob's end.
func (t *fetcher) gapEnd(pos int64) int64 {
	size := t.size
	if size < 0 {
		size = t.hint
	}
	if t.noRanges || t.size < 0 && pos == 0 && size >= 0 && size <= t.sizing.whole {
		return unknown
	}
	// Segments grow with the blob and shrink towards its end, so that the connections end
	// together and not one long after the others.
	segment := min(size/int64(4*t.parallel), t.unclaimed(size)/int64(2*t.parallel))
	segment = min(max(segment, t.sizing.first), t.sizing.segment)
	end := int64(unknown)
	if t.size >= 0 {
		end = t.size
	}
	end = t.have.next(pos, end)
	for _, w := range t.active {
		if w.pos > pos {
			end = min(end, w.pos)
		}
	}
	return min(end, pos+segment)
}

// unclaimed returns how many bytes nobody has or fetches. t.mu is held.
func (t *fetcher) unclaimed(size int64) int64 {
	for _, r := range t.have {
		size -= r[1] - r[0]
	}
	for _, w := range t.active {
		if w.end != unknown {
			size -= w.end - w.pos
		}
	}
	return size
}

// claim enters w among the active; a worker whose claim it begins in is cut short.
func (t *fetcher) claim(w *worker) {
	for _, o := range t.active {
		if o.pos <= w.pos && w.pos < o.end {
			w.end = min(max(w.end, o.end), w.pos+t.sizing.segment)
			if next := t.have.next(w.pos, unknown); next < w.end {
				w.end = next
			}
			o.end = w.pos
		}
	}
	w.started = time.Now()
	w.request = w.end
	if t.noRanges || w.end == unknown || w.pos == 0 && w.end == t.size {
		w.request = -1
	}
	t.active = append(t.active, w)
}
