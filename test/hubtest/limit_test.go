package hubtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// pullWorld is a hub with an index of two platforms, a client and a token.
func pullWorld(t *testing.T, o Options) (*Hub, *probe, *Image, string) {
	t.Helper()
	start := time.Date(2026, 7, 15, 14, 24, 11, 0, time.UTC)
	o.Now = func() time.Time { return start }
	hub := New(t, o)
	img := hub.PushImage("library/a", "1", ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	p := newProbe(t, hub)
	hub.Set(func(o *Options) { o.TokenTTL = 100 * time.Hour })
	return hub, p, img, p.token("library/a")
}

func TestF50Principals(t *testing.T) {
	hub, p, _, token := pullWorld(t, Options{})
	hub.AddUser(User{Name: "free", Secrets: []string{"pw"}})
	hub.AddUser(User{Name: "paid", Secrets: []string{"pw"}, Plan: Unlimited()})
	get := func(token string) answer { return p.pull("/v2/library/a/manifests/1", token) }
	a := get(token)
	wantHeader(t, a, "Ratelimit-Limit", "100;w=3600")
	wantHeader(t, a, "Docker-Ratelimit-Source", "127.0.0.1")
	hub.Set(func(o *Options) { o.ClientIP = "2001:db8:1:2:3::4" })
	a = get(token)
	wantHeader(t, a, "Docker-Ratelimit-Source", "2001:db8:1:2::")
	wantHeader(t, a, "Ratelimit-Remaining", "99;w=3600")
	a = get(p.token("library/a", basic("free", "pw")...))
	wantHeader(t, a, "Ratelimit-Limit", "200;w=3600")
	wantHeader(t, a, "Docker-Ratelimit-Source", "free")
	a = get(p.token("library/a", basic("paid", "pw")...))
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "Ratelimit-Limit", "")
	for principal, want := range map[string]int{"127.0.0.1": 1, "2001:db8:1:2::": 1, "free": 1, "paid": 0} {
		if n := hub.Charged(principal); n != want {
			t.Errorf("Charged(%s) = %d, want %d", principal, n, want)
		}
	}
	if n := hub.Remaining("free"); n != 199 {
		t.Errorf("Remaining(free) = %d, want 199", n)
	}
}

func TestF50PlansChangeAtRunTime(t *testing.T) {
	hub, p, _, token := pullWorld(t, Options{})
	hub.Set(func(o *Options) { o.Anonymous = Plan{Limit: 10, Window: 6 * time.Hour} })
	wantHeader(t, p.pull("/v2/library/a/manifests/1", token), "Ratelimit-Remaining", "9;w=21600")
	hub.SetPlan("127.0.0.1", Plan{Limit: 3})
	wantHeader(t, p.pull("/v2/library/a/manifests/1", token), "Ratelimit-Remaining", "1;w=3600")
	hub.SetPlan("127.0.0.1", Unlimited())
	wantHeader(t, p.pull("/v2/library/a/manifests/1", token), "Ratelimit-Remaining", "")
}

func TestF51OnlyManifestGetsAreCharged(t *testing.T) {
	hub, p, img, token := pullWorld(t, Options{})
	p.head("/v2/library/a/manifests/1", token)
	p.pull("/v2/library/a/manifests/none", token)
	p.pull("/v2/library/a/manifests/1", "")
	p.registry(http.MethodGet, "/v2/library/a/tags/list", token)
	p.do(http.MethodGet, p.location("library/a", img.Blobs()[0].Digest, token))
	if n := hub.ChargedTotal(); n != 0 {
		t.Errorf("charged %d before any pull, want 0", n)
	}
	hub.AddRepo("library/a", RepoOpts{UnlimitedPulls: true})
	wantHeader(t, p.pull("/v2/library/a/manifests/1", token), "Ratelimit-Limit", "")
	if n := hub.ChargedTotal(); n != 0 {
		t.Errorf("charged %d for an unlimited repository, want 0", n)
	}
}

