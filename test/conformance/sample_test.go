package conformance

import (
	"fmt"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/upstream"
)

// sample is a kind of image that every test of pulling goes through.
type sample struct {
	name string
	spec hubtest.ImageSpec
}

func samples() []sample {
	two := []string{"linux/amd64", "linux/arm64/v8"}
	return []sample{
		{"oci", hubtest.ImageSpec{}},
		{"docker", hubtest.ImageSpec{Docker: true}},
		{"oci-index", hubtest.ImageSpec{Platforms: two, Attestations: true}},
		{"docker-list", hubtest.ImageSpec{Platforms: two, Docker: true}},
		{"oci-sha512", hubtest.ImageSpec{Algorithm: "sha512"}},
		{"oci-blake3", hubtest.ImageSpec{Platforms: two, Attestations: true, Algorithm: "blake3"}},
		{"docker-list-sha512", hubtest.ImageSpec{Platforms: two, Docker: true, Algorithm: "sha512"}},
	}
}

// resource is something of an image that has bytes.
type resource struct {
	path      string // "manifests/latest"
	blob      bool
	mediaType string
	digest    string
	raw       []byte
}

// resources returns all of an image, as a client asks for them: tag, manifests, blobs.
func resources(t testing.TB, hub *hubtest.Hub, img *hubtest.Image) []resource {
	t.Helper()
	list := []resource{{"manifests/" + img.Tag, false, img.MediaType, img.Digest, img.Raw}}
	for _, d := range img.Manifests() {
		list = append(list, resource{"manifests/" + d.Digest, false, d.MediaType, d.Digest, hub.Bytes(d.Digest)})
	}
	for _, d := range img.Blobs() {
		list = append(list, resource{"blobs/" + d.Digest, true, "application/octet-stream", d.Digest, hub.Bytes(d.Digest)})
	}
	for _, r := range list {
		if r.raw == nil {
			t.Fatalf("the hub has no bytes for %s", r.path)
		}
	}
	return list
}

func (r resource) assert(t testing.TB, a *answer) {
	t.Helper()
	if r.blob {
		a.assertBlob(t, r.digest, r.raw)
		return
	}
	a.assertManifest(t, r.mediaType, r.digest, r.raw)
}

// assertBoth asks for r by HEAD and GET, in this order or the other, and checks that
// their headers are the same.
func (r resource) assertBoth(t testing.TB, c *client, base, path string, lines ...string) *answer {
	t.Helper()
	head := c.head(base, path, lines...)
	get := c.get(base, path, lines...)
	r.assert(t, head)
	r.assert(t, get)
	if diff := cmp.Diff(stable(head.Header), stable(get.Header)); diff != "" {
		t.Errorf("%s: headers of HEAD (-) and GET (+) differ:\n%s", get.request, diff)
	}
	return get
}

// stable returns the headers that do not depend on the moment of the answer.
func stable(h http.Header) http.Header {
	h = maps.Clone(h)
	h.Del("Date")
	h.Del("Warning") // tells about the moment
	return h
}

// assertPulls pulls all of an image in a shape of URL, HEAD and GET of everything.
func assertPulls(t testing.TB, c *client, m *mirrortest.Mirror, hub *hubtest.Hub, img *hubtest.Image, s shape) {
	t.Helper()
	for _, r := range resources(t, hub, img) {
		a := r.assertBoth(t, c, m.URL, s.path(img.Repo, r.path))
		if want := s.ns; want != "" {
			a.assertHeader(t, "OCI-Namespace", want)
		}
	}
}

// pull fetches all of an image by GET, as the simplest client would, and fails the test
// at once if any of it is not as it should be.
func pull(t testing.TB, c *client, m *mirrortest.Mirror, hub *hubtest.Hub, img *hubtest.Image) {
	t.Helper()
	for _, r := range resources(t, hub, img) {
		r.assert(t, c.get(m.URL, "/v2/"+img.Repo+"/"+r.path))
	}
	if t.Failed() {
		t.FailNow()
	}
}

// setup is a hub with a mirror in front and a client.
func setup(t *testing.T, ho hubtest.Options, mo mirrortest.Options) (*hubtest.Hub, *mirrortest.Mirror, *client) {
	t.Helper()
	t.Parallel()
	hub := hubtest.New(t, ho)
	t.Cleanup(func() { hub.AssertClean(t) })
	mo.Hub = hub
	return hub, mirrortest.New(t, calm(mo)), newClient(t)
}

// alwaysAsk makes every tag stale at once.
const alwaysAsk = -1

// letters returns n bytes that do not repeat soon and differ by seed.
func letters(seed, n int) []byte {
	b := make([]byte, 0, n+64)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%d.%d|", seed, i)
	}
	return b[:n]
}

// setupWith is setup with options for the upstream.
func setupWith(t *testing.T, ho hubtest.Options, mo mirrortest.Options, uo upstream.Options) (*hubtest.Hub, *mirrortest.Mirror, *client) {
	t.Helper()
	t.Parallel()
	hub := hubtest.New(t, ho)
	t.Cleanup(func() { hub.AssertClean(t) })
	mo.Upstreams = map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Registry: uo}}
	return hub, mirrortest.New(t, calm(mo)), newClient(t)
}

// calm gives the confirmation of tags all the time it may need on a busy machine, so that
// nothing is stale but what a test makes stale.
func calm(mo mirrortest.Options) mirrortest.Options {
	if mo.Cache.RevalidateTimeout == 0 {
		mo.Cache.RevalidateTimeout = patience
	}
	return mo
}

// suffer starts the mirror again with the patience that a fault needs.
func suffer(m *mirrortest.Mirror, hub *hubtest.Hub, fault string) {
	m.RestartWith(func(o *mirrortest.Options) {
		o.Upstreams = map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Registry: patienceFor(fault)}}
		o.Cache.RevalidateTimeout = 300 * time.Millisecond
	})
}
