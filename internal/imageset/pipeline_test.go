package imageset

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPipelines(t *testing.T) {
	for text, want := range map[string][]string{
		// GitHub Actions.
		`name: ci
on: push
jobs:
  a:
    container: node:20
    services:
      db: {image: 'postgres:16', env: {image: no}}
      cache: {image: ''}
    steps:
    - uses: docker://alpine:3.20
    - uses: actions/checkout@v4
      with: {image: 'nothing:1'}
  b:
    runs-on: x
    strategy: {matrix: {v: [1, 2], include: [{v: 3, img: 'quay.io/o/i:1'}], exclude: [{v: 9}]}}
    container: {image: 'go:${{ matrix.v }}', credentials: {username: x}}
    services: {s: {image: '${{matrix.img}}'}}
`: {
			"5 docker.io/library/node:20", "7 docker.io/library/postgres:16", "10 docker.io/library/alpine:3.20",
			"16 docker.io/library/go:1", "16 docker.io/library/go:2", "16 docker.io/library/go:3", "17 quay.io/o/i:1",
		},
		"on: {workflow_call: {inputs: {img: {default: 'a:1'}}}}\njobs: {a: {container: '${{ inputs.img }}'}}\n": {"2 docker.io/library/a:1"},
		"name: x\nruns: {using: docker, image: 'docker://a:1'}\n":                                               {"2 docker.io/library/a:1"},
		"runs: {using: composite, steps: [{uses: 'docker://a:1'}, {run: ls}]}\n":                                {"1 docker.io/library/a:1"},
		// GitLab.
		`default:
  image: ruby:3
  services: [{name: 'redis:7', alias: r}]
variables: {BASE: quay.io/o, DEEP: {value: "$BASE/deep", description: x}}
.hidden: &hidden
  image: hidden:1
build:
  image: {name: "$DEEP:debug", entrypoint: [''], docker: {platform: arm64/v8}}
  services: ['docker:dind', !reference [.shared, services]]
  script: [make]
test:
  <<: *hidden
  parallel: {matrix: [{V: ["1", "2"], OS: [a]}, {V: "3"}]}
  services: [{name: "py:$V"}]
  script: x
.shared: {services: ['s:1', 't:1']}
late: {image: !reference [build, image, name], script: [x]}
`: {
			"6 docker.io/library/hidden:1", "3 docker.io/library/redis:7", "8 quay.io/o/deep:debug linux/arm64",
			"9 docker.io/library/docker:dind", "16 docker.io/library/s:1", "16 docker.io/library/t:1",
			"14 docker.io/library/py:1", "14 docker.io/library/py:2", "14 docker.io/library/py:3", "2 docker.io/library/ruby:3", "8 quay.io/o/deep:debug",
		},
		"include: [{local: x.yml}]\ndefault: {image: 'a:$V'}\nvariables: {V: '1'}\nj: {script: x, variables: {V: '2'}}\n": {"2 docker.io/library/a:2", "2 docker.io/library/a:1"},
		// What all jobs have, and what some extend, is read with the variables of each.
		`default:
  image: python:$PY
.base:
  image: golang:$GO
.vars: {variables: {GO: "1"}}
all: {script: x, parallel: {matrix: [{PY: ["3.11", "3.12"]}]}}
one: {script: x, variables: {PY: "3.9"}}
three: {extends: .base, script: x, variables: {GO: "3"}}
four: {extends: [.vars, .base], script: x}
five: {extends: .vars, script: x, image: "alpine:$GO"}
six: {trigger: {project: x}}
`: {
			"2 docker.io/library/python:3.11", "2 docker.io/library/python:3.12", "2 docker.io/library/python:3.9",
			"4 docker.io/library/golang:3", "4 docker.io/library/golang:1", "10 docker.io/library/alpine:1",
		},
		"image: a:1\nservices: [b:1]\nstages: [x]\njob: {script: [x], services: }\n": {"1 docker.io/library/a:1", "2 docker.io/library/b:1"},
		// Jobs of a matrix have the values of one line of it.
		"on: push\njobs:\n  a:\n    strategy: {matrix: {os: [{image: a, v: 1}, {image: b, v: 2}], x: [1, 2], exclude: [{x: 2}], include: [{x: 1, db: c}, {x: 3, os: {image: d, v: 4}}]}}\n    container: '${{ matrix.os.image }}:${{ matrix.os.v }}-${{ matrix.x }}'\n    services: {db: {image: '${{ matrix.db }}:1'}}\n": {
			"5 docker.io/library/a:1-1", "5 docker.io/library/b:2-1", "5 docker.io/library/d:4-3", "6 docker.io/library/c:1"},
		"on: {workflow_dispatch: {inputs: {v: {default: '3'}}}}\njobs: {a: {container: 'a:${{ github.event.inputs.v }}'}}\n": {"2 docker.io/library/a:3"},
		"on: push\njobs: {a: {steps: [{uses: docker/setup-qemu-action@v3, with: {image: 'q:1'}}, {uses: docker/setup-buildx-action@v3, with: {driver-opts: \"network=host\\nimage=b:1\"}}]}}\n": {
			"2 docker.io/library/q:1", "2 docker.io/library/b:1"},
		"a: {script: x, image: '$A:$V', parallel: {matrix: [{A: [a, b], V: 1}, {A: c, V: [2, 3]}]}}\n":                 {"1 docker.io/library/a:1", "1 docker.io/library/b:1", "1 docker.io/library/c:2", "1 docker.io/library/c:3"},
		"spec: {inputs: {v: {default: '3'}}}\n---\na: {script: x, image: 'a:$[[ inputs.v ]]$T'}\nvariables: {T: -x}\n": {"3 docker.io/library/a:3-x"},
		"version: 2.1\njobs: {a: {parameters: {v: {type: string}}, docker: [{image: 'a:<< parameters.v >>'}]}}\nworkflows: {w: {jobs: [{a: {matrix: {parameters: {v: ['1', '2']}}}}, {a: {v: '3'}}]}}\n": {
			"2 docker.io/library/a:1", "2 docker.io/library/a:2", "2 docker.io/library/a:3"},
		"platform: linux\nimage_resource: {type: registry-image, source: {repository: a, tag: '1'}}\nrun: {path: x}\n":  {"2 docker.io/library/a:1"},
		"{\"features\": {\"ghcr.io/o/f:1\": {\"resolved\": \"ghcr.io/o/f@" + someDigest + "\", \"integrity\": \"x\"}}}": {"1 ghcr.io/o/f@" + someDigest},
		"services: [{type: web, image: {url: 'quay.io/o/a:1'}}]\n":                                                      {"1 quay.io/o/a:1"},
		"- a:1\n- {image: b:1}\n": {"1 docker.io/library/a:1", "2 docker.io/library/b:1"},
		"{\"target\": {\"a\": {\"args\": {\"V\": \"${W}\"},\n \"dockerfile-inline\": \"ARG V\\nFROM a:$V\"}}, \"variable\": {\"W\": {\"default\": \"1\"}}}": {"3 docker.io/library/a:1"},
		// Woodpecker, Drone.
		"steps:\n- {name: a, image: 'golang:1.22', settings: {image: 'made:1'}}\nservices:\n- {name: db, image: 'postgres:16'}\n": {
			"2 docker.io/library/golang:1.22", "4 docker.io/library/postgres:16"},
		"matrix: {GO: ['1.21', '1.22']}\nsteps: {build: {image: 'golang:${GO}'}}\nservices: {db: {image: db:1}}\nclone: {git: {image: 'quay.io/o/git:1'}}\n": {
			"4 quay.io/o/git:1", "2 docker.io/library/golang:1.21", "2 docker.io/library/golang:1.22", "3 docker.io/library/db:1"},
		"kind: pipeline\ntype: docker\nplatform: {os: linux, arch: arm64}\nsteps: [{image: a:1}]\nservices: [{image: b:1}]\n---\nkind: secret\nname: x\n": {
			"4 docker.io/library/a:1 linux/arm64", "5 docker.io/library/b:1 linux/arm64"},
		"pipeline: {a: {image: a:1}}\nservices: {b: {image: b:1}}\n": {"1 docker.io/library/a:1", "2 docker.io/library/b:1"},
		// CircleCI, Bitbucket, Azure, Cloud Build, Cirrus.
		"version: 2.1\nexecutors: {e: {docker: [{image: 'cimg/base:1'}]}}\njobs:\n  a:\n    parameters: {v: {type: string, default: '20'}}\n    docker: [{image: 'cimg/node:<< parameters.v >>'}, {image: p:1}]\n  m: {machine: {image: 'ubuntu-2204:current'}}\n": {
			"6 docker.io/cimg/node:20", "6 docker.io/library/p:1", "2 docker.io/cimg/base:1"},
		// Executors have the parameters that jobs give them.
		"version: 2.1\nexecutors:\n  go: {parameters: {v: {type: string, default: '1'}}, docker: [{image: 'go:<< parameters.v >>'}]}\n  x: {docker: [{image: x:1}]}\njobs:\n  a: {executor: {name: go, v: '2'}}\n  b: {parameters: {w: {type: string}, e: {type: executor, default: x}}, executor: {name: go, v: '<< parameters.w >>'}}\n  c: {parameters: {e: {type: executor, default: x}}, executor: << parameters.e >>}\nworkflows: {w: {jobs: [a, {b: {matrix: {parameters: {w: ['3', '4']}}}}]}}\n": {
			"3 docker.io/library/go:2", "3 docker.io/library/go:3", "3 docker.io/library/go:4", "4 docker.io/library/x:1"},
		"image: a:1\ndefinitions: {services: {db: {image: b:1}, docker: {memory: 1}}}\npipelines:\n  default:\n  - step: {image: {name: c:1, username: x}, script: [{pipe: 'docker://d:1'}]}\n": {
			"1 docker.io/library/a:1", "2 docker.io/library/b:1", "5 docker.io/library/c:1", "5 docker.io/library/d:1"},
		"pool: {vmImage: 'ubuntu-22.04'}\nresources: {containers: [{container: pg, image: 'postgres:16'}]}\njobs:\n- job: a\n  container: node:20\n  services: {db: pg}\n- job: b\n  container: pg\n- job: c\n  container: {image: 'c:1'}\n  steps: [{task: X, inputs: {container: no}}]\n": {
			"2 docker.io/library/postgres:16", "5 docker.io/library/node:20", "10 docker.io/library/c:1"},
		"steps:\n- {name: 'quay.io/o/builder', args: [x]}\n- {name: 'a:$_V', entrypoint: x}\n- {name: 'b:1'}\nsubstitutions: {_V: '2'}\nimages: ['quay.io/o/made:1']\n": {
			"2 quay.io/o/builder:latest", "3 docker.io/library/a:2", "4 docker.io/library/b:1"},
		"task:\n  container: {image: 'a:1'}\n  test_script: x\nb_task:\n  container: {image: b:1}\n  script: y\n": {"2 docker.io/library/a:1", "5 docker.io/library/b:1"},
		// Development containers, bake.
		"{\"image\": \"quay.io/o/dev:1\",\n \"features\": {\"ghcr.io/o/f/go:1\": {}, \"./local\": {}},\n \"remoteUser\": \"x\"}": {
			"1 quay.io/o/dev:1", "2 ghcr.io/o/f/go:1"},
		"{\"target\": {\"a\": {\n \"contexts\": {\"base\": \"docker-image://b:${V}\", \"x\": \"target:b\"},\n \"dockerfile-inline\": \"FROM base\\nFROM c:1\\nFROM x\"}},\n \"variable\": {\"V\": {\"default\": \"1\"}}}": {
			"2 docker.io/library/b:1", "4 docker.io/library/c:1"},
	} {
		wants(t, text, Options{}, want...)
	}
}

