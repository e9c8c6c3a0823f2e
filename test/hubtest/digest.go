package hubtest

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"strings"
)

// Digest returns the sha256 digest of b in its textual form.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Digest512 returns the sha512 digest of b in its textual form.
func Digest512(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha512:" + hex.EncodeToString(sum[:])
}

func digestWith(algorithm string, b []byte) string {
	if algorithm == "sha512" {
		return Digest512(b)
	}
	return Digest(b)
}

func newHash(algorithm string) hash.Hash {
	if algorithm == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

// validDigest reports whether s is a whole sha256 or sha512 digest.
func validDigest(s string) bool {
	algorithm, digits, ok := strings.Cut(s, ":")
	if !ok || !lowerHex(digits) {
		return false
	}
	switch algorithm {
	case "sha256":
		return len(digits) == 2*sha256.Size
	case "sha512":
		return len(digits) == 2*sha512.Size
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
