package cache

import (
	"context"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/pull"
)

// Policy says which digest of a tag answers. Clients get no other, whatever the upstream says.
type Policy interface {
	// Version changes whenever another ruling may be made; 0 means that there is no rule. It is
	// asked at every hit.
	Version() uint64
	// Concerns reports whether there may be a ruling on a tag, so that its history is recorded.
	Concerns(repo Repo, tag string) bool
	// Tag makes the ruling on a tag. It may ask the cache for manifests and blobs by [Cache.Unruled].
	Tag(ctx context.Context, repo Repo, tag string, t index.Tag) *Ruling
	// Digest returns why a client that asks for a digest does not get it: as the Err of a Ruling.
	Digest(ctx context.Context, repo Repo, d v1.Hash) error
}

// Ruling is which digest answers for a tag.
type Ruling struct {
	Version uint64
	Ruled   bool      // there is a rule about the tag
	Digest  v1.Hash   // that answers; without a rule what the tag points to
	Since   time.Time // when the tag was first seen to have it
	Err     error     // in place of an answer, of kind [pull.Denied] with the detail [pull.ByPolicy]
	// Passing says that it goes by when the tag was confirmed last, and is made again when it is.
	Passing bool
	Until   time.Time // when it has to be made again; zero: when the tag moves or the version changes
}

// SetPolicy has tags answered by p from now on.
func (c *Cache) SetPolicy(p Policy) { c.policy.Store(&p) }

// Unruled returns a manifest by its digest, whatever the policy says of it.
func (c *Cache) Unruled(ctx context.Context, repo Repo, d v1.Hash) (*Manifest, error) {
	o, err := c.origin(repo)
	if err != nil {
		return nil, err
	}
	return c.byDigest(ctx, o, repo, d, false)
}

// ruled returns the digest that answers for a tag, and the ruling, which says why there is none.
func (c *Cache) ruled(ctx context.Context, t *tagState) (v1.Hash, *Ruling) {
	p := c.policy.Load()
	if p == nil || (*p).Version() == 0 {
		return t.Desc.Digest, &c.unruled
	}
	r := t.ruling.Load()
	if r == nil || r.Version != (*p).Version() || !r.Until.IsZero() && !time.Now().Before(r.Until) {
		var err error
		r, err = c.Rule(ctx, t.repo, t.name+"@"+t.Desc.Digest.String(), func(ctx context.Context) *Ruling { return (*p).Tag(ctx, t.repo, t.name, t.Tag) })
		if err != nil {
			return v1.Hash{}, &Ruling{Ruled: true, Err: err} // the caller's time is over
		}
		t.ruling.Store(r)
	}
	return r.Digest, r
}

// Rule has a ruling made, once for all who wait for it.
func (c *Cache) Rule(ctx context.Context, repo Repo, name string, rule func(context.Context) *Ruling) (*Ruling, error) {
	r, _, err := c.calls.rulings.Do(ctx, key{aRuling, repo, name}, func(ctx context.Context) (*Ruling, error) { return rule(ctx), nil })
	return r, err
}

// bound returns what is known of the tag since it was found to point to desc.
func (r *tagRequest) bound(desc v1.Descriptor) *tagState {
	if t, err := r.c.tag(r.repo, r.name); err == nil && t != nil {
		return t
	}
	now := time.Now()
	return &tagState{repo: r.repo, name: r.name, Tag: index.Tag{Desc: desc, CheckedAt: now, ChangedAt: now}}
}

// kept reports whether what answers for the tag as it is known is here.
func (r *tagRequest) kept(ctx context.Context) bool {
	d, ruling := r.c.ruled(ctx, r.tag)
	return ruling.Err == nil && r.c.store.Serves(r.repo, d)
}

// answering returns the manifest that answers for a tag. One that stands in for what the tag
// points to and cannot be had is refused: else clients would get the latter from elsewhere.
func (r *tagRequest) answering(ctx context.Context, t *tagState) (*Manifest, error) {
	d, ruling := r.c.ruled(ctx, t)
	if ruling.Err != nil {
		return nil, ruling.Err
	}
	m, err := r.c.byDigest(ctx, r.o, r.repo, d, r.headOnly)
	if err != nil && d != t.Desc.Digest && ctx.Err() == nil {
		err = &pull.Error{Kind: pull.Denied, Detail: pull.ByPolicy, Upstream: r.repo.Upstream, Op: "get manifest " + r.repo.Name + ":" + r.name,
			Message: "by policy " + d.String() + " answers for the tag, and it cannot be had", Err: err}
	}
	return m, err
}

// dated returns a copy of m that says since when the tag points to it.
func (r *tagRequest) dated(m *Manifest) *Manifest {
	t := r.tag
	if now, ok := r.c.known.tags.Peek(tagName{r.repo, r.name}); ok {
		t = now
	}
	if t == nil {
		return m
	}
	n := *m
	if ruling := t.ruling.Load(); m.Desc.Digest == t.Desc.Digest {
		n.Since = t.ChangedAt
	} else if ruling != nil && ruling.Digest == m.Desc.Digest {
		n.Since = ruling.Since
	}
	return &n
}
