package conformance

import (
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"testing"

	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// T01 of docs/clients.md, moby#42022: dockerd hands its Docker Hub password to any mirror
// that answers 401. No path, no error, no challenge of the upstream brings one out. What is forbidden is
// checked for every answer of this package, by [answer.assertSane].
func TestT01_NeverAChallenge(t *testing.T) {
	t.Parallel()
	challenges := map[string]hubtest.Fault{
		"Basic": hubtest.Challenge(`Basic realm="hub"`), "two": hubtest.Challenge(`Negotiate`, `Basic realm="x"`),
		"none": hubtest.Status(401), "403": hubtest.Status(403), "html": hubtest.StatusHTML(401),
		"bad realm": hubtest.Challenge(`Bearer realm="::::",service="x"`), "no realm": hubtest.Challenge(`Bearer service="x"`),
		"proxy": hubtest.Status(407), "on a 200": hubtest.Header("Www-Authenticate", `Basic realm="x"`),
	}
	for name, fault := range challenges {
		for _, fallback := range []proxy.Fallback{proxy.FallbackClients, proxy.FallbackNone} {
			t.Run(name, func(t *testing.T) {
				hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{Fallback: fallback})
				img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
				hub.AddRepo("library/private", hubtest.RepoOpts{Private: true})
				hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: fault})
				for _, s := range shapes() {
					for _, repo := range []string{"library/app", "library/private", "library/nowhere"} {
						for _, resource := range []string{
							"manifests/latest", "manifests/" + img.Digest, "blobs/" + img.Children[0].Config.Digest,
							"tags/list", "referrers/" + img.Digest,
						} {
							for _, auth := range []string{"X-None: 1", "Authorization: Basic aHViOnB3", "Authorization: Bearer x"} {
								c.get(m.URL, s.path(repo, resource), auth)
							}
							c.head(m.URL, s.path(repo, resource))
						}
					}
				}
				for _, path := range []string{"/v2/", "/v2/_catalog", "/docker.io/v2/", "/token", "/v1/_ping"} {
					c.get(m.URL, path, "Authorization: Basic aHViOnB3")
				}
			})
		}
	}
}

// T05, T09: for-mac#5143, harbor#13740, containerd#3110, #5124: HEAD of a manifest without
// Content-Length, or with a wrong one, whatever the upstream says to its HEAD.
func TestT05_T09_HeadHasTheLength(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"well": hubtest.Pass(), "no length": hubtest.RawCL(), "zero": hubtest.RawCL("0"), "chunked": hubtest.Chunked(), "gzip": hubtest.Gzip(1),
		"405": hubtest.HeadNotAllowed(), "401": hubtest.HeadUnauthorized(), "403": hubtest.HeadStatus(403),
		"404": hubtest.HeadStatus(404), "304": hubtest.HeadStatus(304), "no digest": hubtest.NoDigestHeader(),
		"bad digest": hubtest.DigestHeader("sha256:nonsense"), "no type": hubtest.ContentType(""),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Method: http.MethodHead, Do: fault})
			for _, s := range samples() {
				img := hub.PushImage("library/"+s.name, "latest", s.spec)
				for _, enc := range []string{"identity", "gzip", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"} {
					for _, ref := range []string{"latest", img.Digest} {
						c.head(m.URL, "/v2/library/"+s.name+"/manifests/"+ref+"?ns=docker.io", "Accept-Encoding: "+enc).
							assertManifest(t, img.MediaType, img.Digest, img.Raw)
					}
				}
			}
			m.Restart()
			for _, s := range samples() {
				digest := hub.Tag("library/"+s.name, "latest")
				a := c.head(m.URL, "/v2/library/"+s.name+"/manifests/latest")
				a.assertHeader(t, "Docker-Content-Digest", digest)
				if a.Length != int64(len(hub.Bytes(digest))) {
					t.Errorf("%s: Content-Length %d, want %d", a.request, a.Length, len(hub.Bytes(digest)))
				}
			}
		})
	}
}

// T09: an answer to HEAD that is no HTTP is an error, never a length.
func TestT09_BrokenLengthsAreErrors(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"two that differ": hubtest.RawCL("5", "6"), "negative": hubtest.RawCL("-1"), "no number": hubtest.RawCL("many"),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
			broken := hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Method: http.MethodHead, Do: fault})
			for _, ref := range []string{"latest", img.Digest} {
				if a := c.head(m.URL, "/v2/library/app/manifests/"+ref); a.Status < 500 {
					t.Errorf("%s: status %d with length %d, want a 5xx", a.request, a.Status, a.Length)
				}
			}
			broken.Remove()
			c.recovers(m.URL, "/v2/library/app/manifests/latest")
			c.head(m.URL, "/v2/library/app/manifests/latest").assertManifest(t, img.MediaType, img.Digest, img.Raw)
		})
	}
}

