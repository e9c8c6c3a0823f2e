package rules

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forebay/cache"
	"forebay/cache/policy"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

func TestDeniedDigestIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := filepath.Join(t.TempDir(), "deny.txt")
		write := func(text string) {
			if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("# nothing yet\n")
		rule := Configured{Rule: policy.Rule{Name: "lists"}, DenyFrom: []string{list}}
		s := newSite(t, rule)
		first := s.r.Image(t, nginx.Name, "1", "first").Digest
		s.want("first sight", "1", first)
		time.Sleep(time.Hour)
		second := s.r.Image(t, nginx.Name, "1", "second").Digest
		s.want("moved", "1", second)
		write("\ufeff" + second.String() + "  # CVE-2026-2\n") // as some editors begin a file
		s.rules.readLists(t.Context())
		s.want("denied", "1", first)
		if _, err := s.c.Manifest(client(t), nginx, second.String(), false); pull.DetailOf(err) != pull.ByPolicy {
			t.Errorf("the denied digest: %v; want a refusal", err)
		}
		write("colour=red\n")
		s.rules.readLists(t.Context())
		s.want("the list is broken: what it said last counts", "1", first)
		if err := os.Remove(list); err != nil {
			t.Fatal(err)
		}
		s.stop()
		s.start(rule)
		s.want("the list is gone", "1", first)
	})
}

// A list that was read at the first start, and never changed, counts when it cannot be read at the next.
func TestListOutlivesItsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := filepath.Join(t.TempDir(), "deny.txt")
		rule := Configured{Rule: policy.Rule{Name: "lists"}, DenyFrom: []string{list}}
		if err := os.WriteFile(list, []byte("docker.io/library/nginx:1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s := newSite(t, rule)
		s.r.Image(t, nginx.Name, "1", "first")
		for _, when := range []string{"at first", "with the file gone"} {
			if _, err := s.pull("1"); pull.DetailOf(err) != pull.ByPolicy {
				t.Errorf("%s: %v, want a refusal", when, err)
			}
			s.stop()
			if err := os.RemoveAll(list); err != nil {
				t.Fatal(err)
			}
			s.start(rule)
		}
	})
}

func TestJudge(t *testing.T) {
	var asked []question
	decide := "wait"
	judge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q question
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Header.Get("X-Key") != "k" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		asked = append(asked, q)
		if decide == "fail" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"decision": decide, "reason": "scan says " + decide})
	}))
	defer judge.Close()
	transport := &http.Transport{DisableKeepAlives: true}
	s := &site{t: t, dir: t.TempDir(), r: cachetest.NewRegistry(), up: cache.UpstreamOptions{TagTTL: cache.Forever}}
	s.o.Client = &http.Client{Transport: transport}
	rule := func(onError string) Configured {
		return Configured{Rule: policy.Rule{Name: "scan", Judge: true}, Judge: Judge{URL: judge.URL, Headers: map[string]string{"X-Key": "k"}, Timeout: 5 * time.Second, OnError: onError}}
	}
	s.start(rule("wait"))
	defer s.stop()
	d := s.r.Image(t, nginx.Name, "1", "new").Digest
	if _, err := s.pull("1"); pull.DetailOf(err) != pull.ByPolicy || !strings.Contains(err.Error(), "scan says wait") {
		t.Fatalf("while the judge waits: %v", err)
	}
	if len(asked) != 1 || asked[0].Ref != "docker.io/library/nginx:1" || asked[0].Digest != d.String() || len(asked[0].Platforms) != 1 {
		t.Errorf("the judge was asked %+v, want once of %s", asked, d)
	}
	for _, tt := range []struct {
		decide, onError string
		ok              bool
	}{{"allow", "wait", true}, {"deny", "wait", false}, {"fail", "wait", false}, {"fail", "deny", false}, {"fail", "allow", true}, {"perhaps", "deny", false}} {
		decide = tt.decide
		if err := s.rules.Configure([]Configured{rule(tt.onError)}); err != nil { // forgets what was decided
			t.Fatal(err)
		}
		if _, err := s.pull("1"); (err == nil) != tt.ok {
			t.Errorf("%s, on error %s: %v", tt.decide, tt.onError, err)
		}
	}
}

func TestFactsOfImages(t *testing.T) {
	s := newSite(t)
	multi := s.r.Multi(t, nginx.Name, "1")
	k := &known{s.rules, t.Context(), nginx, "1"}
	f := k.Facts(multi.Digest, true)
	if f.Unknown != nil || len(f.Platforms) != 2 || f.Size <= 0 || !f.Created.IsZero() {
		t.Errorf("Facts of an index = %+v", f)
	}
	config := cachetest.JSONOf(t, map[string]string{"os": "linux", "architecture": "amd64", "created": "2026-05-01T00:00:00Z"})
	s.r.Put(nginx.Name, &cachetest.Script{Data: config})
	d := s.r.Push(nginx.Name, "2", cachetest.JSONOf(t, map[string]any{
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "config": cachetest.DescOf("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": multi.Digest.String(), "size": 5}},
	}))
	f = k.Facts(d, true)
	if f.Unknown != nil || f.Size != 5 || f.Created.Format(time.DateOnly) != "2026-05-01" || len(f.Platforms) != 1 {
		t.Errorf("Facts of an image = %+v", f)
	}
	if f := k.Facts(cachetest.DigestOf([]byte("none")), true); f.Unknown == nil {
		t.Errorf("Facts of what is not there = %+v", f)
	}
}
