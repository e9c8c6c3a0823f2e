package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/event"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/logkey"
	"forebay/internal/manifest"
	"forebay/internal/wire"
)

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

	repo    Repo
	ref     string
	derived bool // from something else that operators wish
}

// Pins knows what is pinned.
type Pins struct {
	images   *Images
	store    *store.Store
	patterns []pinPattern // of the configuration
	// derived returns further pins; see Derive.
	derived atomic.Pointer[func() []index.Pin]

	load sync.Once
	// change is held by who changes the pins or reads them all, for as long as that takes.
	change sync.Mutex

	mu       sync.RWMutex
	any      bool // guarded by mu; there are pins or patterns
	gathered      // guarded by mu
	// meanwhile is what came to be held while all pins are being gathered; nil at other times.
	meanwhile map[store.ShortDigest]struct{} // guarded by mu
}

// gathered is what pins hold.
type gathered struct {
	held  map[store.ShortDigest]struct{} // content that is not evicted
	tags  map[tagName][]string           // pinned tags with their platforms
	roots map[store.ShortDigest][]string // pinned manifests and indexes with their platforms
	bytes int64                          // of what is held
}

// tagName names a tag.
type tagName struct {
	repo Repo
	tag  string
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
		match, err := wire.CompilePattern(p)
		if err != nil {
			return nil, fmt.Errorf("pin %q: %w", p, err)
		}
		all = append(all, pinPattern{p, match})
	}
	return all, nil
}

// Pinned reports whether d belongs to a pinned image, and so must not be evicted. It
// takes no longer than a look into a map.
func (p *Pins) Pinned(d v1.Hash) bool {
	p.Gather()
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, pinned := p.held[store.Shorten(d)]
	return pinned
}

// HasTag reports whether a tag is pinned by its name.
func (p *Pins) HasTag(repo Repo, tag string) bool {
	p.Gather()
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, pinned := p.tags[tagName{repo, tag}]
	return pinned
}

// Gather works out what pins hold, once: until then nothing is known to be pinned.
func (p *Pins) Gather() {
	p.load.Do(func() {
		p.change.Lock()
		defer p.change.Unlock()
		p.gather()
	})
}

