package hubtest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// blobWorld is a hub with one blob, a client and a token for it.
func blobWorld(t *testing.T, o Options, content string) (*Hub, *probe, string, string) {
	t.Helper()
	hub := New(t, o)
	digest := hub.PutBlob("library/a", []byte(content))
	p := newProbe(t, hub)
	return hub, p, digest, p.token("library/a")
}

func TestF30CDNIsChosenPerRequest(t *testing.T) {
	hub, p, digest, token := blobWorld(t, Options{}, "layer")
	for i, role := range []Role{RoleCF, RoleR2, RoleCFR, RoleCF} {
		if at := p.location("library/a", digest, token); !strings.HasPrefix(at, hub.URL(role)+"/") {
			t.Errorf("redirect %d leads to %s, want %s", i, at, role)
		}
	}
	for _, role := range []Role{RoleCF, RoleR2, RoleCFR, RoleAlt, RoleSub} {
		hub.Set(func(o *Options) { o.CDN = string(role) })
		at := p.location("library/a", digest, token)
		if !strings.HasPrefix(at, hub.URL(role)+"/") {
			t.Errorf("Options.CDN %s leads to %s", role, at)
		}
		wantBody(t, p.do(http.MethodGet, at), "layer")
	}
}

func TestF30RandomChoiceFollowsTheSeed(t *testing.T) {
	choices := func(seed uint64) string {
		hub := New(t, Options{CDN: CDNRandom, Seed: seed})
		var all []string
		for range 20 {
			all = append(all, string(hub.pickCDN()))
		}
		return strings.Join(all, " ")
	}
	if first, second := choices(1), choices(1); first != second {
		t.Error("same seed, different choices")
	}
	if choices(1) == choices(2) {
		t.Error("different seeds, same choices")
	}
}

func TestF30SignaturesAreVerified(t *testing.T) {
	hub := New(t, Options{})
	a, b := hub.PutBlob("library/a", []byte("a")), hub.PutBlob("library/a", []byte("b"))
	p := newProbe(t, hub)
	for _, role := range []Role{RoleCF, RoleR2, RoleCFR} {
		signed := hub.SignedURL(role, a)
		wantStatus(t, p.do(http.MethodGet, signed), http.StatusOK)
		_, query, _ := strings.Cut(signed, "?")
		for _, bad := range []string{hub.URL(role) + cdnPath(b) + "?" + query, hub.URL(role) + cdnPath(a)} {
			got := p.do(http.MethodGet, bad)
			wantStatus(t, got, http.StatusForbidden)
			wantMatch(t, "body", got.body, "<Code>SignatureDoesNotMatch</Code>")
		}
	}
}

func TestF30QueryShapes(t *testing.T) {
	hub := New(t, Options{})
	d := hub.PutBlob("library/a", []byte("a"))
	wantMatch(t, "cf", hub.SignedURL(RoleCF, d), `\?verify=\d{10}-[A-Za-z0-9%]+$`)
	wantMatch(t, "r2", hub.SignedURL(RoleR2, d),
		`\?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=[^&]*%2Fauto%2Fs3%2Faws4_request&X-Amz-Date=\d{8}T\d{6}Z&X-Amz-Expires=1200&X-Amz-Signature=[0-9a-f]{64}&X-Amz-SignedHeaders=host$`)
	wantMatch(t, "cfr", hub.SignedURL(RoleCFR, d), `\?Expires=\d{10}&Key-Pair-Id=HUBTEST&Signature=[^&]+$`)
}

func TestF31URLsExpire(t *testing.T) {
	for role, life := range map[Role]time.Duration{RoleCF: 3600 * time.Second, RoleR2: 1200 * time.Second, RoleCFR: 900 * time.Second} {
		start := time.Date(2026, 7, 15, 14, 24, 11, 0, time.UTC)
		hub := New(t, Options{Now: func() time.Time { return start }})
		d := hub.PutBlob("library/a", []byte("a"))
		p := newProbe(t, hub)
		at := hub.SignedURL(role, d)
		hub.Advance(life - time.Second)
		wantStatus(t, p.do(http.MethodGet, at), http.StatusOK)
		hub.Advance(time.Second)
		wantStatus(t, p.do(http.MethodGet, at), http.StatusForbidden)
		hub.Set(func(o *Options) { o.SignedTTL = -time.Second })
		wantStatus(t, p.do(http.MethodGet, hub.SignedURL(role, d)), http.StatusForbidden)
	}
}

func TestF32WholeBlob(t *testing.T) {
	hub, p, digest, _ := blobWorld(t, Options{}, "0123456789")
	etags := map[string]bool{}
	for _, role := range []Role{RoleCF, RoleR2, RoleCFR} {
		a := p.do(http.MethodGet, hub.SignedURL(role, digest))
		wantBody(t, a, "0123456789")
		wantHeader(t, a, "Content-Length", "10")
		wantHeader(t, a, "Content-Type", "application/octet-stream")
		wantHeader(t, a, "Accept-Ranges", "bytes")
		wantHeader(t, a, "Vary", "Accept-Encoding")
		wantHeader(t, a, "Docker-Content-Digest", "")
		wantMatch(t, "etag", a.header.Get("Etag"), `^"[0-9a-f]{32}"$`)
		etags[a.header.Get("Etag")] = true
	}
	if len(etags) != 3 {
		t.Errorf("%d different ETags at 3 CDNs, want 3", len(etags))
	}
	c := hub.Counters()
	if c.BlobBytes[digest] != 30 || c.BlobBodyStarted[digest] != 3 {
		t.Errorf("blob_bytes %d, started %d, want 30, 3", c.BlobBytes[digest], c.BlobBodyStarted[digest])
	}
	hub.Settle(t)
	if n := hub.Counters().BlobBodyFinished[digest]; n != 3 {
		t.Errorf("finished %d, want 3", n)
	}
}

