package upstream

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream/auth"
)

func TestM10OneTokenRequestForManyWhoWait(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	// The token server waits until the rest are waiting for it, so that nobody is served
	// from the cache.
	hub.AddRule(hubtest.Rule{Route: hubtest.RouteToken, Do: hubtest.Delay(50 * time.Millisecond)})
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			if _, err := r.Resolve(pull.WithClient(t.Context(), strconv.Itoa(i%10)), "library/alpine", "latest"); err != nil {
				t.Errorf("Resolve: %v", err)
			}
		})
	}
	wg.Wait()
	if n := hub.TokenRequests(); n != 1 {
		t.Errorf("hub saw %d token requests for 1000 requests, want 1", n)
	}
	hub.AssertClean(t)
}

func TestM10OneTokenForEachRepository(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	var wg sync.WaitGroup
	for n := range 50 {
		repo := fmt.Sprintf("acme/app%d", n)
		hub.PushImage(repo, "latest", hubtest.ImageSpec{})
		wg.Go(func() {
			for range 3 {
				if _, err := r.Resolve(t.Context(), repo, "latest"); err != nil {
					t.Errorf("Resolve(%s): %v", repo, err)
				}
			}
		})
	}
	wg.Wait()
	c := hub.Counters()
	if c.TokenRequests != 50 || len(c.TokensIssued) != 50 {
		t.Errorf("hub saw %d token requests for %d scopes, want 50 for 50", c.TokenRequests, len(c.TokensIssued))
	}
	for key := range c.TokensIssued {
		if scope := strings.TrimSpace(key); strings.Count(scope, "repository:") != 1 || !strings.HasSuffix(scope, ":pull") {
			t.Errorf("a token was issued for %q, want one repository and pull", key)
		}
	}
	hub.AssertClean(t)
}

func TestTokenIsAskedForBeforeTheChallengeOnceTheRealmIsKnown(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	for _, repo := range []string{"acme/a", "acme/b"} {
		hub.PushImage(repo, "latest", hubtest.ImageSpec{})
		if _, err := r.Resolve(t.Context(), repo, "latest"); err != nil {
			t.Fatalf("Resolve(%s): %v", repo, err)
		}
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry}); n != 3 {
		t.Errorf("registry saw %d requests for two repositories, want 3: one challenge and two answers", n)
	}
}

func TestM11ExpiredTokenIsRenewedUnseen(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	img := hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	if _, _, err := r.Manifest(t.Context(), "library/alpine", img.Digest); err != nil {
		t.Fatalf("Manifest: %v", err)
	}
	hub.Advance(301 * time.Second)
	for _, b := range img.Blobs() {
		wantBlob(t, r, "library/alpine", digest(t, b.Digest), hub.Bytes(b.Digest))
	}
	if n := hub.TokenRequests(); n != 2 {
		t.Errorf("hub saw %d token requests, want 2: the first and one renewal", n)
	}
}

func TestM11RefusedTokenIsRenewedOnce(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	if _, err := r.Resolve(t.Context(), "library/alpine", "latest"); err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Count: 1, Do: hubtest.ExpireToken()})
	if _, err := r.Resolve(t.Context(), "library/alpine", "latest"); err != nil {
		t.Errorf("Resolve with a token that was made invalid: %v", err)
	}
	if n := hub.TokenRequests(); n != 2 {
		t.Errorf("hub saw %d token requests, want 2", n)
	}
	// For good: one renewal, then an answer.
	before := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.ExpireToken()})
	_, _, err := r.Manifest(t.Context(), "library/alpine", "latest")
	wantKind(t, "Manifest whose tokens are always refused", err, pull.Denied)
	if n := hub.TokenRequests(); n != 3 {
		t.Errorf("hub saw %d token requests, want 3", n)
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry}) - before; n != 2 {
		t.Errorf("registry saw %d requests with refused tokens, want 2", n)
	}
	hub.AssertAllFired(t)
}

func TestM11InsufficientScopeIsNotRenewed(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	_, _, err := r.Manifest(t.Context(), "library/this-does-not-exist", "latest")
	e := wantKind(t, "Manifest of a missing repository", err, pull.Denied)
	if e.Status != http.StatusUnauthorized || e.Code != "UNAUTHORIZED" {
		t.Errorf("error has status %d and code %q, want 401 UNAUTHORIZED", e.Status, e.Code)
	}
	if n := hub.TokenRequests(); n != 1 {
		t.Errorf("hub saw %d token requests, want 1", n)
	}
	_, err = r.Resolve(t.Context(), "library/this-does-not-exist", "latest")
	wantKind(t, "Resolve in a missing repository", err, pull.Denied)
	_, err = r.StatBlob(t.Context(), "library/this-does-not-exist", digestOf("", nil))
	wantKind(t, "StatBlob in a missing repository", err, pull.Denied)
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry}); n != 4 {
		t.Errorf("registry saw %d requests, want 4: a challenge and three refusals", n)
	}
}

