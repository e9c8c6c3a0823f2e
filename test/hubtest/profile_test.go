package hubtest

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// profileWorld is a hub with one image, under a profile.
func profileWorld(t *testing.T, o Options) (*Hub, *probe, *Image, string) {
	t.Helper()
	hub := New(t, o)
	img := hub.PushImage("ns/app", "1", ImageSpec{})
	hub.AddRepo("ns/secret", RepoOpts{Private: true})
	return hub, newProbe(t, hub), img, img.Blobs()[0].Digest
}

// tokenAt runs the token flow at a realm.
func (p *probe) tokenAt(realm, service, scope string) answer {
	p.t.Helper()
	return p.do(http.MethodGet, realm+"?"+url.Values{"service": {service}, "scope": {scope}}.Encode())
}

func TestProfilePlain(t *testing.T) {
	_, p, img, blob := profileWorld(t, Options{Profile: Plain})
	wantStatus(t, p.registry(http.MethodGet, "/v2/", ""), 200)
	wantBody(t, p.pull("/v2/ns/app/manifests/1", ""), string(img.Raw))
	a := p.registry(http.MethodGet, "/v2/ns/app/blobs/"+blob, "", "Range", "bytes=1-2", "If-Range", `"`+blob+`"`)
	wantStatus(t, a, 206)
	wantHeader(t, a, "Docker-Content-Digest", blob)
	wantStatus(t, p.pull("/v2/ns/secret/manifests/1", ""), 404)
	if n := p.hub.Counters().RangeRequests[blob]; n != 1 {
		t.Errorf("range_requests = %d, want 1", n)
	}
}

func TestProfileGHCR(t *testing.T) {
	hub, p, img, _ := profileWorld(t, Options{Profile: GHCR})
	a := p.registry(http.MethodGet, "/v2/", "")
	wantHeader(t, a, "Www-Authenticate", `Bearer realm="`+hub.RegistryURL()+`/token",service="ghcr.io",scope="repository:user/image:pull"`)
	wantMatch(t, "challenge", p.pull("/v2/ns/app/manifests/1", "").header.Get("Www-Authenticate"), `scope="repository:ns/app:pull"$`)
	realm := hub.RegistryURL() + "/token"
	a = p.tokenAt(realm, "ghcr.io", "repository:ns/app:pull")
	token := decode(t, a.body)["token"].(string)
	wantBody(t, p.pull("/v2/ns/app/manifests/1", token), string(img.Raw))
	for _, scope := range []string{"repository:ns/secret:pull", "repository:ns/none:pull", "repository:ns/app:pull,push"} {
		a := p.tokenAt(realm, "ghcr.io", scope)
		wantStatus(t, a, 403)
		wantMatch(t, "body", a.body, "DENIED")
	}
	wantStatus(t, p.registry(http.MethodGet, "/v2/ns/app/referrers/"+img.Digest, token), 404)
}

func TestProfileQuay(t *testing.T) {
	hub, p, _, blob := profileWorld(t, Options{Profile: Quay})
	body := decode(t, p.tokenAt(hub.RegistryURL()+"/v2/auth", "quay.io", "repository:ns/app:pull").body)
	if len(body) != 1 {
		t.Errorf("token answer = %v, want only token", body)
	}
	token := body["token"].(string)
	a := p.registry(http.MethodGet, "/v2/ns/app/blobs/"+blob, token)
	wantStatus(t, a, 302)
	wantHeader(t, a, "Cache-Control", "max-age=31536000")
	wantHeader(t, a, "Docker-Content-Digest", blob)
	wantMatch(t, "body", a.body, "^<!doctype html>")
	wantMatch(t, "location", a.header.Get("Location"), "^"+hub.URL(RoleSub))
	wantStatus(t, p.do(http.MethodGet, a.header.Get("Location")), 200)
	a = p.registry(http.MethodHead, "/v2/ns/app/blobs/"+blob, token)
	wantStatus(t, a, 200)
	wantHeader(t, a, "Docker-Content-Digest", blob)
}