// T06, T44: docker/cli#5304: a missing or inexact Content-Type of a manifest, which podman
// and skopeo fail on for good. It is the stored type, or there is no 200.
func TestT06_T44_ExactContentType(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fault hubtest.Fault
		works bool
	}{
		{"well", hubtest.Pass(), true},
		{"charset", hubtest.Edit("charset", func(_ *http.Request, a *hubtest.Reply) {
			a.Header.Set("Content-Type", a.Header.Get("Content-Type")+"; charset=utf-8")
		}), true},
		{"upper case", hubtest.Edit("upper", func(_ *http.Request, a *hubtest.Reply) {
			a.Header.Set("Content-Type", strings.ToUpper(a.Header.Get("Content-Type")))
		}), true},
		{"absent", hubtest.ContentType(""), true},
		{"octets", hubtest.ContentType("application/octet-stream"), true},
		{"JSON", hubtest.ContentType("application/json"), true},
		{"HTML", hubtest.ContentType("text/html"), false},
		{"another manifest type", hubtest.ContentType("application/vnd.docker.distribution.manifest.v1+prettyjws"), false},
		{"nonsense", hubtest.ContentType("application/vnd.example; ;;"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			onlyOK := func(s *hubtest.State) bool { return s.Bearer }
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: onlyOK, Do: tt.fault})
			check := func(phase string) {
				for _, s := range samples() {
					repo := "library/" + s.name
					digest := hub.Tag(repo, "latest")
					raw := hub.Bytes(digest)
					for _, agent := range []string{agentPodman, agentContainerd} {
						for _, ref := range []string{"latest", digest} {
							for _, method := range []string{http.MethodGet, http.MethodHead} {
								a := c.ask(method, m.URL, "/v2/docker.io/"+repo+"/manifests/"+ref, "User-Agent: "+agent)
								switch {
								case a.Status == http.StatusOK:
									a.assertManifest(t, typeOf(t, s), digest, raw)
								case tt.works:
									t.Errorf("%s: %s: status %d (%s), want 200", phase, a.request, a.Status, a.Body)
								}
							}
						}
					}
				}
			}
			for _, s := range samples() {
				hub.PushImage("library/"+s.name, "latest", s.spec)
			}
			check("cold")
			check("warm")
			m.Restart()
			check("restarted")
		})
	}
}

// typeOf is the media type of a sample's top manifest.
func typeOf(t testing.TB, s sample) string {
	t.Helper()
	index := len(s.spec.Platforms) > 1
	switch {
	case s.spec.Docker && index:
		return hubtest.DockerList
	case s.spec.Docker:
		return hubtest.DockerManifest
	case index:
		return hubtest.OCIIndex
	default:
		return hubtest.OCIManifest
	}
}

// T08, moby#17595: a proxy that compresses blobs again. Bytes never change, nothing is
// said to be encoded, and the upstream is asked for identity.
func TestT08_NoEncoding(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	var images []*hubtest.Image
	for _, s := range samples() {
		images = append(images, hub.PushImage("library/"+s.name, "latest", s.spec))
	}
	for range 2 {
		for _, enc := range []string{"gzip", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5", "br, *", "identity;q=0", ""} {
			for _, img := range images {
				for _, r := range resources(t, hub, img) {
					r.assertBoth(t, c, m.URL, "/v2/"+img.Repo+"/"+r.path, "Accept-Encoding: "+enc)
				}
				c.get(m.URL, "/v2/"+img.Repo+"/tags/list", "Accept-Encoding: "+enc).tags(t)
			}
		}
	}
	for enc, n := range hub.Counters().AcceptEncoding {
		if enc != "identity" {
			t.Errorf("%d upstream requests had Accept-Encoding %q, want identity", n, enc)
		}
	}
}

