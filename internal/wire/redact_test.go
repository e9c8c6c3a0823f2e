package wire

import (
	"strings"
	"testing"
)

func FuzzRedact(f *testing.F) {
	f.Add("Get \"https://cdn/x?X-Amz-Signature=abc\": EOF")
	f.Add("https://user:pass@host/ Bearer abcdefghijklmnop")
	f.Fuzz(func(t *testing.T, text string) {
		got := Redact(text + " https://cdn.example/blob?Signature=s3cret&x=y")
		if strings.Contains(got, "Signature=s3cret") {
			t.Errorf("Redact(%q) = %q", text, got)
		}
		if len(got) > foreignTextMax+len("…") {
			t.Errorf("Redact(%q) has %d bytes", text, len(got))
		}
	})
}
