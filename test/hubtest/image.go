package hubtest

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
)

// Media types of manifests, configs and layers.
const (
	OCIIndex       = "application/vnd.oci.image.index.v1+json"
	OCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	OCIConfig      = "application/vnd.oci.image.config.v1+json"
	OCILayer       = "application/vnd.oci.image.layer.v1.tar+gzip"
	OCIForeign     = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerForeign  = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	DockerSchema1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// ImageSpec says what [Hub.PushImage] makes. The zero value is an OCI image for
// linux/amd64 with two small layers and no index.
type ImageSpec struct {
	Platforms    []string // "linux/amd64", "linux/arm64/v8"; none means linux/amd64
	Layers       int      // per platform; 0 means 2
	LayerSize    int64    // 0 means real tar.gz layers of some hundred bytes; else noise of exactly this size
	Docker       bool     // Docker media types instead of OCI
	Index        bool     // an index even around one platform
	Algorithm    string   // of every digest: sha256 when it is "", sha512, blake3
	Foreign      bool     // one more layer per platform, with a URL at the evil role
	Attestations bool     // one unknown/unknown attestation manifest per platform in the index
	Seed         uint64   // same seed, same content; 0 means one made from repository and tag
	SharedLayers bool     // all platforms have the same layers
}

// Image is what PushImage made.
type Image struct {
	Repo, Tag string
	Digest    string // what the tag points at
	MediaType string
	Raw       []byte // bytes of that manifest or index
	Index     bool
	Children  []Child // one per platform; a plain image has one with the same Digest
	Others    []Child // attestations
}

// Child is the manifest for one platform.
type Child struct {
	Platform  string
	Digest    string
	MediaType string
	Raw       []byte
	Config    Descriptor
	ConfigRaw []byte
	Layers    []Descriptor // foreign layers have URLs, and no bytes at the hub
}

// Blobs returns the distinct configs and layers that the hub holds, children first to last.
func (i *Image) Blobs() []Descriptor {
	var list []Descriptor
	seen := map[string]bool{}
	for _, c := range append(append([]Child{}, i.Children...), i.Others...) {
		for _, d := range append([]Descriptor{c.Config}, c.Layers...) {
			if len(d.URLs) == 0 && !seen[d.Digest] {
				seen[d.Digest] = true
				list = append(list, d)
			}
		}
	}
	return list
}

// Manifests returns the distinct manifests: the index, if there is one, then the children.
func (i *Image) Manifests() []Descriptor {
	var list []Descriptor
	if i.Index {
		list = append(list, Descriptor{MediaType: i.MediaType, Digest: i.Digest, Size: int64(len(i.Raw))})
	}
	for _, c := range append(append([]Child{}, i.Children...), i.Others...) {
		list = append(list, Descriptor{MediaType: c.MediaType, Digest: c.Digest, Size: int64(len(c.Raw))})
	}
	return list
}

// PushImage makes an image, stores it in a repository, which is made if needed, and
// tags it unless tag is "". The same arguments make the same bytes.
func (h *Hub) PushImage(repo, tag string, spec ImageSpec) *Image {
	b := newImageBuilder(h, repo, tag, spec)
	img := &Image{Repo: repo, Tag: tag}
	var list []Descriptor
	for n, name := range b.spec.Platforms {
		child := b.child(n, parsePlatform(name))
		img.Children = append(img.Children, child)
		p := parsePlatform(name)
		list = append(list, Descriptor{
			MediaType: child.MediaType, Digest: child.Digest, Size: int64(len(child.Raw)), Platform: &p,
		})
	}
	if spec.Attestations {
		for _, child := range img.Children {
			at := b.attestation(child)
			img.Others = append(img.Others, at)
			list = append(list, Descriptor{
				MediaType: at.MediaType, Digest: at.Digest, Size: int64(len(at.Raw)),
				Platform: &Platform{OS: "unknown", Architecture: "unknown"},
				Annotations: map[string]string{
					"vnd.docker.reference.digest": child.Digest,
					"vnd.docker.reference.type":   "attestation-manifest",
				},
			})
		}
	}
	img.Index = spec.Index || len(list) > 1
	if img.Index {
		img.MediaType = b.pick(OCIIndex, DockerList)
		img.Raw = encode(index{SchemaVersion: 2, MediaType: img.MediaType, Manifests: list})
		img.Digest = h.PutManifestBy(b.algorithm, repo, tag, img.MediaType, img.Raw)
		return img
	}
	c := img.Children[0]
	img.Digest, img.MediaType, img.Raw = c.Digest, c.MediaType, c.Raw
	if tag != "" {
		h.MoveTag(repo, tag, c.Digest)
	}
	return img
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []Descriptor `json:"manifests"`
}

type imageManifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"`
}

type imageConfig struct {
	Platform
	Created string         `json:"created"`
	Config  map[string]any `json:"config"`
	RootFS  struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []map[string]string `json:"history"`
}

