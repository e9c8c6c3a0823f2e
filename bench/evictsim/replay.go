package main

// policy decides what a cache drops. It sees what is stored, used and dropped, and
// nothing of what is not in the cache.
type policy interface {
	add(o int32)   // o is stored now
	use(o int32)   // o, which is stored, is used
	victim() int32 // what to drop next; it is dropped before anything else happens
}

// referrer is a policy to which the use of a manifest is something else than the use of
// what it references.
type referrer interface {
	refer(o int32) // what references o, which is stored, is used
}

// refer tells a policy that what references o is used.
func refer(p policy, o int32) {
	if r, ok := p.(referrer); ok {
		r.refer(o)
	} else {
		p.use(o)
	}
}

// room is what a policy may know about its cache.
type room struct {
	t        *trace
	capacity int64
	used     int64 // bytes of what is stored, the newest included
	minute   uint32
	event    int // index of the current event; only for the clairvoyant
}

func (r *room) size(o int32) int64 { return r.t.objects[o].size }

// counts are what came of a replay, after the warm-up.
type counts struct {
	requests, hits    int
	bytes, hitBytes   int64
	manifests, free   int // GETs of manifests, and those that the upstream was not asked for
	pulls, whole      int // pulls, and those that needed nothing from the upstream
	evicted, tooLarge int
}

// replay runs a trace through a cache of some bytes. With images, the use of a manifest
// is one of all that it references.
func replay(t *trace, capacity int64, images bool, build func(*room) policy) counts {
	c := cache{
		room:   room{t: t, capacity: capacity},
		stored: make([]bool, len(t.objects)), images: images,
	}
	c.policy = build(&c.room)
	warm := int(float64(len(t.events)) * warmShare)
	needed := make([]bool, t.pulls) // pulls that needed the upstream
	asked := make([]bool, t.pulls)
	for i, e := range t.events {
		c.room.event, c.room.minute = i, e.minute
		hit := c.ask(e)
		if i < warm {
			continue
		}
		if e.pull >= 0 {
			asked[e.pull] = true
			needed[e.pull] = needed[e.pull] || e.op == get && !hit
		}
		if e.op == get {
			c.count(t, e.object, hit)
		}
	}
	for i := range asked {
		if asked[i] {
			c.pulls++
		}
		if asked[i] && !needed[i] {
			c.whole++
		}
	}
	return c.counts
}

// cache is the mirror's store as far as eviction goes.
type cache struct {
	counts
	room   room
	policy policy
	stored []bool
	images bool
}

// ask answers one request and reports whether it was a hit.
func (c *cache) ask(e event) bool {
	if c.stored[e.object] {
		c.policy.use(e.object)
		if c.images {
			c.useAll(e.object, e.op == head)
		}
		return true
	}
	if e.op == get {
		c.store(e.object)
	}
	return false
}

// useAll uses what a manifest references. A client that got an index goes on with the
// manifest of its platform, and with that come its layers. After a HEAD nothing need
// come: the client has the image.
func (c *cache) useAll(o int32, deep bool) {
	for _, r := range c.room.t.objects[o].refs {
		if !c.stored[r] {
			continue
		}
		refer(c.policy, r)
		if deep {
			c.useAll(r, deep)
		}
	}
}

func (c *cache) store(o int32) {
	size := c.room.size(o)
	if size > c.room.capacity {
		c.tooLarge++
		return // passed through
	}
	c.stored[o] = true
	c.room.used += size
	c.policy.add(o)
	for c.room.used > c.room.capacity {
		v := c.policy.victim()
		c.stored[v] = false
		c.room.used -= c.room.size(v)
		c.evicted++
	}
}

func (c *counts) count(t *trace, o int32, hit bool) {
	size, isManifest := t.objects[o].size, t.objects[o].kind == manifestKind
	c.requests++
	c.bytes += size
	if isManifest {
		c.manifests++
	}
	if !hit {
		return
	}
	c.hits++
	c.hitBytes += size
	if isManifest {
		c.free++
	}
}

func share[N int | int64](part, whole N) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}
