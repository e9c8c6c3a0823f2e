package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
)

// Contents is all that belongs to an image, as far as it is known without asking anybody.
type Contents struct {
	Ref       string    `json:"ref"`
	Tag       string    `json:"tag,omitempty"`
	Digest    v1.Hash   `json:"digest"`
	MediaType string    `json:"media_type"`
	Size      int64     `json:"size"`                // of the manifest itself
	Platforms []string  `json:"platforms,omitempty"` // of an index: those that Parts are of
	Left      []string  `json:"left,omitempty"`      // of an index: those that were not asked for
	Parts     []Part    `json:"parts"`               // each thing once, manifests before what they lead to
	Referrers []Referer `json:"referrers,omitempty"` // whose Parts are among those above
}

// Referer is a signature or another manifest that refers to an image.
type Referer struct {
	Tag       string  `json:"tag,omitempty"` // the name that stands for a list of referrers, if it was found by one
	Digest    v1.Hash `json:"digest"`
	MediaType string  `json:"media_type"`
	Size      int64   `json:"size"`
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

// Contents lists what belongs to an image: to a tag, or to a digest if the tag is empty.
// Without platforms those of an index count that somebody pulled; with referrers
// signatures and the like do, too. The error is [ErrNotKept] when the tag or the manifest
// is not known, and [ErrQuery] for platforms that it does not have.
func (c *Cache) Contents(ctx context.Context, repo Repo, tag string, d v1.Hash, platforms []string, referrers bool) (*Contents, error) {
	if err := checkPlatforms(platforms); err != nil {
		return nil, err
	}
	if _, err := c.origin(repo); err != nil {
		return nil, err
	}
	if tag != "" {
		t, ok, err := c.index.Tag(repo, tag)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%s: %w", refString(repo, tag, d), ErrNotKept)
		}
		d = t.Desc.Digest
	}
	if !c.linked(repo, index.Manifest, d) {
		return nil, fmt.Errorf("%s: %w", refString(repo, tag, d), ErrNotKept)
	}
	w := contentsWalk{c: c, ctx: ctx, repo: repo, platforms: platforms, referrers: referrers, seen: map[v1.Hash]bool{}}
	w.out = Contents{Ref: refString(repo, tag, d), Tag: tag, Digest: d, Parts: []Part{}}
	if err := w.manifest(descriptor{Digest: d.String(), Size: -1}, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", w.out.Ref, err)
	}
	w.out.MediaType, w.out.Size = w.out.Parts[0].MediaType, w.out.Parts[0].Size
	return &w.out, ctx.Err()
}

// contentsWalk gathers what belongs to an image.
type contentsWalk struct {
	c         *Cache
	ctx       context.Context // of the one call
	repo      Repo
	platforms []string
	referrers bool
	seen      map[v1.Hash]bool
	out       Contents
}

func (w *contentsWalk) manifest(desc descriptor, depth int) error {
	d, ok := desc.digest()
	if !ok || w.seen[d] || depth > imageDepth {
		return nil
	}
	w.seen[d] = true
	if err := w.ctx.Err(); err != nil {
		return err
	}
	state, size := w.c.stateOf(w.repo, index.Manifest, d, desc.Size)
	w.out.Parts = append(w.out.Parts, Part{
		Digest: d, Role: "manifest", MediaType: w.mediaType(desc, d), Size: size, State: state,
	})
	if state != Present {
		return nil // what it leads to is for who holds it
	}
	doc, known := w.c.doc(w.repo, d)
	if !known {
		return fmt.Errorf("manifest %s cannot be read: see forebay verify --repair", d)
	}
	if depth == 0 {
		if err := doc.has(w.platforms); err != nil {
			return err
		}
	}
	for _, b := range doc.blobs() {
		if w.seen[b.Digest] {
			continue
		}
		w.seen[b.Digest] = true
		b.State, b.Size = w.c.stateOf(w.repo, index.Blob, b.Digest, b.Size)
		w.out.Parts = append(w.out.Parts, b)
	}
	if err := w.children(doc, depth); err != nil {
		return err
	}
	return w.refer(d, depth)
}

