package hubapi

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const user, secret = "acme", "dckr_pat_hunter2"

// options returns options for a hub, with its clock and with credentials.
func options(hub *hubtest.Hub) Options {
	o := Options{URL: hub.URL(hubtest.RoleHubAPI)}
	o.Registry.Credentials = auth.Credentials{Username: user, Password: secret}
	o.Registry.Dial, o.Registry.Now = hub.DialContext, hub.Now
	if strings.HasPrefix(o.URL, "https:") {
		o.Registry.TLS.RootCAs = hub.RootCAs()
		o.Registry.Lookup = func(context.Context, string, string) ([]netip.Addr, error) { // its name is that of production
			return []netip.Addr{netip.MustParseAddr("203.0.113.1")}, nil
		}
	}
	return o
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// newHub starts a hub with an account, a public and a private repository, and a client.
func newHub(t *testing.T, o hubtest.Options) (*hubtest.Hub, *Client) {
	t.Helper()
	hub := hubtest.New(t, o)
	fill(hub)
	return hub, newClient(t, options(hub))
}

func fill(hub *hubtest.Hub) {
	hub.AddUser(hubtest.User{Name: user, Secrets: []string{secret, "password"}})
	hub.PushImage("acme/app", "v1", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64/v8"}})
	hub.PushImage("acme/secret", "v1", hubtest.ImageSpec{})
	hub.AddRepo("acme/secret", hubtest.RepoOpts{Private: true})
}

func logins(hub *hubtest.Hub) int {
	return hub.Count(hubtest.Query{Role: hubtest.RoleHubAPI, Route: hubtest.RouteHubLogin})
}

// wantKind fails the test unless err is a pull.Error of that kind without secrets.
func wantKind(t *testing.T, what string, err error, want pull.Kind) *pull.Error {
	t.Helper()
	var e *pull.Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: error is %v (%T), want a pull.Error of kind %s", what, err, err, want)
	}
	if e.Kind != want {
		t.Errorf("%s: kind is %s, want %s: %v", what, e.Kind, want, err)
	}
	for _, part := range []string{secret, "password", "eyJ"} {
		if strings.Contains(strings.ReplaceAll(err.Error(), "in place of the password", ""), part) {
			t.Errorf("%s: error has a secret in it: %s", what, err)
		}
	}
	return e
}

func TestTagObject(t *testing.T) {
	for _, named := range []bool{false, true} {
		hub, c := newHub(t, hubtest.Options{Named: named})
		got, err := c.Tag(t.Context(), "acme/app", "v1")
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != "v1" || got.Digest.String() != hub.Tag("acme/app", "v1") || got.MediaType != hubtest.OCIIndex ||
			got.LastUpdated.IsZero() || hub.Now().Sub(got.LastUpdated) > time.Minute || len(got.Images) != 2 {
			t.Errorf("Tag = %+v, want v1 with digest %s and 2 images, just updated", got, hub.Tag("acme/app", "v1"))
		}
		if got.Images[1].Platform != "linux/arm64/v8" || got.Images[1].Size == 0 || got.Images[1].Digest.Hex == "" {
			t.Errorf("second image = %+v", got.Images[1])
		}
		hub.AssertClean(t)
	}
}

func TestOldTagHasNoDigest(t *testing.T) {
	_, c := newHub(t, hubtest.Options{HubAPI: hubtest.HubAPIOptions{NoDigest: true}})
	got, err := c.Tag(t.Context(), "acme/app", "v1")
	if err != nil || got.Digest.Hex != "" {
		t.Errorf("Tag = %+v, %v; want no digest and no error", got, err)
	}
}

func TestPrivateRepositoryNeedsTheAccount(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{HubAPI: hubtest.HubAPIOptions{NeedToken: true}})
	if _, err := c.Tag(t.Context(), "acme/secret", "v1"); err != nil {
		t.Errorf("Tag with credentials: %v", err)
	}
	o := options(hub)
	o.Registry.Credentials = auth.Credentials{}
	anonymous := newClient(t, o)
	_, err := anonymous.Tag(t.Context(), "acme/secret", "v1")
	wantKind(t, "Tag of a private repository", err, pull.NotFound)
	_, err = anonymous.Tag(t.Context(), "acme/app", "v1")
	wantKind(t, "Tag without a token where one is needed", err, pull.Denied)
	if n := logins(hub); n != 1 {
		t.Errorf("hub saw %d logins, want 1", n)
	}
}

