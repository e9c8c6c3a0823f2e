package hubtest

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"strings"

	"github.com/zeebo/blake3"
)

// Digest returns the sha256 digest of b in its textual form.
func Digest(b []byte) string { return DigestBy("sha256", b) }

// DigestBy returns the digest of b by an algorithm (sha256, sha512 or blake3) in its
// textual form.
func DigestBy(algorithm string, b []byte) string {
	h := newHash(algorithm)
	_, _ = h.Write(b) // a hash takes everything
	return algorithm + ":" + hex.EncodeToString(h.Sum(nil))
}

func newHash(algorithm string) hash.Hash {
	switch algorithm {
	case "sha512":
		return sha512.New()
	case "blake3":
		return blake3.New()
	}
	return sha256.New()
}

// validDigest reports whether s is a whole digest of an algorithm of the image specification.
func validDigest(s string) bool {
	algorithm, digits, ok := strings.Cut(s, ":")
	if !ok || !lowerHex(digits) {
		return false
	}
	switch algorithm {
	case "sha256", "sha512", "blake3":
		return len(digits) == 2*newHash(algorithm).Size()
	}
	return false
}

func lowerHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
