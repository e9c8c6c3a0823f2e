package manifest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/test/hubtest"
)

func TestTypeOf(t *testing.T) {
	const (
		index    = `{"schemaVersion":2,"manifests":[]}`
		image    = `{"schemaVersion":2,"config":{},"layers":[]}`
		oci      = "application/vnd.oci.image.manifest.v1+json"
		ociIdx   = "application/vnd.oci.image.index.v1+json"
		docker   = "application/vnd.docker.distribution.manifest.v2+json"
		list     = "application/vnd.docker.distribution.manifest.list.v2+json"
		first    = "application/vnd.docker.distribution.manifest.v1+json"
		signed   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
		artifact = "application/vnd.oci.artifact.manifest.v1+json"
		oras     = "application/vnd.cncf.oras.artifact.manifest.v1+json"
		own      = "application/vnd.example.thing.index.v3+json"
		one      = `[{"digest":"x"}]`
	)
	typed := func(mediaType, rest string) string {
		return `{"schemaVersion":2,"mediaType":"` + mediaType + `",` + rest + `}`
	}
	tests := []struct {
		header, body string
		want         string // "" means refused
	}{
		{oci, image, oci},
		{oci + "; charset=utf-8", image, oci},
		{"Application/VND.OCI.image.manifest.v1+JSON ;x=y", image, oci},
		{docker, typed(docker, `"config":{},"layers":[]`), docker},
		{docker, image, docker},
		{list, index, list},
		{"", image, oci},
		{"", index, ociIdx},
		{"", typed(docker, `"config":{},"layers":[]`), docker},
		{"application/json", typed(list, `"manifests":[]`), list},
		{"text/plain; charset=utf-8", index, ociIdx},
		{"application/octet-stream", image, oci},
		{oci, "\xef\xbb\xbf" + image, oci},

		// a list that is empty, null or missing is the same, if a type says what it is
		{oci, typed(oci, `"config":{},"layers":null`), oci},
		{oci, typed(oci, `"config":{}`), oci},
		{docker, typed(docker, `"config":{}`), docker},
		{"", typed(oci, `"config":null,"layers":[ ]`), oci},
		{ociIdx, typed(ociIdx, `"manifests":null`), ociIdx},
		{list, `{"schemaVersion":2}`, list},
		{"", typed(ociIdx, `"manifests":[],"layers":[],"fsLayers":null`), ociIdx},
		{"", typed(oci, `"config":{},"layers":[],"manifests":[]`), oci},
		{"", `{"schemaVersion":2,"config":{}}`, ""}, // nobody says

		// manifests that need not be understood to be served
		{artifact, typed(artifact, `"blobs":[]`), artifact},
		{"", typed(artifact, `"artifactType":"a/b","blobs":`+one), artifact},
		{oras, typed(oras, `"artifactType":"a/b","blobs":[]`), oras},
		{oras, `{"artifactType":"a/b","blobs":` + one + `}`, oras},
		{own, typed(own, `"manifests":`+one), own},
		{own, typed(own, `"things":[]`), own},
		{"application/json", typed("application/vnd.example.manifest+json", `"things":[]`), "application/vnd.example.manifest+json"},
		{"application/vnd.example.config.v1+json", `{}`, ""},
		{"application/vnd.example.manifestation+json", `{}`, ""},

		// the first schema
		{first, `{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}`, first},
		{signed, `{"schemaVersion":1,"fsLayers":[],"signatures":[{}]}`, signed},
		{"application/json", `{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}`, first},
		{"", `{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}],"signatures":[{}]}`, signed},
		{signed, typed(docker, `"config":{},"layers":`+one), docker},
		{first, `{"schemaVersion":2,"config":{},"layers":` + one + `}`, ""},
		{docker, `{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}`, ""},

		// what it calls itself goes before what it is called
		{oci, typed(docker, `"config":{},"layers":[]`), docker},
		{docker, typed(list, `"manifests":`+one), list},
		{"text/html", typed(oci, `"config":{},"layers":[]`), oci},
		{oci, typed("application/json", `"config":{},"layers":[]`), oci},
		{oci, typed("application/vnd.oci.image.config.v1+json", `"config":{},"layers":[]`), oci},

		{"text/html", image, ""},
		{"image/png", image, ""},
		{oci, `{"manifests":` + one + `}`, ""}, // type and content disagree
		{ociIdx, image, ""},
		{oci, typed(ociIdx, `"config":{},"layers":`+one), ""},
		{ociIdx, typed(ociIdx, `"manifests":`+one+`,"layers":`+one), ""}, // both (CVE-2021-41190)
		{oci, typed(oci, `"config":{},"layers":[],"manifests":`+one), ""},
		{own, typed(own, `"blobs":`+one+`,"manifests":`+one), ""},
		{"", `{"schemaVersion":1,"fsLayers":` + one + `,"config":{},"layers":[]}`, ""},
		{oci, typed(oci, `"config":{},"Layers":[]`), ""}, // keys are case-sensitive
		{list, typed(list, `"manifests":[],"fslayers":[]`), ""},
		{oci, typed(oci, `"config":{},"layers":{}`), ""}, // not a list
		{oci, typed(oci, `"config":[],"layers":[]`), ""},
		{ociIdx, typed(ociIdx, `"manifests":"x"`), ""},
		{oci, `{"schemaVersion":2,"mediaType":7,"config":{},"layers":[]}`, ""},
		{"application/json", `{"schemaVersion":1,"name":"x"}`, ""},
		{"", `{"errors":[{"code":"DENIED"}]}`, ""},
		{"", `{}`, ""},
		{"", `null`, ""},
		{"", `[]`, ""},
		{"", ``, ""},
		{"", `<html></html>`, ""},
		{"", string(hubtest.DeepManifest(20_000)), ""},
	}
	for _, test := range tests {
		got, err := TypeOf(test.header, []byte(test.body))
		if string(got) != test.want || (err == nil) != (test.want != "") {
			t.Errorf("TypeOf(%q, %.80q) = %q, %v; want %q", test.header, test.body, got, err, test.want)
		}
	}
}

