package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunWritesTables(t *testing.T) {
	name := filepath.Join(t.TempDir(), "trace.json")
	if err := os.WriteFile(name, []byte(replayed), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-scale", "0.02", "-cache", "5,50", "-workload", "^ci$", "-policy", "^(LRU|forebay)$", "-seeds", "2"},
		{"-policy", "^(LRU|forebay)$", "-cache", "5,50", name},
	} {
		var first, second bytes.Buffer
		for _, out := range []*bytes.Buffer{&first, &second} {
			if err := run(args, out, io.Discard); err != nil {
				t.Fatalf("run(%q): %s", args, err)
			}
		}
		if first.String() != second.String() {
			t.Errorf("run(%q) says something else the second time", args)
		}
		for _, want := range []string{"| policy | 5 % | 50 % |", "\n| LRU | ", "\n| forebay | ", "\n| no limit | ", "Bytes hit", "Upstream pulls avoided"} {
			if !strings.Contains(first.String(), want) {
				t.Errorf("run(%q) does not write %q:\n%s", args, want, &first)
			}
		}
	}
}

func TestRunRefusesBadSettings(t *testing.T) {
	for _, args := range [][]string{
		{"-workload", "("}, {"-policy", "("}, {"-cache", "0"}, {"-cache", "101"}, {"-cache", "x"}, {"-cache", ""}, {"-cache", "NaN"},
		{"-seeds", "0"}, {"-scale", "0"}, {"-scale", "NaN"}, {"-workload", "none of them"}, {"-nonsense"}, {"no such file.json"},
	} {
		var out bytes.Buffer
		if err := run(args, &out, io.Discard); err == nil {
			t.Errorf("run(%q) succeeds:\n%s", args, &out)
		}
	}
}
