package wire

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHops(t *testing.T) {
	for in, want := range map[string][]string{
		"a1":                    {"a1"},
		"a1, b2,c3":             {"a1", "b2", "c3"},
		"":                      nil,
		"a,,b":                  nil,
		"a b":                   nil,
		"a\x00":                 nil,
		"1,2,3,4,5,6,7,8":       {"1", "2", "3", "4", "5", "6", "7", "8"},
		"1,2,3,4,5,6,7,8,9":     nil,
		strings.Repeat("a", 65): nil,
	} {
		got, ok := ParseHops([]string{in})
		if diff := cmp.Diff(want, got); diff != "" || ok != (want != nil) {
			t.Errorf("ParseHops(%q) = %v, %v, want %v", in, got, ok, want)
		}
	}
	if got, ok := ParseHops(nil); got != nil || !ok {
		t.Errorf("ParseHops(nil) = %v, %v", got, ok)
	}
	if got, ok := ParseHops([]string{"a", AddHop("b", "c")}); !ok || len(got) != 3 {
		t.Errorf("two lines give %v, %v", got, ok)
	}
}

func FuzzParseHops(f *testing.F) {
	f.Add("a1, b2")
	f.Add(",")
	f.Fuzz(func(t *testing.T, s string) {
		hops, ok := ParseHops([]string{s})
		if !ok {
			return
		}
		again, ok := ParseHops([]string{strings.Join(hops, ", ")})
		if diff := cmp.Diff(hops, again); diff != "" || !ok || len(hops) > HopsMost {
			t.Errorf("ParseHops(%q) = %v, then %v, %v", s, hops, again, ok)
		}
	})
}
