package cache

import (
	"context"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/event"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

// getTag fetches a tag by GET, whose digest was there a moment ago and is not any more.
func (c *Cache) getTag(ctx context.Context, o *origin, repo Repo, name string) (*Manifest, error) {
	m, _, err := c.calls.manifests.Do(ctx, key{aTag, repo, name}, func(ctx context.Context) (*Manifest, error) {
		desc, b, err := c.getManifest(ctx, o, repo, name)
		if err != nil {
			return nil, err
		}
		m, err := c.keepManifest(repo, desc, b)
		if err != nil {
			return nil, err
		}
		return m, c.bind(ctx, repo, name, desc, time.Now())
	})
	return m, err
}

// resolve asks the upstream what a tag points to, once for all who wait, and binds it. An
// answer from after since will do: it came between the caller's look and its turn.
func (c *Cache) resolve(ctx context.Context, o *origin, repo Repo, name string, since time.Time) (resolved, bool, error) {
	k := refKey(ctx, repo, name)
	if err, ok := c.recall(k); ok {
		return resolved{}, true, err
	}
	if since.IsZero() && !c.calls.resolves.Running(k) { // nothing is known of the tag
		if err := c.limits.Ask(ctx, repo.Upstream, repo.Name); err != nil {
			return resolved{}, false, err
		}
	}
	wait, cancel := c.patience(ctx, o, k)
	defer cancel()
	r, joined, err := c.calls.resolves.Do(wait, k, func(ctx context.Context) (resolved, error) {
		if t, err := c.tag(repo, name); err == nil && t != nil && t.CheckedAt.After(since) {
			return resolved{desc: t.Desc, stale: t.stale}, nil // by a call that ended as this one was about to begin
		}
		r, at, err := c.askFleet(ctx, o, repo, name, since)
		c.remember(k, err)
		if err != nil {
			return resolved{}, err
		}
		if r.bytes != nil {
			if _, err := c.keepManifest(repo, r.desc, r.bytes); err != nil {
				return resolved{}, err
			}
		}
		if r.bytes == nil {
			c.claim(o, repo, store.ManifestLink(r.desc))
		}
		err = c.bind(ctx, repo, name, r.desc, at)
		r.stale = pull.TakeStale(&r.desc)
		return r, err
	})
	return r, joined, c.orAbsent(o, k, err)
}

// askFleet is ask for a tag, unless another mirror was told of it after since, and lately enough. at is when.
func (c *Cache) askFleet(ctx context.Context, o *origin, repo Repo, name string, since time.Time) (r resolved, at time.Time, err error) {
	if c.opts.Fleet == nil {
		r, err = c.ask(ctx, o, repo, name)
		return r, time.Now(), err
	}
	r.desc, at, err = c.opts.Fleet.Confirm(ctx, repo.Upstream, repo.Name, name, since, o.fresh.Of(repo.Name+":"+name), func(ctx context.Context) (v1.Descriptor, error) {
		said, err := c.ask(ctx, o, repo, name)
		r.bytes = said.bytes
		return said.desc, err
	})
	return r, at, err
}

// bind notes that a tag was found to point to desc at a time just passed, which gives no right to that. It is recorded when the
// repository has a right to the manifest, the tag is recorded already, a policy counts from it, or the
// mirror wants it for itself: any client can ask for any number of tags by HEAD, and those are kept in memory only,
// until their manifest comes. An index that cannot be written does not keep the client from its
// answer.
func (c *Cache) bind(ctx context.Context, repo Repo, name string, desc v1.Descriptor, at time.Time) error {
	p := c.policy.Load()
	return c.bindAt(repo, name, desc, at, time.Time{}, pull.Client(ctx) == "" || p != nil && (*p).Concerns(repo, name))
}

// BindAt records what a tag was found to point to at a time in the past, by the operator's word, and
// since when, if that is not zero.
func (c *Cache) BindAt(repo Repo, name string, desc v1.Descriptor, at, since time.Time) error {
	return c.bindAt(repo, name, desc, at, since, true)
}

func (c *Cache) bindAt(repo Repo, name string, desc v1.Descriptor, now, since time.Time, record bool) error {
	stale := pull.TakeStale(&desc)
	old, err := c.tag(repo, name)
	if err != nil {
		return err
	}
	s := &tagState{repo: repo, name: name, Tag: index.Tag{Desc: desc, CheckedAt: now, ChangedAt: now}, stale: stale, pulls: &pulls{}}
	if since.Before(now) && !since.IsZero() {
		s.ChangedAt = since
	}
	if old != nil {
		s.pulls = old.pulls
		s.pulls.before.Store(s.pulls.now.Swap(0))
		if old.Desc.Digest == desc.Digest {
			s.ChangedAt = old.ChangedAt
			if r := old.ruling.Load(); r != nil && !r.Passing {
				s.ruling.Store(r)
			}
		} else {
			c.moved(old, desc)
		}
	}
	s.recorded = record || old != nil && old.recorded || c.store.Linked(repo, index.Manifest, desc.Digest)
	before := c.forgotten.Load()
	if s.recorded {
		err = c.store.Record(func(b *index.Batch) error { return b.PutTag(repo, name, s.Tag) })
	}
	c.known.tags.Add(tagName{repo, name}, s)
	c.unlessForgotten(tagName{repo, name}, before)
	if !s.recorded {
		c.headed(repo, name, desc.Digest)
	}
	c.images.Pins.Bound(repo, name, desc.Digest)
	if err != nil {
		c.log.Error("tag not recorded", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name),
			logkey.Reference(name), logkey.Err(err))
	}
	return nil
}

