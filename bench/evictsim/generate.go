package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// shape says how a made-up workload looks. What is known of real ones: most layers are
// below 1 MiB and the bytes are in the few that are not; few repositories get most of the
// pulls; layers of base images are in many images; much is pulled once and never again
// (Anwar et al., FAST 2018).
type shape struct {
	name     string
	days     int
	pulls    int     // of images a day, without the scanner's; weekends have fewer
	repos    int     // that release now and then
	bases    int     // images that others are built on
	nodes    int     // machines that keep what they pulled
	ci       float64 // share of pulls by machines that keep nothing
	oneOff   float64 // share of pulls of images that nobody pulls again
	scanned  float64 // share of repositories that a scanner pulls each night
	zipf     float64 // exponent of the repositories' popularity
	releases float64 // median days between two releases of a repository
}

// shapes are the workloads that are compared.
func shapes() []shape {
	mixed := shape{
		name: "mixed", days: 60, pulls: 2500, repos: 1500, bases: 60, nodes: 150,
		ci: 0.4, oneOff: 0.12, scanned: 0.15, zipf: 0.95, releases: 12,
	}
	cluster, ci, unscanned := mixed, mixed, mixed
	cluster.name, cluster.ci, cluster.oneOff, cluster.nodes, cluster.scanned = "cluster", 0.1, 0.03, 400, 0.05
	ci.name, ci.ci, ci.oneOff, ci.scanned, ci.releases = "ci", 0.7, 0.2, 0, 5
	unscanned.name, unscanned.scanned = "unscanned", 0
	return []shape{mixed, cluster, ci, unscanned}
}

// scaled returns the shape of a mirror with a part of the clients.
func (s shape) scaled(part float64) shape {
	of := func(n, least int) int { return max(int(float64(n)*part), least) }
	s.pulls, s.repos, s.nodes = of(s.pulls, 50), of(s.repos, 40), of(s.nodes, 4)
	return s
}

// generator makes a trace. All randomness comes from one source, so that a shape and a
// seed make the same trace everywhere.
type generator struct {
	shape
	rng      *rand.Rand
	t        *trace
	empty    int32 // the layer of no files, which most images have
	bases    []base
	repos    []repo
	byShare  *zipf // over repos: for nodes and scanners
	baseBy   *zipf // over bases
	projects []project
	nodes    []*node
	minute   uint32
}

// base is a stack of layers that images are built on. It is an image of its own as well.
type base struct {
	parent int        // another base that it is built on, or -1
	own    [2][]int32 // layers on top of its parent's, per platform
	next   float64    // day of its next rebuild
}

// repo is a repository with its releases, oldest first.
type repo struct {
	base     int
	own      [2][]int32 // layers on top of the base's, per platform
	multi    bool       // has an index of two platforms
	every    float64    // days between releases
	next     float64    // day of the next release
	releases []release
	latest   float64 // day of the last of them
	homes    []int32 // nodes that run it
}

// release is what a tag points to at a time.
type release struct {
	top    int32    // index or manifest
	images [2]int32 // manifest per platform
}

// project is a source tree whose builds pull some images, on the days it is worked on.
type project struct {
	repos []int
	busy  bool
}

const (
	platforms  = 2
	minutesDay = 24 * 60
	armShare   = 0.15 // share of nodes and builds on the second platform
)

// generate makes the trace of a shape.
func generate(s shape, seed uint64) *trace {
	g := &generator{
		shape: s,
		rng:   rand.New(rand.NewPCG(seed, 0x666f7265626179)),
		t:     &trace{name: fmt.Sprintf("%s/%d", s.name, seed)},
	}
	g.empty = g.object(layerKind, 32, nil)
	g.makeBases()
	g.makeRepos()
	g.makeNodes()
	for day := range s.days {
		g.releaseDay(float64(day))
		g.pullDay(day)
	}
	return g.t
}

func (g *generator) object(k kind, size int64, refs []int32) int32 {
	g.t.objects = append(g.t.objects, object{size: size, kind: k, refs: refs})
	return int32(len(g.t.objects) - 1)
}

// logNormal returns a number whose logarithm is normal around that of median.
func (g *generator) logNormal(median, sigma float64) float64 {
	return median * math.Exp(sigma*g.rng.NormFloat64())
}

// layer makes a layer of a usual size: two of three below 1 MiB, the others with a heavy tail.
func (g *generator) layer() int32 {
	const share, mib, most = 0.66, 1 << 20, 8 << 30
	size := g.logNormal(20<<10, 2)
	if g.rng.Float64() < share {
		size = min(size, mib-1)
	} else {
		size = max(mib, min(g.logNormal(10*mib, 1.5), most))
	}
	return g.object(layerKind, max(int64(size), 120), nil)
}

