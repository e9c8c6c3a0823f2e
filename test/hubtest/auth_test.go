package hubtest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func basic(user, secret string) []string {
	return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret))}
}

// claimsOf reads a token without checking it.
func claimsOf(t *testing.T, token string) claims {
	t.Helper()
	part := strings.Split(token, ".")
	if len(part) != 3 {
		t.Fatalf("token %q has %d parts, want 3", token, len(part))
	}
	raw, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		t.Fatal(err)
	}
	var c claims
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func decode(t *testing.T, body string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("body %q: %s", body, err)
	}
	return m
}

func (p *probe) post(form url.Values) answer {
	p.t.Helper()
	resp, err := p.client.PostForm(p.hub.URL(RoleAuth)+"/token", form)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b := new(strings.Builder)
	if _, err := copyTo(b, resp.Body); err != nil {
		p.t.Fatal(err)
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: b.String()}
}

func TestF40AnonymousToken(t *testing.T) {
	hub := New(t, Options{})
	hub.AddRepo("library/a", RepoOpts{})
	hub.AddRepo("acme/secret", RepoOpts{Private: true})
	p := newProbe(t, hub)
	a := p.do(http.MethodGet, p.tokenURL("library/a", "acme/secret", "library/missing"))
	wantStatus(t, a, http.StatusOK)
	m := decode(t, a.body)
	if len(m) != 4 || m["token"] != m["access_token"] || m["expires_in"] != 300.0 || m["issued_at"] == nil {
		t.Errorf("body = %s, want the four keys", a.body)
	}
	c := claimsOf(t, m["token"].(string))
	if c.Subject != "" || len(c.Access) != 1 || c.Access[0].Name != "library/a" || c.Expires-c.IssuedAt != 300 {
		t.Errorf("claims = %+v, want anonymous access to library/a for 300 s", c)
	}
	hub.Set(func(o *Options) { o.TokenTTL = time.Minute })
	if m := decode(t, p.do(http.MethodGet, p.tokenURL("library/a")).body); m["expires_in"] != 60.0 {
		t.Errorf("expires_in = %v, want 60", m["expires_in"])
	}
	if n := hub.Counters().TokensIssued[" repository:library/a:pull"]; n != 1 {
		t.Errorf("tokens_issued = %d, want 1", n)
	}
}

func TestF41BasicCredentials(t *testing.T) {
	hub := New(t, Options{})
	hub.AddRepo("acme/secret", RepoOpts{Private: true})
	hub.AddUser(User{Name: "acme", Secrets: []string{"pw"}})
	hub.AddUser(User{Name: "guest", Secrets: []string{"pw"}, Repos: []string{"acme/*"}})
	hub.AddUser(User{Name: "stranger", Secrets: []string{"pw"}})
	p := newProbe(t, hub)
	for user, want := range map[string]int{"acme": 1, "guest": 1, "stranger": 0} {
		c := claimsOf(t, p.token("acme/secret", basic(user, "pw")...))
		if c.Subject != user || len(c.Access) != want {
			t.Errorf("%s: claims %+v, want %d repositories", user, c, want)
		}
	}
	for _, auth := range [][]string{basic("acme", "wrong"), basic("nobody", "pw"), {"Authorization", "Bearer x"}} {
		a := p.do(http.MethodGet, p.tokenURL("acme/secret"), auth...)
		wantStatus(t, a, http.StatusUnauthorized)
		wantBody(t, a, `{"details":"incorrect username or password"}`+"\n")
	}
}

func TestF42Service(t *testing.T) {
	hub := New(t, Options{})
	p := newProbe(t, hub)
	for _, query := range []string{"", "?service=other"} {
		wantStatus(t, p.do(http.MethodGet, hub.URL(RoleAuth)+"/token"+query), http.StatusBadRequest)
	}
}

