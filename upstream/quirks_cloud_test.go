package upstream

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream/auth"
)

func TestECRAsksForBasicInPlainText(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.ECR})
	wantPull(t, r, img)
	if n := hub.TokenRequests(); n != 0 {
		t.Errorf("hub saw %d token requests, want none: the realm is the registry", n)
	}
	anonymous := newRegistry(t, hubOptions(hub))
	_, _, err := anonymous.Manifest(t.Context(), img.Repo, img.Tag)
	if e := wantKind(t, "Manifest without credentials", err, pull.Denied); e.Message != "Not Authorized" {
		t.Errorf("message is %q, want Not Authorized", e.Message)
	}
}

func TestECRBlobStoreRefusesAuthorization(t *testing.T) {
	for _, profile := range []hubtest.Profile{hubtest.ECR, hubtest.ACR, hubtest.DockerHub} {
		hub := hubtest.New(t, hubtest.Options{Profile: profile})
		hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
		img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
		hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.RefuseAuthHeader()})
		wantFirstBlob(t, hub, newRegistry(t, trusting(hubOptions(hub), hub, "acme", "secret")), img, 0)
		hub.AssertClean(t)
	}
}

func TestECRLimitIsARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		img := w.push("acme/app", "latest")
		r := w.registry(nil)
		w.hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: bearer, Count: 1,
			Do: hubtest.StatusWith(429, "application/json", `{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}`, nil)})
		d := digest(t, img.Blobs()[0].Digest)
		if _, err := r.StatBlob(t.Context(), img.Repo, d); err != nil {
			wantKind(t, "StatBlob", err, pull.Limited)
		}
		time.Sleep(10 * time.Second)
		if _, err := r.StatBlob(t.Context(), img.Repo, d); err != nil {
			t.Errorf("StatBlob ten seconds later: %v", err)
		}
		w.hub.AssertAllFired(t)
	})
}

func TestPublicECRScopeIsAWord(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.ECRPublic})
	other := hub.PushImage("acme/other", "latest", hubtest.ImageSpec{})
	wantPull(t, r, img)
	wantPull(t, r, other)
	if got := scopes(hub); !slices.Equal(got, []string{"acme aws"}) || hub.TokenRequests() != 1 {
		t.Errorf("tokens were asked for %q in %d requests, want aws once for all", got, hub.TokenRequests())
	}
}

func TestPublicECRRefusesTheHeadOfABlob(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.ECRPublic})
	b := img.Blobs()[0]
	if size, err := r.StatBlob(t.Context(), img.Repo, digest(t, b.Digest)); err != nil || size != b.Size {
		t.Errorf("StatBlob = %d, %v; want %d", size, err, b.Size)
	}
	hub.Settle(t)
	if n := hub.BlobBytes(b.Digest); n > 1 {
		t.Errorf("asking for the size moved %d bytes, want at most 1", n)
	}
}

func TestPublicECRExpiredTokenIs400(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.ECRPublic})
	wantPull(t, r, img)
	hub.ExpireTokens()
	wantPull(t, r, img)
	if n := hub.TokenRequests(); n != 2 {
		t.Errorf("hub saw %d token requests, want 2", n)
	}
}

func TestPublicECRHasNoTagList(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.ECRPublic})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteTags, When: bearer,
		Do: hubtest.StatusWith(404, "application/json", `{"errors":[{"code":"NOT_FOUND","message":"404 page not found"}]}`, nil)})
	_, err := r.Tags(t.Context(), img.Repo)
	if k := pull.KindOf(err); k != pull.NotFound && k != pull.Unsupported {
		t.Errorf("Tags: %v, want not found or unsupported", err)
	}
	wantPull(t, r, img)
}

func TestPublicECRLimitIsInLowerCase(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.ECRPublic})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: bearer,
		Do: hubtest.StatusWith(429, "application/json", `{"errors":[{"code":"toomanyrequests","message":"Rate exceeded"}]}`, nil)})
	_, _, err := r.Manifest(t.Context(), img.Repo, img.Tag)
	wantKind(t, "Manifest", err, pull.Limited)
}

func TestMCRPathHasADoubleSlash(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.MCR})
	wantFirstBlob(t, hub, r, img, 0)
	if !strings.Contains(hub.Ledger(), "//0123456789abcdef-hubtest") && !strings.Contains(hub.Ledger(), "hubtest//") {
		t.Errorf("no request has the double slash:\n%s", hub.Ledger())
	}
}