func TestMoreTypes(t *testing.T) {
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf("application/vnd.n%d.manifest+json", i))
	}
	for _, row := range []struct {
		accept []string
		want   string
	}{
		{nil, ""},
		{[]string{"*/*"}, ""},
		{Types(), ""},
		{[]string{"application/vnd.docker.distribution.manifest.v1+prettyjws, application/vnd.docker.distribution.manifest.v1+json"}, ""},
		{[]string{"application/vnd.oci.image.config.v1+json, application/json"}, ""},
		{[]string{"application/vnd.b.manifest+json;q=0.1, application/vnd.a.index.v2+json", "APPLICATION/vnd.b.manifest+json, application/vnd.b.manifest+json"},
			"application/vnd.a.index.v2+json, application/vnd.b.manifest+json"},
		{[]string{"application/vnd.a.manifest\r\nX: y+json, application/vnd.a b.manifest+json"}, ""},
		{many, strings.Join(many[:8], ", ")},
	} {
		if got := MoreTypes(row.accept); got != row.want {
			t.Errorf("MoreTypes(%q) = %q, want %q", row.accept, got, row.want)
		}
	}
}

func TestBlobsOfEveryAge(t *testing.T) {
	doc, ok := Parse([]byte(`{"config":{"digest":"` + digest("a") + `","size":1},"layers":[{"digest":"` + digest("b") + `","size":2,"urls":["https://x"]}],
		"blobs":[{"digest":"` + digest("c") + `","size":3}],"fsLayers":[{"blobSum":"` + digest("d") + `"}]}`))
	if !ok {
		t.Fatal("Parse = false")
	}
	var got []string
	for _, b := range doc.Blobs() {
		got = append(got, fmt.Sprint(b.Digest.Hex[:1], " ", b.Role, " ", b.Size, " ", len(b.URLs)))
	}
	want := []string{"a config 1 0", "b layer 2 1", "c layer 3 0", "d layer -1 0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Blobs (-want +got):\n%s", diff)
	}
}

// What a client accepts goes to registries, so that it must be types and nothing else.
func FuzzMoreTypes(f *testing.F) {
	f.Add("application/vnd.a.manifest+json;q=0.1, application/vnd.b.index+json")
	f.Add("application/vnd.a.manifest\r\nAuthorization: x+json, */*")
	f.Fuzz(func(t *testing.T, accept string) {
		more := MoreTypes([]string{accept, accept})
		if more == "" {
			return
		}
		list := strings.Split(more, ", ")
		if len(list) > moreMost {
			t.Errorf("MoreTypes(%q) = %d types", accept, len(list))
		}
		for _, one := range list {
			if !artifactType.MatchString(one) {
				t.Errorf("MoreTypes(%q) has %q", accept, one)
			}
		}
	})
}

func FuzzTypeOf(f *testing.F) {
	f.Add("application/vnd.oci.image.index.v1+json", []byte(`{"manifests":[]}`))
	f.Add("", []byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`))
	f.Add("application/vnd.oci.image.index.v1+json", []byte(`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null,"layers":[{}]}`))
	f.Add("application/vnd.cncf.oras.artifact.manifest.v1+json", []byte(`{"blobs":[{"digest":"x"}],"Manifests":[]}`))
	f.Add("application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}],"signatures":[]}`))
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		got, err := TypeOf(header, body)
		if (err == nil) != IsType(got) {
			t.Errorf("TypeOf(%q, %q) = %q, %v", header, body, got, err)
		}
		if err != nil {
			return
		}
		// Whatever is served, a client that reads it as Go does finds the parts of one family.
		doc, ok := Parse(body)
		if !ok {
			return // a value that is none, such as a size of text
		}
		families := 0
		for _, n := range []int{len(doc.Layers) + len(doc.Artifact), len(doc.Manifests), len(doc.FSLayers)} {
			families += min(n, 1)
		}
		if families > 1 {
			t.Errorf("TypeOf(%q, %q) = %q of two families", header, body, got)
		}
	})
}
