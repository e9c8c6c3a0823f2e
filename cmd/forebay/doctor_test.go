package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forebay/config"
	"forebay/test/hubtest"
)

// A machine that client-config has set up is well, by the word of a mirror that runs; and it is said
// when it is not.
func TestDoctorOfAMachine(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.PushImage("library/busybox", "latest", hubtest.ImageSpec{})
	s := start(t, "storage: {dir: "+t.TempDir()+"}\nupstreams: {docker.io: {endpoints: ['"+hub.RegistryURL()+"']}}\n")
	root := t.TempDir()
	if code, out, stderr := execute(t, nil, "client-config", "dockerd", "--url", s.registry, "--root", root, "--install"); code != 0 || !strings.Contains(out, "/etc/docker/daemon.json") || !strings.Contains(out, "systemctl reload docker") {
		t.Fatalf("client-config = %d, %s%s", code, out, stderr)
	}
	if code, out, stderr := execute(t, nil, "doctor", "--root", root, "--url", s.registry); code != 0 || !strings.Contains(out, "dockerd") || !strings.Contains(out, s.registry) {
		t.Errorf("doctor = %d, %s%s", code, out, stderr)
	}
	if n := hub.Count(hubtest.Query{Route: hubtest.RouteManifest}); n == 0 {
		t.Error("nothing was pulled")
	}
	s.stop()
	code, out, stderr := execute(t, nil, "doctor", "--root", root, "--json")
	var r struct {
		Findings []struct{ Where, Wrong, Do string }
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 1 || len(r.Findings) != 1 || r.Findings[0].Where != s.registry || !strings.Contains(stderr, "one thing is wrong") {
		t.Errorf("doctor without a mirror = %d, %s%s, %v", code, out, stderr, err)
	}
	if code, _, _ := execute(t, nil, "client-config", "dockerd", "--url", s.registry, "--root", root, "--remove"); code != 0 {
		t.Errorf("client-config --remove = %d", code)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/docker/daemon.json")); !os.IsNotExist(err) {
		t.Errorf("what was written is left: %v", err)
	}
	if code, out, _ := execute(t, nil, "client-config", "dockerd", "--url", s.registry, "--root", root, "--remove"); code != 0 || !strings.Contains(out, "is in none of these files") {
		t.Errorf("client-config --remove of what is not there = %d, %s", code, out)
	}
	for _, args := range [][]string{{"client-config", "kaniko", "--install", "--root", root}, {"client-config", "dockerd", "--watch"}, {"client-config", "docker"}} {
		if code, out, _ := execute(t, nil, args...); code == 0 {
			t.Errorf("%v = 0, %s", args, out)
		}
	}
	if code, out, _ := execute(t, nil, "client-config", "kaniko", "--url", "http://m:5000"); code != 0 || !strings.Contains(out, "--registry-map=ghcr.io=m:5000/m:5000/ghcr.io") {
		t.Errorf("client-config kaniko = %d, %s", code, out)
	}
}

// Each thing that a mirror needs and has not got is told, with what to do; the credentials are tried
// by what is no pull, and stand in nothing that is printed.
func TestDoctorOfAMirror(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.PushImage("library/busybox", "latest", hubtest.ImageSpec{})
	hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"right secret"}})
	realm := strings.TrimPrefix(hub.URL(hubtest.RoleAuth), "http://")
	for name, tt := range map[string]struct{ rest, want string }{
		"all is well":                        {"upstreams: {docker.io: {endpoints: ['HUB'], username: acme, password: right secret, trusted_realms: [REALM]}}", ""},
		"a wrong password":                   {"upstreams: {docker.io: {endpoints: ['HUB'], username: acme, password: wrong secret, trusted_realms: [REALM]}}", "upstreams.docker.io"},
		"a token server that is not trusted": {"upstreams: {docker.io: {endpoints: ['HUB'], username: acme, password: right secret}}", "trusted_realms"},
		"nobody there":                       {"upstreams: {docker.io: {endpoints: ['http://127.0.0.1:1']}}", "refuses connections"},
		"no folder":                          {"upstreams: {docker.io: {endpoints: ['HUB']}}\nstorage: {dir: /proc/none}", "takes no files"},
		"no room":                            {"upstreams: {docker.io: {endpoints: ['HUB']}}\nstorage: {dir: DIR, min_free: 900PiB}", "are to be left free"},
		"no bucket":                          {"upstreams: {docker.io: {endpoints: ['HUB']}}\nstorage: {dir: DIR, s3: {bucket: bucket-of-ours, region: r, endpoint: 'http://127.0.0.1:1', access_key_id: a, secret_access_key: the secret}}", "storage.s3"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(tt.rest, "storage:") {
				tt.rest += "\nstorage: {dir: DIR}"
			}
			file := write(t, "forebay.yaml", "admin_listen: 127.0.0.1:1\n"+strings.NewReplacer("HUB", hub.RegistryURL(), "REALM", realm, "DIR", t.TempDir()).Replace(tt.rest))
			before := hub.Count(hubtest.Query{Route: hubtest.RouteManifest, Method: "GET"})
			code, out, stderr := execute(t, nil, "doctor", "mirror", "--config", file)
			if (code == 0) != (tt.want == "") || !strings.Contains(out, tt.want) || strings.Contains(out+stderr, "secret") {
				t.Errorf("doctor mirror = %d, want %q\n%s%s", code, tt.want, out, stderr)
			}
			if n := hub.Count(hubtest.Query{Route: hubtest.RouteManifest, Method: "GET"}) - before; n != 0 {
				t.Errorf("it cost %d pulls", n)
			}
		})
	}
	// A clock that is wrong by an hour, and a mirror that runs and tells its own troubles.
	late := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusNotFound)
	}))
	defer late.Close()
	file := write(t, "forebay.yaml", "storage: {dir: "+t.TempDir()+"}\nupstreams: {quay.io: {endpoints: ['"+late.URL+"']}}")
	if code, out, _ := execute(t, nil, "doctor", "mirror", "--config", file); code != 1 || !strings.Contains(out, "off that of quay.io") {
		t.Errorf("a wrong clock: %d, %s", code, out)
	}
	status := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"troubles":[{"what":"the disk is full","cause":"no space","do":"make room"}],"upstreams":[{"name":"docker.io","budgets":[{"credential":"anonymous","host":"registry-1.docker.io","elsewhere":17}]}]}`)
	}))
	defer status.Close()
	file = write(t, "forebay.yaml", "storage: {dir: "+t.TempDir()+"}\nupstreams: {docker.io: {endpoints: ['"+hub.RegistryURL()+"']}}")
	code, out, stderr := execute(t, []string{"FOREBAY_ADMIN_TOKEN=a-token-of-the-test"}, "doctor", "mirror", "--config", file, "--server", status.URL)
	for _, want := range []string{"the disk is full: no space", "17 pulls of anonymous were spent past the mirror"} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("of a mirror that runs it does not tell %q: %d, %s%s", want, code, out, stderr)
		}
	}
}

func TestDoctorFindsNamesWithoutAnAddress(t *testing.T) {
	l := &mirrorLook{lookup: func(context.Context, string) ([]string, error) { return nil, errors.New("no such host") }}
	u := &config.Upstream{Name: "quay.io", Endpoints: []config.Endpoint{{URL: "https://quay.io"}}}
	if l.registry(t.Context(), u); len(l.Findings) != 1 || !strings.Contains(l.Findings[0].Wrong, "the name quay.io has no address") {
		t.Errorf("it finds %+v", l.Findings)
	}
	if u.Proxy = "http://proxy.lan:3128"; !l.named(t.Context(), u) {
		t.Error("a name is looked for that the proxy looks for")
	}
}
