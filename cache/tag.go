package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

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
	stale bool   // the upstream is another mirror, which could not confirm it
	pulls *pulls // shared by the states of the tag as it is bound anew
}

// pulls counts how often a tag is asked for.
type pulls struct {
	now    atomic.Int64 // since it was last confirmed
	before atomic.Int64 // in the time before that
}

func tagKey(repo Repo, tag string) string { return repo.Upstream + "\x00" + repo.Name + "\x00" + tag }

// tag returns what is known of a tag.
func (c *Cache) tag(repo Repo, name string) (*tagState, error) {
	key := tagKey(repo, name)
	if t, ok := c.tags.Get(key); ok {
		return t, nil
	}
	t, ok, err := c.index.Tag(repo, name)
	if err != nil {
		c.unread(err)
		ok = false
	}
	if !ok {
		return nil, nil
	}
	s := &tagState{repo: repo, name: name, Tag: t, pulls: &pulls{}}
	c.tags.ContainsOrAdd(key, s)
	return s, nil
}

// byTag returns what a tag points to: as known while it is fresh, else as the upstream says,
// else, when the upstream fails, as last known.
func (c *Cache) byTag(ctx context.Context, o *origin, repo Repo, name string, headOnly bool) (*Manifest, error) {
	t, err := c.tag(repo, name)
	if err != nil {
		return nil, err
	}
	ttl := o.fresh.of(repo.Name + ":" + name)
	if t != nil {
		t.pulls.now.Add(1)
		if o.Offline || time.Since(t.CheckedAt) < ttl {
			return c.known(ctx, o, t, headOnly, ttl)
		}
		if o.low() && c.keeps(repo, t.Desc.Digest) {
			return c.sparing(ctx, o, t, headOnly, ttl)
		}
	} else if o.Offline {
		return nil, c.offlineMiss(ctx, repo, name, v1.Hash{}, false)
	}
	return c.revalidated(ctx, o, repo, name, t, headOnly, ttl)
}

// errLow is why a tag is served stale while the budget is low.
var errLow = errors.New("the tag moved, and the upstream's budget is low")

// sparing serves a tag that is kept while the upstream's budget is low. A HEAD costs no
// pull and tells whether the tag still points there. What a moved tag points to now would
// cost one, which is left for what nobody has yet: the tag is served stale, and is not
// asked for again for a while.
func (c *Cache) sparing(ctx context.Context, o *origin, t *tagState, headOnly bool, ttl time.Duration) (*Manifest, error) {
	key := tagKey(t.repo, t.name)
	if cause, known := c.spared.get(key); known {
		return c.stale(ctx, o, t, headOnly, ttl, cause)
	}
	wait, cancel := context.WithTimeout(ctx, o.patience(c.opts.RevalidateTimeout))
	defer cancel()
	_, _, err := c.resolves.do(wait, "sparing\x00"+key, func(ctx context.Context) (resolved, error) {
		desc, err := o.Upstream.Resolve(ctx, t.repo.Name, t.name)
		o.health.saw(err)
		if err == nil && !c.keeps(t.repo, desc.Digest) {
			err = errLow
		}
		if err != nil {
			c.spared.add(key, err)
			return resolved{}, err
		}
		return resolved{desc: desc}, c.bind(t.repo, t.name, desc)
	})
	if err == nil {
		if now, err := c.tag(t.repo, t.name); err == nil && now != nil {
			t = now
		}
		return c.known(ctx, o, t, headOnly, ttl)
	}
	if !errors.Is(err, errLow) && !c.standsIn(ctx, o, t, err) {
		return nil, err
	}
	return c.stale(ctx, o, t, headOnly, ttl, err)
}

// known serves a tag that needs no confirmation. When what it points to cannot be fetched,
// what it pointed to before is better than nothing.
func (c *Cache) known(ctx context.Context, o *origin, t *tagState, headOnly bool, ttl time.Duration) (*Manifest, error) {
	if _, failing := c.unfetched.get(t.Desc.Digest); failing && headOnly && !c.keeps(t.repo, t.Desc.Digest) {
		if m, err := c.stale(ctx, o, t, headOnly, ttl, nil); err == nil {
			return m, nil
		}
	}
	m, err := c.byDigest(ctx, o, t.repo, t.Desc.Digest, headOnly)
	switch {
	case err == nil && t.stale:
		return m.unconfirmed(), nil
	case err == nil:
		return m, nil
	case o.Offline:
		return nil, err
	case pull.KindOf(err) == pull.NotFound:
		// The digest went away upstream before it was fetched: ask for the tag again.
		return c.revalidated(ctx, o, t.repo, t.name, t, headOnly, ttl)
	case pull.Failing(err) && ctx.Err() == nil:
		if m, serr := c.stale(ctx, o, t, headOnly, ttl, err); serr == nil {
			return m, nil
		}
	}
	return nil, err
}

