package upstream

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream/auth"
)

func TestM40Realms(t *testing.T) {
	tests := []struct {
		challenge []string
		want      pull.Kind // with credentials
		anonymous pull.Kind // without
		evil      bool      // the realm may be asked, without credentials
	}{
		{[]string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`}, ok, ok, false},
		{[]string{"Negotiate", `Basic realm="x"`, `Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`}, ok, ok, false},
		{[]string{`Negotiate, Basic realm="x", Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`}, ok, ok, false},
		{[]string{`bearer realm=https://auth.docker.io/token,service=registry.docker.io`}, ok, ok, false},
		{[]string{`Bearer realm="https://auth.docker.io/token?x=y",service="registry.docker.io",scope="repository:user/image:pull"`}, ok, ok, false},
		{[]string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push repository:b:*"`}, ok, ok, false},
		{[]string{`Bearer realm="https://attacker.example/token",service="registry.docker.io"`}, pull.Invalid, ok, true},
		{[]string{`Bearer realm="https://docker.io.attacker.example/token",service="registry.docker.io"`}, pull.Invalid, pull.Unavailable, false},
		{[]string{`Bearer realm="https://hub.docker.com/token",service="registry.docker.io"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="https://auth.docker.io:8443/token",service="registry.docker.io"`}, pull.Invalid, pull.Unavailable, false},
		{[]string{`Bearer realm="http://auth.docker.io/token",service="registry.docker.io"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="https://user:pw@auth.docker.io/token",service="registry.docker.io"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="https://169.254.169.254/token"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="http://169.254.169.254/token"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="https://[fd00:ec2::254]/token"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="https://127.0.0.1/token"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="https://203.0.113.2/token"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="https://localhost/token"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="https://metadata.example/token"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="file:///etc/passwd"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="/token"`}, pull.Denied, pull.Denied, false}, // the registry's own host, which has none
		{[]string{`Bearer realm=""`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer service="registry.docker.io"`}, pull.Invalid, pull.Invalid, false},
		{[]string{`Bearer realm="` + strings.Repeat("x", 8<<10) + `"`}, pull.Invalid, pull.Invalid, false},
	}
	for _, test := range tests {
		for _, anonymous := range []bool{false, true} {
			t.Run(fmt.Sprintf("%.90s anonymous %v", strings.Join(test.challenge, "|"), anonymous), func(t *testing.T) {
				hub := hubtest.New(t, hubtest.Options{Named: true})
				public(hub)
				hub.SetAddrs("metadata.example", []netip.Addr{netip.MustParseAddr("169.254.169.254")})
				hub.SetAddrs("hub.docker.com", []netip.Addr{netip.MustParseAddr("203.0.113.77")})
				hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
				hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
				o := hubOptions(hub)
				o.Lookup = hub.LookupNetIP
				want := test.anonymous
				if !anonymous {
					o.Credentials, want = auth.Credentials{Username: "acme", Password: "secret"}, test.want
				}
				r := newRegistry(t, o)
				hub.AddRule(hubtest.Rule{
					Role: hubtest.RoleRegistry, Do: hubtest.Challenge(test.challenge...),
					When: func(s *hubtest.State) bool { return !s.Bearer },
				})
				_, _, err := r.Manifest(t.Context(), "library/alpine", "latest")
				if want != ok {
					wantKind(t, "Manifest", err, want)
				} else if err != nil {
					t.Errorf("Manifest: %v", err)
				}
				hub.AssertAllFired(t)
				if test.evil && anonymous {
					hub.AssertNoLeaks(t)
					return
				}
				noEgress(t, hub, "docker.io.attacker.example", "auth.docker.io")
			})
		}
	}
}

func TestUntrustedRealmIsNamed(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	o := hubOptions(hub) // on another address than the registry, and not listed
	o.Credentials = auth.Credentials{Username: "acme", Password: "secret"}
	hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
	hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	o.Names.TrustedRealms = "upstreams.docker.io.trusted_realms"
	core, logged := observer.New(zap.WarnLevel)
	o.Log = zap.New(core)
	r := newRegistry(t, o)
	host := strings.TrimPrefix(hub.URL(hubtest.RoleAuth), "http://")
	for range 3 {
		_, err := r.Resolve(t.Context(), "library/alpine", "latest")
		e := wantKind(t, "Resolve", err, pull.Invalid)
		// The message is what clients are told.
		if !strings.Contains(e.Message, host) || !strings.Contains(e.Message, "list it in upstreams.docker.io.trusted_realms") {
			t.Errorf("message does not name %s and the setting: %v", host, e)
		}
	}
	warned := logged.FilterMessage("token server is not trusted").All()
	if len(warned) != 1 || warned[0].ContextMap()["host"] != host || warned[0].ContextMap()["setting"] != o.Names.TrustedRealms {
		t.Errorf("the log warns by %v, want once, of %s", warned, host)
	}
	if n := hub.TokenRequests(); n != 0 {
		t.Errorf("hub saw %d token requests, want 0", n)
	}
	o.Fallback = []auth.Credentials{{}}
	if _, err := newRegistry(t, o).Resolve(t.Context(), "library/alpine", "latest"); err != nil {
		t.Errorf("Resolve with anonymous fallback: %v", err)
	}
	hub.AssertClean(t)
}

// quirky is a registry with one manifest, whose tokens the test hands out and judges.
type quirky struct {
	t      *testing.T
	refuse func(w http.ResponseWriter, req *http.Request) bool // answers and returns true to refuse
	token  func(w http.ResponseWriter, req *http.Request)

	tokens, requests atomic.Int64
}

func (q *quirky) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if strings.HasSuffix(req.URL.Path, "/token") {
		q.tokens.Add(1)
		q.token(w, req)
		return
	}
	q.requests.Add(1)
	if q.refuse(w, req) {
		return
	}
	w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	if strings.Contains(req.URL.Path, "/blobs/") {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	fmt.Fprint(w, `{"schemaVersion":2,"manifests":[]}`)
}

func newQuirky(t *testing.T, q *quirky) *Registry {
	q.t = t
	return serve(t, q.ServeHTTP)
}

// challengeUnless asks for a token unless the request has the wanted Authorization.
func challengeUnless(w http.ResponseWriter, req *http.Request, authorization, scope string) bool {
	if req.Header.Get("Authorization") == authorization {
		return false
	}
	w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="%s",scope="%s"`, req.Host, req.Host, scope))
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

// Azure's registries want metadata_read of a token for a list of tags, and answer one that may only pull with
// or without an error code.
func TestAzureWantsMetadataReadForTags(t *testing.T) {
	for _, code := range []string{"", `",error="insufficient_scope`} {
		q := &quirky{
			refuse: func(w http.ResponseWriter, req *http.Request) bool {
				given, want := req.Header.Get("Authorization"), "pull"
				if strings.HasSuffix(req.URL.Path, "/tags/list") {
					want = "metadata_read"
				}
				scope := "repository:a/b:" + want
				if given != "" {
					scope += code
				}
				return !strings.Contains(given, want) && challengeUnless(w, req, "that of nobody", scope)
			},
			token: func(w http.ResponseWriter, req *http.Request) {
				actions, ok := strings.CutPrefix(req.URL.Query().Get("scope"), "repository:a/b:")
				if !ok {
					w.WriteHeader(http.StatusBadRequest)
				}
				fmt.Fprintf(w, `{"access_token":%q}`, actions)
			},
		}
		r := newQuirky(t, q)
		for range 2 {
			if _, err := r.Tags(t.Context(), "a/b"); err != nil {
				t.Errorf("Tags where the code is %q: %v", code, err)
			}
			if _, _, err := r.Manifest(t.Context(), "a/b", "latest"); err != nil {
				t.Errorf("Manifest where the code is %q: %v", code, err)
			}
		}
		if tokens, requests := q.tokens.Load(), q.requests.Load(); tokens > 3 || requests > 7 {
			t.Errorf("server saw %d token requests and %d others, want 3 and 7 at most", tokens, requests)
		}
	}
}

func TestM15PublicECR(t *testing.T) {
	good := "one"
	q := &quirky{
		refuse: func(w http.ResponseWriter, req *http.Request) bool {
			switch {
			case req.Header.Get("Authorization") == "":
				return challengeUnless(w, req, "Bearer "+good, "aws")
			case req.Header.Get("Authorization") != "Bearer "+good:
				w.WriteHeader(http.StatusBadRequest) // no challenge
				fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}`)
				return true
			case req.Method == http.MethodHead && strings.Contains(req.URL.Path, "/blobs/"):
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			return false
		},
		token: func(w http.ResponseWriter, req *http.Request) {
			if got := req.URL.Query()["scope"]; len(got) != 1 || got[0] != "aws" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			fmt.Fprintf(w, `{"token":%q}`, good)
		},
	}
	r := newQuirky(t, q)
	if _, _, err := r.Manifest(t.Context(), "docker/library/alpine", "latest"); err != nil {
		t.Fatalf("Manifest: %v", err)
	}
	good = "two"
	if _, _, err := r.Manifest(t.Context(), "docker/library/alpine", "latest"); err != nil {
		t.Errorf("Manifest with a token that has expired: %v", err)
	}
	if n := q.tokens.Load(); n != 2 {
		t.Errorf("server saw %d token requests, want 2", n)
	}
	if _, _, err := r.Manifest(t.Context(), "another/repo", "latest"); err != nil || q.tokens.Load() != 2 {
		t.Errorf("Manifest of another repository: %v, with %d token requests, want 2: the scope is aws for all", err, q.tokens.Load())
	}
	for range 2 { // HEAD is refused; then it is not tried again
		before := q.requests.Load()
		if size, err := r.StatBlob(t.Context(), "docker/library/alpine", digestOf("", nil)); err != nil || size != 34 {
			t.Errorf("StatBlob = %d, %v; want 34", size, err)
		}
		if n := q.requests.Load() - before; n > 3 {
			t.Errorf("StatBlob cost %d requests, want at most 3", n)
		}
	}
	before := q.requests.Load()
	if _, err := r.StatBlob(t.Context(), "docker/library/alpine", digestOf("", nil)); err != nil || q.requests.Load() != before+1 {
		t.Errorf("StatBlob: %v, %d requests; want one, since HEAD is known to be refused", err, q.requests.Load()-before)
	}
}

func TestM16BadNameIsNotTakenForAnExpiredToken(t *testing.T) {
	q := &quirky{
		refuse: func(w http.ResponseWriter, req *http.Request) bool {
			if challengeUnless(w, req, "Bearer t", "aws") {
				return true
			}
			if strings.Contains(req.URL.Path, "/bad/") {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, `{"errors":[{"code":"NAME_INVALID","message":"invalid"}]}`)
				return true
			}
			return false
		},
		token: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"token":"t"}`) },
	}
	r := newQuirky(t, q)
	if _, _, err := r.Manifest(t.Context(), "good", "latest"); err != nil {
		t.Fatalf("Manifest: %v", err)
	}
	_, _, err := r.Manifest(t.Context(), "bad", "latest")
	if e := wantKind(t, "Manifest of a bad name", err, pull.Invalid); e.Code != "NAME_INVALID" {
		t.Errorf("code is %q, want NAME_INVALID", e.Code)
	}
	if n := q.tokens.Load(); n != 1 {
		t.Errorf("server saw %d token requests, want 1", n)
	}
}

func TestM16TokenRepliesOfRegistries(t *testing.T) {
	replies := map[string]string{
		"quay: only token":    `{"token":"t"}`,
		"acr: no expires_in":  `{"access_token":"t"}`,
		"ghcr: token":         `{"token":"t"}`,
		"gitlab":              `{"token":"t","expires_in":900,"issued_at":"2026-01-01T00:00:00Z"}`,
		"artifact registry":   `{"token":"t","expires_in":3600,"extra":{"a":[1]}}`,
		"byte order and more": "\n {\"token\":\"t\"}\nbye",
	}
	for name, reply := range replies {
		t.Run(name, func(t *testing.T) {
			q := &quirky{
				refuse: func(w http.ResponseWriter, req *http.Request) bool {
					return challengeUnless(w, req, "Bearer t", "repository:user/image:pull") // a placeholder
				},
				token: func(w http.ResponseWriter, req *http.Request) {
					if got := req.URL.Query().Get("scope"); got != "repository:owner/app:pull" {
						q := fmt.Sprintf("scope is %q", got)
						http.Error(w, q, http.StatusForbidden)
						return
					}
					fmt.Fprint(w, reply)
				},
			}
			r := newQuirky(t, q)
			for range 2 {
				if _, _, err := r.Manifest(t.Context(), "owner/app", "latest"); err != nil {
					t.Errorf("Manifest: %v", err)
				}
			}
			if n := q.tokens.Load(); n != 1 {
				t.Errorf("server saw %d token requests, want 1", n)
			}
		})
	}
}

func TestM16DeniedAtTheTokenServer(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		q := &quirky{
			refuse: func(w http.ResponseWriter, req *http.Request) bool { return challengeUnless(w, req, "-", "") },
			token: func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied (or it may not exist)"}]}`)
			},
		}
		_, _, err := newQuirky(t, q).Manifest(t.Context(), "owner/app", "latest")
		if e := wantKind(t, "Manifest", err, pull.Denied); e.Code != "DENIED" || e.Status != status {
			t.Errorf("error has code %q and status %d, want DENIED and %d", e.Code, e.Status, status)
		}
		if n := q.tokens.Load(); n != 1 {
			t.Errorf("server saw %d token requests, want 1", n)
		}
	}
}

func TestM16ExpiredTokenAs403(t *testing.T) {
	good := "one"
	q := &quirky{
		refuse: func(w http.ResponseWriter, req *http.Request) bool {
			if req.Header.Get("Authorization") != "" && req.Header.Get("Authorization") != "Bearer "+good {
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`)
				return true
			}
			return challengeUnless(w, req, "Bearer "+good, "")
		},
		token: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"token":%q}`, good) },
	}
	r := newQuirky(t, q)
	for _, good = range []string{"one", "two"} {
		if _, _, err := r.Manifest(t.Context(), "owner/app", "latest"); err != nil {
			t.Errorf("Manifest with token %s: %v", good, err)
		}
	}
	if n := q.tokens.Load(); n != 2 {
		t.Errorf("server saw %d token requests, want 2", n)
	}
}

func TestM16ECRPasswordIsReadAgainOn403(t *testing.T) {
	file := writeFile(t, "password", "old-password\n")
	good := "old-password"
	var requests atomic.Int64
	server := serve(t, func(w http.ResponseWriter, req *http.Request) {
		requests.Add(1)
		_, password, sent := req.BasicAuth()
		switch {
		case !sent:
			w.Header().Set("Www-Authenticate", `Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"`)
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, "Not Authorized\n")
		case password != good:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`)
		default:
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			fmt.Fprint(w, `{"schemaVersion":2,"manifests":[]}`)
		}
	})
	r := newRegistry(t, Options{
		Name: "corp", Endpoints: endpointsOf(server.endpoints[0].base.String()),
		Credentials: auth.Credentials{Username: "AWS", PasswordFile: file},
	})
	manifest := func() error {
		_, _, err := r.Manifest(t.Context(), "app", "latest")
		return err
	}
	if err := manifest(); err != nil {
		t.Fatalf("Manifest: %v", err)
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("server saw %d requests, want 2: a challenge and an answer", n)
	}
	good = "new-password"
	e := wantKind(t, "Manifest with the old password", manifest(), pull.Denied)
	if n := requests.Load(); n != 3 {
		t.Errorf("server saw %d requests, want 3: the same password is not sent twice", n)
	}
	if e.Status != http.StatusForbidden {
		t.Errorf("status is %d, want 403", e.Status)
	}
	replaceFile(t, file, "new-password\n")
	if err := manifest(); err != nil {
		t.Errorf("Manifest with the new password: %v", err)
	}
}

func TestBasicWithoutCredentialsSaysSo(t *testing.T) {
	r := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", `Basic realm="corp"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	_, _, err := r.Manifest(t.Context(), "app", "latest")
	if e := wantKind(t, "Manifest", err, pull.Denied); !strings.Contains(e.Error(), "none is configured") {
		t.Errorf("error is not clear: %v", e)
	}
}

func TestRealmIsLearnedFromThePing(t *testing.T) {
	q := &quirky{
		refuse: func(w http.ResponseWriter, req *http.Request) bool {
			if req.URL.Path == "/v2/" {
				return challengeUnless(w, req, "-", "repository:user/image:pull")
			}
			if req.Header.Get("Authorization") != "Bearer t" {
				w.WriteHeader(http.StatusUnauthorized) // without a challenge, as gcr.io
				return true
			}
			return false
		},
		token: func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Query().Get("scope") == "repository:owner/app:pull" {
				fmt.Fprint(w, `{"token":"t"}`)
			}
		},
	}
	r := newQuirky(t, q)
	if _, _, err := r.Manifest(t.Context(), "owner/app", "latest"); err != nil {
		t.Errorf("Manifest: %v", err)
	}
}

func TestEchoedSecretsAreHidden(t *testing.T) {
	pair := base64.StdEncoding.EncodeToString([]byte("acme:s3cret-pass"))
	q := &quirky{
		refuse: func(w http.ResponseWriter, req *http.Request) bool { return challengeUnless(w, req, "-", "") },
		token: func(w http.ResponseWriter, req *http.Request) {
			_, password, _ := req.BasicAuth()
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"you sent %s and %s"}]}`, password, password, req.Header.Get("Authorization"))
		},
	}
	server := newQuirky(t, q)
	r := newRegistry(t, Options{
		Name: "corp", Endpoints: endpointsOf(server.endpoints[0].base.String()),
		Credentials: auth.Credentials{Username: "acme", Password: "s3cret-pass"},
	})
	_, _, err := r.Manifest(t.Context(), "app", "latest")
	e := wantKind(t, "Manifest", err, pull.Denied)
	for _, secret := range []string{"s3cret-pass", pair} {
		if strings.Contains(e.Error(), secret) {
			t.Errorf("error has %q in it: %v", secret, e)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s", r.opts.Credentials, r.opts.Credentials, r.opts.Credentials, r.opts.Credentials); strings.Contains(text, "s3cret") {
		t.Errorf("printed credentials show the password: %s", text)
	}
}

func TestWaitingForATokenEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	q := &quirky{
		refuse: func(w http.ResponseWriter, req *http.Request) bool { return challengeUnless(w, req, "Bearer t", "") },
		token: func(w http.ResponseWriter, _ *http.Request) {
			<-release
			fmt.Fprint(w, `{"token":"t"}`)
		},
	}
	r := newQuirky(t, q)
	ctx, cancel := contextWithTimeout(t, 30*time.Millisecond)
	defer cancel()
	_, _, err := r.Manifest(ctx, "app", "latest")
	wantKind(t, "Manifest", err, pull.Timeout)
	close(release)
	// The request for the token went on, and serves the next one.
	if _, _, err := r.Manifest(t.Context(), "app", "latest"); err != nil {
		t.Errorf("Manifest: %v", err)
	}
	if n := q.tokens.Load(); n != 1 {
		t.Errorf("server saw %d token requests, want 1", n)
	}
}
