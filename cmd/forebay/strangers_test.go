package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"forebay/config"
	"forebay/test/hubtest"
)

// tunnels is a proxy through which the hub has its public names.
func tunnels(t *testing.T, hub *hubtest.Hub) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		there, err := hub.DialContext(r.Context(), "tcp", r.Host)
		if r.Method != http.MethodConnect || err != nil {
			http.Error(w, "no such host", http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer here.Close()
		go func() {
			defer there.Close()
			_, _ = io.Copy(there, here) // ends with either connection
		}()
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// A registry that nobody configured is mirrored once a client names it, if its host is allowed,
// and goes on being so when it is cut off; all others are as unknown as before.
func TestRegistriesThatClientsName(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Named: true, Names: map[hubtest.Role]string{hubtest.RoleRegistry: "registry.team.example", hubtest.RoleAuth: "auth.team.example"}})
	img := hub.PushImage("team/app", "1", hubtest.ImageSpec{})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, hub.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf("admin_token: the-first-token-1\nstorage: {dir: %q}\nupstreams:\n  docker.io: {endpoints: [\"http://127.0.0.1:1\"]}\n  \"*\": {allow: [\"*.team.example\"], proxy: %q, ca_file: %q}\n",
		t.TempDir(), tunnels(t, hub), ca)
	file := write(t, "named.yaml", yaml)
	s := start(t, "", "--config", file)
	pulls := func() {
		t.Helper()
		for _, path := range []string{"/v2/team/app/manifests/1?ns=registry.team.example", "/v2/registry.team.example/team/app/manifests/1", "/registry.team.example/v2/team/app/manifests/1"} {
			if status, body := get(t, s.registry+path); status != 200 || body != string(img.Raw) {
				t.Errorf("%s = %d %s, want the manifest", path, status, body)
			}
		}
		for _, b := range img.Blobs() {
			if status, body := get(t, s.registry+"/v2/registry.team.example/team/app/blobs/"+b.Digest); status != 200 || hubtest.Digest([]byte(body)) != b.Digest {
				t.Errorf("blob = %d, %d bytes", status, len(body))
			}
		}
	}
	for _, path := range []string{"/v2/team/app/manifests/1?ns=registry.other.example", "/v2/registry.other.example/team/app/manifests/1", "/v2/team.example/app/manifests/1"} {
		if status, body := get(t, s.registry+path); status == 200 || !strings.Contains(body, "is not configured here") {
			t.Errorf("%s = %d %s, want that it is not configured", path, status, body)
		}
	}
	if n := hub.Requests(); n != 0 {
		t.Errorf("%d requests before an allowed registry was named", n)
	}
	pulls()
	if out, _ := (&operated{t: t, started: s}).runs(0, "ls", "registry.team.example/team/app", "--server", s.admin, "--token-file", write(t, "token", "the-first-token-1")); !strings.Contains(out, "team/app") {
		t.Errorf("ls says: %s", out)
	}
	// Settings of all of them are taken up while it runs, and a change of nothing waits for nothing.
	if err := os.WriteFile(file, []byte(strings.Replace(yaml, "allow:", "tag_ttl: 2h, allow:", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp(t, s, `"msg":"configuration read again"`)
	if log := s.stderr.String(); strings.Contains(log, "wait for the next start") || !strings.Contains(log, `"changed":["upstreams.*.tag_ttl"]`) {
		t.Errorf("log of the reload: %s", log)
	}
	hub.Close()
	pulls()
	// Those that are no longer allowed are as unknown as others.
	if err := os.WriteFile(file, []byte(strings.Replace(yaml, "*.team.example", "*.else.example", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp(t, s, `"msg":"configuration read again"`)
	if status, body := get(t, s.registry+"/v2/registry.team.example/team/app/manifests/1"); status == 200 {
		t.Errorf("manifest of a registry that is not allowed any more = %d %s", status, body)
	}
	s.stop()
	s = start(t, yaml) // after a start it is unknown until it is named, and served without its registry
	pulls()
}

// A name that leads inside is not contacted, whatever the patterns allow.
func TestClientsNameNothingInside(t *testing.T) {
	inside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	var asked atomic.Int64
	go func() {
		for {
			conn, err := inside.Accept()
			if err != nil {
				return // closed
			}
			asked.Add(1)
			conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(inside.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [\"http://127.0.0.1:1\"]}, \"*\": {allow: [\"*\", \"*:*\"]}}\n", t.TempDir()))
	for _, host := range []string{"127.0.0.1:" + port, "localhost:" + port, "0x7f000001:" + port, "[::1]:" + port, "169.254.169.254:80"} {
		if status, body := get(t, s.registry+"/v2/team/app/manifests/1?ns="+host); status == 200 || asked.Load() > 0 {
			t.Errorf("ns=%s = %d %s, %d requests inside", host, status, body, asked.Load())
		}
	}
}

// Whoever makes up names takes the place of whoever else did, and no more.
func TestRegistriesThatClientsNameAreBounded(t *testing.T) {
	c := &config.Config{Others: &config.Upstream{Allow: []string{"*.example"}}}
	for i := range 3 * strangersMost {
		u, ok := stranger(c, fmt.Sprintf("r%d.example", i))
		if !ok {
			t.Fatal("not allowed")
		}
		c = with(c, u)
	}
	if n := len(c.Upstreams); n != strangersMost || c.Upstreams[n-1].Name != fmt.Sprintf("r%d.example", 3*strangersMost-1) {
		b, _ := json.Marshal(c.Upstreams[len(c.Upstreams)-1].Name)
		t.Errorf("%d registries, the last being %s; want %d and the last that was named", n, b, strangersMost)
	}
}