func TestM12TokenReplies(t *testing.T) {
	tests := []struct {
		shape hubtest.TokenShape
		good  bool
	}{
		{hubtest.TokenNormal, true},
		{hubtest.TokenOnlyToken, true},
		{hubtest.TokenOnlyAccess, true},
		{hubtest.TokenDifferent, true},
		{hubtest.TokenNoExpiry, true},
		{hubtest.TokenExpiryZero, true},
		{hubtest.TokenExpiry30, true},
		{hubtest.TokenExpiryString, true},
		{hubtest.TokenExpiryHuge, true},
		{hubtest.TokenNoIssued, true},
		{hubtest.TokenIssuedAhead, true},
		{hubtest.TokenIssuedBehind, true},
		{hubtest.TokenIssuedBad, true},
		{hubtest.TokenTrailing, true},
		{hubtest.TokenHuge, false},
		{hubtest.TokenHTML, false},
	}
	for _, test := range tests {
		t.Run(string(test.shape), func(t *testing.T) {
			hub, r := newHub(t, hubtest.Options{TokenShape: test.shape, TokenTTL: 300 * time.Second})
			hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
			_, err := r.Resolve(t.Context(), "library/alpine", "latest")
			if !test.good {
				wantKind(t, "Resolve", err, pull.Invalid)
				return
			}
			if err != nil {
				t.Fatalf("Resolve: %v", err)
			}
		})
	}
}

func TestTokenIsRefreshedInTheBackgroundBeforeItExpires(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	resolve := func() {
		t.Helper()
		if _, err := r.Resolve(t.Context(), "library/alpine", "latest"); err != nil {
			t.Fatalf("Resolve: %v", err)
		}
	}
	resolve()
	hub.Advance(230 * time.Second) // of 300: past three quarters, not yet four fifths
	resolve()
	if n := hub.TokenRequests(); n != 1 {
		t.Errorf("hub saw %d token requests after 230 s, want 1", n)
	}
	// The token server is in trouble, which nobody notices while the token lives.
	broken := hub.AddRule(hubtest.Rule{Route: hubtest.RouteToken, Do: hubtest.Status(http.StatusForbidden)})
	hub.Advance(20 * time.Second)
	resolve()
	hub.WaitFor(t, 30*time.Second, "refresh in the background", func() bool { return broken.Fired() == 1 })
	r.work.Wait()
	resolve()
	if n := broken.Fired(); n != 1 {
		t.Errorf("hub saw %d refreshes at once, want 1 and then a pause", n)
	}
	broken.Remove()
	hub.Advance(6 * time.Second) // the pause is 5 s
	resolve()
	hub.WaitFor(t, 30*time.Second, "next refresh", func() bool { return hub.TokenRequests() == 3 })
	r.work.Wait()
	hub.Advance(100 * time.Second) // the first token is over
	resolve()
	if n := hub.TokenRequests(); n != 3 {
		t.Errorf("hub saw %d token requests, want 3", n)
	}
}

func TestM13TokenServerOutageIsNeverAnAbsence(t *testing.T) {
	tests := []struct {
		name  string
		fault hubtest.Fault
		want  pull.Kind
		retry time.Duration
	}{
		{"429", hubtest.Abuse429(), pull.Limited, time.Minute},
		{"429 json", hubtest.StatusRetryAfter(http.StatusTooManyRequests, "17"), pull.Limited, 17 * time.Second},
		{"500", hubtest.Status(http.StatusInternalServerError), pull.Unavailable, 0},
		{"502 html", hubtest.StatusHTML(http.StatusBadGateway), pull.Unavailable, 0},
		{"503", hubtest.Status(http.StatusServiceUnavailable), pull.Unavailable, 0},
		{"504", hubtest.StatusEmpty(http.StatusGatewayTimeout), pull.Timeout, 0},
		{"520", hubtest.StatusHTML(520), pull.Unavailable, 0},
		{"404", hubtest.Status(http.StatusNotFound), pull.Invalid, 0},
		{"405", hubtest.Status(http.StatusMethodNotAllowed), pull.Invalid, 0},
		{"connection dropped", hubtest.NoReply(hubtest.RST), pull.Unavailable, 0},
		{"redirect", hubtest.RedirectTo(http.StatusFound, "{evil}/token"), pull.Invalid, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hub, r := newHub(t, hubtest.Options{})
			hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
			hub.AddRule(hubtest.Rule{Route: hubtest.RouteToken, Do: test.fault})
			_, _, err := r.Manifest(t.Context(), "library/alpine", "latest")
			e := wantKind(t, "Manifest", err, test.want)
			if e.RetryAfter != test.retry {
				t.Errorf("RetryAfter is %v, want %v", e.RetryAfter, test.retry)
			}
			if !strings.Contains(e.Error(), "token server") {
				t.Errorf("error does not say that it is the token server: %v", e)
			}
			hub.AssertClean(t)
		})
	}
}