func TestF43SeveralScopes(t *testing.T) {
	hub := New(t, Options{})
	hub.AddRepo("a/a", RepoOpts{})
	hub.AddRepo("b/b", RepoOpts{})
	p := newProbe(t, hub)
	joined := hub.URL(RoleAuth) + "/token?service=registry.docker.io&scope=" + url.QueryEscape("repository:a/a:pull repository:b/b:pull")
	for _, target := range []string{p.tokenURL("a/a", "b/b"), joined} {
		hub.Set(func(o *Options) { o.MultiScopeBug = false })
		if c := claimsOf(t, decode(t, p.do(http.MethodGet, target).body)["token"].(string)); len(c.Access) != 2 {
			t.Errorf("%d repositories, want 2", len(c.Access))
		}
		hub.Set(func(o *Options) { o.MultiScopeBug = true })
		if c := claimsOf(t, decode(t, p.do(http.MethodGet, target).body)["token"].(string)); len(c.Access) != 1 {
			t.Errorf("with the bug: %d repositories, want 1", len(c.Access))
		}
	}
}

func TestF43ScopeNamesMayHoldAColon(t *testing.T) {
	typ, name, actions, ok := splitScope("repository:host:5000/a/b:pull,push")
	if !ok || typ != "repository" || name != "host:5000/a/b" || len(actions) != 2 {
		t.Errorf("splitScope = %q, %q, %v, %t", typ, name, actions, ok)
	}
}

func TestF44OAuthPost(t *testing.T) {
	hub := New(t, Options{})
	hub.AddRepo("acme/secret", RepoOpts{Private: true})
	hub.AddUser(User{Name: "acme", Secrets: []string{"pw"}})
	p := newProbe(t, hub)
	form := url.Values{
		"grant_type": {"password"}, "service": {"registry.docker.io"}, "client_id": {"x"},
		"username": {"acme"}, "password": {"pw"}, "scope": {"repository:acme/secret:pull"},
	}
	m := decode(t, p.post(form).body)
	if len(m) != 4 || m["token"] != nil || m["scope"] != "repository:acme/secret:pull" {
		t.Errorf("body = %v, want access_token, scope, expires_in, issued_at", m)
	}
	form.Set("access_type", "offline")
	refresh, _ := decode(t, p.post(form).body)["refresh_token"].(string)
	again := url.Values{
		"grant_type": {"refresh_token"}, "service": {"registry.docker.io"}, "client_id": {"x"},
		"refresh_token": {refresh}, "scope": {"repository:acme/secret:pull"},
	}
	token, _ := decode(t, p.post(again).body)["access_token"].(string)
	if c := claimsOf(t, token); len(c.Access) != 1 || c.Subject != "acme" {
		t.Errorf("claims = %+v", c)
	}
	again.Set("refresh_token", token)
	wantStatus(t, p.post(again), http.StatusUnauthorized)
	form.Set("password", "wrong")
	wantStatus(t, p.post(form), http.StatusUnauthorized)
	form.Set("grant_type", "magic")
	wantStatus(t, p.post(form), http.StatusBadRequest)
	for _, status := range []int{400, 401, 404, 405} {
		hub.Set(func(o *Options) { o.OAuthStatus = status })
		wantStatus(t, p.post(form), status)
	}
	if n := hub.Counters().OAuthPosts; n != 10 {
		t.Errorf("oauth_posts = %d, want 10", n)
	}
}

func TestF45TokenHeaders(t *testing.T) {
	hub := New(t, Options{})
	p := newProbe(t, hub)
	a := p.do(http.MethodGet, p.tokenURL("library/a"))
	wantHeader(t, a, "X-Ratelimit-Limit", "3000, 3000;w=60")
	wantHeader(t, a, "X-Ratelimit-Remaining", "2999")
	wantMatch(t, "reset", a.header.Get("X-Ratelimit-Reset"), `^[1-6]?[0-9]$`)
	wantMatch(t, "cookie", a.header.Get("Set-Cookie"), `^__cf_bm=`)
	if n := hub.Counters().AuthCookies; n != 0 {
		t.Errorf("auth_cookie_seen = %d, want 0", n)
	}
	p.do(http.MethodGet, p.tokenURL("library/a"), "Cookie", "__cf_bm=hubtest")
	if n := hub.Counters().AuthCookies; n != 1 {
		t.Errorf("auth_cookie_seen = %d, want 1", n)
	}
}

