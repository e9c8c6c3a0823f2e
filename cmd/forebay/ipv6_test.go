package main

import (
	"fmt"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// A site that has IPv6 only: the registry with its token server and its storage, both listeners, the
// commands and the names of the mirror and of a registry are all at ::1, and nothing is anywhere else.
func TestIPv6Only(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{IPv6: true})
	image := hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	hub.PushImage("team/app", "1", hubtest.ImageSpec{})
	realm := strings.TrimPrefix(hub.URL(hubtest.RoleAuth), "http://")
	own := hub.RegistryHost()
	dir := t.TempDir()
	yaml := fmt.Sprintf(`
storage: {dir: %q}
trusted_networks: ["::1"]
hosts: {"::1": %q}
upstreams:
  docker.io: {endpoints: [%q], trusted_realms: [%q], address_family: ipv6}
  %[2]q: {endpoints: [%[3]q], trusted_realms: [%[4]q]}
`, dir, own, hub.RegistryURL(), realm)
	s := start(t, yaml, "--listen", "[::1]:0", "--admin-listen", "[::1]:0")
	if !strings.HasPrefix(s.registry, "http://[::1]:") || !strings.HasPrefix(s.admin, "http://[::1]:") {
		t.Fatalf("it listens at %s and %s", s.registry, s.admin)
	}
	if status, body := get(t, s.registry+"/v2/docker.io/library/alpine/manifests/latest"); status != 200 || body != string(image.Raw) {
		t.Fatalf("manifest = %d %s, want the bytes of the hub", status, body)
	}
	for _, blob := range image.Blobs() { // by way of the storage that the hub redirects to
		status, body := get(t, s.registry+"/v2/library/alpine/blobs/"+blob.Digest+"?ns=docker.io")
		if status != 200 || hubtest.Digest([]byte(body)) != blob.Digest {
			t.Errorf("blob %s = %d and %d bytes of another digest", blob.Digest, status, len(body))
		}
	}
	// A registry that has an address for its name, named in each of the ways that there are.
	for name, url := range map[string]string{
		"ns":            "/v2/team/app/manifests/1?ns=" + own,
		"path":          "/v2/" + own + "/team/app/manifests/1",
		"path, escaped": "/v2/" + strings.NewReplacer("[", "%5B", "]", "%5D").Replace(own) + "/team/app/manifests/1",
		"host":          "/v2/team/app/manifests/1",
	} {
		if status, body := get(t, s.registry+url); status != 200 {
			t.Errorf("by %s: manifest = %d %s", name, status, body)
		}
	}
	if status, body := get(t, s.admin+"/readyz"); status != 200 {
		t.Errorf("/readyz = %d %s", status, body)
	}
	if _, body := get(t, s.admin+"/metrics"); !strings.Contains(body, `forebay_upstream_requests_total{kind="manifest",outcome="ok",upstream="`+own+`"}`) {
		t.Error("/metrics lacks the requests to a registry with an address for its name")
	}
	for _, args := range [][]string{
		{"healthcheck", "--ready", "--admin-listen", strings.TrimPrefix(s.admin, "http://")},
		{"prefetch", own + "/team/app:1", "--server", s.admin},
		{"prefetch", "[0::1]/team/app:1", "--server", strings.TrimPrefix(s.admin, "http://")},
		{"pin", own + "/team/app:1", "--server", s.admin},
		{"export", own + "/team/app:1", "--output", dir + "/../app.tar", "--server", s.admin},
		{"import", dir + "/../app.tar", "--server", s.admin},
		{"ls", "--server", s.admin},
	} {
		if code, stdout, stderr := execute(t, nil, args...); code != 0 {
			t.Errorf("%s = %d %s%s", strings.Join(args, " "), code, stdout, stderr)
		}
	}
	if code := s.stop(); code != 0 {
		t.Errorf("serve ended with %d, want 0:\n%s", code, s.stderr)
	}
	hub.SwitchOff()
	again := start(t, yaml, "--listen", "[::1]:0", "--admin-listen", "[::1]:0")
	if status, body := get(t, again.registry+"/v2/"+own+"/team/app/manifests/1"); status != 200 {
		t.Errorf("after a restart, without the hub: %d %s", status, body)
	}
}
