package upstream

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/pull"
	"forebay/test/hubtest"
)

// One test for each quirk of a registry, named after the two. What all registries must
// stand (redirects, realms, tokens in all shapes) is in the files of those subjects, and
// a whole pull from each of them is in profiles_test.go.

// quirk starts a hub of a profile with an image acme/app:latest, and a registry that
// speaks to it as the user acme.
func quirk(t *testing.T, o hubtest.Options) (*hubtest.Hub, *Registry, *hubtest.Image) {
	t.Helper()
	hub := hubtest.New(t, o)
	hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
	img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
	t.Cleanup(func() { hub.AssertClean(t); hub.AssertAllFired(t) })
	return hub, newRegistry(t, trusting(hubOptions(hub), hub, "acme", "secret")), img
}

// wantPull fails the test unless acme/app:latest can be had.
func wantPull(t *testing.T, r *Registry, img *hubtest.Image) {
	t.Helper()
	if _, raw, err := r.Manifest(t.Context(), img.Repo, img.Tag); err != nil || !bytes.Equal(raw, img.Raw) {
		t.Errorf("Manifest: %v, %d bytes; want %d", err, len(raw), len(img.Raw))
	}
}

// wantFirstBlob fails the test unless the first blob of img can be had, from off on.
func wantFirstBlob(t *testing.T, hub *hubtest.Hub, r *Registry, img *hubtest.Image, off int64) {
	t.Helper()
	d := img.Blobs()[0].Digest
	_, got, err := readBlob(t.Context(), r, img.Repo, digest(t, d), off, -1)
	if err != nil || !bytes.Equal(got, hub.Bytes(d)[off:]) {
		t.Errorf("blob from %d on: %v, %d bytes", off, err, len(got))
	}
}

func scopes(hub *hubtest.Hub) []string {
	var all []string
	for key := range hub.Counters().TokensIssued {
		all = append(all, key)
	}
	slices.Sort(all)
	return all
}

// withoutChallenge makes the registry refuse the first manifest request without saying
// how to authenticate, so that its ping is asked.
func withoutChallenge(hub *hubtest.Hub) {
	hub.AddRule(hubtest.Rule{
		Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Count: 1,
		Do: hubtest.StatusWith(401, "application/json", `{"errors":[{"code":"UNAUTHORIZED"}]}`, nil),
	})
}

func TestGHCRScopeOfThePingIsAPlaceholder(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.GHCR})
	withoutChallenge(hub)
	wantPull(t, r, img)
	if got := scopes(hub); !slices.Equal(got, []string{"acme repository:acme/app:pull"}) {
		t.Errorf("tokens were asked for %q, want the repository's scope", got)
	}
	if n := hub.Count(hubtest.Query{Route: hubtest.RoutePing}); n != 1 {
		t.Errorf("hub saw %d pings, want 1", n)
	}
}

func TestGHCRRefusesPushAtTheTokenServer(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.GHCR})
	hub.AddRule(hubtest.Rule{ // a challenge that offers more than is wanted
		Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Count: 1,
		Do: hubtest.Challenge(`Bearer realm="{registry}/token",service="ghcr.io",scope="repository:acme/app:pull,push"`),
	})
	wantPull(t, r, img)
	for _, scope := range scopes(hub) {
		if strings.Contains(scope, "push") {
			t.Errorf("a token was asked for %q", scope)
		}
	}
}

func TestGHCRTokenServerDeniesWhatIsMissing(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.GHCR})
	wantPull(t, r, img)
	before := hub.TokenRequests()
	_, _, err := r.Manifest(t.Context(), "acme/missing", "latest")
	wantKind(t, "Manifest of a missing repository", err, pull.Denied)
	if n := hub.TokenRequests() - before; n != 1 {
		t.Errorf("hub saw %d token requests, want 1", n)
	}
	wantPull(t, r, img) // the credentials are as good as before
}

func TestGHCRSignedURLsLiveForMinutes(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.GHCR, SignedTTL: 5 * time.Minute})
	wantFirstBlob(t, hub, r, img, 0)
	wantFirstBlob(t, hub, r, img, 10)
	hub.Advance(6 * time.Minute)
	wantFirstBlob(t, hub, r, img, 20)
	if n := hub.Counters().BlobRedirects[img.Blobs()[0].Digest]; n < 2 || n > 3 {
		t.Errorf("hub was asked %d times where the blob is, want again after the end of the URL", n)
	}
}

