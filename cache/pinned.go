package cache

import (
	"encoding/json"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/wire"
)

// gathering works out what pins hold.
type gathering struct {
	c     *Cache
	held  map[proof]struct{}
	tags  map[string][]string
	roots map[proof][]string
	bytes int64
}

// add takes in one pin, as long as all fit.
func (g *gathering) add(p *Pin) {
	byDigest := strings.Contains(p.ref, ":")
	var d v1.Hash
	known := true
	if byDigest {
		d, _ = wire.ParseDigest(p.ref) // it was, when it was pinned
	} else {
		t, ok, err := g.c.index.Tag(p.repo, p.ref)
		d, known = t.Desc.Digest, ok && err == nil
	}
	p.State = Absent
	one := measuring{g: g, repo: p.repo, platforms: p.Platforms, sizes: map[proof]int64{}}
	if known {
		one.manifest(descriptor{Digest: d.String()}, 0)
		p.Bytes, p.MissingBytes, p.State = one.bytes, one.missing, one.state()
	}
	var extra int64
	for h, size := range one.sizes {
		if _, have := g.held[h]; !have {
			extra += size
		}
	}
	if limit := g.c.pinLimit(); limit > 0 && g.bytes+extra > limit {
		g.c.log.Warn("pin does not fit and is not held", logkey.Reference(p.Ref), logkey.Bytes(extra))
		return
	}
	p.Held = true
	g.bytes += extra
	for h := range one.sizes {
		g.held[h] = struct{}{}
	}
	for _, h := range one.roots {
		g.roots[h] = widest(g.roots, h, p.Platforms)
	}
	if !byDigest {
		g.tags[tagKey(p.repo, p.ref)] = p.Platforms
	}
}

// widest joins the platforms of two pins of one index; none and all win over some.
func widest(roots map[proof][]string, h proof, platforms []string) []string {
	old, had := roots[h]
	switch {
	case !had:
		return platforms
	case len(old) == 0 || len(platforms) == 0:
		return nil
	default:
		return slices.Concat(old, platforms)
	}
}

// pinLimit is how many bytes may be pinned; 0 means any number.
func (c *Cache) pinLimit() int64 { return int64(float64(c.opts.MaxBytes) * pinShare) }

// measuring follows one pinned image.
type measuring struct {
	g         *gathering
	repo      Repo
	platforms []string
	sizes     map[proof]int64 // of all that belongs to it
	roots     []proof
	bytes     int64
	missing   int64
	holes     bool
	whole     bool // at least one image of it is here
}

func (m *measuring) state() Completeness {
	switch {
	case m.holes:
		return Incomplete
	case m.whole:
		return Complete
	}
	return Absent
}

// manifest takes in a manifest or index with what it leads to.
func (m *measuring) manifest(desc descriptor, depth int) {
	d, ok := desc.digest()
	if _, seen := m.sizes[proofOf(d)]; !ok || seen || depth > imageDepth {
		return
	}
	state := m.content(index.Manifest, d, desc.Size)
	doc, known := m.g.c.doc(m.repo, d)
	m.roots = append(m.roots, proofOf(d))
	if !known {
		m.holes = true
		return
	}
	m.whole = m.whole || !doc.isIndex() && state == Present
	for _, b := range doc.blobs() {
		m.content(index.Blob, b.Digest, b.Size)
	}
	for _, child := range doc.Manifests {
		if m.wants(child) {
			m.manifest(child, depth+1)
		} else if h, ok := child.digest(); ok && len(m.platforms) == 0 {
			m.roots = append(m.roots, proofOf(h)) // as soon as somebody pulls it
		}
	}
	for _, ref := range m.g.c.knownReferrers(m.repo, d) {
		m.manifest(ref, depth+1)
	}
}

// wants reports whether a child of an index belongs to the pin. Without platforms those
// do that somebody pulled.
func (m *measuring) wants(child descriptor) bool {
	d, ok := child.digest()
	if !ok {
		return false
	}
	if len(m.platforms) == 0 {
		return m.g.c.linked(m.repo, index.Manifest, d)
	}
	return wantedPlatform(m.platforms, child.name())
}

// wantedPlatform reports whether a platform is among those named. linux/arm64 names
// linux/arm64/v8 too, since that is what it means to clients.
func wantedPlatform(wanted []string, have string) bool {
	for _, w := range wanted {
		if w == AllPlatforms || w == have || have == w+"/v8" && strings.HasSuffix(w, "/arm64") {
			return true
		}
	}
	return false
}

func (m *measuring) content(k index.Kind, d v1.Hash, size int64) State {
	state, size := m.g.c.stateOf(m.repo, k, d, size)
	h := proofOf(d)
	if _, seen := m.sizes[h]; seen {
		return state
	}
	m.sizes[h] = max(size, 0)
	m.bytes += max(size, 0)
	if state != Present {
		m.holes = true
	}
	if state == Missing {
		m.missing += max(size, 0)
	}
	return state
}

// knownReferrers returns the signatures and other referrers of a manifest that are known
// here: by a list of the upstream, or by the tags that stand for such a list.
func (c *Cache) knownReferrers(repo Repo, d v1.Hash) []descriptor {
	all := slices.DeleteFunc(c.listedReferrers(repo, d), func(desc descriptor) bool {
		h, ok := desc.digest()
		return !ok || !c.linked(repo, index.Manifest, h)
	})
	base := d.Algorithm + "-" + d.Hex
	for _, suffix := range referrerSuffixes() {
		if t, ok, err := c.index.Tag(repo, base+suffix); ok && err == nil {
			all = append(all, descriptor{Digest: t.Desc.Digest.String(), Size: t.Desc.Size, MediaType: string(t.Desc.MediaType)})
		}
	}
	return all
}

// listedReferrers returns the referrers of a manifest by the last list of the upstream.
func (c *Cache) listedReferrers(repo Repo, d v1.Hash) []descriptor {
	var all []descriptor
	if b, _, ok, err := c.index.Doc(repo, index.ReferrerList, d.String()); ok && err == nil {
		if json.Unmarshal(b, &all) != nil {
			return nil
		}
	}
	return all
}
