package image

import (
	"encoding/json"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/index"
	"forebay/internal/manifest"
	"forebay/internal/wire"
)

// Completeness says whether an image of one platform can be served without its upstream.
type Completeness string

// Complete: all of it is kept. Incomplete: it was pulled, and some of it is not here, since
// clients leave out layers that they have, or since it was evicted. Absent: nobody has
// pulled it through here.
const (
	Complete   Completeness = "complete"
	Incomplete Completeness = "incomplete"
	Absent     Completeness = "absent"
)

// Image is what is kept of a tag, or of a manifest that no tag names.
type Image struct {
	Upstream   string
	Repository string // canonical, without the upstream
	Tag        string
	Digest     v1.Hash
	MediaType  string

	CheckedAt time.Time // when the upstream last confirmed the tag
	ChangedAt time.Time // when the tag was first seen to point here
	UsedAt    time.Time // last pull through here, to the minute

	// State is Complete when every platform that was pulled can be served.
	State Completeness
	// KeptBytes and MissingBytes count the platforms that were pulled, each thing once.
	KeptBytes    int64
	MissingBytes int64
	// MissingMore is whether what is missing is of unknown size, beside MissingBytes.
	MissingMore bool
	Pinned      bool

	Platforms []ImagePlatform
}

// Name returns "docker.io/library/nginx:1.27", or with its digest when it has no tag.
func (i *Image) Name() string {
	return Name(Repo{Upstream: i.Upstream, Name: i.Repository}, i.Tag, i.Digest)
}

// ImagePlatform is one image of an index, or the only one.
type ImagePlatform struct {
	Platform string  // "linux/arm64", "attestation", "" while not known
	Digest   v1.Hash // of its manifest
	State    Completeness
	// Size is the sum of manifest, configuration and layers in bytes; -1 until the manifest is kept.
	Size         int64
	MissingBytes int64
	Parts        []Part // with details only: all of it in order
	UsedAt       time.Time
}

// image tells what is kept of the manifest d. It reads kept manifests and asks nobody.
func (i *Images) image(repo Repo, tag string, d v1.Hash, details bool) Image {
	w := summing{images: i, repo: repo, details: details, seen: map[v1.Hash]bool{}}
	w.image = Image{
		Upstream: repo.Upstream, Repository: repo.Name, Tag: tag, Digest: d,
		Pinned: i.Pins.Pinned(d), Platforms: []ImagePlatform{},
	}
	link, linked, err := i.store.Index.Link(repo, index.Manifest, d)
	if linked && err == nil {
		w.image.MediaType = link.MediaType
	}
	// An index may name an image for two platforms: it is told of twice, and counted once.
	_ = manifest.Walk{Manifest: w.manifest, Repeats: true}.Run(manifest.Descriptor{Digest: d.String(), Size: link.Size})
	w.image.State = w.state()
	return w.image
}

// Of tells what is kept of the image d, or of the tag that names it.
func (i *Images) Of(repo Repo, tag string, d v1.Hash) Image { return i.image(repo, tag, d, false) }

// summing gathers an image from its manifests.
type summing struct {
	images  *Images
	repo    Repo
	details bool
	seen    map[v1.Hash]bool // counted already: images share layers
	image   Image
}

// manifest takes in a manifest or index. Of an index it returns the document, for its children.
func (w *summing) manifest(n manifest.Node) (*manifest.Document, error) {
	state, size := w.images.StateOf(w.repo, index.Manifest, n.Digest, n.Size)
	used := w.used(n.Digest)
	part := Part{Digest: wire.Digest{Hash: n.Digest}, Role: "manifest", MediaType: n.MediaType, Size: size, State: state}
	if part.MediaType == "" {
		part.MediaType = w.image.MediaType
	}
	doc, known := w.images.store.Document(w.repo, n.Digest)
	if known && doc.IsIndex() {
		w.count(part)
		return doc, nil
	}
	p := ImagePlatform{Platform: n.Name(), Digest: n.Digest, Size: -1, UsedAt: used}
	switch {
	case !w.images.store.Linked(w.repo, index.Manifest, n.Digest): // nobody has pulled it from here, though its bytes may be kept for others
		known = false
		p.State = Absent
	case known:
		p.add(w, part)
		for _, b := range doc.Blobs() {
			p.add(w, w.images.part(w.repo, b))
		}
		p.State = Complete
		if p.missing() {
			p.State = Incomplete
		}
		if p.Platform == "" && doc.Config != nil {
			p.Platform = w.images.configPlatform(*doc.Config)
		}
	default:
		p.State = Incomplete
		p.add(w, part)
		w.image.MissingMore = true
	}
	p.finish(known, w.details)
	w.image.Platforms = append(w.image.Platforms, p)
	return nil, nil
}

// used notes the last use of a manifest.
func (w *summing) used(d v1.Hash) time.Time {
	at, ok, err := w.images.store.Index.Used(d)
	if !ok || err != nil {
		// It was not used since it came, and that was for somebody.
		arrived, _, _ := w.images.store.Index.Blob(d)
		at = arrived.Added
	}
	if at.After(w.image.UsedAt) {
		w.image.UsedAt = at
	}
	return at
}

// count adds a part to the sums of the image, once.
func (w *summing) count(p Part) {
	if w.seen[p.Digest.Hash] {
		return
	}
	w.seen[p.Digest.Hash] = true
	if p.State == Present {
		w.image.KeptBytes += p.Size
		return
	}
	if p.State == Missing {
		w.image.MissingBytes += max(p.Size, 0)
		w.image.MissingMore = w.image.MissingMore || p.Size < 0
	}
}

// state sums up the platforms.
func (w *summing) state() Completeness {
	sum := Absent
	for _, p := range w.image.Platforms {
		switch {
		case p.State == Incomplete:
			return Incomplete
		case p.State == Complete && p.Platform != manifest.Attestation:
			sum = Complete
		}
	}
	return sum
}

// add takes a part in.
func (p *ImagePlatform) add(w *summing, part Part) {
	w.count(part)
	p.Parts = append(p.Parts, part)
}

// missing reports whether a part cannot be served.
func (p *ImagePlatform) missing() bool {
	return slices.ContainsFunc(p.Parts, func(part Part) bool { return part.State != Present })
}

// finish adds up the parts, which are all of it if the manifest is known, and drops them
// unless details are asked for.
func (p *ImagePlatform) finish(known, details bool) {
	seen := map[v1.Hash]bool{}
	p.Size = 0
	for _, part := range p.Parts {
		if seen[part.Digest.Hash] {
			continue
		}
		seen[part.Digest.Hash] = true
		p.Size += max(part.Size, 0)
		if part.State == Missing {
			p.MissingBytes += max(part.Size, 0)
		}
	}
	if !known {
		p.Size = -1
	}
	if !details {
		p.Parts = nil
	}
}

// configMax bounds an image's configuration that is read for its platform. The largest
// known have some 100 KB.
const configMax = 1 << 20

// configPlatform reads the platform of an image without an index from its configuration,
// if that is kept.
func (i *Images) configPlatform(desc manifest.Descriptor) string {
	d, ok := desc.Hash()
	if !ok || desc.Size > configMax {
		return ""
	}
	switch types.MediaType(desc.MediaType) {
	case types.DockerConfigJSON, types.OCIConfigJSON:
	default:
		return "" // an artifact's
	}
	b, err := i.store.Read(d, configMax)
	if err != nil {
		return ""
	}
	var p *manifest.Platform
	if json.Unmarshal(b, &p) != nil {
		return ""
	}
	return p.String()
}