// T10, containerd#7390: the blobs endpoint must not give manifests, nor the manifests
// endpoint blobs, though both have digests and lie in one store.
func TestT10_BlobsAreNoManifests(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	check := func() {
		for _, s := range shapes() {
			for _, d := range img.Manifests() {
				c.head(m.URL, s.path("library/app", "blobs/"+d.Digest)).assertError(t, http.StatusNotFound, "BLOB_UNKNOWN")
				c.get(m.URL, s.path("library/app", "blobs/"+d.Digest)).assertError(t, http.StatusNotFound, "BLOB_UNKNOWN")
			}
			for _, d := range img.Blobs() {
				c.head(m.URL, s.path("library/app", "manifests/"+d.Digest)).assertError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
				c.get(m.URL, s.path("library/app", "manifests/"+d.Digest)).assertError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
			}
		}
	}
	check()
	m.Restart() // forgets what is not there
	pull(t, c, m, hub, img)
	check()
	hub.SwitchOff()
	m.Restart()
	for _, d := range img.Manifests() {
		if a := c.get(m.URL, "/v2/library/app/blobs/"+d.Digest); a.Status != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", a.request, a.Status)
		}
	}
}

// T20, containerd#10996 and others: clients offer a mirror the credentials of the
// registry. They, and all else that tells of a client, are neither used, nor sent on, nor
// logged, nor written down.
func TestT20_ClientCredentialsGoNowhere(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
	const secret = "dckr_pat_EXAMPLEsecretEXAMPLE"
	basic := base64.StdEncoding.EncodeToString([]byte("hubuser:" + secret))
	var mu sync.Mutex
	var leaked []string
	hub.AddRule(hubtest.Rule{Do: hubtest.Pass(), Count: 1, When: func(s *hubtest.State) bool {
		mu.Lock()
		defer mu.Unlock()
		for name, values := range s.Request.Header {
			for _, v := range values {
				if strings.Contains(v, secret) || strings.Contains(v, basic) || strings.Contains(v, "203.0.113.7") || strings.Contains(v, agentContainerd) {
					leaked = append(leaked, name+": "+v)
				}
			}
		}
		if q := s.Request.URL.RawQuery; strings.Contains(q, secret) || strings.Contains(q, "ns=") {
			leaked = append(leaked, q)
		}
		return true
	}})
	for range 2 {
		for _, lines := range [][]string{
			{"Authorization: Basic " + basic}, {"Authorization: Bearer " + secret}, {"Proxy-Authorization: Basic " + basic},
			{"Cookie: session=" + secret}, {"X-Registry-Auth: " + secret},
		} {
			lines = append(lines, "User-Agent: "+agentContainerd, "X-Forwarded-For: 203.0.113.7", "Forwarded: for=203.0.113.7",
				"Via: 1.1 203.0.113.7", "Referer: http://203.0.113.7/"+secret, "X-Forwarded-Host: evil.example")
			for _, r := range resources(t, hub, img) {
				r.assert(t, c.get(m.URL, "/v2/library/app/"+r.path+"?ns=docker.io&account="+secret, lines...))
			}
			c.get(m.URL, "/v2/library/app/tags/list?ns=docker.io", lines...).tags(t)
			c.get(m.URL, "/v2/library/app/manifests/missing?ns=docker.io&token="+secret, lines...).assertError(t, 404, "MANIFEST_UNKNOWN")
			c.get(m.URL, "/v2/?token="+secret, lines...)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, l := range leaked {
		t.Errorf("sent upstream: %s", l)
	}
	m.AssertNoSecret(t, secret, basic)
}

// T33, harbor#13112 and others: a HEAD turned into a GET burns the quota. A warm pull
// costs nothing, and a stale one a single HEAD.
func TestT33_WarmPullsCostNoPull(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	c.head(m.URL, "/v2/library/app/manifests/latest").assertManifest(t, img.MediaType, img.Digest, img.Raw)
	if n := hub.ChargedTotal(); n != 0 {
		t.Errorf("a HEAD was charged with %d pulls, want 0", n)
	}
	pull(t, c, m, hub, img)
	hub.ResetCounters()
	charged := hub.ChargedTotal()
	pull(t, c, m, hub, img)
	if n := hub.Requests(); n != 0 {
		t.Errorf("a warm pull made %d upstream requests, want 0", n)
	}
	m.RestartWith(func(o *mirrortest.Options) { o.TagTTL = alwaysAsk })
	c.get(m.URL, "/v2/library/app/manifests/latest").assertManifest(t, img.MediaType, img.Digest, img.Raw)
	if n := hub.Count(hubtest.Query{Method: http.MethodHead, Route: hubtest.RouteManifest, Status: 200}); n != 1 {
		t.Errorf("a stale tag cost %d HEADs, want 1", n)
	}
	if n := hub.Count(hubtest.Query{Method: http.MethodGet, Route: hubtest.RouteManifest}); n != 0 {
		t.Errorf("a stale tag cost %d GETs, want 0", n)
	}
	if n := hub.ChargedTotal(); n != charged {
		t.Errorf("warm pulls were charged with %d, want 0", n-charged)
	}
}

// T33, hub-feedback#1907: Docker Hub's limits in all their shapes are a 429 with a
// document and a number of seconds, for clients that have nowhere else to go.
func TestT33_HubsLimitsInAllShapes(t *testing.T) {
	t.Parallel()
	for _, abuse := range []hubtest.AbuseStyle{hubtest.AbusePlain, hubtest.AbuseHAP429, hubtest.AbuseRawLF} {
		t.Run("abuse "+string(abuse), func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{AbuseStyle: abuse}, mirrortest.Options{})
			hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
			hub.AddRule(hubtest.Rule{Do: hubtest.Abuse429()})
			assertLimited(t, c.get(m.URL, "/v2/docker.io/library/app/manifests/latest", "User-Agent: "+agentCrane))
		})
	}
	for _, style := range []hubtest.RetryAfterStyle{
		hubtest.RetryNone, hubtest.RetrySeconds, hubtest.RetryDate, hubtest.RetryPast, hubtest.RetryUnix, hubtest.RetryDuration,
	} {
		t.Run("pull limit "+string(style), func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{RetryAfter: style, Anonymous: hubtest.Plan{Limit: 1, Window: 3600e9}}, mirrortest.Options{})
			one := hub.PushImage("library/one", "latest", hubtest.ImageSpec{})
			hub.PushImage("library/two", "latest", hubtest.ImageSpec{})
			c.get(m.URL, "/v2/library/one/manifests/latest").assertManifest(t, one.MediaType, one.Digest, one.Raw)
			assertLimited(t, c.get(m.URL, "/v2/docker.io/library/two/manifests/latest", "User-Agent: "+agentCrane))
		})
	}
}

