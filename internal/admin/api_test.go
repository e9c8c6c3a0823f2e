package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/cache/upkeep"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// silent is an upstream that has nothing.
type silent struct{}

func nothing(op string) error { return &pull.Error{Kind: pull.NotFound, Upstream: "docker.io", Op: op} }

func (silent) Resolve(context.Context, string, string) (v1.Descriptor, error) {
	return v1.Descriptor{}, nothing("head")
}

func (silent) Manifest(context.Context, string, string) (v1.Descriptor, []byte, error) {
	return v1.Descriptor{}, nil, nothing("get")
}
func (silent) StatBlob(context.Context, string, v1.Hash) (int64, error) { return 0, nothing("stat") }

func (silent) OpenBlob(context.Context, string, v1.Hash, int64, int64) (*pull.Body, error) {
	return nil, nothing("open")
}
func (silent) Tags(context.Context, string) ([]string, error) { return nil, nothing("tags") }
func (silent) TagsPage(context.Context, string, string) ([]string, string, error) {
	return nil, "", nothing("tags")
}

func (silent) Low() bool { return false }

func (silent) AtReserve() bool { return false }

func (silent) AtLastShare() bool { return false }

func (silent) Referrers(context.Context, string, v1.Hash) ([]json.RawMessage, error) {
	return nil, nothing("referrers")
}

