package sums

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"
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

func TestCheck(t *testing.T) {
	for _, algorithm := range []string{"sha256", "sha512"} {
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
