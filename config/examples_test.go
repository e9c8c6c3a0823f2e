package config

import (
	"errors"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// What the documents show must load. Files that they name are not here, which is the
// only fault that they may have.
func TestExamplesInDocumentsLoad(t *testing.T) {
	for name, text := range map[string]string{
		"README.md":         fenced(t, "../README.md", "listen:"),
		"deploy/kubernetes": configMap(t, "../deploy/kubernetes/forebay.yaml"),
	} {
		_, err := load(t, text)
		var faults Faults
		if err != nil && !errors.As(err, &faults) {
			t.Fatal(err)
		}
		for _, f := range faults {
			if !strings.Contains(f.Problem, "no such file") {
				t.Errorf("%s: %s", name, f)
			}
		}
	}
}

// fenced returns the YAML block of a Markdown file that starts with first.
func fenced(t *testing.T, name, first string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), "```yaml\n"+first)
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatalf("%s has no YAML block that starts with %q", name, first)
	}
	return first + block
}

func configMap(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	loader, err := yaml.NewLoader(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for {
		var doc struct {
			Kind string
			Data map[string]string
		}
		if err := loader.Load(&doc); err != nil {
			t.Fatalf("%s has no ConfigMap: %v", name, err)
		}
		if doc.Kind == "ConfigMap" {
			return doc.Data["forebay.yaml"]
		}
	}
}
