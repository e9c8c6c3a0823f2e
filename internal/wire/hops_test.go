package wire

import (
	"strings"
	"testing"
)

func TestHops(t *testing.T) {
	for in, want := range map[string]struct {
		passed string
		came   bool
	}{
		"a1":                             {"a1", false},
		"a1, b2,c3":                      {"a1, b2, c3", false},
		"a1, own,c3":                     {"a1, own, c3", true},
		"own":                            {"own", true},
		"Own":                            {"Own", false},
		"":                               {"", false},
		"a,,b":                           {"a, b", false},
		"a b":                            {"", false},
		"a\x00, c":                       {"c", false},
		"1,2,3,4,5,6,7":                  {"1, 2, 3, 4, 5, 6, 7", false},
		"1,2,3,4,5,6,7,8,9":              {"3, 4, 5, 6, 7, 8, 9", false},
		"own,2,3,4,5,6,7,8,9":            {"3, 4, 5, 6, 7, 8, 9", true},
		strings.Repeat("a", 65) + ", b":  {"b", false},
		strings.Repeat("x,", 9000) + "y": {"x, x, x, x, x, x, y", false},
	} {
		if passed, came := ParseHops([]string{in}, "own"); passed != want.passed || came != want.came {
			t.Errorf("ParseHops(%.40q) = %q, %t, want %q, %t", in, passed, came, want.passed, want.came)
		}
	}
	if passed, came := ParseHops(nil, "own"); passed != "" || came {
		t.Errorf("ParseHops(nil) = %q, %t", passed, came)
	}
	if passed, _ := ParseHops([]string{"a", AddHop("b", "c")}, "own"); passed != "a, b, c" {
		t.Errorf("two lines give %q", passed)
	}
}

func FuzzParseHops(f *testing.F) {
	f.Add("a1, b2")
	f.Add(",")
	f.Fuzz(func(t *testing.T, s string) {
		passed, _ := ParseHops([]string{s}, "own")
		next, came := ParseHops([]string{AddHop(passed, "own")}, "own")
		if again, _ := ParseHops([]string{passed}, "own"); again != passed || !came || strings.Count(AddHop(passed, "own"), ",") >= HopsMost || len(passed) > HopsMost*(hopMost+2) {
			t.Errorf("ParseHops(%q) = %q, then %q, %q, %t", s, passed, again, next, came)
		}
	})
}