func TestTagsOfAllPagesLatestFirst(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{})
	for i := range 250 {
		hub.MoveTag("acme/app", fmt.Sprintf("v%03d", i), hub.Tag("acme/app", "v1"))
		hub.Advance(time.Second)
	}
	got, err := c.Tags(t.Context(), "acme/app", 0)
	if err != nil || len(got) != 251 {
		t.Fatalf("Tags gives %d tags, %v; want 251", len(got), err)
	}
	if got[0].Name != "v249" || got[0].LastUpdated.Before(got[1].LastUpdated) || got[250].Name != "v1" {
		t.Errorf("Tags = %s, %s … %s; want v249 first and v1 last", got[0].Name, got[1].Name, got[250].Name)
	}
	before := hub.Count(hubtest.Query{Role: hubtest.RoleHubAPI})
	if got, err := c.Tags(t.Context(), "acme/app", 120); err != nil || len(got) != 120 {
		t.Errorf("Tags of at most 120 gives %d, %v", len(got), err)
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleHubAPI}) - before; n != 2 {
		t.Errorf("120 tags cost %d requests, want 2", n)
	}
	hub.AssertClean(t)
}

func TestNamesThatAreNoneAreNotAskedFor(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{})
	for _, repo := range []string{"", "app", "a/b/c", "acme/../../x", "acme/app?x=1", "ACME/app", "acme/"} {
		_, err := c.Tags(t.Context(), repo, 0)
		wantKind(t, "Tags of "+repo, err, pull.Invalid)
		_, err = c.Tag(t.Context(), repo, "v1")
		wantKind(t, "Tag of "+repo, err, pull.Invalid)
	}
	_, err := c.Tag(t.Context(), "acme/app", "../v1")
	wantKind(t, "Tag with a bad tag", err, pull.Invalid)
	if n := hub.Requests(); n != 0 {
		t.Errorf("hub saw %d requests, want none", n)
	}
}

func TestPagesLeadNowhereElse(t *testing.T) {
	for _, base := range []string{"{evil}", "{meta}", "-", "ftp://x", "http://u:p@127.0.0.7"} {
		hub, c := newHub(t, hubtest.Options{HubAPI: hubtest.HubAPIOptions{NextBase: base}})
		for i := range 150 {
			hub.MoveTag("acme/app", fmt.Sprintf("v%03d", i), hub.Tag("acme/app", "v1"))
		}
		_, err := c.Tags(t.Context(), "acme/app", 0)
		wantKind(t, "Tags with next at "+base, err, pull.Invalid)
		hub.AssertClean(t)
	}
}

func TestRedirectsStayInTheAPI(t *testing.T) {
	for location, want := range map[string]pull.Kind{
		"{evil}/v2/x": pull.Invalid, "{meta}/v2/x": pull.Invalid, "/elsewhere": pull.Invalid, "": pull.Invalid,
		"/v2/namespaces/acme/repositories/app/tags/v1/": pull.Kind(255), // none: it answers
	} {
		hub, c := newHub(t, hubtest.Options{})
		do := hubtest.RedirectTo(301, location)
		if location == "" {
			do = hubtest.RedirectLoop(301)
		}
		hub.AddRule(hubtest.Rule{Role: hubtest.RoleHubAPI, Route: hubtest.RouteHubAPI, Ref: ".*[^/]", Do: do})
		_, err := c.Tag(t.Context(), "acme/app", "v1")
		if want == pull.Kind(255) {
			if err != nil {
				t.Errorf("redirect to a path with a slash: %v", err)
			}
		} else {
			wantKind(t, "redirect to "+location, err, want)
		}
		hub.AssertAllFired(t)
		hub.AssertClean(t)
	}
}

