package conformance

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/wire"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// The version check answers 200 in every shape, with or without an upstream.
func TestOCIPull_VersionCheck(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	check := func(t *testing.T) {
		for _, path := range []string{"/v2/", "/v2", "/docker.io/v2/", "/docker.io/v2", "/v2/?ns=docker.io"} {
			if a := c.get(m.URL, path); a.Status != http.StatusOK || string(a.Body) != "{}" {
				t.Errorf("GET %s: status %d, body %q, want 200 {}", path, a.Status, a.Body)
			}
			if a := c.head(m.URL, path); a.Status != http.StatusOK {
				t.Errorf("HEAD %s: status %d, want 200", path, a.Status)
			}
		}
	}
	check(t)
	hub.SwitchOff()
	check(t)
	if n := hub.Requests(); n != 0 {
		t.Errorf("hub saw %d requests, want 0: a ping asks nobody", n)
	}
}

// Every kind of image, in every shape of URL, HEAD and GET, cold, warm, after a restart,
// and with the upstream switched off, has the same bytes and headers.
func TestOCIPull_EveryImageInEveryShape(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{Anonymous: hubtest.Unlimited()}, mirrortest.Options{TagTTL: time.Hour}) // however busy the machine is
	var images []*hubtest.Image
	for _, s := range samples() {
		images = append(images, hub.PushImage("library/"+s.name, "latest", s.spec))
	}
	all := func(phase string) {
		t.Run(phase, func(t *testing.T) {
			for _, img := range images {
				for _, s := range shapes() {
					t.Run(img.Repo+" "+s.name, func(t *testing.T) { assertPulls(t, c, m, hub, img, s) })
				}
			}
		})
	}
	all("cold")
	asked := hub.Requests()
	all("warm")
	if n := hub.Requests(); n != asked {
		t.Errorf("warm: hub saw %d more requests, want 0", n-asked)
	}
	m.Restart()
	all("restarted")
	if n := hub.Requests(); n != asked {
		t.Errorf("restarted: hub saw %d more requests, want 0", n-asked)
	}
	hub.SwitchOff()
	all("upstream off")
	m.RestartWith(func(o *mirrortest.Options) { o.TagTTL = alwaysAsk })
	all("upstream off, tags stale")
}

// The first request of all for something may be any of these, in any shape.
func TestOCIPull_AnyRequestMayBeTheFirst(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{Anonymous: hubtest.Unlimited()}, mirrortest.Options{})
	n := 0
	for _, s := range samples() {
		for _, sh := range shapes() {
			for _, method := range []string{http.MethodHead, http.MethodGet} {
				for _, pick := range []string{"tag", "digest", "child", "blob"} {
					n++
					img := hub.PushImage(fmt.Sprintf("first/r%d", n), "v1", s.spec)
					r := resources(t, hub, img)[0]
					switch pick {
					case "digest":
						r = resources(t, hub, img)[1]
					case "child":
						d := img.Children[len(img.Children)-1]
						r = resource{"manifests/" + d.Digest, false, d.MediaType, d.Digest, d.Raw}
					case "blob":
						all := resources(t, hub, img)
						r = all[len(all)-1]
					}
					t.Run(strings.Join([]string{s.name, sh.name, method, pick}, " "), func(t *testing.T) {
						r.assert(t, c.ask(method, m.URL, sh.path(img.Repo, r.path)))
					})
				}
			}
		}
	}
}

// Shapes differ in OCI-Namespace and in nothing else.
func TestOCIPull_ShapesAnswerAlike(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/alike", "v1", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	for _, r := range resources(t, hub, img) {
		c.get(m.URL, "/v2/library/alike/"+r.path)
		want := c.get(m.URL, "/v2/library/alike/"+r.path)
		for _, s := range shapes() {
			a := c.get(m.URL, s.path(img.Repo, r.path))
			got, first := stable(a.Header), stable(want.Header)
			got.Del("OCI-Namespace")
			if diff := cmp.Diff(first, got); diff != "" {
				t.Errorf("%s: headers differ from those without ns and prefix:\n%s", a.request, diff)
			}
			a.assertWhole(t, r.raw)
		}
	}
}

