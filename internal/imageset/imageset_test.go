package imageset

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/wire"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func world() *wire.Registries {
	return &wire.Registries{Default: wire.Hub, Names: map[string]string{
		"docker.io": wire.Hub, "index.docker.io": wire.Hub, "ghcr.io": "ghcr.io", "quay.io": "quay.io", "registry.k8s.io": "registry.k8s.io",
	}}
}

func read(t *testing.T, text string, o Options) ([]string, error) {
	t.Helper()
	o.Registries = world()
	entries, err := Read("f", strings.NewReader(text), o)
	var got []string
	for _, e := range entries {
		s := fmt.Sprintf("%d %s", e.At.Line, e.Ref)
		if len(e.Platforms) > 0 {
			s += " " + strings.Join(e.Platforms, ",")
		}
		if e.Blob {
			s += " blob"
		}
		got = append(got, s)
	}
	return got, err
}

func wants(t *testing.T, text string, o Options, want ...string) {
	t.Helper()
	got, err := read(t, text, o)
	if err != nil {
		t.Fatalf("Read(%q): %v", text, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Read(%q) (-want +got):\n%s", text, diff)
	}
}

func TestPlainLists(t *testing.T) {
	wants(t, "\ufeff# all of it\n\nnginx\r\n  nginx:1.27  # the web\nnginx:latest\nghcr.io/o/app@"+someDigest+"\nalpine:3@"+someDigest,
		Options{},
		"3 docker.io/library/nginx:latest", "4 docker.io/library/nginx:1.27",
		"6 ghcr.io/o/app@"+someDigest, "7 docker.io/library/alpine@"+someDigest)
}

func TestListsOfPowerShell(t *testing.T) {
	wants(t, "\xff\xfen\x00g\x00i\x00n\x00x\x00\r\x00\n\x00a\x00:\x001\x00", Options{}, "1 docker.io/library/nginx:latest", "2 docker.io/library/a:1")
}

func TestEmptyFilesNameNothing(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "---\n# Source: a\n---\n"} {
		wants(t, text, Options{})
	}
}

func TestYAMLListOfNames(t *testing.T) {
	wants(t, "- nginx:1\n- quay.io/o/a:2\n", Options{}, "1 docker.io/library/nginx:1", "2 quay.io/o/a:2")
}