func TestGHCRWantsTheTypeOfAnIndexAccepted(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.GHCR})
	rule := hub.AddRule(hubtest.Rule{
		Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest,
		When: func(s *hubtest.State) bool {
			accept := strings.Join(s.Request.Header.Values("Accept"), ",")
			for _, kind := range []string{hubtest.OCIIndex, hubtest.DockerList, hubtest.OCIManifest, hubtest.DockerManifest} {
				if !strings.Contains(accept, kind) {
					return true
				}
			}
			return false
		},
		Do: hubtest.StatusWith(404, "application/json", `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"OCI index found, but Accept header does not support OCI indexes"}]}`, nil),
	})
	wantPull(t, r, img)
	if _, err := r.Resolve(t.Context(), img.Repo, img.Tag); err != nil {
		t.Errorf("Resolve: %v", err)
	}
	if n := rule.Fired(); n != 0 {
		t.Errorf("%d requests did not accept every type", n)
	}
	// That the rule can fire at all:
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, hub.RegistryURL()+"/v2/acme/app/manifests/latest", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if n := rule.Fired(); n != 1 {
		t.Errorf("the rule fired %d times for a request that accepts nothing, want 1", n)
	}
}

// TestGHCRTellsMicrosecondsInAMessage: "retry-after: 160.574µs" must hold nobody up for
// longer than the least pause, and be no nonsense either.
func TestGHCRTellsMicrosecondsInAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{Profile: hubtest.GHCR})
		img := w.push("acme/app", "latest")
		r := w.registry(nil)
		w.hub.AddRule(hubtest.Rule{
			Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: bearer, Count: 1,
			Do: hubtest.StatusWith(429, "application/json", `{"errors":[{"code":"TOOMANYREQUESTS","message":"toomanyrequests: retry-after: 160.574µs, allowed: 44000/minute"}]}`, nil),
		})
		start := time.Now()
		_, _, err := r.Manifest(t.Context(), img.Repo, img.Tag)
		if err != nil {
			e := wantKind(t, "Manifest", err, pull.Limited)
			if e.RetryAfter > 5*time.Second {
				t.Errorf("RetryAfter = %v, want a moment", e.RetryAfter)
			}
			time.Sleep(5 * time.Second)
			wantPull(t, r, img)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		w.hub.AssertAllFired(t)
	})
}

func TestQuayTokenHasNoExpiry(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.Quay})
	for _, step := range []struct {
		pass time.Duration
		want int
	}{{0, 1}, {40 * time.Second, 1}, {25 * time.Second, 2}} {
		hub.Advance(step.pass)
		wantPull(t, r, img)
		if n := hub.TokenRequests(); n != step.want {
			t.Errorf("after %s more: %d token requests, want %d", step.pass, n, step.want)
		}
	}
}

func TestQuayScopeIsNotQuoted(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.Quay})
	hub.AddRule(hubtest.Rule{
		Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: func(s *hubtest.State) bool { return !s.Bearer },
		Do: hubtest.Challenge(`Bearer realm="{registry}/v2/auth",service="quay.io",scope=repository:acme/app:pull`),
	})
	wantPull(t, r, img)
}

func TestQuayRedirectSaysThatItLivesForAYear(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.Quay})
	wantFirstBlob(t, hub, r, img, 0)
	wantFirstBlob(t, hub, r, img, 5)
	hub.Advance(2 * time.Hour) // the signature is over, whatever Cache-Control says
	wantFirstBlob(t, hub, r, img, 5)
	wantFirstBlob(t, hub, r, img, 0)
}

func TestQuayAnswersTheHeadOfABlobItself(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.Quay})
	b := img.Blobs()[0]
	if size, err := r.StatBlob(t.Context(), img.Repo, digest(t, b.Digest)); err != nil || size != b.Size {
		t.Errorf("StatBlob = %d, %v; want %d", size, err, b.Size)
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.CDN}); n != 0 {
		t.Errorf("blob stores saw %d requests, want none", n)
	}
}

func TestQuayBlobsAreOnASubdomain(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.Quay, Named: true, Names: map[hubtest.Role]string{
		hubtest.RoleRegistry: "quay.io", hubtest.RoleSub: "cdn01.quay.io",
	}})
	wantFirstBlob(t, hub, r, img, 0) // and no credentials go there: see AssertClean
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleSub}); n != 1 {
		t.Errorf("cdn01.quay.io saw %d requests, want 1", n)
	}
}

