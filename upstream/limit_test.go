package upstream

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/pull"
	"forebay/test/hubtest"
)

// gets returns how many GETs of manifests the hub has answered with a status.
func gets(hub *hubtest.Hub, status int) int {
	return hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodGet, Route: hubtest.RouteManifest, Status: status})
}

func headsSeen(hub *hubtest.Hub) int {
	return hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodHead, Route: hubtest.RouteManifest})
}

// drain pulls until the registry limits, n pulls later.
func drain(t *testing.T, r *Registry, n int) {
	t.Helper()
	for range n {
		if _, _, err := r.Manifest(t.Context(), repoAlpine, "latest"); err != nil {
			t.Fatalf("Manifest below the limit: %v", err)
		}
	}
}

func TestM04PullLimitPausesPullsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 3, Window: time.Hour}})
		r := w.registry(nil)
		img := w.push(repoAlpine, "latest")
		first := time.Now()
		drain(t, r, 3)
		_, _, err := r.Manifest(t.Context(), repoAlpine, "latest")
		e := wantKind(t, "Manifest at the limit", err, pull.Limited)
		if e.Status != 429 || e.Code != "TOOMANYREQUESTS" || e.RetryAfter < pullPause || !strings.Contains(e.Message, "next try at") {
			t.Errorf("error is %+v, want one that says when to come back", e)
		}
		start, headsBefore := time.Now(), headsSeen(w.hub)
		for time.Since(start) < 50*time.Minute {
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					_, _, err := r.Manifest(t.Context(), repoAlpine, img.Digest)
					e := wantKind(t, "Manifest at the limit", err, pull.Limited)
					if !strings.Contains(e.Message, "3 pulls in 1h") || !strings.Contains(e.Message, first.Add(time.Hour).UTC().Format(time.RFC3339)) {
						t.Errorf("message is %q, want limit and time", e.Message)
					}
				})
			}
			wg.Wait()
			time.Sleep(time.Second)
		}
		if n := gets(w.hub, 429); n != 1 {
			t.Errorf("hub refused %d GETs, want 1", n)
		}
		if n := headsSeen(w.hub) - headsBefore; n < 400 || n > 600 {
			t.Errorf("hub saw %d probes in 50 minutes, want one every five to six seconds", n)
		}
		if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
			t.Errorf("Resolve at the limit: %v", err)
		}
		for _, b := range img.Blobs() {
			wantBlob(t, r, repoAlpine, digest(t, b.Digest), w.hub.Bytes(b.Digest))
		}
		time.Sleep(time.Until(first.Add(time.Hour + pullPause*9/8)))
		desc, raw, err := r.Manifest(t.Context(), repoAlpine, "latest")
		wantManifest(t, desc, raw, err, img)
		if n := gets(w.hub, 429); n != 1 {
			t.Errorf("hub refused %d GETs by the end, want 1", n)
		}
		w.hub.AssertClean(t)
	})
}

func TestPullLimitIsKeptAsLongAsItSays(t *testing.T) {
	for _, style := range []hubtest.RetryAfterStyle{hubtest.RetrySeconds, hubtest.RetryDate, hubtest.RetryUnix} {
		synctest.Test(t, func(t *testing.T) {
			// A time after 2001, since a number below 10⁹ is taken for seconds.
			now := func() time.Time { return time.Now().AddDate(26, 0, 0) }
			w := newWorld(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 1, Window: time.Hour}, RetryAfter: style, Now: now})
			r := w.registry(nil)
			w.push(repoAlpine, "latest")
			drain(t, r, 1)
			for range 59 {
				_, _, err := r.Manifest(t.Context(), repoAlpine, "latest")
				wantKind(t, "Manifest", err, pull.Limited)
				time.Sleep(time.Minute)
			}
			if n := gets(w.hub, 429); n != 1 || headsSeen(w.hub) != 0 {
				t.Errorf("style %q: hub refused %d GETs and saw %d probes, want 1 and 0", style, n, headsSeen(w.hub))
			}
			time.Sleep(2 * time.Minute)
			drain(t, r, 1)
		})
	}
}

func TestMultipleCountersDoNotStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		r := w.registry(nil)
		w.push(repoAlpine, "latest")
		// HEADs say that there is plenty, and every GET is refused.
		w.hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifest, Method: http.MethodGet, When: bearer, Do: hubtest.RateLimited()})
		for range 600 {
			_, _, err := r.Manifest(t.Context(), repoAlpine, "latest")
			wantKind(t, "Manifest", err, pull.Limited)
			time.Sleep(time.Second)
		}
		if n := gets(w.hub, 429); n > 20 {
			t.Errorf("hub refused %d GETs in ten minutes, want one each interval, which doubles", n)
		}
	})
}

func TestM05AbuseLimitPausesEverything(t *testing.T) {
	for _, style := range []hubtest.AbuseStyle{hubtest.AbusePlain, hubtest.AbuseHAP429} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, hubtest.Options{AbuseStyle: style}, "other.test")
			r := w.registry(nil)
			other := w.registry(func(o *Options) { o.Name, o.Endpoints = "other.test", endpointsOf("http://other.test") })
			img := w.push(repoAlpine, "latest")
			d := digest(t, img.Blobs()[0].Digest)
			drain(t, r, 1)
			const limited = 30 * time.Minute
			w.hub.TripAbuse(limited)
			w.hub.ResetCounters()
			ask := func(i int) error {
				var err error
				switch i % 4 {
				case 0:
					_, err = r.Resolve(t.Context(), repoAlpine, "latest")
				case 1:
					_, _, err = r.Manifest(t.Context(), repoAlpine, "latest")
				case 2:
					_, err = r.StatBlob(t.Context(), repoAlpine, d)
				case 3:
					_, err = r.OpenBlob(t.Context(), repoAlpine, d, 0, -1)
				}
				return err
			}
			for start := time.Now(); time.Since(start) < limited-time.Minute; {
				var wg sync.WaitGroup
				for i := range 100 {
					wg.Go(func() { wantKind(t, "request under the abuse limit", ask(i), pull.Limited) })
				}
				if _, err := other.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
					t.Errorf("Resolve at another registry: %v", err)
				}
				wg.Wait()
				time.Sleep(10 * time.Second)
			}
			// The first hundred were on their way together. Hub says 60 s each time.
			if n := w.hub.Requests(); n > 100+31 {
				t.Errorf("hub saw %d requests in %v, want one a minute", n, limited)
			}
			time.Sleep(5 * time.Minute)
			for i := range 3 {
				if err := ask(i); err != nil {
					t.Errorf("after it: %v", err)
				}
			}
		})
	}
}

func TestUnknownLimitOfListsIsAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		r := w.registry(nil)
		w.push(repoAlpine, "latest")
		rule := w.hub.AddRule(hubtest.Rule{Route: hubtest.RouteTags, When: bearer, Do: hubtest.Status(429)})
		_, err := r.Tags(t.Context(), repoAlpine)
		wantKind(t, "Tags", err, pull.Limited)
		_, err = r.Resolve(t.Context(), repoAlpine, "latest")
		wantKind(t, "Resolve right after", err, pull.Limited)
		time.Sleep(slowDown * 9 / 8)
		if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
			t.Errorf("Resolve a moment later: %v", err)
		}
		if n := rule.Fired(); n != 1 {
			t.Errorf("hub refused %d times, want once", n)
		}
	})
}

func TestLimitOfTheTokenServerIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		r := w.registry(nil)
		w.push(repoAlpine, "latest")
		w.push("library/nginx", "latest")
		drain(t, r, 1)
		rule := w.hub.AddRule(hubtest.Rule{Role: hubtest.RoleAuth, Do: hubtest.Abuse429()})
		for range 180 {
			var wg sync.WaitGroup
			for _, repo := range []string{"library/nginx", "library/redis", "library/busybox"} {
				wg.Go(func() {
					_, err := r.Resolve(t.Context(), repo, "latest")
					wantKind(t, "Resolve without a token", err, pull.Limited)
				})
			}
			wg.Wait()
			drain(t, r, 0)
			if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
				t.Fatalf("Resolve with a token: %v", err)
			}
			time.Sleep(time.Second)
		}
		if n := rule.Fired(); n > 3+3 { // three at once, then one a minute
			t.Errorf("token server was asked %d times in three minutes, want one a minute", n)
		}
		rule.Remove()
		time.Sleep(time.Minute)
		if _, err := r.Resolve(t.Context(), "library/nginx", "latest"); err != nil {
			t.Errorf("Resolve after it: %v", err)
		}
		if s := r.Status(); s.Limited["tokens"] == 0 || s.Limited["requests"] != 0 {
			t.Errorf("Limited = %v, want tokens only", s.Limited)
		}
	})
}

// Without Retry-After the token server's own limit says when it begins anew.
func TestLimitOfTheTokenServerLastsUntilItsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		r := w.registry(nil)
		w.push("library/nginx", "latest")
		rule := w.hub.AddRule(hubtest.Rule{Role: hubtest.RoleAuth, Do: hubtest.StatusWith(http.StatusTooManyRequests,
			"application/json", "{}", http.Header{"X-Ratelimit-Reset": {"49"}})})
		_, err := r.Resolve(t.Context(), "library/nginx", "latest")
		if fail := wantKind(t, "Resolve", err, pull.Limited); fail.RetryAfter < 40*time.Second || fail.RetryAfter > time.Minute {
			t.Errorf("Retry-After is %v, want about 49 s", fail.RetryAfter)
		}
		rule.Remove()
		time.Sleep(40 * time.Second)
		_, err = r.Resolve(t.Context(), "library/nginx", "latest")
		wantKind(t, "Resolve before the reset", err, pull.Limited)
		time.Sleep(20 * time.Second)
		if _, err = r.Resolve(t.Context(), "library/nginx", "latest"); err != nil {
			t.Errorf("Resolve after the reset: %v", err)
		}
	})
}

func TestLimitOfTheBlobStoreIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		r := w.registry(nil)
		img := w.push(repoAlpine, "latest")
		d := digest(t, img.Blobs()[0].Digest)
		rule := w.hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.StatusRetryAfter(429, "20")})
		for range 15 {
			_, err := r.OpenBlob(t.Context(), repoAlpine, d, 0, -1)
			wantKind(t, "OpenBlob", err, pull.Limited)
			if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
				t.Errorf("Resolve: %v", err)
			}
			time.Sleep(time.Second)
		}
		if n := rule.Fired(); n != 1 {
			t.Errorf("blob store was asked %d times, want once", n)
		}
		rule.Remove()
		time.Sleep(10 * time.Second)
		wantBlob(t, r, repoAlpine, d, w.hub.Bytes(d.String()))
	})
}

func TestKindOfLimitOfHead(t *testing.T) {
	for _, test := range []struct {
		name   string
		fault  hubtest.Fault
		others bool // other requests go on
	}{
		{"document", hubtest.Status(429), true},
		{"plain", hubtest.Abuse429(), false},
		{"empty", hubtest.StatusEmpty(429), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, hubtest.Options{})
			r := w.registry(nil)
			w.push(repoAlpine, "latest")
			drain(t, r, 1)
			rule := w.hub.AddRule(hubtest.Rule{Method: http.MethodHead, Route: hubtest.RouteManifest, Do: test.fault})
			for range 4 {
				_, err := r.Resolve(t.Context(), repoAlpine, "latest")
				wantKind(t, test.name, err, pull.Limited)
			}
			if n := rule.Fired(); n != 1 {
				t.Errorf("%s: %d HEADs, want 1", test.name, n)
			}
			if _, _, err := r.Manifest(t.Context(), repoAlpine, "latest"); (err == nil) != test.others {
				t.Errorf("%s: Manifest after it: %v, want it through: %t", test.name, err, test.others)
			}
		})
	}
}

