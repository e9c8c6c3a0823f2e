package hubtest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestF10PingWithoutToken(t *testing.T) {
	hub := New(t, Options{Named: true})
	p := newProbe(t, hub)
	for _, auth := range []string{"", "nonsense"} {
		a := p.registry(http.MethodGet, "/v2/", auth)
		wantStatus(t, a, http.StatusUnauthorized)
		wantBody(t, a, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}`+"\n")
		if a.length != 87 {
			t.Errorf("content-length = %d, want 87", a.length)
		}
		wantHeader(t, a, "Www-Authenticate", `Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`)
		wantHeader(t, a, "Content-Type", "application/json")
		wantHeader(t, a, "Docker-Distribution-Api-Version", "registry/2.0")
		wantHeader(t, a, "Strict-Transport-Security", "max-age=31536000")
	}
	a := p.head("/v2/", "")
	wantStatus(t, a, http.StatusUnauthorized)
	if a.length != 87 || a.body != "" {
		t.Errorf("HEAD: content-length %d, body %q, want 87 and none", a.length, a.body)
	}
}

func TestF11PingWithToken(t *testing.T) {
	hub := New(t, Options{})
	a := newProbe(t, hub).registry(http.MethodGet, "/v2/", hub.Token("", time.Minute))
	wantStatus(t, a, http.StatusOK)
	wantBody(t, a, "{}")
	wantHeader(t, a, "Content-Type", "application/json")
}

func TestF12ChallengeOfAResource(t *testing.T) {
	hub := New(t, Options{Named: true, ClientIP: "2001:41d0:801:2000:1:2:3:4"})
	hub.PushImage("ai/smollm2", "latest", ImageSpec{})
	p := newProbe(t, hub)
	a := p.pull("/v2/ai/smollm2/manifests/latest", "")
	wantStatus(t, a, http.StatusUnauthorized)
	wantBody(t, a, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Type":"repository","Class":"","Name":"ai/smollm2","Action":"pull"}]}]}`+"\n")
	if a.length != 153 {
		t.Errorf("content-length = %d, want 153", a.length)
	}
	wantHeader(t, a, "Www-Authenticate",
		`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:ai/smollm2:pull"`)
	wantHeader(t, a, "Docker-Ratelimit-Source", "2001:41d0:801:2000::")
	for _, path := range []string{"/v2/ai/smollm2/tags/list", "/v2/ai/smollm2/blobs/" + Digest(nil), "/v2/ai/smollm2/referrers/" + Digest(nil)} {
		wantStatus(t, p.pull(path, ""), http.StatusUnauthorized)
	}
}

func TestF13BadTokens(t *testing.T) {
	hub := New(t, Options{})
	hub.PushImage("library/a", "1", ImageSpec{})
	p := newProbe(t, hub)
	old := p.token("library/a")
	wantStatus(t, p.pull("/v2/library/a/manifests/1", old), http.StatusOK)
	hub.Advance(301 * time.Second)
	other := hub.mint(claims{Audience: "elsewhere", Expires: 1 << 40, Access: []access{{"repository", "library/a", []string{"pull"}}}})
	fresh := p.token("library/a")
	for name, token := range map[string]string{"expired": old, "forged": fresh[:len(fresh)-2] + "xx", "audience": other, "nonsense": "a.b"} {
		a := p.pull("/v2/library/a/manifests/1", token)
		wantStatus(t, a, http.StatusUnauthorized)
		wantMatch(t, name, a.header.Get("Www-Authenticate"), `,scope="repository:library/a:pull",error="invalid_token"$`)
	}
}

func TestF14MissingAndPrivateLookTheSame(t *testing.T) {
	hub := New(t, Options{})
	hub.AddRepo("library/this-is-not-for-you-ok", RepoOpts{Private: true})
	p := newProbe(t, hub)
	for _, name := range []string{"library/this-does-not-exist", "library/this-is-not-for-you-ok"} {
		a := p.pull("/v2/"+name+"/manifests/latest", p.token(name))
		wantStatus(t, a, http.StatusUnauthorized)
		wantMatch(t, "challenge", a.header.Get("Www-Authenticate"), `,error="insufficient_scope"$`)
		if name == "library/this-does-not-exist" && a.length != 170 {
			t.Errorf("content-length = %d, want 170", a.length)
		}
	}
}

