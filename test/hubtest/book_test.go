package hubtest

import (
	"net/http"
	"strings"
	"testing"
)

func TestF71LedgerHidesSecrets(t *testing.T) {
	w := newFaultWorld(t)
	w.AddUser(User{Name: "u", Secrets: []string{"hunter2"}})
	w.p.token("library/a", basic("u", "hunter2")...)
	w.blob()
	w.manifest()
	l := w.Ledger()
	for _, secret := range []string{"hunter2", basic("u", "hunter2")[1][6:], w.token} {
		if strings.Contains(l, secret) {
			t.Errorf("ledger shows %q:\n%s", secret, l)
		}
	}
	for _, want := range []string{"verify=sha256[", "Bearer sha256[", "GET  /v2/library/a/manifests/1 → 200"} {
		if !strings.Contains(l, want) {
			t.Errorf("ledger lacks %q:\n%s", want, l)
		}
	}
}

func TestF72AssertClean(t *testing.T) {
	w := newFaultWorld(t)
	var r recorder
	w.AssertClean(&r)
	if len(r.errors) != 0 {
		t.Errorf("complaints about nothing: %q", r.errors)
	}
	w.blob("Authorization", "Bearer x")
	w.blob("Cookie", "x=y")
	w.blob("Referer", "x")
	w.p.registry(http.MethodGet, "/v2/?ns=docker.io", "", "Cookie", "a=b", "X-Forwarded-For", "1.2.3.4")
	w.p.registry(http.MethodDelete, "/v2/library/a/manifests/1", "")
	w.p.do(http.MethodGet, w.p.tokenURL("library/a"), "Cookie", "a=b")
	w.p.do(http.MethodGet, w.URL(RoleEvil)+"/?account=x")
	w.p.do(http.MethodGet, w.URL(RoleMeta))
	_, _ = w.p.try(http.MethodGet, "http://127.0.0.1:1/")
	w.AssertClean(&r)
	if len(r.errors) != 12 {
		t.Errorf("%d complaints, want 12: %q", len(r.errors), r.errors)
	}
	w.ResetCounters()
	var again recorder
	w.AssertClean(&again)
	if len(again.errors) != 12 || w.Requests() != 0 {
		t.Errorf("after a reset: %d complaints, %d requests; want 12, 0", len(again.errors), w.Requests())
	}
}

func TestF70Counters(t *testing.T) {
	w := newFaultWorld(t)
	w.manifest()
	w.p.head("/v2/library/a/manifests/1", w.token)
	w.blob("User-Agent", "probe/1", "Accept-Encoding", "identity")
	w.p.do(http.MethodGet, w.p.location("library/a", w.digest, w.token))
	w.Settle(t)
	c := w.Counters()
	for name, pair := range map[string][2]int{
		"token_requests":     {c.TokenRequests, 1},
		"manifest_get":       {c.ManifestGet["library/a@"+w.img.Digest], 1},
		"manifest_head":      {c.ManifestHead["library/a:1"], 1},
		"blob_307":           {c.BlobRedirects[w.digest], 1},
		"blob_body_finished": {c.BlobBodyFinished[w.digest], 2},
		"blob_bytes":         {int(c.BlobBytes[w.digest]), 20},
		"charged":            {c.Charged["127.0.0.1"], 1},
		"user_agents":        {c.UserAgent["probe/1"], 1},
		"accept_encoding":    {c.AcceptEncoding["identity"], 1},
		"conns at cf":        {c.Conns[RoleCF], 1},
		"abuse_units":        {c.AbuseUnits["127.0.0.1"], 6},
		"all":                {w.Requests(), 6},
		"by role":            {w.Count(Query{Role: CDN}), 2},
		"by route":           {w.Count(Query{Route: RouteManifest, Repo: "library/a", Ref: "1"}), 2},
		"by method":          {w.Count(Query{Role: RoleRegistry, Method: http.MethodHead, Status: 200}), 1},
		"blob route":         {w.Count(Query{Route: RouteBlob, Ref: w.digest}), 3},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s = %d, want %d", name, pair[0], pair[1])
		}
	}
}
