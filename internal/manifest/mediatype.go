package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/wire"
)

// ociArtifact was in a release candidate of OCI 1.1, and pushed by some tools.
const ociArtifact types.MediaType = "application/vnd.oci.artifact.manifest.v1+json"

// shape says whether a document is an index or an image by its structure.
type shape uint8

const (
	imageShape shape = iota + 1
	indexShape
	artifactShape
)

// shapeOf returns the shape that a media type promises, or 0 for a type that is no manifest's.
func shapeOf(t types.MediaType) shape {
	switch t {
	case types.OCIImageIndex, types.DockerManifestList:
		return indexShape
	case types.OCIManifestSchema1, types.DockerManifestSchema2:
		return imageShape
	case ociArtifact:
		return artifactShape
	}
	return 0
}

// TypeOf returns the media type of a manifest from its Content-Type, its own mediaType
// and its structure, which must agree: a document that one client takes for an index
// and another for an image is an attack (CVE-2021-41190).
func TypeOf(contentType string, body []byte) (types.MediaType, error) {
	claimed := types.MediaType(wire.MediaType(contentType))
	if claimed == types.DockerManifestSchema1 || claimed == types.DockerManifestSchema1Signed {
		return "", errors.New("it is a schema 1 manifest, which is not supported")
	}
	found, own, err := inspect(body)
	if err != nil {
		return "", err
	}
	if !IsType(claimed) {
		if claimed != "" && !generic(claimed) {
			return "", fmt.Errorf("content type %q is no manifest's", wire.Redact(string(claimed)))
		}
		if claimed = own; own == "" {
			claimed = plainType(found)
		}
	}
	switch {
	case own != "" && own != claimed:
		return "", fmt.Errorf("content type %q and mediaType %q disagree", wire.Redact(string(claimed)), wire.Redact(string(own)))
	case shapeOf(claimed) != found:
		return "", fmt.Errorf("media type %q does not fit the document", wire.Redact(string(claimed)))
	}
	return claimed, nil
}

// IsType reports whether a media type is a manifest's or an index's.
func IsType(t types.MediaType) bool { return shapeOf(t) != 0 }

// generic reports whether a content type says nothing about what is in the document.
func generic(t types.MediaType) bool {
	switch t {
	case "application/json", "application/octet-stream", "binary/octet-stream", "text/plain":
		return true
	}
	return false
}

// plainType is the type of a document without one. Only OCI's may leave it out.
func plainType(s shape) types.MediaType {
	switch s {
	case indexShape:
		return types.OCIImageIndex
	case imageShape:
		return types.OCIManifestSchema1
	default:
		return ociArtifact
	}
}

// inspect returns the shape of a document and the mediaType that it gives itself. Keys
// count only as they are spelt: encoding/json would take "Layers" for "layers".
func inspect(body []byte) (shape, types.MediaType, error) {
	var doc map[string]json.RawMessage
	trimmed := bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if err := json.Unmarshal(trimmed, &doc); err != nil || doc == nil {
		return 0, "", errors.New("the document is no manifest")
	}
	var own types.MediaType
	if raw, ok := doc["mediaType"]; ok {
		if err := json.Unmarshal(raw, &own); err != nil {
			return 0, "", errors.New("the document has a bad mediaType")
		}
	}
	is := func(key string, first byte) bool { return len(doc[key]) > 0 && doc[key][0] == first }
	_, layers := doc["layers"]
	_, manifests := doc["manifests"]
	_, schema1 := doc["fsLayers"]
	switch {
	case schema1 || string(doc["schemaVersion"]) == "1":
		return 0, "", errors.New("it is a schema 1 manifest, which is not supported")
	case layers && manifests:
		return 0, "", errors.New("the document has both layers and manifests")
	case is("manifests", '['):
		return indexShape, own, nil
	case is("layers", '[') && is("config", '{'):
		return imageShape, own, nil
	case own == ociArtifact:
		return artifactShape, own, nil
	}
	return 0, "", errors.New("the document is neither an image manifest nor an index")
}