func TestF15ManifestGet(t *testing.T) {
	hub := New(t, Options{})
	img := hub.PushImage("library/a", "1", ImageSpec{Index: true})
	p := newProbe(t, hub)
	token := p.token("library/a")
	for _, ref := range []string{"1", img.Digest, strings.Replace(img.Digest, ":", "%3A", 1)} {
		a := p.pull("/v2/library/a/manifests/"+ref, token)
		wantStatus(t, a, http.StatusOK)
		wantBody(t, a, string(img.Raw))
		wantHeader(t, a, "Content-Type", OCIIndex)
		wantHeader(t, a, "Docker-Content-Digest", img.Digest)
		wantHeader(t, a, "Etag", `"`+img.Digest+`"`)
		wantMatch(t, "ratelimit-remaining", a.header.Get("Ratelimit-Remaining"), `^\d+;w=3600$`)
		if a.length != int64(len(img.Raw)) {
			t.Errorf("content-length = %d, want %d", a.length, len(img.Raw))
		}
	}
}

func TestF16ManifestHeadIsFree(t *testing.T) {
	hub := New(t, Options{Anonymous: Plan{Limit: 1}})
	img := hub.PushImage("library/a", "1", ImageSpec{})
	p := newProbe(t, hub)
	token := p.token("library/a")
	get := p.pull("/v2/library/a/manifests/1", token)
	wantStatus(t, get, http.StatusOK)
	head := p.head("/v2/library/a/manifests/1", token)
	wantStatus(t, head, http.StatusOK)
	for _, k := range []string{"Content-Type", "Docker-Content-Digest", "Etag", "Content-Length", "Ratelimit-Remaining"} {
		if head.header.Get(k) != get.header.Get(k) {
			t.Errorf("%s: HEAD %q, GET %q", k, head.header.Get(k), get.header.Get(k))
		}
	}
	wantHeader(t, head, "Ratelimit-Remaining", "0;w=3600")
	if n := hub.ChargedTotal(); n != 1 {
		t.Errorf("ChargedTotal() = %d, want 1", n)
	}
	if n := hub.ManifestHeads("library/a", "1"); n != 1 {
		t.Errorf("ManifestHeads = %d, want 1", n)
	}
	if n := hub.ManifestGets(img.Digest); n != 1 {
		t.Errorf("ManifestGets = %d, want 1", n)
	}
}

func TestF17ConditionalGet(t *testing.T) {
	for charged, o := range []Options{{NoCharge304: true}, {}} {
		hub := New(t, o)
		img := hub.PushImage("library/a", "1", ImageSpec{})
		p := newProbe(t, hub)
		token := p.token("library/a")
		for _, etag := range []string{img.Digest, `"` + img.Digest + `"`} {
			a := p.pull("/v2/library/a/manifests/1", token, "If-None-Match", etag)
			wantStatus(t, a, http.StatusNotModified)
			wantBody(t, a, "")
		}
		if n := hub.ChargedTotal(); n != 2*charged {
			t.Errorf("ChargedTotal() = %d, want %d", n, 2*charged)
		}
		wantStatus(t, p.pull("/v2/library/a/manifests/1", token, "If-None-Match", `"other"`), http.StatusOK)
	}
}

