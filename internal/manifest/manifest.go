// Package manifest reads what an image is made of: manifests and indexes of Docker and OCI.
//
// It promises to read whatever clients can use, of every age and family, and never to
// follow what an image says without a bound. Nothing of it is trusted: a digest that cannot
// be one is passed over, a name is for people, and a document that two clients could take for two
// different things has no type ([TypeOf]).
package manifest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/wire"
)

// MaxBytes bounds a manifest: every registry caps them at 4 MiB, as distribution and Docker
// Hub do.
const MaxBytes = 4 << 20

// Document is what a manifest or an index refers to.
type Document struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *Descriptor       `json:"config"`
	Layers       []Descriptor      `json:"layers"`
	Artifact     []Descriptor      `json:"blobs"` // of manifests for artifacts, before they became OCI's images
	Manifests    []Descriptor      `json:"manifests"`
	Subject      *Descriptor       `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
	// FSLayers are the layers of Docker's first schema, which have no size.
	FSLayers []struct {
		BlobSum string `json:"blobSum"`
	} `json:"fsLayers"`
}

// byteOrderMark is put before UTF-8 by some tools.
const byteOrderMark = "\xef\xbb\xbf"

// Descriptor is how a document names content.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"` // of a referrer
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls"`
	Platform     *Platform         `json:"platform"`
	Annotations  map[string]string `json:"annotations"`
}

// Platform is what an image of an index, or a configuration, is for.
type Platform struct {
	OS           string   `json:"os"`
	Architecture string   `json:"architecture"`
	Variant      string   `json:"variant"`
	OSVersion    string   `json:"os.version"`  // of Windows, whose images run on few versions
	OSFeatures   []string `json:"os.features"` // that it needs
}

// Parse reads a document. ok is false for what is none.
func Parse(b []byte) (m *Document, ok bool) {
	m = &Document{}
	if err := json.Unmarshal(bytes.TrimPrefix(b, []byte(byteOrderMark)), m); err != nil {
		return nil, false
	}
	return m, true
}

// Describe returns the descriptor of v in the form in which a document has it.
func Describe(d v1.Descriptor) Descriptor {
	return Descriptor{MediaType: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size}
}

// Hash returns the digest, false for one that cannot be.
func (d Descriptor) Hash() (v1.Hash, bool) {
	h, err := wire.ParseDigest(d.Digest)
	return h, err == nil
}

// Attestation is the name of what BuildKit's provenance manifests are for: their platform
// is unknown/unknown.
const Attestation = "attestation"

// Name is what the child of an index is called: its platform, [Attestation], or "".
func (d Descriptor) Name() string {
	if d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
		return Attestation
	}
	return d.Platform.String()
}

// Attests returns the digest of the manifest that an attestation of the same index is about.
func (d Descriptor) Attests() string { return d.Annotations["vnd.docker.reference.digest"] }

// String returns the platform as people write it, with characters that have no place
// there replaced: it comes from an image.
func (p *Platform) String() string {
	if p == nil || p.OS == "" && p.Architecture == "" {
		return ""
	}
	name := p.OS
	if p.OSVersion != "" {
		name += "(" + p.OSVersion + ")"
	}
	name += "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && r != ',' {
			return r
		}
		return '?'
	}, name[:min(len(name), 96)])
}

// IsIndex reports whether the document lists manifests, or says that it would.
func (m *Document) IsIndex() bool { return m.Manifests != nil || IsIndexType(m.MediaType) }

// Names reports whether the document, an index, names a manifest.
func (m *Document) Names(d v1.Hash) bool {
	text := d.String()
	return slices.ContainsFunc(m.Manifests, func(c Descriptor) bool { return c.Digest == text })
}

// Runs reports whether some client would run what the document describes. None does with a configuration of a
// type of its own (moby takes the last four for an image's), and none unpacks signatures, attestations and
// lists of parts, which cosign stores as if they were layers of an image.
func (m *Document) Runs() bool {
	if m.Config != nil && !slices.Contains([]types.MediaType{types.OCIConfigJSON, types.DockerConfigJSON, "application/octet-stream", "application/json", "text/html", ""}, types.MediaType(m.Config.MediaType)) {
		return false
	}
	return m.IsIndex() || len(m.FSLayers) > 0 || slices.ContainsFunc(m.Layers, func(l Descriptor) bool {
		return !slices.ContainsFunc([]string{"cosign", "dsse", "in-toto", "sigstore", "spdx", "cyclonedx", "syft"}, func(kind string) bool { return strings.Contains(l.MediaType, kind) })
	})
}

// Blob is a configuration or a layer.
type Blob struct {
	Digest    v1.Hash
	Role      string // config or layer
	MediaType string
	Size      int64 // bytes, as the manifest says; -1 when it does not
	// URLs are where clients may have it from, of a foreign layer: the base of Windows, which
	// few registries hold. Its registry may have it all the same.
	URLs []string
}

// Blobs returns configuration and layers.
func (m *Document) Blobs() []Blob {
	var all []Blob
	add := func(role string, d Descriptor) {
		if h, ok := d.Hash(); ok {
			all = append(all, Blob{Digest: h, Role: role, MediaType: d.MediaType, Size: d.Size, URLs: d.URLs})
		}
	}
	if m.Config != nil {
		add("config", *m.Config)
	}
	for _, l := range m.Layers {
		add("layer", l)
	}
	for _, l := range m.Artifact {
		add("layer", l)
	}
	for _, l := range m.FSLayers {
		add("layer", Descriptor{Digest: l.BlobSum, Size: -1})
	}
	return all
}

// Invalid returns what the document has in the place of digests that are none.
func (m *Document) Invalid() (all []string) {
	named := slices.Concat(m.Layers, m.Artifact)
	if m.Config != nil {
		named = append([]Descriptor{*m.Config}, named...)
	}
	for _, l := range m.FSLayers {
		named = append(named, Descriptor{Digest: l.BlobSum})
	}
	for _, d := range append(named, m.Manifests...) {
		if _, ok := d.Hash(); !ok {
			all = append(all, d.Digest)
		}
	}
	return all
}

// Refs returns what the document refers to, its children before all.
func (m *Document) Refs() (refs []v1.Hash) {
	for _, child := range m.Manifests {
		if d, ok := child.Hash(); ok {
			refs = append(refs, d)
		}
	}
	for _, b := range m.Blobs() {
		refs = append(refs, b.Digest)
	}
	return refs
}

// IsIndexType reports whether a media type is that of an index. What the document says of
// itself, [Document.IsIndex], goes before.
func IsIndexType(mediaType string) bool { return types.MediaType(mediaType).IsIndex() }
