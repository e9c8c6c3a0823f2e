package upkeep

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/event"
	"forebay/cache/image"
	"forebay/cache/index"
	"forebay/cache/store"
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
	// Pulls are the manifests among the files: what fetching all of it anew asks registries for that
	// they count.
	Pulls int `json:"pulls"`
}

// Add adds what another purge removed.
func (p *Purged) Add(o Purged) {
	p.Tags += o.Tags
	p.Links += o.Links
	p.Blobs += o.Blobs
	p.Bytes += o.Bytes
	p.Shared += o.Shared
	p.Pulls += o.Pulls
}

// PurgeOptions say how to purge.
type PurgeOptions struct {
	Force  bool // pinned content, too
	DryRun bool // only count
}

// purge is one run: it takes links away and removes what nobody holds any more. Readers
// that have a file open go on reading it, and a fill in progress goes on and is linked
// again when it ends: somebody has just asked for it.
type purge struct {
	PurgeOptions
	k    *Keeper
	by   string
	done Purged
}

// purgeChunk is how many links are taken away in one update of the index.
const purgeChunk = 200

// PurgeImage forgets a tag with what only it leads to, or, with a digest, that manifest
// with what only it leads to. What other manifests of the repository name stays, and so
// do files that other repositories hold. The next pull fetches all of it anew. The error
// is [store.ErrNotKept] when there is nothing, [ErrPinned] when it is pinned and not forced.
func (k *Keeper) PurgeImage(ctx context.Context, repo Repo, tag string, d v1.Hash, o PurgeOptions) (Purged, error) {
	p := purge{PurgeOptions: o, k: k, by: event.Actor(ctx)}
	err := p.image(ctx, repo, tag, d)
	return p.end("image purged", repo, image.Name(repo, tag, d), err)
}

func (p *purge) image(ctx context.Context, repo Repo, tag string, d v1.Hash) error {
	byTag := d == (v1.Hash{})
	if byTag {
		t, ok, err := p.k.Store.Index.Tag(repo, tag)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%s:%s: %w", repo, tag, store.ErrNotKept)
		}
		d = t.Desc.Digest
	} else if !p.k.Store.Linked(repo, index.Manifest, d) {
		return fmt.Errorf("%s@%s: %w", repo, d, store.ErrNotKept)
	}
	tree := p.k.Images.Tree(repo, d)
	others, err := p.k.namedElsewhere(ctx, repo, tag, tree)
	if err != nil {
		return err
	}
	if !byTag {
		delete(others, d) // an index that names it does not keep it: that is what was asked for
	}
	var gone []store.Link
	for ref := range tree {
		if !others[ref.Digest] {
			gone = append(gone, ref)
		}
	}
	if err := p.allowed(repo, gone); err != nil {
		return err
	}
	if byTag {
		if !p.Force && p.k.Images.Pins.HasTag(repo, tag) {
			return fmt.Errorf("%s:%s %w: unpin it first, or force it", repo, tag, ErrPinned)
		}
		if err := p.tag(repo, tag); err != nil {
			return err
		}
	}
	return p.unlink(ctx, repo, gone)
}

// allowed refuses to remove what is pinned.
func (p *purge) allowed(repo Repo, refs []store.Link) error {
	if p.Force {
		return nil
	}
	for _, ref := range refs {
		if p.k.Images.Pins.Pinned(ref.Digest) && !p.k.pinnedElsewhere(repo, ref.Digest) {
			return fmt.Errorf("%s@%s %w: unpin it first, or force it", repo, ref.Digest, ErrPinned)
		}
	}
	return nil
}

// pinnedElsewhere reports whether a pinned digest can do without a repository: another one
// holds it too, so that its file stays, and no pin names it here.
func (k *Keeper) pinnedElsewhere(repo Repo, d v1.Hash) bool {
	if _, here, err := k.Images.Pins.Record(repo, d.String()); here || err != nil {
		return false
	}
	held, err := k.heldElsewhere(repo, d)
	return held && err == nil
}

