package hubtest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// faultWorld is a hub whose CDN serves one blob of ten bytes, and a good URL of it.
type faultWorld struct {
	*Hub
	p      *probe
	digest string
	token  string
	img    *Image
}

func newFaultWorld(t *testing.T) *faultWorld {
	t.Helper()
	hub := New(t, Options{CDN: string(RoleCF)})
	w := &faultWorld{Hub: hub, p: newProbe(t, hub)}
	w.img = hub.PushImage("library/a", "1", ImageSpec{})
	w.digest = hub.PutBlob("library/a", []byte("0123456789"))
	w.token = w.p.token("library/a")
	return w
}

// once puts a fault in force for the next request to a role.
func (w *faultWorld) once(role Role, f Fault) { w.AddRule(Rule{Role: role, Count: 1, Do: f}) }

func (w *faultWorld) blob(header ...string) answer {
	w.p.t.Helper()
	return w.p.do(http.MethodGet, w.SignedURL(RoleCF, w.digest), header...)
}

func (w *faultWorld) tryBlob(header ...string) (answer, error) {
	w.p.t.Helper()
	return w.p.try(http.MethodGet, w.SignedURL(RoleCF, w.digest), header...)
}

func (w *faultWorld) manifest() answer {
	w.p.t.Helper()
	return w.p.pull("/v2/library/a/manifests/1", w.token)
}

func TestRuleFromCountEvery(t *testing.T) {
	w := newFaultWorld(t)
	a := w.AddRule(Rule{ID: "x", Role: CDN, Method: http.MethodGet, Route: RouteBlob, Ref: w.digest, From: 2, Every: 2, Count: 2, Do: Status(503)})
	never := w.AddRule(Rule{Role: CDN, Ref: "sha256:beef", Do: Status(500)})
	var got []int
	for range 7 {
		got = append(got, w.blob().status)
	}
	want := []int{200, 503, 200, 503, 200, 200, 200}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("statuses = %v, want %v", got, want)
		}
	}
	if a.Fired() != 2 || w.Counters().FaultFired["x"] != 2 || never.Fired() != 0 {
		t.Errorf("fired %d, counted %v, never %d", a.Fired(), w.Counters().FaultFired, never.Fired())
	}
	var r recorder
	w.AssertAllFired(&r)
	if len(r.errors) != 1 || !strings.Contains(r.errors[0], "never fired") {
		t.Errorf("AssertAllFired said %q, want one complaint", r.errors)
	}
}

// recorder is a testing.TB that keeps errors.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, strings.TrimSpace(format))
}

func TestRuleOrderAndWhen(t *testing.T) {
	w := newFaultWorld(t)
	first := w.AddRule(Rule{Role: RoleRegistry, Route: RouteManifest, Repo: "library/a", When: func(s *State) bool { return s.Bearer }, Do: Status(500)})
	w.AddRule(Rule{Role: "*", Do: Status(502)})
	wantStatus(t, w.manifest(), 500)
	wantStatus(t, w.p.pull("/v2/library/a/manifests/1", ""), 502)
	first.Remove()
	wantStatus(t, w.manifest(), 502)
	w.ClearRules()
	wantStatus(t, w.manifest(), 200)
}

func TestFaultRateLimitAfter(t *testing.T) {
	w := newFaultWorld(t)
	w.AddRule(Rule{Role: RoleRegistry, Route: RouteManifest, Method: http.MethodGet, From: 3, Do: RateLimited()})
	wantStatus(t, w.manifest(), 200)
	wantStatus(t, w.manifest(), 200)
	a := w.manifest()
	wantStatus(t, a, 429)
	wantHeader(t, a, "Ratelimit-Remaining", "0;w=3600")
	wantMatch(t, "body", a.body, "TOOMANYREQUESTS")
}

func TestFaultAbuse(t *testing.T) {
	w := newFaultWorld(t)
	w.AddRule(Rule{Do: Abuse429()})
	for _, a := range []answer{w.blob(), w.manifest(), w.p.do(http.MethodGet, w.p.tokenURL("library/a"))} {
		wantStatus(t, a, 429)
		wantBody(t, a, "Too Many Requests")
	}
}

