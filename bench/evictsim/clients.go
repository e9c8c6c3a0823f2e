package main

import (
	"cmp"
	"slices"
)

// node is a machine that keeps images until its disk is full: it asks a mirror for the
// layers that it lacks, and for no more than a HEAD where it has the image.
type node struct {
	room     int64 // bytes that images may take
	used     int64
	platform int
	images   map[int32]uint32 // manifest to the minute of its last use
	layers   map[int32]int    // how many of the images have it
}

func (g *generator) makeNodes() {
	for range g.shape.nodes {
		g.nodes = append(g.nodes, &node{
			room:     int64(max(4<<30, min(g.logNormal(15<<30, 0.6), 100<<30))),
			platform: g.platform(),
			images:   map[int32]uint32{}, layers: map[int32]int{},
		})
	}
	for i := range g.repos {
		// The more popular, the more machines run it; half of the rest run on none.
		n := min(g.shape.nodes/2, int(float64(g.shape.nodes)*4/float64(i+4)))
		if n == 0 {
			n = g.rng.IntN(2)
		}
		for range n {
			g.repos[i].homes = append(g.repos[i].homes, int32(g.rng.IntN(len(g.nodes))))
		}
	}
}

func (g *generator) platform() int {
	if g.rng.Float64() < armShare {
		return 1
	}
	return 0
}

// pullOf is one pull to come: what and by whom.
type pullOf struct {
	minute uint32
	rel    release
	node   *node // nil: a machine that keeps nothing
	arm    int
}

// pullDay makes the pulls of one day.
func (g *generator) pullDay(day int) {
	n := g.pulls
	if day%7 >= 5 {
		n = n * 2 / 5
	}
	start := uint32(day * minutesDay)
	var pulls []pullOf
	for range n {
		at := start + g.workMinute()
		switch x := g.rng.Float64(); {
		case x < g.oneOff:
			pulls = append(pulls, pullOf{minute: at, rel: g.strangerImage(), arm: g.platform()})
		case x < g.oneOff+g.ci:
			pulls = append(pulls, pullOf{minute: at, rel: g.buildImage(), arm: g.platform()})
		default:
			pulls = append(pulls, g.nodePull(at))
		}
	}
	pulls = append(pulls, g.rollouts(start)...)
	pulls = append(pulls, g.scan(start)...)
	slices.SortStableFunc(pulls, func(a, b pullOf) int { return cmp.Compare(a.minute, b.minute) })
	for _, p := range pulls {
		g.pull(p)
	}
}

// workMinute returns a minute of the day: four of five between 8 and 20 o'clock.
func (g *generator) workMinute() uint32 {
	if g.rng.Float64() < 0.8 {
		return 8*60 + uint32(g.rng.IntN(12*60))
	}
	return uint32(g.rng.IntN(minutesDay))
}

// strangerImage makes an image that is pulled this once.
func (g *generator) strangerImage() release {
	r := repo{base: g.baseBy.draw(g.rng), multi: g.rng.Float64() < 0.5}
	if g.rng.Float64() < 0.4 {
		r.base = -1 // built on something that nobody else here uses
	}
	g.replace(&r, 1+min(int(g.rng.ExpFloat64()*4), 25))
	g.release(&r)
	return r.releases[0]
}

// buildImage is what a build pulls: an image of a project that is worked on today.
func (g *generator) buildImage() release {
	for range 20 {
		p := &g.projects[g.rng.IntN(len(g.projects))]
		if p.busy {
			return g.version(p.repos[g.rng.IntN(len(p.repos))])
		}
	}
	return g.version(g.byShare.draw(g.rng))
}

// version is mostly the latest release, now and then one that somebody stays with.
func (g *generator) version(i int) release {
	rels := g.repos[i].releases
	if g.rng.Float64() < 0.75 {
		return rels[len(rels)-1]
	}
	back := 1 + int(g.rng.ExpFloat64()*2)
	return rels[max(0, len(rels)-1-back)]
}

// nodePull is a container that starts on some machine, mostly one that ran it before.
func (g *generator) nodePull(at uint32) pullOf {
	i := g.byShare.draw(g.rng)
	n := g.nodes[g.rng.IntN(len(g.nodes))]
	if homes := g.repos[i].homes; len(homes) > 0 && g.rng.Float64() < 0.8 {
		n = g.nodes[homes[g.rng.IntN(len(homes))]]
	}
	return pullOf{minute: at, rel: g.version(i), node: n, arm: n.platform}
}

// rollouts lets the machines that run something pull what came out today within an hour.
func (g *generator) rollouts(start uint32) []pullOf {
	var pulls []pullOf
	day := float64(start / minutesDay)
	for i := range g.repos {
		r := &g.repos[i]
		if len(r.releases) < 2 || r.latest != day {
			continue
		}
		at := start + 8*60 + uint32(g.rng.IntN(10*60))
		for _, h := range r.homes {
			n := g.nodes[h]
			pulls = append(pulls, pullOf{
				minute: at + uint32(g.rng.IntN(60)), rel: r.releases[len(r.releases)-1], node: n, arm: n.platform,
			})
		}
	}
	return pulls
}

// scan is a nightly job that pulls the latest release of many repositories, used or not.
func (g *generator) scan(start uint32) []pullOf {
	var pulls []pullOf
	for i := range g.repos {
		if g.rng.Float64() < g.scanned {
			rels := g.repos[i].releases
			pulls = append(pulls, pullOf{minute: start + 60 + uint32(g.rng.IntN(120)), rel: rels[len(rels)-1]})
		}
	}
	return pulls
}

// pull writes the requests of one pull.
func (g *generator) pull(p pullOf) {
	g.minute = p.minute
	image := p.rel.images[p.arm]
	g.ask(p.rel.top, head)
	if p.node != nil {
		if _, ok := p.node.images[image]; ok {
			p.node.images[image] = p.minute
			g.t.pulls++
			return
		}
	}
	g.ask(p.rel.top, get)
	if image != p.rel.top {
		g.ask(image, get)
	}
	for _, o := range g.t.objects[image].refs {
		if p.node == nil || p.node.layers[o] == 0 {
			g.ask(o, get)
		}
	}
	if p.node != nil {
		p.node.keep(g.t, image, p.minute)
	}
	g.t.pulls++
}

func (g *generator) ask(o int32, what op) {
	g.t.events = append(g.t.events, event{minute: g.minute, object: o, pull: g.t.pulls, op: what})
}

// keep stores an image and drops those that were not used for longest when the disk is full.
func (n *node) keep(t *trace, image int32, minute uint32) {
	n.images[image] = minute
	for _, o := range t.objects[image].refs {
		if n.layers[o]++; n.layers[o] == 1 {
			n.used += t.objects[o].size
		}
	}
	for n.used > n.room && len(n.images) > 1 {
		n.drop(t, n.oldest(image))
	}
}

func (n *node) oldest(but int32) int32 {
	found, at := int32(-1), uint32(never)
	for image, used := range n.images {
		if image != but && (used < at || used == at && image < found) {
			found, at = image, used
		}
	}
	return found
}

func (n *node) drop(t *trace, image int32) {
	delete(n.images, image)
	for _, o := range t.objects[image].refs {
		if n.layers[o]--; n.layers[o] == 0 {
			delete(n.layers, o)
			n.used -= t.objects[o].size
		}
	}
}
