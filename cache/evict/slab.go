package evict

import (
	"math"
	"sync/atomic"
	"time"
)

// queue is where an entry is. Each but the first is a list.
type queue uint8

const (
	unused    queue = iota // a free slot
	manifests              // each of these four is the home of some entries
	small
	fresh
	proven
	aside   // kept at the caller's word, not looked at for a while
	picked  // being judged by the caller of Victims
	loading // not sorted in yet
	gone    // dropped; only the name is left
	past    // likewise, of what comes back as if it had never been here
	queueCount
)

// homeOf returns the queue that new content starts in.
func homeOf(size int64, k Kind) queue {
	switch {
	case k == Manifest:
		return manifests
	case size < smallMax:
		return small
	default:
		return fresh
	}
}

// entry is what is known of one thing. It has no pointers, so that a million of them
// are nothing to the garbage collector.
type entry struct {
	digest     [digestLen]byte
	size       int64
	next, prev uint32        // slots in its list, the next nearer to the tail; 0 is the end
	lastUse    atomic.Uint32 // minute of the last use that counted, times 4, plus uses up to 3
	queue      queue
	home       queue // where it belongs; differs from queue while aside, picked, loading or gone
	kind       Kind
}

const (
	// mostUses is how many uses of an entry count. With more the queue would forget too slowly.
	mostUses = 3
	useBits  = 2

	// usesApart is how many minutes lie between two uses that count: a client that
	// fetches a blob in pieces, or its manifest first and then the blob, uses it once.
	usesApart = 10

	// refersApart is how many minutes must pass before a reference renews the time of the last
	// use. If it were renewed more often, uses that follow would not count.
	refersApart = 24 * 60
)

// use counts a use. It may run while others read or use the same entry.
func (e *entry) use(now uint32) {
	for {
		old := e.lastUse.Load()
		uses := min(old&mostUses+1, mostUses)
		if !apart(old>>useBits, now, usesApart) || e.lastUse.CompareAndSwap(old, now<<useBits|uses) {
			return
		}
	}
}

// refer counts a use of what references the entry: as one, however many there are.
func (e *entry) refer(now uint32) {
	for {
		old := e.lastUse.Load()
		at, uses := old>>useBits, old&mostUses
		wait := uint32(usesApart)
		if uses > 0 {
			wait = refersApart // only the time changes
		}
		if !apart(at, now, wait) || e.lastUse.CompareAndSwap(old, now<<useBits|max(uses, 1)) {
			return
		}
	}
}

// apart reports whether two times are so many minutes apart. A time far in the future comes
// from a clock that was set back since, and counts as apart.
func apart(at, now, minutes uint32) bool { return now >= at+minutes || at >= now+minutes }

func (e *entry) uses() uint32 { return e.lastUse.Load() & mostUses }

func (e *entry) usedAt() uint32 { return e.lastUse.Load() >> useBits }

// dropped reports whether only the name is left.
func (e *entry) dropped() bool { return e.queue == gone || e.queue == past }

// reset needs the lock, as every change of an entry but use and refer.
func (e *entry) reset(at, uses uint32) { e.lastUse.Store(at<<useBits | uses) }

// minutes returns t in minutes since 1970, within what an entry can hold.
func minutes(t time.Time) uint32 {
	return uint32(min(max(t.Unix()/60, 0), math.MaxUint32>>useBits))
}

func fromMinutes(m uint32) time.Time { return time.Unix(int64(m)*60, 0) }

// slab holds the entries. It grows a chunk at a time, so that growing neither copies nor
// leaves room for as many again. Slot 0 is no slot.
type slab struct {
	chunks []*[chunkLen]entry
	free   uint32 // first slot that was given back; the others follow by next
	used   uint32 // slots below it were taken once
}

const chunkLen = 4096

func (s *slab) at(slot uint32) *entry { return &s.chunks[slot/chunkLen][slot%chunkLen] }

func (s *slab) take() uint32 {
	if slot := s.free; slot != 0 {
		s.free = s.at(slot).next
		s.at(slot).next = 0
		return slot
	}
	s.used = max(s.used, 1)
	if int(s.used/chunkLen) == len(s.chunks) {
		s.chunks = append(s.chunks, new([chunkLen]entry))
	}
	s.used++
	return s.used - 1
}

func (s *slab) give(slot uint32) {
	e := s.at(slot)
	e.queue, e.next = unused, s.free
	s.free = slot
}

// list goes from its head, where entries come in, to its tail.
type list struct {
	head, tail uint32
	n          int
	bytes      int64
}

// push puts an entry that is in no list at the head of one.
func (p *Policy) push(s uint32, q queue) {
	l, e := &p.queues[q], p.slots.at(s)
	e.queue, e.next, e.prev = q, l.head, 0
	if l.head != 0 {
		p.slots.at(l.head).prev = s
	} else {
		l.tail = s
	}
	l.head = s
	l.n++
	l.bytes += e.size
}

// pushTail puts an entry that is in no list at the tail of one.
func (p *Policy) pushTail(s uint32, q queue) {
	l, e := &p.queues[q], p.slots.at(s)
	e.queue, e.next, e.prev = q, 0, l.tail
	if l.tail != 0 {
		p.slots.at(l.tail).next = s
	} else {
		l.head = s
	}
	l.tail = s
	l.n++
	l.bytes += e.size
}

// unlink takes an entry out of its list.
func (p *Policy) unlink(s uint32) {
	e := p.slots.at(s)
	l := &p.queues[e.queue]
	if e.prev != 0 {
		p.slots.at(e.prev).next = e.next
	} else {
		l.head = e.next
	}
	if e.next != 0 {
		p.slots.at(e.next).prev = e.prev
	} else {
		l.tail = e.prev
	}
	l.n--
	l.bytes -= e.size
}

// move puts an entry at the head of a list.
func (p *Policy) move(s uint32, q queue) {
	p.unlink(s)
	p.push(s, q)
}