func TestF33Ranges(t *testing.T) {
	hub, p, digest, _ := blobWorld(t, Options{CDN: string(RoleCF)}, "0123456789")
	at := hub.SignedURL(RoleCF, digest)
	for spec, want := range map[string]struct {
		status      int
		body, where string
	}{
		"bytes=2-4":   {206, "234", "bytes 2-4/10"},
		"bytes=7-":    {206, "789", "bytes 7-9/10"},
		"bytes=-3":    {206, "789", "bytes 7-9/10"},
		"bytes=0-99":  {206, "0123456789", "bytes 0-9/10"},
		"bytes=10-":   {416, "", "bytes */10"},
		"bytes=-0":    {416, "", "bytes */10"},
		"bytes=0-1,3": {200, "0123456789", ""},
		"bytes=4-2":   {200, "0123456789", ""},
		"lines=1-2":   {200, "0123456789", ""},
	} {
		a := p.do(http.MethodGet, at, "Range", spec)
		wantStatus(t, a, want.status)
		wantHeader(t, a, "Content-Range", want.where)
		if want.status != 416 {
			wantBody(t, a, want.body)
			wantHeader(t, a, "Content-Length", fmt.Sprint(len(want.body)))
		}
	}
	etag := cdnETag(RoleCF, digest)
	wantStatus(t, p.do(http.MethodGet, at, "Range", "bytes=1-", "If-Range", etag), http.StatusPartialContent)
	wantStatus(t, p.do(http.MethodGet, at, "Range", "bytes=1-", "If-Range", `"other"`), http.StatusOK)
	if n := hub.Counters().RangeRequests[digest]; n != 11 {
		t.Errorf("range_requests = %d, want 11", n)
	}
}

func TestF34CredentialsAtACDN(t *testing.T) {
	hub, p, digest, _ := blobWorld(t, Options{}, "a")
	for _, role := range []Role{RoleCF, RoleR2, RoleCFR, RoleAlt, RoleSub} {
		at := hub.SignedURL(role, digest)
		for _, header := range []string{"Authorization", "Cookie"} {
			a := p.do(http.MethodGet, at, header, "x=y")
			wantStatus(t, a, http.StatusBadRequest)
			wantMatch(t, "body", a.body, "<Error><Code>InvalidArgument</Code>")
		}
		wantStatus(t, p.do(http.MethodGet, at, "Referer", "http://x"), http.StatusOK)
	}
	c := hub.Counters()
	if c.CDNAuthLeak != 5 || c.CDNCookieLeak != 5 || c.CDNRefererLeak != 5 {
		t.Errorf("leaks = %d, %d, %d, want 5 each", c.CDNAuthLeak, c.CDNCookieLeak, c.CDNRefererLeak)
	}
}

func TestF35ExpiredShapes(t *testing.T) {
	hub, p, digest, _ := blobWorld(t, Options{}, "a")
	var at []string
	roles := []Role{RoleCF, RoleR2, RoleCFR}
	for _, role := range roles {
		at = append(at, hub.SignedURL(role, digest))
	}
	hub.ExpireURLs()
	for i, role := range roles {
		a := p.do(http.MethodGet, at[i])
		wantStatus(t, a, http.StatusForbidden)
		want := "<Code>AccessDenied</Code><Message>Request has expired</Message>"
		if role == RoleR2 {
			want = "<Code>ExpiredRequest</Code>"
		}
		wantMatch(t, string(role), a.body, want)
		wantStatus(t, p.do(http.MethodGet, hub.SignedURL(role, digest)), http.StatusOK)
	}
	hub.Set(func(o *Options) { o.R2ExpiredStatus = http.StatusBadRequest })
	wantStatus(t, p.do(http.MethodGet, at[1]), http.StatusBadRequest)
}

func TestF36HeadOfAURLSignedForGet(t *testing.T) {
	hub, p, digest, token := blobWorld(t, Options{}, "abc")
	for role, want := range map[Role]int{RoleCF: http.StatusOK, RoleR2: http.StatusForbidden, RoleCFR: http.StatusOK} {
		a := p.do(http.MethodHead, hub.SignedURL(role, digest))
		wantStatus(t, a, want)
		if want == http.StatusOK {
			wantHeader(t, a, "Content-Length", "3")
		}
	}
	hub.Set(func(o *Options) { o.CDN = string(RoleR2) })
	forHead := p.registry(http.MethodHead, "/v2/library/a/blobs/"+digest, token).header.Get("Location")
	wantStatus(t, p.do(http.MethodHead, forHead), http.StatusOK)
	wantStatus(t, p.do(http.MethodGet, forHead), http.StatusForbidden)
}

func TestCountsBodiesOfOneDigestAtTheSameTime(t *testing.T) {
	hub, p, digest, _ := blobWorld(t, Options{}, strings.Repeat("x", 100))
	hub.AddRule(Rule{Role: CDN, Do: StallAt(50)})
	p.client.Timeout = 2 * time.Second // the beginning comes at once, and no more
	done := make(chan bool)
	for range 3 {
		go func() {
			_, _ = p.try(http.MethodGet, hub.SignedURL(RoleCF, digest))
			done <- true
		}()
	}
	for range 3 {
		<-done
	}
	hub.Settle(t)
	c := hub.Counters()
	if c.MaxInflightSameBlob < 1 || c.MaxInflight[RoleCF] < 1 || c.BlobBytes[digest] != 150 || c.BlobBodyFinished[digest] != 0 {
		t.Errorf("same %d, inflight %d, bytes %d, finished %d", c.MaxInflightSameBlob, c.MaxInflight[RoleCF], c.BlobBytes[digest], c.BlobBodyFinished[digest])
	}
}
