package evict

import (
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Item is what is known of one thing, to be kept over a restart.
type Item struct {
	Digest v1.Hash
	Size   int64
	Kind   Kind
	Used   time.Time // last use, to ten minutes
	Hint   Hint
}

// Hint is one byte that a policy wants back after a restart. The zero value says that
// nothing is known.
type Hint uint8

const (
	hintKnown  Hint = 1 << 2 // the lowest bits are uses
	hintProven Hint = 1 << 3
)

// State returns what is known of d.
func (p *Policy) State(d v1.Hash) (Item, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s, ok := p.names.find(&p.slots, d)
	if !ok || p.slots.at(s).dropped() {
		return Item{}, false
	}
	return p.item(s), true
}

func (p *Policy) item(s uint32) Item {
	e := p.slots.at(s)
	hint := hintKnown | Hint(e.uses())
	if e.home == proven {
		hint |= hintProven
	}
	return Item{
		Digest: p.names.of(&p.slots, s), Size: e.size, Kind: e.kind,
		Used: fromMinutes(e.usedAt()), Hint: hint,
	}
}

// All yields what is known of everything in the cache, in no order. The cache may be used
// meanwhile, also by the body of the loop; additions and removals may then be seen or not.
func (p *Policy) All() iter.Seq[Item] {
	return func(yield func(Item) bool) {
		var some []Item
		for i := 0; ; i++ {
			some = some[:0]
			more := p.chunk(i, func(s uint32, _ *entry) { some = append(some, p.item(s)) })
			for _, it := range some {
				if !yield(it) {
					return
				}
			}
			if !more {
				return
			}
		}
	}
}

// Load says what was in the cache when it was closed. The order of the items does not
// matter. Content that is known already is passed over, so that the cache may be used
// meanwhile; what is removed then must be removed once more afterwards. All of it counts
// as older than what was added meanwhile. Nothing of it is dropped before Load returns.
//
// The sort takes about a second per million items. Only adding and evicting wait for it.
func (p *Policy) Load(items iter.Seq[Item]) {
	for it := range items {
		p.load(it)
	}
	for part := range slices.Chunk(p.loaded(), stepsMost) {
		p.sortIn(part)
	}
}

func (p *Policy) load(it Item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := max(it.Size, 0)
	home := homeOf(size, it.Kind)
	if s, known := p.names.find(&p.slots, it.Digest); known {
		if !p.slots.at(s).dropped() {
			return
		}
		p.forget(s)
	}
	uses := uint32(0)
	if it.Hint&hintKnown != 0 {
		uses = uint32(it.Hint & mostUses)
		if home == fresh && it.Hint&hintProven != 0 {
			home = proven
		}
	}
	p.insert(it.Digest, size, it.Kind, home)
	s := p.queues[home].head
	p.slots.at(s).reset(min(minutes(it.Used), p.minute()), uses)
	p.move(s, loading)
}

// loaded returns the slots of what was loaded, the latest used first.
func (p *Policy) loaded() []uint32 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	// The first bytes of the digests are kept at hand: many entries have the same minute, and
	// looking them up in the slab would take longer than all the rest.
	type use struct {
		minute, slot uint32
		digest       uint64
	}
	uses := make([]use, 0, p.queues[loading].n)
	for s := p.queues[loading].head; s != 0; s = p.slots.at(s).next {
		e := p.slots.at(s)
		uses = append(uses, use{e.usedAt(), s, binary.BigEndian.Uint64(e.digest[:])})
	}
	slices.SortFunc(uses, func(a, b use) int {
		if c := cmp.Or(cmp.Compare(b.minute, a.minute), cmp.Compare(a.digest, b.digest)); c != 0 {
			return c
		}
		return strings.Compare(p.names.of(&p.slots, a.slot).String(), p.names.of(&p.slots, b.slot).String())
	})
	slots := make([]uint32, len(uses))
	for i, u := range uses {
		slots[i] = u.slot
	}
	return slots
}

func (p *Policy) sortIn(slots []uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range slots {
		if e := p.slots.at(s); e.queue == loading {
			p.unlink(s)
			p.pushTail(s, e.home)
		}
	}
}