func TestF18AcceptWithoutTheStoredType(t *testing.T) {
	hub := New(t, Options{})
	hub.PushImage("library/oci", "1", ImageSpec{Index: true})
	hub.PushImage("library/one", "1", ImageSpec{})
	list := hub.PushImage("library/docker", "1", ImageSpec{Docker: true, Platforms: []string{"linux/arm64", "linux/amd64"}})
	p := newProbe(t, hub)
	get := func(name, accept string) answer {
		return p.registry(http.MethodGet, "/v2/library/"+name+"/manifests/1", p.token("library/"+name), "Accept", accept)
	}
	for _, accept := range []string{"", "*/*", DockerManifest} {
		a := get("oci", accept)
		wantStatus(t, a, http.StatusNotFound)
		wantMatch(t, "body", a.body, "OCI index found, but accept header does not support OCI indexes")
		a = get("one", accept)
		wantStatus(t, a, http.StatusNotFound)
		wantMatch(t, "body", a.body, "OCI manifest found, but accept header does not support OCI manifests")
	}
	a := get("docker", DockerManifest)
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "Docker-Content-Digest", list.Children[1].Digest)
	hub.Set(func(o *Options) { o.Schema1Downgrade = true })
	a = get("docker", "*/*")
	wantHeader(t, a, "Content-Type", DockerSchema1)
	wantMatch(t, "body", a.body, `"schemaVersion": 1`)
}

func TestF19MissingTag(t *testing.T) {
	hub := New(t, Options{})
	hub.AddRepo("library/a", RepoOpts{})
	p := newProbe(t, hub)
	token := p.token("library/a")
	a := p.pull("/v2/library/a/manifests/this-does-not-exist", token)
	wantStatus(t, a, http.StatusNotFound)
	wantBody(t, a, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"this-does-not-exist"}}]}`+"\n")
	if a.length != 109 {
		t.Errorf("content-length = %d, want 109", a.length)
	}
	wantHeader(t, a, "Ratelimit-Remaining", "100;w=3600")
	hub.Set(func(o *Options) { o.TagDetail = TagDetailString })
	wantMatch(t, "body", p.pull("/v2/library/a/manifests/1.2.3", token).body, `"detail":"unknown tag=1.2.3"`)
	if n := hub.ChargedTotal(); n != 0 {
		t.Errorf("ChargedTotal() = %d, want 0", n)
	}
}

func TestF20MissingDigest(t *testing.T) {
	hub := New(t, Options{})
	hub.AddRepo("library/a", RepoOpts{})
	p := newProbe(t, hub)
	token := p.token("library/a")
	a := p.pull("/v2/library/a/manifests/"+Digest(nil), token)
	wantStatus(t, a, http.StatusNotFound)
	wantMatch(t, "body", a.body, `"MANIFEST_UNKNOWN".*"Revision":"sha256:e3b0`)
	a = p.pull("/v2/library/a/manifests/sha256:beef", token)
	wantStatus(t, a, http.StatusBadRequest)
	wantMatch(t, "body", a.body, `"DIGEST_INVALID"`)
}

func TestF21BlobRedirect(t *testing.T) {
	hub := New(t, Options{Named: true})
	digest := hub.PutBlob("library/a", []byte("layer"))
	p := newProbe(t, hub)
	token := p.token("library/a")
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		a := p.registry(method, "/v2/library/a/blobs/"+digest, token)
		wantStatus(t, a, http.StatusTemporaryRedirect)
		wantHeader(t, a, "Content-Type", "application/octet-stream")
		wantHeader(t, a, "Content-Length", "0")
		wantHeader(t, a, "Docker-Content-Digest", "")
		wantHeader(t, a, "Ratelimit-Limit", "")
		wantMatch(t, "location", a.header.Get("Location"), `^https://[a-z0-9.-]+/registry-v2/docker/registry/v2/blobs/sha256/..?/[0-9a-f]{64}/data\?`)
	}
	if n := hub.Counters().BlobRedirects[digest]; n != 2 {
		t.Errorf("blob_307 = %d, want 2", n)
	}
}