func TestMCRBlobsAreOnASubdomain(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.MCR, Named: true, Names: map[hubtest.Role]string{
		hubtest.RoleRegistry: "mcr.microsoft.com", hubtest.RoleSub: "eastus.data.mcr.microsoft.com",
	}})
	wantFirstBlob(t, hub, r, img, 0)
	if n := hub.TokenRequests(); n != 0 {
		t.Errorf("hub saw %d token requests, want none", n)
	}
}

// TestMCRBodiesEndAtEightMiB: bodies of 200 that broke off at multiples of 8 MiB, with the
// length of the whole in the header (seen in September 2026).
func TestMCRBodiesEndAtEightMiB(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.MCR})
	const size = 20 << 20
	d := digest(t, hub.PutVirtualBlob(img.Repo, 1, size))
	hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Count: 1, Do: hubtest.Drop(8<<20, hubtest.FIN)})
	b, err := r.OpenBlob(t.Context(), img.Repo, d, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, b)
	b.Close()
	if n != 8<<20 || !errors.Is(err, io.ErrUnexpectedEOF) || b.Size != size {
		t.Errorf("first body has %d bytes of %d, %v; want 8 MiB and an unexpected end", n, b.Size, err)
	}
	rest, err := r.OpenBlob(t.Context(), img.Repo, d, n, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer rest.Close()
	if more, err := io.Copy(io.Discard, rest); more != size-n || err != nil {
		t.Errorf("the rest has %d bytes, %v; want %d", more, err, size-n)
	}
}

func TestACRTokenHasNoExpiry(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.ACR})
	wantPull(t, r, img)
	hub.Advance(40 * time.Second)
	wantPull(t, r, img)
	if n := hub.TokenRequests(); n != 1 {
		t.Errorf("hub saw %d token requests, want 1", n)
	}
}

func TestACRRefreshTokenIsAPassword(t *testing.T) {
	const user, secret = "00000000-0000-0000-0000-000000000000", "eyJhbGciOi.refresh.hunter2"
	hub := hubtest.New(t, hubtest.Options{Profile: hubtest.ACR, OAuthStatus: 400})
	hub.AddUser(hubtest.User{Name: user, Secrets: []string{secret}, Repos: []string{"acme/*"}})
	img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
	hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
	wantPull(t, newRegistry(t, trusting(hubOptions(hub), hub, user, secret)), img)
	if n := hub.Counters().OAuthPosts; n != 0 {
		t.Errorf("the token server saw %d POSTs, which it refuses", n)
	}
}

func TestACRLinksLiveForTwentyMinutes(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.ACR, SignedTTL: 20 * time.Minute})
	wantFirstBlob(t, hub, r, img, 5)
	hub.Advance(21 * time.Minute)
	wantFirstBlob(t, hub, r, img, 5)
}

func TestGitLabTokenServerIsTheParentDomain(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Profile: hubtest.GitLab, Named: true, TokenTTL: 15 * time.Minute, Names: map[hubtest.Role]string{
		hubtest.RoleRegistry: "registry.gitlab.com", hubtest.RoleAuth: "gitlab.com", hubtest.RoleCF: "cdn.registry.gitlab-static.net",
	}})
	hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"glpat-hunter2"}})
	img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
	hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
	o := hubOptions(hub)
	o.Name = "registry.gitlab.com"
	o.Credentials = auth.Credentials{Username: "acme", Password: "glpat-hunter2"} // and no trusted realm
	r := newRegistry(t, o)
	wantPull(t, r, img)
	hub.Advance(14 * time.Minute) // past four fifths: renewed in the background
	wantPull(t, r, img)
	hub.AssertClean(t)
}

func TestGitLabCDNForbidsCaching(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{Profile: hubtest.GitLab})
	wantFirstBlob(t, hub, r, img, 0) // what is addressed by digest may be kept whatever it says
}

func TestRedHatErrorCodesAreNumbers(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{})
	rule := hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: bearer,
		Do: hubtest.StatusWith(404, "application/json", `{"errors":[{"code":"404","message":"Not Found"}]}`, nil)})
	_, _, err := r.Manifest(t.Context(), img.Repo, img.Tag)
	wantKind(t, "Manifest with a number for a code", err, pull.NotFound)
	rule.Remove()
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: bearer,
		Do: hubtest.StatusWith(503, "text/plain", "Service Unavailable - Akamai reference #18.1", nil)})
	_, _, err = r.Manifest(t.Context(), img.Repo, img.Tag)
	wantKind(t, "Manifest with a bare text of a CDN", err, pull.Unavailable)
}

// stranger reports a request of nobody in particular.
func stranger(s *hubtest.State) bool { return !s.Bearer }

