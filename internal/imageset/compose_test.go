package imageset

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

func TestComposeNamesMoreThanServices(t *testing.T) {
	for text, want := range map[string][]string{
		// Volumes that are images, and models.
		`services:
  a:
    image: redis:7
    platform: linux/aarch64
    volumes:
    - {type: image, source: 'ghcr.io/o/data:${V:-1}', target: /d}
    - {type: bind, source: ./x, target: /x}
    - data:/y
    models: [m]
models:
  m: {model: 'ai/smollm2:latest'}
`: {"11 docker.io/ai/smollm2:latest", "3 docker.io/library/redis:7 linux/arm64", "6 ghcr.io/o/data:1 linux/arm64"},
		"models: {m: {model: 'ai/smollm2'}}\n":                                                              {"1 docker.io/ai/smollm2:latest"},
		"services:\n  m:\n    provider:\n      type: model\n      options: {model: ai/x:1}\n":               {"5 docker.io/ai/x:1"},
		"services:\n  m:\n    provider: {type: cloud, options: {type: mysql}}\n  a: {image: a:1}\n":         {"4 docker.io/library/a:1"},
		"services:\n  a: {image: a:1, profiles: [debug]}\n  b: {image: b:1, pull_policy: never}\n  c: {}\n": {"2 docker.io/library/a:1"},
		// What one service is built as, another runs.
		"services:\n  a: {build: ., image: 'ours:${T:-1}'}\n  b: {image: 'ours:1'}\n  c: {image: 'ours:2'}\n":          {"4 docker.io/library/ours:2"},
		"services:\n  a: {build: ., image: ours}\n  b: {image: 'ours:latest'}\n  c: {image: docker.io/library/ours}\n": nil,
		// What is taken away from, or put in place of, what another file says.
		"services:\n  a: {image: !reset null}\n  b: {image: !override 'b:1', build: !reset {context: .}}\n  c: !reset null\n  d: {extends: b, image: !reset x}\n": {"3 docker.io/library/b:1"},
		// Merge keys, anchors, extends.
		`x-base: &base
  image: a:1
  volumes: [{type: image, source: b:1, target: /b}]
services:
  one: {<<: *base, image: c:1}
  two: {extends: one}
  three: {extends: {service: one}, image: d:1, volumes: [{type: image, source: e:1, target: /b}]}
  <<: {four: {image: f:1}}
`: {
			"5 docker.io/library/c:1", "3 docker.io/library/b:1", "7 docker.io/library/d:1", "7 docker.io/library/e:1", "8 docker.io/library/f:1",
		},
		// Several documents, and JSON as docker compose config --format json makes it.
		"services: {a: {image: a:1}}\n---\nservices: {b: {image: b:1}}\n":  {"1 docker.io/library/a:1", "3 docker.io/library/b:1"},
		"{\"name\": \"x\",\n \"services\": {\"a\": {\"image\": \"a:1\"}}}": {"2 docker.io/library/a:1"},
		// Dockerfiles within.
		`services:
  a:
    build:
      context: .
      args: {V: "3", W: }
      additional_contexts:
        tools: docker-image://ghcr.io/o/tools:1
        other: ./other
      dockerfile_inline: |
        # syntax=docker/dockerfile:1
        ARG V=2
        FROM alpine:$$V
        COPY --from=tools / /
        COPY --from=other / /
        RUN echo $$HOME $NOTHING
    platform: linux/arm64
  b:
    build:
      additional_contexts: ["x=docker-image://x:1"]
      platforms: [linux/amd64, linux/arm64]
      dockerfile_inline: "FROM a-$${TARGETARCH}:1\nFROM x"
`: {
			"7 ghcr.io/o/tools:1", "10 docker.io/docker/dockerfile:1", "12 docker.io/library/alpine:3 linux/arm64", "19 docker.io/library/x:1",
			"21 docker.io/library/a-amd64:1 linux/amd64", "21 docker.io/library/a-arm64:1 linux/arm64",
		},
	} {
		wants(t, text, Options{}, want...)
	}
	images, notes := told(t, "services:\n  a: {image: a:1, build: {context: ./x, dockerfile: D}}\n  b: {build: y}\n", Options{})
	if _, notes := told(t, "include: [{path: [], env_file: y.env}]\nservices: {}\n", Options{}); len(notes) != 1 || !strings.Contains(notes[0], "f:1: what variables are") {
		t.Errorf("an include with variables of its own: notes %q", notes)
	}
	want := []string{
		`f:2: service "a" is built: what it is built from is in x/D, which is a file of its own`,
		`f:3: service "b" is built: what it is built from is in y/Dockerfile, which is a file of its own`,
	}
	if diff := cmp.Diff(want, notes); diff != "" || images != nil {
		t.Errorf("images %q, notes (-want +got):\n%s", images, diff)
	}
}