func TestTokenServerBurstIsRetried(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	hub.AddRule(hubtest.Rule{Route: hubtest.RouteToken, Count: 3, Do: hubtest.Status(http.StatusServiceUnavailable)})
	if _, err := r.Resolve(t.Context(), "library/alpine", "latest"); err != nil {
		t.Errorf("Resolve after three 503s of the token server: %v", err)
	}
	hub.AssertAllFired(t)
}

func TestM14BadCredentialsAreTriedOnceAMinute(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.AddUser(hubtest.User{Name: "alice", Secrets: []string{"right"}})
	o := trusting(hubOptions(hub), hub, "alice", "wrong-password")
	core, logs := observer.New(zap.DebugLevel)
	o.Log = zap.New(core)
	r := newRegistry(t, o)
	var wg sync.WaitGroup
	for n := range 20 {
		repo := fmt.Sprintf("acme/app%d", n)
		hub.PushImage(repo, "latest", hubtest.ImageSpec{})
		wg.Go(func() {
			_, err := r.Resolve(t.Context(), repo, "latest")
			e := wantKind(t, "Resolve", err, pull.Denied)
			if text := e.Error(); !strings.Contains(text, "user name or password") || strings.Contains(text, "wrong-password") {
				t.Errorf("error is not clear: %v", e)
			}
		})
	}
	wg.Wait()
	if n := hub.TokenRequests(); n != 1 {
		t.Errorf("hub saw %d token requests with a wrong password, want 1", n)
	}
	hub.Advance(61 * time.Second)
	_, err := r.Resolve(t.Context(), "acme/app0", "latest")
	wantKind(t, "Resolve after a minute", err, pull.Denied)
	if n := hub.TokenRequests(); n != 2 {
		t.Errorf("hub saw %d token requests after a minute, want 2", n)
	}
	if n := logs.FilterMessage("credentials refused").Len(); n != 2 {
		t.Errorf("%d log lines say that the credentials are refused, want 2", n)
	}
	for _, line := range logs.All() {
		if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, "wrong-password") {
			t.Errorf("log line has the password in it: %s", text)
		}
	}
	hub.AssertClean(t)
}

func TestM14AnonymousFallbackOnlyIfConfigured(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.AddUser(hubtest.User{Name: "alice", Secrets: []string{"right"}})
	hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	o := trusting(hubOptions(hub), hub, "alice", "wrong-password")
	o.Fallback = []auth.Credentials{{}}
	r := newRegistry(t, o)
	if _, err := r.Resolve(t.Context(), "library/alpine", "latest"); err != nil {
		t.Errorf("Resolve: %v", err)
	}
	if list := r.Budget(); len(list) != 1 || list[0].Credential != "anonymous" {
		t.Errorf("Budget = %+v, want one of anonymous", list)
	}
}

func TestCredentialsReadPrivateRepository(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"dckr_pat_secret"}, Plan: hubtest.Plan{Limit: 200, Window: time.Hour}})
	hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
	img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
	r := newRegistry(t, trusting(hubOptions(hub), hub, "acme", "dckr_pat_secret"))
	if _, _, err := r.Manifest(t.Context(), "acme/app", "latest"); err != nil {
		t.Errorf("Manifest: %v", err)
	}
	for _, b := range img.Blobs() {
		wantBlob(t, r, "acme/app", digest(t, b.Digest), hub.Bytes(b.Digest))
	}
	list := r.Budget()
	if len(list) != 1 || list[0].Credential != "acme" || list[0].Limit != 200 || list[0].Remaining != 199 || list[0].Window != time.Hour {
		t.Errorf("Budget = %+v, want 199 of 200 an hour for acme", list)
	}
	anonymous := newRegistry(t, hubOptions(hub))
	_, _, err := anonymous.Manifest(t.Context(), "acme/app", "latest")
	wantKind(t, "Manifest without credentials", err, pull.Denied)
	hub.AssertClean(t)
}

