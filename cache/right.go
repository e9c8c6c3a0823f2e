package cache

import (
	"context"
	"errors"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/index"
	"forebay/cache/store"
)

// A repository has a right to content, which is a link in the index, by two things only: its
// bytes came for that repository, or they came for another of the same trust domain and the
// repository's registry says that it holds them, with that size. What a registry says, by HEAD
// or for a tag, is a claim until then: it answers a HEAD, and lets its repository share the
// fills of its domain, and no more.

const (
	// claimFor is how long a claim is believed. Within it a client that asks for the layers
	// of an image, one after the other, costs one HEAD for each.
	claimFor = 10 * time.Minute
	// claimEntries bounds the claims; each takes some 400 bytes with its key.
	claimEntries = 32768
)

// claimKey is the key of a claim to a blob or to a manifest.
func claimKey(repo Repo, k index.Kind, d v1.Hash) key {
	if k == index.Blob {
		return blobKey(repo, d)
	}
	return key{aHead, repo, d.String()}
}

// claim takes in that the registry of repo says that it holds what l names. It reports
// whether that makes it a right.
func (c *Cache) claim(o *origin, repo Repo, l store.Link) (right bool) {
	c.known.claims.Add(claimKey(repo, l.Kind, l.Digest), l)
	right, _ = c.right(o, repo, l.Kind, l.Digest)
	return right
}

// claimed returns what the registry of repo said of content lately.
func (c *Cache) claimed(repo Repo, k index.Kind, d v1.Hash) (store.Link, bool) {
	return c.known.claims.Get(claimKey(repo, k, d))
}

// right reports whether repo has a right to d, which a claim becomes here as soon as it may,
// and whether it has a right or a claim.
func (c *Cache) right(o *origin, repo Repo, k index.Kind, d v1.Hash) (right, claimed bool) {
	if c.store.Linked(repo, k, d) {
		return true, true
	}
	said, claimed := c.claimed(repo, k, d)
	if !claimed {
		return false, false
	}
	size, kept := c.store.Size(d)
	if !kept || !c.cameWithin(o, repo, d, said.Size == size) || said.Size >= 0 && said.Size != size {
		return false, true
	}
	return c.store.Link(repo, said) == nil, true
}

// errFound ends a look for something.
var errFound = errors.New("found")

// cameWithin reports whether kept content came within the trust domain of o: for repo's own
// registry or, with others, for another of the domain.
func (c *Cache) cameWithin(o *origin, repo Repo, d v1.Hash, others bool) bool {
	known := false // who holds it
	err := c.store.Index.Holders(d, func(r Repo, _ index.Kind) error {
		known = true
		if r.Upstream == repo.Upstream || others && c.domain(r.Upstream) == o.Trust {
			return errFound
		}
		return nil
	})
	// After the loss of the index, and in a bucket, there is content of which nobody knows
	// whose it was. It can be of no other domain if there is none.
	return errors.Is(err, errFound) || err == nil && !known && c.oneDomain()
}

// keptWithin reports whether d is kept, and came within the trust domain of o.
func (c *Cache) keptWithin(o *origin, repo Repo, d v1.Hash) bool {
	_, kept := c.store.Size(d)
	return kept && c.cameWithin(o, repo, d, true)
}

// domain returns the trust domain of an upstream, which may not be configured any more.
func (c *Cache) domain(upstream string) string {
	if o := c.origins()[upstream]; o != nil {
		return o.Trust
	}
	return upstream
}

// oneDomain reports whether all upstreams trust each other, or there is one.
func (c *Cache) oneDomain() bool {
	var domains []string
	for _, o := range c.origins() {
		domains = append(domains, o.Trust)
	}
	slices.Sort(domains)
	return len(slices.Compact(domains)) <= 1
}

// headBlob asks by HEAD whether repo holds the blob d, once for all who wait.
func (c *Cache) headBlob(ctx context.Context, o *origin, repo Repo, d v1.Hash) (size int64, joined bool, err error) {
	key := blobKey(repo, d)
	if err, ok := c.recall(key); ok {
		return 0, false, err
	}
	if !c.calls.blobs.Running(key) {
		if err := c.limits.Ask(ctx, repo.Upstream, repo.Name); err != nil {
			return 0, false, err
		}
	}
	wait, cancel := c.patience(ctx, o, key)
	defer cancel()
	size, joined, err = c.calls.blobs.Do(wait, key, func(ctx context.Context) (int64, error) {
		size, err := o.Upstream.StatBlob(ctx, repo.Name, d)
		c.remember(key, err)
		if err != nil {
			return 0, err
		}
		c.claim(o, repo, store.BlobLink(d, size))
		return size, nil
	})
	return size, joined, c.orAbsent(o, key, err)
}

// said returns what is known of a manifest that repo holds, or that its registry says it holds.
func (c *Cache) said(repo Repo, d v1.Hash) (v1.Descriptor, bool) {
	if l, ok := c.store.LinkOf(repo, index.Manifest, d); ok {
		return describe(store.Link{Digest: d, MediaType: types.MediaType(l.MediaType), Size: l.Size})
	}
	claim, _ := c.claimed(repo, index.Manifest, d)
	return describe(claim)
}

// told is said of the last word of the registry, however old: it gives no right, but answers a
// HEAD when there is no other.
func (c *Cache) told(repo Repo, d v1.Hash) (v1.Descriptor, bool) {
	claim, _ := c.known.claims.Last(claimKey(repo, index.Manifest, d), 0)
	return describe(claim)
}

// describe returns the descriptor of a link or claim to a manifest, false for one that does not say
// enough.
func describe(l store.Link) (v1.Descriptor, bool) {
	return v1.Descriptor{MediaType: l.MediaType, Size: l.Size, Digest: l.Digest}, l.MediaType != "" && l.Size >= 0
}
