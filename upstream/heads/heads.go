// Package heads remembers what the HEADs of a registry are worth, without I/O.
//
// Registries, and proxies in front of them, answer 403, 404, 405 or 304 to every HEAD, or only to
// those for blobs; they name no digest, or one that is not that of their content. What is
// remembered keeps such a HEAD from being believed and from costing a pull each time: of each
// repository whether HEADs work, and of single tags and digests what a GET brought.
package heads

import (
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// worthFor is how long it is believed of a repository that its HEADs work, or do not.
	worthFor = time.Hour
	// saidFor is how long what a GET brought stands for what a HEAD says.
	saidFor = 24 * time.Hour
	// lagFor is that where the registry may only be behind: its HEAD knows of what its GETs
	// do not bring yet.
	lagFor = 10 * time.Minute
	// Bounds of what is remembered, at some 200 and 500 bytes each.
	worthsMost = 8192
	saidMost   = 4096
)

// What is what a HEAD asks for. A registry may refuse it for one and not for the others.
type What uint8

// The things that are asked for.
const (
	Tag What = iota
	Digest
	Blob
)

// Worth is what the HEADs for one thing in one repository are worth.
type Worth uint8

// What they may be worth.
const (
	Unknown Worth = iota
	Good          // one told the truth: when it says that something is missing, it is believed
	Useless       // a GET got what a HEAD was refused: none is sent
)

// Memory is what is remembered of one registry. It may be used concurrently.
type Memory struct {
	now func() time.Time

	mu     sync.Mutex
	worths *lru.LRU[worthKey, worth] // guarded by mu
	said   *lru.LRU[saidKey, said]   // guarded by mu
}

type worthKey struct {
	repo string
	what What
}

type worth struct {
	Worth
	until time.Time
}

type saidKey struct{ repo, ref string }

// said is what was said of one tag or digest.
type said struct {
	until   time.Time
	silent  bool    // its last HEAD told too little
	refused bool    // it was refused, or has not even an ETag
	named   v1.Hash // by the last HEAD of a tag
	missing bool    // of a digest: no GET brought it
	// desc is what a GET brought, with its ETag.
	desc v1.Descriptor
	etag string
}

// New returns a memory of nothing. now is the clock.
func New(now func() time.Time) *Memory {
	m := &Memory{now: now}
	m.worths, _ = lru.NewLRU[worthKey, worth](worthsMost, nil) // fails only for a size below one
	m.said, _ = lru.NewLRU[saidKey, said](saidMost, nil)
	return m
}

// Worth returns what HEADs are worth.
func (m *Memory) Worth(repo string, what What) Worth {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.worth(repo, what)
}

func (m *Memory) worth(repo string, what What) Worth {
	if w, ok := m.worths.Get(worthKey{repo, what}); ok && m.now().Before(w.until) {
		return w.Worth
	}
	return Unknown
}

// Learn remembers what HEADs are worth.
func (m *Memory) Learn(repo string, what What, w Worth) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.worths.Add(worthKey{repo, what}, worth{w, m.now().Add(worthFor)})
}

// Silent notes that the HEAD of ref told too little, which a GET must tell. With refused HEADs are
// useless there if that brings it.
func (m *Memory) Silent(repo, ref string, refused bool) {
	m.note(repo, ref, func(s *said) { s.silent, s.refused = true, refused })
}

// Named returns what it means that the HEAD of a tag names desc: that itself, unless that
// digest is not to be had, and a GET of the tag brought something else.
func (m *Memory) Named(repo, tag string, desc v1.Descriptor) v1.Descriptor {
	m.note(repo, tag, func(s *said) {
		if s.named != desc.Digest {
			*s = said{named: desc.Digest}
		} else if s.desc.Digest != (v1.Hash{}) {
			desc = s.desc
		}
	})
	return desc
}

// Missing notes that a GET did not bring the digest d.
func (m *Memory) Missing(repo string, d v1.Hash) {
	m.note(repo, d.String(), func(s *said) { s.missing = true })
}

// IsMissing reports whether a GET did not bring d.
func (m *Memory) IsMissing(repo string, d v1.Hash) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(saidKey{repo, d.String()}).missing
}

// Got notes what a GET of ref brought, with its ETag. misnamed says that the answer itself gave
// it a wrong digest.
func (m *Memory) Got(repo, ref string, what What, desc v1.Descriptor, etag string, misnamed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := saidKey{repo, ref}
	s := m.get(k)
	if s.refused {
		m.worths.Add(worthKey{repo, what}, worth{Useless, m.now().Add(worthFor)})
	}
	life := saidFor
	switch {
	case s.silent, m.worth(repo, what) == Useless, misnamed:
	case s.named != (v1.Hash{}) && s.named != desc.Digest && m.get(saidKey{repo, s.named.String()}).missing:
		life = lagFor
	case s.missing:
		m.said.Remove(k)
		return
	default:
		return
	}
	m.said.Add(k, said{silent: s.silent, named: s.named, desc: desc, etag: etag, until: m.now().Add(life)})
}

// Known returns what a GET of ref brought, and its ETag; "" if there is nothing that a HEAD or
// a conditional GET can be compared with.
func (m *Memory) Known(repo, ref string) (etag string, desc v1.Descriptor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.get(saidKey{repo, ref})
	return s.etag, s.desc
}

func (m *Memory) get(k saidKey) said {
	if s, ok := m.said.Get(k); ok && m.now().Before(s.until) {
		return s
	}
	return said{}
}

// note changes what was said. What is known since a while does not live longer by that.
func (m *Memory) note(repo, ref string, change func(*said)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := saidKey{repo, ref}
	s := m.get(k)
	if change(&s); s.until.IsZero() {
		s.until = m.now().Add(saidFor)
	}
	m.said.Add(k, s)
}
