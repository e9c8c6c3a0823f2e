package main

// fifo drops what came first.
type fifo struct{ *list }

func newFIFO(r *room) policy { return fifo{newList(r, newLinks(r.t))} }

func (f fifo) add(o int32)   { f.push(o) }
func (f fifo) use(int32)     {}
func (f fifo) victim() int32 { return f.pop() }

// lru drops what was not used for longest.
type lru struct{ *list }

func newLRU(r *room) policy { return lru{newList(r, newLinks(r.t))} }

func (l lru) add(o int32)   { l.push(o) }
func (l lru) use(o int32)   { l.remove(o); l.push(o) }
func (l lru) victim() int32 { return l.pop() }

// sieve is SIEVE (Zhang et al., NSDI 2024): a hand goes from the oldest to the newest,
// spares once what was used since it came by, and drops the first that was not.
type sieve struct {
	*list
	hand int32
	used []bool
}

func newSIEVE(r *room) policy {
	return &sieve{list: newList(r, newLinks(r.t)), hand: none, used: make([]bool, len(r.t.objects))}
}

func (s *sieve) add(o int32) { s.used[o] = false; s.push(o) }
func (s *sieve) use(o int32) { s.used[o] = true }

func (s *sieve) victim() int32 {
	o := s.hand
	if o == none {
		o = s.tail
	}
	for s.used[o] {
		s.used[o] = false
		if o = s.cells.prev[o]; o == none {
			o = s.tail
		}
	}
	s.hand = s.cells.prev[o]
	s.remove(o)
	return o
}

// slru is a segmented LRU: what is used twice goes to a protected part.
type slru struct {
	room               *room
	probation, protect *list
	protected          []bool
}

func newSLRU(r *room) policy {
	cells := newLinks(r.t)
	return &slru{
		room: r, probation: newList(r, cells), protect: newList(r, cells),
		protected: make([]bool, len(r.t.objects)),
	}
}

func (s *slru) add(o int32) { s.protected[o] = false; s.probation.push(o) }

func (s *slru) use(o int32) {
	if s.protected[o] {
		s.protect.remove(o)
		s.protect.push(o)
		return
	}
	s.probation.remove(o)
	s.protect.push(o)
	s.protected[o] = true
	for s.protect.bytes > s.room.capacity/5*4 {
		d := s.protect.pop()
		s.protected[d] = false
		s.probation.push(d)
	}
}

func (s *slru) victim() int32 {
	if s.probation.n > 0 {
		return s.probation.pop()
	}
	return s.protect.pop()
}