func openAPIFor(t *testing.T, loopback bool, token string) *API {
	t.Helper()
	c, err := cache.Open(cache.Options{Store: store.Options{Dir: t.TempDir()}, Upstreams: map[string]cache.UpstreamOptions{"docker.io": {Upstream: silent{}}}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAPI(APIOptions{
		Keeper: upkeep.New(c, upkeep.Options{}), Version: "v1", Loopback: loopback, Token: token,
		Registries: func() *wire.Registries {
			return &wire.Registries{Default: wire.Hub, Names: map[string]string{wire.Hub: wire.Hub}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		if err := c.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return a
}

// asks sends a request as our own commands do, changed by change.
func asks(a *API, method, path, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:5001/api/v1"+path, strings.NewReader(body))
	if method != http.MethodGet {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(OwnHeader, "1")
	}
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	New(Options{Ready: func() error { return nil }, Metrics: figures(), API: a}).ServeHTTP(w, r)
	return w
}

// codeOf returns the code of an answer that is an error, else "".
func codeOf(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	if w.Code < 300 {
		return ""
	}
	var f Fault
	if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || f.Error.Message == "" || f.Error.Code == "" {
		t.Errorf("answer %d %q is no error document", w.Code, w.Body)
	}
	if kind := w.Header().Get("Content-Type"); kind != "application/json" {
		t.Errorf("error with Content-Type %q", kind)
	}
	return f.Error.Code
}

func TestOnlyThoseWhoMayAreServed(t *testing.T) {
	const token = "0123456789abcdef"
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	bearer := header("Authorization", "Bearer "+token)
	open, closed, guarded := openAPIFor(t, true, ""), openAPIFor(t, false, ""), openAPIFor(t, false, token)
	for _, tt := range []struct {
		name   string
		api    *API
		method string
		change func(*http.Request)
		status int
		code   string
	}{
		{"loopback", open, "GET", nil, 200, ""},
		{"loopback by name", open, "GET", host("localhost:5001"), 200, ""},
		{"loopback without port", open, "GET", host("localhost"), 200, ""},
		{"loopback, IPv6", open, "GET", host("[::1]:5001"), 200, ""},
		{"rebinding", open, "GET", host("evil.example:5001"), 403, "foreign_host"},
		{"rebinding to a name like ours", open, "GET", host("localhost.evil.example"), 403, "foreign_host"},
		{"rebinding to an address like ours", open, "GET", host("127.0.0.1.evil.example"), 403, "foreign_host"},
		{"other address", open, "GET", host("192.0.2.1:5001"), 403, "foreign_host"},
		{"no host", open, "GET", host(""), 403, "foreign_host"},
		{"change", open, "POST", nil, 404, "upstream_not_found"},
		{"change with charset", open, "POST", header("Content-Type", "application/json; charset=utf-8"), 404, "upstream_not_found"},
		{"change from a form", open, "POST", header("Content-Type", "text/plain"), 415, "bad_type"},
		{"change without type", open, "POST", header("Content-Type", ""), 415, "bad_type"},
		{"change without our header", open, "POST", header(OwnHeader, ""), 403, "no_header"},
		{"change from another origin", open, "POST", header("Origin", "https://evil.example"), 403, "foreign_origin"},
		{"change from no origin", open, "POST", header("Origin", "null"), 403, "foreign_origin"},
		{"change from another port", open, "POST", header("Origin", "http://127.0.0.1:8080"), 403, "foreign_origin"},
		{"change from another site", open, "POST", header("Sec-Fetch-Site", "cross-site"), 403, "foreign_origin"},
		{"change from our page", open, "POST", header("Origin", "http://127.0.0.1:5001"), 404, "upstream_not_found"},
		{"change by rebinding", open, "POST", host("evil.example"), 403, "foreign_host"},
		{"without a token", closed, "GET", nil, 403, "no_token"},
		{"without a token, with one", closed, "GET", bearer, 403, "no_token"},
		{"no token", guarded, "GET", nil, 401, "unauthorized"},
		{"empty token", guarded, "GET", header("Authorization", "Bearer "), 401, "unauthorized"},
		{"wrong token", guarded, "GET", header("Authorization", "Bearer "+token+"x"), 401, "unauthorized"},
		{"start of the token", guarded, "GET", header("Authorization", "Bearer "+token[:15]), 401, "unauthorized"},
		{"other scheme", guarded, "GET", header("Authorization", "Basic "+token), 401, "unauthorized"},
		{"token", guarded, "GET", bearer, 200, ""},
		{"token, any host", guarded, "GET", func(r *http.Request) { bearer(r); r.Host = "forebay.lan" }, 200, ""},
		{"change without token", guarded, "POST", nil, 401, "unauthorized"},
		{"change with token", guarded, "POST", bearer, 404, "upstream_not_found"},
		{"change with token from elsewhere", guarded, "POST", func(r *http.Request) { bearer(r); r.Header.Set("Origin", "https://evil.example") }, 403, "foreign_origin"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, body := "/status", ""
			if tt.method == "POST" {
				path, body = "/refresh", `{"ref": "nginx"}`
			}
			w := asks(tt.api, tt.method, path, body, tt.change)
			if code := codeOf(t, w); w.Code != tt.status || code != tt.code {
				t.Errorf("= %d %s %s, want %d %s", w.Code, code, w.Body, tt.status, tt.code)
			}
			if strings.Contains(w.Body.String(), token) {
				t.Error("the token is told")
			}
			if w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Error("pages of others are let in")
			}
		})
	}
}

// On loopback strangers are told nothing, whatever they ask for: a page whose name came to mean our
// address, and who comes through a proxy that runs on this machine.
func TestLoopbackAnswersOnlyThisMachineOrTheToken(t *testing.T) {
	const token = "0123456789abcdef"
	h := New(Options{
		Ready: func() error { return nil }, Metrics: figures(), API: openAPIFor(t, true, token), Profiles: true,
		Page: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }),
	})
	digest := "sha256:" + strings.Repeat("0", 64)
	open := map[string]bool{"/": true, "/ui/x/app.js": true, "/healthz": true, "/readyz": true, "/metrics": true}
	paths := []string{"/", "/ui/x/app.js", "/healthz", "/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/goroutine", "/nothing", "/webhooks/x",
		prefix + "/status", prefix + "/content/" + digest, prefix + "/contents?ref=nginx", prefix + "/openapi.json", prefix + "/events", "/api/v2/x"}
	local := [][]string{{}, {"Host", "localhost:5001"}, {"Host", "[::1]:5001"}, {"Host", "127.9.9.9"}}
	foreign := [][]string{
		{"Host", "evil.example"}, {"Host", "evil.example:5001"}, {"Host", "127.0.0.1.evil.example"}, {"Host", "192.0.2.1:5001"}, {"Host", ""}, {"Host", "0.0.0.0:5001"},
		{"Forwarded", "for=192.0.2.60"}, {"X-Forwarded-For", "192.0.2.60"}, {"X-Forwarded-Host", "localhost"}, {"X-Forwarded-Proto", "https"},
		{"X-Forwarded", "for=192.0.2.60"}, {"X-Forwarded-Anything", ""}, {"Via", "1.1 proxy"}, {"x-real-ip", "127.0.0.1"}, {"Authorization", "Bearer wrong", "Via", "1.1 proxy"},
	}
	ask := func(method, path string, headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://127.0.0.1:5001"+path, nil)
		for i := 0; i+1 < len(headers); i += 2 {
			if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
				r.Host = headers[i+1]
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for _, path := range paths {
		for _, headers := range foreign {
			for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
				if w := ask(method, path, headers...); w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), token) {
					t.Errorf("%s %s with %q = %d %.100s, want 403", method, path, headers, w.Code, w.Body)
				}
			}
			if w := ask("GET", path, append(headers, "Authorization", "Bearer "+token)...); w.Code == http.StatusForbidden || w.Code == http.StatusUnauthorized {
				t.Errorf("GET %s with %q and the token = %d %.100s", path, headers, w.Code, w.Body)
			}
		}
		for _, headers := range local {
			want := http.StatusUnauthorized
			switch {
			case open[path]:
				want = http.StatusOK
			case path == "/nothing" || path == "/webhooks/x":
				want = http.StatusNotFound
			}
			if w := ask("GET", path, headers...); w.Code != want {
				t.Errorf("GET %s with %q = %d %.100s, want %d", path, headers, w.Code, w.Body, want)
			}
		}
	}
}

func TestWebhooksComeFromElsewhere(t *testing.T) {
	h := New(Options{Ready: func() error { return nil }, Metrics: figures(), API: openAPIFor(t, true, "0123456789abcdef"),
		Webhooks: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })})
	for path, want := range map[string]int{"/webhooks/secret": 202, "/webhooks": 202, "/webhooksx": 403, "/api/v1/webhooks/": 403, "//webhooks/": 403} {
		r := httptest.NewRequest(http.MethodPost, "http://hooks.example"+path, strings.NewReader("{}"))
		r.Header.Set("X-Forwarded-For", "192.0.2.60")
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("POST %s through a proxy on this machine = %d, want %d", path, w.Code, want)
		}
	}
}