// revalidated asks the upstream what the tag points to; t is what is known, or nil.
func (c *Cache) revalidated(ctx context.Context, o *origin, repo Repo, name string, t *tagState, headOnly bool, ttl time.Duration) (_ *Manifest, err error) {
	ctx, span := tracing.Start(ctx, "confirm tag", tracing.Upstream(repo.Upstream), tracing.Repository(repo.Name), tracing.Reference(name))
	defer func() { span.End(err) }()
	kept := t != nil && c.keeps(repo, t.Desc.Digest)
	wait := ctx
	if kept {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, o.patience(c.opts.RevalidateTimeout))
		defer cancel()
	}
	var since time.Time
	if t != nil {
		since = t.CheckedAt
	}
	r, joined, err := c.resolve(wait, o, repo, name, since)
	var m *Manifest
	if err == nil {
		m, err = c.resolvedTo(ctx, o, repo, name, r, headOnly)
	}
	if kept && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		o.health.saw(err) // the request goes on, and may yet say that all is well
	}
	if err == nil {
		if joined && m.Result == Hit {
			m = m.with(Joined)
		}
		if r.stale {
			m = m.unconfirmed()
		}
		return m, nil
	}
	if t != nil && c.standsIn(ctx, o, t, err) {
		if m, serr := c.stale(ctx, o, t, headOnly, ttl, err); serr == nil {
			return m, nil
		}
	}
	return nil, err
}

// resolvedTo returns the manifest that a tag was just found to point to.
func (c *Cache) resolvedTo(ctx context.Context, o *origin, repo Repo, name string, r resolved, headOnly bool) (*Manifest, error) {
	if headOnly && r.bytes == nil && !c.keeps(repo, r.desc.Digest) {
		if err, failing := c.unfetched.get(r.desc.Digest); failing {
			return nil, err // a HEAD must not name what a GET will not get
		}
		return &Manifest{Desc: r.desc, Result: Miss}, nil
	}
	m, err := c.byDigest(ctx, o, repo, r.desc.Digest, headOnly)
	if kind := pull.KindOf(err); err != nil && (kind == pull.NotFound || kind == pull.Invalid) {
		// It went away in between, or the HEAD named a digest that the registry does not
		// serve: what a GET of the tag brings is right by definition.
		return c.byMovedTag(ctx, o, repo, name)
	}
	return m, err
}

// standsIn reports whether what is known may be served in place of err: the upstream
// fails, takes too long or knows no such request, or says that a tag is gone, which is
// kept unless told otherwise. A refusal of access is passed on.
func (c *Cache) standsIn(ctx context.Context, o *origin, t *tagState, err error) bool {
	if ctx.Err() != nil {
		return false // the client itself is gone
	}
	if pull.KindOf(err) == pull.NotFound {
		if o.OnGone == Drop {
			c.dropTag(t)
			return false
		}
		return true
	}
	if o.StaleIfError != 0 && time.Since(t.CheckedAt) > o.StaleIfError {
		return false
	}
	return pull.KindOf(err) != pull.Denied
}

// dropTag forgets a tag that the upstream says is gone.
func (c *Cache) dropTag(t *tagState) {
	err := c.update(func(b *index.Batch) error { return b.DeleteTag(t.repo, t.name) })
	c.tags.Remove(tagKey(t.repo, t.name))
	c.log.Info("tag is gone upstream: dropped", logkey.Upstream(t.repo.Upstream), logkey.Repository(t.repo.Name),
		logkey.Reference(t.name), logkey.Err(err))
}

// stale serves the latest content of a tag that is kept, the former if need be.
func (c *Cache) stale(ctx context.Context, o *origin, t *tagState, headOnly bool, ttl time.Duration, cause error) (*Manifest, error) {
	d := t.Desc.Digest
	if !c.keeps(t.repo, d) {
		stored, _, err := c.index.Tag(t.repo, t.name)
		if err != nil {
			return nil, err
		}
		d = v1.Hash{}
		for _, b := range stored.History {
			if c.keeps(t.repo, b.Digest) {
				d = b.Digest
				break
			}
		}
		if d == (v1.Hash{}) {
			return nil, fmt.Errorf("nothing is kept of %s:%s", t.repo, t.name)
		}
	}
	m, err := c.byDigest(ctx, o, t.repo, d, headOnly)
	if err != nil {
		return nil, err
	}
	if key := tagKey(t.repo, t.name); c.told.first(key) {
		c.log.Warn("stale tag served", logkey.Upstream(t.repo.Upstream), logkey.Repository(t.repo.Name),
			logkey.Reference(t.name), logkey.Digest(d), logkey.Err(cause))
		e := eventOf(EventServedStale, t.repo, d).because(cause)
		e.Tag = t.name
		c.event(e)
	}
	s := m.with(Stale)
	s.StaleFor = max(time.Since(t.CheckedAt)-ttl, time.Second)
	return s, nil
}

