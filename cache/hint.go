package cache

import (
	"sync"
	"time"

	"forebay/internal/logkey"
)

const (
	// hintsMost bounds the tags that wait to be looked at after a hint. Hints beyond it
	// are dropped: the tag's time to live ends anyway.
	hintsMost = 1024
	// hintsAtOnce bounds the requests that hints make at once, over all upstreams.
	hintsAtOnce = 4
)

// hints are tags of which somebody said that they moved. The zero value is usable.
type hints struct {
	mu      sync.Mutex
	waiting []hintedTag
	known   map[hintedTag]bool // those in waiting
	running int                // workers
}

type hintedTag struct {
	repo Repo
	tag  string
}

// Hint says that a tag may have moved. If the tag is known, the upstream is asked by one
// HEAD, in the background; nothing else comes of it, so that a hint may come from anybody
// who may cost us a HEAD. It never blocks.
func (c *Cache) Hint(repo Repo, tag string) {
	o := c.origins()[repo.Upstream]
	if o == nil || o.offline() || c.ctx.Err() != nil {
		return
	}
	one := hintedTag{repo, tag}
	h := &c.hints
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known[one] || len(h.waiting) >= hintsMost {
		return
	}
	if h.known == nil {
		h.known = map[hintedTag]bool{}
	}
	h.known[one] = true
	h.waiting = append(h.waiting, one)
	if h.running < hintsAtOnce {
		h.running++
		c.wg.Go(c.followHints) // ends when no tag waits, or with Close
	}
}

// next returns the tag that has waited longest. Without one the worker that asks ends.
func (h *hints) next() (one hintedTag, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) == 0 {
		h.running--
		return one, false
	}
	one, h.waiting = h.waiting[0], h.waiting[1:]
	// A hint from now on is about a later move, which the request to come may miss.
	delete(h.known, one)
	return one, true
}

func (c *Cache) followHints() {
	for {
		one, ok := c.hints.next()
		if !ok {
			return
		}
		if c.ctx.Err() == nil {
			c.followHint(one.repo, one.tag)
		}
	}
}

// followHint asks for one tag. What it points to now is fetched too if it is pulled these
// days and the budget allows it, as when it is refreshed ahead.
func (c *Cache) followHint(repo Repo, tag string) {
	c.ForgetAbsence(repo, tag)
	o := c.origins()[repo.Upstream]
	t, err := c.tag(repo, tag)
	if err != nil || t == nil || o == nil {
		return
	}
	r, joined, err := c.resolve(c.ctx, o, repo, tag, time.Now())
	if err == nil && joined {
		// The request that was joined may have been answered before the tag moved.
		r, _, err = c.resolve(c.ctx, o, repo, tag, time.Now())
	}
	pulled := t.pulls.now.Load()+t.pulls.before.Load() > 0
	if err == nil && r.desc.Digest != t.Desc.Digest && pulled && !o.low() {
		_, err = (&tagRequest{c: c, o: o, repo: repo, name: tag}).resolvedTo(c.ctx, r)
	}
	if err != nil && c.ctx.Err() == nil {
		c.log.Debug("hint not followed", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name),
			logkey.Reference(tag), logkey.Err(err))
	}
}
