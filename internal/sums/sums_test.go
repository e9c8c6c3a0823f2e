package sums

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"hash"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"forebay/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBesideSeesPiecesInOrder(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 500_000)
	sum256, sum512 := sha256.Sum256(data), sha512.Sum512(data)
	for algorithm, want := range map[string]string{"sha256": hex.EncodeToString(sum256[:]), "sha512": hex.EncodeToString(sum512[:])} {
		b, err := New(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		for rest := data; len(rest) > 0; {
			p := b.Buffer()
			n := copy(p, rest)
			rest = rest[n:]
			b.Write(p[:n])
		}
		if got := b.Sum(); got.Hex != want || got.Algorithm != algorithm {
			t.Errorf("Sum of %s = %s, want %s", algorithm, got, want)
		}
		b.End() // once more is no harm
	}
	if _, err := New("md5"); err == nil {
		t.Error("New(md5) gave a hash")
	}
}

// The digests of nothing and of "abc" that BLAKE3's own test vectors and its paper give, and
// a clone that goes its own way.
func TestBLAKE3(t *testing.T) {
	for content, want := range map[string]string{
		"":    "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
		"abc": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
	} {
		if got, err := Of("blake3", []byte(content)); err != nil || got.Hex != want {
			t.Errorf("Of(blake3, %q) = %s, %v; want %s", content, got, err, want)
		}
	}
	for _, algorithm := range wire.Algorithms {
		h, err := Hash(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = h.Write([]byte("a"))
		clone, err := h.(hash.Cloner).Clone()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = h.Write([]byte("b"))
		_, _ = clone.Write([]byte("bc"))
		want, _ := Of(algorithm, []byte("abc"))
		if got := digest(algorithm, clone); got != want {
			t.Errorf("clone of %s has %s, want %s", algorithm, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, algorithm := range wire.Algorithms {
		d, err := Of(algorithm, []byte("content"))
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(d, []byte("content")); err != nil {
			t.Errorf("Check(%s) of its content = %v", d, err)
		}
		if err := Check(d, []byte("other")); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "got "+algorithm+":") {
			t.Errorf("Check(%s) of other content = %v, want a mismatch that names the digest", d, err)
		}
		d.Algorithm = "md5"
		if err := Check(d, []byte("content")); err == nil || errors.Is(err, ErrMismatch) {
			t.Errorf("Check(%s) = %v, want that the algorithm is not supported", d, err)
		}
	}
}