func TestLockFilesAreDeterministic(t *testing.T) {
	d, err := v1.NewHash(someDigest)
	if err != nil {
		t.Fatal(err)
	}
	a := LockedImage{Ref: "docker.io/library/alpine:3.20", Digest: wire.Digest{Hash: d}, MediaType: "m", Size: 7,
		Platforms: []LockedPlatform{{"linux/amd64", wire.Digest{Hash: d}, 5}}}
	b := LockedImage{Ref: "ghcr.io/o/app@" + someDigest, Digest: wire.Digest{Hash: d}, MediaType: "m", Size: 9}
	one, err := LockFile{Images: []LockedImage{b, a, a}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	two, err := LockFile{Images: []LockedImage{a, b}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if string(one) != string(two) {
		t.Errorf("the order matters:\n%s\n%s", one, two)
	}
	if Detect(one) != Lock {
		t.Errorf("Detect gives %s", Detect(one))
	}
	wants(t, string(one), Options{}, "5 docker.io/library/alpine:3.20@"+someDigest, "18 ghcr.io/o/app@"+someDigest)
	again, err := DecodeLock(one)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(LockFile{Version: LockVersion, Images: []LockedImage{a, b}}, again); diff != "" {
		t.Error(diff)
	}
}

func TestFaultsOfLockFiles(t *testing.T) {
	for text, want := range map[string]string{
		`{"forebay_lock": 2, "images": []}`:                                                  "version 2 of lock files is not understood",
		"{\"forebay_lock\": 1,\n \"images\": [{\"ref\": \"a\", \"digest\": \"sha256:00\"}]}": "has 2 hexadecimal digits, want 64",
		"{\"forebay_lock\": 1,\n \"images\": [{\"ref\": \"a\"}]}":                            "f:2: ",
		"{\"forebay_lock\": 1,\n \"images\": [":                                              "unexpected E",
		`{"forebay_lock": 1, "images": []} x`:                                                "something follows",
	} {
		_, err := read(t, text, Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%q): error %v, want %q", text, err, want)
		}
	}
}

func TestWantedLists(t *testing.T) {
	wants(t, `{
  "wanted": [
    {"ref": "docker.io/library/nginx:1.27", "count": 3},
    {"ref": "quay.io/o/a@`+someDigest+`", "blob": true}
  ]
}`, Options{}, "3 docker.io/library/nginx:1.27", "4 quay.io/o/a@"+someDigest+" blob")
}

func TestAllFaultsAreToldWithTheirLines(t *testing.T) {
	entries, err := read(t, "nginx\nBad Name\nnowhere.example.com/a:1\nalpine\n", Options{})
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 2 || faults[0].At.Line != 2 || faults[1].At.Line != 3 {
		t.Errorf("faults are %v", err)
	}
	if len(entries) != 2 {
		t.Errorf("entries are %v, want those that are right", entries)
	}
}

func TestWhatIsNoTextIsRefused(t *testing.T) {
	if _, err := read(t, "\x1f\x8b\x00\x00", Options{}); err == nil || !strings.Contains(err.Error(), "is no text") {
		t.Errorf("error is %v", err)
	}
	if _, err := read(t, strings.Repeat("#", fileMax+1), Options{}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("error is %v", err)
	}
}

func TestFormatsAreDetected(t *testing.T) {
	for text, want := range map[string]Format{
		"nginx:1.27\n":                              List,
		"localhost:5000/a\n":                        List,
		"# a\nFROM alpine\n":                        Dockerfile,
		"arg A=1\nfrom $A":                          Dockerfile,
		"version: '3'\nservices:\n  a: {}\n":        Kubernetes, // all YAML
		"apiVersion: v1\nkind: A\nservices:\n":      Kubernetes,
		"---\nkind: Pod\n":                          Kubernetes,
		"{\"forebay_lock\": 1}":                     Lock,
		"{\n  \"wanted\": []}":                      Wanted,
		"{\"kind\": \"Pod\"}":                       Kubernetes,
		"image: {repository: a, tag: b}":            Kubernetes,
		"- a\n- b\n":                                Kubernetes,
		"from.example.com/a:1\n":                    List,
		"quay.io/o/a@sha256:00\nother: thing\n":     List,
		"  # indented\n\n\"quoted key\": {a: 1}\n#": Kubernetes,
	} {
		if got := Detect([]byte(text)); got != want {
			t.Errorf("Detect(%q) = %s, want %s", text, got, want)
		}
	}
	if _, err := ParseFormat("yaml"); err == nil || !strings.Contains(err.Error(), "kubernetes") {
		t.Errorf("ParseFormat(yaml): %v", err)
	}
}

// Mappings that merge each other, and nodes that stand for others, must cost no more than
// their text.
func TestAliasBombsAreCheap(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 {image: nginx}\n")
	for i := 1; i < 60; i++ {
		fmt.Fprintf(&b, "a%d: &a%d\n  <<: [%s]\n  k: [%s]\n", i, i,
			strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9)+fmt.Sprintf("*a%d", i-1), strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9)+fmt.Sprintf("*a%d", i-1))
	}
	b.WriteString("services:\n  x: *a59\n")
	for _, f := range []Format{Kubernetes, Compose} {
		got, err := read(t, b.String(), Options{Format: f})
		if err != nil || len(got) != 1 {
			t.Errorf("as %s: %v, %v", f, got, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"testdata/helm.yaml", "testdata/Dockerfile"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text), 0)
	}
	f.Add("nginx\n# x\nquay.io/a/b:1 # y\n", 1)
	f.Add("services:\n  a: {image: '${A:-${B:-c}}:1', platform: linux/arm64}\n", 3)
	f.Add(`{"forebay_lock": 1, "images": [{"ref": "a:1", "digest": "`+someDigest+`"}]}`, 5)
	f.Add(`{"wanted": [{"ref": "a@`+someDigest+`", "blob": true}]}`, 6)
	f.Add("ARG A=1 B=\"2\"\nFROM --platform=$BUILDPLATFORM a:${A} as x\nCOPY --from=x / /\nRUN <<EOF\nFROM no\nEOF\n", 4)
	f.Add("#!/usr/bin/docker\n# syntax=a\n# escape=`\nARG P=${TARGETARCH%%64}\nFROM --platform=$BUILDPLATFORM a:${P//./_} as x\nFROM x-${P:-$Q}\n", 4)
	f.Add("FROM a\nRUN --mount='type=bind,\"from=b\"' <<A <<-B x\nA\n\tB\nONBUILD COPY --from=0 a b\n", 4)
	f.Add("[Container]\nImage=a:1 \\\n\nMount=type=image,src=b\n[Image]\nArch=arm\n", 7)
	for _, text := range []string{
		"services: {a: {build: {dockerfile_inline: \"FROM b:$$V\", args: [V=1], additional_contexts: [x=docker-image://y]}, extends: a}}\ninclude: [x.yml]\nmodels: {m: {model: n}}\n",
		"apiVersion: v1\nkind: List\nitems: [{kind: T, apiVersion: x/y, params: [{name: a, default: b}], image: $(params.a), tag: c, images: [d:1]}]\nstatus: {image: e}\n",
		"apiVersion: a/b\nkind: c\nresource:\n  manifest: |\n    image: {repository: d, digest: e}\n    x: y\n",
		"on: push\njobs: {a: {strategy: {matrix: {v: [1, 2]}}, container: 'a:${{ matrix.v }}', steps: [{uses: docker://b}]}}\n",
		"a: {script: x, image: !reference [b, c], parallel: {matrix: [{V: [1]}]}, services: ['d:$V']}\nb: {c: e}\nvariables: {V: $W, W: $V}\n",
		"matrix: {A: [1]}\nsteps: [{image: 'a:$A'}]\n", "pipelines: {default: [{step: {image: a}}]}\n", "pool: x\njobs: [{container: a}]\n",
		"{\"target\": {\"a\": {\"dockerfile-inline\": \"FROM a\", \"contexts\": {\"b\": \"docker-image://c\"}}}}", "steps: [{name: 'a/b', args: [x]}]\n",
		"version: 2\njobs: {a: {docker: [{image: 'b:<< parameters.c >>'}], parameters: {c: {default: d}}}}\n", "images: [{name: a, newTag: b}]\nresources: []\nnamespace: x\n",
		"kind: ZarfPackageConfig\ncomponents: [{images: [a], charts: [{url: 'oci://b/c', version: 1}]}]\n", "r: {images: {a: [b]}, images-by-semver: {c: d}}\n",
		"sync: [{source: a, type: image, platform: linux/arm}]\n", "jobs: [{plan: [{config: {image_resource: {type: registry-image, source: {repository: a}}}}]}]\n",
		"- {hosts: a, tasks: [{x.docker_image: {name: b, tag: c}}]}\n", "// a\n{\"image\": \"b\", /* c */ }\n", "a/b=c/d\n-P x=y\n", "[[a.b]]\n", "VERSION 1\n",
	} {
		f.Add(text, 0)
	}
	f.Fuzz(func(t *testing.T, text string, format int) {
		formats := Formats()
		o := Options{Registries: world(), Format: formats[uint(format)%uint(len(formats))]}
		entries, err := Read("f", strings.NewReader(text), o)
		lines := strings.Count(text, "\n") + 1
		for _, e := range entries {
			if e.Ref.Tag == "" && !e.Ref.HasDigest() {
				t.Errorf("%v has neither tag nor digest", e)
			}
			if e.At.Line < 1 || e.At.Line > lines+1 {
				t.Errorf("%v is on line %d of %d", e.Ref, e.At.Line, lines)
			}
			// What is returned can be written and read again.
			again, err := world().Reference(e.Ref.String())
			if err != nil || again != e.Ref {
				t.Errorf("%v reads as %v, %v", e.Ref, again, err)
			}
		}
		var faults Faults
		if err != nil && !errors.As(err, &faults) {
			t.Errorf("error %v is of type %T", err, err)
		}
	})
}

func FuzzExpand(f *testing.F) {
	f.Add("${A:-b}c$$${D+e}")
	f.Add("${A?x}")
	f.Fuzz(func(t *testing.T, s string) {
		out, err := expand(s, func(name string) (string, bool) { return "v", len(name)%2 == 0 })
		if err == nil && !strings.Contains(s, "$") && out != s {
			t.Errorf("expand(%q) = %q", s, out)
		}
		if len(out) > len(s)*16+16 {
			t.Errorf("expand(%q) has %d bytes", s, len(out))
		}
	})
}
