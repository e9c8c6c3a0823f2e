package hubtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// postJSON sends JSON to the Hub API and reads the answer.
func (p *probe) postJSON(path string, body map[string]string) answer {
	p.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.hub.URL(RoleHubAPI)+path, bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), err, resp.ContentLength, resp.ProtoMajor}
}

func (p *probe) hubAPI(path string, header ...string) answer {
	p.t.Helper()
	return p.do(http.MethodGet, p.hub.URL(RoleHubAPI)+path, header...)
}

func field(t *testing.T, a answer, name string) any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(a.body), &o); err != nil {
		t.Fatalf("body %q: %s", a.body, err)
	}
	return o[name]
}

func text(t *testing.T, a answer, name string) string {
	t.Helper()
	s, _ := field(t, a, name).(string)
	return s
}

// acmeHub has an account with a second factor, a private and a public repository.
func acmeHub(t *testing.T, o HubAPIOptions) (*Hub, *probe) {
	hub := New(t, Options{HubAPI: o})
	hub.AddUser(User{Name: "acme", Secrets: []string{"password", "dckr_pat_1"}, SecondFactor: "123456"})
	hub.AddUser(User{Name: "plain", Secrets: []string{"secret"}})
	hub.PushImage("acme/app", "v1", ImageSpec{})
	hub.PushImage("acme/app", "latest", ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64/v8"}})
	hub.PushImage("acme/secret", "v1", ImageSpec{})
	hub.AddRepo("acme/secret", RepoOpts{Private: true})
	return hub, newProbe(t, hub)
}

func TestF60LoginRoutes(t *testing.T) {
	hub, p := acmeHub(t, HubAPIOptions{})
	for _, path := range []string{"/v2/auth/token", "/v2/auth/token/"} {
		a := p.postJSON(path, map[string]string{"identifier": "plain", "secret": "secret"})
		if a.status != 200 || text(t, a, "access_token") == "" || field(t, a, "token") != nil {
			t.Errorf("POST %s = %d %s, want access_token alone", path, a.status, a.body)
		}
	}
	a := p.postJSON("/v2/users/login/", map[string]string{"username": "plain", "password": "secret"})
	if a.status != 200 || text(t, a, "token") == "" || text(t, a, "refresh_token") == "" {
		t.Errorf("login = %d %s, want token and refresh_token", a.status, a.body)
	}
	for _, path := range []string{"/v2/auth/token", "/v2/users/login"} {
		a := p.postJSON(path, map[string]string{"identifier": "plain", "username": "plain", "secret": "x", "password": "x"})
		if a.status != 401 || text(t, a, "detail") != "Incorrect authentication credentials" {
			t.Errorf("POST %s with a wrong password = %d %s", path, a.status, a.body)
		}
	}
	hub.Set(func(o *Options) { o.HubAPI.LegacyOnly = true })
	wantStatus(t, p.postJSON("/v2/auth/token", map[string]string{"identifier": "plain", "secret": "secret"}), 404)
	wantStatus(t, p.hubAPI("/v2/users/login"), 405)
}

func TestF60SecondFactor(t *testing.T) {
	_, p := acmeHub(t, HubAPIOptions{})
	first := p.postJSON("/v2/users/login", map[string]string{"username": "acme", "password": "password"})
	wantStatus(t, first, 401)
	factor := text(t, first, "login_2fa_token")
	wantStatus(t, p.postJSON("/v2/users/2fa-login", map[string]string{"login_2fa_token": factor, "code": "000000"}), 401)
	wantStatus(t, p.postJSON("/v2/users/2fa-login", map[string]string{"login_2fa_token": "x", "code": "123456"}), 401)
	second := p.postJSON("/v2/users/2fa-login", map[string]string{"login_2fa_token": factor, "code": "123456"})
	wantStatus(t, second, 200)
	token := text(t, second, "token")
	wantStatus(t, p.hubAPI("/v2/repositories/acme/secret/", "Authorization", "JWT "+token), 200)
	wantStatus(t, p.hubAPI("/v2/repositories/acme/secret/", "Authorization", "Bearer "+factor), 401)
	wantStatus(t, p.postJSON("/v2/auth/token", map[string]string{"identifier": "acme", "secret": "password"}), 401)
	wantStatus(t, p.postJSON("/v2/auth/token", map[string]string{"identifier": "acme", "secret": "dckr_pat_1"}), 200)
}

func TestF60TokensLiveTenMinutesAndAreNoRegistryTokens(t *testing.T) {
	hub, p := acmeHub(t, HubAPIOptions{})
	token := text(t, p.postJSON("/v2/auth/token", map[string]string{"identifier": "acme", "secret": "dckr_pat_1"}), "access_token")
	wantStatus(t, p.pull("/v2/acme/app/manifests/v1", token), 401)
	wantStatus(t, p.hubAPI("/v2/repositories/acme/app/", "Authorization", "Bearer "+hub.Token("acme", time.Hour, "acme/app")), 401)
	hub.Advance(599 * time.Second)
	wantStatus(t, p.hubAPI("/v2/repositories/acme/app/", "Authorization", "Bearer "+token), 200)
	hub.Advance(time.Second)
	wantStatus(t, p.hubAPI("/v2/repositories/acme/app/", "Authorization", "Bearer "+token), 401)
}

func TestF61ObjectsUnderBothSpellings(t *testing.T) {
	hub, p := acmeHub(t, HubAPIOptions{})
	for _, prefix := range []string{"/v2/namespaces/acme/repositories", "/v2/repositories/acme"} {
		list := p.hubAPI(prefix)
		if list.status != 200 || field(t, list, "count") != 1.0 {
			t.Errorf("GET %s = %d %s, want the public repository alone", prefix, list.status, list.body)
		}
		if a := p.hubAPI(prefix + "/app/"); text(t, a, "name") != "app" || text(t, a, "namespace") != "acme" {
			t.Errorf("repository = %d %s", a.status, a.body)
		}
		tag := p.hubAPI(prefix + "/app/tags/latest")
		if text(t, tag, "digest") != hub.Tag("acme/app", "latest") || text(t, tag, "media_type") != OCIIndex {
			t.Errorf("tag = %d %s, want digest %s", tag.status, tag.body, hub.Tag("acme/app", "latest"))
		}
		if images, _ := field(t, tag, "images").([]any); len(images) != 2 {
			t.Errorf("tag has images %v, want 2", images)
		}
		wantStatus(t, p.hubAPI(prefix+"/app/tags/none"), 404)
		wantStatus(t, p.hubAPI(prefix+"/none/tags"), 404)
		if head := p.do(http.MethodHead, hub.URL(RoleHubAPI)+prefix+"/app/tags"); head.status != 200 || head.body != "" {
			t.Errorf("HEAD of tags = %d %q", head.status, head.body)
		}
	}
	if a := p.hubAPI("/v2/users/acme/"); text(t, a, "username") != "acme" {
		t.Errorf("user = %d %s", a.status, a.body)
	}
	if a := p.hubAPI("/v2/search/repositories/?query=app"); field(t, a, "count") != 1.0 {
		t.Errorf("search = %d %s", a.status, a.body)
	}
	wantStatus(t, p.do(http.MethodDelete, hub.URL(RoleHubAPI)+"/v2/repositories/acme/app/tags/v1/"), 405)
	if n := hub.Counters().WriteAttempts; n != 1 {
		t.Errorf("a DELETE counts %d write attempts, want 1", n)
	}
}

func TestF61Paging(t *testing.T) {
	hub := New(t, Options{})
	for i := range 25 {
		hub.PushImage("acme/app", fmt.Sprintf("v%02d", i), ImageSpec{})
		hub.Advance(time.Second)
	}
	p := newProbe(t, hub)
	var seen []string
	next := hub.URL(RoleHubAPI) + "/v2/namespaces/acme/repositories/app/tags?page_size=10"
	for pages := 1; next != ""; pages++ {
		a := p.do(http.MethodGet, next)
		var page struct {
			Count   int
			Next    string
			Results []struct{ Name string }
		}
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || page.Count != 25 || pages > 3 {
			t.Fatalf("page %d = %d %s", pages, a.status, a.body)
		}
		for _, r := range page.Results {
			seen = append(seen, r.Name)
		}
		next = page.Next
	}
	slices.Reverse(seen)
	if len(seen) != 25 || !slices.IsSorted(seen) {
		t.Errorf("tags = %q, want 25, latest first", seen)
	}
	wantStatus(t, p.hubAPI("/v2/namespaces/acme/repositories/app/tags?page=4"), 404)
	if a := p.hubAPI("/v2/namespaces/acme/repositories/app/tags?page_size=1000&name=v0"); field(t, a, "count") != 10.0 {
		t.Errorf("tags with v0 = %s, want 10", a.body)
	}
	hub.Set(func(o *Options) { o.HubAPI.NextBase = "{evil}" })
	if next := text(t, p.hubAPI("/v2/repositories/acme/app/tags"), "next"); !strings.HasPrefix(next, hub.URL(RoleEvil)+"/v2/") {
		t.Errorf("next = %q, want it at the evil role", next)
	}
}

func TestF62RateLimit(t *testing.T) {
	hub, p := acmeHub(t, HubAPIOptions{Limit: 3})
	start := hub.Now()
	for i := range 3 {
		a := p.hubAPI("/v2/users/acme")
		wantStatus(t, a, 200)
		wantHeader(t, a, "X-Ratelimit-Limit", "3")
		wantHeader(t, a, "X-Ratelimit-Remaining", strconv.Itoa(2-i))
	}
	for style, header := range map[RetryAfterStyle]string{
		RetryNone: "", RetrySeconds: "Retry-After", RetryDate: "Retry-After", RetryPast: "Retry-After", RetryUnix: "X-Retry-After",
	} {
		hub.Set(func(o *Options) { o.HubAPI.RetryAfter = style })
		a := p.hubAPI("/v2/users/acme")
		wantStatus(t, a, 429)
		wantBody(t, a, `{"detail": "Rate limit exceeded", "error": false}`)
		if header != "" && a.header.Get(header) == "" {
			t.Errorf("style %s: no %s in %v", style, header, a.header)
		}
		reset, err := strconv.ParseInt(a.header.Get("X-Ratelimit-Reset"), 10, 64)
		if err != nil || reset < start.Unix()+59 || reset > start.Unix()+70 {
			t.Errorf("X-Ratelimit-Reset = %q, want a minute after %d", a.header.Get("X-Ratelimit-Reset"), start.Unix())
		}
	}
	wantStatus(t, p.postJSON("/v2/auth/token", nil), 429)
	hub.Advance(time.Minute)
	wantStatus(t, p.hubAPI("/v2/users/acme"), 200)
}

func TestF63PrivateRepository(t *testing.T) {
	_, p := acmeHub(t, HubAPIOptions{})
	path := "/v2/namespaces/acme/repositories/secret/tags/v1"
	wantStatus(t, p.hubAPI(path), 404)
	login := func(name, secret string) string {
		return text(t, p.postJSON("/v2/auth/token", map[string]string{"identifier": name, "secret": secret}), "access_token")
	}
	wantStatus(t, p.hubAPI(path, "Authorization", "Bearer "+login("plain", "secret")), 404)
	wantStatus(t, p.hubAPI(path, "Authorization", "Bearer "+login("acme", "dckr_pat_1")), 200)
}

func TestF64LagShowsThePast(t *testing.T) {
	hub, p := acmeHub(t, HubAPIOptions{Lag: 30 * time.Second})
	hub.Advance(time.Minute)
	before := hub.Tag("acme/app", "v1")
	hub.MoveTag("acme/app", "v1", hub.Tag("acme/app", "latest"))
	hub.DeleteTag("acme/app", "latest")
	digest := func() string { return text(t, p.hubAPI("/v2/repositories/acme/app/tags/v1"), "digest") }
	if got := digest(); got != before {
		t.Errorf("digest = %s, want the former %s", got, before)
	}
	wantStatus(t, p.hubAPI("/v2/repositories/acme/app/tags/latest"), 200)
	hub.Advance(30 * time.Second)
	if got := digest(); got != hub.Tag("acme/app", "v1") {
		t.Errorf("digest = %s, want the present %s", got, hub.Tag("acme/app", "v1"))
	}
	wantStatus(t, p.hubAPI("/v2/repositories/acme/app/tags/latest"), 404)
}

func TestF65Webhook(t *testing.T) {
	hub := New(t, Options{})
	var got []byte
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body) // what is missing fails the test below
		w.WriteHeader(http.StatusAccepted)
	}))
	defer receiver.Close()
	for _, shape := range []WebhookShape{WebhookNormal, WebhookHuge, WebhookWrongTypes, WebhookCallback} {
		status, err := hub.EmitWebhook(t.Context(), receiver.URL, "acme/app", "v1", shape)
		if status != http.StatusAccepted || err != nil || !json.Valid(got) {
			t.Errorf("EmitWebhook(%q) = %d, %v; %d bytes of JSON: %v", shape, status, err, len(got), json.Valid(got))
		}
		switch {
		case shape == WebhookNormal && (!bytes.Contains(got, []byte(`"tag":"v1"`)) || !bytes.Contains(got, []byte(`"repo_name":"acme/app"`))):
			t.Errorf("payload = %s", got)
		case shape == WebhookHuge && len(got) < 10<<20:
			t.Errorf("payload has %d bytes, want 10 MiB", len(got))
		case shape == WebhookCallback && !bytes.Contains(got, []byte(hub.URL(RoleMeta))):
			t.Errorf("payload = %s, want the metadata service in it", got)
		}
	}
}

func TestF66BothSpellingsOfTheToken(t *testing.T) {
	_, p := acmeHub(t, HubAPIOptions{NeedToken: true})
	token := text(t, p.postJSON("/v2/auth/token", map[string]string{"identifier": "plain", "secret": "secret"}), "access_token")
	path := "/v2/repositories/acme/app/tags"
	wantStatus(t, p.hubAPI(path), 401)
	for _, scheme := range []string{"Bearer ", "JWT "} {
		wantStatus(t, p.hubAPI(path, "Authorization", scheme+token), 200)
	}
	wantStatus(t, p.hubAPI(path, "Authorization", "Basic "+token), 401)
}