func TestIdentityTokenIsPosted(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
	hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
	hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
	r := newRegistry(t, trusting(hubOptions(hub), hub, "<token>", hub.RefreshToken("acme")))
	if _, err := r.Resolve(t.Context(), "acme/app", "latest"); err != nil {
		t.Errorf("Resolve: %v", err)
	}
	if c := hub.Counters(); c.OAuthPosts != 1 || c.TokenRequests != 1 {
		t.Errorf("hub saw %d posts in %d token requests, want 1 in 1", c.OAuthPosts, c.TokenRequests)
	}
	bad := newRegistry(t, trusting(hubOptions(hub), hub, "<token>", "not-an-identity-token"))
	_, err := bad.Resolve(t.Context(), "acme/app", "latest")
	wantKind(t, "Resolve with a bad identity token", err, pull.Denied)
}

func TestRevokedCredentialsAreDenied(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
	hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
	r := newRegistry(t, trusting(hubOptions(hub), hub, "acme", "secret"))
	if _, err := r.Resolve(t.Context(), "acme/app", "latest"); err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	hub.Revoke("acme")
	for range 5 {
		_, err := r.Resolve(t.Context(), "acme/app", "latest")
		wantKind(t, "Resolve with revoked credentials", err, pull.Denied)
	}
	if n := hub.TokenRequests(); n != 2 {
		t.Errorf("hub saw %d token requests, want 2: the good one and one that told", n)
	}
}

func TestM11ManyWithOneExpiredTokenRenewItOnce(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	if _, err := r.Resolve(t.Context(), "library/alpine", "latest"); err != nil {
		t.Fatal(err)
	}
	hub.ExpireTokens()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if _, err := r.Resolve(t.Context(), "library/alpine", "latest"); err != nil {
				t.Errorf("Resolve: %v", err)
			}
		})
	}
	wg.Wait()
	if n := hub.TokenRequests(); n != 2 {
		t.Errorf("hub saw %d token requests, want 2", n)
	}
}

func TestTokenServerThatMovedIsFoundAgain(t *testing.T) {
	realm := "/old/token"
	q := &quirky{
		refuse: func(w http.ResponseWriter, req *http.Request) bool {
			if req.Header.Get("Authorization") == "Bearer t" {
				return false
			}
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s%s",service="x"`, req.Host, realm))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
		token: func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != realm {
				http.NotFound(w, req)
				return
			}
			fmt.Fprint(w, `{"token":"t"}`)
		},
	}
	r := newQuirky(t, q)
	if _, _, err := r.Manifest(t.Context(), "a", "latest"); err != nil {
		t.Fatal(err)
	}
	realm = "/new/token"
	if _, _, err := r.Manifest(t.Context(), "b", "latest"); err != nil {
		t.Errorf("Manifest after the token server has moved: %v", err)
	}
}

// nvcr.io names a token server that gives strangers nothing once their token has expired.
func TestExpiredTokenIsRenewedWhereItCameFrom(t *testing.T) {
	good := "one"
	q := &quirky{
		refuse: func(w http.ResponseWriter, req *http.Request) bool {
			switch req.Header.Get("Authorization") {
			case "Bearer " + good:
				return false
			case "":
				w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/strangers/token"`, req.Host))
			default:
				w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/members/token",service="registry",error="invalid_token"`, req.Host))
			}
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
		token: func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/strangers/token" {
				w.WriteHeader(http.StatusUnauthorized)
			}
			fmt.Fprintf(w, `{"token":%q}`, good)
		},
	}
	r := newQuirky(t, q)
	for _, good = range []string{"one", "two", "three"} {
		for _, repo := range []string{"a", "b"} {
			if _, _, err := r.Manifest(t.Context(), repo, "latest"); err != nil {
				t.Errorf("Manifest of %s when only token %s is good: %v", repo, good, err)
			}
		}
	}
}

func TestTokenServersThatChangeWithEachAnswer(t *testing.T) {
	n := 0
	q := &quirky{
		refuse: func(w http.ResponseWriter, req *http.Request) bool {
			n++
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/%d/token",scope="repository:a%d:pull"`, req.Host, n, n))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
		token: func(w http.ResponseWriter, req *http.Request) { fmt.Fprintf(w, `{"token":"%d"}`, n) },
	}
	r := newQuirky(t, q)
	_, _, err := r.Manifest(t.Context(), "a", "latest")
	wantKind(t, "Manifest", err, pull.Denied)
	if n > asksMost {
		t.Errorf("server saw %d requests, want %d at most", n, asksMost)
	}
}

func TestClosedRegistryAsksForNoToken(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	r, err := New(hubOptions(hub))
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	_, err = r.Resolve(t.Context(), "library/alpine", "latest")
	wantKind(t, "Resolve after Close", err, pull.Unavailable)
	r.endpoints[0].transport.CloseIdleConnections()
}