func TestWhatCannotBeAskedIsRefusedClearly(t *testing.T) {
	a := openAPIFor(t, true, "")
	digest := "sha256:" + strings.Repeat("0", 64)
	for _, tt := range []struct {
		method, path, body string
		status             int
		code, text         string
	}{
		{"GET", "/nothing", "", 404, "no_route", "openapi.json"},
		{"GET", "/refresh", "", 405, "bad_method", "GET is not for"},
		{"PUT", "/status", "", 405, "bad_method", "PUT"},
		{"POST", "/jobs/1", "", 405, "bad_method", "POST"},
		{"GET", "/status?x=1", "", 400, "bad_request", `no parameter \"x\"`},
		{"GET", "/images?limit=x", "", 400, "bad_request", "number above 0"},
		{"GET", "/images?limit=0", "", 400, "bad_request", "number above 0"},
		{"GET", "/images?limit=1001", "", 400, "bad_request", "1 to 1000"},
		{"GET", "/images?limit=1&limit=2", "", 400, "bad_request", "2 times"},
		{"GET", "/images?missing=maybe", "", 400, "bad_request", "true or false"},
		{"GET", "/images?pattern=%5B", "", 400, "bad_request", "pattern"},
		{"GET", "/images?pattern=quay.io/x", "", 400, "bad_reference", "not configured"},
		{"GET", "/images?after=x", "", 400, "bad_request", "no name from a list"},
		{"GET", "/images?pattern=nginx", "", 200, "", `"images":[]`},
		{"GET", "/images?pattern=nginx:1", "", 200, "", `"images":[]`},
		{"GET", "/repositories?limit=5000", "", 400, "bad_request", "1 to 1000"},
		{"GET", "/image", "", 400, "bad_request", "ref is missing"},
		{"GET", "/image?ref=nginx", "", 404, "not_kept", "docker.io/library/nginx:latest"},
		{"GET", "/image?ref=nginx@" + digest, "", 404, "not_kept", "nothing is kept"},
		{"GET", "/image?ref=NGINX", "", 400, "bad_reference", "not a valid image name"},
		{"GET", "/history?ref=nginx@" + digest, "", 400, "bad_request", "name a tag"},
		{"POST", "/refresh", "", 400, "bad_request", "empty"},
		{"POST", "/refresh", "{", 400, "bad_request", "unexpected"},
		{"POST", "/refresh", `{"ref": "nginx"} {}`, 400, "bad_request", "more than one"},
		{"POST", "/refresh", `{"reff": "nginx"}`, 400, "bad_request", "unknown field"},
		{"POST", "/refresh", `{"ref": "` + strings.Repeat("x", bodyMost) + `"}`, 400, "bad_request", "more than 65536 bytes"},
		{"POST", "/refresh", `{"ref": "nginx@` + digest + `"}`, 400, "bad_request", "never changes"},
		{"POST", "/purge", `{}`, 400, "bad_request", "target is missing"},
		{"POST", "/purge", `{"target": "nginx"}`, 404, "not_kept", "docker.io/library/nginx"},
		{"POST", "/purge", `{"target": "nginx:1"}`, 404, "not_kept", "docker.io/library/nginx:1"},
		{"POST", "/purge", `{"target": "` + digest + `"}`, 404, "not_kept", digest},
		{"POST", "/pins", `{"ref": "nginx"}`, 404, "upstream_not_found", "pin docker.io/library/nginx:latest"},
		{"POST", "/pins", `{"ref": "nginx", "platforms": ["x"]}`, 400, "bad_request", "not a platform"},
		{"DELETE", "/pins?ref=nginx", "", 404, "not_kept", "is not pinned"},
		{"POST", "/repair", `{"ref": "nginx", "platforms": ["x"]}`, 400, "bad_request", "not a platform"},
		{"GET", "/jobs/7", "", 404, "no_job", "no job"},
		{"DELETE", "/jobs/7", "", 404, "no_job", "no job"},
		{"GET", "/openapi.json", "", 200, "", "Forebay admin API"},
		{"GET", "/stats", "", 200, "", `"blobs":0`},
		{"GET", "/pins", "", 200, "", `"pins":[]`},
		{"GET", "/jobs", "", 200, "", `"jobs":[]`},
		{"GET", "/repositories", "", 200, "", `"repositories":[]`},
	} {
		w := asks(a, tt.method, tt.path, tt.body, nil)
		if code := codeOf(t, w); w.Code != tt.status || code != tt.code || !strings.Contains(w.Body.String(), tt.text) {
			t.Errorf("%s %s %.60s = %d %s %.300s, want %d %s with %q", tt.method, tt.path, tt.body, w.Code, code, w.Body, tt.status, tt.code, tt.text)
		}
	}
}

