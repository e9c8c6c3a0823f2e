package conformance

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// What the distribution specification says of proxies since 2026 (its main branch, "Registry
// Proxying"), and of the digest header and redirects with it ("Pulling manifests", "Pulling blobs",
// "Checking if content exists in the registry"), row by row. How ns chooses the source host is T24 of
// docs/clients.md, and that credentials of a client go nowhere T20.

// pulls are the operations of a pull: all that ns may scope.
func pulls(t testing.TB, hub *hubtest.Hub, img *hubtest.Image) []string {
	t.Helper()
	all := []string{"tags/list", "referrers/" + img.Digest}
	for _, r := range resources(t, hub, img) {
		all = append(all, r.path)
	}
	return all
}

// "A registry that uses the ns query parameter to scope the request SHOULD return the ns query
// parameter value in the OCI-Namespace header": with every answer, errors and 304 too.
func TestOCIProxying_NamespaceOfEveryAnswer(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	for _, path := range append(pulls(t, hub, img), "manifests/none", "blobs/"+hubtest.Digest([]byte("none"))) {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for _, line := range []string{"X-None: 1", "If-None-Match: *", "Range: bytes=0-0", `If-Match: "other"`} {
				for _, ns := range []string{"docker.io", "registry-1.docker.io", "DOCKER.IO"} {
					a := c.ask(method, m.URL, "/v2/library/app/"+path+"?ns="+ns, line)
					a.assertHeader(t, "OCI-Namespace", ns)
				}
				if a := c.ask(method, m.URL, "/v2/library/app/"+path, line); a.Header.Get("OCI-Namespace") != "" {
					t.Errorf("%s: OCI-Namespace %q, which was not asked for", a.request, a.Header.Get("OCI-Namespace"))
				}
			}
		}
	}
}

// "Docker-Content-Digest: <digest>" is required of GET and HEAD, of manifests by tag and by digest and
// of blobs, and must be that of what is returned; whatever the registry behind the proxy sends.
func TestOCIProxying_DigestOfEveryAnswer(t *testing.T) {
	for name, fault := range map[string]hubtest.Fault{
		"as it should be": hubtest.Pass(), "none": hubtest.NoDigestHeader(), "garbage": hubtest.DigestHeader("latest"), "no HEAD": hubtest.HeadNotAllowed(),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: withToken, Do: fault})
			for _, r := range resources(t, hub, img) {
				for _, line := range []string{"X-None: 1", `If-None-Match: "` + r.digest + `"`, "Range: bytes=0-3"} {
					for _, method := range []string{http.MethodHead, http.MethodGet} { // cold, then warm
						a := c.ask(method, m.URL, "/v2/library/app/"+r.path, line)
						if a.Status != http.StatusOK && a.Status != http.StatusNotModified && a.Status != http.StatusPartialContent {
							t.Fatalf("%s: status %d: %s", a.request, a.Status, a.Body)
						}
						a.assertHeader(t, "Docker-Content-Digest", r.digest)
					}
				}
				r.assertBoth(t, c, m.URL, "/v2/library/app/"+r.path)
			}
		})
	}
}

// A registry may redirect any request. Its proxy goes there, and the client is told nothing of it.
func TestOCIProxying_RedirectsEverywhere(t *testing.T) {
	for _, code := range []int{301, 302, 303, 307, 308} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
			for _, route := range []hubtest.Route{hubtest.RouteManifest, hubtest.RouteBlob, hubtest.RouteTags, hubtest.RouteReferrers} {
				hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: route, When: withToken, Count: 1, Do: hubtest.RedirectRelative(code)})
			}
			for _, path := range pulls(t, hub, img) {
				for _, method := range []string{http.MethodHead, http.MethodGet} {
					a := c.ask(method, m.URL, "/v2/library/app/"+path+"?ns=docker.io")
					if a.Status != http.StatusOK || a.Header.Get("Location") != "" {
						t.Errorf("%d: %s: status %d, Location %q, want what was asked for", code, a.request, a.Status, a.Header.Get("Location"))
					}
				}
			}
			assertPulls(t, c, m, hub, img, shapes()[0])
			hub.AssertAllFired(t)
		})
	}
}

// What podman, CRI-O and skopeo send to a mirror of the form cache/docker.io once they have
// namespace-proxy (containers-registries.conf): the registry in the path and in ns, in every
// request, the ping too. It is the pull of an image of one platform through a cold mirror and
// again, word for word; each line is a request, and what the client sees of its answer.
func TestOCIProxying_NamespaceAndPathTogether(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Layers: 1, Seed: 7, Platforms: []string{"linux/amd64"}, Index: true})
	child := img.Children[0]
	steps := []string{
		"GET /v2/", "HEAD app/manifests/latest", "GET app/manifests/latest", "GET app/manifests/" + child.Digest,
		"GET app/blobs/" + child.Config.Digest, "HEAD app/blobs/" + child.Layers[0].Digest, "GET app/blobs/" + child.Layers[0].Digest,
		"GET app/manifests/none", "GET app/tags/list",
	}
	names := strings.NewReplacer(img.Digest, "INDEX", child.Digest, "MANIFEST", child.Config.Digest, "CONFIG", child.Layers[0].Digest, "LAYER")
	const want = `GET /v2/ 200 application/json
HEAD app/manifests/latest 200 INDEX application/vnd.oci.image.index.v1+json
GET app/manifests/latest 200 INDEX application/vnd.oci.image.index.v1+json
GET app/manifests/MANIFEST 200 MANIFEST application/vnd.oci.image.manifest.v1+json
GET app/blobs/CONFIG 200 CONFIG application/octet-stream
HEAD app/blobs/LAYER 200 LAYER application/octet-stream
GET app/blobs/LAYER 200 LAYER application/octet-stream
GET app/manifests/none 404 application/json
GET app/tags/list 200 application/json
`
	for _, ns := range []string{"docker.io", "index.docker.io"} {
		for _, prefix := range []string{"/v2/docker.io/library/", "/v2/docker.io/", "/docker.io/v2/library/", "/v2/registry-1.docker.io/library/"} {
			var got strings.Builder
			for _, step := range steps {
				method, path, _ := strings.Cut(step, " ")
				if path != "/v2/" {
					path = prefix + path
				}
				a := c.ask(method, m.URL, path+"?ns="+ns, "User-Agent: containers/5.38.0 (github.com/containers/image)")
				fmt.Fprintln(&got, strings.Join(strings.Fields(names.Replace(fmt.Sprint(step, " ", a.Status, " ", a.Header.Get("Docker-Content-Digest"), " ",
					strings.TrimSuffix(a.Header.Get("Content-Type"), "; charset=utf-8")))), " "))
				if path != "/v2/" {
					a.assertHeader(t, "OCI-Namespace", ns)
				}
			}
			if diff := cmp.Diff(want, got.String()); diff != "" {
				t.Errorf("%s with ns=%s (-want +got):\n%s", prefix, ns, diff)
			}
		}
	}
	for ns, registry := range map[string]string{"ghcr.io": "docker.io", "docker.io": "ghcr.io"} {
		a := c.ask(http.MethodGet, m.URL, "/v2/"+registry+"/library/app/manifests/latest?ns="+ns)
		if a.Status == http.StatusOK {
			t.Errorf("%s: status 200, though path and ns name two registries", a.request)
		}
	}
}