// One-word names of Docker Hub, aliases of it, and ways of writing ns reach the same thing.
func TestOCIPull_NamesOfDockerHub(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/busybox", "1.36", hubtest.ImageSpec{})
	for _, path := range []string{
		"/v2/busybox/manifests/1.36",
		"/v2/docker.io/busybox/manifests/1.36",
		"/docker.io/v2/busybox/manifests/1.36",
		"/v2/index.docker.io/library/busybox/manifests/1.36",
		"/v2/registry-1.docker.io/library/busybox/manifests/1.36",
		"/v2/registry.hub.docker.com/busybox/manifests/1.36",
		"/v2/library/busybox/manifests/1.36?ns=registry-1.docker.io",
		"/v2/library/busybox/manifests/1.36?ns=index.docker.io",
		"/v2/library/busybox/manifests/1.36?ns=DOCKER.IO",
		"/v2/library/busybox/manifests/1.36?ns=docker.io&unknown=parameter",
		"/v2/library/busybox/manifests/1.36?ns=",
		"/v2/docker.io/library/busybox/manifests/1.36?ns=registry-1.docker.io",
		"/index.docker.io/v2/library/busybox/manifests/1.36?ns=docker.io",
		"/v2/library/busybox/manifests/" + strings.Replace(img.Digest, ":", "%3A", 1),
		"/v2/library/busybox/manifests/" + strings.Replace(img.Digest, ":", "%3a", 1),
	} {
		t.Run(path, func(t *testing.T) {
			c.head(m.URL, path).assertManifest(t, img.MediaType, img.Digest, img.Raw)
			c.get(m.URL, path).assertManifest(t, img.MediaType, img.Digest, img.Raw)
		})
	}
	if n := hub.ManifestGets(img.Digest); n != 1 {
		t.Errorf("hub sent the manifest %d times, want 1: all names are one repository", n)
	}
}

// What is not there is 404, with the code of what was asked for; nothing is there after
// it either.
func TestOCIPull_MissingContent(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	hub.PushImage("library/there", "latest", hubtest.ImageSpec{})
	absent := strings.Repeat("0123456789abcdef", 8)
	cases := []struct{ name, resource, code string }{
		{"tag", "manifests/not-there", "MANIFEST_UNKNOWN"},
		{"the suite's tag", "manifests/.INVALID_MANIFEST_NAME", "MANIFEST_UNKNOWN"},
		{"digest", "manifests/sha256:" + absent[:64], "MANIFEST_UNKNOWN"},
		{"digest sha512", "manifests/sha512:" + absent, "MANIFEST_UNKNOWN"},
		{"blob", "blobs/sha256:" + absent[:64], "BLOB_UNKNOWN"},
		{"blob sha512", "blobs/sha512:" + absent, "BLOB_UNKNOWN"},
		{"blob blake3", "blobs/blake3:" + absent[:64], "BLOB_UNKNOWN"},
	}
	for _, s := range shapes() {
		for _, tt := range cases {
			t.Run(s.name+" "+tt.name, func(t *testing.T) {
				path := s.path("library/there", tt.resource)
				c.head(m.URL, path).assertError(t, http.StatusNotFound, tt.code)
				c.get(m.URL, path).assertError(t, http.StatusNotFound, tt.code)
				c.get(m.URL, path).assertError(t, http.StatusNotFound, tt.code)
			})
		}
	}
	t.Run("repository", func(t *testing.T) {
		// Docker Hub denies what is not there. A mirror's client is told that it is not there.
		for _, resource := range []string{"manifests/latest", "tags/list", "blobs/sha256:" + absent[:64], "manifests/sha256:" + absent[:64]} {
			if a := c.get(m.URL, "/v2/library/nowhere/"+resource); a.Status != http.StatusNotFound {
				t.Errorf("%s: status %d, want 404", a.request, a.Status)
			}
		}
	})
	hub.DeleteTag("library/there", "latest")
	c.get(m.URL, "/v2/library/there/manifests/latest").assertError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
}

// Digests that are none are refused with a document, and nobody is asked about them. The
// official suite sends one with a request body.
func TestOCIPull_InvalidDigests(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	hex := strings.Repeat("0123456789abcdef", 4)
	for _, digest := range []string{
		"sha256:totallywrong", "sha256:", ":", "sha256:" + hex[:63], "sha256:" + hex + "0", "sha256:" + strings.ToUpper(hex),
		"SHA256:" + hex, "sha512:" + hex, "sha1:" + hex[:40], "md5:" + hex[:32], "sha256:" + hex[:62] + "..", "sha256:" + hex + ":" + hex,
		"blake3:" + hex[:63], "blake3:" + strings.ToUpper(hex), "blake2b:" + hex, "sha256:" + hex[:60] + "%2e%2e", "sha256+b64:" + hex,
	} {
		for _, kind := range []string{"manifests/", "blobs/", "referrers/"} {
			t.Run(kind+digest, func(t *testing.T) {
				for _, s := range shapes() {
					path := s.path("library/any", kind+digest)
					for _, a := range []*answer{c.get(m.URL, path), c.head(m.URL, path)} {
						if a.Status != http.StatusBadRequest && a.Status != http.StatusNotFound {
							t.Errorf("%s: status %d, want 400 or 404", a.request, a.Status)
						}
					}
				}
			})
		}
	}
	t.Run("with a request body", func(t *testing.T) {
		a := c.withBody(http.MethodGet, m.URL, "/v2/library/any/manifests/sha256:totallywrong", strings.Repeat("x", 1000))
		a.assertError(t, http.StatusBadRequest, "DIGEST_INVALID")
	})
	if n := hub.Requests(); n != 0 {
		t.Errorf("hub saw %d requests, want 0", n)
	}
}

