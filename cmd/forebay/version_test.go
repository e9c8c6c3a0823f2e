package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestVersionTellsVersionCommitAndDate(t *testing.T) {
	for want, b := range map[string]build{
		"forebay v1.2.3 (abc, 2026-01-02T03:04:05Z) go1 linux/arm": {version: "v1.2.3", revision: "abc", date: "2026-01-02T03:04:05Z", compiler: "go1", goos: "linux/arm"},
		"forebay v1.2.3 (abc) go1 linux/arm":                       {version: "v1.2.3", revision: "abc", compiler: "go1", goos: "linux/arm"},
		"forebay devel go1 linux/arm":                              {version: "devel", compiler: "go1", goos: "linux/arm"},
	} {
		if got := b.String(); got != want {
			t.Errorf("%+v: %q, want %q", b, got, want)
		}
	}
}

// Every command that somebody finds has a page, and every setting is in the page of the configuration.
func TestManualHasEveryCommandAndSetting(t *testing.T) {
	dir := t.TempDir()
	if code, _, stderr := execute(t, nil, "man", dir); code != 0 {
		t.Fatalf("man: %d: %s", code, stderr)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	for _, want := range []string{"forebay.1", "forebay-serve.1", "forebay-tag-history.1", "forebay-import-registry.1", "forebay.yaml.5"} {
		if !slices.Contains(names, want) {
			t.Errorf("no page %s among %v", want, names)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "forebay.yaml.5"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"storage.max_size", "upstreams.NAME.tag_ttl", "FOREBAY_ADMIN_LISTEN"} {
		if !strings.Contains(strings.ReplaceAll(string(text), `\_`, "_"), want) {
			t.Errorf("forebay.yaml(5) lacks %s", want)
		}
	}
}
