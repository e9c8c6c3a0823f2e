package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// What is sent to a stranger has all that helps, and none of the secrets that this world has:
// those of the configuration, those that registries hand out, and the mirror's own.
func TestSupportBundleHelpsAndGivesNothingAway(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
	secrets := map[string]string{}
	secret := func(what string) string {
		secrets[what] = "s3cret-of-" + what + "-0123456789"
		return secrets[what]
	}
	hub.AddUser(hubtest.User{Name: "robot", Secrets: []string{secret("hub")}, Plan: hubtest.Unlimited()})
	image := hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	dir := t.TempDir()
	yaml := fmt.Sprintf(`storage: {dir: %q}
log: {level: debug}
admin_token: %s
webhooks: {secret: %s}
tracing: {endpoint: "http://127.0.0.1:1", headers: "x-key=%s"}
upstreams:
  docker.io:
    endpoints: [%q, {url: "http://127.0.0.1:1", username: u, password: %s}]
    username: robot
    trusted_realms: [%q]
    password: %s
    fallback_credentials: [{username: other, password: %s}]
  ghcr.io: {proxy: "http://127.0.0.1:1", proxy_username: p, proxy_password: %s}
`, filepath.Join(dir, "storage"), secret("admin"), secret("webhook"), secret("collector"), hub.RegistryURL(), secret("stand-in"),
		strings.TrimPrefix(hub.URL(hubtest.RoleAuth), "http://"), secrets["hub"], secret("fallback"), secret("proxy"))
	s := start(t, yaml)
	for _, what := range []string{"manifests/1", "blobs/" + image.Blobs()[0].Digest, "manifests/nothing"} {
		get(t, s.registry+"/v2/library/app/"+what)
	}
	get(t, s.registry+"/v2/library/other/manifests/1?ns=ghcr.io")
	get(t, s.admin+"/api/v1/status", "Authorization", "Bearer "+secrets["admin"]+"x") // refused, and logged

	bundle := filepath.Join(dir, "bundle.tar.gz")
	code, stdout, stderr := execute(t, []string{"FOREBAY_ADMIN_TOKEN=" + secrets["admin"]}, "support-bundle", "--server", s.admin, "-o", bundle)
	if code != 0 || strings.TrimSpace(stdout) != bundle {
		t.Fatalf("support-bundle = %d: %s%s", code, stdout, stderr)
	}
	files := unpackSupport(t, bundle)
	for name, want := range map[string]string{
		"version.txt": "forebay ", "config.yaml": "username: robot", "metrics.txt": "forebay_requests_total", "goroutines.txt": "goroutine profile:",
		"log.jsonl": `"msg":"starting"`, "status.json": `"upstreams"`, "stats.json": `"blobs"`, "events.json": `"events"`, "jobs.json": `"jobs"`, "clients.json": `"clients"`,
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s has no %s:\n%.2000s", name, want, files[name])
		}
	}
	for line := range strings.Lines(files["log.jsonl"]) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no line of JSON: %s", line)
		}
	}
	secrets["user and password"] = base64.StdEncoding.EncodeToString([]byte("robot:" + secrets["hub"]))
	secrets["token"], secrets["signature"], secrets["scheme"] = "eyJ", "Signature=", "Bearer "
	for name, text := range files {
		for what, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s has the secret of %s: %q", name, what, text[max(0, i-80):min(len(text), i+len(secret))])
			}
		}
	}
	if info, err := os.Stat(bundle); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the bundle is %v, %v; want it for its owner alone", info, err)
	}
	if code, _, _ := execute(t, []string{"FOREBAY_ADMIN_TOKEN=" + secrets["admin"]}, "support-bundle", "--server", s.admin, "-o", bundle); code != 1 {
		t.Errorf("a bundle that is there is replaced: %d", code)
	}
	_, stdout, stderr = execute(t, []string{"FOREBAY_ADMIN_TOKEN=" + secrets["admin"]}, "support-bundle", "--server", s.admin, "-o", "-")
	piped := filepath.Join(dir, "piped.tar.gz")
	if err := os.WriteFile(piped, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := unpackSupport(t, piped); len(got) != len(files) {
		t.Errorf("standard output has %d files, want %d: %s", len(got), len(files), stderr)
	}
	if code, _, _ := execute(t, nil, "support-bundle", "--server", s.admin, "-o", bundle+"2"); code == 0 {
		t.Error("somebody without the token gets a bundle")
	}
}

// unpackSupport returns the files of a bundle by name.
func unpackSupport(t *testing.T, name string) map[string]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[path.Base(h.Name)] = string(text)
	}
}

func TestLogRemembersItsLatestLinesInOrder(t *testing.T) {
	lines := &lastLines{}
	for i := range linesMost + 3 {
		fmt.Fprintf(lines, "%d\n", i)
	}
	all := lines.all()
	if len(all) != linesMost || all[0] != "3" || all[linesMost-1] != fmt.Sprint(linesMost+2) {
		t.Errorf("%d lines from %q to %q", len(all), all[0], all[len(all)-1])
	}
}
