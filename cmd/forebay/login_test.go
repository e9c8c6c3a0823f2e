package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// A mirror without an account gives what is private to whom its registry lets have it, and to nobody
// else, before and after it has been told to by its configuration.
func TestServeAsksWhatClientsMayHave(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.AddUser(hubtest.User{Name: "alice", Secrets: []string{"alice secret"}, Repos: []string{"acme/app"}})
	hub.AddUser(hubtest.User{Name: "bob", Secrets: []string{"bob secret"}})
	hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
	hub.PushImage("acme/app", "1", hubtest.ImageSpec{})
	hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	realm := strings.TrimPrefix(hub.URL(hubtest.RoleAuth), "http://")
	s := start(t, fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q], trusted_realms: [%q], access: upstream, pass_through: true}}\n", t.TempDir(), hub.RegistryURL(), realm))
	line := func(user string) []string {
		return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+user+" secret"))}
	}
	for _, row := range []struct {
		path string
		who  []string
		want int
	}{
		{"/v2/acme/app/manifests/1", nil, http.StatusUnauthorized},
		{"/v2/acme/app/manifests/1", line("bob"), http.StatusNotFound},
		{"/v2/acme/app/manifests/1", line("alice"), http.StatusOK},
		{"/v2/acme/app/manifests/1", line("bob"), http.StatusNotFound},
		{"/v2/acme/app/manifests/1", nil, http.StatusUnauthorized},
		{"/v2/library/alpine/manifests/1", nil, http.StatusOK},
		{"/v2/", line("alice"), http.StatusOK},
	} {
		if status, body := get(t, s.registry+row.path, row.who...); status != row.want {
			t.Errorf("%s of %v: status %d (%s), want %d", row.path, row.who, status, body, row.want)
		}
	}
	if code, out, _ := execute(t, []string{"FOREBAY_UPSTREAMS_DOCKER_IO_ACCESS=upstream"}, "access", "explain", "nobody", "acme/app:1"); code != 0 || !strings.HasPrefix(out, "asked: nobody, docker.io/acme/app") {
		t.Errorf("access explain = %d, %s", code, out)
	}
	s.stop()
	if log := s.stderr.String(); strings.Contains(log, "secret") || strings.Contains(log, line("alice")[1][len("Basic "):]) {
		t.Errorf("a login was logged:\n%s", log)
	}
}

// Whoever names a registry does not make the mirror forget what others may have.
func TestRegistriesThatClientsNameLeaveRights(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.AddUser(hubtest.User{Name: "alice", Secrets: []string{"alice secret"}, Repos: []string{"acme/app"}})
	hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
	hub.PushImage("acme/app", "1", hubtest.ImageSpec{})
	realm := strings.TrimPrefix(hub.URL(hubtest.RoleAuth), "http://")
	s := start(t, fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q], trusted_realms: [%q], access: upstream, pass_through: true, tag_ttl: 1h}, \"*\": {allow: [\"*.example\"], proxy: \"http://127.0.0.1:1\"}}\n",
		t.TempDir(), hub.RegistryURL(), realm))
	pull := func() {
		t.Helper()
		if status, body := get(t, s.registry+"/v2/acme/app/manifests/1", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("alice:alice secret"))); status != http.StatusOK {
			t.Fatalf("pull = %d %s", status, body)
		}
	}
	pull()
	pull()
	asked := hub.Requests()
	get(t, s.registry+"/v2/app/manifests/1?ns=registry.example")
	if log := s.stderr.String(); !strings.Contains(log, "registry that a client named is mirrored from now on") {
		t.Fatalf("the registry was not taken up:\n%s", log)
	}
	pull()
	if n := hub.Requests() - asked; n != 0 {
		t.Errorf("%d requests prove a right that was proven", n)
	}
}
