package conformance

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/cache"
	"forebay/internal/access"
	"forebay/internal/authn"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/upstream"
	"forebay/upstream/auth"
)

// asking is a mirror whose registry is asked what each client may have.
type asking struct {
	hub    *hubtest.Hub
	m      *mirrortest.Mirror
	c      *client
	door   *access.Door
	secret *hubtest.Image
}

func basicOf(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// newAsking makes one with alice and carol, who may read acme/secret, and bob, who may not.
func newAsking(t *testing.T, passThrough bool) *asking {
	t.Helper()
	t.Parallel()
	a := &asking{hub: hubtest.New(t, hubtest.Options{}), c: newClient(t)}
	t.Cleanup(func() { a.hub.AssertClean(t) })
	a.c.challenged = true
	own := upstream.Options{}
	if !passThrough {
		own.Credentials = auth.Credentials{Username: account, Password: password}
	}
	a.hub.AddUser(hubtest.User{Name: account, Secrets: []string{password}, Plan: hubtest.Unlimited()})
	for _, name := range []string{"alice", "carol"} {
		a.hub.AddUser(hubtest.User{Name: name, Secrets: []string{name + " secret"}, Repos: []string{"acme/secret"}})
	}
	a.hub.AddUser(hubtest.User{Name: "bob", Secrets: []string{"bob secret"}, Plan: hubtest.Unlimited()})
	a.hub.AddRepo("acme/secret", hubtest.RepoOpts{Private: true})
	a.secret = a.hub.PushImage("acme/secret", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	a.hub.PushImage("acme/open", "latest", hubtest.ImageSpec{})

	known, err := authn.New(authn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := access.NewRules(nil, func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	rules.Asked = func(name string) bool { return name == "docker.io" }
	a.door = &access.Door{Auth: known, Mode: access.Optional, Rules: rules, Asked: map[string]access.Asked{"docker.io": {TTL: time.Hour, PassThrough: passThrough}}}
	a.m = mirrortest.New(t, calm(mirrortest.Options{
		Gate: a.door, TagTTL: time.Hour,
		Upstreams: map[string]mirrortest.Upstream{"docker.io": {Hub: a.hub, Registry: own, Fetch: cache.UpstreamOptions{Trust: "docker.io", Credentialed: !passThrough}}},
	}))
	life, end := context.WithCancel(context.Background())
	a.door.Rights, err = access.NewRights(life, func(context.Context, string, string) (access.Registry, error) { return a.m.Registries()[0], nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(); a.door.Rights.Wait() })
	return a
}

// Nobody has what is private because another has pulled it: each is asked for at its registry, by
// what the client shows for it, over every way to it; and what is not there looks the same.
func TestAccess_ByTheWordOfTheRegistry(t *testing.T) {
	for _, passThrough := range []bool{false, true} {
		t.Run(fmt.Sprintf("pass_through=%t", passThrough), func(t *testing.T) {
			a := newAsking(t, passThrough)
			alice, carol, bob, wrong := basicOf("alice", "alice secret"), basicOf("carol", "carol secret"), basicOf("bob", "bob secret"), basicOf("alice", "x")
			all := resources(t, a.hub, a.secret)
			for _, r := range all {
				r.assert(t, a.c.get(a.m.URL, "/v2/acme/secret/"+r.path, alice))
			}
			a.m.Settle()
			if got := a.hub.Count(hubtest.Query{Method: http.MethodHead, Repo: "acme/secret", Ref: "latest", Status: 200}); got != 2 {
				t.Errorf("the first pull of a client asked %d times for its tag, want 2: for the right, and what it is", got)
			}
			if charged := a.hub.Counters().Charged; passThrough && (charged[account] > 0 || charged["alice"] == 0) || !passThrough && charged["alice"] > 0 {
				t.Errorf("pulls are charged to %v", charged)
			}
			a.hub.Settle(t)
			before := a.hub.Requests()
			for _, r := range all {
				r.assert(t, a.c.get(a.m.URL, "/v2/acme/secret/"+r.path, alice))
			}
			if n := a.hub.Requests() - before; n != 0 {
				t.Errorf("what a client has shown its right to is asked for again: %d requests", n)
			}
			paths := []string{"tags/list", "referrers/" + a.secret.Digest}
			for _, r := range all {
				paths = append(paths, r.path)
			}
			for _, path := range paths {
				for who, line := range map[string]string{"nobody": "X-None: 1", "bob": bob, "a wrong password": wrong} {
					want := http.StatusNotFound
					if who == "nobody" {
						want = http.StatusUnauthorized
					}
					for _, method := range []string{http.MethodGet, http.MethodHead} {
						for _, more := range []string{"X-None: 2", "Range: bytes=0-0"} {
							got := a.c.ask(method, a.m.URL, "/v2/acme/secret/"+path, line, more)
							nowhere := a.c.ask(method, a.m.URL, "/v2/acme/nowhere/"+path, line, more)
							if got.Status != want {
								t.Errorf("%s of %s: status %d, want %d", got.request, who, got.Status, want)
							}
							if string(got.Body) != string(nowhere.Body) || !cmp.Equal(stable(got.Header), stable(nowhere.Header)) {
								t.Errorf("%s of %s is told apart from what does not exist:\n%s %v\n%s %v", got.request, who, got.Body, got.Header, nowhere.Body, nowhere.Header)
							}
							if c := got.Header.Get("Www-Authenticate"); who == "nobody" && c != `Basic realm="docker.io"` {
								t.Errorf("%s of %s is challenged by %q", got.request, who, c)
							}
						}
					}
				}
			}
			if got := a.c.get(a.m.URL, "/v2/acme/open/manifests/latest"); got.Status != http.StatusOK {
				t.Errorf("what is for everybody, to nobody: status %d", got.Status)
			}
			// Another who may costs one HEAD, and no pull.
			a.hub.Settle(t)
			a.hub.ResetCounters()
			for _, r := range all {
				r.assert(t, a.c.get(a.m.URL, "/v2/acme/secret/"+r.path, carol))
			}
			heads, gets := a.hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodHead, Status: 200}), a.hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodGet, Status: 200})
			if heads != 1 || gets != 0 {
				t.Errorf("another client with the right cost %d HEADs and %d GETs, want 1 and 0", heads, gets)
			}
			for name, want := range map[string]bool{alice: true, carol: true, bob: false, "X-None: 1": false} {
				list := a.c.get(a.m.URL, "/v2/_catalog", name)
				if strings.Contains(string(list.Body), "acme/secret") != want {
					t.Errorf("the catalog tells %q: %s", name, list.Body)
				}
			}
			a.m.AssertNoSecret(t, "alice secret", strings.TrimPrefix(alice, "Authorization: Basic "), "carol secret", strings.TrimPrefix(carol, "Authorization: Basic "))
		})
	}
}