func TestF46TokenShapes(t *testing.T) {
	start := time.Date(2026, 7, 15, 14, 24, 11, 0, time.UTC)
	hub := New(t, Options{Now: func() time.Time { return start }})
	hub.AddRepo("library/a", RepoOpts{})
	p := newProbe(t, hub)
	for shape, want := range map[TokenShape]string{
		TokenOnlyToken:    `^\{"expires_in":300,"issued_at":"[^"]*","token":"ey`,
		TokenOnlyAccess:   `^\{"access_token":"ey[^"]*","expires_in":300,"issued_at":"[^"]*"\}`,
		TokenDifferent:    `"access_token":"ey.*"token":"not-the-token"`,
		TokenNoExpiry:     `^\{"access_token":"[^"]*","issued_at":"[^"]*","token":"[^"]*"\}`,
		TokenExpiryZero:   `"expires_in":0,`,
		TokenExpiry30:     `"expires_in":30,`,
		TokenExpiryString: `"expires_in":"300",`,
		TokenExpiryHuge:   `"expires_in":1000000000,`,
		TokenNoIssued:     `"expires_in":300,"token"`,
		TokenIssuedAhead:  `"issued_at":"2026-07-15T14:34:11Z"`,
		TokenIssuedBehind: `"issued_at":"2026-07-15T14:14:11Z"`,
		TokenIssuedBad:    `"issued_at":"yesterday`,
		TokenHuge:         `"padding":"x{500}`,
		TokenTrailing:     `\}\n\}garbage$`,
		TokenHTML:         `^<html>`,
	} {
		hub.Set(func(o *Options) { o.TokenShape = shape })
		a := p.do(http.MethodGet, p.tokenURL("library/a"))
		wantStatus(t, a, http.StatusOK)
		wantMatch(t, string(shape), a.body, want)
		if shape == TokenHuge && len(a.body) <= 70<<10 {
			t.Errorf("huge: %d bytes, want more than 70 KiB", len(a.body))
		}
	}
}

func TestF47OrganisationTokenReachesOnlyListedRepos(t *testing.T) {
	hub := New(t, Options{})
	for _, name := range []string{"acme/app", "acme/other", "library/a"} {
		hub.AddRepo(name, RepoOpts{Private: strings.HasPrefix(name, "acme/")})
	}
	hub.AddUser(User{Name: "acme", Secrets: []string{"dckr_oat_1"}, Repos: []string{"acme/app"}})
	p := newProbe(t, hub)
	for name, want := range map[string]int{"acme/app": 1, "acme/other": 0, "library/a": 0} {
		if c := claimsOf(t, p.token(name, basic("acme", "dckr_oat_1")...)); len(c.Access) != want {
			t.Errorf("%s: %d repositories, want %d", name, len(c.Access), want)
		}
	}
}

func TestF48PublicReadTokenOnAPrivateRepo(t *testing.T) {
	hub := New(t, Options{})
	hub.AddRepo("acme/app", RepoOpts{Private: true})
	hub.PushImage("library/a", "1", ImageSpec{})
	hub.AddUser(User{Name: "acme", PublicOnly: []string{"dckr_pat_1"}})
	p := newProbe(t, hub)
	a := p.pull("/v2/acme/app/manifests/1", p.token("acme/app", basic("acme", "dckr_pat_1")...))
	wantStatus(t, a, http.StatusUnauthorized)
	wantMatch(t, "body", a.body, "access token has insufficient scopes")
	wantStatus(t, p.pull("/v2/library/a/manifests/1", p.token("library/a", basic("acme", "dckr_pat_1")...)), http.StatusOK)
}

func TestRevokedAccountIsRefusedForGood(t *testing.T) {
	hub := New(t, Options{})
	hub.PushImage("library/a", "1", ImageSpec{})
	hub.AddUser(User{Name: "u", Secrets: []string{"pw"}})
	p := newProbe(t, hub)
	token := p.token("library/a", basic("u", "pw")...)
	hub.Revoke("u")
	a := p.pull("/v2/library/a/manifests/1", token)
	wantStatus(t, a, http.StatusUnauthorized)
	wantMatch(t, "challenge", a.header.Get("Www-Authenticate"), `error="invalid_token"`)
	wantStatus(t, p.do(http.MethodGet, p.tokenURL("library/a"), basic("u", "pw")...), http.StatusUnauthorized)
}