func TestFaultExpireToken(t *testing.T) {
	w := newFaultWorld(t)
	w.AddRule(Rule{Role: RoleRegistry, From: 2, Count: 1, Do: ExpireToken()})
	wantStatus(t, w.manifest(), 200)
	a := w.manifest()
	wantStatus(t, a, 401)
	wantMatch(t, "challenge", a.header.Get("Www-Authenticate"), `error="invalid_token"`)
	wantStatus(t, w.manifest(), 401)
	w.token = w.p.token("library/a")
	wantStatus(t, w.manifest(), 200)
}

func TestFaultRevoke(t *testing.T) {
	w := newFaultWorld(t)
	w.AddUser(User{Name: "u", Secrets: []string{"pw"}})
	w.token = w.p.token("library/a", basic("u", "pw")...)
	w.once(RoleRegistry, RevokeAccount("u"))
	wantStatus(t, w.manifest(), 401)
	wantStatus(t, w.p.do(http.MethodGet, w.p.tokenURL("library/a"), basic("u", "pw")...), 401)
}

func TestFaultStatuses(t *testing.T) {
	w := newFaultWorld(t)
	for _, code := range []int{500, 502, 503, 504, 520, 522} {
		w.once(RoleRegistry, Status(code))
		wantMatch(t, "json", w.manifest().body, `^\{"errors":`)
		w.once(RoleRegistry, StatusHTML(code))
		wantMatch(t, "html", w.manifest().body, `^<html>`)
		w.once(RoleRegistry, StatusEmpty(code))
		a := w.manifest()
		wantStatus(t, a, code)
		wantBody(t, a, "")
	}
	w.once(RoleRegistry, StatusRetryAfter(503, "7"))
	wantHeader(t, w.manifest(), "Retry-After", "7")
	if n := w.ChargedTotal(); n != 0 {
		t.Errorf("charged %d for failures, want 0", n)
	}
	if n := w.Count(Query{Role: RoleRegistry, Status: 503}); n != 4 {
		t.Errorf("Count(503) = %d, want 4", n)
	}
}

func TestFaultBurst(t *testing.T) {
	w := newFaultWorld(t)
	w.AddRule(Rule{Role: CDN, Count: 3, Do: Status(503)})
	for range 3 {
		wantStatus(t, w.blob(), 503)
	}
	wantStatus(t, w.blob(), 200)
}

func TestFaultDrop(t *testing.T) {
	w := newFaultWorld(t)
	for _, how := range []Ending{RST, FIN} {
		for _, k := range []int64{0, 1, 5, -1} {
			w.once(RoleCF, Drop(k, how))
			a, err := w.tryBlob()
			if how == RST && err != nil {
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("drop at %d: %v, want a reset", k, err)
				}
				continue // the reset may overtake the header
			}
			want := io.ErrUnexpectedEOF
			if how == RST {
				want = syscall.ECONNRESET
			}
			if err != nil || !errors.Is(a.err, want) || a.length != 10 {
				t.Errorf("drop %s at %d: %v, body error %v, length %d; want %v, 10", how, k, err, a.err, a.length, want)
			}
			if n := fromEnd(k, 10); how == FIN && int64(len(a.body)) != n {
				t.Errorf("drop %s at %d: %d bytes, want %d", how, k, len(a.body), n)
			}
		}
	}
}

func TestFaultStallAndDrip(t *testing.T) {
	w := newFaultWorld(t)
	w.p.client.Timeout = 2 * time.Second // the beginning comes at once, and no more
	w.once(RoleCF, StallAt(4))
	a, err := w.tryBlob()
	if err != nil || a.body != "0123" || a.err == nil {
		t.Errorf("stall: %v, body %q, %v; want 0123 and a timeout", err, a.body, a.err)
	}
	w.Settle(t)
	w.p.client.Timeout = 20 * time.Second
	w.once(RoleCF, Drip(3, time.Millisecond))
	wantBody(t, w.blob(), "0123456789")
	w.once(RoleCF, SlowHeaders(time.Millisecond))
	wantBody(t, w.blob(), "0123456789")
}

func TestFaultHangEndsWithTheClient(t *testing.T) {
	w := newFaultWorld(t)
	w.p.client.Timeout = time.Second
	w.once(RoleCF, Hang())
	if _, err := w.tryBlob(); err == nil {
		t.Error("a hanging request was answered")
	}
	w.Settle(t)
	w.p.client.Timeout = 20 * time.Second
	release := make(chan struct{})
	w.once(RoleCF, Block(release))
	close(release)
	wantBody(t, w.blob(), "0123456789")
}

