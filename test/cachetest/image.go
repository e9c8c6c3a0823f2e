package cachetest

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Built is an image in the registry of a test.
type Built struct {
	Digest   v1.Hash   // of manifest or index
	Children []v1.Hash // manifests by platform; of an index only
	Blobs    []v1.Hash // config and layers, of each child in turn
}

// JSONOf returns v as JSON.
func JSONOf(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// DescOf returns the descriptor of b as a manifest has it.
func DescOf(mediaType types.MediaType, b []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": DigestOf(b).String(), "size": len(b)}
}

// one puts the blobs of an image of one platform with the given layers and returns its manifest.
func (r *Registry) one(t testing.TB, repo, architecture string, layers ...string) (manifest []byte, b Built) {
	t.Helper()
	config := JSONOf(t, map[string]string{"os": "linux", "architecture": architecture, "made": DigestOf([]byte(strings.Join(layers, "+"))).Hex})
	b.Blobs = append(b.Blobs, r.Put(repo, &Script{Data: config}))
	doc := map[string]any{"mediaType": types.OCIManifestSchema1, "config": DescOf(types.OCIConfigJSON, config)}
	var all []any
	for _, text := range layers {
		b.Blobs = append(b.Blobs, r.Put(repo, &Script{Data: []byte(text)}))
		all = append(all, DescOf(types.OCILayer, []byte(text)))
	}
	doc["layers"] = all
	manifest = JSONOf(t, doc)
	b.Digest = DigestOf(manifest)
	return manifest, b
}

// Image pushes a one-platform image, of linux/amd64, under a tag.
func (r *Registry) Image(t testing.TB, repo, tag string, layers ...string) Built {
	t.Helper()
	manifest, b := r.one(t, repo, "amd64", layers...)
	r.Push(repo, tag, manifest)
	return b
}

// Multi pushes an index of amd64 and arm64 images, which share the layer "base".
func (r *Registry) Multi(t testing.TB, repo, tag string) Built {
	t.Helper()
	var b Built
	var list []any
	for _, architecture := range []string{"amd64", "arm64"} {
		manifest, child := r.one(t, repo, architecture, "base", "for "+architecture+" of "+tag)
		r.Push(repo, "child-"+architecture+"-"+tag, manifest)
		b.Children = append(b.Children, child.Digest)
		b.Blobs = append(b.Blobs, child.Blobs...)
		desc := DescOf(types.OCIManifestSchema1, manifest)
		desc["platform"] = map[string]string{"os": "linux", "architecture": architecture}
		list = append(list, desc)
	}
	raw := JSONOf(t, map[string]any{"mediaType": types.OCIImageIndex, "manifests": list})
	b.Digest = r.Push(repo, tag, raw)
	return b
}

// Copy lets a second repository hold an image too, under the same tag.
func (r *Registry) Copy(from, to, tag string, b Built) {
	r.Lock()
	defer r.Unlock()
	for _, d := range append([]v1.Hash{b.Digest}, b.Children...) {
		r.manifests[to+"@"+d.String()] = r.manifests[from+"@"+d.String()]
	}
	r.tags[to+":"+tag] = b.Digest
	for _, d := range b.Blobs {
		r.blobs[to+"@"+d.String()] = r.blobs[from+"@"+d.String()]
	}
}
