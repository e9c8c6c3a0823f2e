package imageset

import (
	"strings"
	"testing"
)

func TestComposeFiles(t *testing.T) {
	const text = `name: shop
x-base: &base
  image: ${REGISTRY:-quay.io}/o/base:${TAG-1}
services:
  web:
    image: "nginx:${NGINX_TAG:?which one}"
    platform: linux/arm64
  made:
    build: .
    image: ours:1
  worker:
    <<: *base
    restart: always
  price:
    image: quay.io/o/a$$b:${X:+3}${Y+${Z:-4}}
`
	vars := map[string]string{"NGINX_TAG": "1.27", "REGISTRY": "", "X": "x", "Y": ""}
	lookup := func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
	_, err := read(t, text, Options{Lookup: lookup})
	if err == nil || !strings.Contains(err.Error(), "f:15: ") {
		t.Errorf("a name with a dollar: %v", err)
	}
	wants(t, strings.ReplaceAll(text, "$$b", "b"), Options{Lookup: lookup},
		"6 docker.io/library/nginx:1.27 linux/arm64", "3 quay.io/o/base:1", "15 quay.io/o/ab:34")
}

func TestVariablesWithoutAValueAreFaults(t *testing.T) {
	for text, want := range map[string]string{
		"$A":        "variable A is not set",
		"${A}":      "variable A is not set",
		"${A?no a}": "variable A is not set: set it, or give a default by ${A:-DEFAULT}: no a",
		"${A:-":     "has no }",
		"${A":       "has no }",
		"${A%x}":    "not supported",
		"${}":       "no name",
		"a$":        "no name",
		"${E:?}":    "variable E is not set",
		strings.Repeat("${A:-", 20) + "b" + strings.Repeat("}", 20): "nested more than",
	} {
		_, err := read(t, "services:\n  a:\n    image: '"+text+"'\n", Options{Lookup: func(name string) (string, bool) { return "", name == "E" }})
		if err == nil || !strings.Contains(err.Error(), "f:3: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want line 3 and %q", text, err, want)
		}
	}
}

// told reads a text and returns its images and what is noted, in order.
func told(t *testing.T, text string, o Options) (images, notes []string) {
	t.Helper()
	o.Note = func(f Fault) { notes = append(notes, f.Error()) }
	images, err := read(t, text, o)
	if err != nil {
		t.Fatalf("Read(%q): %v", text, err)
	}
	return images, notes
}