func TestFaultsOfPipelines(t *testing.T) {
	for text, want := range map[string]string{
		"on: push\njobs: {a: {container: {options: x}}}\n":                                                 "f:2: an image without image",
		"on: push\njobs: {a: {container: '${{ fromJSON(x).y }}'}}\n":                                       "f:2: \"${{ fromJSON(x).y }}\" holds a variable",
		"on: push\njobs: {a: {services: {b: {image: '${{ matrix.none }}'}}}}\n":                            "holds a variable",
		"on: push\njobs: {a: {services: {b: {image: [x]}}}}\n":                                             "f:2: is no name of an image",
		"on: push\njobs: {a: {steps: [{uses: 'docker://nowhere.example.com/x:1'}]}}\n":                     "is not configured here",
		"a: {script: x, image: '$CI_REGISTRY_IMAGE:1'}\n":                                                  "f:1: variable CI_REGISTRY_IMAGE is not set",
		"a: {script: x, image: '$[[ inputs.image ]]'}\n":                                                   "f:1: \"$[[ inputs.image ]]\" holds a variable",
		"a: {script: x, image: {entrypoint: ['']}}\n":                                                      "f:1: an image without name",
		"on: push\njobs: {a: {strategy: {matrix: {a: &l [" + strings.Repeat("1, ", 40) + "2], b: *l}}}}\n": "f:2: makes more than 1024 jobs",
		"{\"target\": {\"a\": {\"matrix\": {\"v\": [1]}, \"dockerfile-inline\": \"FROM a:${v}\"}}}":        "f:1: target \"a\" stands for several by its matrix",
		"{\"Image\":\"a:1\"}\n{\"Image\":\"b:1\"}\n":                                                       "f:2: is one JSON text behind the other",
		"a: {script: x, services: b}\n":                                                                    "f:1: services are no list",
		"a: {script: x, image: !reference [.b, image]}\n":                                                  "f:1: is no name of an image",
		"steps: [{image: 'a:${CI_COMMIT_SHA}'}]\n":                                                         "variable CI_COMMIT_SHA is not set",
		"version: 2\njobs: {a: {docker: [{image: 'a:<< parameters.x >>'}]}}\nworkflows: {}\n":              "holds a variable",
		"pool: x\njobs: [{container: 'a:$(tag)'}]\n":                                                       "holds a variable",
	} {
		_, err := read(t, text, Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%q): error %v, want %q", text, err, want)
		}
	}
}

