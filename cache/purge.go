package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/logkey"
)

// ErrPinned means that what was to be removed is pinned.
var ErrPinned = errors.New("is pinned")

// Purged says what a purge removed.
type Purged struct {
	Tags  int   `json:"tags"`
	Links int   `json:"links"` // a repository's right to a digest, each
	Blobs int   `json:"blobs"` // files, manifests included
	Bytes int64 `json:"bytes"` // of those files
	// Shared counts blobs that stay because other repositories hold them too.
	Shared int `json:"shared"`
}

// linkRef is one thing that a repository may hold.
type linkRef struct {
	kind   index.Kind
	digest v1.Hash
}

// purge is one run: it takes links away and removes what nobody holds any more. Readers
// that have a file open go on reading it, and a fill in progress goes on and is linked
// again when it ends: somebody has just asked for it.
type purge struct {
	c     *Cache
	force bool // pinned content, too
	done  Purged
}

// purgeChunk is how many links are taken away in one update of the index.
const purgeChunk = 200

// PurgeImage forgets a tag with what only it leads to, or, with a digest, that manifest
// with what only it leads to. What other manifests of the repository name stays, and so
// do files that other repositories hold. The next pull fetches all of it anew. The error
// is [ErrNotKept] when there is nothing, [ErrPinned] when it is pinned and not forced.
func (c *Cache) PurgeImage(ctx context.Context, repo Repo, tag string, d v1.Hash, force bool) (Purged, error) {
	p := purge{c: c, force: force}
	err := p.image(ctx, repo, tag, d)
	c.forgetAbsence(repo)
	err = errors.Join(err, c.index.Sync())
	p.log("image purged", repo, refString(repo, tag, d), err)
	return p.done, err
}

func (p *purge) image(ctx context.Context, repo Repo, tag string, d v1.Hash) error {
	byTag := d == (v1.Hash{})
	if byTag {
		t, ok, err := p.c.index.Tag(repo, tag)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%s:%s: %w", repo, tag, ErrNotKept)
		}
		d = t.Desc.Digest
	} else if !p.c.linked(repo, index.Manifest, d) {
		return fmt.Errorf("%s@%s: %w", repo, d, ErrNotKept)
	}
	tree := p.c.tree(repo, d)
	others, err := p.c.namedElsewhere(ctx, repo, tag, tree)
	if err != nil {
		return err
	}
	if !byTag {
		delete(others, d) // an index that names it does not keep it: that is what was asked for
	}
	var gone []linkRef
	for ref := range tree {
		if !others[ref.digest] {
			gone = append(gone, ref)
		}
	}
	if err := p.allowed(repo, gone); err != nil {
		return err
	}
	if byTag {
		if !p.force && p.c.pinsTag(repo, tag) {
			return fmt.Errorf("%s:%s %w: unpin it first, or force it", repo, tag, ErrPinned)
		}
		if err := p.tag(repo, tag); err != nil {
			return err
		}
	}
	return p.unlink(ctx, repo, gone)
}

// allowed refuses to remove what is pinned.
func (p *purge) allowed(repo Repo, refs []linkRef) error {
	if p.force {
		return nil
	}
	for _, ref := range refs {
		if p.c.Pinned(ref.digest) && !p.c.pinnedElsewhere(repo, ref.digest) {
			return fmt.Errorf("%s@%s %w: unpin it first, or force it", repo, ref.digest, ErrPinned)
		}
	}
	return nil
}

// pinnedElsewhere reports whether a pinned digest can do without a repository: another one
// holds it too, so that its file stays, and no pin names it here.
func (c *Cache) pinnedElsewhere(repo Repo, d v1.Hash) bool {
	if _, here, err := c.pinRecord(repo, d.String()); here || err != nil {
		return false
	}
	held := false
	err := c.index.Holders(d, func(r index.Repo, _ index.Kind) error {
		if r != repo {
			held = true
		}
		return nil
	})
	return held && err == nil
}

func (p *purge) tag(repo Repo, tag string) error {
	err := p.c.update(func(b *index.Batch) error { return b.DeleteTag(repo, tag) })
	p.c.tags.Remove(tagKey(repo, tag))
	if err == nil {
		p.done.Tags++
	}
	return err
}

