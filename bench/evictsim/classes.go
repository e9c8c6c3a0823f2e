package main

// smallMax is below what a blob counts as small: two of three layers, which together are
// next to nothing of the bytes.
const smallMax = 1 << 20

func isManifest(o object) bool { return o.kind == manifestKind }

func isSmall(o object) bool { return o.kind != layerKind || o.size < smallMax }

// class is content that is kept apart from other content, by a policy of its own. It is
// dropped from while it has more than its share of the capacity, and else not before
// there is nothing outside all classes.
type class struct {
	is    func(object) bool
	share float64
	build func(*room) policy
}

// classes are content in classes, the last of which is for all that is in no other.
type classes struct {
	room  *room
	parts []*part
}

type part struct {
	policy
	class
	n     int
	bytes int64
}

func newClasses(rest func(*room) policy, kept ...class) func(*room) policy {
	return func(r *room) policy {
		c := &classes{room: r}
		for _, k := range append(kept, class{is: func(object) bool { return true }, build: rest}) {
			c.parts = append(c.parts, &part{class: k, policy: k.build(r)})
		}
		return c
	}
}

func (c *classes) of(o int32) *part {
	for _, p := range c.parts {
		if p.is(c.room.t.objects[o]) {
			return p
		}
	}
	panic("evictsim: an object is in no class")
}

func (c *classes) add(o int32) {
	p := c.of(o)
	p.n++
	p.bytes += c.room.size(o)
	p.policy.add(o)
}

func (c *classes) use(o int32)   { c.of(o).use(o) }
func (c *classes) refer(o int32) { refer(c.of(o).policy, o) }

func (c *classes) victim() int32 {
	p := c.next()
	o := p.policy.victim()
	p.n--
	p.bytes -= c.room.size(o)
	return o
}

func (c *classes) next() *part {
	last := len(c.parts) - 1
	for _, p := range c.parts[:last] {
		if p.n > 0 && p.bytes > int64(p.share*float64(c.room.capacity)) {
			return p
		}
	}
	for c.parts[last].n == 0 {
		last--
	}
	return c.parts[last]
}
