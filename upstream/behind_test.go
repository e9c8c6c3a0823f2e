package upstream

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream/auth"
)

// Tests of registries behind other registries and proxies.

// TestChallengeNamesAnotherRepository: a proxy rewrites names, and the registry behind it asks for
// its own.
func TestChallengeNamesAnotherRepository(t *testing.T) {
	for name, profile := range map[string]hubtest.Profile{"insufficient scope": hubtest.DockerHub, "refused by the token server": hubtest.GHCR} {
		for _, user := range []string{"", "acme"} {
			t.Run(name+" "+user, func(t *testing.T) {
				hub := hubtest.New(t, hubtest.Options{Profile: profile})
				hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
				hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.Rewrite("cache/"), When: func(s *hubtest.State) bool { return s.Repo != "" && !strings.HasPrefix(s.Repo, "cache/") }})
				o := hubOptions(hub)
				if user != "" {
					o = trusting(o, hub, user, "secret")
				}
				r := newRegistry(t, o)
				for _, repo := range []string{"library/a", "library/b"} {
					img := hub.PushImage("cache/"+repo, "latest", hubtest.ImageSpec{Seed: uint64(len(repo))})
					desc, raw, err := r.Manifest(t.Context(), repo, "latest")
					wantManifest(t, desc, raw, err, img)
					wantBlob(t, r, repo, digest(t, img.Blobs()[0].Digest), hub.Bytes(img.Blobs()[0].Digest))
				}
				before, tokens := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry}), hub.TokenRequests()
				if _, err := r.Resolve(t.Context(), "library/a", "latest"); err != nil {
					t.Error(err)
				}
				if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry}) - before; n != 1 || hub.TokenRequests() != tokens {
					t.Errorf("a further request took %d requests and %d for tokens, want 1 and 0", n, hub.TokenRequests()-tokens)
				}
				for _, scope := range scopes(hub) {
					if strings.Contains(scope, "push") || strings.Contains(scope, "*") {
						t.Errorf("a token was asked for %q", scope)
					}
				}
				hub.AssertClean(t)
			})
		}
	}
}

