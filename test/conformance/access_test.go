package conformance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"forebay/internal/access"
	"forebay/internal/authn"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// person is a client of a mirror that tells clients apart.
type person struct {
	id     authn.Identity
	line   string // header that proves it
	client *client
}

// people makes an authenticator and those whom it knows, with nobody first.
func people(t *testing.T) (*authn.Authenticator, []person) {
	t.Helper()
	folder := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("pass word"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	secret, token, err := authn.NewToken("robot", []string{"robots"}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"htpasswd": "alice:" + string(hash) + "\n", "tokens": token.String() + "\n"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, err := authn.New(authn.Options{
		HtpasswdFile: filepath.Join(folder, "htpasswd"), TokensFile: filepath.Join(folder, "tokens"),
		Networks: map[string][]netip.Prefix{"ci": {netip.MustParsePrefix("127.0.0.9/32")}},
		Groups:   map[string][]string{"team": {"alice", "network:ci"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	near := newClient(t)
	near.http.Transport.(*http.Transport).DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).DialContext
	list := []person{
		{line: "X-None: 1", client: newClient(t)},
		{authn.Identity{Name: "alice", Groups: []string{"team"}, By: authn.ByPassword}, "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("alice:pass word")), newClient(t)},
		{authn.Identity{Name: "robot", Groups: []string{"robots"}, By: authn.ByToken}, "Authorization: Bearer " + secret, newClient(t)},
		{authn.Identity{Name: "ci", Groups: []string{"team"}, By: authn.ByNetwork}, "X-None: 1", near},
	}
	for _, p := range list {
		p.client.challenged = true
	}
	return a, list
}

// mayBy is the rules read as plainly as they can be.
func mayBy(rules []access.Rule, id authn.Identity, name string) bool {
	for _, r := range rules {
		if (slices.Contains(r.What, "*") || slices.Contains(r.What, name)) && slices.ContainsFunc(r.Who, func(who string) bool {
			group, isGroup := strings.CutPrefix(who, "group:")
			return who == "anyone" || who == "known" && id.Known() || isGroup && slices.Contains(id.Groups, group) || id.Known() && who == authn.Qualified(id)
		}) {
			return !r.Deny
		}
	}
	return false // all came by the mirror's credentials
}

// Over every way to a thing the same rules decide, as they are read in the plainest way; what a
// client may not have is to it as if it did not exist, and nobody is asked to log in either way.
func TestAccess_EveryWayEveryoneEveryRule(t *testing.T) {
	auth, all := people(t)
	door := &access.Door{Auth: auth, Mode: access.Optional}
	hub, m, _, _ := withAccount(t, mirrortest.Options{Gate: door, TagTTL: time.Hour})
	repos := []string{"acme/secret", "acme/open", "acme/third"}
	hub.PushImage("acme/third", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64"}})
	images := map[string][]string{} // paths below /v2/REPO/
	setRules := func(rules []access.Rule) {
		r, err := access.NewRules(rules, func(string) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		door.Rules = r
	}
	// All of it is kept, so that what decides is nothing but the rules.
	setRules([]access.Rule{{Who: []string{"alice"}, What: []string{"*"}}})
	for _, repo := range repos {
		top := all[1].client.get(m.URL, "/v2/"+repo+"/manifests/latest", all[1].line)
		if top.Status != http.StatusOK {
			t.Fatalf("%s: status %d", top.request, top.Status)
		}
		var index struct {
			Manifests []struct{ Digest string }
		}
		manifest := top
		if err := json.Unmarshal(top.Body, &index); err == nil && len(index.Manifests) > 0 {
			manifest = all[1].client.get(m.URL, "/v2/"+repo+"/manifests/"+index.Manifests[0].Digest, all[1].line)
		}
		var doc struct{ Config struct{ Digest string } }
		if err := json.Unmarshal(manifest.Body, &doc); err != nil {
			t.Fatal(err)
		}
		images[repo] = []string{"manifests/latest", "manifests/" + top.Header.Get("Docker-Content-Digest"), "blobs/" + doc.Config.Digest, "tags/list", "referrers/" + top.Header.Get("Docker-Content-Digest")}
		for _, path := range images[repo] {
			if a := all[1].client.get(m.URL, "/v2/"+repo+"/"+path, all[1].line); a.Status != http.StatusOK {
				t.Fatalf("%s: status %d", a.request, a.Status)
			}
		}
	}
	who := []string{"anyone", "known", "group:team", "group:robots", "alice", "robot", "network:ci", "ci"}
	what := []string{"*", "docker.io/acme/secret", "docker.io/acme/open", "docker.io/acme/third"}
	allowed, denied := 0, 0
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 16))
		pick := func(from []string) []string { return []string{from[rnd.IntN(len(from))], from[rnd.IntN(len(from))]} }
		var rules []access.Rule
		for range 1 + rnd.IntN(4) {
			rules = append(rules, access.Rule{Who: pick(who), What: pick(what), Deny: rnd.IntN(3) == 0})
		}
		setRules(rules)
		for _, p := range all {
			var seen []string
			for _, repo := range repos {
				may := mayBy(rules, p.id, "docker.io/"+repo)
				if may {
					seen = append(seen, "docker.io/"+repo)
				}
				for _, path := range images[repo] {
					for _, line := range []string{"X-None: 2", "Range: bytes=0-0"} {
						for _, method := range []string{http.MethodGet, http.MethodHead} {
							a := p.client.ask(method, m.URL, "/v2/"+repo+"/"+path, p.line, line)
							if may {
								allowed++
								if a.Status >= 300 {
									t.Errorf("%+v: %s of %q: status %d, want it", rules, a.request, authn.Qualified(p.id), a.Status)
								}
								continue
							}
							denied++
							// Nowhere is as good a place to ask of.
							kind, _, _ := strings.Cut(path, "/")
							nowhere := p.client.ask(method, m.URL, "/v2/acme/nowhere/"+path, p.line, line)
							if mayBy(rules, p.id, "docker.io/acme/nowhere") {
								nowhere = nil // that one is asked of the hub
							}
							want := http.StatusNotFound
							if !p.id.Known() {
								want = http.StatusUnauthorized
							}
							if a.Status != want {
								t.Errorf("%+v: %s of %q: status %d, want %d", rules, a.request, authn.Qualified(p.id), a.Status, want)
							}
							if nowhere != nil && (string(a.Body) != string(nowhere.Body) || !cmp.Equal(stable(a.Header), stable(nowhere.Header))) {
								t.Errorf("%+v: %s of %q is told apart from what does not exist (%s):\n%s %v\n%s %v",
									rules, a.request, authn.Qualified(p.id), kind, a.Body, a.Header, nowhere.Body, nowhere.Header)
							}
						}
					}
				}
			}
			var list struct{ Repositories []string }
			a := p.client.get(m.URL, "/v2/_catalog?n=2", p.line)
			for page := 0; ; page++ {
				var more struct{ Repositories []string }
				if err := json.Unmarshal(a.Body, &more); err != nil || a.Status != http.StatusOK {
					t.Fatalf("%s of %q: status %d, %v", a.request, authn.Qualified(p.id), a.Status, err)
				}
				if page > 0 && len(more.Repositories) == 0 {
					t.Errorf("%+v: %q is led to an empty page, which tells of what is hidden", rules, authn.Qualified(p.id))
				}
				list.Repositories = append(list.Repositories, more.Repositories...)
				next, _, ok := strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
				if !ok || page > len(repos) {
					break
				}
				a = p.client.get(m.URL, next, p.line)
			}
			slices.Sort(seen)
			if !slices.Equal(list.Repositories, seen) {
				t.Errorf("%+v: %q is told of %v, want %v", rules, authn.Qualified(p.id), list.Repositories, seen)
			}
		}
	}
	if allowed < 100 || denied < 100 {
		t.Errorf("%d requests were allowed and %d denied: the rules say nothing", allowed, denied)
	}
	m.AssertNoSecret(t, "pass word", strings.TrimPrefix(all[2].line, "Authorization: Bearer "))
}

// A listener that wants to know everybody challenges as registries do, and its tokens are had in the
// ways of all clients; one that wants to know nobody looks at nothing that is shown.
func TestAccess_ChallengeAndToken(t *testing.T) {
	auth, all := people(t)
	rules, err := access.NewRules([]access.Rule{{Who: []string{"alice"}, What: []string{"*"}}}, func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	door := &access.Door{Auth: auth, Mode: access.Required, Rules: rules}
	_, m, _, _ := withAccount(t, mirrortest.Options{Gate: door})
	c := all[0].client
	for _, path := range []string{"/v2/", "/v2/acme/secret/manifests/latest", "/v2/acme/nowhere/tags/list", "/v2/_catalog", "/v2/acme/secret/blobs/nonsense"} {
		a := c.get(m.URL, path)
		want := fmt.Sprintf(`Bearer realm="%s/token",service="forebay"`, m.URL)
		if got := a.Header.Get("Www-Authenticate"); a.Status != http.StatusUnauthorized || got != want {
			t.Errorf("%s: status %d, %s; want %s", a.request, a.Status, got, want)
		}
	}
	tokens := http.HandlerFunc(door.ServeHTTP)
	get := func(r *http.Request) (token string, status int) {
		w := &recorded{header: http.Header{}}
		r.RemoteAddr = "192.0.2.1:1"
		tokens.ServeHTTP(w, r)
		var answer struct {
			Token, AccessToken string
			ExpiresIn          int `json:"expires_in"`
		}
		if w.status < 300 {
			if err := json.Unmarshal(w.body, &answer); err != nil || answer.ExpiresIn < 60 {
				t.Errorf("the token endpoint answers %s, %v", w.body, err)
			}
		}
		return answer.Token, max(w.status, 200)
	}
	request := func(method, body string, lines ...string) *http.Request {
		r, err := newRequest(t.Context(), method, "http://mirror", "/token?service=forebay&scope=repository:acme/secret:pull", lines...)
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			r.Body = http.NoBody
			r.PostForm = nil
			r, err = http.NewRequestWithContext(t.Context(), method, "http://mirror/token", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return r
	}
	for what, r := range map[string]*http.Request{
		"GET with Basic":  request(http.MethodGet, "", all[1].line),
		"POST as OAuth 2": request(http.MethodPost, "grant_type=password&username=alice&password=pass+word&service=forebay"),
	} {
		token, status := get(r)
		if status != http.StatusOK {
			t.Errorf("%s: status %d", what, status)
			continue
		}
		if a := c.get(m.URL, "/v2/acme/secret/manifests/latest", "Authorization: Bearer "+token); a.Status != http.StatusOK {
			t.Errorf("%s: with its token status %d", what, a.Status)
		}
	}
	for what, r := range map[string]*http.Request{
		"GET of nobody":         request(http.MethodGet, ""),
		"GET with a wrong one":  request(http.MethodGet, "", "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("alice:x"))),
		"POST with a wrong one": request(http.MethodPost, "grant_type=password&username=alice&password=x"),
	} {
		if _, status := get(r); status != http.StatusUnauthorized {
			t.Errorf("%s: status %d, want 401", what, status)
		}
	}
	if _, status := get(request(http.MethodPost, "grant_type=refresh_token&refresh_token=x")); status != http.StatusBadRequest {
		t.Errorf("POST of a kind that is not known: status %d, want 400", status)
	}
	door.Mode = access.Open
	if a := c.get(m.URL, "/v2/", "Authorization: Basic bm9ib2R5Om5vdGhpbmc="); a.Status != http.StatusOK {
		t.Errorf("an open listener looks at what it is shown: status %d", a.Status)
	}
	if a := c.get(m.URL, "/v2/acme/secret/manifests/latest", all[1].line); a.Status != http.StatusNotFound || a.Header.Get("Www-Authenticate") != "" {
		t.Errorf("an open listener: status %d, challenge %q", a.Status, a.Header.Get("Www-Authenticate"))
	}
}

// recorded is an answer kept in memory.
type recorded struct {
	header http.Header
	status int
	body   []byte
}

func (r *recorded) Header() http.Header    { return r.header }
func (r *recorded) WriteHeader(status int) { r.status = status }
func (r *recorded) Write(p []byte) (int, error) {
	r.body = append(r.body, p...)
	return len(p), nil
}
