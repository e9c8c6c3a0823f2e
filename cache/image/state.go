// Package image tells what kept images are made of, whether they are whole, and which of
// them are to stay.
//
// It promises to ask nobody and to change nothing but pins: whatever it tells is of what is
// kept. How much of it one answer looks at has a bound.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/manifest"
	"forebay/internal/wire"
)

// Repo names a repository of an upstream.
type Repo = store.Repo

// Images knows the images that are kept. Its methods may be called concurrently.
type Images struct {
	Pins  *Pins
	store *store.Store
	check func(Repo) error // nil for a repository of an upstream that is configured
}

// New returns the images of a store. Tags that match one of patterns, as in
// "docker.io/library/nginx:1.*", are pinned. check returns why a repository cannot be asked for.
func New(s *store.Store, patterns []string, check func(Repo) error) (*Images, error) {
	i := &Images{store: s, check: check}
	compiled, err := compilePins(patterns)
	if err != nil {
		return nil, err
	}
	i.Pins = &Pins{images: i, store: s, patterns: compiled}
	return i, nil
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
	Digest    wire.Digest `json:"digest"`
	Role      string      `json:"role" enum:"manifest,config,layer"` // manifest, config or layer
	MediaType string      `json:"media_type,omitempty"`
	Size      int64       `json:"size"` // bytes, as the image says; -1 when it does not
	State     State       `json:"state"`
}

// partOf is a blob of a manifest, of which it is not known yet where it stands.
func partOf(b manifest.Blob) Part {
	return Part{Digest: wire.Digest{Hash: b.Digest}, Role: b.Role, MediaType: b.MediaType, Size: b.Size}
}

// part is partOf with where the blob stands.
func (i *Images) part(repo Repo, b manifest.Blob) Part {
	p := partOf(b)
	p.State, p.Size = i.StateOf(repo, index.Blob, b.Digest, b.Size)
	return p
}

// StateOf looks where content stands, and what its size is if the image did not say.
func (i *Images) StateOf(repo Repo, k index.Kind, d v1.Hash, size int64) (State, int64) {
	kept, ok := i.store.Size(d)
	switch {
	case !ok:
		return Missing, size
	case !i.store.Linked(repo, k, d):
		return Unlinked, kept
	default:
		return Present, kept
	}
}

// Name is how a tag or digest of a repository is written: "docker.io/library/nginx:1.27".
func Name(repo Repo, tag string, d v1.Hash) string {
	if tag != "" {
		return fmt.Sprintf("%s:%s", repo, tag)
	}
	return fmt.Sprintf("%s@%s", repo, d)
}

// Referrer is a signature or another manifest that refers to an image.
type Referrer struct {
	Tag          string      `json:"tag,omitempty"` // the name that stands for a list of referrers, if it was found by one
	Digest       wire.Digest `json:"digest"`
	MediaType    string      `json:"media_type"`
	ArtifactType string      `json:"artifact_type,omitempty"` // as the list of referrers says
	Size         int64       `json:"size"`
}

func (r Referrer) descriptor() manifest.Descriptor {
	return manifest.Descriptor{MediaType: r.MediaType, Digest: r.Digest.String(), Size: r.Size}
}

// ReferrerSuffixes are what follows "sha256-HEX" in tags that stand for referrers: none is
// of OCI distribution 1.1 ("Referrers tag schema"), the others are cosign's.
func ReferrerSuffixes() []string { return []string{"", ".sig", ".att", ".sbom"} }

// Listed returns the referrers of a manifest by the last list of the upstream, whether or
// not they are here.
func (i *Images) Listed(repo Repo, d v1.Hash) ([]manifest.Descriptor, error) {
	text, _, ok, err := i.store.Index.Doc(repo, index.ReferrerList, d.String())
	if err != nil || !ok {
		return nil, err
	}
	var all []manifest.Descriptor
	if json.Unmarshal(text, &all) != nil {
		return nil, nil //nolint:nilerr // a list that cannot be read tells of none
	}
	return all, nil
}