func TestPasswordIsNotSentAlongARedirect(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleHubAPI, Route: hubtest.RouteHubLogin, Do: hubtest.RedirectTo(307, "/v2/users/login")})
	_, err := c.Tag(t.Context(), "acme/app", "v1")
	wantKind(t, "login that is redirected", err, pull.Invalid)
	if n := logins(hub); n != 1 {
		t.Errorf("hub saw %d logins, want 1", n)
	}
}

func TestAddressPolicyHolds(t *testing.T) {
	hub, _ := newHub(t, hubtest.Options{Named: true})
	o := options(hub)
	o.Registry.Dial, o.Registry.Lookup = nil, hub.LookupNetIP
	hub.SetAddrs("hub.docker.com", []netip.Addr{netip.MustParseAddr("169.254.169.254")})
	_, err := newClient(t, o).Tag(t.Context(), "acme/app", "v1")
	wantKind(t, "Tag where the name leads to the metadata service", err, pull.Invalid)
}

func TestOneLoginForAllWhoAsk(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{})
	ask := func() {
		t.Helper()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := c.Tag(t.Context(), "acme/secret", "v1"); err != nil {
					t.Errorf("Tag: %v", err)
				}
			})
		}
		wg.Wait()
	}
	for _, step := range []struct {
		pass time.Duration
		want int
	}{{0, 1}, {8*time.Minute + 59*time.Second, 1}, {time.Second, 2}, {9 * time.Minute, 3}} {
		hub.Advance(step.pass)
		ask()
		if n := logins(hub); n != step.want {
			t.Errorf("after %s more: %d logins, want %d", step.pass, n, step.want)
		}
	}
}

func TestRefusedTokenIsRenewedOnce(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{})
	if _, err := c.Tag(t.Context(), "acme/secret", "v1"); err != nil {
		t.Fatal(err)
	}
	hub.ExpireTokens()
	if _, err := c.Tag(t.Context(), "acme/secret", "v1"); err != nil {
		t.Errorf("Tag after all tokens have expired: %v", err)
	}
	rule := hub.AddRule(hubtest.Rule{Role: hubtest.RoleHubAPI, Route: hubtest.RouteHubAPI, Do: hubtest.Status(401)})
	_, err := c.Tag(t.Context(), "acme/secret", "v1")
	wantKind(t, "Tag where every token is refused", err, pull.Denied)
	if n := rule.Fired(); n != 2 {
		t.Errorf("hub refused %d requests, want 2", n)
	}
	if n := logins(hub); n != 3 {
		t.Errorf("hub saw %d logins, want 3", n)
	}
}

func TestFormerLoginOnlyWhereThereIsNoOther(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{HubAPI: hubtest.HubAPIOptions{LegacyOnly: true}})
	if _, err := c.Tag(t.Context(), "acme/secret", "v1"); err != nil {
		t.Errorf("Tag with the former login: %v", err)
	}
	if n := logins(hub); n != 2 {
		t.Errorf("hub saw %d logins, want 2", n)
	}
}

func TestBadCredentialsAreTriedOnceAMinute(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	fill(hub)
	o := options(hub)
	o.Registry.Credentials.Password = "hunter2-wrong"
	c := newClient(t, o)
	for _, step := range []struct {
		pass time.Duration
		want int
	}{{0, 1}, {59 * time.Second, 1}, {time.Second, 2}} {
		hub.Advance(step.pass)
		_, err := c.Tag(t.Context(), "acme/app", "v1")
		if e := wantKind(t, "Tag", err, pull.Denied); strings.Contains(e.Error(), "hunter2") {
			t.Errorf("error has the password: %v", e)
		}
		if n := logins(hub); n != step.want {
			t.Errorf("after %s more: %d logins, want %d", step.pass, n, step.want)
		}
	}
}

