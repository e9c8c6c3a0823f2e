package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"forebay/internal/notify"
	"forebay/test/hubtest"
)

// TestTargetsAreToldOfAMovedReleaseTag: by a whole mirror, whose log has no secret of theirs.
func TestTargetsAreToldOfAMovedReleaseTag(t *testing.T) {
	told := make(chan string, 10)
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		told <- r.Header.Get("X-Hub-Signature-256") + r.Header.Get("X-Token") + string(body)
	}))
	t.Cleanup(target.Close)
	hub := hubtest.New(t, hubtest.Options{})
	first := hub.PushImage("acme/app", "1.2.3", hubtest.ImageSpec{Seed: 1})
	file := write(t, "forebay.yaml", fmt.Sprintf(`storage: {dir: %q}
upstreams: {docker.io: {endpoints: [%q], tag_ttl: 0s}}
notify:
  - name: ops
    url_file: %q
    secret_file: %q
    headers_file: %q
    images: ["acme/*:*"]
`, t.TempDir(), hub.RegistryURL(), write(t, "url", target.URL+"/s3cr3t-path\n"), write(t, "key", "s3cr3t-key-of-16-letters\n"), write(t, "headers", "X-Token=s3cr3t-header\n")))
	s := startFile(t, file)
	pull := func() {
		t.Helper()
		if status, body := get(t, s.registry+"/v2/acme/app/manifests/1.2.3"); status != 200 {
			t.Fatalf("manifest = %d %s", status, body)
		}
	}
	pull()
	second := hub.PushImage("acme/app", "1.2.3", hubtest.ImageSpec{Seed: 2})
	pull()
	select {
	case got := <-told:
		head, body, _ := strings.Cut(got, "{")
		var m notify.Message
		if err := json.Unmarshal([]byte("{"+body), &m); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(head, "sha256=") || !strings.HasSuffix(head, "s3cr3t-header") || m.Image != "docker.io/acme/app:1.2.3" || m.Was != first.Digest || m.Digest != second.Digest {
			t.Errorf("told %s", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nobody was told")
	}
	deadline := time.Now().Add(30 * time.Second)
	for metric := ""; !strings.Contains(metric, `forebay_notifications_total{result="sent",target="ops"} 1`); _, metric = get(t, s.admin+"/metrics") {
		if time.Now().After(deadline) {
			t.Fatalf("the metrics do not tell that it was sent:\n%s", metric)
		}
	}
	if code, out, stderr := execute(t, nil, "notify", "ops", "--config", file); code != 0 || out != "ops: took it\n" {
		t.Errorf("forebay notify ops = %d %q %q", code, out, stderr)
	}
	<-told // the sample
	// At SIGHUP what the files say now counts: the place, and the key that signs.
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		told <- "elsewhere " + r.URL.Path + " " + r.Header.Get("X-Hub-Signature-256") + " " + r.Header.Get("X-Token")
	}))
	t.Cleanup(elsewhere.Close)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	was := regexp.MustCompile(`url_file: "(.*)"`).FindSubmatch(text)
	if err := os.WriteFile(string(was[1]), []byte(elsewhere.URL+"/s3cr3t-other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, regexp.MustCompile(` *secret_file: .*\n`).ReplaceAll(text, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp(t, s, `"msg":"configuration read again"`)
	if log := s.stderr.String(); !strings.Contains(log, `"changed":["notify`) {
		t.Errorf("the log does not say that notify has changed:\n%s", log)
	}
	hub.PushImage("acme/app", "1.2.3", hubtest.ImageSpec{Seed: 3})
	pull()
	select {
	case got := <-told:
		if got != "elsewhere /s3cr3t-other  s3cr3t-header" {
			t.Errorf("after SIGHUP %q was told, want it elsewhere, unsigned", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nobody was told after SIGHUP")
	}
	if err := os.WriteFile(file, []byte(string(text)+"    events: [nosuch]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp(t, s, `"msg":"new configuration refused`)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s.stderr.String(), "s3cr3t") {
		t.Errorf("the log has a secret:\n%s", s.stderr)
	}
	if code, out, _ := execute(t, nil, "config", "print", "--config", file); code != 0 || strings.Contains(out, "s3cr3t-path") || strings.Contains(out, "s3cr3t-key") {
		t.Errorf("forebay config print = %d %s", code, out)
	}
}

func TestNotifyRefusesWhatCannotWork(t *testing.T) {
	for yaml, want := range map[string]string{
		"":                                       "the configuration has no notify",
		"notify: [{name: x, url: 'https://a/'}]": "name one of the targets: x",
		"notify: [{name: x}]":                    "notify[1]: needs url or url_file",
		"notify: [{name: x, url: 'a/s3cr3t'}]":   "is no URL to post to",
		"notify: [{name: x, url: 'https://a/', events: [nosuch]}]":            "forebay.yaml:1:10: notify[1]: events: there is no kind \"nosuch\"",
		"notify: [{name: x, url: 'https://a/', template: '{{.Nosuch}}'}]":     "can't evaluate field Nosuch",
		"notify: [{name: x, url: 'https://a/', secret: short}]":               "easily guessed",
		"notify: [{name: x, url: 'https://a/'}, {name: x, url: 'https://a'}]": "x is there twice",
	} {
		code, _, stderr := execute(t, nil, "notify", "--config", write(t, "forebay.yaml", yaml))
		if code != 2 || !strings.Contains(stderr, want) || strings.Contains(stderr, "s3cr3t") {
			t.Errorf("with %q: %d %q, want %q", yaml, code, stderr, want)
		}
	}
	if code, out, _ := execute(t, nil, "notify", "--kinds"); code != 0 || !strings.Contains(out, "release_moved *\n") || !strings.Contains(out, "evicted\n") {
		t.Errorf("forebay notify --kinds = %d %q", code, out)
	}
}