func TestProfileGAR(t *testing.T) {
	hub, p, _, blob := profileWorld(t, Options{Profile: GAR})
	realm := hub.RegistryURL() + "/v2/token"
	wantHeader(t, p.registry(http.MethodGet, "/v2/", ""), "Www-Authenticate", `Bearer realm="`+realm+`"`)
	wantHeader(t, p.pull("/v2/ns/app/manifests/1", "bad"), "Www-Authenticate", "")
	wantStatus(t, p.tokenAt(realm, "gar.dev", "repository:ns/none:pull"), 403)
	token := decode(t, p.tokenAt(realm, "gar.dev", "repository:ns/app:pull").body)["token"].(string)
	a := p.registry(http.MethodGet, "/v2/ns/app/blobs/"+blob, token)
	wantStatus(t, a, 302)
	wantMatch(t, "location", a.header.Get("Location"), "^/registry-v2/")
	wantStatus(t, p.registry(http.MethodGet, a.header.Get("Location"), token), 200)
}

func TestProfileK8s(t *testing.T) {
	hub, p, img, blob := profileWorld(t, Options{Profile: K8s})
	wantStatus(t, p.registry(http.MethodGet, "/v2/", ""), 200)
	a := p.pull("/v2/ns/app/manifests/1", "")
	wantStatus(t, a, 307)
	wantHeader(t, a, "Location", hub.URL(RoleSub)+"/v2/ns/app/manifests/1")
	wantBody(t, p.do(http.MethodGet, a.header.Get("Location"), acceptAll()...), string(img.Raw))
	wantStatus(t, p.do(http.MethodGet, p.location("ns/app", blob, "")), 200)
}

func TestProfileECR(t *testing.T) {
	hub, p, img, _ := profileWorld(t, Options{Profile: ECR})
	hub.AddUser(User{Name: "AWS", Secrets: []string{"pw"}})
	a := p.pull("/v2/ns/app/manifests/1", "")
	wantStatus(t, a, 401)
	wantBody(t, a, "Not Authorized\n")
	wantHeader(t, a, "Www-Authenticate", `Basic realm="`+hub.RegistryURL()+`/",service="ecr.amazonaws.com"`)
	wantBody(t, p.pull("/v2/ns/app/manifests/1", "", basic("AWS", "pw")...), string(img.Raw))
	wantStatus(t, p.pull("/v2/ns/app/manifests/1", "", basic("AWS", "old")...), 401)
	hub.AddRule(Rule{Role: RoleRegistry, Count: 1, Do: TokenExpired(403)})
	wantMatch(t, "body", p.pull("/v2/ns/app/manifests/1", "", basic("AWS", "pw")...).body, `DENIED.*has expired`)
}

func TestProfileECRPublic(t *testing.T) {
	hub, p, img, blob := profileWorld(t, Options{Profile: ECRPublic})
	wantMatch(t, "challenge", p.pull("/v2/ns/app/manifests/1", "").header.Get("Www-Authenticate"), `scope="aws"$`)
	token := decode(t, p.tokenAt(hub.RegistryURL()+"/token/", "public.ecr.aws", "aws").body)["token"].(string)
	wantBody(t, p.pull("/v2/ns/app/manifests/1", token), string(img.Raw))
	wantStatus(t, p.registry(http.MethodHead, "/v2/ns/app/blobs/"+blob, token), 401)
	wantStatus(t, p.registry(http.MethodGet, "/v2/ns/app/blobs/"+blob, token), 307)
	hub.ExpireTokens()
	a := p.pull("/v2/ns/app/manifests/1", token)
	wantStatus(t, a, 400)
	wantHeader(t, a, "Www-Authenticate", "")
}

func TestProfileMCR(t *testing.T) {
	hub, p, _, blob := profileWorld(t, Options{Profile: MCR})
	at := p.location("ns/app", blob, "")
	wantMatch(t, "location", at, "^"+hub.URL(RoleSub)+"/[^/]+//registry-v2/")
	wantStatus(t, p.do(http.MethodGet, at), 200)
	cleaned := strings.Replace(at, "//registry-v2", "/registry-v2", 1)
	if a := p.do(http.MethodGet, cleaned); a.status == 200 {
		t.Error("a cleaned path was served")
	}
}

func TestProfileACR(t *testing.T) {
	hub, p, img, _ := profileWorld(t, Options{Profile: ACR})
	body := decode(t, p.tokenAt(hub.RegistryURL()+"/oauth2/token", "acr", "repository:ns/app:pull").body)
	if len(body) != 1 {
		t.Errorf("token answer = %v, want only access_token", body)
	}
	wantBody(t, p.pull("/v2/ns/app/manifests/1", body["access_token"].(string)), string(img.Raw))
}