func TestSecondFactorSaysWhatToDo(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		hub := hubtest.New(t, hubtest.Options{HubAPI: hubtest.HubAPIOptions{LegacyOnly: legacy}})
		hub.AddUser(hubtest.User{Name: user, Secrets: []string{"letmein"}, SecondFactor: "123456"})
		o := options(hub)
		o.Registry.Credentials.Password = "letmein"
		_, err := newClient(t, o).Tag(t.Context(), "acme/app", "v1")
		if e := wantKind(t, "Tag", err, pull.Denied); !strings.Contains(e.Error(), "use an access token") {
			t.Errorf("error is %v, want it to say what to do", e)
		}
	}
}

func TestEchoedSecretsAreHidden(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{})
	rule := hub.AddRule(hubtest.Rule{
		Role: hubtest.RoleHubAPI, Route: hubtest.RouteHubLogin, Count: 1,
		Do: hubtest.StatusWith(400, "application/json", `{"detail":"bad secret `+secret+`"}`, nil),
	})
	_, err := c.Tag(t.Context(), "acme/app", "v1")
	wantKind(t, "login that is echoed", err, pull.Invalid)
	if rule.Fired() != 1 {
		t.Error("the login was not answered by the rule")
	}
}

func TestLoginRepliesThatAreNone(t *testing.T) {
	for _, body := range []string{"", "{}", `{"token":""}`, `{"access_token":"a\nb"}`, "<html>", `{"access_token":7}`} {
		_, c := newHub(t, hubtest.Options{HubAPI: hubtest.HubAPIOptions{LoginBody: body + " "}})
		_, err := c.Tag(t.Context(), "acme/app", "v1")
		wantKind(t, "login that says "+body, err, pull.Invalid)
	}
}

func TestLimitedLoginIsNeverAnAbsence(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleHubAPI, Route: hubtest.RouteHubLogin, Do: hubtest.StatusRetryAfter(429, "30")})
	_, err := c.Tag(t.Context(), "acme/app", "v1")
	if e := wantKind(t, "Tag", err, pull.Limited); e.RetryAfter < 20*time.Second || e.RetryAfter > 30*time.Second {
		t.Errorf("RetryAfter = %v, want 30s", e.RetryAfter)
	}
}

func TestSpentBudgetIsNotAskedFor(t *testing.T) {
	hub, _ := newHub(t, hubtest.Options{HubAPI: hubtest.HubAPIOptions{Limit: 3}})
	o := options(hub)
	o.Registry.Credentials = auth.Credentials{}
	c := newClient(t, o)
	if b := c.Budget(); b.Limit != -1 || b.Remaining != -1 {
		t.Errorf("Budget before the first answer = %+v", b)
	}
	for range 3 {
		if _, err := c.Tag(t.Context(), "acme/app", "v1"); err != nil {
			t.Fatal(err)
		}
	}
	if b := c.Budget(); b.Limit != 3 || b.Remaining != 0 || b.Reset.Before(hub.Now().Add(30*time.Second)) {
		t.Errorf("Budget = %+v, want 0 of 3 for a minute", b)
	}
	_, err := c.Tag(t.Context(), "acme/app", "v1")
	if e := wantKind(t, "Tag without budget", err, pull.Limited); e.RetryAfter < 30*time.Second || e.RetryAfter > time.Minute {
		t.Errorf("RetryAfter = %v, want about a minute", e.RetryAfter)
	}
	if n := hub.Requests(); n != 3 {
		t.Errorf("hub saw %d requests, want 3", n)
	}
	hub.Advance(time.Minute + time.Second)
	if _, err := c.Tag(t.Context(), "acme/app", "v1"); err != nil {
		t.Errorf("Tag in the next minute: %v", err)
	}
}