func TestFaultCorrupt(t *testing.T) {
	w := newFaultWorld(t)
	w.once(RoleCF, Corrupt(2))
	wantBody(t, w.blob(), "0133456789")
	w.once(RoleCF, Corrupt(-1))
	wantBody(t, w.blob(), "0123456788")
	w.once(RoleRegistry, Corrupt(0))
	if a := w.manifest(); len(a.body) != len(w.img.Raw) || a.body[1:] != string(w.img.Raw[1:]) || a.body[0] == w.img.Raw[0] {
		t.Errorf("manifest = %q", a.body)
	}
}

func TestFaultWrongBytes(t *testing.T) {
	w := newFaultWorld(t)
	w.once(RoleCF, WrongBytes([]byte("other")))
	a := w.blob()
	wantBody(t, a, "other")
	wantHeader(t, a, "Content-Length", "5")
}

func TestFaultTruncate(t *testing.T) {
	w := newFaultWorld(t)
	for how, want := range map[TruncateStyle]struct {
		length int64
		err    error
	}{
		KeepLength:   {10, io.ErrUnexpectedEOF},
		CutLength:    {4, nil},
		UntilClose:   {-1, nil},
		ChunkedClean: {-1, nil},
		ChunkedCut:   {-1, io.ErrUnexpectedEOF},
	} {
		w.once(RoleCF, Truncate(4, how))
		a := w.blob()
		if a.body != "0123" || a.length != want.length || !errors.Is(a.err, want.err) {
			t.Errorf("%q: body %q, length %d, error %v; want 0123, %d, %v", how, a.body, a.length, a.err, want.length, want.err)
		}
	}
}

func TestFaultWrongContentLength(t *testing.T) {
	w := newFaultWorld(t)
	w.once(RoleCF, WrongCL(5))
	if a := w.blob(); a.length != 15 || !errors.Is(a.err, io.ErrUnexpectedEOF) || a.body != "0123456789" {
		t.Errorf("larger: length %d, error %v, body %q", a.length, a.err, a.body)
	}
	w.once(RoleCF, WrongCL(-4))
	if a := w.blob(); a.length != 6 || a.err != nil || a.body != "012345" {
		t.Errorf("smaller: length %d, error %v, body %q", a.length, a.err, a.body)
	}
	w.once(RoleCF, RawCL())
	if a := w.blob(); a.length != -1 || a.body != "0123456789" {
		t.Errorf("absent: length %d, body %q", a.length, a.body)
	}
	for _, values := range [][]string{{"-5"}, {"10", "11"}, {"ten"}} {
		w.once(RoleCF, RawCL(values...))
		if _, err := w.tryBlob(); err == nil {
			t.Errorf("content-length %v was accepted", values)
		}
	}
}

func TestFaultDigestHeaders(t *testing.T) {
	w := newFaultWorld(t)
	w.once(RoleRegistry, NoDigestHeader())
	wantHeader(t, w.manifest(), "Docker-Content-Digest", "")
	for _, text := range []string{Digest(nil), "sha256:xyz"} {
		w.once(RoleRegistry, DigestHeader(text))
		wantHeader(t, w.manifest(), "Docker-Content-Digest", text)
	}
	w.once(RoleRegistry, Sha512DigestHeader())
	wantHeader(t, w.manifest(), "Docker-Content-Digest", DigestBy("sha512", w.img.Raw))
	w.AddRule(Rule{Role: RoleRegistry, Method: http.MethodHead, Count: 1, Do: DigestHeader(Digest(nil))})
	wantHeader(t, w.p.head("/v2/library/a/manifests/1", w.token), "Docker-Content-Digest", Digest(nil))
	wantHeader(t, w.manifest(), "Docker-Content-Digest", w.img.Digest)
}

func TestFaultTagMoves(t *testing.T) {
	w := newFaultWorld(t)
	next := w.PushImage("library/a", "", ImageSpec{Seed: 9})
	w.AddRule(Rule{Role: RoleRegistry, Method: http.MethodHead, Do: TagMoves("library/a", "1", next.Digest)})
	wantHeader(t, w.p.head("/v2/library/a/manifests/1", w.token), "Docker-Content-Digest", w.img.Digest)
	wantHeader(t, w.manifest(), "Docker-Content-Digest", next.Digest)
}

