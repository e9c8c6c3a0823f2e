package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/manifest"
	"forebay/internal/wire"
)

// Contents is all that belongs to an image, as far as it is known without asking anybody.
type Contents struct {
	Ref       string
	Tag       string
	Digest    v1.Hash
	MediaType string
	Size      int64      // of the manifest itself
	Confirmed time.Time  // when the registry said last that the tag points to it; zero without a tag
	Platforms []string   // of an index: those that Parts are of
	Omitted   []string   // of an index: those that were not asked for
	Parts     []Part     // each thing once, manifests before what they lead to
	Referrers []Referrer // whose Parts are among those above
}

// Missing returns what of an image is not here, and how many bytes that is as far as it
// is known.
func (c *Contents) Missing() (parts []Part, bytes int64) {
	for _, p := range c.Parts {
		if p.State != Present {
			parts = append(parts, p)
			bytes += max(p.Size, 0)
		}
	}
	return parts, bytes
}

// Contents lists what belongs to an image: to a tag, or to a digest, which may stand for a tag.
// Without platforms those of an index count that somebody pulled; with referrers
// signatures and the like do, too. The error is [store.ErrNotKept] when the tag or the manifest
// is not known, and [store.ErrQuery] for platforms that it does not have.
func (i *Images) Contents(ctx context.Context, repo Repo, tag string, d v1.Hash, platforms []string, referrers bool) (*Contents, error) {
	if err := CheckPlatforms(platforms); err != nil {
		return nil, err
	}
	if err := i.check(repo); err != nil {
		return nil, err
	}
	var confirmed time.Time
	if tag != "" {
		t, ok, err := i.store.Index.Tag(repo, tag)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%s: %w", Name(repo, tag, d), store.ErrNotKept)
		}
		if confirmed = t.CheckedAt; d == (v1.Hash{}) {
			d = t.Desc.Digest
		}
	}
	if !i.store.Linked(repo, index.Manifest, d) {
		return nil, fmt.Errorf("%s: %w", Name(repo, tag, d), store.ErrNotKept)
	}
	w := listing{images: i, ctx: ctx, repo: repo, platforms: platforms, referrers: referrers, taken: map[string]bool{}, seen: map[v1.Hash]bool{}}
	w.out = Contents{Ref: Name(repo, tag, d), Tag: tag, Digest: d, Confirmed: confirmed, Parts: []Part{}}
	walk := manifest.Walk{Manifest: w.manifest, Blob: w.blob, Platforms: platforms, Child: w.child}
	if referrers {
		walk.Referrers = w.refer
	}
	if err := walk.Run(manifest.Descriptor{Digest: d.String(), Size: -1}); err != nil {
		return nil, fmt.Errorf("%s: %w", w.out.Ref, err)
	}
	w.out.MediaType, w.out.Size = w.out.Parts[0].MediaType, w.out.Parts[0].Size
	return &w.out, ctx.Err()
}

// listing gathers what belongs to an image.
type listing struct {
	images    *Images
	ctx       context.Context // of the one call
	repo      Repo
	platforms []string
	referrers bool
	taken     map[string]bool  // digests of children that belong to it
	seen      map[v1.Hash]bool // manifests
	out       Contents
}

// ErrUnreadable means that a kept manifest is no manifest, or cannot be read.
var ErrUnreadable = errors.New("cannot be read")

func (w *listing) manifest(n manifest.Node) (*manifest.Document, error) {
	if err := w.ctx.Err(); err != nil {
		return nil, err
	}
	w.seen[n.Digest] = true
	state, size := w.images.StateOf(w.repo, index.Manifest, n.Digest, n.Size)
	w.out.Parts = append(w.out.Parts, Part{Digest: wire.Digest{Hash: n.Digest}, Role: "manifest", MediaType: w.mediaType(n), Size: size, State: state})
	if state != Present {
		return nil, nil // what it leads to is for who holds it
	}
	doc, known := w.images.store.Document(w.repo, n.Digest)
	if !known {
		return nil, fmt.Errorf("manifest %s %w", n.Digest, ErrUnreadable)
	}
	if n.Depth == 0 {
		if err := doc.Has(w.platforms); err != nil {
			return nil, fmt.Errorf("%w: %w", store.ErrQuery, err)
		}
	}
	return doc, nil
}

func (w *listing) blob(_ manifest.Node, b manifest.Blob) error {
	p := w.images.part(w.repo, b)
	if p.State != Present {
		w.images.store.AwaitKept(w.ctx, p.Digest.Hash) // who has pulled an image may ask for it at once
		p = w.images.part(w.repo, b)
	}
	w.out.Parts = append(w.out.Parts, p)
	return nil
}

// child notes and chooses the platforms of an index.
func (w *listing) child(child manifest.Descriptor, wanted bool) (bool, error) {
	name := child.Name()
	wanted = w.images.Wants(w.repo, w.platforms, child, wanted)
	if name == manifest.Attestation && len(w.platforms) > 0 {
		wanted = w.referrers && w.taken[child.Attests()]
	}
	if name != "" && name != manifest.Attestation {
		if wanted {
			w.out.Platforms = append(w.out.Platforms, name)
		} else {
			w.out.Omitted = append(w.out.Omitted, name)
		}
	}
	w.taken[child.Digest] = w.taken[child.Digest] || wanted
	return wanted, nil
}

// refer notes the known referrers of a manifest.
func (w *listing) refer(n manifest.Node) (all []manifest.Descriptor, err error) {
	known, err := w.images.referrers(w.repo, n.Digest)
	for _, r := range known {
		if w.seen[r.Digest.Hash] && r.Tag == "" {
			continue
		}
		w.out.Referrers = append(w.out.Referrers, r)
		all = append(all, r.descriptor())
	}
	return all, err
}

// mediaType returns the media type of a manifest: as its link says, or its descriptor.
func (w *listing) mediaType(n manifest.Node) string {
	if link, ok := w.images.store.LinkOf(w.repo, index.Manifest, n.Digest); ok && link.MediaType != "" {
		return link.MediaType
	}
	return n.MediaType
}

// Stored is content that is kept.
type Stored struct {
	Digest wire.Digest `json:"digest"`
	Size   int64       `json:"size"`
}

// StoredPage is a part of what is kept.
type StoredPage struct {
	Blobs []Stored `json:"blobs"`
	Next  string   `json:"next,omitempty"` // digest to go on after; empty at the end
}

// storedMost bounds one page of what is kept.
const storedMost = 5000

// StoredAfter lists content that is kept, sorted by digest, after the given one; the zero
// digest begins at the start. n is from 1 to 5000; 0 means 5000.
func (i *Images) StoredAfter(after v1.Hash, n int) (*StoredPage, error) {
	if n == 0 {
		n = storedMost
	}
	if n < 0 || n > storedMost {
		return nil, fmt.Errorf("%w: %d digests at once: use 1 to %d", store.ErrQuery, n, storedMost)
	}
	rows, err := i.store.Index.BlobsAfter(after, n)
	if err != nil {
		return nil, err
	}
	page := &StoredPage{Blobs: []Stored{}}
	for _, row := range rows {
		if size, ok := i.store.DiskSize(row.Digest); ok {
			page.Blobs = append(page.Blobs, Stored{wire.Digest{Hash: row.Digest}, size})
		}
	}
	if len(rows) == n {
		page.Next = rows[n-1].Digest.String()
	}
	slices.SortFunc(page.Blobs, func(a, b Stored) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return page, nil
}