// children goes on to those platforms of an index that are wanted.
func (w *contentsWalk) children(doc *contentDoc, depth int) error {
	wants := measuring{g: &gathering{c: w.c}, repo: w.repo, platforms: w.platforms}
	taken := map[string]bool{} // digests
	for _, child := range doc.Manifests {
		name := child.name()
		wanted := wants.wants(child)
		if name == attestation && len(w.platforms) > 0 {
			// BuildKit lists it behind the manifest that it is about.
			wanted = w.referrers && taken[child.Annotations["vnd.docker.reference.digest"]]
		}
		if name != "" && name != attestation {
			if wanted {
				w.out.Platforms = append(w.out.Platforms, name)
			} else {
				w.out.Left = append(w.out.Left, name)
			}
		}
		if !wanted {
			continue
		}
		taken[child.Digest] = true
		if err := w.manifest(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// refer goes on to the known referrers of a manifest.
func (w *contentsWalk) refer(d v1.Hash, depth int) error {
	if !w.referrers {
		return nil
	}
	known, err := w.c.namedReferrers(w.repo, d)
	if err != nil {
		return err
	}
	for _, r := range known {
		if w.seen[r.Digest] && r.Tag == "" {
			continue
		}
		w.out.Referrers = append(w.out.Referrers, r)
		if err := w.manifest(descriptor{Digest: r.Digest.String(), Size: r.Size, MediaType: r.MediaType}, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// mediaType returns the media type of a manifest: as its link says, or its descriptor.
func (w *contentsWalk) mediaType(desc descriptor, d v1.Hash) string {
	if link, ok, err := w.c.index.Link(w.repo, index.Manifest, d); ok && err == nil && link.MediaType != "" {
		return link.MediaType
	}
	return desc.MediaType
}

// namedReferrers returns the referrers of a manifest that are known here, each with the
// tag by which it is found, if it is by one.
func (c *Cache) namedReferrers(repo Repo, d v1.Hash) ([]Referer, error) {
	var all []Referer
	text, _, ok, err := c.index.Doc(repo, index.ReferrerList, d.String())
	if err != nil {
		return nil, err
	}
	var list []descriptor
	if ok && json.Unmarshal(text, &list) == nil {
		for _, desc := range list {
			if h, ok := desc.digest(); ok && c.linked(repo, index.Manifest, h) {
				all = append(all, Referer{Digest: h, MediaType: desc.MediaType, Size: desc.Size})
			}
		}
	}
	base := d.Algorithm + "-" + d.Hex
	for _, suffix := range referrerSuffixes() {
		t, ok, err := c.index.Tag(repo, base+suffix)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, Referer{Tag: base + suffix, Digest: t.Desc.Digest, MediaType: string(t.Desc.MediaType), Size: t.Desc.Size})
		}
	}
	return all, nil
}

// referrerSuffixes are what follows "sha256-HEX" in tags that stand for referrers: none is
// of OCI distribution 1.1 ("Referrers tag schema"), the others are cosign's.
func referrerSuffixes() []string { return []string{"", ".sig", ".att", ".sbom"} }

// Stored is content that is kept.
type Stored struct {
	Digest v1.Hash `json:"digest"`
	Size   int64   `json:"size"`
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
func (c *Cache) StoredAfter(after v1.Hash, n int) (*StoredPage, error) {
	if n == 0 {
		n = storedMost
	}
	if n < 0 || n > storedMost {
		return nil, fmt.Errorf("%w: %d digests at once: use 1 to %d", ErrQuery, n, storedMost)
	}
	rows, err := c.index.BlobsAfter(after, n)
	if err != nil {
		return nil, err
	}
	page := &StoredPage{Blobs: []Stored{}}
	for _, row := range rows {
		if size, ok := c.keptSize(row.Digest); ok {
			page.Blobs = append(page.Blobs, Stored{row.Digest, size})
		}
	}
	if len(rows) == n {
		page.Next = rows[n-1].Digest.String()
	}
	slices.SortFunc(page.Blobs, func(a, b Stored) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return page, nil
}
