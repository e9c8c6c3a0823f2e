package conformance

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/upstream"
	"forebay/upstream/auth"
)

// withAccount starts a hub with a private repository, acme/secret, and a mirror whose
// account may read it.
func withAccount(t *testing.T, mo mirrortest.Options) (hub *hubtest.Hub, m *mirrortest.Mirror, c *client, secret *hubtest.Image) {
	t.Helper()
	hub, m, c = setupWith(t, hubtest.Options{}, mo, upstream.Options{Credentials: auth.Credentials{Username: account, Password: password}})
	hub.AddUser(hubtest.User{Name: account, Secrets: []string{password}, Plan: hubtest.Unlimited()})
	hub.AddRepo("acme/secret", hubtest.RepoOpts{Private: true})
	secret = hub.PushImage("acme/secret", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	hub.PushImage("acme/open", "latest", hubtest.ImageSpec{})
	return hub, m, c, secret
}

// M50 of docs/clients.md: content of one repository is not given through another, by no
// request, while it arrives, when it is here, and after a restart; and the answer is the one for content that
// nobody has.
func TestM50_ContentStaysWithItsRepository(t *testing.T) {
	hub, m, c, secret := withAccount(t, mirrortest.Options{})
	unknown := "sha256:" + strings.Repeat("5a", 32)
	check := func(t *testing.T) {
		for _, r := range resources(t, hub, secret)[1:] {
			kind, _, _ := strings.Cut(r.path, "/")
			nobody := c.get(m.URL, "/v2/acme/open/"+kind+"/"+unknown)
			for _, s := range shapes() {
				path := s.path("acme/open", r.path)
				for _, line := range []string{"X-None: 1", "Range: bytes=0-0", "If-None-Match: \"" + r.digest + "\"", "If-None-Match: *", "Range: bytes=0-1,3-4"} {
					a := c.get(m.URL, path, line)
					if a.Status != http.StatusNotFound {
						t.Errorf("%s: status %d, want 404: it belongs to another repository", a.request, a.Status)
					}
					want, got := stable(nobody.Header), stable(a.Header)
					got.Del("OCI-Namespace")
					if s.name == "bare" && (string(a.Body) != string(nobody.Body) || !cmp.Equal(want, got)) {
						t.Errorf("%s: %v %s\ndiffers from the answer for what nobody has:\n%v %s", a.request, got, a.Body, want, nobody.Body)
					}
					if a := c.head(m.URL, path, line); a.Status != http.StatusNotFound {
						t.Errorf("%s: status %d, want 404", a.request, a.Status)
					}
				}
			}
		}
		if a := c.get(m.URL, "/v2/acme/open/referrers/"+secret.Digest); a.Status == http.StatusOK && len(a.referrers(t).Manifests) > 0 {
			t.Errorf("referrers of another repository's content: %s", a.Body)
		}
	}
	t.Run("before", check)
	pull(t, c, m, hub, secret)
	m.Restart() // forgets that it was not there
	t.Run("kept", check)
	pull(t, c, m, hub, secret)
	c.get(m.URL, "/v2/acme/open/manifests/latest")
	t.Run("kept and linked", check)
	hub.SwitchOff()
	for _, r := range resources(t, hub, secret)[1:] {
		if a := c.get(m.URL, "/v2/acme/open/"+r.path); a.Status < 400 {
			t.Errorf("upstream off: %s: status %d", a.request, a.Status)
		}
		r.assert(t, c.get(m.URL, "/v2/acme/secret/"+r.path))
	}
}

// M50 while the content arrives: nobody joins the fill of a repository that is not theirs.
func TestM50_FillsStayWithTheirRepository(t *testing.T) {
	hub, m, c, _ := withAccount(t, mirrortest.Options{})
	hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 256 << 10 }) // 24 s for all of it
	digest := hub.PutVirtualBlob("acme/secret", 50, 6<<20)
	conn := rawGet(t, m.URL, "/v2/acme/secret/blobs/"+digest)
	if _, err := io.ReadFull(conn, make([]byte, 500_000)); err != nil {
		t.Fatalf("begin to read: %s", err)
	}
	for _, line := range []string{"X-None: 1", "Range: bytes=0-99"} {
		a := c.get(m.URL, "/v2/acme/open/blobs/"+digest, line)
		a.assertError(t, http.StatusNotFound, "BLOB_UNKNOWN")
		c.head(m.URL, "/v2/acme/open/blobs/"+digest, line).assertError(t, http.StatusNotFound, "BLOB_UNKNOWN")
		if a.Took > atOnce {
			t.Errorf("%s: took %s", a.request, a.Took)
		}
	}
}

