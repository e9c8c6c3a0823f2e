package image

import (
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/logkey"
	"forebay/internal/manifest"
	"forebay/internal/wire"
)

// gathering works out what pins hold.
type gathering struct {
	p *Pins
	gathered
}

// add takes in one pin, as long as all fit.
func (g *gathering) add(pin *Pin) {
	byDigest := strings.Contains(pin.ref, ":")
	var d v1.Hash
	known := true
	if byDigest {
		d, _ = wire.ParseDigest(pin.ref) // it was, when it was pinned
	} else {
		t, ok, err := g.p.store.Index.Tag(pin.repo, pin.ref)
		d, known = t.Desc.Digest, ok && err == nil
	}
	pin.State = Absent
	one := measuring{images: g.p.images, repo: pin.repo, platforms: pin.Platforms, sizes: map[store.ShortDigest]int64{}}
	if known {
		one.run(d)
		pin.Bytes, pin.MissingBytes, pin.State = one.bytes, one.missing, one.state()
	}
	var extra int64
	for h, size := range one.sizes {
		if _, have := g.held[h]; !have {
			extra += size
		}
	}
	if limit := g.p.limit(); limit > 0 && g.bytes+extra > limit {
		g.p.store.Log.Warn("pin does not fit and is not held", logkey.Reference(pin.Ref), logkey.Bytes(extra))
		return
	}
	pin.Held = true
	g.bytes += extra
	for h := range one.sizes {
		g.held[h] = struct{}{}
	}
	for _, h := range one.roots {
		g.roots[h] = widest(g.roots, h, pin.Platforms)
	}
	if !byDigest {
		g.tags[tagName{pin.repo, pin.ref}] = pin.Platforms
	}
}

// widest joins the platforms of two pins of one index; none and all win over some.
func widest(roots map[store.ShortDigest][]string, h store.ShortDigest, platforms []string) []string {
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

// limit is how many bytes may be pinned; 0 means any number.
func (p *Pins) limit() int64 { return int64(float64(p.store.MaxBytes()) * pinShare) }

// measuring follows one pinned image.
type measuring struct {
	images    *Images
	repo      Repo
	platforms []string
	sizes     map[store.ShortDigest]int64 // of all that belongs to it
	roots     []store.ShortDigest
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

// run takes in an image with what it leads to and what refers to it.
func (m *measuring) run(d v1.Hash) {
	_ = manifest.Walk{ // none of its functions fails
		Manifest: m.manifest,
		Blob: func(_ manifest.Node, b manifest.Blob) error {
			m.content(index.Blob, b.Digest, b.Size)
			return nil
		},
		Platforms: m.platforms,
		Child: func(child manifest.Descriptor, wanted bool) (bool, error) {
			wanted = m.images.Wants(m.repo, m.platforms, child, wanted)
			if h, ok := child.Hash(); ok && !wanted && len(m.platforms) == 0 {
				m.roots = append(m.roots, store.Shorten(h)) // as soon as somebody pulls it
			}
			return wanted, nil
		},
		Referrers: func(n manifest.Node) ([]manifest.Descriptor, error) {
			return m.images.Known(m.repo, n.Digest), nil
		},
	}.Run(manifest.Descriptor{Digest: d.String()})
}

func (m *measuring) manifest(n manifest.Node) (*manifest.Document, error) {
	state := m.content(index.Manifest, n.Digest, n.Size)
	m.roots = append(m.roots, store.Shorten(n.Digest))
	doc, known := m.images.store.Document(m.repo, n.Digest)
	if !known {
		m.holes = true
		return nil, nil
	}
	m.whole = m.whole || !doc.IsIndex() && state == Present
	return doc, nil
}

func (m *measuring) content(k index.Kind, d v1.Hash, size int64) State {
	state, size := m.images.StateOf(m.repo, k, d, size)
	h := store.Shorten(d)
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