func TestM07NoHeadersMeanNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
		r := w.registry(func(o *Options) { o.Reserve = 0.2 })
		w.push(repoAlpine, "latest")
		drain(t, r, 300)
		if r.Low() || len(r.Budget()) != 0 {
			t.Errorf("Low = %t, Budget = %+v; want no limit", r.Low(), r.Budget())
		}
	})
}

func TestM08LowBelowTheReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 10, Window: time.Hour}})
		r := w.registry(func(o *Options) { o.Reserve = 0.2 })
		w.push(repoAlpine, "latest")
		drain(t, r, 8)
		if r.Low() {
			t.Errorf("Low with 2 of 10 left, want 20 %% to be enough")
		}
		drain(t, r, 1)
		if !r.Low() {
			t.Error("not Low with 1 of 10 left")
		}
		drain(t, r, 1)
		_, _, err := r.Manifest(t.Context(), repoAlpine, "latest")
		wantKind(t, "Manifest at the limit", err, pull.Limited)
		if !r.Low() {
			t.Error("not Low at the limit")
		}
		time.Sleep(time.Hour)
		if r.Low() {
			t.Error("Low after the window")
		}
		if b := r.Budget(); len(b) != 1 || b[0].Remaining != 0 || b[0].Credential != "anonymous" {
			t.Errorf("Budget = %+v", b)
		}
	})
}

func TestPullsAreChargedToWhoCausedThem(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	ctx := pull.WithClient(t.Context(), "10.1.2.3")
	if _, err := r.Resolve(ctx, repoAlpine, "latest"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := r.Manifest(ctx, repoAlpine, "latest"); err != nil {
			t.Fatal(err)
		}
	}
	drain(t, r, 1)
	list := r.Budget()
	if len(list) != 1 || len(list[0].Spent) != 2 {
		t.Fatalf("Budget = %+v, want what two have spent", list)
	}
	if s := list[0].Spent[0]; s.Client != "10.1.2.3" || s.Repository != repoAlpine || s.Pulls != 2 {
		t.Errorf("most was spent by %+v, want two of 10.1.2.3", s)
	}
	if s := list[0].Spent[1]; s.Client != "" || s.Pulls != 1 {
		t.Errorf("then by %+v, want one of the mirror itself", s)
	}
}

func TestLimitedRequestsWaitWhereConfigured(t *testing.T) {
	for _, test := range []struct {
		name   string
		window time.Duration // what is left of it when the limit is reached
		retry  hubtest.RetryAfterStyle
		want   bool
		most   time.Duration
	}{
		{"over soon", 7 * time.Second, hubtest.RetryNone, true, 14 * time.Second},
		{"over in an hour", time.Hour, hubtest.RetryNone, false, 15 * time.Second},
		{"says an hour", time.Hour, hubtest.RetrySeconds, false, time.Second},
		{"says ten seconds", 10 * time.Second, hubtest.RetrySeconds, true, 12 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 1, Window: test.window}, RetryAfter: test.retry})
				r := w.registry(func(o *Options) { o.LimitedWait = 15 * time.Second })
				w.push(repoAlpine, "latest")
				drain(t, r, 1)
				start := time.Now()
				_, _, err := r.Manifest(t.Context(), repoAlpine, "latest")
				if (err == nil) != test.want {
					t.Errorf("Manifest: %v, want it through: %t", err, test.want)
				}
				if took := time.Since(start); took > test.most {
					t.Errorf("took %v, want at most %v", took, test.most)
				}
			})
		})
	}
}

