package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	for _, args := range [][]string{{"client-config", "kaniko", "--install", "--root", root}, {"client-config", "dockerd", "--watch"}, {"client-config", "docker"}} {
		if code, out, _ := execute(t, nil, args...); code == 0 {
			t.Errorf("%v = 0, %s", args, out)
		}
	}
	if code, out, _ := execute(t, nil, "client-config", "kaniko", "--url", "http://m:5000"); code != 0 || !strings.Contains(out, "--registry-map=ghcr.io=m:5000/ghcr.io") {
		t.Errorf("client-config kaniko = %d, %s", code, out)
	}
}