func TestWhatAPipelineLeadsToIsNoted(t *testing.T) {
	for text, want := range map[string]string{
		"on: push\njobs: {a: {uses: o/r/.github/workflows/x.yml@v1}, b: {container: 'a:1'}}\n": `f:2: workflow "o/r/.github/workflows/x.yml@v1" is a file of its own, which is not followed`,
		"include: {template: X.yml}\na: {script: x, image: 'a:1'}\n":                           "f:1: what a pipeline of GitLab includes is not followed from here: give the whole pipeline, as glab ci config compile makes it",
		"a: {script: x, image: 'a:1'}\nb: {trigger: {include: [{project: x, file: y.yml}]}}\n": "f:2: what a pipeline of GitLab includes is not followed from here: give the whole pipeline, as glab ci config compile makes it",
		"version: 2.1\norbs: {x: y}\njobs: {a: {docker: [{image: 'a:1'}]}}\n":                  "f:2: the images of orbs are not in this file: give what circleci config process makes",
		"pool: x\nextends: {template: t.yml}\njobs: [{container: 'a:1'}]\n":                    `f:2: template "t.yml" is a file of its own, which is not followed`,
		"pipelines: {default: [{step: {image: 'a:1', script: [{pipe: 'atlassian/x:1'}]}}]}\n":  `f:1: pipe "atlassian/x:1" is an image of which the repository of the pipe says the name`,
	} {
		images, notes := told(t, text, Options{})
		if diff := cmp.Diff([]string{want}, notes); diff != "" || len(images) != 1 || !strings.HasSuffix(images[0], " docker.io/library/a:1") {
			t.Errorf("Read(%q) = %q, notes (-want +got):\n%s", text, images, diff)
		}
	}
}

func TestFilesBesideAPipelineAreRead(t *testing.T) {
	dir := tree(t, map[string]string{
		".gitlab-ci.yml": "include: [ci/a.yml, {local: /ci/b.yml}]\n",
		"ci/a.yml":       "a: {image: 'a:1', script: x}\n",
		"ci/b.yml":       "b: {image: 'b:1', script: x}\n",
	})
	entries, err := ReadFile(filepath.Join(dir, ".gitlab-ci.yml"), Options{Registries: world()})
	if err != nil || len(entries) != 2 || entries[1].At.File != filepath.Join(dir, "ci", "b.yml") {
		t.Errorf("ReadFile = %v, %v, want both", entries, err)
	}
}