// byMovedTag fetches a tag by GET, whose digest was there a moment ago and is not any more.
func (c *Cache) byMovedTag(ctx context.Context, o *origin, repo Repo, name string) (*Manifest, error) {
	m, _, err := c.manifests.do(ctx, "tag\x00"+repo.String()+"\x00"+name, func(ctx context.Context) (*Manifest, error) {
		desc, b, err := c.getManifest(ctx, o, repo, name)
		o.health.saw(err)
		if err != nil {
			return nil, err
		}
		m, err := c.keepManifest(repo, desc, b)
		if err != nil {
			return nil, err
		}
		return m, c.bind(repo, name, desc)
	})
	return m, err
}

// resolve asks the upstream what a tag points to, once for all who wait, and binds it. An
// answer from after since will do: it came between the caller's look and its turn.
func (c *Cache) resolve(ctx context.Context, o *origin, repo Repo, name string, since time.Time) (resolved, bool, error) {
	key := repo.String() + "\x00" + name
	if err, ok := c.recall(key); ok {
		return resolved{}, true, err
	}
	return c.resolves.do(ctx, key, func(ctx context.Context) (resolved, error) {
		if t, err := c.tag(repo, name); err == nil && t != nil && t.CheckedAt.After(since) {
			return resolved{desc: t.Desc, stale: t.stale}, nil // by a call that ended as this one was about to begin
		}
		r, err := c.ask(ctx, o, repo, name)
		o.health.saw(err)
		if err != nil {
			c.remember(key, err)
			return resolved{}, err
		}
		if r.bytes != nil {
			if _, err := c.keepManifest(repo, r.desc, r.bytes); err != nil {
				return resolved{}, err
			}
		}
		err = c.bind(repo, name, r.desc)
		r.stale = pull.TakeStale(&r.desc)
		return r, err
	})
}

// bind records that a tag points to desc now, and that repo holds it. An index that cannot
// be written does not keep the client from its answer.
func (c *Cache) bind(repo Repo, name string, desc v1.Descriptor) error {
	return c.bindAt(repo, name, desc, time.Now())
}

// bindAt is bind for what was found at a time in the past.
func (c *Cache) bindAt(repo Repo, name string, desc v1.Descriptor, now time.Time) error {
	stale := pull.TakeStale(&desc)
	old, err := c.tag(repo, name)
	if err != nil {
		return err
	}
	s := &tagState{repo: repo, name: name, Tag: index.Tag{Desc: desc, CheckedAt: now, ChangedAt: now}, stale: stale, pulls: &pulls{}}
	if old != nil {
		s.pulls = old.pulls
		s.pulls.before.Store(s.pulls.now.Swap(0))
		if old.Desc.Digest == desc.Digest {
			s.ChangedAt = old.ChangedAt
		} else {
			c.moved(old, desc)
		}
	}
	err = c.record(func(b *index.Batch) error {
		return errors.Join(b.PutLink(repo, index.Manifest, desc.Digest, linkOf(desc)),
			b.PutTag(repo, name, s.Tag))
	})
	c.tags.Add(tagKey(repo, name), s)
	c.pinBound(repo, name, desc.Digest)
	if err != nil {
		c.log.Error("tag not recorded", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name),
			logkey.Reference(name), logkey.Err(err))
	}
	return nil
}

// moved tells of a tag that points elsewhere now.
func (c *Cache) moved(old *tagState, desc v1.Descriptor) {
	e := eventOf(EventTagMoved, old.repo, desc.Digest)
	e.Tag, e.Was = old.name, old.Desc.Digest
	if releasePattern.MatchString(old.name) {
		c.counts.releasesMoved.Add(1)
		c.log.Warn("release tag moved", logkey.Upstream(old.repo.Upstream), logkey.Repository(old.repo.Name),
			logkey.Reference(old.name), logkey.Digest(desc.Digest))
		e.Kind = EventReleaseMoved
		c.event(e)
		return
	}
	c.counts.tagsMoved.Add(1)
	c.log.Info("tag moved", logkey.Upstream(old.repo.Upstream), logkey.Repository(old.repo.Name),
		logkey.Reference(old.name), logkey.Digest(desc.Digest))
	c.event(e)
}

// TagHistory returns what is recorded of a tag: what it points to, since when, and what
// it pointed to before, latest first. ok is false for a tag that was never seen.
func (c *Cache) TagHistory(repo Repo, name string) (t index.Tag, ok bool, err error) {
	return c.index.Tag(repo, name)
}
