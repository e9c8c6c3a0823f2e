package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/wire"
)

// family is what a document is made of: an image or an artifact, others of its kind, or the
// layers of Docker's first schema.
type family uint8

const (
	unclear family = iota // it lists nothing, or its type may stand for anything
	imageFamily
	indexFamily
	schema1Family
)

// familyOf returns the family that a media type promises. known is false for a type that is no
// manifest's. Whoever invents an artifact gives its manifest a type that says so, as ORAS did
// with application/vnd.cncf.oras.artifact.manifest.v1+json; what it is made of is not promised.
func familyOf(t types.MediaType) (f family, known bool) {
	switch t {
	case types.OCIImageIndex, types.DockerManifestList:
		return indexFamily, true
	case types.OCIManifestSchema1, types.DockerManifestSchema2, "application/vnd.oci.artifact.manifest.v1+json":
		return imageFamily, true
	case types.DockerManifestSchema1, types.DockerManifestSchema1Signed:
		return schema1Family, true
	}
	return unclear, artifactType.MatchString(string(t))
}

// Types are the media types of manifests that registries are asked for.
func Types() []string {
	return []string{
		string(types.OCIImageIndex), string(types.DockerManifestList),
		string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
		"application/vnd.oci.artifact.manifest.v1+json", "application/vnd.cncf.oras.artifact.manifest.v1+json",
	}
}

// moreMost bounds the types that a client may add to those.
const moreMost = 8

// MoreTypes returns which types of manifests the values of an Accept header name beyond [Types],
// as a part of such a header: each once, sorted. Of Docker's first schema registries need no
// asking: they give it where they have nothing else.
func MoreTypes(accept []string) string {
	var more []string
	for _, list := range accept {
		for item := range strings.SplitSeq(list, ",") {
			if len(more) == moreMost || !strings.Contains(item, "application/vnd.") {
				continue
			}
			t := types.MediaType(wire.MediaType(item))
			if f, known := familyOf(t); known && f == unclear && !slices.Contains(Types(), string(t)) {
				more = append(more, string(t))
			}
		}
	}
	slices.Sort(more)
	return strings.Join(slices.Compact(more), ", ")
}

// artifactType is a media type of somebody's own that is a manifest's by its name.
var artifactType = regexp.MustCompile(`^application/vnd\.[a-z0-9._-]{0,200}\b(manifest|index)\b[a-z0-9._-]{0,50}\+json$`)

// IsType reports whether a media type is a manifest's or an index's.
func IsType(t types.MediaType) bool {
	_, known := familyOf(t)
	return known
}

// TypeOf returns the media type of a manifest. One rule decides between what the registry calls
// it (Content-Type), what it calls itself (mediaType), and what it is made of:
//
//  1. What it is made of must be clear. A document that lists things of two families is taken for
//     two different images by two clients (CVE-2021-41190), and is refused. A list that is empty,
//     null or missing lists nothing.
//  2. Its type is its own mediaType, which its digest covers; else the Content-Type; else, of a
//     document that is complete, OCI's, which alone may leave it out. What is no manifest's type
//     counts as none, such as application/json.
//  3. A type that promises another family than the document has is refused.
func TypeOf(contentType string, body []byte) (types.MediaType, error) {
	doc, err := inspect(body)
	if err != nil {
		return "", err
	}
	t := types.MediaType(wire.MediaType(contentType))
	switch {
	case IsType(doc.own):
		t = doc.own
	case IsType(t):
	case t != "" && !generic(t):
		return "", fmt.Errorf("content type %q is no manifest's", wire.Redact(string(t)))
	case doc.plain == "":
		return "", errors.New("the document is neither an image manifest nor an index")
	default:
		t = doc.plain
	}
	if promised, _ := familyOf(t); promised != unclear && doc.family != unclear && promised != doc.family {
		return "", fmt.Errorf("media type %q does not fit the document", wire.Redact(string(t)))
	}
	return t, nil
}

// generic reports whether a content type says nothing about what is in the document.
func generic(t types.MediaType) bool {
	switch t {
	case "application/json", "application/octet-stream", "binary/octet-stream", "text/plain":
		return true
	}
	return false
}

// inspected is what a document says without anybody's word.
type inspected struct {
	own    types.MediaType // as it calls itself; may be anything
	family family
	plain  types.MediaType // what it is if nobody says; "" when that is not clear
}

// inspect looks at a document. Keys count only as they are spelt: encoding/json, and so most
// clients, would take "Layers" for "layers", and others would not.
func inspect(body []byte) (d inspected, err error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(bytes.TrimPrefix(body, []byte(byteOrderMark)), &doc); err != nil || doc == nil {
		return d, errors.New("the document is no manifest")
	}
	for key := range doc {
		for _, part := range parts {
			if key != part.key && strings.EqualFold(key, part.key) {
				return d, fmt.Errorf("the document has %q, which some clients take for %q", wire.Redact(key), part.key)
			}
		}
	}
	if raw, ok := doc["mediaType"]; ok {
		if err := json.Unmarshal(raw, &d.own); err != nil {
			return d, errors.New("the document has a bad mediaType")
		}
	}
	is := func(key string, first byte) bool { return len(doc[key]) > 0 && doc[key][0] == first }
	for _, part := range parts {
		raw := doc[part.key]
		switch {
		case len(raw) == 0 || string(raw) == "null" || part.begins == '[' && is(part.key, '[') && emptyList(raw):
			continue
		case !is(part.key, part.begins):
			return d, fmt.Errorf("the document has bad %s", part.key)
		case d.family != unclear && d.family != part.of:
			return d, fmt.Errorf("the document has %s beside parts of another family", part.key)
		}
		d.family = part.of
	}
	switch {
	case string(doc["schemaVersion"]) == "1" && is("fsLayers", '['):
		if d.plain = types.DockerManifestSchema1; is("signatures", '[') {
			d.plain = types.DockerManifestSchema1Signed
		}
	case is("manifests", '[') && !is("layers", '['):
		d.plain = types.OCIImageIndex
	case is("layers", '[') && is("config", '{') && !is("manifests", '['):
		d.plain = types.OCIManifestSchema1
	}
	return d, nil
}

// parts are the keys that say what a document is made of.
var parts = []struct {
	key    string
	begins byte // the text of its value
	of     family
}{
	{"config", '{', imageFamily}, {"layers", '[', imageFamily}, {"blobs", '[', imageFamily},
	{"manifests", '[', indexFamily}, {"fsLayers", '[', schema1Family},
}

// emptyList reports whether the text of a list has nothing in it.
func emptyList(raw json.RawMessage) bool {
	return len(bytes.TrimSpace(raw[1:len(raw)-1])) == 0
}