type imageBuilder struct {
	hub       *Hub
	repo      string
	spec      ImageSpec
	algorithm string
}

func newImageBuilder(h *Hub, repo, tag string, spec ImageSpec) imageBuilder {
	if len(spec.Platforms) == 0 {
		spec.Platforms = []string{"linux/amd64"}
	}
	if spec.Layers == 0 {
		spec.Layers = 2
	}
	if spec.Seed == 0 {
		f := fnv.New64a()
		_, _ = io.WriteString(f, repo+":"+tag) // a hash takes everything
		spec.Seed = f.Sum64()
	}
	return imageBuilder{hub: h, repo: repo, spec: spec, algorithm: cmp.Or(spec.Algorithm, "sha256")}
}

func (b imageBuilder) pick(oci, docker string) string {
	if b.spec.Docker {
		return docker
	}
	return oci
}

// child stores the blobs and the manifest for one platform.
func (b imageBuilder) child(n int, p Platform) Child {
	var c Child
	config := imageConfig{Platform: p, Created: "2026-01-02T03:04:05Z", Config: map[string]any{"Cmd": []string{"/hello"}}}
	config.RootFS.Type = "layers"
	for l := range b.spec.Layers {
		seed := b.spec.Seed + uint64(l)
		if !b.spec.SharedLayers {
			seed += uint64(n) << 32
		}
		d, diffID := b.layer(seed)
		c.Layers = append(c.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		config.History = append(config.History, map[string]string{"created_by": fmt.Sprintf("layer %d", l)})
	}
	if b.spec.Foreign {
		raw := fmt.Appendf(nil, "foreign layer %d of %s", b.spec.Seed, p)
		d := Descriptor{
			MediaType: b.pick(OCIForeign, DockerForeign), Digest: DigestBy(b.algorithm, raw), Size: int64(len(raw)),
			URLs: []string{b.hub.URL(RoleEvil) + "/foreign-layer"},
		}
		c.Layers = append(c.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, Digest(raw))
	}
	c.ConfigRaw = encode(config)
	c.Config = b.store(b.pick(OCIConfig, DockerConfig), memory(c.ConfigRaw), DigestBy(b.algorithm, c.ConfigRaw))
	return b.finish(c, p.String())
}

func (b imageBuilder) finish(c Child, platform string) Child {
	c.Platform = platform
	c.MediaType = b.pick(OCIManifest, DockerManifest)
	c.Raw = encode(imageManifest{SchemaVersion: 2, MediaType: c.MediaType, Config: c.Config, Layers: c.Layers})
	c.Digest = b.hub.PutManifestBy(b.algorithm, b.repo, "", c.MediaType, c.Raw)
	return c
}

func (b imageBuilder) attestation(of Child) Child {
	var c Child
	statement := encode(map[string]any{"_type": "https://in-toto.io/Statement/v0.1", "subject": of.Digest})
	c.ConfigRaw = encode(map[string]any{"architecture": "unknown", "os": "unknown", "of": of.Digest})
	c.Config = b.store(OCIConfig, memory(c.ConfigRaw), DigestBy(b.algorithm, c.ConfigRaw))
	c.Layers = []Descriptor{b.store("application/vnd.in-toto+json", memory(statement), DigestBy(b.algorithm, statement))}
	return b.finish(c, "unknown/unknown")
}

// layer stores one layer and returns its descriptor and diff ID.
func (b imageBuilder) layer(seed uint64) (Descriptor, string) {
	mediaType := b.pick(OCILayer, DockerLayer)
	if size := b.spec.LayerSize; size > 0 {
		v := virtual{seed, size}
		d := v.digest(b.algorithm)
		return b.store(mediaType, v, d), d
	}
	plain, packed := tarLayer(seed)
	return b.store(mediaType, memory(packed), DigestBy(b.algorithm, packed)), Digest(plain)
}

func (b imageBuilder) store(mediaType string, c content, digest string) Descriptor {
	b.hub.putBlob(b.repo, digest, c)
	return Descriptor{MediaType: mediaType, Digest: digest, Size: c.size()}
}

// tarLayer returns a tar with one file, plain and gzipped.
func tarLayer(seed uint64) (plain, packed []byte) {
	text := fmt.Appendf(nil, "layer %d\n", seed)
	var t, z bytes.Buffer
	w := tar.NewWriter(&t)
	header := &tar.Header{Name: fmt.Sprintf("file-%d", seed), Mode: 0o644, Size: int64(len(text)), Format: tar.FormatUSTAR}
	must(w.WriteHeader(header))
	_, err := w.Write(text)
	must(err)
	must(w.Close())
	g := gzip.NewWriter(&z)
	_, err = g.Write(t.Bytes())
	must(err)
	must(g.Close())
	return t.Bytes(), z.Bytes()
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	must(err)
	return b
}

// must panics on an error that no input can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
