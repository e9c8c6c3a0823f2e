package cache

import (
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/wire"
)

// contentDoc is what a manifest or an index refers to.
type contentDoc struct {
	MediaType string       `json:"mediaType"`
	Config    *descriptor  `json:"config"`
	Layers    []descriptor `json:"layers"`
	Manifests []descriptor `json:"manifests"`
	Subject   *descriptor  `json:"subject"`
	// FSLayers are the layers of Docker's first schema, which have no size.
	FSLayers []struct {
		BlobSum string `json:"blobSum"`
	} `json:"fsLayers"`
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	URLs        []string          `json:"urls"`
	Platform    *platform         `json:"platform"`
	Annotations map[string]string `json:"annotations"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

// attestation is what BuildKit's provenance manifests are shown as: their platform is unknown/unknown.
const attestation = "attestation"

// String returns the platform as people write it, with characters that have no place
// there replaced: it comes from an image.
func (p *platform) String() string {
	if p == nil || p.OS == "" && p.Architecture == "" {
		return ""
	}
	name := p.OS + "/" + p.Architecture
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

// name is what the child of an index is called.
func (d descriptor) name() string {
	if d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
		return attestation
	}
	return d.Platform.String()
}

// digest returns the digest, false for one that cannot be.
func (d descriptor) digest() (v1.Hash, bool) {
	h, err := wire.ParseDigest(d.Digest)
	return h, err == nil
}

// isIndex reports whether the document lists manifests.
func (m *contentDoc) isIndex() bool { return m.Manifests != nil }

// blobs returns config and layers, those left out that are fetched from elsewhere.
func (m *contentDoc) blobs() []Part {
	var all []Part
	add := func(role string, d descriptor) {
		h, ok := d.digest()
		if !ok || len(d.URLs) > 0 {
			return
		}
		all = append(all, Part{Digest: h, Role: role, MediaType: d.MediaType, Size: d.Size})
	}
	if m.Config != nil {
		add("config", *m.Config)
	}
	for _, l := range m.Layers {
		add("layer", l)
	}
	for _, l := range m.FSLayers {
		add("layer", descriptor{Digest: l.BlobSum, Size: -1})
	}
	return all
}

// doc reads what a kept manifest refers to. It counts as no use. known is false when the
// manifest is not kept, or is no document.
func (c *Cache) doc(repo Repo, d v1.Hash) (m *contentDoc, known bool) {
	var b []byte
	if hot, ok := c.hot.Peek(hotKey(repo, d)); ok {
		b = hot.Bytes
	} else {
		var err error
		if b, err = c.readKept(d, manifestMax); err != nil {
			return nil, false
		}
	}
	return parseDoc(b)
}

func parseDoc(b []byte) (m *contentDoc, ok bool) {
	m = &contentDoc{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, false
	}
	return m, true
}

// State says whether content can be served without its upstream.
type State string

// The states of content.
const (
	Present  State = "kept"
	Unlinked State = "unlinked" // its bytes are here, but this repository has yet to prove that it holds them
	Missing  State = "missing"
)

// Part is one thing that an image is made of.
type Part struct {
	Digest    v1.Hash `json:"digest"`
	Role      string  `json:"role"` // manifest, config or layer
	MediaType string  `json:"media_type,omitempty"`
	Size      int64   `json:"size"` // bytes, as the image says; -1 when it does not
	State     State   `json:"state"`
}

// stateOf looks where content stands, and what its size is if the image did not say.
func (c *Cache) stateOf(repo Repo, k index.Kind, d v1.Hash, size int64) (State, int64) {
	kept, ok := c.storedSize(d)
	switch {
	case !ok:
		return Missing, size
	case !c.linked(repo, k, d):
		return Unlinked, kept
	default:
		return Present, kept
	}
}

// refString is how a tag or digest of a repository is written.
func refString(repo Repo, tag string, d v1.Hash) string {
	if tag != "" {
		return fmt.Sprintf("%s:%s", repo, tag)
	}
	return fmt.Sprintf("%s@%s", repo, d)
}