// Names outside the grammar are refused, and nobody is asked about them.
func TestOCIPull_InvalidNames(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	for _, path := range []string{
		"/v2/Library/alpine/manifests/latest", "/v2/library/../alpine/manifests/latest", "/v2/library//alpine/manifests/latest",
		"/v2/library/%2e%2e/alpine/manifests/latest", "/v2/library%2Falpine/manifests/latest", "/v2/library/alpine/manifests/%00",
		"/v2/-library/alpine/manifests/latest", "/v2/library_/alpine/manifests/latest", "/v2/lib___rary/alpine/manifests/latest",
		"/v2/library/alpine./manifests/latest", "/v2/" + strings.Repeat("a/", 128) + "b/manifests/latest", "/v2//manifests/latest",
		"/v2/library/alpine/manifests/" + strings.Repeat("a", 129), "/v2/library/alpine/manifests/-latest",
		"/v2/library/alpine/manifests/lat~est", "/v2/library/alpine/manifests/", "/v2/library/alpine/manifests",
		"/v2/library/alpine/blobs/latest", "/v2/library/alpine/blobs/", "/v2/library/alpine/tags/", "/v2/library/alpine/tags/other",
		"/v2/library/alpine/referrers/latest", "/v2/library/alpine/nothing/latest", "/v2/library/alpine", "/v2/x", "/",
		"/v1/_ping", "/v1/library/alpine/manifests/latest", "/favicon.ico",
		"/v2/library/alpine/manifests/latest/", "/v2/library/alpine/manifests/la%20test", "/v2/..%2f..%2fetc/passwd/manifests/latest",
		"/v2/library/alpine/blobs/..%2F..%2F..%2Fetc%2Fpasswd", "/v2/библиотека/alpine/manifests/latest",
	} {
		t.Run(path, func(t *testing.T) {
			for _, a := range []*answer{c.get(m.URL, path), c.head(m.URL, path)} {
				if a.Status != http.StatusBadRequest && a.Status != http.StatusNotFound {
					t.Errorf("%s: status %d, want 400 or 404", a.request, a.Status)
				}
			}
		})
	}
	if n := hub.Requests(); n != 0 {
		t.Errorf("hub saw %d requests, want 0:\n%s", n, hub.Ledger())
	}
}

// rangeCase is a Range header and what it means for a blob.
type rangeCase struct {
	header   string
	status   int
	from, to int // of the bytes in a 206, to excluded; of 200 the whole
}

// rangeCases are those of the official suite and what clients really send, for a blob of
// size bytes, at least 5000.
func rangeCases(size int) []rangeCase {
	last := size - 1
	at := func(format string, n ...any) string { return fmt.Sprintf(format, n...) }
	return []rangeCase{
		{"bytes=500-1499", 206, 500, 1500},
		{"bytes=500-", 206, 500, size},
		{"bytes=-500", 206, size - 500, size},
		{at("bytes=2000-%d", size+1000), 206, 2000, size},
		{"bytes=500-0", 416, 0, 0},
		{at("bytes=%d-%d", size, size+5000), 416, 0, 0},
		{at("bytes=%d-", size), 416, 0, 0},
		{"bytes=0-", 206, 0, size}, // containerd ≥ 2.1
		{"bytes=0-0", 206, 0, 1},
		{"bytes=0-1", 206, 0, 2}, // stargz and SOCI probe
		{at("bytes=%d-%d", last, last), 206, last, size},
		{at("bytes=%d-%d", last, size), 206, last, size},
		{at("bytes=1000-%d", size), 206, 1000, size}, // regclient asks for one past the end
		{at("bytes=-%d", size), 206, 0, size},
		{at("bytes=-%d", size+1), 206, 0, size},
		{"bytes=-0", 416, 0, 0},
		{"bytes=99999999999999999999-", 416, 0, 0},
		{"bytes=1-99999999999999999999", 206, 1, size},
		{"bytes=abc", 200, 0, size},
		{"bytes=", 200, 0, size},
		{"bytes=-", 200, 0, size},
		{"items=0-5", 200, 0, size},
		{"bytes 0-5", 200, 0, size},
	}
}