func TestHeldRequestEndsWithItsContextAndItsRegistry(t *testing.T) {
	for _, what := range []string{"context", "registry"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 1, Window: time.Hour}})
			r := w.registry(func(o *Options) { o.LimitedWait = 15 * time.Second })
			w.push(repoAlpine, "latest")
			drain(t, r, 1)
			ctx, cancel := contextWithTimeout(t, time.Hour)
			defer cancel()
			time.AfterFunc(time.Second, func() {
				if what == "context" {
					cancel()
				} else {
					r.Close()
				}
			})
			start := time.Now()
			_, _, err := r.Manifest(ctx, repoAlpine, "latest")
			wantKind(t, "Manifest", err, pull.Limited)
			if took := time.Since(start); took != time.Second {
				t.Errorf("%s ended after a second, the request after %v", what, took)
			}
		})
	}
}

// TestLimitOfOneRepository: a 429 that names a repository holds up no other.
func TestLimitOfOneRepository(t *testing.T) {
	for name, refusal := range map[string]hubtest.Fault{
		"document": hubtest.StatusWith(429, "application/json", `{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate of repository acme/one exceeded"}]}`, nil),
		"text":     hubtest.StatusWith(429, "text/plain", `Too many requests to "acme/one".`, nil),
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, hubtest.Options{})
			one, two := w.push("acme/one", "latest"), w.push("acme/two", "latest")
			r := w.registry(nil)
			limited := w.hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Repo: "acme/one", When: bearer, Do: refusal})
			for range 3 {
				_, _, err := r.Manifest(t.Context(), one.Repo, one.Tag)
				wantKind(t, name+": Manifest of the limited repository", err, pull.Limited)
				wantPull(t, r, two)
				wantFirstBlob(t, w.hub, r, two, 0)
			}
			if limited.Fired() != 1 {
				t.Errorf("%s: the limited repository was asked for %d times, want once", name, limited.Fired())
			}
			if n := r.Figures().Limited["repository"]; n != 1 {
				t.Errorf("%s: %d limits of a repository are counted, want 1", name, n)
			}
			limited.Remove()
			time.Sleep(10 * time.Second)
			wantPull(t, r, one)
		})
	}
}

// TestRateIsLearnedFromRefusals: GHCR tells of no limit but when it refuses, and then what it allows.
func TestRateIsLearnedFromRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{Profile: hubtest.GHCR, RateHeaders: hubtest.RateNone})
		img := w.push("acme/app", "latest")
		r := w.registry(nil)
		// The registry allows 200 requests in a minute.
		var seen []time.Time
		over := func(*hubtest.State) bool {
			now := time.Now()
			for len(seen) > 0 && now.Sub(seen[0]) >= time.Minute {
				seen = seen[1:]
			}
			seen = append(seen, now)
			return len(seen) > 200
		}
		refused := w.hub.AddRule(hubtest.Rule{
			Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: over,
			Do: hubtest.StatusWith(429, "application/json", `{"errors":[{"code":"TOOMANYREQUESTS","message":"toomanyrequests: retry-after: 1.1ms, allowed: 200/minute"}]}`, nil),
		})
		got := 0
		for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(100 * time.Millisecond) {
			if _, err := r.Resolve(t.Context(), img.Repo, img.Tag); err == nil {
				got++
			}
		}
		if refused.Fired() > 10 || got < 1200 {
			t.Errorf("in ten minutes %d requests were refused and %d answered, want few and more than 1200", refused.Fired(), got)
		}
	})
}

// TestShortWaitIsSatOut: a registry that wants to be left alone for a moment is asked again.
func TestShortWaitIsSatOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		img := w.push("acme/app", "latest")
		r := w.registry(nil)
		for _, after := range []string{"1", "2"} {
			rule := w.hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, When: bearer, Count: 1, Do: hubtest.StatusRetryAfter(429, after)})
			wantPull(t, r, img)
			if rule.Fired() != 1 {
				t.Errorf("nothing was refused")
			}
		}
	})
}