func TestFaultRedirects(t *testing.T) {
	w := newFaultWorld(t)
	blob := func() answer { return w.p.registry(http.MethodGet, "/v2/library/a/blobs/"+w.digest, w.token) }
	for _, code := range []int{301, 302, 303, 307, 308} {
		w.once(RoleRegistry, RedirectCDN(code, RoleCFR))
		a := blob()
		wantStatus(t, a, code)
		wantBody(t, w.p.do(http.MethodGet, a.header.Get("Location")), "0123456789")
	}
	for _, text := range []string{"{evil}/x#f", "//u:p@host/x", "ftp://host/x", "file:///etc/passwd", "http://0.0.0.0/", "http://[::ffff:169.254.169.254]/", "http://2852039166/", ""} {
		w.once(RoleRegistry, RedirectTo(307, text))
		wantHeader(t, blob(), "Location", strings.Replace(text, "{evil}", w.URL(RoleEvil), 1))
	}
	w.once(RoleRegistry, RedirectNowhere(307))
	if a := blob(); a.status != 307 || len(a.header["Location"]) != 0 {
		t.Errorf("status %d, Location %q, want 307 without one", a.status, a.header["Location"])
	}
	w.once(RoleRegistry, RedirectRelative(302))
	at := blob().header.Get("Location")
	wantMatch(t, "relative location", at, `^/registry-v2/`)
	wantBody(t, w.p.do(http.MethodGet, w.RegistryURL()+at, "Authorization", "Bearer "+w.token), "0123456789")
	w.once(RoleRegistry, RedirectTo(307, "{cdn-sub}{signed}"))
	wantBody(t, w.p.do(http.MethodGet, blob().header.Get("Location")), "0123456789")
}

func TestFaultChainAndLoop(t *testing.T) {
	w := newFaultWorld(t)
	rule := w.AddRule(Rule{Role: RoleCF, Do: RedirectChain(11, 307)})
	at := w.SignedURL(RoleCF, w.digest)
	for hop := range 12 {
		a := w.p.do(http.MethodGet, at)
		if hop == 11 {
			wantBody(t, a, "0123456789")
			break
		}
		wantStatus(t, a, 307)
		at = a.header.Get("Location")
	}
	rule.Remove()
	w.AddRule(Rule{Role: RoleCF, Do: RedirectLoop(307)})
	at = w.SignedURL(RoleCF, w.digest)
	wantHeader(t, w.p.do(http.MethodGet, at), "Location", at)
}

func TestFaultURLExpiresDuringTheBody(t *testing.T) {
	w := newFaultWorld(t)
	w.once(RoleCF, Both(Drop(4, FIN), ExpireURLAfter()))
	at := w.SignedURL(RoleCF, w.digest)
	if a := w.p.do(http.MethodGet, at); a.body != "0123" {
		t.Errorf("body %q, want 0123", a.body)
	}
	wantStatus(t, w.p.do(http.MethodGet, at, "Range", "bytes=4-"), 403)
	wantBody(t, w.blob("Range", "bytes=4-"), "456789")
	at = w.SignedURL(RoleCF, w.digest)
	w.once(RoleCF, ExpireURL())
	wantStatus(t, w.p.do(http.MethodGet, at), 403)
}

func TestFaultRefuseAuthHeader(t *testing.T) {
	w := newFaultWorld(t)
	w.AddRule(Rule{Role: CDN, Do: RefuseAuthHeader()})
	wantStatus(t, w.blob("Authorization", "Bearer x"), 403)
	wantStatus(t, w.blob(), 200)
}

func TestFaultRangeFaults(t *testing.T) {
	w := newFaultWorld(t)
	for _, c := range []struct {
		do     Fault
		status int
		where  string
		body   string
	}{
		{IgnoreRange(), 200, "", "0123456789"},
		{WrongRange(1), 206, "bytes 4-9/10", "345678"},
		{ShiftedRange(2), 206, "bytes 5-9/10", "56789"},
		{ShortRange(2), 206, "bytes 3-4/10", "34"},
		{Range416(), 416, "bytes */10", ""},
	} {
		w.once(RoleCF, c.do)
		a := w.blob("Range", "bytes=3-8")
		wantStatus(t, a, c.status)
		wantHeader(t, a, "Content-Range", c.where)
		wantBody(t, a, c.body)
	}
}