func TestQuayMissingRepositoryIs401(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.Quay})
	wantPull(t, r, img)
	_, _, err := r.Manifest(t.Context(), "acme/missing", "latest")
	wantKind(t, "Manifest of a missing repository", err, pull.Denied)
	if n := hub.TokenRequests(); n > 3 {
		t.Errorf("hub saw %d token requests, want at most 3", n)
	}
}

func TestQuayTagsExpire(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.Quay})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifestTag, When: bearer,
		Do: hubtest.StatusWith(404, "application/json", `{"errors":[{"code":"TAG_EXPIRED","message":"Tag latest was deleted or has expired. To pull, revive via time machine"}]}`, nil)})
	_, _, err := r.Manifest(t.Context(), img.Repo, img.Tag)
	if e := wantKind(t, "Manifest of an expired tag", err, pull.NotFound); e.Code != "TAG_EXPIRED" {
		t.Errorf("code is %q, want TAG_EXPIRED", e.Code)
	}
}

func TestQuayLimitIsAPageOfHTML(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.Quay})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: bearer, Do: hubtest.StatusHTML(429)})
	_, _, err := r.Manifest(t.Context(), img.Repo, img.Tag)
	if e := wantKind(t, "Manifest", err, pull.Limited); strings.Contains(e.Error(), "<") {
		t.Errorf("error has HTML in it: %v", e)
	}
}

func TestQuayTagPagesHaveAnOpaqueMark(t *testing.T) {
	const mark = "gAAAAABk-_x%3D%3D"
	for name, link := range map[string]string{
		"opaque":   `</v2/acme/app/tags/list?next_page=` + mark + `&n=1>; rel="next"`,
		"relative": `</v2/acme/app/tags/list?n=1&last=a>; rel="next"`,
	} {
		t.Run(name, func(t *testing.T) {
			var queries []string
			r := serve(t, func(w http.ResponseWriter, req *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if queries = append(queries, req.URL.RawQuery); len(queries) == 1 {
					w.Header().Set("Link", link)
					fmt.Fprint(w, `{"name":"acme/app","tags":["a"]}`)
					return
				}
				fmt.Fprint(w, `{"name":"acme/app","tags":["b"]}`)
			})
			tags, err := r.Tags(t.Context(), "acme/app")
			if err != nil || !slices.Equal(tags, []string{"a", "b"}) {
				t.Errorf("Tags = %q, %v; want [a b]", tags, err)
			}
			if len(queries) != 2 || !strings.Contains(link, queries[1]) {
				t.Errorf("queries were %q, want the second as the link says", queries)
			}
		})
	}
}

func TestArtifactRegistryRefusesATokenWithoutAChallenge(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.GAR})
	wantPull(t, r, img)
	hub.ExpireTokens()
	wantPull(t, r, img)
	if n := hub.TokenRequests(); n != 2 {
		t.Errorf("hub saw %d token requests, want 2", n)
	}
}

func TestArtifactRegistryPingNamesARealmOnly(t *testing.T) {
	q := &quirky{
		refuse: func(w http.ResponseWriter, req *http.Request) bool {
			switch {
			case req.Header.Get("Authorization") == "Bearer t":
				return false
			case req.URL.Path == "/v2/":
				w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, req.Host))
			}
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
		token: func(w http.ResponseWriter, req *http.Request) {
			if query := req.URL.Query(); query.Has("service") || query.Get("scope") != "repository:owner/app:pull" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			fmt.Fprint(w, `{"token":"t","expires_in":3600}`)
		},
	}
	if _, _, err := newQuirky(t, q).Manifest(t.Context(), "owner/app", "latest"); err != nil {
		t.Errorf("Manifest: %v", err)
	}
}

func TestArtifactRegistryLocationIsRelative(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.GAR})
	wantFirstBlob(t, hub, r, img, 0)
	if n := hub.Count(hubtest.Query{Role: hubtest.CDN}); n != 0 {
		t.Errorf("other hosts saw %d requests, want none", n)
	}
}

