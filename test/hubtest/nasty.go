package hubtest

import (
	"bytes"
	"fmt"
	"strings"
)

// Manifests that are well-formed enough to reach a parser and still must not hurt it.
// Store them with [Hub.PutManifest].

// BigManifest is an OCI manifest of exactly n bytes. n must be at least 400.
func BigManifest(n int) []byte {
	frame := func(pad string) []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","digest":"%s","size":2},"layers":[],"annotations":{"pad":"%s"}}`,
			OCIManifest, OCIConfig, Digest([]byte("{}")), pad)
	}
	least := len(frame(""))
	if n < least {
		panic(fmt.Sprintf("hubtest: a manifest of %d bytes is too small, least is %d", n, least))
	}
	return frame(strings.Repeat("x", n-least))
}

// DeepManifest is JSON nested depth levels deep.
func DeepManifest(depth int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"schemaVersion":2,"mediaType":"` + OCIManifest + `","x":`)
	b.WriteString(strings.Repeat("[", depth) + strings.Repeat("]", depth) + "}")
	return b.Bytes()
}

// WideIndex is an index of n descriptors of manifests that do not exist.
func WideIndex(n int) []byte {
	list := make([]Descriptor, n)
	for i := range list {
		list[i] = Descriptor{
			MediaType: OCIManifest, Digest: Digest(fmt.Append(nil, "wide ", i)), Size: 500,
			Platform: &Platform{OS: "linux", Architecture: fmt.Sprintf("arch%d", i)},
		}
	}
	return encode(index{SchemaVersion: 2, MediaType: OCIIndex, Manifests: list})
}

// IndexOf is an index of the given descriptors. An index cannot hold its own digest,
// but two that are stored under digests of the caller's choice can name each other:
// see [Hub.PutManifestAs].
func IndexOf(list ...Descriptor) []byte {
	return encode(index{SchemaVersion: 2, MediaType: OCIIndex, Manifests: list})
}

// PutManifestAs stores raw under a digest that need not be its own.
func (h *Hub) PutManifestAs(repo, tag, digest, mediaType string, raw []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repoLocked(repo)
	r.manifests[digest] = storedBytes{mediaType, raw}
	if tag != "" {
		h.pointLocked(r, tag, digest)
	}
}

// PutBlobAs stores b under a digest that need not be its own.
func (h *Hub) PutBlobAs(repo, digest string, b []byte) { h.putBlob(repo, digest, memory(b)) }

// OddManifests returns manifests whose bytes must be kept as they are, by what is odd
// about them: duplicate keys, a byte order mark, CRLF line ends, odd white space. All
// name the config and layers of like.
func OddManifests(like Child) map[string][]byte {
	raw := string(like.Raw)
	return map[string][]byte{
		"duplicate keys": []byte(strings.Replace(raw, `{"schemaVersion":2,`, `{"schemaVersion":2,"schemaVersion":2,`, 1)),
		"bom":            []byte("\xef\xbb\xbf" + raw),
		"crlf":           []byte(strings.ReplaceAll(raw, `,"`, ",\r\n\"")),
		"white space":    []byte(" \n\t" + strings.ReplaceAll(raw, `":`, "\"  :\t") + "\n\n"),
	}
}
