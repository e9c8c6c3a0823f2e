package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/event"
	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/tracing"
)

// tagState is what is known of a tag, in memory.
type tagState struct {
	repo Repo
	name string
	index.Tag
	stale    bool   // the upstream is another mirror, which could not confirm it
	recorded bool   // in the index, and not only here
	pulls    *pulls // shared by the states of the tag as it is bound anew
	ruling   atomic.Pointer[Ruling]
}

// pulls counts how often a tag is asked for.
type pulls struct {
	now    atomic.Int64 // since it was last confirmed
	before atomic.Int64 // in the time before that
}

// tagName names a tag.
type tagName struct {
	repo Repo
	tag  string
}

// tag returns what is known of a tag.
func (c *Cache) tag(repo Repo, name string) (*tagState, error) {
	key := tagName{repo, name}
	if t, ok := c.known.tags.Get(key); ok {
		return t, nil
	}
	before := c.forgotten.Load()
	t, ok, err := c.store.Index.Tag(repo, name)
	if err != nil {
		c.store.Unknown(err)
		ok = false
	}
	if !ok {
		return nil, nil
	}
	s := &tagState{repo: repo, name: name, Tag: t, recorded: true, pulls: &pulls{}}
	c.known.tags.ContainsOrAdd(key, s)
	c.unlessForgotten(key, before)
	return s, nil
}

// unlessForgotten drops what was just noted of a tag in memory if any was forgotten since before,
// which may be this one: what the index has not must not be served from memory as if it had.
func (c *Cache) unlessForgotten(name tagName, before int64) {
	if c.forgotten.Load() != before {
		c.known.tags.Remove(name)
	}
}

// tagRequest is one client's question for a tag.
type tagRequest struct {
	c        *Cache
	o        *origin
	repo     Repo
	name     string
	headOnly bool
	ttl      time.Duration
	tag      *tagState // nil while nothing is known of it
}

// byTag returns what a tag points to: as known while it is fresh, else as the upstream says,
// else, when the upstream fails, as last known. What it does is decided by [situation.next].
func (c *Cache) byTag(ctx context.Context, o *origin, repo Repo, name string, headOnly bool) (*Manifest, error) {
	r := tagRequest{c: c, o: o, repo: repo, name: name, headOnly: headOnly, ttl: o.fresh.Of(repo.Name + ":" + name)}
	var err error
	if r.tag, err = c.tag(repo, name); err != nil {
		return nil, err
	}
	s := situation{offline: o.offline(), dropsGone: o.OnGone == Drop}
	c.gone.Asked(repo, name, pull.Client(ctx), time.Now())
	if t := r.tag; t != nil {
		t.pulls.now.Add(1)
		s.known, s.fresh = true, time.Since(t.CheckedAt) < r.ttl
		s.tooOld = o.StaleIfError != 0 && time.Since(t.CheckedAt) > o.StaleIfError
		if !s.fresh && !s.offline {
			s.kept = r.kept(ctx)
			s.low = o.low()
		}
	}
	var cause error // of what went wrong before something stands in
	for {
		s.unfetched = r.unfetched()
		step := s.next()
		if step == fail {
			return nil, cause
		}
		m, err := r.take(ctx, step, cause)
		if m != nil && err == nil {
			return r.dated(m), nil
		}
		if step != serveStale {
			cause = err
		}
		s.last, s.err, s.taken, s.clientLeft = step, err, s.taken|1<<step, ctx.Err() != nil
	}
}

// unfetched reports whether a HEAD would name what a GET did not get lately.
func (r *tagRequest) unfetched() bool {
	if r.tag == nil || !r.headOnly {
		return false
	}
	return r.c.whyUnfetched(r.repo, r.tag.Desc.Digest) != nil
}

// whyUnfetched returns why a GET did not get a manifest lately that is not kept.
func (c *Cache) whyUnfetched(repo Repo, d v1.Hash) error {
	err, failing := c.known.unfetched.Get(key{aRef, repo, d.String()})
	if !failing || c.store.Serves(repo, d) {
		return nil
	}
	return err
}

// take takes a step. Without a manifest and an error there is more to be decided.
func (r *tagRequest) take(ctx context.Context, s step, cause error) (*Manifest, error) {
	switch s {
	case serve:
		return r.serve(ctx)
	case ask:
		return r.ask(ctx)
	case confirm:
		return nil, r.confirm(ctx)
	case serveStale:
		return r.serveStale(ctx, cause)
	case forget:
		r.c.dropTag(r.tag)
		return nil, cause
	case miss:
		return nil, r.c.offlineMiss(ctx, r.repo, r.name, v1.Hash{}, false)
	}
	panic("no such step")
}

// serve serves what the tag is known to point to.
func (r *tagRequest) serve(ctx context.Context) (*Manifest, error) {
	m, err := r.answering(ctx, r.tag)
	if err == nil && r.tag.stale {
		m = m.unconfirmed()
	}
	return m, err
}