// unlink takes links from a repository and removes what nobody holds then.
func (p *purge) unlink(ctx context.Context, repo Repo, refs []linkRef) error {
	for len(refs) > 0 {
		some := refs[:min(len(refs), purgeChunk)]
		refs = refs[len(some):]
		err := p.c.update(func(b *index.Batch) error {
			for _, ref := range some {
				if err := b.DeleteLink(repo, ref.kind, ref.digest); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		p.done.Links += len(some)
		for _, ref := range some {
			p.c.hot.Remove(hotKey(repo, ref.digest))
			if err := p.release(ref.digest); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// release removes content that nobody holds.
func (p *purge) release(d v1.Hash) error {
	held, err := p.c.index.Held(d)
	if err != nil {
		return err
	}
	size, kept := p.c.keptSize(d)
	switch {
	case held && kept:
		p.done.Shared++
		return nil
	case held:
		return nil
	}
	if _, err := p.c.disk.DropPartial(d); err != nil {
		p.c.log.Warn("partial fill not removed", logkey.Digest(d), logkey.Err(err))
	}
	if !kept {
		return nil
	}
	if err := p.c.discard(d); err != nil {
		return err
	}
	p.done.Blobs++
	p.done.Bytes += size
	return nil
}

// discard removes a file and what is known of it. Links are not touched.
func (c *Cache) discard(d v1.Hash) error {
	return errors.Join(c.disk.Remove(d), c.gone(d))
}

// gone notes that the file of d was taken away.
func (c *Cache) gone(d v1.Hash) error {
	c.cool(d)
	c.space.policy.Remove(d)
	c.mu.Lock()
	delete(c.verified, proofOf(d))
	c.mu.Unlock()
	return c.update(func(b *index.Batch) error { return b.DeleteBlobIfGone(d, c.disk) })
}

// PurgeRepository forgets everything of a repository.
func (c *Cache) PurgeRepository(ctx context.Context, repo Repo, force bool) (Purged, error) {
	p := purge{c: c, force: force}
	err := p.repository(ctx, repo)
	c.forgetAbsence(repo)
	err = errors.Join(err, c.index.Sync())
	p.log("repository purged", repo, "", err)
	return p.done, err
}

func (p *purge) repository(ctx context.Context, repo Repo) error {
	var refs []linkRef
	for _, kind := range []index.Kind{index.Manifest, index.Blob} {
		err := p.c.index.Links(repo, kind, func(d v1.Hash, _ index.Link) error {
			refs = append(refs, linkRef{kind, d})
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	var tags []string
	err := p.c.index.Tags(repo, func(tag string, _ index.Tag) error {
		tags = append(tags, tag)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if len(refs) == 0 && len(tags) == 0 {
		return fmt.Errorf("%s: %w", repo, ErrNotKept)
	}
	if err := p.allowed(repo, refs); err != nil {
		return err
	}
	for _, tag := range tags {
		if !p.force && p.c.pinsTag(repo, tag) {
			return fmt.Errorf("%s:%s %w: unpin it first, or force it", repo, tag, ErrPinned)
		}
	}
	for _, tag := range tags {
		if err := p.tag(repo, tag); err != nil {
			return err
		}
	}
	if err := p.unlink(ctx, repo, refs); err != nil {
		return err
	}
	return p.c.index.DropRepo(ctx, repo) // lists, and what came meanwhile
}

// PurgeDigest removes one blob or manifest, whoever holds it, and the right of all
// repositories to it. Tags that point to it stay, and fetch it anew.
func (c *Cache) PurgeDigest(ctx context.Context, d v1.Hash, force bool) (Purged, error) {
	p := purge{c: c, force: force}
	type holder struct {
		repo Repo
		kind index.Kind
	}
	var holders []holder
	err := c.index.Holders(d, func(r index.Repo, k index.Kind) error {
		holders = append(holders, holder{r, k})
		return ctx.Err()
	})
	if err != nil {
		return p.done, err
	}
	if len(holders) == 0 && !c.possesses(d) {
		return p.done, fmt.Errorf("%s: %w", d, ErrNotKept)
	}
	if !force && c.Pinned(d) {
		return p.done, fmt.Errorf("%s %w: unpin it first, or force it", d, ErrPinned)
	}
	for _, h := range holders {
		if err := p.unlink(ctx, h.repo, []linkRef{{h.kind, d}}); err != nil {
			return p.done, err
		}
		c.forgetAbsence(h.repo)
	}
	if len(holders) == 0 {
		err = p.release(d)
	} else if p.done.Blobs > 0 {
		p.done.Shared = 0 // it was shared only until its last link went
	}
	err = errors.Join(err, c.index.Sync())
	if c.tier != nil {
		err = errors.Join(err, c.tier.Remove(ctx, d))
	}
	c.wrong.remove(d)
	c.log.Info("digest purged", logkey.Digest(d), logkey.Bytes(p.done.Bytes), logkey.Err(err))
	p.tell(Repo{}, d.String(), d)
	return p.done, err
}

func (p *purge) log(event string, repo Repo, ref string, err error) {
	p.c.log.Info(event, logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Reference(ref),
		logkey.Count(p.done.Blobs), logkey.Bytes(p.done.Bytes), logkey.Err(err))
	p.tell(repo, ref, v1.Hash{})
}

// tell makes an event of a purge that removed something.
func (p *purge) tell(repo Repo, ref string, d v1.Hash) {
	if p.done.Tags+p.done.Links+p.done.Blobs == 0 {
		return
	}
	e := eventOf(EventPurged, repo, d)
	e.Count, e.Bytes, e.Detail = int64(p.done.Blobs), p.done.Bytes, ref
	p.c.event(e)
}

// tree returns what a manifest leads to, itself included, as far as manifests are kept.
func (c *Cache) tree(repo Repo, d v1.Hash) map[linkRef]bool {
	found := map[linkRef]bool{}
	var descend func(d v1.Hash, depth int)
	descend = func(d v1.Hash, depth int) {
		ref := linkRef{index.Manifest, d}
		if found[ref] || depth > imageDepth {
			return
		}
		found[ref] = true
		doc, ok := c.doc(repo, d)
		if !ok {
			return
		}
		for _, part := range doc.blobs() {
			found[linkRef{index.Blob, part.Digest}] = true
		}
		for _, child := range doc.Manifests {
			if h, ok := child.digest(); ok {
				descend(h, depth+1)
			}
		}
	}
	descend(d, 0)
	return found
}

// namedElsewhere returns which digests of a tree the rest of the repository leads to: its
// other tags, and the manifests that are not of the tree.
func (c *Cache) namedElsewhere(ctx context.Context, repo Repo, tag string, tree map[linkRef]bool) (map[v1.Hash]bool, error) {
	named := map[v1.Hash]bool{}
	err := c.index.Tags(repo, func(name string, t index.Tag) error {
		if name != tag && tree[linkRef{index.Manifest, t.Desc.Digest}] {
			for ref := range c.tree(repo, t.Desc.Digest) {
				named[ref.digest] = true
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	var rest []v1.Hash
	err = c.index.Links(repo, index.Manifest, func(d v1.Hash, _ index.Link) error {
		if !tree[linkRef{index.Manifest, d}] {
			rest = append(rest, d)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	for _, d := range rest {
		doc, ok := c.doc(repo, d)
		if !ok {
			continue
		}
		for _, part := range doc.blobs() {
			named[part.Digest] = true
		}
		for _, child := range doc.Manifests {
			h, ok := child.digest()
			if !ok || named[h] {
				continue
			}
			for ref := range c.tree(repo, h) {
				named[ref.digest] = true
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return named, nil
}

// forgetAbsence forgets the negative answers of a repository, so that the upstream is
// asked again.
func (c *Cache) forgetAbsence(repo Repo) {
	c.trouble.remove(repo)
	if c.absent == nil {
		return
	}
	name := repo.String()
	for _, key := range c.absent.entries.Keys() {
		for _, field := range strings.Split(key, "\x00") {
			if field == name {
				c.absent.remove(key)
				break
			}
		}
	}
}
