package fill

import (
	"time"
)

// plan claims the next range worth a connection: where a reader waits, else the first
// gap. nil when there is none, or no connection to spare.
func (t *download) plan() *worker {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state >= verified {
		return nil
	}
	extra := len(t.connections.active) > 0
	if extra && (t.connections.noRanges || t.size < 0) {
		return nil // one at a time, until it is known that ranges work
	}
	w := t.planUrgent()
	if w == nil && len(t.connections.active) < t.connections.limit && (!extra || t.outpacesLine()) {
		w = t.planNext()
	}
	if w == nil {
		return nil
	}
	if extra {
		l := t.current().Lane
		if !l.EnterExtra() {
			return nil
		}
		w.extra = l
	}
	t.claim(w)
	return w
}

// idleLeast is the part of its time that a connection must wait for bytes, in quarters, that
// another beside it may bring more of them: of the time of what it has read, since a read that is under
// way may have just begun. A line that brings them faster than we hash and write
// them gains nothing by a second one, whose bytes come out of order and must be read back.
const idleLeast = 3

// outpacesLine reports whether all connections wait for bytes for most of the time. While one does not,
// or is too young to tell, it is looked at again. t.mu is held.
func (t *download) outpacesLine() bool {
	for _, w := range t.connections.active {
		if time.Since(w.started) < worthWaiting || w.moved > 0 && 4*w.waited < idleLeast*(w.waited+w.worked) {
			t.recheck()
			return false
		}
	}
	return true
}

// planUrgent returns a worker for the first reader whom nobody serves.
func (t *download) planUrgent() *worker {
	if t.connections.noRanges || t.connections.limit == 1 && len(t.connections.active) > 0 || len(t.connections.active) >= t.connections.limit+urgentExtra {
		return nil
	}
	for r := range t.readers {
		if r.waiting && !t.covered(r.want) && (t.size < 0 || r.want < t.size) {
			if t.size < 0 && r.want > 0 && len(t.have) == 0 {
				// The size is not known: begin there and learn it.
				return &worker{pos: r.want, end: r.want + t.sizing.first}
			}
			end := t.gapEnd(r.want)
			if t.onlyPieces() {
				end = min(end, r.end)
			}
			return &worker{pos: r.want, end: end}
		}
	}
	return nil
}

// planFirst returns a worker that begins where the first reader wants to, so that he does not
// wait for an answer that only tells the size. That place is there, unless its manifest lies: then
// the next one begins at the start. nil when the start is as good.
func (t *download) planFirst() *worker {
	from := t.sources[0]
	if t.guessed || t.size >= 0 || len(t.have) > 0 || !from.Piece {
		return nil
	}
	t.guessed = true
	switch {
	case from.Size <= Small: // it comes whole
	case t.onlyPieces() && from.At < from.End:
		return &worker{pos: from.At, end: from.End}
	case t.onlyPieces():
		return &worker{pos: 0, end: 1} // tells that it lies outside
	case from.At > 0 && from.Size > t.sizing.whole:
		return &worker{pos: from.At, end: from.At + t.sizing.first}
	}
	return nil
}

// planResumed returns a worker that brings the first answer where an earlier fill left pieces: with
// what is missing of the first one wanted. Where nothing is, none is needed but by a repository that has still to
// prove that it holds the blob, for which a byte does. t.mu is held.
func (t *download) planResumed() *worker {
	from := t.sources[0]
	at := min(from.At, max(t.size-1, 0))
	end := max(min(from.End, t.size), at+1)
	pos := t.have.until(at)
	switch {
	case t.state != waiting || len(t.connections.active) > 0:
		return nil
	case pos < end:
		return &worker{pos: pos, end: min(end, t.gapEnd(pos))}
	case from.proven:
		t.setArriving()
		return nil
	}
	return &worker{pos: at, end: at + 1}
}

// planNext returns a worker for the first range that nobody has or fetches.
func (t *download) planNext() *worker {
	if w := t.planFirst(); w != nil {
		return w
	}
	if t.onlyPieces() && t.size >= 0 {
		return t.planResumed()
	}
	pos := t.have.until(0)
	for {
		moved := false
		for _, w := range t.connections.active {
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
func (t *download) gapEnd(pos int64) int64 {
	size := t.size
	if size < 0 {
		size = t.opts.SizeGuess
	}
	if t.connections.noRanges || t.size < 0 && pos == 0 && size >= 0 && size <= t.sizing.whole {
		return ToEnd
	}
	// Segments grow with the blob and shrink towards its end, so that the connections end
	// together and not one long after the others.
	segment := min(size/int64(4*t.opts.Parallel), t.unclaimed(size)/int64(2*t.opts.Parallel))
	segment = min(max(segment, t.sizing.first), t.sizing.segment)
	end := int64(ToEnd)
	if t.size >= 0 {
		end = t.size
	}
	end = t.have.next(pos, end)
	for _, w := range t.connections.active {
		if w.pos > pos {
			end = min(end, w.pos)
		}
	}
	return min(end, pos+segment)
}

// unclaimed returns how many bytes nobody has or fetches. t.mu is held.
func (t *download) unclaimed(size int64) int64 {
	size -= t.have.total()
	for _, w := range t.connections.active {
		if w.end != ToEnd {
			size -= w.end - w.pos
		}
	}
	return size
}

// claim enters w among the active; a worker whose claim it begins in is cut short.
func (t *download) claim(w *worker) {
	for _, o := range t.connections.active {
		if o.pos <= w.pos && w.pos < o.end {
			w.end = min(max(w.end, o.end), w.pos+t.sizing.segment)
			if next := t.have.next(w.pos, ToEnd); next < w.end {
				w.end = next
			}
			o.end = w.pos
		}
	}
	w.started = time.Now()
	w.request = w.end
	if t.connections.noRanges || w.end == ToEnd || w.pos == 0 && w.end == t.size {
		w.request = -1
	}
	t.connections.active = append(t.connections.active, w)
}