// TestChallengeWithoutAnErrorNamesAnotherRepository: the second 401 says nothing of the scope.
func TestChallengeWithoutAnErrorNamesAnotherRepository(t *testing.T) {
	r := serve(t, func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path == "/token":
			fmt.Fprintf(w, `{"token":%q}`, req.URL.Query().Get("scope"))
		case req.Header.Get("Authorization") == "Bearer repository:inner/a:pull":
			fmt.Fprint(w, `{"tags":["x"]}`)
		default:
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",scope="repository:inner/a:pull,push"`, req.Host))
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	if tags, err := r.Tags(t.Context(), "a"); err != nil || len(tags) != 1 {
		t.Errorf("Tags = %v, %v", tags, err)
	}
}

// TestEachRepositoryHasItsOwnRealm: behind one endpoint are several registries, each with a token
// server and a service of its own.
func TestEachRepositoryHasItsOwnRealm(t *testing.T) {
	asked, refused := 0, 0
	r := serve(t, func(w http.ResponseWriter, req *http.Request) {
		if service, ok := strings.CutPrefix(req.URL.Path, "/token/"); ok {
			asked++
			fmt.Fprintf(w, `{"token":%q}`, service+req.URL.Query().Get("service"))
			return
		}
		repo := strings.Split(req.URL.Path, "/")[2]
		if req.Header.Get("Authorization") == "Bearer "+repo+repo {
			fmt.Fprint(w, `{"tags":[]}`)
			return
		}
		refused++
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token/%s",service=%q`, req.Host, repo, repo))
		w.WriteHeader(http.StatusUnauthorized)
	})
	for range 3 {
		for _, repo := range []string{"one", "two"} {
			if _, err := r.Tags(t.Context(), repo); err != nil {
				t.Errorf("Tags(%s): %v", repo, err)
			}
		}
	}
	if refused != 2 || asked > 3 {
		t.Errorf("%d requests were refused, and %d tokens asked for; want 2 and at most 3", refused, asked)
	}
}

// second starts a registry that wants an anonymous token of its own.
func second(t *testing.T, scope string) (*httptest.Server, *[]string) {
	t.Helper()
	var leaked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch given := req.Header.Get("Authorization"); {
		case req.URL.Path == "/token":
			if given != "" {
				leaked = append(leaked, given)
			}
			fmt.Fprintf(w, `{"token":%q}`, req.URL.Query().Get("scope"))
		case given == "Bearer repository:moved/a:pull":
			fmt.Fprint(w, `{"tags":["x"]}`)
		default:
			if given != "" {
				leaked = append(leaked, given)
			}
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="second"%s`, req.Host, scope))
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(s.Close)
	return s, &leaked
}

// TestRedirectToARegistryThatWantsAToken: the registry has moved, and where it is now gives tokens to
// everybody.
func TestRedirectToARegistryThatWantsAToken(t *testing.T) {
	for _, scope := range []string{"", `,scope="repository:moved/a:pull"`} {
		there, leaked := second(t, scope)
		firsts := 0
		first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") == "" {
				firsts++
				w.Header().Set("Www-Authenticate", "Basic realm=x")
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			http.Redirect(w, req, there.URL+"/v2/moved/a/"+strings.SplitN(req.URL.Path, "/", 4)[3], http.StatusTemporaryRedirect)
		}))
		t.Cleanup(first.Close)
		r := newRegistry(t, Options{Name: "first.test", Endpoints: endpointsOf(first.URL), Credentials: auth.Credentials{Username: "acme", Password: "secret"}})
		for range 2 {
			if tags, err := r.Tags(t.Context(), "a"); err != nil || len(tags) != 1 {
				t.Errorf("scope %q: Tags = %v, %v", scope, tags, err)
			}
		}
		if len(*leaked) > 0 || firsts != 1 {
			t.Errorf("scope %q: the second registry saw %q, and the first asked %d times who we are", scope, *leaked, firsts)
		}
	}
}

// TestRedirectToARegistryMayNameNoRealmInside: its realm is vetted as any other.
func TestRedirectToARegistryMayNameNoRealmInside(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Named: true})
	public(hub)
	hub.SetAddrs("metadata.example", []netip.Addr{netip.MustParseAddr("169.254.169.254")})
	hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	o := hubOptions(hub)
	o.Lookup = hub.LookupNetIP
	for _, realm := range []string{"https://metadata.example/token", "http://attacker.example/token", "https://169.254.169.254/token", "https://127.0.0.1/token"} {
		r := newRegistry(t, o)
		to := hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, When: bearer, Do: hubtest.RedirectTo(307, "{cdn-sub}/v2/library/alpine/manifests/latest")})
		asks := hub.AddRule(hubtest.Rule{Role: hubtest.RoleSub, Do: hubtest.Challenge(fmt.Sprintf(`Bearer realm=%q`, realm))})
		_, _, err := r.Manifest(t.Context(), "library/alpine", "latest")
		wantKind(t, "Manifest with "+realm, err, pull.Unavailable)
		to.Remove()
		asks.Remove()
	}
	hub.AssertClean(t)
}

// TestTokenServerRedirects: a token request goes where the token server points, if that may be told who we are.
func TestTokenServerRedirects(t *testing.T) {
	for _, test := range []struct {
		location        string
		user, anonymous pull.Kind
	}{
		{"https://auth.docker.io/token2", ok, ok},
		{"/token2", ok, ok},
		{"{evil}/token", pull.Invalid, pull.Invalid},
		{"{registry}/token2", ok, ok},            // the endpoint's own host
		{"http://auth.docker.io/token2", ok, ok}, // asked for with https
		{"http://registry-1.docker.io/token2", pull.Invalid, pull.Invalid},
		{"https://169.254.169.254/token", pull.Invalid, pull.Invalid},
		{"https://metadata.example/token", pull.Invalid, pull.Invalid},
		{"https://user:pw@auth.docker.io/token2", pull.Invalid, pull.Invalid},
		{"", pull.Invalid, pull.Invalid},
	} {
		for _, user := range []string{"acme", ""} {
			for _, status := range []int{302, 307} {
				hub := hubtest.New(t, hubtest.Options{Named: true})
				public(hub)
				hub.SetAddrs("metadata.example", []netip.Addr{netip.MustParseAddr("169.254.169.254")})
				hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
				img := hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
				o := hubOptions(hub)
				o.Lookup = hub.LookupNetIP
				want := test.anonymous
				if user != "" {
					o.Credentials, want = auth.Credentials{Username: user, Password: "secret"}, test.user
				}
				r := newRegistry(t, o)
				hub.AddRule(hubtest.Rule{Role: hubtest.RoleAuth, Count: 1, Do: hubtest.RedirectTo(status, test.location)})
				token := fmt.Sprintf(`{"token":%q}`, hub.Token(user, 3600e9, "library/alpine"))
				for _, role := range []hubtest.Role{hubtest.RoleAuth, hubtest.RoleRegistry, hubtest.RoleEvil} {
					hub.AddRule(hubtest.Rule{Role: role, When: func(s *hubtest.State) bool { return strings.HasPrefix(s.Request.URL.Path, "/token") }, Do: hubtest.StatusWith(201, "application/json", token, nil)})
				}
				desc, raw, err := r.Manifest(t.Context(), "library/alpine", "latest")
				if want == ok {
					wantManifest(t, desc, raw, err, img)
				} else {
					wantKind(t, fmt.Sprintf("%d to %q as %q", status, test.location, user), err, want)
				}
				hub.AssertNoLeaks(t)
			}
		}
	}
}

// TestTokenServerThatRedirectsForEver ends.
func TestTokenServerThatRedirectsForEver(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleAuth, Do: hubtest.RedirectLoop(302)})
	_, _, err := r.Manifest(t.Context(), "library/alpine", "latest")
	wantKind(t, "Manifest", err, pull.Invalid)
	if n := hub.TokenRequests(); n > hopsMax+1 {
		t.Errorf("the token server was asked %d times, want at most %d", n, hopsMax+1)
	}
}
