package wire

import "testing"

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "abc": "abc", "abcd": "abcd", "abcde": "abcd…",
		"abcé": "abc…", // the é would be torn apart
		"abé":  "abé", "abéd": "abé…",
	} {
		if got := Clip(in, 4); got != want {
			t.Errorf("Clip(%q, 4) = %q, want %q", in, got, want)
		}
	}
}
