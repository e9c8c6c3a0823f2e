package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/wire"
)

// AllPlatforms as the only platform of a pin stands for every platform of its index.
const AllPlatforms = "all"

// pinShare is the part of the store that pins may take. The rest is what the cache works
// with: a store full of pins could not take in a single layer.
const pinShare = 0.9

// ErrPinsTooLarge means that a pin does not fit into the store beside the others.
var ErrPinsTooLarge = errors.New("pins would not fit")

// Pin is the wish that an image is kept whole.
type Pin struct {
	Ref string `json:"ref"` // "docker.io/library/nginx:1.27", or with a digest
	// Platforms are those that are kept and fetched when they are missing. None means: those
	// that somebody pulls. "all" is every platform of the index.
	Platforms []string  `json:"platforms,omitempty"`
	At        time.Time `json:"at,omitzero"`
	Pattern   string    `json:"pattern,omitempty"` // of the configuration, if that pins it

	State        Completeness `json:"state"`
	Bytes        int64        `json:"bytes"` // kept and missing
	MissingBytes int64        `json:"missing_bytes"`
	// Held is false for a pin that does not fit into the store beside those before it, and
	// so is not kept from eviction.
	Held bool `json:"held"`

	repo Repo
	ref  string
}

// pins knows what is pinned. Its zero value pins nothing and is ready for use.
type pins struct {
	patterns []pinPattern // of the configuration

	load sync.Once
	// change is held by who changes the pins or reads them all, for as long as that takes.
	change sync.Mutex

	mu    sync.RWMutex
	any   bool                // guarded by mu; there are pins or patterns
	held  map[proof]struct{}  // guarded by mu; content that is not evicted
	tags  map[string][]string // guarded by mu; pinned tags with their platforms, by tagKey
	roots map[proof][]string  // guarded by mu; pinned manifests and indexes with their platforms
	bytes int64               // guarded by mu; of what is held
	// later is what came to be held while all pins are being gathered; nil at other times.
	later map[proof]struct{} // guarded by mu
}

// pinPattern is a pattern of names whose images are pinned.
type pinPattern struct {
	text  string
	match *regexp.Regexp
}

// compilePins reads the patterns of the configuration.
func compilePins(patterns []string) ([]pinPattern, error) {
	var all []pinPattern
	for _, p := range patterns {
		match, err := compileMatch(p)
		if err != nil {
			return nil, fmt.Errorf("pin %q: %w", p, err)
		}
		all = append(all, pinPattern{p, match})
	}
	return all, nil
}

// Pinned reports whether d belongs to a pinned image, and so must not be evicted. It
// takes no longer than a look into a map.
func (c *Cache) Pinned(d v1.Hash) bool {
	c.loadPins()
	c.pins.mu.RLock()
	defer c.pins.mu.RUnlock()
	_, pinned := c.pins.held[proofOf(d)]
	return pinned
}

// pinsTag reports whether a tag is pinned by its name.
func (c *Cache) pinsTag(repo Repo, tag string) bool {
	c.loadPins()
	c.pins.mu.RLock()
	defer c.pins.mu.RUnlock()
	_, pinned := c.pins.tags[tagKey(repo, tag)]
	return pinned
}

func (c *Cache) loadPins() {
	c.pins.load.Do(func() {
		c.pins.change.Lock()
		defer c.pins.change.Unlock()
		c.gatherPins()
	})
}

