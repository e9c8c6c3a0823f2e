package evict

import (
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Victim is something to drop.
type Victim struct {
	Digest v1.Hash
	Size   int64
	Kind   Kind
	Used   time.Time // last use, to ten minutes
}

const (
	// batch bounds what is judged at once.
	batch = 64

	// stepsMost bounds how many entries are moved under one hold of the lock.
	stepsMost = 512

	// recallEvery is after how many minutes the caller is asked again about what it kept.
	recallEvery = 10
)

// Victims returns what to drop to free need bytes, and treats it as dropped: it does not
// count in [Policy.Bytes] any more. A caller that cannot drop one must Add it again. If the
// victims have less than need bytes, there are no more.
//
// keep reports whether content must stay, since it is pinned or in use; nil keeps nothing. It
// is called without a lock. About content that it kept it is not asked again for some
// minutes, unless nothing else is left. Content that is touched meanwhile stays too.
//
// The time per victim is constant on average: each use of an entry makes one more step some
// time, and so does each answer of keep.
func (p *Policy) Victims(need int64, keep func(v1.Hash) bool) []Victim {
	var all []Victim
	last := p.recallDue()
	for need > 0 {
		candidates, more := p.pick(need)
		for _, v := range p.judge(candidates, keep, true) {
			all = append(all, v)
			need -= v.Size
		}
		if !more && len(candidates) == 0 {
			if last == 0 {
				break
			}
			p.recall(last)
			last = 0
		}
	}
	return all
}

// Unused returns what was not used since a time, for dropping, as [Policy.Victims] does.
// It looks at all entries, a few thousand under one hold of the lock.
func (p *Policy) Unused(since time.Time, keep func(v1.Hash) bool) []Victim {
	var all []Victim
	before := minutes(since)
	for chunk := 0; ; chunk++ {
		candidates, more := p.pickUnused(chunk, before)
		all = append(all, p.judge(candidates, keep, false)...)
		if !more {
			return all
		}
	}
}

// chunk calls f for all entries of a chunk that are no ghosts, under the lock for
// reading, and reports whether there are more chunks.
func (p *Policy) chunk(i int, f func(slot uint32, e *entry)) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if i >= len(p.slots.chunks) {
		return false
	}
	for j := range p.slots.chunks[i] {
		if e := &p.slots.chunks[i][j]; e.queue != unused && !e.dropped() {
			f(uint32(i*chunkLen+j), e)
		}
	}
	return i+1 < len(p.slots.chunks)
}

// candidate is an entry that is being judged. It is in the queue of those, so that
// nobody else picks it.
type candidate struct {
	Victim
	slot uint32
	use  uint32 // what its lastUse was
}

func (p *Policy) candidate(s uint32) candidate {
	e := p.slots.at(s)
	p.move(s, picked)
	return candidate{
		Victim: Victim{Digest: p.names.of(&p.slots, s), Size: e.size, Kind: e.kind, Used: fromMinutes(e.usedAt())},
		slot:   s, use: e.lastUse.Load(),
	}
}

// pick returns candidates of need bytes, or as many as may be judged at once. more says that
// it stopped early, to let others have the lock.
func (p *Policy) pick(need int64) (all []candidate, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range stepsMost {
		q := p.fullest()
		if q == unused || need <= 0 || len(all) == batch {
			return all, false
		}
		s := p.queues[q].tail
		if e := p.slots.at(s); e.uses() > 0 {
			p.again(s)
			continue
		}
		c := p.candidate(s)
		all = append(all, c)
		need -= c.Size
	}
	return all, true
}

// fullest returns the queue whose tail goes next; unused if there is none.
func (p *Policy) fullest() queue {
	over := func(q queue, share float64) bool { return p.queues[q].n > 0 && p.queues[q].bytes > p.part(share) }
	switch {
	case over(manifests, manifestShare):
		return manifests
	case over(small, smallShare):
		return small
	case over(fresh, freshShare):
		return fresh
	}
	for _, q := range [...]queue{proven, fresh, small, manifests} {
		if p.queues[q].n > 0 {
			return q
		}
	}
	return unused
}

