//go:build linux

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values sample
		want   float64
	}{
		{sample{3}, 3},
		{sample{3, 1}, 2},
		{sample{9, 1, 3}, 3},
		{sample{4, 1, 3, 2}, 2.5},
	} {
		if got := c.values.median(); got != c.want {
			t.Errorf("%v.median() = %g, want %g", c.values, got, c.want)
		}
	}
}

// A machine that slows down halfway slows both sides of a pair, not their ratio.
func TestRatiosAreTakenPairByPair(t *testing.T) {
	got := pairwise(sample{10, 2, 6}, sample{20, 4, 12}, ratio)
	if diff := cmp.Diff(sample{0.5, 0.5, 0.5}, got); diff != "" {
		t.Errorf("pairwise (-want +got):\n%s", diff)
	}
}

func TestTableJudgesMedians(t *testing.T) {
	var b strings.Builder
	err := writeTable(&b, []row{
		{name: "fast enough", form: "%.1f", unit: "GiB/s", ours: sample{1, 2, 4}, theirs: sample{2, 2, 2},
			against: "nginx", compare: ratio, target: atLeast(0.95)},
		{name: "too slow", form: "%.1f", unit: "s", ours: sample{4, 4}, theirs: sample{2, 2},
			against: "direct", compare: speedup, target: atLeast(0.9)},
		{name: "memory", form: "%.0f", unit: "MiB", ours: sample{151}, target: atMost(150)},
		{name: "first byte", form: "%.1f", unit: "ms", ours: sample{6}, theirs: sample{2},
			against: "direct", compare: excess, apart: "ms", target: atMost(5)},
		{name: "only told", form: "%.0f", unit: "µs", ours: sample{3}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimPrefix(`
figure       ours                 theirs                     ratio             target     met
fast enough  2.0 GiB/s (1.0–4.0)  nginx 2.0 GiB/s (2.0–2.0)  1.00 (0.50–2.00)  ≥ 0.95     yes
too slow     4.0 s (4.0–4.0)      direct 2.0 s (2.0–2.0)     0.50 (0.50–0.50)  ≥ 0.9      no
memory       151 MiB              –                          –                 ≤ 150 MiB  no
first byte   6.0 ms               direct 2.0 ms              4.0 ms            ≤ 5 ms     yes
only told    3 µs                 –                          –                 –          –
`, "\n")
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestSettingsAreRefused(t *testing.T) {
	for args, want := range map[string]string{
		"-run [":      "-run: error parsing regexp",
		"-rounds -1":  "-rounds: -1 is negative",
		"-rounds x":   "invalid value",
		"blob":        `argument "blob" is not understood`,
		"-run nobody": "no figure has a name that matches",
		"-fast":       "flag provided but not defined",
	} {
		var stderr strings.Builder
		err := run(t.Context(), strings.Fields(args), &stderr, &stderr)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run(%q) = %v, want an error with %q", args, err, want)
		}
	}
}