func TestFaultHeadRefused(t *testing.T) {
	w := newFaultWorld(t)
	for _, c := range []struct {
		do     Fault
		status int
	}{{HeadNotAllowed(), 405}, {HeadUnauthorized(), 401}, {HeadStatus(404), 404}} {
		rule := w.AddRule(Rule{Role: RoleRegistry, Do: c.do})
		a := w.p.head("/v2/library/a/manifests/1", w.token)
		wantStatus(t, a, c.status)
		wantHeader(t, a, "Www-Authenticate", "")
		wantStatus(t, w.manifest(), 200)
		rule.Remove()
	}
	w.once(RoleRegistry, BadToken400())
	a := w.manifest()
	wantStatus(t, a, 400)
	wantHeader(t, a, "Www-Authenticate", "")
}

func TestFaultGzip(t *testing.T) {
	w := newFaultWorld(t)
	for times := 1; times <= 2; times++ {
		w.once(RoleRegistry, Gzip(times))
		a := w.manifest()
		wantHeader(t, a, "Content-Encoding", "gzip")
		wantHeader(t, a, "Docker-Content-Digest", w.img.Digest)
		if n := len(a.header["Content-Encoding"]); n != times {
			t.Errorf("%d encodings, want %d", n, times)
		}
		if a.length != int64(len(a.body)) {
			t.Errorf("content-length %d, body %d bytes", a.length, len(a.body))
		}
		b := []byte(a.body)
		for range times {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if b, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(b, w.img.Raw) {
			t.Errorf("unpacked %q", b)
		}
	}
	w.once(RoleCF, Encoding("zstd"))
	wantHeader(t, w.blob(), "Content-Encoding", "zstd")
}

func TestFaultChunked(t *testing.T) {
	w := newFaultWorld(t)
	w.AddRule(Rule{Do: Chunked()})
	for _, a := range []answer{w.manifest(), w.blob()} {
		wantStatus(t, a, 200)
		if a.length != -1 || a.err != nil {
			t.Errorf("length %d, error %v, want -1", a.length, a.err)
		}
	}
	if a := w.p.head("/v2/library/a/manifests/1", w.token); a.length != int64(len(w.img.Raw)) {
		t.Errorf("HEAD: length %d, want %d", a.length, len(w.img.Raw))
	}
	w.ClearRules()
	w.once(RoleCF, CloseDelimited())
	if a := w.blob(); a.length != -1 || a.body != "0123456789" {
		t.Errorf("close-delimited: length %d, body %q", a.length, a.body)
	}
}

func TestFaultChallenges(t *testing.T) {
	w := newFaultWorld(t)
	w.once(RoleRegistry, Challenge("Negotiate", `bearer realm={evil}/token`, strings.Repeat("x", 8<<10)))
	a := w.p.pull("/v2/library/a/manifests/1", "")
	wantStatus(t, a, 401)
	got := a.header["Www-Authenticate"]
	if len(got) != 3 || got[1] != "bearer realm="+w.URL(RoleEvil)+"/token" || len(got[2]) != 8<<10 {
		t.Errorf("challenges = %.200q", got)
	}
	w.AddRule(Rule{Role: RoleRegistry, Do: ChallengeTo("{auth}/token?x=1")})
	a = w.p.pull("/v2/library/a/manifests/1", "")
	wantHeader(t, a, "Www-Authenticate", `Bearer realm="`+w.URL(RoleAuth)+`/token?x=1",service="registry.docker.io",scope="repository:library/a:pull"`)
	wantStatus(t, w.manifest(), 200)
	w.ClearRules()
	w.once(RoleRegistry, Header("Www-Authenticate", "Bearer realm=x"))
	a = w.manifest()
	wantStatus(t, a, 200)
	wantHeader(t, a, "Www-Authenticate", "Bearer realm=x")
}

func TestFaultContentType(t *testing.T) {
	w := newFaultWorld(t)
	for _, ct := range []string{OCIManifest + "; charset=utf-8", "TEXT/HTML", ""} {
		w.once(RoleRegistry, ContentType(ct))
		a := w.manifest()
		wantHeader(t, a, "Content-Type", ct)
		if ct == "" && len(a.header["Content-Type"]) != 0 {
			t.Errorf("Content-Type = %q, want none", a.header["Content-Type"])
		}
	}
	w.PutManifest("library/a", "odd", OCIIndex, w.img.Raw)
	wantHeader(t, w.p.pull("/v2/library/a/manifests/odd", w.token), "Content-Type", OCIIndex)
}

func TestFaultNastyManifests(t *testing.T) {
	w := newFaultWorld(t)
	for _, n := range []int{4 << 20, 4<<20 + 1} {
		if got := BigManifest(n); len(got) != n || !json.Valid(got) {
			t.Errorf("BigManifest(%d) has %d bytes, valid %t", n, len(got), json.Valid(got))
		}
	}
	if !json.Valid(DeepManifest(1000)) || !json.Valid(WideIndex(10)) {
		t.Error("not JSON")
	}
	for name, raw := range OddManifests(w.img.Children[0]) {
		if bytes.Equal(raw, w.img.Raw) || !bytes.Contains(raw, []byte(w.img.Children[0].Config.Digest)) {
			t.Errorf("%s: %s", name, raw)
		}
		w.PutManifest("library/a", "odd", OCIManifest, raw)
		wantBody(t, w.p.pull("/v2/library/a/manifests/odd", w.token), string(raw))
	}
	x, y := Digest([]byte("x")), Digest([]byte("y"))
	w.PutManifestAs("library/a", "x", x, OCIIndex, IndexOf(Descriptor{MediaType: OCIIndex, Digest: y, Size: 1}))
	w.PutManifestAs("library/a", "y", y, OCIIndex, IndexOf(Descriptor{MediaType: OCIIndex, Digest: x, Size: 1}))
	wantHeader(t, w.p.pull("/v2/library/a/manifests/x", w.token), "Docker-Content-Digest", x)
}

func TestFaultEndless(t *testing.T) {
	w := newFaultWorld(t)
	w.once(RoleRegistry, Endless())
	req, err := http.NewRequest(http.MethodGet, w.RegistryURL()+"/v2/library/a/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	req.Header.Set("Accept", OCIManifest)
	resp, err := w.p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.CopyN(io.Discard, resp.Body, 5<<20)
	if err != nil {
		t.Errorf("read %d bytes: %s", n, err)
	}
	resp.Body.Close()
	w.Settle(t)
}

func TestFaultNewAuth(t *testing.T) {
	w := newFaultWorld(t)
	w.once(RoleCF, NewAuth())
	a := w.blob()
	wantStatus(t, a, 401)
	wantMatch(t, "challenge", a.header.Get("Www-Authenticate"), w.URL(RoleEvil))
}

func TestFaultConnectionClosedAsARequestIsSent(t *testing.T) {
	w := newFaultWorld(t)
	for _, how := range []Ending{RST, FIN} {
		w.p.client.CloseIdleConnections()
		wantStatus(t, w.manifest(), 200)
		rule := w.AddRule(Rule{Role: RoleRegistry, When: Reused, Count: 1, Do: NoReply(how)})
		wantStatus(t, w.manifest(), 200) // net/http tries again on a new connection
		if rule.Fired() != 1 {
			t.Errorf("fired %d times, want 1", rule.Fired())
		}
		w.p.client.CloseIdleConnections()
		w.AddRule(Rule{Role: RoleRegistry, Count: 1, Do: NoReply(how)})
		if _, err := w.p.try(http.MethodGet, w.RegistryURL()+"/v2/"); err == nil {
			t.Error("answered on a new connection")
		}
	}
}

func TestFaultHeaders(t *testing.T) {
	w := newFaultWorld(t)
	w.once(RoleCF, BigHeaders(1<<20))
	size := 0
	for k, v := range w.blob().header {
		size += len(k) + len(v[0])
	}
	if size < 1<<20 {
		t.Errorf("%d bytes of headers, want 1 MiB", size)
	}
	w.once(RoleCF, ManyHeaders(10_000))
	if a := w.blob(); len(a.header) < 10_000 {
		t.Errorf("%d headers, want 10000", len(a.header))
	}
}