// M51: the same content in a public repository is served there, from what is here, once
// the upstream has said that it holds it; a private one stays closed to the anonymous.
func TestM51_SharedContentIsProvenOnce(t *testing.T) {
	hub, m, c, secret := withAccount(t, mirrortest.Options{})
	layer := secret.Children[0].Layers[0]
	raw := hub.Bytes(layer.Digest)
	pull(t, c, m, hub, secret)
	hub.LinkBlob("acme/open", layer.Digest)
	sent := hub.BlobBytes(layer.Digest)
	c.get(m.URL, "/v2/acme/open/blobs/"+layer.Digest).assertBlob(t, layer.Digest, raw)
	c.get(m.URL, "/v2/acme/open/blobs/"+layer.Digest, "Range: bytes=1-2")
	if n := hub.BlobBytes(layer.Digest) - sent; n != 0 {
		t.Errorf("%d bytes moved for content that is here, want 0", n)
	}
	asked := hub.Requests()
	c.get(m.URL, "/v2/acme/open/blobs/"+layer.Digest).assertBlob(t, layer.Digest, raw)
	c.head(m.URL, "/v2/acme/open/blobs/"+layer.Digest).assertBlob(t, layer.Digest, raw)
	if n := hub.Requests() - asked; n != 0 {
		t.Errorf("proven content cost %d more requests, want 0", n)
	}
	m.Restart()
	hub.SwitchOff()
	c.get(m.URL, "/v2/acme/open/blobs/"+layer.Digest).assertBlob(t, layer.Digest, raw)
}

// M51: an anonymous mirror gives nothing of a private repository, though it holds the
// same bytes of a public one.
func TestM51_AnonymousMirror(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{Fallback: proxy.FallbackNone})
	open := hub.PushImage("acme/open", "latest", hubtest.ImageSpec{Seed: 5})
	hub.AddRepo("acme/secret", hubtest.RepoOpts{Private: true})
	hub.PushImage("acme/secret", "latest", hubtest.ImageSpec{Seed: 5})
	pull(t, c, m, hub, open)
	for _, r := range resources(t, hub, open) {
		c.get(m.URL, "/v2/acme/secret/"+r.path).assertError(t, http.StatusForbidden, "DENIED")
		c.head(m.URL, "/v2/acme/secret/"+r.path).assertError(t, http.StatusForbidden, "DENIED")
	}
	c.get(m.URL, "/v2/acme/secret/tags/list").assertError(t, http.StatusForbidden, "DENIED")
}

// M52: two registries with the same repository and tag are two, in every shape, also after
// a restart and with one of them gone.
func TestM52_TwoRegistriesNeverMix(t *testing.T) {
	t.Parallel()
	hub, house := hubtest.New(t, hubtest.Options{}), hubtest.New(t, hubtest.Options{Profile: hubtest.Plain})
	m := mirrortest.New(t, mirrortest.Options{Hub: hub, Upstreams: map[string]mirrortest.Upstream{"my.reg": {Hub: house}}})
	c := newClient(t)
	ours := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Seed: 100})
	theirs := house.PushImage("library/app", "latest", hubtest.ImageSpec{Seed: 200})
	check := func() {
		for _, tt := range []struct {
			path string
			img  *hubtest.Image
		}{
			{"/v2/library/app/", ours}, {"/v2/docker.io/library/app/", ours}, {"/docker.io/v2/library/app/", ours},
			{"/v2/my.reg/library/app/", theirs}, {"/my.reg/v2/library/app/", theirs},
		} {
			c.get(m.URL, tt.path+"manifests/latest").assertManifest(t, tt.img.MediaType, tt.img.Digest, tt.img.Raw)
			for _, other := range []*hubtest.Image{ours, theirs} {
				for _, d := range other.Blobs() {
					a := c.get(m.URL, tt.path+"blobs/"+d.Digest)
					if own := other == tt.img; own != (a.Status == http.StatusOK) {
						t.Errorf("%s: status %d, and it is that registry's own: %t", a.request, a.Status, own)
					}
				}
			}
		}
		c.get(m.URL, "/v2/library/app/manifests/latest?ns=my.reg").assertManifest(t, theirs.MediaType, theirs.Digest, theirs.Raw)
		c.get(m.URL, "/v2/library/app/manifests/latest?ns=docker.io").assertManifest(t, ours.MediaType, ours.Digest, ours.Raw)
	}
	check()
	check()
	m.Restart()
	check()
	hub.SwitchOff()
	check()
	// One-word names are library/ at Docker Hub only.
	if a := c.get(m.URL, "/v2/my.reg/app/manifests/latest"); a.Status != http.StatusNotFound {
		t.Errorf("%s: status %d, want 404", a.request, a.Status)
	}
}