// part returns a share of the capacity in bytes.
func (p *Policy) part(share float64) int64 {
	whole := p.capacity
	if whole <= 0 {
		whole = p.bytes
	}
	return int64(share * float64(whole))
}

// again gives an entry that was used another round.
func (p *Policy) again(s uint32) {
	e := p.slots.at(s)
	left := e.uses() - 1
	if e.home == fresh {
		e.home, left = proven, 0
	}
	e.reset(e.usedAt(), left)
	p.move(s, e.home)
}

// pickUnused picks all entries of a chunk that were not used since a minute.
func (p *Policy) pickUnused(chunk int, since uint32) (all []candidate, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if chunk >= len(p.slots.chunks) {
		return nil, false
	}
	for i := range p.slots.chunks[chunk] {
		e := &p.slots.chunks[chunk][i]
		if e.queue >= manifests && e.queue <= aside && e.usedAt() < since {
			all = append(all, p.candidate(uint32(chunk*chunkLen+i)))
		}
	}
	return all, chunk+1 < len(p.slots.chunks)
}

// judge asks keep about candidates and drops those that need not stay. The names of new
// content that is dropped may be remembered for a while.
func (p *Policy) judge(all []candidate, keep func(v1.Hash) bool, remember bool) []Victim {
	if len(all) == 0 {
		return nil
	}
	kept := make([]bool, len(all))
	if keep != nil {
		for i, c := range all {
			kept[i] = keep(c.Digest)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	victims := make([]Victim, 0, len(all))
	for i, c := range all {
		// It may have been removed meanwhile, and its slot may hold another entry.
		s, ok := p.names.find(&p.slots, c.Digest)
		if !ok || s != c.slot || p.slots.at(s).queue != picked {
			continue
		}
		switch e := p.slots.at(s); {
		case kept[i]:
			p.move(s, aside)
		case e.lastUse.Load() != c.use:
			p.move(s, e.home)
		default:
			p.drop(s, remember)
			victims = append(victims, c.Victim)
		}
	}
	p.trimGhosts()
	return victims
}

// drop makes an entry a victim.
func (p *Policy) drop(s uint32, remember bool) {
	e := p.slots.at(s)
	p.age = max(p.now().Sub(fromMinutes(e.usedAt())), 0)
	if !remember {
		p.forget(s)
		return
	}
	p.stored--
	p.bytes -= e.size
	if e.home == fresh {
		p.move(s, gone)
	} else {
		p.move(s, past)
	}
}

// ghostsLeast is how many names are remembered at least.
const ghostsLeast = 1024

// trimGhosts forgets the oldest names of dropped content: those that are too many beside entries,
// and those of more bytes than their share of the capacity.
func (p *Policy) trimGhosts() {
	trim := func(q queue, most int, share float64) {
		l := &p.queues[q]
		for l.n > max(most, ghostsLeast) || l.n > 0 && l.bytes > p.part(share) {
			p.forget(l.tail)
		}
	}
	trim(gone, p.stored, ghostShare)
	trim(past, p.stored/2, 1) // these decide nothing: they are only counted when they come back
}

// recallDue puts back what keep kept, if it was last asked long ago. It returns how many
// entries are still put aside.
func (p *Policy) recallDue() int {
	p.mu.Lock()
	n, now := p.queues[aside].n, p.minute()
	due := now >= p.recalled+recallEvery
	if due {
		p.recalled = now
	}
	p.mu.Unlock()
	if !due {
		return n
	}
	p.recall(n)
	return 0
}

// recall puts back the n entries that were put aside first.
func (p *Policy) recall(n int) {
	for n > 0 {
		some := min(n, stepsMost)
		n -= some
		p.mu.Lock()
		for range some {
			if s := p.queues[aside].tail; s != 0 {
				p.move(s, p.slots.at(s).home)
			}
		}
		p.mu.Unlock()
	}
}
