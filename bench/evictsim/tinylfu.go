package main

import "math/bits"

// tinyLFU is W-TinyLFU (Einziger, Friedman and Manes, 2017) for objects of many sizes
// (Einziger, Eytan, Friedman and Manes, 2021): what leaves a window gets into the main
// part only if it was asked for more often than all that must go for it together. The
// window grows and shrinks while that improves the share of bytes that are hit.
type tinyLFU struct {
	room    *room
	window  *list
	main    *slruLists
	where   []uint8
	sketch  sketch
	doomed  []int32 // chosen already, in order
	share   float64 // of the capacity for the window
	step    float64
	hits    float64 // bytes since the last step
	asked   float64
	uses    int
	lastHit float64
}

// slruLists are the two parts of the main part.
type slruLists struct{ probation, protect *list }

const (
	inWindow uint8 = iota
	inProbation
	inProtected
)

func newTinyLFU(adapt bool) func(*room) policy {
	return func(r *room) policy {
		cells := newLinks(r.t)
		w := &tinyLFU{
			room: r, window: newList(r, cells),
			main:  &slruLists{newList(r, cells), newList(r, cells)},
			where: make([]uint8, len(r.t.objects)), share: 0.01,
		}
		if adapt {
			w.step = 0.0625
		}
		return w
	}
}

func (w *tinyLFU) add(o int32) {
	w.sketch.count(o, w.entries())
	w.asked += float64(w.room.size(o))
	w.adapt()
	w.where[o] = inWindow
	w.window.push(o)
	// While there is room, what leaves the window needs no permission.
	for w.window.n > 1 && w.window.bytes > w.windowMax() && w.room.used <= w.room.capacity {
		w.admit(w.window.pop())
	}
}

func (w *tinyLFU) entries() int { return w.window.n + w.main.probation.n + w.main.protect.n }

func (w *tinyLFU) windowMax() int64 { return int64(w.share * float64(w.room.capacity)) }

func (w *tinyLFU) admit(o int32) {
	w.where[o] = inProbation
	w.main.probation.push(o)
}

func (w *tinyLFU) use(o int32) {
	w.sketch.count(o, w.entries())
	w.asked += float64(w.room.size(o))
	w.hits += float64(w.room.size(o))
	w.adapt()
	switch w.where[o] {
	case inWindow:
		w.window.remove(o)
		w.window.push(o)
	case inProtected:
		w.main.protect.remove(o)
		w.main.protect.push(o)
	default:
		w.main.probation.remove(o)
		w.where[o] = inProtected
		w.main.protect.push(o)
		for w.main.protect.bytes > (w.room.capacity-w.windowMax())/5*4 {
			d := w.main.protect.pop()
			w.where[d] = inProbation
			w.main.probation.push(d)
		}
	}
}

// adapt moves the window's share on in the same direction while the ratio improves.
func (w *tinyLFU) adapt() {
	if w.step == 0 {
		return
	}
	if w.uses++; w.uses < max(10*w.entries(), 1000) {
		return
	}
	ratio := w.hits / max(w.asked, 1)
	if ratio < w.lastHit {
		w.step = -w.step
	}
	w.share = min(max(w.share+w.step, 0.005), 0.8)
	w.step *= 0.98
	w.lastHit, w.hits, w.asked, w.uses = ratio, 0, 0, 0
}

func (w *tinyLFU) victim() int32 {
	if len(w.doomed) > 0 {
		o := w.doomed[0]
		w.doomed = w.doomed[1:]
		if w.where[o] == inProbation {
			w.main.probation.remove(o)
			return o
		}
	}
	if w.window.n == 0 || w.window.bytes <= w.windowMax() {
		return w.mainVictim()
	}
	candidate := w.window.pop()
	need := w.room.used - w.room.capacity
	var freed int64
	var worth int
	doomed := w.doomed[:0]
	for o := w.main.probation.tail; o != none && freed < need; o = w.main.probation.cells.prev[o] {
		freed += w.room.size(o)
		worth += w.sketch.estimate(o)
		doomed = append(doomed, o)
	}
	if freed < need || len(doomed) == 0 || w.sketch.estimate(candidate) <= worth {
		return candidate
	}
	w.admit(candidate)
	w.doomed = doomed
	return w.victim()
}

func (w *tinyLFU) mainVictim() int32 {
	switch {
	case w.main.probation.n > 0:
		return w.main.probation.pop()
	case w.main.protect.n > 0:
		return w.main.protect.pop()
	default:
		return w.window.pop()
	}
}

// sketch counts uses up to 15 in a count-min sketch that halves all counters now and then.
type sketch struct {
	rows    [4][]uint8
	counted int
}

// count counts a use. A sketch of a cache of more entries is larger.
func (s *sketch) count(o int32, entries int) {
	s.grow(1 << bits.Len(uint(max(entries, 1<<10)*2)))
	for i := range s.rows {
		if c := &s.rows[i][s.place(o, i)]; *c < 15 {
			*c++
		}
	}
	if s.counted++; s.counted < 10*max(entries, 1000) {
		return
	}
	s.counted /= 2
	for i := range s.rows {
		for j := range s.rows[i] {
			s.rows[i][j] /= 2
		}
	}
}

// grow keeps the counts: of a place in a larger row the low bits are the same.
func (s *sketch) grow(want int) {
	n := len(s.rows[0])
	if n >= want {
		return
	}
	for i := range s.rows {
		grown := make([]uint8, want)
		for j := range grown {
			if n > 0 {
				grown[j] = s.rows[i][j%n]
			}
		}
		s.rows[i] = grown
	}
}

func (s *sketch) estimate(o int32) int {
	least := uint8(15)
	for i := range s.rows {
		least = min(least, s.rows[i][s.place(o, i)])
	}
	return int(least)
}

func (s *sketch) place(o int32, row int) uint64 {
	x := (uint64(uint32(o)) + 1) * 0x9e3779b97f4a7c15
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9 + uint64(row)*0x2545f4914f6cdd1e
	return (x >> 20) & uint64(len(s.rows[row])-1)
}
