package conformance

import (
	"net/http"
	"testing"
	"time"

	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// flow is a pull on the wire as one client makes it (docs/clients.md, "Classes").
type flow struct {
	name   string
	agent  string
	shape  shape
	pings  []string // paths that must answer 200
	head   bool     // the tag is asked for by HEAD first
	accept []string // header lines for manifests
	blob   []string // header lines for blobs
	lists  bool     // tags are listed too
}

func flows() []flow {
	s := shapes()
	ns, bare, prefix, both, root := s[0], s[1], s[2], s[3], s[4]
	ociTypes := "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, " +
		"application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
	containerd := []string{"Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, " +
		"application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*", "Accept-Encoding: zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"}
	docker := []string{
		"Accept: application/vnd.docker.distribution.manifest.v2+json", "Accept: application/vnd.docker.distribution.manifest.list.v2+json",
		"Accept: application/vnd.oci.image.index.v1+json", "Accept: application/vnd.oci.image.manifest.v1+json",
		"Accept: application/vnd.docker.distribution.manifest.v1+prettyjws", "Accept: application/json", "Accept-Encoding: gzip",
	}
	podman := []string{
		"Accept: application/vnd.oci.image.manifest.v1+json", "Accept: application/vnd.docker.distribution.manifest.v2+json",
		"Accept: application/vnd.docker.distribution.manifest.v1+prettyjws", "Accept: application/vnd.docker.distribution.manifest.v1+json",
		"Accept: application/vnd.docker.distribution.manifest.list.v2+json", "Accept: application/vnd.oci.image.index.v1+json",
		"Docker-Distribution-API-Version: registry/2.0", "Accept-Encoding: gzip",
	}
	layer := []string{"Accept: application/vnd.oci.image.layer.v1.tar+gzip, */*", "Accept-Encoding: zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"}
	return []flow{
		{"dockerd graph store", agentDocker, bare, []string{"/v2/"}, true, docker, []string{"Accept-Encoding: gzip"}, false},
		{"dockerd with a path", agentDocker, root, []string{"/docker.io/v2/"}, true, docker, []string{"Accept-Encoding: gzip"}, false},
		{"dockerd containerd store", agentDockerC8D, ns, nil, true, containerd, layer, false},
		{"containerd", agentContainerd, ns, nil, true, containerd, layer, false},
		{"containerd in pieces", agentContainerd, ns, nil, true, append([]string{"Range: bytes=0-"}, containerd...), append([]string{"Range: bytes=0-"}, layer...), false},
		{"containerd override_path", agentContainerd, both, nil, true, containerd, layer, false},
		{"BuildKit", agentBuildKit, ns, nil, true, containerd, layer, false},
		{"podman", agentPodman, prefix, []string{"/v2/"}, false, podman, []string{"Accept-Encoding: gzip"}, false},
		{"CRI-O", agentCRIO, prefix, []string{"/v2/"}, false, podman, []string{"Accept-Encoding: gzip"}, false},
		{"skopeo", agentSkopeo, prefix, []string{"/v2/"}, false, podman, nil, true},
		{"crane", agentCrane, prefix, []string{"/v2/"}, true, []string{ociTypes}, nil, true},
		{"kaniko", agentKaniko, prefix, []string{"/v2/"}, false, []string{ociTypes}, nil, false},
		{"oras", agentORAS, prefix, nil, true, []string{ociTypes + ", application/vnd.oci.artifact.manifest.v1+json"}, nil, true},
		{"Helm", agentHelm, prefix, nil, true, []string{ociTypes}, nil, true},
		{"regctl", agentRegctl, shape{"ns of regclient", "/v2/", "registry-1.docker.io"}, nil, true, []string{ociTypes}, nil, true},
		{"Renovate", agentRenovate, prefix, []string{"/v2/"}, true, []string{ociTypes}, nil, true},
		{"stargz", "Go-http-client/1.1", bare, nil, false, []string{"Accept: */*"}, []string{"Accept-Encoding: identity"}, false},
		{"curl", "curl/8.5.0", prefix, []string{"/v2/"}, false, []string{"Accept: */*"}, []string{"Accept: */*"}, true},
		{"no Accept", "wget", bare, []string{"/v2/"}, false, nil, nil, false},
	}
}

// M60: every client, as it speaks, gets every kind of image, cold and warm.
func TestM60_ClientsOnTheWire(t *testing.T) {
	t.Parallel()
	for _, f := range flows() {
		t.Run(f.name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			for _, s := range samples() {
				img := hub.PushImage("library/"+s.name, "latest", s.spec)
				for range 2 {
					f.pull(t, c, m, hub, img)
				}
			}
			m.Restart()
			hub.SwitchOff()
			for _, s := range samples() {
				f.pull(t, c, m, hub, hub.PushImage("library/"+s.name, "latest", s.spec))
			}
		})
	}
}