// TestRefusalOfTheAPI: others behind the same address spend the budget, too, so that a
// 429 comes although some seemed left.
func TestRefusalOfTheAPI(t *testing.T) {
	for _, style := range []hubtest.RetryAfterStyle{
		hubtest.RetryNone, hubtest.RetrySeconds, hubtest.RetryDate, hubtest.RetryPast, hubtest.RetryUnix,
	} {
		hub, _ := newHub(t, hubtest.Options{HubAPI: hubtest.HubAPIOptions{Limit: 2, RetryAfter: style}})
		o := options(hub)
		o.Registry.Credentials = auth.Credentials{}
		other := newClient(t, o)
		c := newClient(t, o)
		for range 2 {
			if _, err := other.Tag(t.Context(), "acme/app", "v1"); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			_, err := c.Tag(t.Context(), "acme/app", "v1")
			if e := wantKind(t, "Tag, style "+string(style), err, pull.Limited); e.RetryAfter < 30*time.Second || e.RetryAfter > time.Minute {
				t.Errorf("style %s: RetryAfter = %v, want about a minute", style, e.RetryAfter)
			}
		}
		if n := hub.Requests(); n != 3 {
			t.Errorf("style %s: hub saw %d requests, want 3", style, n)
		}
		hub.Advance(61 * time.Second)
		if _, err := c.Tag(t.Context(), "acme/app", "v1"); err != nil {
			t.Errorf("style %s: Tag in the next minute: %v", style, err)
		}
	}
}

func TestWaitsForTheBudgetIfToldTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.New(t, hubtest.Options{InMemory: true, HubAPI: hubtest.HubAPIOptions{Limit: 2}})
		fill(hub)
		o := options(hub)
		o.Registry.Credentials, o.MaxWait = auth.Credentials{}, 2*time.Minute
		c := newClient(t, o)
		start := time.Now()
		for range 5 {
			if _, err := c.Tag(t.Context(), "acme/app", "v1"); err != nil {
				t.Errorf("Tag: %v", err)
			}
		}
		if took := time.Since(start); took < 2*time.Minute || took > 2*time.Minute+5*time.Second {
			t.Errorf("5 requests at 2 a minute took %v, want 2 minutes", took)
		}
		if n := hub.Count(hubtest.Query{Status: 429}); n != 0 {
			t.Errorf("hub refused %d requests, want none", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		for range 2 {
			_, _ = c.Tag(ctx, "acme/app", "v1") // the second must wait
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("a wait outlived its context by %v", took-time.Second)
		}
	})
}

func TestFailures(t *testing.T) {
	for name, test := range map[string]struct {
		do    hubtest.Fault
		count int
		want  pull.Kind
		asked int
	}{
		"503 once":   {hubtest.Status(503), 1, pull.Kind(255), 1},
		"503 always": {hubtest.Status(503), 0, pull.Unavailable, attempts},
		// One more: net/http itself asks again when a connection that was idle has died.
		"reset":       {hubtest.NoReply(hubtest.RST), 0, pull.Unavailable, attempts + 1},
		"HTML":        {hubtest.StatusHTML(200), 0, pull.Invalid, 1},
		"abuse limit": {hubtest.Abuse429(), 0, pull.Limited, 1},
		"403":         {hubtest.Status(403), 0, pull.Denied, 1},
		"410":         {hubtest.Status(410), 0, pull.NotFound, 1},
		"cut":         {hubtest.Drop(10, hubtest.FIN), 0, pull.Unavailable, attempts},
		"endless":     {hubtest.Endless(), 0, pull.Invalid, 1},
		"other tag":   {hubtest.StatusWith(200, "application/json", `{"name":"v2"}`, nil), 0, pull.Invalid, 1},
	} {
		t.Run(name, func(t *testing.T) {
			hub, c := newHub(t, hubtest.Options{})
			rule := hub.AddRule(hubtest.Rule{Role: hubtest.RoleHubAPI, Route: hubtest.RouteHubAPI, Count: test.count, Do: test.do})
			_, err := c.Tag(t.Context(), "acme/app", "v1")
			if test.want == pull.Kind(255) {
				if err != nil {
					t.Errorf("Tag: %v", err)
				}
			} else {
				wantKind(t, "Tag", err, test.want)
			}
			if n := rule.Fired(); n != test.asked {
				t.Errorf("hub was asked %d times, want %d", n, test.asked)
			}
		})
	}
}

func TestAPIThatHangsIsLeftInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.New(t, hubtest.Options{InMemory: true})
		fill(hub)
		c := newClient(t, options(hub))
		hub.AddRule(hubtest.Rule{Role: hubtest.RoleHubAPI, Do: hubtest.Hang()})
		start := time.Now()
		_, err := c.Tag(t.Context(), "acme/app", "v1")
		wantKind(t, "Tag", err, pull.Timeout)
		if took := time.Since(start); took > requestTimeout {
			t.Errorf("the error came after %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		_, err = c.Tag(ctx, "acme/app", "v1")
		wantKind(t, "Tag", err, pull.Timeout)
		if took := time.Since(start); took > time.Second {
			t.Errorf("the error came after %v, want within 1s", took)
		}
	})
}

func TestNewRefusesBadURLs(t *testing.T) {
	for _, text := range []string{"hub.docker.com", "ftp://x", "https://", "https://u:hunter2@x", "https://x?y", "https://%zz"} {
		c, err := New(Options{URL: text})
		if err == nil {
			c.Close()
			t.Errorf("New(%q) gives no error", text)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("New(%q): error has the password: %v", text, err)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		`{"count":1,"next":null,"previous":null,"results":[{"name":"v1"}]}`, `{"next":"http://x/v2/y","results":[]}`,
		`{"name":"latest","digest":"sha256:x","images":[{"os":"linux","variant":null,"size":-1}],"last_updated":"2026-01-02T03:04:05.678Z"}`,
		`{"access_token":"x"}`, `{"token":"x"}`, `[]`, `null`, `{"results":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePage(b); err == nil && p.Results == nil {
			t.Errorf("parsePage(%q) gives no results and no error", b)
		}
		if tag, err := parseTag(b); err == nil {
			if tag.Name == "" || len(tag.Name) > 128 || tag.Size < 0 || len(tag.MediaType) > lineMax+4 {
				t.Errorf("parseTag(%q) = %+v", b, tag)
			}
			for _, i := range tag.Images {
				if i.Size < 0 || strings.ContainsAny(i.Platform, "\x1b\n\r") {
					t.Errorf("parseTag(%q): image %+v", b, i)
				}
			}
		}
		if token, err := parseToken(b); err == nil && (token == "" || strings.ContainsAny(token, "\r\n")) {
			t.Errorf("parseToken(%q) = %q", b, token)
		}
	})
}

func FuzzBudget(f *testing.F) {
	f.Add("180", "179", "1760000000", "Thu, 09 Oct 2025 08:53:20 GMT")
	f.Add("-1", "", "99999999999999999999", "x")
	f.Add("", "0", "1e9", "")
	f.Fuzz(func(t *testing.T, limit, remaining, reset, date string) {
		now := time.Unix(1_760_000_000, 0)
		h := map[string][]string{
			"X-Ratelimit-Limit": {limit}, "X-Ratelimit-Remaining": {remaining}, "X-Ratelimit-Reset": {reset}, "Date": {date},
		}
		b, ok := parseBudget(h, now)
		if ok && b.Remaining >= 0 && (b.Reset.Before(now) || b.Reset.After(now.Add(resetMax))) {
			t.Errorf("parseBudget(%q) = %+v, out of bounds", h, b)
		}
		if b.Limit < -1 || b.Remaining < -1 {
			t.Errorf("parseBudget(%q) = %+v", h, b)
		}
	})
}
