package main

import (
	"fmt"
	"iter"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/evict"
)

// product is what forebay does: package evict itself.
type product struct {
	*evict.Policy
	room    *room
	digests []v1.Hash
	restart uint32 // minutes between two restarts; 0 none
	hints   bool   // hints are kept over a restart
	next    uint32
}

// newProduct returns forebay's policy, restarted every so many days, for a trace whose
// objects have these digests.
func newProduct(digests []v1.Hash, days int, hints bool) func(*room) policy {
	return func(r *room) policy {
		p := &product{room: r, digests: digests, restart: uint32(days) * minutesDay, hints: hints}
		p.next = p.restart
		p.Policy = p.open()
		return p
	}
}

func (p *product) open() *evict.Policy {
	return evict.New(evict.Options{Capacity: p.room.capacity, Now: p.now})
}

// epoch is when all traces begin.
const epoch = 1_700_000_040

func (p *product) now() time.Time { return time.Unix(epoch+int64(p.room.minute)*60, 0) }

func (p *product) add(o int32) {
	p.maybeRestart()
	k := evict.Blob
	if p.room.t.objects[o].kind == manifestKind {
		k = evict.Manifest
	}
	p.Add(p.digests[o], p.room.size(o), k)
}

func (p *product) use(o int32) {
	p.maybeRestart()
	p.Touch(p.digests[o])
}

func (p *product) refer(o int32) {
	p.maybeRestart()
	p.TouchRefs(p.digests[o])
}

// victim lets the policy drop no more than it must, which is one object.
func (p *product) victim() int32 {
	all := p.Victims(1, nil)
	if len(all) != 1 {
		panic(fmt.Sprintf("evictsim: %d victims to free one byte", len(all)))
	}
	n, err := strconv.ParseInt(all[0].Digest.Hex[:8], 16, 32)
	if err != nil {
		panic("evictsim: a victim that nobody added: " + all[0].Digest.String())
	}
	return int32(n)
}

func (p *product) maybeRestart() {
	if p.restart == 0 || p.room.minute < p.next {
		return
	}
	p.next += p.restart
	old := p.Policy
	p.Policy = p.open()
	p.Load(p.kept(old))
}

func (p *product) kept(old *evict.Policy) iter.Seq[evict.Item] {
	return func(yield func(evict.Item) bool) {
		for it := range old.All() {
			if !p.hints {
				it.Hint = 0
			}
			if !yield(it) {
				return
			}
		}
	}
}

// digestsOf names the objects of a trace, which say their place in their first digits.
func digestsOf(t *trace) []v1.Hash {
	all := make([]v1.Hash, len(t.objects))
	for o := range all {
		all[o] = v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%08x%056d", o, 0)}
	}
	return all
}