func (rc rangeCase) assert(t testing.TB, a *answer, digest string, raw []byte) {
	t.Helper()
	if a.Status != rc.status {
		t.Errorf("%s: status %d (%.100s), want %d", a.request, a.Status, headOf(a.Body), rc.status)
		return
	}
	switch rc.status {
	case http.StatusOK:
		a.assertBlob(t, digest, raw)
	case http.StatusRequestedRangeNotSatisfiable:
		a.assertHeader(t, "Content-Range", fmt.Sprintf("bytes */%d", len(raw)))
	case http.StatusPartialContent:
		if string(a.Body) != string(raw[rc.from:rc.to]) {
			t.Errorf("%s: %d bytes (%v) differ from [%d,%d) of the blob", a.request, len(a.Body), a.Err, rc.from, rc.to)
		}
		a.assertHeader(t, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", rc.from, rc.to-1, len(raw)))
		a.assertHeader(t, "Content-Length", strconv.Itoa(rc.to-rc.from))
		a.assertHeader(t, "Docker-Content-Digest", digest)
		a.assertHeader(t, "Content-Type", "application/octet-stream")
		a.assertHeader(t, "Accept-Ranges", "bytes")
	}
}

// Ranges of a small blob and of one that streams, under every algorithm, cold, warm,
// after a restart and without the upstream. Each cold range is the first request for its blob.
func TestOCIPull_BlobRanges(t *testing.T) {
	t.Parallel()
	for _, size := range []int{5000, 3<<20 + 17} {
		for _, algorithm := range wire.Algorithms {
			t.Run(fmt.Sprintf("%d bytes %s", size, algorithm), func(t *testing.T) {
				hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
				cases := rangeCases(size)
				raw, digest := make([][]byte, len(cases)), make([]string, len(cases))
				for i := range cases {
					raw[i] = letters(i, size)
					digest[i] = hub.PutBlobBy(algorithm, "library/ranges", raw[i])
				}
				all := func(phase string) {
					for i, rc := range cases {
						t.Run(phase+" "+rc.header, func(t *testing.T) {
							a := c.get(m.URL, "/v2/library/ranges/blobs/"+digest[i], "Range: "+rc.header)
							rc.assert(t, a, digest[i], raw[i])
						})
					}
				}
				all("cold")
				for i := range cases {
					c.get(m.URL, "/v2/library/ranges/blobs/"+digest[i]).assertBlob(t, digest[i], raw[i])
				}
				all("warm")
				m.Restart()
				all("restarted")
				hub.SwitchOff()
				all("upstream off")
				for i := range cases {
					if n := hub.BlobBytes(digest[i]); n > int64(size)+1<<20 {
						t.Errorf("range %q: hub sent %d bytes of a blob of %d", cases[i].header, n, size)
					}
				}
			})
		}
	}
}

// HEAD has no ranges (RFC 9110, 14.2), and conditions decide whether GET has.
func TestOCIPull_ConditionalRequests(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/cond", "latest", hubtest.ImageSpec{})
	layer := img.Children[0].Layers[0]
	raw := hub.Bytes(layer.Digest)
	blob := "/v2/library/cond/blobs/" + layer.Digest
	for _, phase := range []string{"cold", "warm"} {
		t.Run(phase, func(t *testing.T) {
			c.head(m.URL, blob, "Range: bytes=0-1").assertBlob(t, layer.Digest, raw)
			if a := c.get(m.URL, blob, "Range: bytes=0-1", `If-Range: "`+layer.Digest+`"`); a.Status != http.StatusPartialContent {
				t.Errorf("%s: status %d, want 206", a.request, a.Status)
			}
			c.get(m.URL, blob, "Range: bytes=0-1", `If-Range: "something else"`).assertBlob(t, layer.Digest, raw)
			c.get(m.URL, blob, "Range: bytes=0-1", "If-Range: Mon, 02 Jan 2006 15:04:05 GMT").assertBlob(t, layer.Digest, raw)
			for _, path := range []string{blob, "/v2/library/cond/manifests/latest", "/v2/library/cond/manifests/" + img.Digest} {
				digest := img.Digest
				if path == blob {
					digest = layer.Digest
				}
				for _, tag := range []string{`"` + digest + `"`, digest, `W/"` + digest + `"`, `"other", "` + digest + `"`, "*"} {
					for _, method := range []string{http.MethodGet, http.MethodHead} {
						a := c.ask(method, m.URL, path, "If-None-Match: "+tag)
						if a.Status != http.StatusNotModified || len(a.Body) > 0 {
							t.Errorf("%s: status %d, %d bytes, want 304 without a body", a.request, a.Status, len(a.Body))
						}
						a.assertHeader(t, "Etag", `"`+digest+`"`)
					}
				}
				if a := c.get(m.URL, path, `If-None-Match: "sha256:0000"`); a.Status != http.StatusOK {
					t.Errorf("%s: status %d, want 200", a.request, a.Status)
				}
				if a := c.get(m.URL, path, "If-Modified-Since: Mon, 02 Jan 2034 15:04:05 GMT"); a.Status != http.StatusOK {
					t.Errorf("%s: status %d, want 200: content has no date", a.request, a.Status)
				}
			}
		})
	}
}

// An empty blob is a blob.
func TestOCIPull_EmptyBlob(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	digest := hub.PutBlob("library/empty", nil)
	for _, phase := range []string{"cold", "warm", "restarted"} {
		t.Run(phase, func(t *testing.T) {
			if phase == "restarted" {
				m.Restart()
			}
			c.get(m.URL, "/v2/library/empty/blobs/"+digest).assertBlob(t, digest, nil)
			c.head(m.URL, "/v2/library/empty/blobs/"+digest).assertBlob(t, digest, nil)
			for _, spec := range []string{"bytes=0-", "bytes=0-0", "bytes=-1"} {
				a := c.get(m.URL, "/v2/library/empty/blobs/"+digest, "Range: "+spec)
				if a.Status != http.StatusOK && a.Status != http.StatusRequestedRangeNotSatisfiable {
					t.Errorf("%s: status %d, want 200 or 416", a.request, a.Status)
				}
			}
		})
	}
}

// Manifests of 4 MiB pass; anything larger is refused, not cut.
func TestOCIPull_ManifestSizes(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	frame := `{"schemaVersion":2,"mediaType":"` + hubtest.OCIIndex + `","manifests":[],"annotations":{"a":"%s"}}`
	for _, tt := range []struct {
		tag   string
		size  int
		works bool
	}{{"small", 300, true}, {"large", 4 << 20, true}, {"too-large", 4<<20 + 1, false}} {
		raw := []byte(fmt.Sprintf(frame, strings.Repeat("x", tt.size-len(frame)+2)))
		digest := hub.PutManifest("library/sizes", tt.tag, hubtest.OCIIndex, raw)
		for _, ref := range []string{tt.tag, digest} {
			t.Run(tt.tag+" by "+ref[:5], func(t *testing.T) {
				a := c.get(m.URL, "/v2/docker.io/library/sizes/manifests/"+ref, "User-Agent: "+agentCrane)
				if tt.works {
					a.assertManifest(t, hubtest.OCIIndex, digest, raw)
				} else if a.Status < 500 {
					t.Errorf("%s: status %d with %d bytes, want a 5xx: the upstream breaks the limit", a.request, a.Status, len(a.Body))
				}
			})
		}
	}
}

// Writes are refused with 405 and the methods that are allowed, whatever the path; the
// upstream never hears of them (M63 of docs/clients.md).
func TestOCIPull_M63_WritesAreRefused(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/ro", "latest", hubtest.ImageSpec{})
	pull(t, c, m, hub, img)
	before := hub.Requests()
	for _, path := range []string{
		"/v2/", "/v2/library/ro/manifests/latest", "/v2/library/ro/manifests/" + img.Digest, "/v2/library/ro/blobs/" + img.Children[0].Config.Digest,
		"/v2/library/ro/blobs/uploads/", "/v2/library/ro/blobs/uploads/?mount=" + img.Children[0].Config.Digest + "&from=library/other",
		"/v2/library/ro/tags/list", "/v2/library/ro/referrers/" + img.Digest, "/v2/_catalog", "/docker.io/v2/library/ro/manifests/latest?ns=docker.io",
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "PROPFIND"} {
			t.Run(method+" "+path, func(t *testing.T) {
				a := c.withBody(method, m.URL, path, "a body that nobody wants")
				a.assertError(t, http.StatusMethodNotAllowed, "UNSUPPORTED")
				a.assertHeader(t, "Allow", "GET, HEAD")
			})
		}
	}
	if n := hub.Requests(); n != before {
		t.Errorf("hub saw %d requests, want 0", n-before)
	}
	pull(t, c, m, hub, img)
	if n := hub.Requests(); n != before {
		t.Errorf("after writes: hub saw %d requests, want 0: everything is still kept", n-before)
	}
}