func TestFaultsOfComposeFiles(t *testing.T) {
	for text, want := range map[string]string{
		"services: {a: {image: 'sha256:" + someDigest[7:] + "'}}\n":                                "f:1: \"sha256:e3b0",
		"services: {a: {image: 'a:1', platform: nonsense}}\n":                                      "f:1: \"nonsense\" is not a platform",
		"services:\n  a:\n    extends: {file: other.yml, service: a}\n":                            `f:3: file "other.yml": is not followed from here: give the whole project, as docker compose config makes it`,
		"services: {a: {extends: b}}\n":                                                            `there is no service "b" to extend`,
		"services: {a: {extends: a}}\n":                                                            "extend each other more than 20 deep",
		"include: [{path: x.yml}]\nservices: {}\n":                                                 `f:1: file "x.yml": is not followed`,
		"services: {a: {volumes: [{type: image, source: 'nowhere.example.com/x:1'}]}}\n":           `registry "nowhere.example.com" is not configured`,
		"services: {a: {build: {args: {B: '${U}'}, dockerfile_inline: \"ARG B=b\\nFROM $$B\"}}}\n": "f:1: argument B: variable U is not set",
		"services: {a: {build: {dockerfile_inline: \"FROM a b\"}}}\n":                              "f:1: FROM has 2 words",
	} {
		_, err := read(t, text, Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%q): error %v, want %q", text, err, want)
		}
	}
	if _, err := read(t, "volumes: {}\n", Options{Format: Compose}); err == nil || !strings.Contains(err.Error(), "has no services") {
		t.Errorf("no Compose file: %v", err)
	}
}

// tree writes files into a folder and returns their paths.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		at := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFilesBesideAComposeFileAreRead(t *testing.T) {
	dir := tree(t, map[string]string{
		"compose.yml": `include:
- db/compose.yaml
- path: [more.yml]
services:
  web: {image: 'web:${WEB}'}
  base:
    extends: {file: ./db/compose.yaml, service: db}
    volumes: [{type: image, source: 'x:${FROM_PROCESS}', target: /x}]
`,
		".env":            "# of the project\nexport WEB='1.2' # so\nFROM_PROCESS=no\nDB=5\n",
		"db/compose.yaml": "services:\n  db:\n    image: 'db:${DB}'\n",
		"db/.env":         "DB=4\nOTHER=1\n",
		"more.yml":        "services: {m: {image: 'm:${DB}'}}\n",
	})
	file := filepath.Join(dir, "compose.yml")
	lookup := func(name string) (string, bool) { return "process", name == "FROM_PROCESS" }
	entries, err := ReadFile(file, Options{Registries: world(), Lookup: lookup})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, strings.TrimPrefix(e.At.String(), dir+"/")+" "+e.Ref.String())
	}
	if diff := cmp.Diff([]string{
		"db/compose.yaml:3 docker.io/library/db:5", "more.yml:1 docker.io/library/m:5", "compose.yml:5 docker.io/library/web:1.2",
		"compose.yml:8 docker.io/library/x:process",
	}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatIsNotFollowedIsAFault(t *testing.T) {
	dir := tree(t, map[string]string{"secret": "password\n", "a.yml": "include: [{path: b.yml}]\n", "b.yml": "include: [{path: a.yml}]\n",
		"env/.env": "not so=very secret\nno name\n", "env/e.yml": "services: {a: {image: 'a:1'}}\n"})
	for text, want := range map[string]string{
		"include: [{path: secret}]\n":                       `file "secret": is not followed`,
		"include: [{path: /etc/x.yml}]\n":                   `file "/etc/x.yml": is not followed`,
		"include: [{path: 'https://example.com/x.yml'}]\n":  "is not followed",
		"include: [{path: none.yml}]\n":                     "no such file",
		"include: [{path: a.yml}]\n":                        "leads to more than 100 files",
		"include: [{path: env/e.yml}]\n":                    "env/e.yml:1: the .env beside it cannot be read",
		"services: {a: {image: 'a:${UNDEFINED}'}}\nname: b": "variable UNDEFINED is not set",
	} {
		at := filepath.Join(dir, "in.yml")
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadFile(at, Options{Registries: world()})
		var faults Faults
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadFile of %q: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret\n") || err != nil && strings.Contains(err.Error(), "very secret") {
			t.Errorf("ReadFile of %q shows what is in another file: %v", text, err)
		}
	}
}
