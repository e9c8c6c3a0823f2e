package main

// ranks is a heap of objects, the lowest rank on top. It knows where each is.
type ranks struct {
	heap []int32
	at   []int32 // place in heap plus 1; 0 not in it
	rank []float64
}

func newRanks(t *trace) *ranks {
	return &ranks{at: make([]int32, len(t.objects)), rank: make([]float64, len(t.objects))}
}

func (h *ranks) set(o int32, rank float64) {
	h.rank[o] = rank
	if h.at[o] == 0 {
		h.heap = append(h.heap, o)
		h.at[o] = int32(len(h.heap))
	}
	h.up(int(h.at[o]) - 1)
	h.down(int(h.at[o]) - 1)
}

func (h *ranks) pop() int32 {
	o := h.heap[0]
	last := len(h.heap) - 1
	h.swap(0, last)
	h.heap = h.heap[:last]
	h.at[o] = 0
	if last > 0 {
		h.down(0)
	}
	return o
}

func (h *ranks) swap(i, j int) {
	h.heap[i], h.heap[j] = h.heap[j], h.heap[i]
	h.at[h.heap[i]], h.at[h.heap[j]] = int32(i+1), int32(j+1)
}

func (h *ranks) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if h.rank[h.heap[p]] <= h.rank[h.heap[i]] {
			return
		}
		h.swap(i, p)
		i = p
	}
}

func (h *ranks) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h.heap) {
			return
		}
		if c+1 < len(h.heap) && h.rank[h.heap[c+1]] < h.rank[h.heap[c]] {
			c++
		}
		if h.rank[h.heap[i]] <= h.rank[h.heap[c]] {
			return
		}
		h.swap(i, c)
		i = c
	}
}

// gdsf is GreedyDual-Size with frequency (Cao and Irani, USITS 1997; Cherkasova 1998):
// each object is worth its uses times its cost by its size, above what was dropped last.
type gdsf struct {
	*ranks
	room  *room
	floor float64
	uses  []float64
	cost  func(size int64) float64
}

// newGDSF makes every miss cost the same, which saves requests.
func newGDSF(r *room) policy { return makeGDSF(r, func(int64) float64 { return 1 }) }

// newPackets makes a miss cost the packets of its transfer, which saves bytes too.
func newPackets(r *room) policy {
	return makeGDSF(r, func(size int64) float64 { return 2 + float64(size)/536 })
}

func makeGDSF(r *room, cost func(int64) float64) policy {
	return &gdsf{ranks: newRanks(r.t), room: r, uses: make([]float64, len(r.t.objects)), cost: cost}
}

func (g *gdsf) add(o int32) { g.uses[o] = 1; g.place(o) }
func (g *gdsf) use(o int32) { g.uses[o]++; g.place(o) }

func (g *gdsf) place(o int32) {
	size := g.room.size(o)
	g.set(o, g.floor+g.uses[o]*g.cost(size)/float64(max(size, 1)))
}

func (g *gdsf) victim() int32 {
	o := g.pop()
	g.floor = g.rank[o]
	return o
}

// clairvoyant drops what will be asked for last of all (Belady 1966). Nothing can do
// much better, and nothing real can do this.
type clairvoyant struct {
	*ranks
	room *room
	next []int32
}

func newClairvoyant(next []int32) func(*room) policy {
	return func(r *room) policy { return &clairvoyant{ranks: newRanks(r.t), room: r, next: next} }
}

func (c *clairvoyant) add(o int32) { c.set(o, -float64(c.next[c.room.event])) }

// use ignores uses by way of a manifest: the next request of o itself is known already.
func (c *clairvoyant) use(o int32) {
	if c.room.t.events[c.room.event].object == o {
		c.add(o)
	}
}

func (c *clairvoyant) victim() int32 { return c.pop() }
