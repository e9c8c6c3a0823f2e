package cache

import (
	"context"
	"errors"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/image"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/cache/vanished"
	"forebay/internal/allowance"
	"forebay/internal/pull"
)

// Here is what those ask of the cache who work on what is kept (package upkeep).

// Store returns what is kept.
func (c *Cache) Store() *store.Store { return c.store }

// Images returns what is known of the images that are kept.
func (c *Cache) Images() *image.Images { return c.images }

// Limits returns what clients may still have registries asked for.
func (c *Cache) Limits() *allowance.Clients { return c.limits }

// Life returns the context that ends with Close.
func (c *Cache) Life() context.Context { return c.ctx }

// Configured returns why a repository cannot be asked for: its registry is not configured.
func (c *Cache) Configured(repo Repo) error {
	_, err := c.origin(repo)
	return err
}

// MayAsk reports whether the registry of a repository is configured, and may be asked.
func (c *Cache) MayAsk(repo Repo) bool {
	o := c.origins()[repo.Upstream]
	return o != nil && !o.offline()
}

// Tag returns what is known of a tag; false when nothing is.
func (c *Cache) Tag(repo Repo, name string) (t index.Tag, known bool, err error) {
	s, err := c.tag(repo, name)
	if err != nil || s == nil {
		return index.Tag{}, false, err
	}
	return s.Tag, true, nil
}

// Confirm asks the upstream what a tag points to, by HEAD where that works, however fresh
// the tag is. Only an absence that is remembered it believes: see [Cache.ForgetAbsence].
func (c *Cache) Confirm(ctx context.Context, repo Repo, tag string) (v1.Descriptor, error) {
	o, err := c.origin(repo)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if o.offline() {
		return v1.Descriptor{}, offlineError(repo)
	}
	r, _, err := c.resolve(ctx, o, repo, tag, time.Now())
	return r.desc, err
}

// ForgetAbsence forgets that a tag was not there.
func (c *Cache) ForgetAbsence(repo Repo, tag string) {
	k := key{aRef, repo, tag}
	c.remember(k, nil)
	c.known.unfetched.Remove(k)
}

// ForgetTag forgets a tag, as if it had never been seen.
func (c *Cache) ForgetTag(repo Repo, tag string) error {
	err := c.store.Update(func(b *index.Batch) error { return b.DeleteTag(repo, tag) })
	c.forgotten.Add(1)
	c.known.tags.Remove(tagName{repo, tag})
	return err
}

// Gone returns what registries say is gone that they had.
func (c *Cache) Gone() *vanished.List { return c.gone }

// ForgetTags says that tags were taken out of the index.
func (c *Cache) ForgetTags() { c.forgotten.Add(1); c.known.tags.Purge() }

// ForgetFailures forgets the negative answers of a repository, so that the upstream is
// asked again.
func (c *Cache) ForgetFailures(repo Repo) {
	c.known.trouble.Remove(repo)
	c.known.tagLists.drop(repo)
	of := func(k key) bool { return k.repo == repo }
	c.known.unfetched.RemoveAll(of)
	if c.known.absent != nil {
		c.known.absent.RemoveAll(of)
	}
}

// ForgetUnfetched forgets that a manifest could not be fetched.
func (c *Cache) ForgetUnfetched(repo Repo, d v1.Hash) {
	c.known.unfetched.Remove(key{aRef, repo, d.String()})
}

// ForgetWrong forgets that content came wrong from a repository.
func (c *Cache) ForgetWrong(repo Repo, d v1.Hash) { c.known.wrong.Remove(blobKey(repo, d)) }

// errReserve is why what nobody has asked for yet is not fetched.
var errReserve = errors.New("only the reserve of the budget is left")

// ManifestAboveReserve fetches a manifest, by a request that registries count, as long as
// more than the reserve of the registry's budget is left. It has the registry for itself
// meanwhile: others would take from the reserve what each of them sees is left. pause is
// asked after an error: it returns nil, after a while, for another try, or why there is none.
func (c *Cache) ManifestAboveReserve(ctx context.Context, repo Repo, d v1.Hash, pause func(context.Context, error) error) (*Manifest, error) {
	o, err := c.origin(repo)
	if err != nil {
		return nil, err
	}
	select {
	case o.spending <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-o.spending }()
	if c.opts.Fleet != nil {
		done, err := c.opts.Fleet.Spend(ctx, repo.Upstream)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	for {
		var err error
		if o.atReserve() && !c.keptWithin(o, repo, d) {
			err = &pull.Error{Kind: pull.Limited, Upstream: repo.Upstream, Op: "get manifest " + repo.Name + "@" + d.String(), Err: errReserve}
		} else {
			var m *Manifest
			if m, err = c.Manifest(ctx, repo, d.String(), false); err == nil {
				return m, nil
			}
		}
		if err := pause(ctx, err); err != nil {
			return nil, err
		}
		if o.atReserve() {
			// A free request, whose answer tells what is left now.
			_, _ = o.Upstream.Resolve(ctx, repo.Name, d.String()) // how it went was observed
		}
	}
}