func TestF22BlobOfAnotherRepository(t *testing.T) {
	hub := New(t, Options{})
	digest := hub.PutBlob("library/other", []byte("layer"))
	hub.AddRepo("library/a", RepoOpts{})
	p := newProbe(t, hub)
	token := p.token("library/a")
	for _, d := range []string{digest, Digest([]byte("nowhere"))} {
		a := p.registry(http.MethodGet, "/v2/library/a/blobs/"+d, token)
		wantStatus(t, a, http.StatusNotFound)
		wantBody(t, a, `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry","detail":"`+d+`"}]}`+"\n")
	}
	hub.LinkBlob("library/a", digest)
	wantStatus(t, p.registry(http.MethodGet, "/v2/library/a/blobs/"+digest, token), http.StatusTemporaryRedirect)
}

func TestF23TagsList(t *testing.T) {
	hub := New(t, Options{})
	for _, tag := range []string{"c", "a", "b", "d", "e"} {
		hub.PushImage("library/a", tag, ImageSpec{})
	}
	p := newProbe(t, hub)
	token := p.token("library/a")
	a := p.registry(http.MethodGet, "/v2/library/a/tags/list?n=2", token)
	wantBody(t, a, `{"name":"library/a","tags":["a","b","c","d","e"]}`+"\n")
	wantHeader(t, a, "Link", "")

	hub.Set(func(o *Options) { o.TagsPaging = PagingLink })
	var got []string
	path := "/v2/library/a/tags/list?n=2"
	for path != "" {
		a := p.registry(http.MethodGet, path, token)
		var page struct{ Tags []string }
		if err := json.Unmarshal([]byte(a.body), &page); err != nil {
			t.Fatal(err)
		}
		got = append(got, page.Tags...)
		path = ""
		if l := a.header.Get("Link"); l != "" {
			wantMatch(t, "link", l, `^</v2/library/a/tags/list\?last=.&n=2>; rel="next"$`)
			path = strings.TrimSuffix(strings.TrimPrefix(l, "<"), `>; rel="next"`)
		}
	}
	if want := []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
		t.Errorf("pages hold %v, want %v", got, want)
	}
	for paging, want := range map[TagsPaging]string{
		PagingAbsolute: "^<" + hub.RegistryURL() + "/v2/", PagingForeign: "^<" + hub.URL(RoleEvil) + "/v2/",
		PagingLoop: `^</v2/library/a/tags/list\?n=2>`,
	} {
		hub.Set(func(o *Options) { o.TagsPaging = paging })
		wantMatch(t, string(paging), p.registry(http.MethodGet, "/v2/library/a/tags/list?n=2", token).header.Get("Link"), want)
	}
	hub.AddRepo("library/empty", RepoOpts{})
	wantBody(t, p.registry(http.MethodGet, "/v2/library/empty/tags/list", p.token("library/empty")), `{"name":"library/empty","tags":[]}`+"\n")
}

func TestF24CatalogIsRefused(t *testing.T) {
	hub := New(t, Options{})
	p := newProbe(t, hub)
	a := p.registry(http.MethodGet, "/v2/_catalog", "")
	wantStatus(t, a, http.StatusUnauthorized)
	wantMatch(t, "challenge", a.header.Get("Www-Authenticate"), `scope="registry:catalog:\*"$`)
	a = p.registry(http.MethodGet, "/v2/_catalog", hub.Token("", time.Minute))
	wantStatus(t, a, http.StatusUnauthorized)
	wantMatch(t, "challenge", a.header.Get("Www-Authenticate"), `scope="registry:catalog:\*",error="insufficient_scope"$`)
}