func TestGitHubPackagesChallengesAtItsRootOnly(t *testing.T) {
	for _, status := range []int{403, 404} {
		hub, r, img := quirk(t, hubtest.Options{})
		hub.AddRule(hubtest.Rule{
			Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: stranger,
			Do: hubtest.StatusWith(status, "application/json", `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, nil),
		})
		if _, err := r.Resolve(t.Context(), img.Repo, img.Tag); err != nil {
			t.Errorf("%d: Resolve: %v", status, err)
		}
		wantPull(t, r, img)
		if n := hub.Count(hubtest.Query{Route: hubtest.RoutePing}); n != 1 {
			t.Errorf("%d: hub saw %d pings, want 1", status, n)
		}
	}
}

func TestRootOfAnOpenRegistryIsAskedOnce(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RoutePing, Do: hubtest.StatusWith(200, "application/json", "{}", nil)})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.StatusWith(404, "application/json", `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, nil)})
	nobody := newRegistry(t, hubOptions(hub))
	for range 3 {
		for _, one := range []*Registry{r, nobody} {
			_, _, err := one.Manifest(t.Context(), img.Repo, img.Tag)
			if e := wantKind(t, "Manifest", err, pull.NotFound); e.Err != nil {
				t.Errorf("Manifest: %v, which is more than that it is missing", err)
			}
		}
	}
	if n := hub.Count(hubtest.Query{Route: hubtest.RoutePing}); n != 1 {
		t.Errorf("hub saw %d pings, want 1, of the one who has credentials", n)
	}
}

func TestHarborCodeIsNotFound(t *testing.T) {
	hub, r, img := quirk(t, hubtest.Options{})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: bearer,
		Do: hubtest.StatusWith(404, "application/json", `{"errors":[{"code":"NOT_FOUND","message":"artifact acme/app:latest not found"}]}`, nil)})
	_, _, err := r.Manifest(t.Context(), img.Repo, img.Tag)
	wantKind(t, "Manifest", err, pull.NotFound)
}

// TestReferrersOfEachRegistry: which of them have the API, by the table of 2025 and 2026.
func TestReferrersOfEachRegistry(t *testing.T) {
	for _, test := range []struct {
		name    string
		profile hubtest.Profile
		mode    hubtest.ReferrersMode
		api     bool // else the tag of the schema has them
	}{
		{"docker.io since 2025", hubtest.DockerHub, hubtest.ReferrersOn, true},
		{"docker.io before", hubtest.DockerHub, hubtest.ReferrersOff, false},
		{"ECR", hubtest.ECR, hubtest.ReferrersOn, true},
		{"public.ecr.aws", hubtest.ECRPublic, hubtest.ReferrersOn, true},
		{"ACR", hubtest.ACR, hubtest.ReferrersOn, true},
		{"mcr.microsoft.com", hubtest.MCR, hubtest.ReferrersOn, true},
		{"ghcr.io", hubtest.GHCR, hubtest.ReferrersOn, false},
		{"quay.io", hubtest.Quay, hubtest.ReferrersOn, true},
		{"quay.io in 2024", hubtest.Quay, hubtest.ReferrersOff, false},
		{"pkg.dev", hubtest.GAR, hubtest.ReferrersOn, true},
		{"pkg.dev, a login page", hubtest.GAR, hubtest.ReferrersHTML, false},
		{"registry.k8s.io", hubtest.K8s, hubtest.ReferrersOff, false},
		{"distribution", hubtest.Plain, hubtest.ReferrersOff, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			hub := hubtest.New(t, hubtest.Options{Profile: test.profile, Referrers: test.mode})
			hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
			img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
			r := newRegistry(t, trusting(hubOptions(hub), hub, "acme", "secret"))
			d := digest(t, img.Digest)
			if list, err := r.Referrers(t.Context(), img.Repo, d); err != nil || len(list) != 0 {
				t.Errorf("Referrers of what has none = %s, %v", list, err)
			}
			raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
				hubtest.OCIManifest, hubtest.Digest([]byte("{}")), img.MediaType, img.Digest, len(img.Raw))
			want := hub.AddReferrer(img.Repo, img.Digest, "application/example", hubtest.OCIManifest, raw)
			if !test.api {
				hub.PutManifest(img.Repo, strings.Replace(img.Digest, ":", "-", 1), hubtest.OCIIndex,
					hubtest.IndexOf(hubtest.Descriptor{MediaType: hubtest.OCIManifest, Digest: want, Size: int64(len(raw))}))
			}
			list, err := r.Referrers(t.Context(), img.Repo, d)
			if err != nil || !slices.Equal(digestsOf(t, list), []string{want}) {
				t.Errorf("Referrers = %s, %v; want %s", list, err, want)
			}
			hub.AssertNoLeaks(t)
		})
	}
}