func TestF51CountModes(t *testing.T) {
	for mode, want := range map[CountMode]int{CountStrict: 3, CountPair: 2, CountChildOnly: 2} {
		hub, p, img, token := pullWorld(t, Options{Count: mode})
		p.pull("/v2/library/a/manifests/1", token)
		p.pull("/v2/library/a/manifests/"+img.Children[0].Digest, token)
		hub.Advance(61 * time.Second)
		p.pull("/v2/library/a/manifests/"+img.Children[1].Digest, token)
		if n := hub.ChargedTotal(); n != want {
			t.Errorf("%q: charged %d, want %d", mode, n, want)
		}
	}
}

func TestF52RateHeaderStyles(t *testing.T) {
	hub, p, _, token := pullWorld(t, Options{})
	for style, want := range map[RateHeaderStyle][2]string{
		RateBoth:     {"100;w=3600 100;w=3600", "100;w=3600 100;w=3600"},
		RatePlain:    {"100;w=3600 100;w=3600", " "},
		RateXOnly:    {" ", "100;w=3600 100;w=3600"},
		RateSpaces:   {"100 ; w=3600 100 ; w=3600", "100 ; w=3600 100 ; w=3600"},
		RateNone:     {" ", " "},
		RateNegative: {"100;w=3600 -1;w=3600", "100;w=3600 -1;w=3600"},
		RateGarbage:  {"lots;w=soon ;;w=", "lots;w=soon ;;w="},
	} {
		hub.Set(func(o *Options) { o.RateHeaders = style })
		for _, path := range []string{"/v2/library/a/manifests/1", "/v2/library/a/manifests/none"} {
			a := p.head(path, token)
			plain := a.header.Get("Ratelimit-Limit") + " " + a.header.Get("Ratelimit-Remaining")
			x := a.header.Get("X-Ratelimit-Limit") + " " + a.header.Get("X-Ratelimit-Remaining")
			if plain != want[0] || x != want[1] {
				t.Errorf("%q: %q and %q, want %q and %q", style, plain, x, want[0], want[1])
			}
		}
	}
}

