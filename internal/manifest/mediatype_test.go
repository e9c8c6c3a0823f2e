package manifest

import (
	"bytes"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/test/hubtest"
)

func TestTypeOf(t *testing.T) {
	const (
		index  = `{"schemaVersion":2,"manifests":[]}`
		image  = `{"schemaVersion":2,"config":{},"layers":[]}`
		oci    = "application/vnd.oci.image.manifest.v1+json"
		ociIdx = "application/vnd.oci.image.index.v1+json"
		docker = "application/vnd.docker.distribution.manifest.v2+json"
		list   = "application/vnd.docker.distribution.manifest.list.v2+json"
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
		{string(ociArtifact), typed(string(ociArtifact), `"blobs":[]`), string(ociArtifact)},

		{"text/html", image, ""},
		{"image/png", image, ""},
		{oci, typed(docker, `"config":{},"layers":[]`), ""},             // header and body disagree
		{oci, index, ""},                                                // type and structure disagree
		{ociIdx, image, ""},                                             //
		{ociIdx, typed(ociIdx, `"manifests":[],"layers":[]`), ""},       // both (CVE-2021-41190)
		{oci, typed(oci, `"config":{},"layers":[],"manifests":[]`), ""}, //
		{oci, typed(oci, `"config":{},"Layers":[]`), ""},                // keys are case-sensitive
		{oci, typed(oci, `"config":{},"layers":{}`), ""},                // not a list
		{oci, `{"schemaVersion":2,"mediaType":7,"config":{},"layers":[]}`, ""},
		{"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"fsLayers":[]}`, ""},
		{"application/json", `{"schemaVersion":1,"name":"x"}`, ""},
		{"", `{"schemaVersion":2,"fsLayers":[],"config":{},"layers":[]}`, ""},
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

func FuzzTypeOf(f *testing.F) {
	f.Add("application/vnd.oci.image.index.v1+json", []byte(`{"manifests":[]}`))
	f.Add("", []byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`))
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		got, err := TypeOf(header, body)
		if (err == nil) != IsType(got) {
			t.Errorf("TypeOf(%q, %q) = %q, %v", header, body, got, err)
		}
		if err == nil && bytes.Contains(body, []byte(`"fsLayers":`)) && bytes.Contains(body, []byte(`"manifests":`)) && got == types.DockerManifestSchema1 {
			t.Errorf("TypeOf(%q, %q) = schema 1", header, body)
		}
	})
}
