package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"forebay/config/key"
)

// compiledSchema is what an editor has of Schema.
func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	var b bytes.Buffer
	if err := Schema(&b); err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("forebay.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("forebay.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return s.Validate(doc)
}

// An editor marks no key that is right, and marks those that there are not.
func TestSchemaAndDecoderAgree(t *testing.T) {
	s := compiledSchema(t)
	right := map[string]string{"README.md": fenced(t, "../README.md", "listen:")}
	files, err := filepath.Glob("../deploy/config/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in deploy/config: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		right[name] = string(text)
	}
	for name, text := range right {
		if err := validate(t, s, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, tt := range []struct {
		text  string
		right bool
	}{
		{"", true},
		{"upstreams: {docker.io: {}, ghcr.io: }", true},
		{"upstreams: {docker.io: {username: 12, password: 34, tag_rules: ['a:*=forever', {match: 'b', ttl: 1h}]}}", true},
		{"http2: yes-please", false},
		{"http2: true\nshutdown_grace: 0\nlog: {level: debug}", true},
		{"log: {level: loud}", false},
		{"storage: {max_size: 10GiB, min_free: auto}", true},
		{"storage: {max_sizes: 10GiB}", false},
		{"upstreams: {docker.io: {parallel: 4}}", true},
		{"upstreams: {docker.io: {parallel: 400}}", false},
		{"upstreams: {docker.io: {tagttl: 1m}}", false},
		{"pins: ['a:*', 'b:1']\nhosts: {a.lan: docker.io}", true},
		{"pins: a", false},
		{"listne: x", false},
		{"auth: {networks: {ci: [10.0.0.0/8]}, groups: {a: [b, c], d: 1}}\nauthentication: none", true},
		{"authentication: some", false},
		{"prefetch: [{name: a, images: [x], schedule: '@daily'}]", true},
		{"prefetch: [{nmae: a}]", false},
	} {
		_, decoded := load(t, tt.text)
		if (decoded == nil) != tt.right {
			t.Errorf("%s: the decoder says %v", tt.text, decoded)
		}
		if err := validate(t, s, tt.text); (err == nil) != tt.right {
			t.Errorf("%s: the schema says %v, want right: %t", tt.text, err, tt.right)
		}
	}
}

// Every key of the reference can be written as an editor offers it: with its default.
func TestSchemaTakesEveryDefault(t *testing.T) {
	s := compiledSchema(t)
	c := defaults()
	var text func(path string, fields []field) string
	text = func(path string, fields []field) string {
		var b strings.Builder
		for _, f := range fields {
			switch {
			case f.Kind == key.Section:
				fmt.Fprintf(&b, "%s: {%s}, ", f.Name, text(join(path, f.Name), f.Fields))
			case f.Kind == key.Scalar && len(f.Get()) == 1 && f.Get()[0] != "":
				fmt.Fprintf(&b, "%s: %q, ", f.Name, f.Get()[0])
			default:
				fmt.Fprintf(&b, "%s: null, ", f.Name)
			}
		}
		return b.String()
	}
	u := defaultUpstream("docker.io")
	for _, doc := range []string{text("", c.fields()), "upstreams: {docker.io: {" + text("", u.fields()) + "}}"} {
		if !strings.HasPrefix(doc, "upstreams") {
			doc = "{" + doc + "}"
		}
		if err := validate(t, s, doc); err != nil {
			t.Errorf("%v:\n%s", err, doc)
		}
	}
}