func TestF53OverTheLimit(t *testing.T) {
	hub, p, _, token := pullWorld(t, Options{Anonymous: Plan{Limit: 1}})
	hub.AddUser(User{Name: "free", Secrets: []string{"pw"}, Plan: Plan{Limit: 1}})
	p.pull("/v2/library/a/manifests/1", token)
	a := p.pull("/v2/library/a/manifests/1", token)
	wantStatus(t, a, http.StatusTooManyRequests)
	wantBody(t, a, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}`+"\n")
	if a.length != 150 {
		t.Errorf("content-length = %d, want 150", a.length)
	}
	wantHeader(t, a, "Content-Type", "application/json")
	wantHeader(t, a, "Ratelimit-Remaining", "0;w=3600")
	wantHeader(t, a, "X-Ratelimit-Limit", "1;w=3600")
	wantHeader(t, a, "Retry-After", "")
	wantStatus(t, p.head("/v2/library/a/manifests/1", token), http.StatusOK)
	own := p.token("library/a", basic("free", "pw")...)
	wantStatus(t, p.pull("/v2/library/a/manifests/1", own), http.StatusOK)
	wantMatch(t, "body", p.pull("/v2/library/a/manifests/1", own).body, "You have reached your pull rate limit. You may increase")
	if n := hub.ChargedTotal(); n != 2 {
		t.Errorf("charged %d, want 2", n)
	}
}

func TestF53RetryAfterStyles(t *testing.T) {
	hub, p, _, token := pullWorld(t, Options{Anonymous: Plan{Limit: 1}})
	p.pull("/v2/library/a/manifests/1", token)
	hub.Advance(10 * time.Minute)
	for style, want := range map[RetryAfterStyle]string{
		RetryNone: "|", RetrySeconds: "3000|", RetryDate: "Wed, 15 Jul 2026 15:24:11 GMT|",
		RetryPast: "Wed, 15 Jul 2026 13:34:11 GMT|", RetryUnix: "|1784129051", RetryDuration: "|",
	} {
		hub.Set(func(o *Options) { o.RetryAfter = style })
		a := p.pull("/v2/library/a/manifests/1", token)
		if got := a.header.Get("Retry-After") + "|" + a.header.Get("X-Retry-After"); got != want {
			t.Errorf("%q: %q, want %q", style, got, want)
		}
		if style == RetryDuration {
			wantMatch(t, "body", a.body, "retry-after: 160.574µs, allowed: 44000/minute")
		}
	}
}

func TestF54AbuseLimit(t *testing.T) {
	hub, p, img, token := pullWorld(t, Options{AbuseLimit: 6})
	all := func() []answer {
		return []answer{
			p.pull("/v2/library/a/manifests/1", token), p.do(http.MethodGet, p.tokenURL("library/a")),
			p.do(http.MethodGet, hub.SignedURL(RoleCF, img.Blobs()[0].Digest)), p.do(http.MethodGet, hub.URL(RoleHubAPI)+"/v2/"),
		}
	}
	for _, a := range all() { // with the token of pullWorld: five
		if a.status == http.StatusTooManyRequests {
			t.Errorf("429 before the limit")
		}
	}
	all()
	for _, a := range all() {
		wantStatus(t, a, http.StatusTooManyRequests)
		wantBody(t, a, "Too Many Requests")
		wantHeader(t, a, "Content-Type", "text/plain")
		wantHeader(t, a, "Retry-After", "60")
	}
	hub.Advance(time.Minute)
	wantStatus(t, p.head("/v2/library/a/manifests/1", token), http.StatusOK)
	hub.TripAbuse(10 * time.Second)
	wantStatus(t, p.head("/v2/library/a/manifests/1", token), http.StatusTooManyRequests)
	hub.Advance(10 * time.Second)
	wantStatus(t, p.head("/v2/library/a/manifests/1", token), http.StatusOK)
	if n := hub.Counters().AbuseUnits["127.0.0.1"]; n != 16 {
		t.Errorf("abuse_units = %d, want 16", n)
	}
}

func TestF54AbuseStyles(t *testing.T) {
	hub, p, _, token := pullWorld(t, Options{AbuseStyle: AbuseHAP429})
	hub.TripAbuse(time.Hour)
	wantBody(t, p.head("/v2/library/a/manifests/1", token), "")
	wantBody(t, p.pull("/v2/library/a/manifests/1", token), "Too Many Requests (HAP429).\n")
	hub.Set(func(o *Options) { o.AbuseStyle = AbuseRawLF })
	wantBody(t, p.pull("/v2/library/a/manifests/1", token), "Too Many Requests (HAP429).\n")
	c, err := net.Dial("tcp", strings.TrimPrefix(hub.RegistryURL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
	raw, err := io.ReadAll(bufio.NewReader(c))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(raw); strings.Contains(text, "\r") || !strings.HasSuffix(text, "\n\nToo Many Requests (HAP429).\n") {
		t.Errorf("raw answer = %q, want bare line feeds", text)
	}
}

func TestF55FixedAndSlidingWindows(t *testing.T) {
	for _, window := range []time.Duration{time.Hour, 6 * time.Hour} {
		for _, sliding := range []bool{false, true} {
			hub, p, _, token := pullWorld(t, Options{SlidingWindow: sliding, Anonymous: Plan{Limit: 2, Window: window}})
			get := func() int { return p.pull("/v2/library/a/manifests/1", token).status }
			get()
			hub.Advance(window / 2)
			get()
			hub.Advance(window/2 - time.Second)
			if got := get(); got != http.StatusTooManyRequests {
				t.Errorf("window %s, sliding %t: status %d before its end, want 429", window, sliding, got)
			}
			hub.Advance(time.Second)
			left := 2
			if sliding {
				left = 1
			}
			if got := hub.Remaining("127.0.0.1"); got != left {
				t.Errorf("window %s, sliding %t: %d remain, want %d", window, sliding, got, left)
			}
		}
	}
}

func TestSpendAll(t *testing.T) {
	hub, p, _, token := pullWorld(t, Options{})
	hub.SpendAll("127.0.0.1")
	wantStatus(t, p.pull("/v2/library/a/manifests/1", token), http.StatusTooManyRequests)
	if n := hub.ChargedTotal(); n != 0 {
		t.Errorf("charged %d, want 0", n)
	}
}
