package main

// links are doubly linked lists of objects that share their cells, by object. An object
// is in at most one list of a links.
type links struct{ next, prev []int32 }

const none = -1

func newLinks(t *trace) *links {
	return &links{next: make([]int32, len(t.objects)), prev: make([]int32, len(t.objects))}
}

// list goes from its head, the newest, to its tail.
type list struct {
	room       *room
	cells      *links
	head, tail int32
	n          int
	bytes      int64
}

func newList(r *room, cells *links) *list {
	return &list{room: r, cells: cells, head: none, tail: none}
}

func (l *list) push(o int32) {
	l.cells.next[o], l.cells.prev[o] = l.head, none
	if l.head != none {
		l.cells.prev[l.head] = o
	} else {
		l.tail = o
	}
	l.head = o
	l.n++
	l.bytes += l.room.size(o)
}

func (l *list) remove(o int32) {
	next, prev := l.cells.next[o], l.cells.prev[o]
	if prev != none {
		l.cells.next[prev] = next
	} else {
		l.head = next
	}
	if next != none {
		l.cells.prev[next] = prev
	} else {
		l.tail = prev
	}
	l.n--
	l.bytes -= l.room.size(o)
}

func (l *list) pop() int32 {
	o := l.tail
	l.remove(o)
	return o
}