func (f flow) pull(t *testing.T, c *client, m *mirrortest.Mirror, hub *hubtest.Hub, img *hubtest.Image) {
	t.Helper()
	agent := "User-Agent: " + f.agent
	for _, ping := range f.pings {
		if a := c.get(m.URL, ping, agent); a.Status != http.StatusOK {
			t.Fatalf("%s: status %d, want 200", a.request, a.Status)
		}
	}
	for i, r := range resources(t, hub, img) {
		lines := append([]string{agent}, f.accept...)
		if r.blob {
			lines = append([]string{agent}, f.blob...)
		}
		path := f.shape.path(img.Repo, r.path)
		if i == 0 && f.head {
			r.assert(t, c.head(m.URL, path, lines...))
			continue // these go on by digest
		}
		a := c.get(m.URL, path, lines...)
		if a.Status == http.StatusPartialContent {
			rangeCase{a.request, http.StatusPartialContent, 0, len(r.raw)}.assert(t, a, r.digest, r.raw)
			continue
		}
		r.assert(t, a)
	}
	if f.lists {
		if l := c.get(m.URL, f.shape.path(img.Repo, "tags/list?n=10000"), agent).tags(t); len(l.Tags) != 1 || l.Tags[0] != "latest" {
			t.Errorf("tags are %q, want [latest]", l.Tags)
		}
	}
}

// M60: a client that does not want what there is, is told so and not given something else.
func TestM60_AcceptIsNotConverted(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	list := hub.PushImage("library/list", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}, Docker: true})
	for range 2 {
		for _, method := range []string{http.MethodHead, http.MethodGet} {
			a := c.ask(method, m.URL, "/v2/library/list/manifests/latest", "Accept: application/vnd.docker.distribution.manifest.v1+prettyjws")
			a.assertError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
			a = c.ask(method, m.URL, "/v2/library/list/manifests/latest", "Accept: "+hubtest.DockerManifest)
			a.assertError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
		}
		c.get(m.URL, "/v2/library/list/manifests/latest", "Accept: "+hubtest.DockerList+";q=0.5, application/json;q=0.1").
			assertManifest(t, list.MediaType, list.Digest, list.Raw)
	}
}

// M62: dockerd goes to Docker Hub on any error, so for an image that is here there is none,
// whatever the upstream does, except refuse access.
func TestM62_CachedImagesAreAlwaysServed(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"500": hubtest.Status(500), "502": hubtest.StatusHTML(502), "503": hubtest.StatusEmpty(503), "504": hubtest.Status(504), "520": hubtest.StatusHTML(520),
		"404": hubtest.Status(404), "404 HTML": hubtest.StatusHTML(404), "400": hubtest.Status(400), "405": hubtest.Status(405), "408": hubtest.Status(408),
		"418": hubtest.StatusEmpty(418), "pull limit": hubtest.RateLimited(), "abuse": hubtest.Abuse429(), "429 with a date": hubtest.StatusRetryAfter(429, "Wed, 21 Oct 2099 07:28:00 GMT"),
		"closed": hubtest.NoReply(hubtest.FIN), "reset": hubtest.NoReply(hubtest.RST), "hangs": hubtest.Hang(), "slow headers": hubtest.SlowHeaders(time.Second),
		"not HTTP": hubtest.RawCL("x"), "HTML with 200": hubtest.StatusWith(200, "text/html", "<html>login</html>", nil), "empty": hubtest.StatusEmpty(200),
		"no digest": hubtest.NoDigestHeader(), "bad digest": hubtest.DigestHeader("x"),
		"wrong type": hubtest.ContentType("text/plain"), "no type": hubtest.ContentType(""), "redirect to evil": hubtest.RedirectTo(307, "{evil}/x"),
		"redirect loop": hubtest.RedirectLoop(302), "redirect nowhere": hubtest.RedirectNowhere(307), "304": hubtest.StatusEmpty(304), "204": hubtest.StatusEmpty(204),
		"corrupt": hubtest.Corrupt(3), "big headers": hubtest.BigHeaders(300 << 10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hub := hubtest.New(t, hubtest.Options{})
			mo := mirrortest.Options{TagTTL: alwaysAsk, Upstreams: map[string]mirrortest.Upstream{"docker.io": {Hub: hub}}}
			m := mirrortest.New(t, calm(mo))
			c := newClient(t)
			var images []*hubtest.Image
			for _, s := range samples()[:4] {
				images = append(images, hub.PushImage("library/"+s.name, "latest", s.spec))
				pull(t, c, m, hub, images[len(images)-1])
			}
			hub.AddRule(hubtest.Rule{Do: fault})
			suffer(m, hub, name)
			check := func() {
				for _, img := range images {
					for _, f := range flows()[:4] {
						f.pull(t, c, m, hub, img)
					}
				}
			}
			check()
			m.Restart() // without a token
			check()
			hub.AssertNoLeaks(t)
		})
	}
}
