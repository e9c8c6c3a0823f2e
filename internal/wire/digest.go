// Package wire parses the protocol text of registries: names, digests, routes,
// challenges, ranges, links, rate limits.
//
// Every parser here sees bytes from outside and is fuzzed, and so is [Redact], through which
// such bytes get into an error. Nothing here does I/O.
package wire

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Algorithms are those of digests that may be asked for, in the order in which the index
// keeps them (OCI image specification, descriptor.md, "Registered algorithms").
var Algorithms = []string{"sha256", "sha512", "blake3"}

// digestHexLen is the exact length of the encoded part per algorithm.
var digestHexLen = map[string]int{"sha256": 64, "sha512": 128, "blake3": 64}

// ParseDigest returns the digest that s spells. Only [Algorithms] with their
// exact number of lower-case hexadecimal digits are accepted, since the result is
// used as a file name and as a part of URLs.
func ParseDigest(s string) (v1.Hash, error) {
	algorithm, hex, ok := strings.Cut(s, ":")
	if !ok {
		return v1.Hash{}, notDigest(s)
	}
	want, ok := digestHexLen[algorithm]
	if !ok {
		return v1.Hash{}, fmt.Errorf("digest algorithm %q is not supported: use %s", clip(algorithm), strings.Join(Algorithms, ", "))
	}
	if len(hex) != want {
		return v1.Hash{}, fmt.Errorf("digest %q has %d hexadecimal digits, want %d", clip(s), len(hex), want)
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return v1.Hash{}, fmt.Errorf("digest %q is not lower-case hexadecimal", clip(s))
		}
	}
	return v1.Hash{Algorithm: algorithm, Hex: hex}, nil
}

// DigestText returns a digest as a text, "" for none.
func DigestText(d v1.Hash) string {
	if d == (v1.Hash{}) {
		return ""
	}
	return d.String()
}

// Digest is a digest in a document. It is read with [ParseDigest], since [v1.Hash] refuses
// what it cannot compute.
type Digest struct{ v1.Hash }

// UnmarshalJSON implements [json.Unmarshaler].
func (d *Digest) UnmarshalJSON(b []byte) (err error) {
	var s string
	if err = json.Unmarshal(b, &s); err == nil {
		d.Hash, err = ParseDigest(s)
	}
	return err
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Digest) UnmarshalText(b []byte) (err error) {
	d.Hash, err = ParseDigest(string(b))
	return err
}

// notDigest is the error of a text without an algorithm. Every request by tag makes one,
// since a tag is no digest, so that its text is only made when somebody reads it.
type notDigest string

func (e notDigest) Error() string { return fmt.Sprintf("digest %q has no algorithm", clip(string(e))) }

// nameMax bounds a repository name together with its registry
// (OCI distribution specification, "Pulling manifests": many clients limit it to 255).
const nameMax = 255

// Patterns of the OCI distribution specification v1.1, "Pulling manifests".
var (
	repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// ValidRepository reports whether s is a repository name of the OCI distribution specification.
func ValidRepository(s string) bool {
	return len(s) <= nameMax && repositoryPattern.MatchString(s)
}

// ValidTag reports whether s is a tag of the OCI distribution specification.
func ValidTag(s string) bool { return tagPattern.MatchString(s) }