func TestUpstreamFailuresAreTold(t *testing.T) {
	for kind, want := range map[pull.Kind]struct {
		status int
		code   string
	}{
		pull.NotFound: {404, "upstream_not_found"}, pull.Denied: {502, "upstream_denied"}, pull.Limited: {429, "upstream_limited"},
		pull.Timeout: {504, "upstream_timeout"}, pull.Unavailable: {502, "upstream_unavailable"}, pull.Invalid: {502, "upstream_unavailable"},
	} {
		got := problemOf(&pull.Error{Kind: kind})
		if got.status != want.status || got.code != want.code {
			t.Errorf("%s is told as %d %s, want %d %s", kind, got.status, got.code, want.status, want.code)
		}
	}
	for err, code := range map[error]string{context.DeadlineExceeded: "timeout", context.Canceled: "stopping", errors.New("x"): "internal"} {
		if got := problemOf(err); got.code != code {
			t.Errorf("%v is told as %s, want %s", err, got.code, code)
		}
	}
}

func TestJobsAreBoundedAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJobs()
		hang := func(ctx context.Context, tell func(told)) (any, error) {
			tell(told{Progress: Progress{Items: 3}})
			<-ctx.Done()
			return nil, ctx.Err()
		}
		first, err := j.start(order{kind: "verify"}, hang)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.start(order{kind: "verify"}, hang); problemOf(err).code != "running" {
			t.Errorf("the same job twice = %v", err)
		}
		for i := 1; i < jobsRunning; i++ {
			if _, err := j.start(order{kind: "repair", target: strings.Repeat("x", i)}, hang); err != nil {
				t.Errorf("job %d = %v", i, err)
			}
		}
		if _, err := j.start(order{kind: "gc"}, hang); problemOf(err).code != "too_many_jobs" {
			t.Errorf("one job too many = %v", err)
		}
		synctest.Wait()
		run, job, err := j.find(first.ID)
		if err != nil || job.State != Running || job.Progress.Items != 3 {
			t.Errorf("job = %+v, %v", job, err)
		}
		run.cancel()
		synctest.Wait()
		if _, job, _ := j.find(first.ID); job.State != Cancelled || job.Ended.IsZero() {
			t.Errorf("cancelled job = %+v", job)
		}
		for range jobsKept + 20 {
			_, err := j.start(order{kind: "gc"}, func(context.Context, func(told)) (any, error) { return 7, nil })
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if _, err := j.start(order{kind: "gc"}, func(context.Context, func(told)) (any, error) { return nil, errors.New("broken") }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		all := j.all()
		if len(all) > jobsKept+jobsRunning+1 || all[0].State != Failed || all[0].Error != "broken" || string(all[1].Result) != "7" {
			t.Errorf("%d jobs are remembered, the last ones %+v", len(all), all[:2])
		}
		if _, _, err := j.find(first.ID); problemOf(err).code != "no_job" {
			t.Errorf("an old job = %v, want it forgotten", err)
		}
		j.stop()
		j.running.Wait()
		if _, err := j.start(order{kind: "gc"}, hang); !errors.Is(err, context.Canceled) {
			t.Errorf("a job after the end = %v", err)
		}
	})
}