// ask asks the upstream what the tag points to, and serves that.
func (r *tagRequest) ask(ctx context.Context) (m *Manifest, err error) {
	c, t := r.c, r.tag
	ctx, span := tracing.Start(ctx, "confirm tag", tracing.Upstream(r.repo.Upstream), tracing.Repository(r.repo.Name), tracing.Reference(r.name))
	defer func() { span.End(err) }()
	kept := t != nil && r.kept(ctx)
	wait := ctx
	if kept {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, r.o.confirmWithin(c.opts.RevalidateTimeout))
		defer cancel()
	}
	var since time.Time
	if t != nil {
		since = t.CheckedAt
	}
	found, joined, err := c.resolve(wait, r.o, r.repo, r.name, since)
	if err == nil {
		m, err = r.resolvedTo(ctx, found)
	}
	if kept && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		r.o.health.Observe(r.repo.Name, r.name, err) // the request goes on, and may yet say that all is well
	}
	if err != nil {
		return nil, err
	}
	if joined && m.Result == Hit {
		m = m.with(Joined)
	}
	if found.stale {
		m = m.unconfirmed()
	}
	return m, nil
}

// resolvedTo returns the manifest that a tag was just found to point to.
func (r *tagRequest) resolvedTo(ctx context.Context, found resolved) (*Manifest, error) {
	c, repo := r.c, r.repo
	t := r.bound(found.desc)
	if d, ruling := c.ruled(ctx, t); ruling.Err != nil || d != found.desc.Digest {
		return r.answering(ctx, t)
	}
	if r.headOnly && found.bytes == nil && !c.store.Serves(repo, found.desc.Digest) {
		if err := c.whyUnfetched(repo, found.desc.Digest); err != nil {
			return nil, err // a HEAD must not name what a GET will not get
		}
		return &Manifest{Desc: found.desc, Result: Miss}, nil
	}
	m, err := c.byDigest(ctx, r.o, repo, found.desc.Digest, r.headOnly)
	if kind := pull.KindOf(err); err != nil && (kind == pull.NotFound || kind == pull.Invalid && pull.DetailOf(err) != pull.Refused) {
		// It went away in between, or the HEAD named a digest that the registry does not
		// serve: what a GET of the tag brings is right by definition.
		if m, err = c.getTag(ctx, r.o, repo, r.name); err == nil {
			t = r.bound(m.Desc)
			if d, ruling := c.ruled(ctx, t); ruling.Err != nil || d != m.Desc.Digest {
				return r.answering(ctx, t)
			}
		}
	}
	return m, err
}

// errLow is why a tag is served stale while the budget is low.
var errLow = errors.New("the tag moved, and the upstream's budget is low")

// confirm asks whether a tag that is kept still points there, while the upstream's budget is
// low: a HEAD costs no pull. What a moved tag points to now would cost one, which is left for
// what nobody has yet: the error is [errLow] then, and the tag is not asked for again for a while.
func (r *tagRequest) confirm(ctx context.Context) error {
	c, name := r.c, tagName{r.repo, r.name}
	if cause, known := c.known.moved.Get(name); known {
		return cause
	}
	wait, cancel := context.WithTimeout(ctx, r.o.confirmWithin(c.opts.RevalidateTimeout))
	defer cancel()
	_, _, err := c.calls.resolves.Do(wait, key{aLowTag, r.repo, r.name}, func(ctx context.Context) (resolved, error) {
		desc, err := r.o.Upstream.Resolve(ctx, r.repo.Name, r.name)
		if err == nil && !c.store.Serves(r.repo, desc.Digest) {
			err = errLow
		}
		if err != nil {
			c.known.moved.Add(name, err)
			return resolved{}, err
		}
		return resolved{desc: desc}, c.bind(ctx, r.repo, r.name, desc, time.Now())
	})
	if err != nil {
		return err
	}
	if now, err := c.tag(r.repo, r.name); err == nil && now != nil {
		r.tag = now
	}
	return nil
}

// serveStale serves the latest content of the tag that is kept, the former if need be, in
// place of cause.
func (r *tagRequest) serveStale(ctx context.Context, cause error) (*Manifest, error) {
	c, t := r.c, r.tag
	d, err := c.latestKept(t)
	m := &Manifest{Desc: t.Desc}
	switch ruled, rule := c.ruled(ctx, t); {
	case rule.Ruled:
		d = ruled
		m, err = r.answering(ctx, t)
	case err == nil:
		m, err = c.byDigest(ctx, r.o, r.repo, d, r.headOnly)
	case r.headOnly && cause != nil && pull.Failing(cause) && !errors.Is(cause, c.whyUnfetched(r.repo, t.Desc.Digest)):
		d, err = t.Desc.Digest, nil // of which only HEADs have told, and none can now
	}
	if err != nil {
		return nil, err
	}
	if c.known.warned.First(key{aRef, r.repo, r.name}) {
		c.log.Warn("stale tag served", logkey.Upstream(r.repo.Upstream), logkey.Repository(r.repo.Name),
			logkey.Reference(r.name), logkey.Digest(d), logkey.Err(cause))
		e := event.Of(event.ServedStale, r.repo, d).Because(cause)
		e.Tag = r.name
		c.store.Tell(e)
	}
	m = m.with(Stale)
	m.StaleFor = max(time.Since(t.CheckedAt)-r.ttl, time.Second)
	return m, nil
}

// latestKept returns what a tag points to or pointed to last, of what is kept.
func (c *Cache) latestKept(t *tagState) (v1.Hash, error) {
	if c.store.Serves(t.repo, t.Desc.Digest) {
		return t.Desc.Digest, nil
	}
	stored, _, err := c.store.Index.Tag(t.repo, t.name)
	if err != nil {
		return v1.Hash{}, err
	}
	for _, b := range stored.History {
		if c.store.Serves(t.repo, b.Digest) {
			return b.Digest, nil
		}
	}
	return v1.Hash{}, fmt.Errorf("nothing is kept of %s:%s", t.repo, t.name)
}