func (g *generator) makeBases() {
	g.baseBy = newZipf(g.shape.bases, 1.1)
	for i := range g.shape.bases {
		b := base{parent: -1, next: g.rng.Float64() * 30}
		if i >= 8 && g.rng.Float64() < 0.7 {
			b.parent = g.rng.IntN(min(i, 12))
		}
		g.bases = append(g.bases, b)
		g.rebuild(i)
	}
}

// rebuild gives a base new layers, as an update of its packages does.
func (g *generator) rebuild(i int) {
	b := &g.bases[i]
	for p := range platforms {
		b.own[p] = nil
		if b.parent < 0 {
			b.own[p] = append(b.own[p], g.object(layerKind, int64(max(2<<20, g.logNormal(30<<20, 0.5))), nil))
		}
		for range 1 + g.rng.IntN(4) {
			b.own[p] = append(b.own[p], g.layer())
		}
	}
}

func (g *generator) stack(i, platform int) []int32 {
	if i < 0 {
		return nil
	}
	return append(g.stack(g.bases[i].parent, platform), g.bases[i].own[platform]...)
}

// makeRepos makes the repositories, most popular first. Each base has one too, spread
// over the popular half.
func (g *generator) makeRepos() {
	g.byShare = newZipf(g.shape.repos, g.zipf)
	for i := range g.shape.repos {
		r := repo{
			base:  g.baseBy.draw(g.rng),
			multi: g.rng.Float64() < 0.5,
			every: max(0.3, min(g.logNormal(g.shape.releases, 1), 90)),
		}
		if n := i / 8; i%8 == 0 && n < len(g.bases) {
			r.base, r.multi = n, true
		} else {
			g.replace(&r, 1+min(int(g.rng.ExpFloat64()*4), 25))
		}
		g.repos = append(g.repos, r)
		last := &g.repos[i]
		g.release(last)
		last.next = g.rng.Float64() * last.every
	}
	for range max(20, g.shape.repos/8) {
		var p project
		for range 2 + g.rng.IntN(4) {
			p.repos = append(p.repos, g.byShare.draw(g.rng))
		}
		g.projects = append(g.projects, p)
	}
}

// replace gives a repository n new layers at the top, in place of as many as it has.
func (g *generator) replace(r *repo, n int) {
	for p := range platforms {
		own := slices.Clone(r.own[p][:max(0, len(r.own[p])-n)])
		for range n {
			own = append(own, g.layer())
		}
		r.own[p] = own
	}
}

// release makes a new image of a repository from its layers and its base's.
func (g *generator) release(r *repo) {
	var rel release
	for p := range platforms {
		layers := append(g.stack(r.base, p), r.own[p]...)
		if g.rng.Float64() < 0.6 {
			layers = append(layers, g.empty)
		}
		rel.images[p] = g.image(layers)
		if !r.multi {
			rel.images[1] = rel.images[0]
			break
		}
	}
	rel.top = rel.images[0]
	if r.multi {
		rel.top = g.object(manifestKind, 500+int64(g.rng.IntN(2500)), rel.images[:])
	}
	r.releases = append(r.releases, rel)
}

func (g *generator) image(layers []int32) int32 {
	config := g.object(configKind, 1500+int64(g.rng.ExpFloat64()*5000), nil)
	refs := append([]int32{config}, layers...)
	return g.object(manifestKind, 400+150*int64(len(layers)), refs)
}

// releaseDay makes what comes out on a day and lets the nodes that run it pull it.
func (g *generator) releaseDay(day float64) {
	for i := range g.bases {
		if g.bases[i].next <= day {
			g.rebuild(i)
			g.bases[i].next = day + 20 + g.rng.Float64()*20
		}
	}
	for i := range g.repos {
		r := &g.repos[i]
		if r.next > day {
			continue
		}
		if n := len(r.own[0]); n > 0 {
			g.replace(r, 1+g.rng.IntN(n))
		}
		g.release(r)
		r.latest = day
		r.next = max(day+0.5, r.next+r.every*(0.5+g.rng.Float64()))
	}
	for i := range g.projects {
		g.projects[i].busy = g.rng.Float64() < 0.25
	}
}

// zipf draws numbers below n, the i-th with a weight of 1/(i+1)^s.
type zipf struct{ sums []float64 }

func newZipf(n int, s float64) *zipf {
	z := &zipf{sums: make([]float64, n)}
	sum := 0.0
	for i := range n {
		sum += math.Pow(float64(i+1), -s)
		z.sums[i] = sum
	}
	return z
}

func (z *zipf) draw(rng *rand.Rand) int {
	x := rng.Float64() * z.sums[len(z.sums)-1]
	i, _ := slices.BinarySearch(z.sums, x)
	return min(i, len(z.sums)-1)
}
