package cache

import (
	"context"
	"sync"
	"time"

	"forebay/internal/logkey"
)

const (
	// refreshTick is how often tags are looked at that may be due; it is also the least
	// time before its end at which a tag is refreshed.
	refreshTick = time.Second
	// refreshAtOnce bounds background requests in progress, over all upstreams.
	refreshAtOnce = 4
)

// refreshAhead confirms popular tags before they expire, until ctx is done, so that
// their clients never wait. It stops by itself for tags that nobody asks for any more.
func (c *Cache) refreshAhead(ctx context.Context) {
	tick := time.NewTicker(refreshTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.refreshDue(ctx)
		}
	}
}

// refreshDue confirms the tags that are due, and waits for that.
func (c *Cache) refreshDue(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, refreshAtOnce)
	for _, t := range c.known.tags.Values() {
		o := c.origins()[t.repo.Upstream]
		if o == nil || !o.due(t) {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		running.Go(func() {
			defer func() { <-slots }()
			c.refresh(ctx, o, t)
		})
	}
}

// due reports whether a tag is popular and in the last fifth of its time to live.
func (o *origin) due(t *tagState) bool {
	if o.RefreshAhead <= 0 || o.offline() || t.pulls.now.Load()+t.pulls.before.Load() < int64(o.RefreshAhead) {
		return false
	}
	ttl := o.fresh.Of(t.repo.Name + ":" + t.name)
	if ttl == 0 || ttl == Forever {
		return false
	}
	left := ttl - time.Since(t.CheckedAt)
	return left > 0 && left <= max(ttl/5, refreshTick) && !o.low() && !o.health.Failing()
}

// refresh confirms one tag. What it points to now is fetched too, so that the tag is
// never bound to what cannot be served.
func (c *Cache) refresh(ctx context.Context, o *origin, t *tagState) {
	r, _, err := c.resolve(ctx, o, t.repo, t.name, t.CheckedAt)
	if err == nil && r.desc.Digest != t.Desc.Digest {
		_, err = (&tagRequest{c: c, o: o, repo: t.repo, name: t.name}).resolvedTo(ctx, r)
	}
	if err != nil && ctx.Err() == nil {
		c.log.Debug("tag not refreshed", logkey.Upstream(t.repo.Upstream), logkey.Repository(t.repo.Name),
			logkey.Reference(t.name), logkey.Err(err))
	}
}