// A purge waits here, whether its page stays open or not, and whoever asks can take it back.
func TestPurgeCanBeTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAPIFor(t, true, "")
		in := beginImport(t, a)
		for _, app := range []string{"one", "two"} {
			manifest := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","annotations":{"a":"` + app + `"},"layers":[{"digest":"` + digestText("layer") + `","size":5}]}`
			for _, text := range []string{"layer", manifest} {
				asks(a, "POST", in+"/content", text, octets)
			}
			if w := asks(a, "POST", in+"/admit", `{"ref":"`+app+`:1","digest":"`+digestText(manifest)+`"}`, nil); w.Code != 200 {
				t.Fatalf("admit = %d %s", w.Code, w.Body)
			}
		}
		kept := func(ref string) bool { return asks(a, "GET", "/image?ref="+ref, "", nil).Code == 200 }
		begin := func(body string) (job Job) {
			w := asks(a, "POST", "/purges", body, nil)
			if err := json.Unmarshal(w.Body.Bytes(), &job); err != nil || w.Code != 202 {
				t.Fatalf("POST /purges %s = %d %s", body, w.Code, w.Body)
			}
			return job
		}
		job := begin(`{"targets":["one:1","two"],"wait_seconds":10}`)
		if wait := time.Until(job.Due); wait != 10*time.Second || job.Target != "one:1 and 1 more" {
			t.Errorf("job %+v waits %s, want 10 s", job, wait)
		}
		time.Sleep(9 * time.Second)
		if w := asks(a, "DELETE", "/jobs/"+job.ID, "", nil); w.Code != 204 {
			t.Errorf("taking it back = %d %s", w.Code, w.Body)
		}
		time.Sleep(time.Minute)
		if !kept("one:1") || !kept("two:1") {
			t.Error("what was taken back is gone")
		}
		job = begin(`{"targets":["one:1","two","two:1"],"wait_seconds":10}`) // two:1 goes with two
		time.Sleep(11 * time.Second)
		if w := asks(a, "GET", "/jobs/"+job.ID, "", nil); kept("one:1") || kept("two:1") || !strings.Contains(w.Body.String(), `"state":"done"`) || !strings.Contains(w.Body.String(), `"blobs":3`) || !strings.Contains(w.Body.String(), `"pulls":2`) {
			t.Errorf("after its time: %s", w.Body)
		}
		for body, code := range map[string]string{
			`{"targets":["one:1"],"wait_seconds":10}`: "not_kept", `{"targets":["One:1"]}`: "bad_reference", `{"targets":[]}`: "bad_request", `{"targets":["a"],"wait_seconds":61}`: "bad_request",
		} {
			if w := asks(a, "POST", "/purges", body, nil); codeOf(t, w) != code {
				t.Errorf("POST /purges %s = %d %s, want %s", body, w.Code, w.Body, code)
			}
		}
	})
}
