package cache

import (
	"context"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/logkey"
	"forebay/internal/manifest"
	"forebay/internal/pull"
)

// refusedFor is how long a manifest that we do not pass on is not asked for again: its registry
// counts each time, and gives the same.
const refusedFor = 10 * time.Minute

// recall returns a negative answer that is remembered.
func (c *Cache) recall(k key) (error, bool) {
	if err, ok := c.known.unfetched.Get(k); ok && pull.DetailOf(err) == pull.Refused {
		return err, true
	}
	if c.known.absent == nil {
		return nil, false
	}
	return c.known.absent.Get(k)
}

// remember keeps in mind how a request ended: an absence, for a while, and what we refuse, which
// the log tells once. Failures are never remembered as absence, and what is there is not absent.
func (c *Cache) remember(k key, err error) {
	switch {
	case err != nil && pull.DetailOf(err) == pull.Refused:
		if _, known := c.recall(k); !known {
			c.log.Warn("manifest refused", logkey.Upstream(k.repo.Upstream), logkey.Repository(k.repo.Name), logkey.Reference(k.ref), logkey.Err(err))
		}
		c.known.unfetched.AddFor(k, err, refusedFor)
	case c.known.absent == nil:
	case err == nil:
		c.known.absent.Remove(k)
	case pull.KindOf(err) == pull.NotFound && pull.DetailOf(err) != pull.OfLogin:
		c.known.absent.Add(k, err)
	}
}

// orAbsent returns what stands in for a failure to ask for k: that it was not there when its
// registry was last asked. That is no less than stale content is, and has the same bound.
func (c *Cache) orAbsent(o *origin, k key, err error) error {
	if err != nil && c.known.absent != nil && pull.Failing(err) && pull.DetailOf(err) == pull.NoDetail {
		if absent, ok := c.known.absent.Last(k, o.StaleIfError); ok {
			return absent
		}
	}
	return err
}

// patience bounds how long a caller waits for an upstream that fails, where there is something
// that stands in for its answer.
func (c *Cache) patience(ctx context.Context, o *origin, k key) (context.Context, context.CancelFunc) {
	if c.known.absent != nil && o.health.Failing() {
		if _, ok := c.known.absent.Last(k, o.StaleIfError); ok {
			return context.WithTimeout(ctx, whenFailing)
		}
	}
	return ctx, func() {}
}

// refuseLarge remembers that a manifest which a HEAD tells of is too large to be fetched.
func (c *Cache) refuseLarge(ctx context.Context, repo Repo, desc v1.Descriptor) {
	if desc.Size > manifest.MaxBytes {
		c.remember(refKey(ctx, repo, desc.Digest.String()), &pull.Error{Kind: pull.Invalid, Detail: pull.Refused, Upstream: repo.Upstream,
			Op:      "head manifest " + repo.Name + "@" + desc.Digest.String(),
			Message: fmt.Sprintf("it has %d bytes, and %d are the most", desc.Size, manifest.MaxBytes)})
	}
}
