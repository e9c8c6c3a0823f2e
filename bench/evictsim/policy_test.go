package main

import (
	"math/rand/v2"
	"testing"
)

// smallTrace is a workload that is quick to replay and has everything.
func smallTrace(seed uint64) *trace {
	s := shapes()[0].scaled(0.05)
	s.days = 12
	return generate(s, seed)
}

// watched makes sure that a policy and its cache keep their promises to each other.
type watched struct {
	policy
	t      *testing.T
	room   *room
	stored map[int32]bool
	bytes  int64
}

func (w *watched) add(o int32) {
	if w.stored[o] {
		w.t.Fatalf("object %d is added twice", o)
	}
	w.stored[o] = true
	w.bytes += w.room.size(o)
	if w.bytes != w.room.used {
		w.t.Fatalf("cache says that it has %d bytes, want %d", w.room.used, w.bytes)
	}
	w.policy.add(o)
}

func (w *watched) use(o int32) {
	if !w.stored[o] {
		w.t.Fatalf("object %d is used and not stored", o)
	}
	w.policy.use(o)
}

func (w *watched) victim() int32 {
	if w.bytes <= w.room.capacity {
		w.t.Fatal("a victim is asked for, and there is room")
	}
	o := w.policy.victim()
	if !w.stored[o] {
		w.t.Fatalf("victim %d is not stored", o)
	}
	delete(w.stored, o)
	w.bytes -= w.room.size(o)
	return o
}

func TestEveryPolicyDropsOnlyWhatIsStored(t *testing.T) {
	tr := smallTrace(1)
	unique := tr.facts().unique
	for _, c := range contenders(tr) {
		for _, part := range []int64{100, 20, 3} {
			for _, images := range []bool{false, true} {
				got := replay(tr, unique/part, images, func(r *room) policy {
					return &watched{policy: c.build(r), t: t, room: r, stored: map[int32]bool{}}
				})
				if got.hits == 0 || got.hits > got.requests || got.evicted == 0 || got.whole > got.pulls || got.free > got.manifests {
					t.Errorf("%s in 1/%d: %+v", c.name, part, got)
				}
			}
		}
	}
}

// Two programs that were written apart agree on every figure.
func TestForebayIsTheMeasuredPolicy(t *testing.T) {
	for seed := range uint64(3) {
		tr := smallTrace(seed)
		named := map[string]func(*room) policy{}
		for _, c := range contenders(tr) {
			named[c.name] = c.build
		}
		for _, part := range []int64{50, 10, 4} {
			capacity := tr.facts().unique / part
			want := replay(tr, capacity, true, named["3 classes, S3-FIFO"])
			if got := replay(tr, capacity, true, named["forebay"]); got != want {
				t.Errorf("seed %d, 1/%d: forebay gets %+v, the simulated policy %+v", seed, part, got, want)
			}
		}
	}
}

func TestNothingBeatsTheClairvoyant(t *testing.T) {
	tr := evenTrace(20_000)
	for _, capacity := range []int64{20, 100, 400} {
		best := replay(tr, capacity, false, newClairvoyant(tr.nexts()))
		for _, c := range contenders(tr) {
			if got := replay(tr, capacity, false, c.build); got.hits > best.hits {
				t.Errorf("%s in %d bytes hits %d, the clairvoyant %d", c.name, capacity, got.hits, best.hits)
			}
		}
	}
}

// evenTrace asks for a thousand manifests of one byte each, some more often than others:
// without sizes, Belady's rule is optimal.
func evenTrace(n int) *trace {
	rng := rand.New(rand.NewPCG(5, 5))
	z := newZipf(1000, 0.8)
	t := &trace{name: "even"}
	for range 1000 {
		t.objects = append(t.objects, object{size: 1, kind: layerKind})
	}
	for i := range n {
		t.events = append(t.events, event{minute: uint32(i), object: int32(z.draw(rng)), pull: -1, op: get})
	}
	return t
}

func TestLRUIsExact(t *testing.T) {
	tr := evenTrace(5000)
	const capacity = 50
	var recent []int32 // the latest last
	hits := 0
	for i, e := range tr.events {
		at := -1
		for j, o := range recent {
			if o == e.object {
				at = j
			}
		}
		switch {
		case at >= 0:
			recent = append(recent[:at], recent[at+1:]...)
			if i >= int(float64(len(tr.events))*warmShare) {
				hits++
			}
		case len(recent) == capacity:
			recent = recent[1:]
		}
		recent = append(recent, e.object)
	}
	if got := replay(tr, capacity, false, newLRU); got.hits != hits {
		t.Errorf("LRU hits %d, want %d", got.hits, hits)
	}
}

func TestAScanHurtsLRUMoreThanS3FIFO(t *testing.T) {
	tr := &trace{}
	for range 5000 {
		tr.objects = append(tr.objects, object{size: 1, kind: layerKind})
	}
	minute := uint32(0)
	ask := func(o int32) {
		minute += 11
		tr.events = append(tr.events, event{minute: minute, object: o, pull: -1, op: get})
	}
	scanned := int32(100)
	for range 40 {
		for range 3 {
			for o := range int32(60) {
				ask(o)
			}
		}
		for range 110 {
			ask(scanned)
			scanned++
		}
	}
	lru, s3 := replay(tr, 100, false, newLRU), replay(tr, 100, false, newS3FIFO)
	if s3.hits < lru.hits+lru.requests/20 {
		t.Errorf("S3-FIFO hits %d, LRU %d of %d, want it clearly better", s3.hits, lru.hits, lru.requests)
	}
}

func TestWhatIsLargerThanTheCacheIsPassedThrough(t *testing.T) {
	tr := &trace{objects: []object{{size: 5}, {size: 50}}}
	for i := range uint32(40) {
		tr.events = append(tr.events, event{minute: i, object: int32(i % 2), pull: -1, op: get})
	}
	got := replay(tr, 10, false, newLRU)
	if got.tooLarge != 20 || got.evicted != 0 || got.hits != 15 || got.hitBytes != 75 {
		t.Errorf("replay = %+v, want 20 passed through and 15 hits of 5 bytes after the warm-up", got)
	}
}

func TestTheUseOfAManifestIsAUseOfItsLayers(t *testing.T) {
	// An index of a manifest of a layer, and others that drive it out.
	objects := []object{
		{size: 1, kind: manifestKind, refs: []int32{1}}, {size: 1, kind: manifestKind, refs: []int32{2}}, {size: 10, kind: layerKind},
	}
	for range 30 {
		objects = append(objects, object{size: 10, kind: layerKind})
	}
	tr := &trace{objects: objects}
	ask := func(o int32, what op) {
		tr.events = append(tr.events, event{object: o, pull: -1, op: what})
	}
	for _, o := range []int32{0, 1, 2} {
		ask(o, get)
	}
	for o := range int32(30) {
		ask(0, head)
		ask(3+o, get)
	}
	ask(2, get)
	if got := replay(tr, 40, false, newLRU); got.hits != 0 {
		t.Errorf("without images: %d hits, want the layer gone", got.hits)
	}
	if got := replay(tr, 40, true, newLRU); got.hits != 1 {
		t.Errorf("with images: %d hits, want the layer kept", got.hits)
	}
}