func (k *Keeper) heldElsewhere(repo Repo, d v1.Hash) (held bool, err error) {
	err = k.Store.Index.Holders(d, func(r index.Repo, _ index.Kind) error {
		held = held || r != repo
		return nil
	})
	return held, err
}

func (p *purge) tag(repo Repo, tag string) error {
	var err error
	if !p.DryRun {
		err = p.k.Cache.ForgetTag(repo, tag)
	}
	if err == nil {
		p.done.Tags++
	}
	return err
}

// unlink takes links from a repository and removes what nobody holds then.
func (p *purge) unlink(ctx context.Context, repo Repo, refs []store.Link) error {
	for len(refs) > 0 {
		some := refs[:min(len(refs), purgeChunk)]
		refs = refs[len(some):]
		if !p.DryRun {
			if err := p.k.Store.Unlink(repo, some); err != nil {
				return err
			}
		}
		p.done.Links += len(some)
		for _, ref := range some {
			if err := p.release(repo, ref); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// release removes content that nobody holds, or nobody but repo would in a dry run.
func (p *purge) release(repo Repo, ref store.Link) error {
	d := ref.Digest
	held, err := p.k.Store.Index.Held(d)
	if p.DryRun {
		held, err = p.k.heldElsewhere(repo, d)
	}
	if err != nil {
		return err
	}
	size, kept := p.k.Store.DiskSize(d)
	switch {
	case held && kept:
		p.done.Shared++
		return nil
	case held:
		return nil
	}
	if !p.DryRun {
		if _, err := p.k.Store.Disk.DropPartial(d); err != nil {
			p.k.log.Warn("partial fill not removed", logkey.Digest(d), logkey.Err(err))
		}
	}
	if !kept {
		return nil
	}
	if !p.DryRun {
		if err := p.k.Store.Remove(d); err != nil {
			return err
		}
	}
	p.done.Blobs++
	p.done.Bytes += size
	if ref.Kind == index.Manifest {
		p.done.Pulls++
	}
	return nil
}

// PurgeRepository forgets everything of a repository.
func (k *Keeper) PurgeRepository(ctx context.Context, repo Repo, o PurgeOptions) (Purged, error) {
	p := purge{PurgeOptions: o, k: k, by: event.Actor(ctx)}
	err := p.repository(ctx, repo)
	return p.end("repository purged", repo, "", err)
}

func (p *purge) repository(ctx context.Context, repo Repo) error {
	var refs []store.Link
	for _, kind := range []index.Kind{index.Manifest, index.Blob} {
		err := p.k.Store.Index.Links(repo, kind, func(d v1.Hash, _ index.Link) error {
			refs = append(refs, store.Link{Kind: kind, Digest: d})
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	var tags []string
	err := p.k.Store.Index.Tags(repo, func(tag string, _ index.Tag) error {
		tags = append(tags, tag)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if len(refs) == 0 && len(tags) == 0 {
		return fmt.Errorf("%s: %w", repo, store.ErrNotKept)
	}
	if err := p.allowed(repo, refs); err != nil {
		return err
	}
	for _, tag := range tags {
		if !p.Force && p.k.Images.Pins.HasTag(repo, tag) {
			return fmt.Errorf("%s:%s %w: unpin it first, or force it", repo, tag, ErrPinned)
		}
	}
	for _, tag := range tags {
		if err := p.tag(repo, tag); err != nil {
			return err
		}
	}
	if err := p.unlink(ctx, repo, refs); err != nil || p.DryRun {
		return err
	}
	err = p.k.Store.DropRepo(ctx, repo) // lists, and what came meanwhile
	p.k.Cache.ForgetTags()
	return err
}

// PurgeDigest removes one blob or manifest, whoever holds it, and the right of all
// repositories to it. Tags that point to it stay, and fetch it anew.
func (k *Keeper) PurgeDigest(ctx context.Context, d v1.Hash, o PurgeOptions) (Purged, error) {
	p := purge{PurgeOptions: o, k: k, by: event.Actor(ctx)}
	type holder struct {
		repo Repo
		kind index.Kind
	}
	var holders []holder
	err := k.Store.Index.Holders(d, func(r index.Repo, k index.Kind) error {
		holders = append(holders, holder{r, k})
		return ctx.Err()
	})
	if err != nil {
		return p.done, err
	}
	partials, err := k.Store.Disk.Partials()
	if err != nil {
		return p.done, err
	}
	if _, kept := k.Store.Size(d); len(holders) == 0 && !kept && !partials[d] && k.Cache.Fills().Of(d) == nil {
		return p.done, fmt.Errorf("%s: %w", d, store.ErrNotKept)
	}
	if !o.Force && k.Images.Pins.Pinned(d) {
		return p.done, fmt.Errorf("%s %w: unpin it first, or force it", d, ErrPinned)
	}
	if o.DryRun {
		size, _ := k.Store.DiskSize(d)
		return Purged{Links: len(holders), Blobs: 1, Bytes: size}, nil
	}
	for _, h := range holders {
		if err := p.unlink(ctx, h.repo, []store.Link{{Kind: h.kind, Digest: d}}); err != nil {
			return p.done, err
		}
		k.Cache.ForgetFailures(h.repo)
		k.Cache.ForgetWrong(h.repo, d)
	}
	if len(holders) == 0 {
		err = p.release(Repo{}, store.Link{Digest: d})
	} else if p.done.Blobs > 0 {
		p.done.Shared = 0 // it was shared only until its last link went
	}
	err = errors.Join(err, k.Store.Index.Sync())
	if k.Store.Bucket != nil {
		err = errors.Join(err, k.Store.Bucket.Remove(ctx, d))
	}
	k.log.Info("digest purged", logkey.Digest(d), logkey.Bytes(p.done.Bytes), logkey.Err(err))
	p.tell(Repo{}, d.String(), d)
	return p.done, err
}

// end makes what was done durable, and tells of it.
func (p *purge) end(event string, repo Repo, ref string, err error) (Purged, error) {
	if p.DryRun {
		return p.done, err
	}
	p.k.Cache.ForgetFailures(repo)
	err = errors.Join(err, p.k.Store.Index.Sync())
	p.k.log.Info(event, logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Reference(ref),
		logkey.Count(p.done.Blobs), logkey.Bytes(p.done.Bytes), logkey.Err(err))
	p.tell(repo, ref, v1.Hash{})
	return p.done, err
}

// tell makes an event of a purge that removed something.
func (p *purge) tell(repo Repo, ref string, d v1.Hash) {
	if p.done.Tags+p.done.Links+p.done.Blobs == 0 {
		return
	}
	e := event.Of(event.Purged, repo, d)
	e.Count, e.Bytes, e.Detail, e.Actor = int64(p.done.Blobs), p.done.Bytes, ref, p.by
	p.k.Store.Tell(e)
}

// namedElsewhere returns which digests of a tree the rest of the repository leads to: its
// other tags, and the manifests that are not of the tree.
func (k *Keeper) namedElsewhere(ctx context.Context, repo Repo, tag string, tree map[store.Link]bool) (map[v1.Hash]bool, error) {
	named := map[v1.Hash]bool{}
	err := k.Store.Index.Tags(repo, func(name string, t index.Tag) error {
		if name != tag && tree[store.Link{Kind: index.Manifest, Digest: t.Desc.Digest}] {
			for ref := range k.Images.Tree(repo, t.Desc.Digest) {
				named[ref.Digest] = true
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	var rest []v1.Hash
	err = k.Store.Index.Links(repo, index.Manifest, func(d v1.Hash, _ index.Link) error {
		if !tree[store.Link{Kind: index.Manifest, Digest: d}] {
			rest = append(rest, d)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	for _, d := range rest {
		doc, ok := k.Store.Document(repo, d)
		if !ok {
			continue
		}
		for _, part := range doc.Blobs() {
			named[part.Digest] = true
		}
		for _, child := range doc.Manifests {
			h, ok := child.Hash()
			if !ok || named[h] {
				continue
			}
			for ref := range k.Images.Tree(repo, h) {
				named[ref.Digest] = true
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return named, nil
}
