package evict

import (
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// model is the policy said as simply as possible: lists are slices with the head first,
// everything is looked for, and nothing is done in batches.
type model struct {
	capacity int64
	now      uint32
	queues   map[queue][]*modelEntry
	recalled uint32
}

type modelEntry struct {
	d        v1.Hash
	size     int64
	kind     Kind
	home     queue
	uses, at uint32
}

func newModel(capacity int64, now uint32) *model {
	return &model{capacity: capacity, now: now, recalled: now, queues: map[queue][]*modelEntry{}}
}

func (m *model) find(d v1.Hash) (*modelEntry, queue) {
	for q, all := range m.queues {
		for _, e := range all {
			if e.d == d {
				return e, q
			}
		}
	}
	return nil, unused
}

func (m *model) push(q queue, e *modelEntry) { m.queues[q] = slices.Insert(m.queues[q], 0, e) }

func (m *model) take(q queue, e *modelEntry) {
	m.queues[q] = slices.DeleteFunc(m.queues[q], func(o *modelEntry) bool { return o == e })
}

func (m *model) tail(q queue) *modelEntry { return m.queues[q][len(m.queues[q])-1] }

func (m *model) sum(q queue) (n int64) {
	for _, e := range m.queues[q] {
		n += e.size
	}
	return n
}

func (m *model) stored() (n int, bytes int64) {
	for q, all := range m.queues {
		if q != gone {
			n += len(all)
			bytes += m.sum(q)
		}
	}
	return n, bytes
}

func (m *model) add(d v1.Hash, size int64, k Kind) {
	home := homeOf(size, k)
	if e, q := m.find(d); e != nil {
		if q != gone && e.size == size && e.kind == k {
			m.use(e)
			return
		}
		if home == fresh && (q == gone || e.home == proven) {
			home = proven
		}
		m.take(q, e)
	}
	m.push(home, &modelEntry{d: d, size: size, kind: k, home: home, at: m.now})
}

func (m *model) touch(d v1.Hash) {
	if e, _ := m.find(d); e != nil {
		m.use(e)
	}
}

func (m *model) use(e *modelEntry) {
	if m.since(e) >= usesApart {
		e.at, e.uses = m.now, min(e.uses+1, mostUses)
	}
}

func (m *model) refer(d v1.Hash) {
	e, _ := m.find(d)
	switch {
	case e == nil:
	case e.kind == Manifest:
		m.use(e)
	case e.uses == 0 && m.since(e) >= usesApart:
		e.at, e.uses = m.now, 1
	case m.since(e) >= refersApart:
		e.at = m.now
	}
}

// since is how far the last use is from now, in whatever direction.
func (m *model) since(e *modelEntry) int {
	return max(int(m.now)-int(e.at), int(e.at)-int(m.now))
}

func (m *model) remove(d v1.Hash) {
	if e, q := m.find(d); e != nil {
		m.take(q, e)
	}
}

func (m *model) over(q queue, share float64) bool {
	return len(m.queues[q]) > 0 && m.sum(q) > int64(share*float64(m.capacity))
}

func (m *model) next() queue {
	switch {
	case m.over(manifests, manifestShare):
		return manifests
	case m.over(small, smallShare):
		return small
	case m.over(fresh, freshShare):
		return fresh
	}
	for _, q := range []queue{proven, fresh, small, manifests} {
		if len(m.queues[q]) > 0 {
			return q
		}
	}
	return unused
}

func (m *model) victims(need int64, keep func(v1.Hash) bool) (all []v1.Hash) {
	last := len(m.queues[aside])
	if m.now >= m.recalled+recallEvery {
		m.recalled = m.now
		m.recall(last)
		last = 0
	}
	for need > 0 {
		q := m.next()
		if q == unused && last == 0 {
			break
		}
		if q == unused {
			m.recall(last)
			last = 0
			continue
		}
		e := m.tail(q)
		m.take(q, e)
		switch {
		case e.uses > 0 && q == fresh:
			e.uses, e.home = 0, proven
			m.push(proven, e)
		case e.uses > 0:
			e.uses--
			m.push(q, e)
		case keep(e.d):
			m.push(aside, e)
		default:
			m.drop(e)
			need -= e.size
			all = append(all, e.d)
		}
	}
	return all
}

func (m *model) recall(n int) {
	for range n {
		e := m.tail(aside)
		m.take(aside, e)
		m.push(e.home, e)
	}
}

func (m *model) drop(e *modelEntry) {
	if e.home == fresh {
		m.push(gone, e)
	}
	m.trim()
}

func (m *model) trim() {
	for {
		n, _ := m.stored()
		ghosts := m.queues[gone]
		if len(ghosts) <= max(n, ghostsLeast) && (len(ghosts) == 0 || m.sum(gone) <= int64(ghostShare*float64(m.capacity))) {
			return
		}
		m.take(gone, m.tail(gone))
	}
}

// unusedSince drops in an order of its own: the caller compares sets.
func (m *model) unusedSince(before uint32, keep func(v1.Hash) bool) (all []v1.Hash) {
	for _, q := range []queue{manifests, small, fresh, proven, aside} {
		for _, e := range slices.Clone(m.queues[q]) {
			if e.at >= before || keep(e.d) {
				continue
			}
			m.take(q, e)
			all = append(all, e.d)
		}
	}
	m.trim()
	return all
}

// check compares the whole state with a policy's, and looks whether that is sound in itself.
func (m *model) check(p *Policy) error {
	if err := p.sound(); err != nil {
		return err
	}
	n, bytes := m.stored()
	if p.Len() != n || p.Bytes() != bytes {
		return fmt.Errorf("policy has %d entries and %d bytes, want %d and %d", p.Len(), p.Bytes(), n, bytes)
	}
	for q := manifests; q < queueCount; q++ {
		want := m.queues[q]
		s := p.queues[q].head
		for i, e := range want {
			if s == 0 {
				return fmt.Errorf("queue %d has %d entries, want %d", q, i, len(want))
			}
			got := p.slots.at(s)
			d := p.names.of(&p.slots, s)
			if d != e.d || got.size != e.size || got.kind != e.kind || got.home != e.home || got.uses() != e.uses || got.usedAt() != e.at {
				return fmt.Errorf("queue %d entry %d is %s with size %d, kind %d, home %d, %d uses at %d; want %+v",
					q, i, d, got.size, got.kind, got.home, got.uses(), got.usedAt(), *e)
			}
			s = got.next
		}
		if s != 0 && q != past {
			return fmt.Errorf("queue %d has more than %d entries", q, len(want))
		}
	}
	return nil
}

// sound walks all lists and counts everything again.
func (p *Policy) sound() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	seen := map[uint32]bool{}
	stored, bytes := 0, int64(0)
	for q := manifests; q < queueCount; q++ {
		n, sum, prev := 0, int64(0), uint32(0)
		for s := p.queues[q].head; s != 0; s = p.slots.at(s).next {
			e := p.slots.at(s)
			if seen[s] || e.prev != prev || e.queue != q {
				return fmt.Errorf("queue %d entry %d: seen %t, prev %d want %d, queue %d", q, n, seen[s], e.prev, prev, e.queue)
			}
			if found, ok := p.names.find(&p.slots, p.names.of(&p.slots, s)); !ok || found != s {
				return fmt.Errorf("queue %d entry %d is found at %d (%t), want %d", q, n, found, ok, s)
			}
			seen[s] = true
			n, sum, prev = n+1, sum+e.size, s
		}
		if l := p.queues[q]; l.n != n || l.bytes != sum || l.tail != prev {
			return fmt.Errorf("queue %d says %d entries, %d bytes, tail %d; has %d, %d, %d", q, l.n, l.bytes, l.tail, n, sum, prev)
		}
		if q != gone && q != past {
			stored, bytes = stored+n, bytes+sum
		}
	}
	if p.stored != stored || p.bytes != bytes {
		return fmt.Errorf("it says %d entries and %d bytes, has %d and %d", p.stored, p.bytes, stored, bytes)
	}
	if n := len(p.names.slots) + len(p.names.odd); n != len(seen) || len(p.names.odd) != len(p.names.whole) {
		return fmt.Errorf("%d names (%d odd, %d back) of %d entries", n, len(p.names.odd), len(p.names.whole), len(seen))
	}
	free := 0
	for s := p.slots.free; s != 0; s = p.slots.at(s).next {
		free++
	}
	if taken := int(max(p.slots.used, 1)) - 1; taken != len(seen)+free {
		return fmt.Errorf("%d slots, %d in use and %d free", taken, len(seen), free)
	}
	return nil
}
