package evict

import (
	"encoding/hex"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestDecodeTakesLowerCaseHexadecimalOnly(t *testing.T) {
	for c := range 256 {
		text := strings.Repeat("a", 63) + string([]byte{byte(c)})
		b, ok := decode(v1.Hash{Algorithm: "sha256", Hex: text})
		want, err := hex.DecodeString(text)
		if lower := err == nil && text == strings.ToLower(text); ok != lower || ok && string(b[:]) != string(want) {
			t.Errorf("decode(…%q) = %x, %t, want %x, %t", byte(c), b[31], ok, want, lower)
		}
	}
	for _, d := range []v1.Hash{
		{}, {Algorithm: "sha256"}, {Algorithm: "sha256", Hex: strings.Repeat("a", 62)},
		{Algorithm: "sha256", Hex: strings.Repeat("a", 66)}, {Algorithm: "sha512", Hex: strings.Repeat("a", 64)},
	} {
		if _, ok := decode(d); ok {
			t.Errorf("decode(%+v) succeeds", d)
		}
	}
}