func assertLimited(t testing.TB, a *answer) {
	t.Helper()
	a.assertError(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	a.assertRetryAfter(t)
}

// T38, ggcr#1200: what crane looks at on the wire.
func TestT38_CraneOnTheWire(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	const accept = "Accept: application/vnd.docker.distribution.manifest.v2+json,application/vnd.docker.distribution.manifest.list.v2+json," +
		"application/vnd.oci.image.manifest.v1+json,application/vnd.oci.image.index.v1+json"
	for _, s := range samples() {
		img := hub.PushImage("library/"+s.name, "v1", s.spec)
		base := "/v2/docker.io/library/" + s.name
		if a := c.get(m.URL, "/v2/", "User-Agent: "+agentCrane); a.Status != http.StatusOK {
			t.Fatalf("ping: status %d, want 200", a.Status)
		}
		c.head(m.URL, base+"/manifests/v1", accept, "User-Agent: "+agentCrane).assertManifest(t, img.MediaType, img.Digest, img.Raw)
		for _, r := range resources(t, hub, img) {
			r.assert(t, c.get(m.URL, base+"/"+r.path, accept, "User-Agent: "+agentCrane))
		}
		a := c.get(m.URL, base+"/tags/list?n=1000", "User-Agent: "+agentCrane)
		if l := a.tags(t); len(l.Tags) != 1 || l.Name != "docker.io/library/"+s.name {
			t.Errorf("%s: %+v, want one tag of docker.io/library/%s", a.request, l, s.name)
		}
		c.get(m.URL, base+"/referrers/"+img.Digest, "User-Agent: "+agentCrane).referrers(t)
	}
}

// T45, oras-go: a HEAD by tag without Docker-Content-Digest is an error there, also when
// the upstream names no digest, or a wrong one.
func TestT45_HeadByTagNamesTheDigest(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"none": hubtest.NoDigestHeader(), "garbage": hubtest.DigestHeader("latest"), "sha512": hubtest.Sha512DigestHeader(),
		"md5": hubtest.DigestHeader("md5:d41d8cd98f00b204e9800998ecf8427e"), "empty": hubtest.DigestHeader(" "),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			img := hub.PushImage("library/app", "v1", hubtest.ImageSpec{})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Do: fault})
			for range 2 {
				for _, method := range []string{http.MethodHead, http.MethodGet} {
					a := c.ask(method, m.URL, "/v2/docker.io/library/app/manifests/v1", "User-Agent: "+agentORAS)
					if a.Status != http.StatusOK {
						t.Fatalf("%s: status %d (%s), want 200", a.request, a.Status, a.Body)
					}
					got := a.Header.Get("Docker-Content-Digest")
					if got != img.Digest && got != hubtest.DigestBy("sha512", img.Raw) {
						t.Errorf("%s: digest %q is not of the manifest", a.request, got)
					}
				}
			}
		})
	}
}