// Where it is not told for which of two registries a login is, neither gets it.
func TestAccess_ALoginGoesToItsRegistryAlone(t *testing.T) {
	a := newAsking(t, true)
	other := hubtest.New(t, hubtest.Options{})
	other.PushImage("acme/secret", "latest", hubtest.ImageSpec{})
	other.AddRepo("acme/secret", hubtest.RepoOpts{Private: true})
	a.m.RestartWith(func(o *mirrortest.Options) {
		o.Upstreams["ghcr.io"] = mirrortest.Upstream{Hub: other}
		o.Hosts = map[string]string{"hub.mirror.example": "docker.io"}
	})
	a.door.Asked["ghcr.io"] = access.Asked{TTL: time.Hour, PassThrough: true}
	a.door.Rules.Asked = func(string) bool { return true }
	rights, err := access.NewRights(t.Context(), func(_ context.Context, name, _ string) (access.Registry, error) {
		for _, r := range a.m.Registries() {
			if r.Name() == name {
				return r, nil
			}
		}
		return nil, fmt.Errorf("no registry %s", name)
	})
	if err != nil {
		t.Fatal(err)
	}
	a.door.Rights = rights
	alice := basicOf("alice", "alice secret")
	for path, want := range map[string]int{
		"/v2/ghcr.io/acme/secret/manifests/latest":      http.StatusUnauthorized,
		"/v2/acme/secret/manifests/latest":              http.StatusUnauthorized,
		"/v2/acme/secret/manifests/latest?ns=docker.io": http.StatusOK,
		"/docker.io/v2/acme/secret/manifests/latest":    http.StatusOK,
	} {
		if got := a.c.get(a.m.URL, path, alice); got.Status != want {
			t.Errorf("%s: status %d, want %d", got.request, got.Status, want)
		}
	}
	if ledger := other.Ledger(); strings.Contains(ledger, "Basic") || strings.Contains(ledger, "[alice]") {
		t.Errorf("a login went to another registry:\n%s", ledger)
	}
}
