package imageset

import (
	"os"
	"strings"
	"testing"
)

func TestDockerfiles(t *testing.T) {
	text, err := os.ReadFile("testdata/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	wants(t, string(text), Options{BuildArgs: map[string]string{"DISTRO": "bookworm"}},
		"1 docker.io/docker/dockerfile:1.7",
		"8 docker.io/library/golang:1.26-bookworm",
		"16 docker.io/library/alpine:3.20 linux/arm64",
		"22 docker.io/library/busybox:1.36",
		"23 ghcr.io/o/tools:2",
		"28 docker.io/library/debian:12",
	)
}

func TestFaultsOfDockerfiles(t *testing.T) {
	for text, want := range map[string]string{
		"ARG V\nFROM golang:$V\n":                     "f:2: variable V is not set",
		"FROM a b c d\n":                              "f:1: FROM has 4 words",
		"FROM --platform=linux/amd64\n":               "f:1: FROM names no image",
		"FROM a\nINCLUDE b\n":                         "f:2: \"INCLUDE\" is no instruction",
		"FROM a\nCOPY --from=1 x y\n":                 "f:2: there is no stage 1",
		"FROM a\nRUN <<E\nx\n":                        "f:2: not a Dockerfile: unterminated heredoc",
		"FROM --pull a\n":                             "f:1: FROM has the flag --pull",
		"FROM a:${V:?give}\n":                         "V: give",
		"FROM a:${V:+b}$V\n":                          "f:1: variable V is not set",
		"FROM a:${V:-$W}\n":                           "f:1: variable W is not set",
		"FROM a:$V-x\n":                               "f:1: variable V is not set",
		"FROM a:${V%.*}\n":                            "f:1: variable V is not set",
		"FROM a:${V\n":                                "unsupported modifier",
		"FROM a\nRUN --mount=from=\x27\x22b\x27 x\n":  "f:2: --mount=",
		"FROM --platform=amd65 alpine\n":              "f:1: \"amd65\" is not a platform",
		"ARG A=1\n":                                   "has no FROM",
		"FROM alpine\nCOPY --from=$X /a /b\n":         "f:2: \"$X\": a source of files cannot be a variable",
		"FROM nowhere.example.com/x\n":                "f:1: registry \"nowhere.example.com\" is not configured",
		"ARG E=\nFROM $E\n":                           "f:2: FROM names no image",
		"FROM alpine\nARG LATER=1\nFROM b:${LATER}\n": "f:3: variable LATER is not set",
	} {
		_, err := read(t, text, Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%q): error %v, want %q", text, err, want)
		}
	}
}

func TestVariablesOfDockerfiles(t *testing.T) {
	for word, want := range map[string]string{
		// Examples of the manual of Dockerfiles, and what others use.
		"a:${V}":                  "a:v3.12.4",
		"a:$V":                    "a:v3.12.4",
		"a:$V-slim":               "a:v3.12.4-slim",
		"${NO:+$NO/}a:$V":         "a:v3.12.4", // the prefix of a registry, if there is one
		"${NO+${NO}-${OTHER}}a:1": "a:1",
		"${V:+a}:${NO:+b}1":       "a:1",
		`"a:${V}"`:                "a:v3.12.4",
		"'a:1'":                   "a:1",
		"a:${V%.*}":               "a:v3.12",
		"a:${V%%.*}":              "a:v3",
		"a:${V#v}":                "a:3.12.4",
		"a:${V##*.}":              "a:4",
		"a:${V#*.}":               "a:12.4",
		"a:${V/./_}":              "a:v3_12.4",
		"a:${V//./_}":             "a:v3_12_4",
		"a:${V/v/}":               "a:3.12.4",
		"a:${V%.?}":               "a:v3.12",
		"a:${NONE:-2}":            "a:2",
		"a:${NONE-2}":             "a:2",
		"a:${EMPTY:-2}":           "a:2",
		"a:1${EMPTY-2}":           "a:1",
		"a:1${V:+-x}":             "a:1-x",
		"a:1${NONE:+-x}":          "a:1",
		"a:1${NONE+-x}":           "a:1",
		"a:${V:?why}":             "a:v3.12.4",
		"a:${NONE:-${V#v}}":       "a:3.12.4",
		"${NONE:-a}:${NONE:-$V}":  "a:v3.12.4",
		"${R}/o/a:${D%bookworm}x": "ghcr.io/o/a:slim-x",
	} {
		wants(t, "ARG V=v3.12.4\nARG EMPTY=\nARG R=ghcr.io D=slim-bookworm\nFROM "+word+"\n", Options{}, "4 "+fullName(t, want))
	}
}