// gather reads all pins and works out what they hold. p.change is held.
func (p *Pins) gather() []Pin {
	p.mu.Lock()
	p.meanwhile = map[store.ShortDigest]struct{}{}
	p.mu.Unlock()
	list := p.list()
	g := gathering{p: p, gathered: gathered{held: map[store.ShortDigest]struct{}{}, tags: map[tagName][]string{}, roots: map[store.ShortDigest][]string{}}}
	for i := range list {
		g.add(&list[i])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for h := range p.meanwhile {
		g.held[h] = struct{}{}
	}
	p.meanwhile = nil
	p.any = len(list) > 0 || len(p.patterns) > 0
	p.gathered = g.gathered
	return list
}

// list returns the pins, those of the configuration after the others: when there is
// no room for all, the last are left out.
func (p *Pins) list() []Pin {
	var list []Pin
	known := map[string]bool{}
	err := p.store.Index.Pins(func(p index.Pin) error {
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
		p.store.Log.Error("pins cannot be read", logkey.Err(err))
	}
	slices.SortStableFunc(list, func(a, b Pin) int { return a.At.Compare(b.At) })
	if derived := p.derived.Load(); derived != nil {
		for _, one := range (*derived)() {
			if name := one.Repo.String() + "@" + one.Ref; !known[name] {
				known[name] = true
				list = append(list, Pin{Ref: name, Platforms: one.Platforms, At: one.At, repo: one.Repo, ref: one.Ref, derived: true})
			}
		}
	}
	if len(p.patterns) == 0 {
		return list
	}
	matched, err := p.matched(known)
	if err != nil {
		p.store.Log.Error("pins of the configuration cannot be worked out", logkey.Err(err))
	}
	return append(list, matched...)
}

// matched returns a pin for every known tag that a pattern of the configuration matches.
func (p *Pins) matched(known map[string]bool) ([]Pin, error) {
	var list []Pin
	err := p.store.Index.EachTag(func(repo Repo, tag string, _ index.Tag) error {
		name := repo.String() + ":" + tag
		if pattern := p.matching(repo, tag); pattern != "" && !known[name] {
			list = append(list, Pin{Ref: name, Pattern: pattern, repo: repo, ref: tag})
		}
		return nil
	})
	return list, err
}

// matching returns the pattern that pins a tag, or "".
func (p *Pins) matching(repo Repo, tag string) string {
	name := Name(repo, tag, v1.Hash{})
	for _, pattern := range p.patterns {
		if wire.MatchesName(pattern.match, name) {
			return pattern.text
		}
	}
	return ""
}

// List gathers the pins anew, since tags move, and returns them.
func (p *Pins) List() []Pin {
	p.Gather()
	p.change.Lock()
	defer p.change.Unlock()
	return slices.DeleteFunc(p.gather(), func(one Pin) bool { return one.derived })
}

// Derive has what pins returns held like pins of digests, from the next time on that pins are
// gathered. List does not tell of them: they are what something else comes to.
func (p *Pins) Derive(pins func() []index.Pin) { p.derived.Store(&pins) }

// Put pins a tag, or a digest if the tag is empty, in place of a pin of the same name. The
// manifests of the image are kept. The error is [ErrPinsTooLarge] when it does not fit
// beside the other pins.
func (p *Pins) Put(ctx context.Context, repo Repo, tag string, d v1.Hash, platforms []string) (*Pin, error) {
	pin, err := p.put(repo, tag, d, platforms)
	if err == nil {
		p.store.Log.Info("pinned", logkey.Reference(pin.Ref), logkey.Bytes(pin.Bytes))
		p.tell(ctx, event.Pinned, repo, tag, d, pin.Bytes)
	}
	return pin, err
}

func (p *Pins) put(repo Repo, tag string, d v1.Hash, platforms []string) (*Pin, error) {
	ref := refOf(tag, d)
	p.Gather()
	p.change.Lock()
	defer p.change.Unlock()
	old, replaced, err := p.Record(repo, ref)
	if err != nil {
		return nil, err
	}
	before := p.bytes
	record := index.Pin{Repo: repo, Ref: ref, Platforms: platforms, At: time.Now()}
	if replaced {
		record.At = old.At
	}
	if err := p.store.Update(func(b *index.Batch) error { return b.PutPin(record) }); err != nil {
		return nil, err
	}
	all := p.gather()
	at := slices.IndexFunc(all, func(one Pin) bool { return one.repo == repo && one.ref == ref })
	if at < 0 {
		return nil, fmt.Errorf("pin %s: it was removed at the same time", Name(repo, tag, d))
	}
	pin := &all[at]
	if pin.Held {
		return pin, p.store.Settle()
	}
	err = p.store.Update(func(b *index.Batch) error {
		if replaced {
			return b.PutPin(old)
		}
		return b.DeletePin(repo, ref)
	})
	p.gather()
	return nil, errors.Join(fmt.Errorf("pin %s: %w: it takes %s, the other pins take %s, and at most %s may be pinned, which is %d %% of what may be stored (%s)",
		pin.Ref, ErrPinsTooLarge, size(pin.Bytes), size(before), size(p.limit()), int(pinShare*100), size(p.store.MaxBytes())), err)
}

// refOf is what a pin of a tag, or of a digest if the tag is empty, is recorded under.
func refOf(tag string, d v1.Hash) string {
	if tag != "" {
		return tag
	}
	return d.String()
}

func (p *Pins) tell(ctx context.Context, k event.Kind, repo Repo, tag string, d v1.Hash, bytes int64) {
	e := event.Of(k, repo, d)
	e.Tag, e.Bytes, e.Actor = tag, bytes, event.Actor(ctx)
	p.store.Tell(e)
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// Record returns a pin as it is recorded.
func (p *Pins) Record(repo Repo, ref string) (pin index.Pin, ok bool, err error) {
	err = p.store.Index.Pins(func(one index.Pin) error {
		if one.Repo == repo && one.Ref == ref {
			pin, ok = one, true
			return index.ErrStop
		}
		return nil
	})
	return pin, ok, err
}

// Remove takes a pin away. What it held stays until it is evicted like all else.
func (p *Pins) Remove(ctx context.Context, repo Repo, tag string, d v1.Hash) error {
	err := p.remove(repo, tag, d)
	if err == nil {
		p.store.Log.Info("unpinned", logkey.Reference(Name(repo, tag, d)))
		p.tell(ctx, event.Unpinned, repo, tag, d, 0)
	}
	return err
}

func (p *Pins) remove(repo Repo, tag string, d v1.Hash) error {
	ref := refOf(tag, d)
	p.Gather()
	p.change.Lock()
	defer p.change.Unlock()
	_, ok, err := p.Record(repo, ref)
	if err != nil {
		return err
	}
	if !ok {
		if pattern := p.matching(repo, tag); tag != "" && pattern != "" {
			return fmt.Errorf("%w: %s is pinned by the configuration (pins: %s): change it there", store.ErrQuery, Name(repo, tag, d), pattern)
		}
		return fmt.Errorf("%s is not pinned: %w", Name(repo, tag, d), store.ErrNotKept)
	}
	err = p.store.Update(func(b *index.Batch) error { return b.DeletePin(repo, ref) })
	if err == nil {
		err = p.store.Index.Sync()
	}
	if err != nil {
		return err
	}
	p.gather()
	return nil
}

// Bound notes that a tag points to d now: if the tag is pinned, that is held from
// this moment. What it pointed to before stays held until the pins are gathered anew.
func (p *Pins) Bound(repo Repo, tag string, d v1.Hash) {
	if !p.InUse() {
		return
	}
	matched := p.matching(repo, tag) != ""
	p.mu.Lock()
	defer p.mu.Unlock()
	platforms, pinned := p.tags[tagName{repo, tag}]
	switch {
	case pinned:
	case matched:
		p.tags[tagName{repo, tag}] = nil
	case !p.refersToHeld(tag):
		return
	}
	p.hold(d)
	p.roots[store.Shorten(d)] = platforms
}

// hold takes content in. p.mu is held.
func (p *Pins) hold(d v1.Hash) {
	p.held[store.Shorten(d)] = struct{}{}
	if p.meanwhile != nil {
		p.meanwhile[store.Shorten(d)] = struct{}{}
	}
}

// refersToHeld reports whether a tag is one that lists the referrers of something held.
// p.mu is held.
func (p *Pins) refersToHeld(tag string) bool {
	name, _, _ := strings.Cut(tag, ".")
	algorithm, hex, _ := strings.Cut(name, "-")
	d, err := wire.ParseDigest(algorithm + ":" + hex)
	if err != nil {
		return false
	}
	_, held := p.held[store.Shorten(d)]
	return held
}

// InUse reports whether anything may be pinned. Before the pins were gathered there is
// nothing to keep up to date.
func (p *Pins) InUse() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.any
}

// Kept notes that a manifest is kept now: if it is held, so is what it names, and so
// is what refers to something held.
func (p *Pins) Kept(d v1.Hash, content []byte) {
	if !p.InUse() {
		return
	}
	var doc manifest.Document
	if json.Unmarshal(content, &doc) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	platforms, held := p.roots[store.Shorten(d)]
	if !held {
		if doc.Subject == nil {
			return
		}
		subject, ok := doc.Subject.Hash()
		if _, refers := p.held[store.Shorten(subject)]; !ok || !refers {
			return
		}
	}
	p.hold(d)
	for _, b := range doc.Blobs() {
		p.hold(b.Digest)
	}
	wanted := doc.Wanted(platforms)
	for _, child := range doc.Manifests {
		h, ok := child.Hash()
		if ok && (len(platforms) == 0 || wanted[child.Digest]) {
			p.hold(h)
			p.roots[store.Shorten(h)] = nil
		}
	}
}

// Figures are what is pinned.
type Figures struct {
	Tags, Blobs int64
	Bytes       int64 // of what is held
	LimitBytes  int64 // that may be pinned; 0 means no limit
}

// Figures returns what is pinned. It lists nothing.
func (p *Pins) Figures() Figures {
	p.Gather()
	p.mu.RLock()
	defer p.mu.RUnlock()
	return Figures{Tags: int64(len(p.tags)), Blobs: int64(len(p.held)), Bytes: p.bytes, LimitBytes: p.limit()}
}