func TestProfileGitLab(t *testing.T) {
	hub, p, _, blob := profileWorld(t, Options{Profile: GitLab})
	realm := hub.URL(RoleAuth) + "/jwt/auth"
	wantMatch(t, "challenge", p.pull("/v2/ns/app/manifests/1", "").header.Get("Www-Authenticate"), `^Bearer realm="`+realm+`",service="container_registry"`)
	token := decode(t, p.tokenAt(realm, "container_registry", "repository:ns/app:pull").body)["token"].(string)
	wantHeader(t, p.do(http.MethodGet, p.location("ns/app", blob, token)), "Cache-Control", "private, max-age=0")
}

func TestNamesOfOtherRegistries(t *testing.T) {
	quay := New(t, Options{Named: true, InMemory: true, Profile: Quay, Names: map[Role]string{RoleRegistry: "quay.io", RoleSub: "cdn01.quay.io"}})
	hub := New(t, Options{Named: true, InMemory: true})
	dial := DialAll(hub, quay)
	for addr, want := range map[string]bool{"quay.io:443": true, "cdn01.quay.io:443": true, "registry-1.docker.io:443": true, "example.com:443": false} {
		c, err := dial(t.Context(), "tcp", addr)
		if (err == nil) != want {
			t.Errorf("dial %s: %v, want success %t", addr, err, want)
		}
		if err == nil {
			c.Close()
		}
	}
	if n := hub.Counters().EgressDenied["example.com:443"]; n != 1 {
		t.Errorf("egress_denied = %d, want 1", n)
	}
}

// The backend is another hub without authentication.
func TestBackendIsReadThrough(t *testing.T) {
	back := New(t, Options{Profile: Plain})
	img := back.PushImage("team/app", "1", ImageSpec{Index: true, LayerSize: 100_000})
	hub := New(t, Options{Backend: back.RegistryURL()})
	own := hub.PushImage("library/own", "1", ImageSpec{})
	p := newProbe(t, hub)
	token := p.token("team/app")
	for _, ref := range []string{"1", img.Digest, img.Children[0].Digest} {
		a := p.pull("/v2/team/app/manifests/"+ref, token)
		wantStatus(t, a, 200)
		wantHeader(t, a, "Ratelimit-Limit", "100;w=3600")
		if ref == "1" {
			wantBody(t, a, string(img.Raw))
			wantHeader(t, a, "Docker-Content-Digest", img.Digest)
		}
	}
	for _, d := range img.Blobs() {
		want := string(back.Bytes(d.Digest))
		wantBody(t, p.do(http.MethodGet, p.location("team/app", d.Digest, token)), want)
		a := p.do(http.MethodGet, p.location("team/app", d.Digest, token), "Range", "bytes=10-19")
		wantStatus(t, a, 206)
		wantBody(t, a, want[10:20])
	}
	wantBody(t, p.registry(http.MethodGet, "/v2/team/app/tags/list", token), `{"name":"team/app","tags":["1"]}`+"\n")
	wantStatus(t, p.pull("/v2/team/app/manifests/2", token), 404)
	wantStatus(t, p.registry(http.MethodGet, "/v2/team/app/blobs/"+own.Blobs()[0].Digest, token), 404)
	wantStatus(t, p.pull("/v2/team/none/manifests/1", p.token("team/none")), 401)
	wantBody(t, p.pull("/v2/library/own/manifests/1", p.token("library/own")), string(own.Raw))
}

func TestFaultsReachBackendContent(t *testing.T) {
	back := New(t, Options{Profile: Plain})
	img := back.PushImage("team/app", "1", ImageSpec{})
	hub := New(t, Options{Backend: back.RegistryURL()})
	p := newProbe(t, hub)
	d := img.Blobs()[0]
	hub.AddRule(Rule{Role: CDN, Count: 1, Do: Corrupt(0)})
	a := p.do(http.MethodGet, p.location("team/app", d.Digest, p.token("team/app")))
	if want := string(back.Bytes(d.Digest)); a.body == want || len(a.body) != len(want) {
		t.Errorf("body = %q, want one bit off %q", a.body, want)
	}
}

func TestUnreachableBackendIsAProblem(t *testing.T) {
	back := New(t, Options{Profile: Plain})
	hub, err := Start(Options{Backend: back.RegistryURL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	back.SwitchOff()
	p := newProbe(t, hub)
	wantStatus(t, p.pull("/v2/team/app/manifests/1", p.token("team/app")), 401)
	if len(hub.book.problems()) == 0 {
		t.Error("no problem was reported")
	}
}
