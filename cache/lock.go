package cache

import (
	"context"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Locked is what a tag points to.
type Locked struct {
	Desc      v1.Descriptor
	Platforms []LockedPlatform // of an index that is kept, in its order
	Pulls     int64            // that it took: 0, or 1 for an index that was fetched
}

// LockedPlatform is an image of an index.
type LockedPlatform struct {
	Platform string
	Digest   v1.Hash
	Size     int64 // of its manifest, in bytes
}

// Lock asks the upstream what a tag points to, by a HEAD, which no registry counts as a
// pull, however fresh the tag is; of an upstream that must not be asked it tells what is
// known. d, unless it is zero, stands in place of the tag. The platforms of an index are
// told if it is kept; with fetch one that is not is fetched for that.
func (c *Cache) Lock(ctx context.Context, repo Repo, tag string, d v1.Hash, fetch bool) (*Locked, error) {
	o, err := c.origin(repo)
	if err != nil {
		return nil, err
	}
	l := &Locked{}
	switch {
	case d != (v1.Hash{}):
		m, err := c.byDigest(ctx, o, repo, d, true)
		if err != nil {
			return nil, err
		}
		l.Desc = m.Desc
	case o.Offline:
		t, err := c.tag(repo, tag)
		if err != nil {
			return nil, err
		}
		if t == nil {
			return nil, offlineError(repo)
		}
		l.Desc = t.Desc
	default:
		r, _, err := c.resolve(ctx, o, repo, tag, time.Now())
		if err != nil {
			return nil, err
		}
		l.Desc = r.desc
	}
	if fetch && isIndexType(string(l.Desc.MediaType)) && !c.keeps(repo, l.Desc.Digest) {
		m, err := c.byDigest(ctx, o, repo, l.Desc.Digest, false)
		if err != nil {
			return nil, err
		}
		if m.Result == Miss {
			l.Pulls++
		}
	}
	if c.keeps(repo, l.Desc.Digest) {
		l.children(c, repo)
	}
	return l, nil
}

// children reads the images of a kept index.
func (l *Locked) children(c *Cache, repo Repo) {
	doc, ok := c.doc(repo, l.Desc.Digest)
	if !ok {
		return
	}
	for _, child := range doc.Manifests {
		d, ok := child.digest()
		if name := child.name(); ok && name != attestation {
			l.Platforms = append(l.Platforms, LockedPlatform{name, d, child.Size})
		}
	}
}