// headedMost bounds the tags of one manifest that HEADs have told of: as many as a release has.
const headedMost = 8

// headed notes that a tag is to be recorded once the manifest d is here, which it may be by now.
func (c *Cache) headed(repo Repo, name string, d v1.Hash) {
	k := key{aRef, repo, d.String()}
	c.heading.Lock()
	names, _ := c.known.headed.Get(k)
	if !slices.Contains(names, name) {
		names = append(slices.Clone(names[max(0, len(names)-headedMost+1):]), name)
	}
	c.known.headed.Add(k, names)
	c.heading.Unlock()
	if c.store.Linked(repo, index.Manifest, d) {
		c.record(repo, d)
	}
}

// record records the tags that were bound to the manifest d by HEADs, now that it is here.
func (c *Cache) record(repo Repo, d v1.Hash) {
	k := key{aRef, repo, d.String()}
	c.heading.Lock()
	names, _ := c.known.headed.Get(k)
	c.known.headed.Remove(k)
	c.heading.Unlock()
	for _, name := range names {
		if t, ok := c.known.tags.Get(tagName{repo, name}); ok && t.Desc.Digest == d && !t.recorded {
			desc := t.Desc
			if t.stale {
				pull.MarkStale(&desc)
			}
			_ = c.BindAt(repo, name, desc, t.CheckedAt, t.ChangedAt) // what cannot be recorded was told of
		}
	}
}

// moved tells of a tag that points elsewhere now.
func (c *Cache) moved(old *tagState, desc v1.Descriptor) {
	e := event.Moved(old.repo, old.name, old.Desc.Digest, desc.Digest)
	n, tell, what := &c.counts.tagsMoved, c.log.Info, "tag moved"
	if e.Kind == event.ReleaseMoved {
		n, tell, what = &c.counts.releasesMoved, c.log.Warn, "release tag moved"
	}
	n.Add(1)
	tell(what, logkey.Upstream(old.repo.Upstream), logkey.Repository(old.repo.Name), logkey.Reference(old.name), logkey.Digest(desc.Digest))
	c.store.Tell(e)
}

// dropTag forgets a tag that the upstream says is gone.
func (c *Cache) dropTag(t *tagState) {
	err := c.ForgetTag(t.repo, t.name)
	e := event.Of(event.Vanished, t.repo, t.Desc.Digest)
	e.Tag, e.Detail = t.name, "dropped (on_gone: drop)"
	c.store.Tell(e)
	c.log.Info("tag is gone upstream: dropped", logkey.Upstream(t.repo.Upstream), logkey.Repository(t.repo.Name),
		logkey.Reference(t.name), logkey.Err(err))
}