// referrers returns the signatures and other referrers of a manifest that repo is known to
// hold: by a list of the upstream, or by the tags that stand for such a list.
func (i *Images) referrers(repo Repo, d v1.Hash) ([]Referrer, error) {
	listed, err := i.Listed(repo, d)
	if err != nil {
		return nil, err
	}
	var all []Referrer
	for _, desc := range listed {
		if h, ok := desc.Hash(); ok && i.store.Linked(repo, index.Manifest, h) {
			all = append(all, Referrer{Digest: wire.Digest{Hash: h}, MediaType: desc.MediaType, ArtifactType: desc.ArtifactType, Size: desc.Size})
		}
	}
	base := d.Algorithm + "-" + d.Hex
	for _, suffix := range ReferrerSuffixes() {
		t, ok, err := i.store.Index.Tag(repo, base+suffix)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, Referrer{Tag: base + suffix, Digest: wire.Digest{Hash: t.Desc.Digest}, MediaType: string(t.Desc.MediaType), Size: t.Desc.Size})
		}
	}
	return all, nil
}

// Known returns what referrers does as descriptors. An index that cannot be read knows none.
func (i *Images) Known(repo Repo, d v1.Hash) (all []manifest.Descriptor) {
	known, err := i.referrers(repo, d)
	if err != nil {
		i.store.Unknown(err)
	}
	for _, r := range known {
		all = append(all, r.descriptor())
	}
	return all
}

// Wants reports whether a child of an index is wanted: among those of the platforms, which
// wanted says, or without platforms among those that somebody pulled.
func (i *Images) Wants(repo Repo, platforms []string, child manifest.Descriptor, wanted bool) bool {
	d, ok := child.Hash()
	if !ok {
		return false
	}
	if len(platforms) == 0 {
		return i.store.Linked(repo, index.Manifest, d)
	}
	return wanted
}

// CheckPlatforms returns why platforms cannot be asked for.
func CheckPlatforms(platforms []string) error {
	if err := manifest.CheckPlatforms(platforms); err != nil {
		return fmt.Errorf("%w: %w", store.ErrQuery, err)
	}
	return nil
}

// errFound ends a walk.
var errFound = errors.New("found")

// Needs reports whether the kept manifest of leads to the blob d.
func (i *Images) Needs(repo Repo, of, d v1.Hash) bool {
	err := manifest.Walk{
		Manifest: i.documents(repo),
		Blob: func(_ manifest.Node, b manifest.Blob) error {
			if b.Digest == d {
				return errFound
			}
			return nil
		},
	}.Run(manifest.Descriptor{Digest: of.String()})
	return errors.Is(err, errFound)
}

// holdersMost bounds the tags of a repository that are looked at for who needs a blob.
const holdersMost = 200

// HolderOf returns the image of a tag that needs a blob, "" if none is known.
func (i *Images) HolderOf(repo Repo, d v1.Hash) string {
	found, n := "", 0
	_ = i.store.Index.Tags(repo, func(tag string, t index.Tag) error { // without an answer none is known
		if n++; n > holdersMost {
			return index.ErrStop
		}
		if i.Needs(repo, t.Desc.Digest, d) {
			found = Name(repo, tag, v1.Hash{})
			return index.ErrStop
		}
		return nil
	})
	return found
}

// documents is the function of a walk that looks at what is kept and counts nothing.
func (i *Images) documents(repo Repo) func(manifest.Node) (*manifest.Document, error) {
	return func(n manifest.Node) (*manifest.Document, error) {
		doc, _ := i.store.Document(repo, n.Digest)
		return doc, nil
	}
}

// Tree returns what a manifest leads to, itself included, as far as manifests are kept.
func (i *Images) Tree(repo Repo, d v1.Hash) map[store.Link]bool {
	found := map[store.Link]bool{}
	_ = manifest.Walk{ // none of its functions fails
		Manifest: func(n manifest.Node) (*manifest.Document, error) {
			found[store.Link{Kind: index.Manifest, Digest: n.Digest}] = true
			doc, _ := i.store.Document(repo, n.Digest)
			return doc, nil
		},
		Blob: func(_ manifest.Node, b manifest.Blob) error {
			found[store.Link{Kind: index.Blob, Digest: b.Digest}] = true
			return nil
		},
	}.Run(manifest.Descriptor{Digest: d.String()})
	return found
}

// ParseName takes apart what Name made.
func ParseName(s string) (repo Repo, tag string, d v1.Hash, ok bool) {
	name, digest, byDigest := strings.Cut(s, "@")
	if byDigest {
		h, err := wire.ParseDigest(digest)
		if err != nil {
			return repo, "", d, false
		}
		d = h
	} else {
		colon := strings.LastIndexByte(s, ':')
		if colon < strings.LastIndexByte(s, '/') || colon < 0 {
			return repo, "", d, false
		}
		name, tag = s[:colon], s[colon+1:]
	}
	upstream, rest, ok := strings.Cut(name, "/")
	return Repo{Upstream: upstream, Name: rest}, tag, d, ok
}
