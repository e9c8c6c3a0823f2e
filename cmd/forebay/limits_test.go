package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"forebay/test/hubtest"
)

// A team has its limits together, whoever of it asks first, and takes nothing from others; who is
// refused is told why and when to come again. By SIGHUP there are other limits.
func TestTeamsHaveTheirLimits(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 40, Window: 6 * time.Hour}})
	for i := range 20 {
		hub.PushImage("library/alpine", fmt.Sprint(i), hubtest.ImageSpec{})
	}
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	var users strings.Builder
	for _, name := range []string{"alice", "bob", "carol"} {
		fmt.Fprintf(&users, "%s:%s\n", name, hash)
	}
	if err := os.WriteFile(filepath.Join(dir, "htpasswd"), []byte(users.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml := func(limits string) string {
		return fmt.Sprintf("storage: {dir: %[1]s/store}\nfallback: none\nauth: {htpasswd_file: %[1]s/htpasswd, groups: {team: [alice, bob]}}\nupstreams: {docker.io: {endpoints: [%[2]q]}}\nlimits: {%[3]s}\n", dir, hub.RegistryURL(), limits)
	}
	file := write(t, "limits.yaml", yaml(`of: [{who: ["group:team"], shared: true, budget_share: 10%}]`))
	s := startFile(t, file)
	pull := func(who string, tag int) (int, http.Header, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/v2/library/alpine/manifests/%d", s.registry, tag), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(who, "hunter2")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var body strings.Builder
		if err := response.Write(&body); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, response.Header, body.String()
	}
	allowed := func(who string, tag int) {
		t.Helper()
		if status, _, body := pull(who, tag); status != http.StatusOK {
			t.Errorf("%s gets %d for tag %d: %s", who, status, tag, body)
		}
	}
	refused := func(who string, tag int, why string) {
		t.Helper()
		status, header, body := pull(who, tag)
		if status != http.StatusTooManyRequests || header.Get("Retry-After") == "" || !strings.Contains(body, "TOOMANYREQUESTS") || !strings.Contains(body, why) {
			t.Errorf("%s gets %d for tag %d, want 429, a time and %q: %s", who, status, tag, why, body)
		}
	}
	allowed("carol", 0) // which tells the limit: 40, of which four are the team's
	for i, who := range []string{"alice", "bob", "alice", "bob"} {
		allowed(who, 1+i)
	}
	refused("alice", 5, "share of the registry's limit")
	refused("bob", 6, "share of the registry's limit")
	allowed("alice", 0) // what is kept costs nothing
	for i := range 5 {
		allowed("carol", 7+i)
	}

	if err := os.WriteFile(file, []byte(yaml(`requests_per_second: 2, of: [{who: ["group:team"], shared: true, requests_per_second: 1}]`)), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp(t, s, `"msg":"configuration read again"`)
	sent := 0
	for ; sent < 1000; sent++ { // more than a second's come in a second
		if status, _, _ := pull([]string{"alice", "bob"}[sent%2], 0); status != http.StatusOK {
			break
		}
	}
	if sent < 10 || sent == 1000 {
		t.Errorf("the team is limited after %d requests, want those of ten seconds", sent)
	}
	refused("bob", 0, "too many requests")
	allowed("carol", 0)
	_, metrics := get(t, s.admin+"/metrics")
	if !strings.Contains(metrics, `forebay_refused_requests_total{limit="share",upstream="docker.io"} 2`) {
		t.Error("the metrics do not tell who was refused")
	}
}