// fullName returns a name as it is told.
func fullName(t *testing.T, s string) string {
	t.Helper()
	ref, err := world().Reference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

func TestPlatformArgumentsOfDockerfiles(t *testing.T) {
	const text = `FROM alpine:3.20 AS base-amd64
FROM debian:12 AS base-arm64
FROM base-${TARGETARCH} AS final
FROM tools-$TARGETOS-$TARGETARCH$TARGETVARIANT:1
FROM --platform=$BUILDPLATFORM golang:1
FROM --platform=linux/${TARGETARCH} a:1
FROM --platform=aarch64 b:1
`
	always := []string{"1 docker.io/library/alpine:3.20", "2 docker.io/library/debian:12"}
	rest := []string{"5 docker.io/library/golang:1", "6 docker.io/library/a:1", "7 docker.io/library/b:1 linux/arm64"}
	both := append(append(always[:2:2], "4 docker.io/library/tools-linux-amd64:1 linux/amd64"), rest...)
	wants(t, text, Options{Platforms: []string{"linux/x86_64"}}, both...)
	wants(t, text, Options{Platforms: []string{"linux/amd64", "linux/arm64/v8"}}, append(both, "4 docker.io/library/tools-linux-arm64:1 linux/arm64")...)
	overridden := append(append(always[:2:2], "4 docker.io/library/tools-linux-s390x:1"), "5 docker.io/library/golang:1", "6 docker.io/library/a:1 linux/s390x", rest[2])
	wants(t, strings.Replace(text, "base-${TARGETARCH} AS", "alpine:3.20 AS", 1),
		Options{Platforms: []string{"linux/amd64"}, BuildArgs: map[string]string{"TARGETARCH": "s390x", "TARGETOS": "linux", "TARGETVARIANT": ""}}, overridden...)
	// An argument that is made of one depends on the platform as well, and a default of its own does not.
	wants(t, "ARG I=a-$TARGETARCH\nARG TARGETOS=plan9\nFROM $I:$TARGETOS\n", Options{Platforms: []string{"linux/arm/v7"}}, "3 docker.io/library/a-arm:plan9 linux/arm/v7")
	wants(t, "FROM --platform=$TARGETPLATFORM a:1\n", Options{Platforms: []string{"all"}}, "1 docker.io/library/a:1")
	if _, err := read(t, "FROM a-$TARGETARCH:1\n", Options{Platforms: []string{"all"}}); err == nil || !strings.Contains(err.Error(), "f:1: depends on the platform") {
		t.Errorf("of all platforms: %v", err)
	}
	if got, err := read(t, text, Options{}); err != nil || len(got) < 6 { // the machine's
		if err == nil || !strings.Contains(err.Error(), "base-") {
			t.Errorf("without platforms: %q, %v", got, err)
		}
	}
}

func TestSourcesOfDockerfiles(t *testing.T) {
	for text, want := range map[string][]string{
		// Directives.
		"#!/usr/bin/env -S docker build . -f\n# syntax=docker/dockerfile:1.9\nFROM a\n": {"2 docker.io/docker/dockerfile:1.9", "3 docker.io/library/a:latest"},
		"# check=skip=all\n# syntax = ghcr.io/o/frontend:1 x=y\nFROM a\n":               {"2 ghcr.io/o/frontend:1", "3 docker.io/library/a:latest"},
		"# a comment\n# syntax=docker/dockerfile:1\nFROM a\n":                           {"3 docker.io/library/a:latest"},
		"# escape=`\nFROM a\nRUN dir c:\\\nCOPY `\n --from=b:1 x y\n":                   {"2 docker.io/library/a:latest", "4 docker.io/library/b:1"},
		// Mounts, which are CSV within quotes of the shell.
		`FROM a` + "\n" + `RUN --mount=type=bind,"from=ghcr.io/o/u:1",target=/x true`:        {"1 docker.io/library/a:latest", "2 ghcr.io/o/u:1"},
		`FROM a` + "\n" + `RUN --mount='type=bind,"from=ghcr.io/o/u:1","target=/x,y"' true`:  {"1 docker.io/library/a:latest", "2 ghcr.io/o/u:1"},
		"FROM a\nRUN --mount=FROM=b:1,dst=/b --mount=type=cache,from=c:1 \\\n # no\n true\n": {"1 docker.io/library/a:latest", "2 docker.io/library/b:1", "2 docker.io/library/c:1"},
		"FROM a\nRUN --network=none --mount=type=secret,id=x echo --mount=from=b\n":          {"1 docker.io/library/a:latest"},
		// Stages by name, before and after, and by number.
		"FROM a AS One\nCOPY --from=two / /\nCOPY --from=oNe / /\nCOPY --from=1 / /\nFROM one AS two\n": {"1 docker.io/library/a:latest"},
		"FROM two\nFROM a AS two\n": {"1 docker.io/library/two:latest", "2 docker.io/library/a:latest"},
		// What is no instruction.
		"FROM a\nRUN <<EOF cat <<X\nFROM b\nEOF\nFROM c\nX\nCOPY <<-D /d\n\tFROM d\n\tD\nFROM e\n":         {"1 docker.io/library/a:latest", "10 docker.io/library/e:latest"},
		"FROM a\nONBUILD COPY --from=b:1 / /\nONBUILD RUN --mount=from=c:1 x\nONBUILD COPY --from=7 / /\n": {"1 docker.io/library/a:latest", "2 docker.io/library/b:1", "3 docker.io/library/c:1"},
		"FROM a\nADD --checksum=sha256:00 https://example.com/x /\nADD git@example.com:x /\n":              {"1 docker.io/library/a:latest"},
		"FROM scratch\nCOPY [\"--from=b\", \"x\"]\n":                                                       nil,
	} {
		wants(t, text, Options{Format: Dockerfile}, want...)
	}
	wants(t, "# syntax=docker/dockerfile:1\nFROM a\n", Options{BuildArgs: map[string]string{"BUILDKIT_SYNTAX": "ghcr.io/o/f:2"}},
		"1 ghcr.io/o/f:2", "2 docker.io/library/a:latest")
}