// gatherPins reads all pins and works out what they hold. Its caller holds pins.change.
func (c *Cache) gatherPins() []Pin {
	p := &c.pins
	p.mu.Lock()
	p.later = map[proof]struct{}{}
	p.mu.Unlock()
	list := c.listPins()
	g := gathering{c: c, held: map[proof]struct{}{}, tags: map[string][]string{}, roots: map[proof][]string{}}
	for i := range list {
		g.add(&list[i])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for h := range p.later {
		g.held[h] = struct{}{}
	}
	p.later = nil
	p.any = len(list) > 0 || len(p.patterns) > 0
	p.held, p.tags, p.roots, p.bytes = g.held, g.tags, g.roots, g.bytes
	return list
}

// listPins returns the pins, those of the configuration after the others: when there is
// no room for all, the last are left out.
func (c *Cache) listPins() []Pin {
	var list []Pin
	known := map[string]bool{}
	err := c.index.Pins(func(p index.Pin) error {
		repo := p.Repo
		pin := Pin{Ref: repo.String() + ":" + p.Ref, Platforms: p.Platforms, At: p.At, repo: repo, ref: p.Ref}
		if strings.Contains(p.Ref, ":") {
			pin.Ref = repo.String() + "@" + p.Ref
		}
		known[pin.Ref] = true
		list = append(list, pin)
		return nil
	})
	if err != nil {
		c.log.Error("pins cannot be read", logkey.Err(err))
	}
	slices.SortStableFunc(list, func(a, b Pin) int { return a.At.Compare(b.At) })
	if len(c.pins.patterns) == 0 {
		return list
	}
	matched, err := c.matchedPins(known)
	if err != nil {
		c.log.Error("pins of the configuration cannot be worked out", logkey.Err(err))
	}
	return append(list, matched...)
}

// matchedPins returns a pin for every known tag that a pattern of the configuration matches.
func (c *Cache) matchedPins(known map[string]bool) ([]Pin, error) {
	var list []Pin
	last := ""
	for {
		repos, err := c.index.ReposAfter(last, 500)
		if err != nil || len(repos) == 0 {
			return list, err
		}
		for _, r := range repos {
			repo := r.Repo
			err := c.index.Tags(r.Repo, func(tag string, _ index.Tag) error {
				name := repo.String() + ":" + tag
				if pattern := c.pins.matching(repo, tag); pattern != "" && !known[name] {
					list = append(list, Pin{Ref: name, Pattern: pattern, repo: repo, ref: tag})
				}
				return nil
			})
			if err != nil {
				return list, err
			}
		}
		last = repos[len(repos)-1].String()
	}
}

// matching returns the pattern that pins a tag, or "".
func (p *pins) matching(repo Repo, tag string) string {
	name := repo.String() + ":" + tag
	short, hub := strings.CutPrefix(name, wire.Hub+"/")
	for _, p := range p.patterns {
		if p.match.MatchString(name) || hub && (p.match.MatchString(short) || p.match.MatchString(strings.TrimPrefix(short, "library/"))) {
			return p.text
		}
	}
	return ""
}

// Pins lists what is pinned.
func (c *Cache) Pins() []Pin {
	c.loadPins()
	c.pins.change.Lock()
	defer c.pins.change.Unlock()
	return c.gatherPins()
}

// Pin pins a tag, or a digest if the tag is empty, in place of a pin of the same name. It
// asks the upstream for manifests that are needed to tell how large the image is, and
// fetches no blob: see [Cache.Repair]. The error is [ErrPinsTooLarge] when it does not
// fit beside the other pins.
func (c *Cache) Pin(ctx context.Context, repo Repo, tag string, d v1.Hash, platforms []string) (*Pin, error) {
	if err := checkPlatforms(platforms); err != nil {
		return nil, err
	}
	ref := tag
	if ref == "" {
		ref = d.String()
	}
	if err := c.learn(ctx, repo, ref, platforms); err != nil {
		return nil, fmt.Errorf("pin %s: %w", refString(repo, tag, d), err)
	}
	p, err := c.pin(repo, tag, d, ref, platforms)
	if err == nil {
		e := eventOf(EventPinned, repo, d)
		e.Tag, e.Bytes = tag, p.Bytes
		c.event(e)
	}
	return p, err
}

// pin is Pin for an image whose manifests are known.
func (c *Cache) pin(repo Repo, tag string, d v1.Hash, ref string, platforms []string) (*Pin, error) {
	c.loadPins()
	c.pins.change.Lock()
	defer c.pins.change.Unlock()
	old, replaced, err := c.pinRecord(repo, ref)
	if err != nil {
		return nil, err
	}
	before := c.pins.bytes
	record := index.Pin{Repo: repo, Ref: ref, Platforms: platforms, At: time.Now()}
	if replaced {
		record.At = old.At
	}
	if err := c.update(func(b *index.Batch) error { return b.PutPin(record) }); err != nil {
		return nil, err
	}
	for _, p := range c.gatherPins() {
		if p.repo != repo || p.ref != ref {
			continue
		}
		if p.Held {
			if err := c.index.Sync(); err != nil {
				return nil, err
			}
			c.log.Info("pinned", logkey.Reference(p.Ref), logkey.Bytes(p.Bytes))
			return &p, nil
		}
		err := c.update(func(b *index.Batch) error {
			if replaced {
				return b.PutPin(old)
			}
			return b.DeletePin(repo, ref)
		})
		c.gatherPins()
		return nil, errors.Join(fmt.Errorf("pin %s: %w: it takes %s, the other pins take %s, and at most %s may be pinned, which is %d %% of storage.max_size (%s)",
			p.Ref, ErrPinsTooLarge, size(p.Bytes), size(before), size(c.pinLimit()), int(pinShare*100), size(c.opts.MaxBytes)), err)
	}
	return nil, fmt.Errorf("pin %s: it was removed at the same time", refString(repo, tag, d))
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// pinRecord returns the pin as it is recorded.
func (c *Cache) pinRecord(repo Repo, ref string) (pin index.Pin, ok bool, err error) {
	err = c.index.Pins(func(p index.Pin) error {
		if p.Repo == repo && p.Ref == ref {
			pin, ok = p, true
			return index.ErrStop
		}
		return nil
	})
	return pin, ok, err
}

func checkPlatforms(platforms []string) error {
	if len(platforms) == 1 && platforms[0] == AllPlatforms {
		return nil
	}
	for _, p := range platforms {
		if err := wire.ValidPlatform(p); err != nil {
			return fmt.Errorf("%w: %w", ErrQuery, err)
		}
	}
	return nil
}

// learn makes sure that the manifests of an image are kept: its own, and those of the
// platforms, each of which must be there.
func (c *Cache) learn(ctx context.Context, repo Repo, ref string, platforms []string) error {
	m, err := c.Manifest(ctx, repo, ref, false)
	if err != nil {
		return err
	}
	doc, ok := parseDoc(m.Bytes)
	if !ok {
		return fmt.Errorf("manifest %s cannot be read", m.Desc.Digest)
	}
	if err := doc.has(platforms); err != nil {
		return err
	}
	for _, child := range doc.Manifests {
		h, ok := child.digest()
		if !ok || !wantedPlatform(platforms, child.name()) {
			continue
		}
		if _, err := c.Manifest(ctx, repo, h.String(), false); err != nil {
			return err
		}
	}
	return nil
}

// has returns an error if a platform is asked for that an index does not have. A manifest
// that is no index does not say what it is for.
func (m *contentDoc) has(platforms []string) error {
	if !m.isIndex() {
		return nil
	}
	for _, wanted := range platforms {
		if wanted == AllPlatforms || slices.ContainsFunc(m.Manifests, func(child descriptor) bool {
			return wantedPlatform([]string{wanted}, child.name())
		}) {
			continue
		}
		return fmt.Errorf("%w: it has no platform %s, but %s", ErrQuery, wanted, strings.Join(m.platformNames(), ", "))
	}
	return nil
}

func (m *contentDoc) platformNames() []string {
	var names []string
	for _, child := range m.Manifests {
		if name := child.name(); name != attestation && name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Unpin takes a pin away. What it held stays until it is evicted like all else.
func (c *Cache) Unpin(repo Repo, tag string, d v1.Hash) error {
	ref := tag
	if ref == "" {
		ref = d.String()
	}
	if err := c.unpin(repo, tag, d, ref); err != nil {
		return err
	}
	e := eventOf(EventUnpinned, repo, d)
	e.Tag = tag
	c.event(e)
	return nil
}

func (c *Cache) unpin(repo Repo, tag string, d v1.Hash, ref string) error {
	c.loadPins()
	c.pins.change.Lock()
	defer c.pins.change.Unlock()
	_, ok, err := c.pinRecord(repo, ref)
	if err != nil {
		return err
	}
	if !ok {
		if tag != "" && c.pins.matching(repo, tag) != "" {
			return fmt.Errorf("%w: %s is pinned by the configuration (pins: %s): change it there",
				ErrQuery, refString(repo, tag, d), c.pins.matching(repo, tag))
		}
		return fmt.Errorf("%s is not pinned: %w", refString(repo, tag, d), ErrNotKept)
	}
	err = c.update(func(b *index.Batch) error { return b.DeletePin(repo, ref) })
	if err == nil {
		err = c.index.Sync()
	}
	if err != nil {
		return err
	}
	c.gatherPins()
	c.log.Info("unpinned", logkey.Reference(refString(repo, tag, d)))
	return nil
}

// pinBound notes that a tag points to d now: if the tag is pinned, that is held from
// this moment. What it pointed to before stays held until the pins are gathered anew.
func (c *Cache) pinBound(repo Repo, tag string, d v1.Hash) {
	p := &c.pins
	if !p.inUse() {
		return
	}
	matched := p.matching(repo, tag) != ""
	p.mu.Lock()
	defer p.mu.Unlock()
	platforms, pinned := p.tags[tagKey(repo, tag)]
	switch {
	case pinned:
	case matched:
		p.tags[tagKey(repo, tag)] = nil
	case !p.refersToHeld(tag):
		return
	}
	p.hold(d)
	p.roots[proofOf(d)] = platforms
}

// hold takes content in. p.mu is held.
func (p *pins) hold(d v1.Hash) {
	p.held[proofOf(d)] = struct{}{}
	if p.later != nil {
		p.later[proofOf(d)] = struct{}{}
	}
}

// refersToHeld reports whether a tag is one that lists the referrers of something held.
// p.mu is held.
func (p *pins) refersToHeld(tag string) bool {
	name, _, _ := strings.Cut(tag, ".")
	algorithm, hex, _ := strings.Cut(name, "-")
	d, err := wire.ParseDigest(algorithm + ":" + hex)
	if err != nil {
		return false
	}
	_, held := p.held[proofOf(d)]
	return held
}

// inUse reports whether anything may be pinned. Before the pins were gathered there is
// nothing to keep up to date.
func (p *pins) inUse() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.any
}

// pinKept notes that a manifest is kept now: if it is held, so is what it names, and so
// is what refers to something held.
func (c *Cache) pinKept(d v1.Hash, manifest []byte) {
	p := &c.pins
	if !p.inUse() {
		return
	}
	var doc contentDoc
	if json.Unmarshal(manifest, &doc) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	platforms, held := p.roots[proofOf(d)]
	if !held {
		if doc.Subject == nil {
			return
		}
		subject, ok := doc.Subject.digest()
		if _, refers := p.held[proofOf(subject)]; !ok || !refers {
			return
		}
	}
	p.hold(d)
	for _, b := range doc.blobs() {
		p.hold(b.Digest)
	}
	for _, child := range doc.Manifests {
		h, ok := child.digest()
		if ok && (len(platforms) == 0 || wantedPlatform(platforms, child.name())) {
			p.hold(h)
			p.roots[proofOf(h)] = nil
		}
	}
}
