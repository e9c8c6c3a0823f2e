package imageset

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// written returns what a file names, as "LINE NAME PLATFORMS", with its faults and notes.
func written(text string) (names []string, fault, notes string) {
	w := world()
	for _, name := range []string{"registry.redhat.io", "reg.example", "gcr.io"} {
		w.Names[name] = name
	}
	entries, err := Read("f", strings.NewReader(text), Options{Registries: w, Note: func(f Fault) { notes += f.Error() + "\n" }})
	for _, e := range entries {
		names = append(names, strings.TrimSpace(strings.TrimPrefix(e.At.String(), "f:")+" "+e.Ref.String()+" "+strings.Join(e.Platforms, ",")))
	}
	if err != nil {
		fault = err.Error()
	}
	return names, fault, notes
}

func TestFilesOfProgramsThatCarryImages(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string][]string{
		"kind: ZarfPackageConfig\ncomponents:\n- images: [ghcr.io/o/a:1]\n  charts:\n  - {url: 'oci://ghcr.io/o/charts/c', version: 6.4.0}\n": {
			"3 ghcr.io/o/a:1", "5 ghcr.io/o/charts/c:6.4.0",
		},
		"apiVersion: content.hauler.cattle.io/v1\nkind: Images\nspec:\n  images:\n  - {name: 'busybox:1.36', platform: linux/amd64}\n  - {name: 'gcr.io/o/a:1'}\n": {
			"5 docker.io/library/busybox:1.36 linux/amd64", "6 gcr.io/o/a:1",
		},
		"kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages: [{name: 'registry.redhat.io/ubi8/ubi:latest'}]\n  helm: {}\n": {
			"4 registry.redhat.io/ubi8/ubi:latest",
		},
		"reg.example:\n  images:\n    redis: ['7', '" + digest + "']\ndocker.io:\n  images: {library/nginx: ['1.27']}\n": {
			"3 reg.example/redis:7", "3 reg.example/redis@" + digest, "5 docker.io/library/nginx:1.27",
		},
		"version: 1\nsync:\n- {source: 'alpine:3', target: 'x/alpine:3', type: image, platform: linux/arm64}\n": {"3 docker.io/library/alpine:3 linux/arm64"},
		"resource_types: [{type: registry-image, source: {repository: o/x, tag: '1'}}]\nresources: [{type: git}, {type: docker-image, source: {repository: ghcr.io/o/y}}]\njobs:\n- plan: [{task: t, config: {image_resource: {type: registry-image, source: {repository: go, tag: '1'}}}}]\n": {
			"1 docker.io/o/x:1", "2 ghcr.io/o/y:latest", "4 docker.io/library/go:1",
		},
		"steps:\n- command: make\n  plugins:\n  - docker#v5: {image: 'golang:1.22'}\n- {label: x, image: 'node:20'}\n": {"4 docker.io/library/golang:1.22", "5 docker.io/library/node:20"},
		"- hosts: all\n  tasks:\n  - docker_image: {name: redis, tag: '7'}\n  - community.docker.docker_container: {image: 'nginx:1'}\n  - community.docker.docker_image: {name: mine, source: build}\n": {
			"4 docker.io/library/nginx:1", "3 docker.io/library/redis:7",
		},
		"- containers.podman.podman_image: {name: 'quay.io/o/a:1'}\n":                                                                           {"1 quay.io/o/a:1"},
		"registry.redhat.io/ubi8/ubi:1=mirror.lan:5000/ubi8/ubi:1\n":                                                                            {"1 registry.redhat.io/ubi8/ubi:1"},
		"-P ubuntu-latest=catthehacker/ubuntu:act-latest\n":                                                                                     {"1 docker.io/catthehacker/ubuntu:act-latest"},
		"// one\n{\n  /* two\n */ \"image\": \"a:1\", // https://x\n  \"features\": {\"ghcr.io/f/go:1\": {},},\n}\n":                            {"4 docker.io/library/a:1", "5 ghcr.io/f/go:1"},
		"{\"kind\": \"Pod\", \"apiVersion\": \"v1\", // a pod\n \"spec\": {\"containers\": [{\"image\": \"a//b:1\"}, {\"image\": \"c:1\"}]}}\n": nil,
		`{"Job": {"TaskGroups": [{"Tasks": [{"Driver": "docker", "Config": {"image": "nginx:1.27"}}]}]}}`:                                       {"1 docker.io/library/nginx:1.27"},
	} {
		got, fault, notes := written(text)
		if want == nil { // what looks like a comment within a text is none
			if !strings.Contains(fault, `"a//b:1"`) || len(got) != 1 {
				t.Errorf("%s: %q, %s", text, got, fault)
			}
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" || fault != "" || notes != "" {
			t.Errorf("%s (-want +got):\n%s%s%s", text, diff, fault, notes)
		}
	}
}

func TestWhatIsNotReadWholeIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  operators: [{catalog: 'registry.redhat.io/i:v4'}]\n": "f:4: mirror.operators stands for images that are not in this file: give the mapping.txt that a dry run of oc-mirror writes",
		"reg.example: {images: {busybox: []}}\n":                                                                                               `f:1: all tags of "busybox" are wanted: name them`,
		"reg.example: {images-by-semver: {alpine: '>= 3'}}\n":                                                                                  `f:1: "alpine" is chosen among its tags by images-by-semver: name the tags`,
		"sync: [{source: ghcr.io/o/a, target: x, type: repository}]\n":                                                                         `f:1: of "ghcr.io/o/a" a whole repository is wanted: name the images`,
		"repositories: []\nreleases: [{name: a, chart: b/c}]\n":                                                                                "is a helmfile, whose charts name the images: give what helmfile template makes",
		"project: x\nconfigVersion: 1\n---\nimage: app\nfrom: alpine:3\n":                                                                      "is a configuration of werf",
		`{"bomFormat": "CycloneDX", "components": []}`:                                                                                         "is a bill of materials",
		"defaultBaseImage: a:1\nbaseImageOverrides: {x: 'b:1'}\n":                                                                              "is a configuration of ko",
		"VERSION 0.8\nFROM golang:1.22\nbuild:\n  FROM alpine:3\n":                                                                             "f:1: is an Earthfile",
		"pipeline {\n  agent { docker { image 'maven:3' } }\n}\n":                                                                              "f:1: is a Jenkinsfile",
		"resources: [{name: a, type: registry-image, source: {repository: b, semver_constraint: 1.x}}]\njobs: [{name: x, plan: [{get: a}]}]\n": "f:1: \"b\" is chosen among its tags: name the tag",
		"/* ours\n */\nnode {\n  docker.image('maven:3')\n}\n":                                                                                 "f:1: is a Jenkinsfile",
		"// ours\ntarget \"a\" {\n}\n":                                                                                                         "f:2: is HCL, which is not read: give what docker buildx bake prints of it as JSON",
		"docker_build('a', '.')\nk8s_yaml('k.yaml')\n":                                                                                         "f:1: is a Tiltfile",
		"IMAGE ?= alpine:3\nall:\n\tdocker run $(IMAGE)\n":                                                                                     "f:1: is a Makefile",
		"app = 'x'\n[build]\n  image = 'nginx:1'\n":                                                                                            "f:1: is TOML",
		"[[buildpacks]]\nuri = \"docker://a\"\n":                                                                                               "f:1: is TOML",
		"REPOSITORY   TAG   IMAGE ID\nnginx   1.27   abc\n":                                                                                    "f:1: is a table for people",
		"image,tag\nnginx,1.27\n":                                                                                                              "f:1: is a table with commas",
		"require 'x'\nVagrant.configure('2') do |c|\nend\n":                                                                                    "f:1: is a program",
		"job \"web\" {\n  group \"g\" {}\n}\n":                                                                                                 "f:1: is HCL, which is not read: give what nomad job run -output makes of it",
		"resource \"docker_image\" \"n\" {\n}\n":                                                                                               "f:1: is HCL, which is not read: list the images",
		"target \"a\" {\n}\n":                                                                                                                  "f:1: is HCL, which is not read: give what docker buildx bake prints of it as JSON",
		"ryuk.container.image=testcontainers/ryuk:0.7.0\n":                                                                                     "is not configured here",
		"{ \"image\": \"a:1\" /* never ends }":                                                                                                 "a /* has no */",
	} {
		if got, fault, _ := written(text); !strings.Contains(fault, want) {
			t.Errorf("%s: %q with %q, want %q", text, got, fault, want)
		}
	}
}

func TestAFileThatNamesNothingIsTold(t *testing.T) {
	for text, want := range map[string]string{
		"language: go\nscript: make\n":                                     "f:1: nothing here is known to name an image",
		`{"name": "x", "engineVersion": "v0.15.0"}`:                        "f:1: nothing here is known to name an image",
		"image: {file: .gitpod.Dockerfile}\ntasks: []\n":                   "f:1: nothing here is known to name an image",
		"apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\n": "give what kubeadm config images list makes",
		"apiVersion: content.hauler.cattle.io/v1\nkind: Charts\n":          "give what helm template makes of each",
		"apiVersion: v1\nkind: Service\n":                                  "",
		"---\n":                                                            "",
		"image: a:1\n---\nx: y\n":                                          "",
	} {
		if got, fault, notes := written(text); fault != "" || !strings.Contains(notes, want) || want == "" && notes != "" {
			t.Errorf("%s: %q with %q, notes %q, want %q", text, got, fault, notes, want)
		}
	}
}