func TestArtifactRegistryDeniesWhatIsMissing(t *testing.T) {
	_, r, _ := quirk(t, hubtest.Options{Profile: hubtest.GAR})
	_, _, err := r.Manifest(t.Context(), "acme/missing", "latest")
	if e := wantKind(t, "Manifest of a missing repository", err, pull.Denied); !strings.Contains(e.Message, "or it may not exist") {
		t.Errorf("message is %q, want what the token server said", e.Message)
	}
}

func TestArtifactRegistryTagListHasMoreKeys(t *testing.T) {
	r := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"child":["sub"],"manifest":{"sha256:00":{"imageSizeBytes":"1","tag":["a"]}},"name":"acme/app","tags":["a"]}`)
	})
	if tags, err := r.Tags(t.Context(), "acme/app"); err != nil || !slices.Equal(tags, []string{"a"}) {
		t.Errorf("Tags = %q, %v; want [a]", tags, err)
	}
}

func TestArtifactRegistryUserIsOAuth2AccessToken(t *testing.T) {
	for _, user := range []string{"oauth2accesstoken", "_json_key", "_json_key_base64"} {
		hub := hubtest.New(t, hubtest.Options{Profile: hubtest.GAR, OAuthStatus: 404})
		secret := "ya29.hunter2"
		if user == "_json_key" {
			secret = `{"type":"service_account","private_key":"-----BEGIN\nhunter2: x"}`
		}
		hub.AddUser(hubtest.User{Name: user, Secrets: []string{secret}, Repos: []string{"acme/*"}})
		img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
		hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
		wantPull(t, newRegistry(t, trusting(hubOptions(hub), hub, user, secret)), img)
		if n := hub.Counters().OAuthPosts; n != 0 {
			t.Errorf("user %s: the token server saw %d POSTs, which it does not know", user, n)
		}
	}
}

func TestGCRRefusesWithoutAChallenge(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.DockerHub})
	withoutChallenge(hub)
	wantPull(t, r, img)
}

func TestGCRRedirectHasADocument(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{})
	hub.AddRule(hubtest.Rule{
		Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: bearer,
		Do: hubtest.Both(hubtest.RedirectCDN(302, hubtest.RoleCF), hubtest.Edit("document", func(_ *http.Request, a *hubtest.Reply) {
			a.Header.Set("Content-Type", "application/json")
			a.SetBody([]byte(`{"errors":[]}`))
		})),
	})
	wantFirstBlob(t, hub, r, img, 0)
}

func TestRegistryK8sManifestsAreElsewhere(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.K8s})
	wantPull(t, r, img)
	if desc, err := r.Resolve(t.Context(), img.Repo, img.Tag); err != nil || desc.Digest.String() != img.Digest {
		t.Errorf("Resolve = %+v, %v; want %s", desc, err, img.Digest)
	}
	_, _, err := r.Manifest(t.Context(), img.Repo, "missing")
	wantKind(t, "Manifest of a missing tag", err, pull.NotFound)
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleSub, Route: hubtest.RouteManifest}); n != 3 {
		t.Errorf("the other host saw %d requests, want 3", n)
	}
}

func TestRegistryK8sAsksNobodyWhoHeIs(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.K8s})
	wantPull(t, r, img)
	wantFirstBlob(t, hub, r, img, 0)
	if n := hub.TokenRequests() + hub.Count(hubtest.Query{Route: hubtest.RoutePing}); n != 0 {
		t.Errorf("hub saw %d token requests and pings, want none", n)
	}
	if n := hub.Count(hubtest.Query{Method: http.MethodPost}); n != 0 {
		t.Errorf("hub saw %d POSTs; it answers GET and HEAD only", n)
	}
}

func TestRegistryK8sSignaturesAreAtYetAnotherHost(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.K8s})
	other := hubtest.New(t, hubtest.Options{Profile: hubtest.Plain})
	tag := strings.Replace(img.Digest, ":", "-", 1) + ".sig"
	sig := other.PushImage("acme/app", tag, hubtest.ImageSpec{Seed: 7})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Ref: ".*\\.sig", Do: hubtest.RedirectTo(307, other.RegistryURL()+"/v2/acme/app/manifests/"+tag)})
	o := hubOptions(hub)
	o.Dial = nil // by address, to both
	if _, raw, err := newRegistry(t, o).Manifest(t.Context(), "acme/app", tag); err != nil || !bytes.Equal(raw, sig.Raw) {
		t.Errorf("Manifest of the signature: %v, %d bytes", err, len(raw))
	}
	wantPull(t, r, img)
}
