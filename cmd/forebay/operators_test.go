package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"forebay/internal/audit"
	"forebay/test/hubtest"
)

// Operators prove who they are by password, token or certificate, have the role that their names and
// groups give them, by SIGHUP another, and stand in the audit log. Clients are left as they were.
func TestOperatorsHaveTheirRoles(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
	hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	passwords := func(names ...string) {
		var b strings.Builder
		for _, name := range names {
			fmt.Fprintf(&b, "%s:%s\n", name, hash)
		}
		if err := os.WriteFile(in("htpasswd"), []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	passwords("alice", "bob")
	does := func(args ...string) string {
		t.Helper()
		code, out, stderr := execute(t, nil, args...)
		if code != 0 {
			t.Fatalf("%q = %d %s", args, code, stderr)
		}
		return strings.TrimSpace(out)
	}
	token := does("token", "create", "on-call", "--group", "operators", "--file", in("tokens"))
	does("gen-cert", "127.0.0.1", "--out", dir)
	does("gen-cert", "--client", "deploy-7", "--out", dir)
	yaml := func(operators string) {
		text := fmt.Sprintf(`
storage: {dir: %[1]s/store}
upstreams: {docker.io: {endpoints: [%[2]q]}}
admin_token: the-token-of-all-1
admin_tls: {cert_file: %[1]s/server.pem, key_file: %[1]s/server-key.pem}
admin_client_ca_file: %[1]s/ca.pem
auth: {htpasswd_file: %[1]s/htpasswd, tokens_file: %[1]s/tokens, networks: {here: 127.0.0.0/8}}
authentication: none
audit: %[1]s/audit.log
operators: {%[3]s}
`, dir, hub.RegistryURL(), operators)
		if err := os.WriteFile(in("forebay.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	yaml(`read: [known], operate: ["group:operators", "certificate:deploy-*"], admin: [alice]`)
	s := startFile(t, in("forebay.yaml"))
	ca, err := os.ReadFile(in("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(in("deploy-7.pem"), in("deploy-7-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	client := func(pairs ...tls.Certificate) *http.Client {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: pairs}}}
	}
	nobody, node := client(), client(pair)
	ask := func(c *http.Client, method, path, body string, as func(*http.Request)) (int, *http.Response) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "https"+strings.TrimPrefix(s.admin, "http")+"/api/v1"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Forebay-Request", "1")
		as(r)
		response, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return response.StatusCode, response
	}
	password := func(name string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(name, "hunter2") }
	}
	bearer := func(secret string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) }
	}
	plain := func(*http.Request) {}
	who := []struct {
		name string
		c    *http.Client
		as   func(*http.Request)
		may  int // of: read, operate, admin
	}{
		{"", nobody, plain, 0}, // although a network has its name
		{"wrong", nobody, bearer("wrong"), 0},
		{"bob", nobody, password("bob"), 1},
		{"on-call", nobody, bearer(token), 2},
		{"certificate:deploy-7", node, plain, 2},
		{"alice", nobody, password("alice"), 3},
		{"admin_token", nobody, bearer("the-token-of-all-1"), 3},
	}
	compare := func(when string) {
		t.Helper()
		for _, w := range who {
			may := 0
			for _, path := range []string{"GET /status", "DELETE /wanted", "POST /imports"} {
				method, path, _ := strings.Cut(path, " ")
				if status, _ := ask(w.c, method, path, "{", w.as); status != http.StatusUnauthorized && status != http.StatusForbidden {
					may++
				}
			}
			if may != w.may {
				t.Errorf("%s %q may do %d of three, want %d", when, w.name, may, w.may)
			}
		}
	}
	compare("at first")
	// So do commands: by a certificate that is named, or that a context names.
	t.Setenv("XDG_CONFIG_HOME", dir)
	named := []string{"--ca-file", in("ca.pem"), "--cert-file", in("deploy-7.pem"), "--key-file", in("deploy-7-key.pem")}
	server := "https" + strings.TrimPrefix(s.admin, "http")
	does(append([]string{"status", "--server", server}, named...)...)
	does(append([]string{"context", "add", "edge", server}, named...)...)
	does("status", "--context", "edge")
	does("pin", "alpine:1", "--context", "edge")
	if code, _, stderr := execute(t, nil, "status", "--server", server, "--ca-file", in("ca.pem"), "--key-file", in("deploy-7-key.pem")); code != 2 || !strings.Contains(stderr, "--key-file needs --cert-file") {
		t.Errorf("a key alone = %d %s", code, stderr)
	}
	if code, _, stderr := execute(t, nil, "status", "--server", server, "--ca-file", in("ca.pem"), "--cert-file", in("ca.pem")); code != 2 || !strings.Contains(stderr, "--cert-file") {
		t.Errorf("a certificate without its key = %d %s", code, stderr)
	}
	if status, _ := get(t, s.registry+"/v2/library/alpine/manifests/1"); status != http.StatusOK {
		t.Errorf("a client gets %d where clients are not told apart", status)
	}

	// A browser that logged in stays so until its user is gone.
	status, response := ask(nobody, "POST", "/session", `{"user": "bob", "password": "hunter2"}`, plain)
	var session struct{ Name, Role, Key string }
	if err := json.NewDecoder(response.Body).Decode(&session); err != nil || status != http.StatusOK || session.Name != "bob" || session.Role != "read" {
		t.Fatalf("login = %d %+v, %v", status, session, err)
	}
	browser := func(r *http.Request) {
		for _, c := range response.Cookies() {
			r.AddCookie(c)
		}
		r.Header.Set("Forebay-Session", session.Key)
	}
	if c := response.Cookies(); len(c) != 1 || !c[0].Secure || !c[0].HttpOnly {
		t.Errorf("the cookie is %v", c)
	}
	if status, _ := ask(nobody, "GET", "/status", "", browser); status != http.StatusOK {
		t.Errorf("by the cookie = %d", status)
	}
	passwords("alice")
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if status, _ := ask(nobody, "GET", "/session", "", password("bob")); status == http.StatusUnauthorized {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("who is gone is still known")
		}
	}
	yaml(`read: ["group:operators"], admin: [alice, "certificate:*"]`)
	hangUp(t, s, `"msg":"configuration read again"`)
	who[2].may, who[3].may, who[4].may = 0, 1, 3
	compare("after SIGHUP")
	if status, _ := ask(nobody, "GET", "/status", "", browser); status != http.StatusUnauthorized {
		t.Errorf("by the cookie of who is gone = %d", status)
	}

	text, err := os.ReadFile(in("audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hunter2") || strings.Contains(string(text), token) {
		t.Errorf("the audit log tells secrets: %s", text)
	}
	got := map[string]map[audit.Event]int{}
	for line := range strings.Lines(string(text)) {
		var l audit.Line
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l.Event == audit.Pull {
			continue
		}
		if got[l.Who] == nil {
			got[l.Who] = map[audit.Event]int{}
		}
		got[l.Who][l.Event]++
	}
	want := map[string]map[audit.Event]int{
		"":                     {audit.Refusal: 6 + 6 + 1 + 3 + 1}, // nobody, wrong, bob when he was gone, and his browser
		"bob":                  {audit.Action: 1, audit.Refusal: 2},
		"on-call":              {audit.Action: 1, audit.Refusal: 1 + 2},
		"certificate:deploy-7": {audit.Action: 4, audit.Refusal: 1},
		"alice":                {audit.Action: 4},
		"admin_token":          {audit.Action: 4},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit log (-want +got):\n%s", diff)
	}
}