// M55: an absence is remembered for a moment only; failures, limits and refusals are not
// absences and are not remembered as such.
func TestM55_NegativeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{})
		b.hub.AddRepo("library/app", hubtest.RepoOpts{})
		raw := letters(55, 100)
		missing := []string{"manifests/soon", "manifests/" + hubtest.Digest([]byte("soon")), "blobs/" + hubtest.Digest(raw)}
		for _, path := range missing {
			if a := b.get("/v2/library/app/" + path); a.Status != http.StatusNotFound {
				t.Fatalf("%s: status %d, want 404", a.request, a.Status)
			}
		}
		asked := b.hub.Requests()
		for range 20 {
			b.get("/v2/library/app/manifests/soon").assertError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
		}
		if n := b.hub.Requests() - asked; n > 0 {
			t.Errorf("20 requests for what is not there made %d upstream requests", n)
		}
		img := b.hub.PushImage("library/app", "soon", hubtest.ImageSpec{})
		digest := b.hub.PutBlob("library/app", raw)
		time.Sleep(11 * time.Second) // the default is 10 s
		b.get("/v2/library/app/manifests/soon").assertManifest(t, img.MediaType, img.Digest, img.Raw)
		b.get("/v2/library/app/blobs/"+digest).assertBlob(t, digest, raw)
	})
}

// M55: the next request after a failure or a refusal gets what is there.
func TestM55_FailuresAreNoAbsence(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"500": hubtest.Status(500), "503": hubtest.StatusHTML(503), "401": hubtest.Challenge(`Basic realm="x"`),
		"403": hubtest.Status(403), "closed": hubtest.NoReply(hubtest.RST),
		"redirect to nowhere": hubtest.RedirectNowhere(302),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
			rule := hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: fault})
			for _, r := range resources(t, hub, img) {
				if a := c.get(m.URL, "/v2/library/app/"+r.path); a.Status < 400 {
					t.Errorf("%s: status %d", a.request, a.Status)
				}
			}
			c.get(m.URL, "/v2/library/app/tags/list")
			rule.Remove()
			c.recovers(m.URL, "/v2/library/app/manifests/latest")
			pull(t, c, m, hub, img)
			c.get(m.URL, "/v2/library/app/tags/list").tags(t)
		})
	}
}

// M55: what one may not read is not remembered against a repository that was opened since,
// for longer than the token lives that did not cover it.
func TestM55_OpenedRepositories(t *testing.T) {
	t.Parallel()
	hub := hubtest.New(t, hubtest.Options{})
	m := mirrortest.New(t, mirrortest.Options{Upstreams: map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Registry: upstream.Options{Now: hub.Now}}}})
	c := newClient(t)
	hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
	img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
	c.get(m.URL, "/v2/acme/app/manifests/latest").assertError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	hub.AddRepo("acme/app", hubtest.RepoOpts{})
	hub.Advance(301 * time.Second)
	c.get(m.URL, "/v2/acme/app/manifests/latest").assertManifest(t, img.MediaType, img.Digest, img.Raw)
	pull(t, c, m, hub, img)
	hub.AssertClean(t)
}