func TestF25Referrers(t *testing.T) {
	hub := New(t, Options{})
	img := hub.PushImage("library/a", "1", ImageSpec{})
	sbom := hub.AddReferrer("library/a", img.Digest, "application/spdx+json", OCIManifest, []byte(`{"sbom":1}`))
	hub.AddReferrer("library/a", img.Digest, "application/sig", OCIManifest, []byte(`{"sig":1}`))
	p := newProbe(t, hub)
	token := p.token("library/a")
	get := func(query string) (answer, index) {
		a := p.registry(http.MethodGet, "/v2/library/a/referrers/"+img.Digest+query, token)
		var i index
		if a.status == http.StatusOK {
			if err := json.Unmarshal([]byte(a.body), &i); err != nil {
				t.Fatal(err)
			}
		}
		return a, i
	}
	a, all := get("")
	wantHeader(t, a, "Content-Type", OCIIndex)
	wantHeader(t, a, "Oci-Filters-Applied", "")
	if len(all.Manifests) != 2 {
		t.Errorf("%d referrers, want 2", len(all.Manifests))
	}
	a, some := get("?artifactType=application/spdx%2Bjson")
	wantHeader(t, a, "Oci-Filters-Applied", "artifactType")
	if len(some.Manifests) != 1 || some.Manifests[0].Digest != sbom {
		t.Errorf("filtered referrers = %+v, want only %s", some.Manifests, sbom)
	}
	for mode, status := range map[ReferrersMode]int{ReferrersOff: http.StatusNotFound, ReferrersHTML: http.StatusFound, ReferrersHuge: http.StatusOK} {
		hub.Set(func(o *Options) { o.Referrers = mode })
		a, i := get("")
		wantStatus(t, a, status)
		if mode == ReferrersHuge && len(i.Manifests) != hugeReferrers {
			t.Errorf("huge: %d descriptors, want %d", len(i.Manifests), hugeReferrers)
		}
	}
}

func TestF26NamesOutsideTheGrammar(t *testing.T) {
	hub := New(t, Options{Anonymous: Unlimited()})
	hub.PushImage("library/a", "1", ImageSpec{})
	p := newProbe(t, hub)
	token := p.token("library/a")
	for _, path := range []string{
		"/v2/library/A/manifests/1", "/v2/library/../library/a/manifests/1", "/v2/library//a/manifests/1",
		"/v2/library/%2e%2e/library/a/manifests/1", "/v2/library%2fa/manifests/1", "//v2/library/a/manifests/1",
		"/v2/library/a/manifests/", "/v2/library/a/manifests/1/", "/v2/library/a/nothing/1", "/v2/manifests/1",
	} {
		req, err := http.NewRequest(http.MethodGet, hub.RegistryURL(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = path
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatalf("%s: %s", path, err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: status %d, want 400 or 404", path, resp.StatusCode)
		}
	}
}

func TestF26ComponentsThatLookLikeRoutes(t *testing.T) {
	hub := New(t, Options{})
	const name = "a/manifests/blobs/tags/list"
	img := hub.PushImage(name, "1", ImageSpec{})
	p := newProbe(t, hub)
	wantBody(t, p.pull("/v2/"+name+"/manifests/1", p.token(name)), string(img.Raw))
}

func TestF27NoImpliedLibrary(t *testing.T) {
	hub := New(t, Options{})
	hub.PushImage("library/alpine", "1", ImageSpec{})
	p := newProbe(t, hub)
	a := p.pull("/v2/alpine/manifests/1", p.token("alpine"))
	wantStatus(t, a, http.StatusUnauthorized)
	wantMatch(t, "challenge", a.header.Get("Www-Authenticate"), `scope="repository:alpine:pull",error="insufficient_scope"`)
}

func TestF28WritesAreRefusedAndCounted(t *testing.T) {
	hub := New(t, Options{})
	hub.PushImage("library/a", "1", ImageSpec{})
	p := newProbe(t, hub)
	token := p.token("library/a")
	n := 0
	for _, path := range []string{"/v2/library/a/manifests/1", "/v2/library/a/blobs/uploads/", "/v2/library/a/blobs/" + Digest(nil)} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			a := p.registry(method, path, token)
			wantStatus(t, a, http.StatusUnauthorized)
			wantMatch(t, "challenge", a.header.Get("Www-Authenticate"), `scope="repository:library/a:pull,push"`)
			n++
		}
	}
	if got := hub.Counters().WriteAttempts; got != n {
		t.Errorf("write_attempts = %d, want %d", got, n)
	}
}
