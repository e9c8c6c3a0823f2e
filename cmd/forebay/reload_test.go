package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/config"
	"forebay/test/hubtest"
)

// hangUp sends SIGHUP to the test's process and waits until the mirror said what came of it.
func hangUp(t *testing.T, s *started, said string) {
	t.Helper()
	before := strings.Count(s.stderr.String(), said)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for strings.Count(s.stderr.String(), said) == before {
		if time.Now().After(deadline) {
			t.Fatalf("it does not say %q after SIGHUP:\n%s", said, s.stderr)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestHangUpTakesUpWhatCanBeTakenUp(t *testing.T) {
	before, after := hubtest.New(t, hubtest.Options{}), hubtest.New(t, hubtest.Options{})
	image := before.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	moved := after.PushImage("library/alpine", "2", hubtest.ImageSpec{})
	other := after.PushImage("owner/app", "1", hubtest.ImageSpec{})
	dir := t.TempDir()
	yaml := func(hub *hubtest.Hub, token, rest string) string {
		return fmt.Sprintf("admin_token: %s\nstorage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q]}, ghcr.io: {endpoints: [%q]}}\n%s", token, dir, hub.RegistryURL(), after.RegistryURL(), rest)
	}
	file := write(t, "reloaded.yaml", yaml(before, "the-first-token-1", ""))
	s := start(t, "", "--config", file)
	ask := func(token string) int {
		status, _ := get(t, s.admin+"/api/v1/status", "Authorization", "Bearer "+token)
		return status
	}

	// A transfer begins, and goes on after everything that it depends on has changed.
	release := make(chan struct{})
	rule := before.AddRule(hubtest.Rule{Method: "GET", Route: hubtest.RouteBlob, Do: hubtest.Block(release)})
	if status, _ := get(t, s.registry+"/v2/library/alpine/manifests/1"); status != 200 {
		t.Fatalf("manifest = %d", status)
	}
	layer := image.Blobs()[1].Digest
	got := make(chan string, 1)
	go func() {
		response, err := http.Get(s.registry + "/v2/library/alpine/blobs/" + layer)
		if err != nil {
			got <- err.Error()
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- hubtest.Digest(body)
	}()
	before.WaitFor(t, 30*time.Second, "the transfer begins", func() bool { return rule.Fired() > 0 })

	if err := os.WriteFile(file, []byte(yaml(after, "the-second-token-2", "hosts: {ghcr.lan: ghcr.io}\nlog: {level: debug}\nshutdown_grace: 7s\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp(t, s, `"msg":"configuration read again"`)
	for _, want := range []string{
		`"changed":["admin_token","hosts","log.level","upstreams.docker.io.endpoints"],"at-next-start":["shutdown_grace"]`,
		`"msg":"changes wait for the next start","keys":["shutdown_grace"]`,
	} {
		if !strings.Contains(s.stderr.String(), want) {
			t.Errorf("log lacks %s:\n%s", want, s.stderr)
		}
	}
	if one, two := ask("the-first-token-1"), ask("the-second-token-2"); one != 401 || two != 200 {
		t.Errorf("the first token gets %d and the second %d, want 401 and 200", one, two)
	}
	if status, body := get(t, s.registry+"/v2/library/alpine/manifests/2"); status != 200 || body != string(moved.Raw) {
		t.Errorf("manifest of the new endpoint = %d %s", status, body)
	}
	if status, body := get(t, s.registry+"/v2/owner/app/manifests/1", "Host", "ghcr.lan"); status != 200 || body != string(other.Raw) {
		t.Errorf("manifest by the new name = %d %s", status, body)
	}
	if code, _, stderr := execute(t, []string{"FOREBAY_ADMIN_TOKEN=the-second-token-2"}, "pin", "ghcr.lan/owner/app:1", "--server", s.admin); code != 0 {
		t.Errorf("pin by the new name = %d %s", code, stderr)
	}
	close(release)
	if digest := <-got; digest != layer {
		t.Errorf("the transfer that went on ended with %s, want %s", digest, layer)
	}
	_, metrics := get(t, s.admin+"/metrics")
	for _, want := range []string{
		`forebay_events_total{kind="config_reloaded"} 1`,
		`forebay_upstream_requests_total{kind="manifest",outcome="ok",upstream="docker.io"} 2`, // both clients' together
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestHangUpWithFaultsChangesNothing(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	image := hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	yaml := fmt.Sprintf("admin_token: the-first-token-1\nstorage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q]}}\n", t.TempDir(), hub.RegistryURL())
	file := write(t, "reloaded.yaml", yaml)
	s := start(t, "", "--config", file)
	for i, wrong := range []string{
		strings.Replace(yaml, "the-first", "the-other", 1) + "log: {level: chatty}\n",
		"upstreams: {docker.io: {ca_file: /nonexistent}}\n",
		"::: no YAML",
	} {
		if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
			t.Fatal(err)
		}
		hangUp(t, s, `"msg":"new configuration refused, the old one is kept"`)
		if status, _ := get(t, s.admin+"/api/v1/status", "Authorization", "Bearer the-first-token-1"); status != 200 {
			t.Errorf("the old token gets %d after %q, want 200", status, wrong)
		}
		if _, metrics := get(t, s.admin+"/metrics"); !strings.Contains(metrics, fmt.Sprintf(`forebay_events_total{kind="config_refused"} %d`, i+1)) {
			t.Errorf("metrics do not count the refusal of %q", wrong)
		}
	}
	if status, body := get(t, s.registry+"/v2/library/alpine/manifests/1"); status != 200 || body != string(image.Raw) {
		t.Errorf("manifest = %d %s, want that of the old configuration", status, body)
	}
	_, events := get(t, s.admin+"/api/v1/events", "Authorization", "Bearer the-first-token-1")
	if !strings.Contains(events, "config_refused") || !strings.Contains(events, "chatty") {
		t.Errorf("events lack what was refused and why: %s", events)
	}
}

// What the documents call live is what is taken up, and the other way round.
func TestTakenUpIsWhatIsLive(t *testing.T) {
	load := func(yaml string) *config.Config {
		t.Helper()
		c, err := config.Load(config.Sources{File: write(t, "c.yaml", yaml), Env: []string{"HOME=/h"}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	was := load("admin_token: the-first-token-1\nupstreams: {docker.io: , gone.example: }\n")
	next := load(`
listen: :1
admin_listen: 127.0.0.1:2
admin_token: the-second-token-2
admin_pprof: true
http2: true
shutdown_grace: 1s
storage: {dir: /x, index_dir: /y, max_size: 1GiB, min_free: 1GiB, max_age: 1d}
pins: [nginx:1]
scrub: {interval: 1d}
hosts: {a.lan: docker.io}
trusted_networks: [10.0.0.0/8]
catalog: "on"
fallback: none
on_abandon: cancel
revalidate_timeout: 1s
negative_ttl: 1s
offline: true
log: {level: warn, format: console, access: false}
tracing: {endpoint: 'http://127.0.0.1:1', headers: a=b, ratio: 1%}
webhooks: {on_listen: true, secret: abcdefghijklmnopqrstuvwxyz}
limits: {new_per_minute: 1, pulls: 1, fills: 1, bytes_per_second: 1MiB}
cost: {per_gib: 1, currency: X}
signers: [{name: acme, notation: /z}]
policies: [{name: prod, signed_by: [acme]}]
notify: [{name: chat, url: 'https://chat.example/'}]
upstreams:
  new.example:
  docker.io:
    endpoints: [https://one.example.com]
    aliases: [b.lan]
    username: u
    password: p
    tag_rules: [a=1s]
    tag_ttl: 1s
    trust: x
`)
	taken := takenUp(was, next)
	for _, key := range was.Differing(taken) {
		if !config.Live(key) {
			t.Errorf("%s is taken up, and not live", key)
		}
	}
	later := taken.Differing(next)
	for _, key := range later {
		if config.Live(key) && !strings.HasPrefix(key, "upstreams.new.example.") && !strings.HasPrefix(key, "upstreams.gone.example.") && key != "upstreams.docker.io.offline" {
			t.Errorf("%s is live, and waits for the next start", key)
		}
	}
	if !slices.Contains(later, "upstreams") || !slices.Contains(later, "listen") || slices.Contains(later, "upstreams.docker.io.password") {
		t.Errorf("what waits is %q, want the set of upstreams and listen among it, and no password", later)
	}
	if diff := cmp.Diff([]string(nil), taken.Differing(takenUp(taken, taken))); diff != "" {
		t.Errorf("what is the same differs: %s", diff)
	}
}

func TestStartTellsOfADockerConfigForOtherRegistries(t *testing.T) {
	logins := write(t, "config.json", `{"auths":{"quay.io":{"username":"u","password":"hunter2"}}}`)
	yaml := fmt.Sprintf("storage: {dir: %q}\nupstreams: {ghcr.io: {docker_config: %q}, quay.io: {docker_config: %[2]q}}\n", t.TempDir(), logins)
	s := start(t, yaml)
	deadline := time.Now().Add(30 * time.Second)
	const said = `"msg":"docker_config has no credentials for its registry","upstream":"ghcr.io"`
	for !strings.Contains(s.stderr.String(), said) {
		if time.Now().After(deadline) {
			t.Fatalf("log lacks %s:\n%s", said, s.stderr)
		}
		<-time.After(5 * time.Millisecond)
	}
	if log := s.stderr.String(); strings.Count(log, "docker_config has no") != 1 || strings.Contains(log, "hunter2") {
		t.Errorf("told of the wrong registry, or of a password:\n%s", log)
	}
}

// Rules of access, and how clients prove who they are, are taken up at once; what is wrong with them
// changes nothing.
func TestHangUpTakesUpWhoMayPullWhat(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
	hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	dir := t.TempDir()
	yaml := func(rest string) string {
		return fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q]}}\n%s", dir, hub.RegistryURL(), rest)
	}
	file := write(t, "reloaded.yaml", yaml(""))
	s := start(t, "", "--config", file)
	manifest := func() int {
		status, _ := get(t, s.registry+"/v2/library/alpine/manifests/1")
		return status
	}
	if got := manifest(); got != http.StatusOK {
		t.Fatalf("manifest = %d before anything is said of access", got)
	}
	for _, step := range []struct {
		rest, said string
		want       int
	}{
		{"access: [{deny: true}]\n", `"msg":"configuration read again"`, http.StatusNotFound},
		{"auth: {htpasswd_file: /nowhere/htpasswd}\n", `"msg":"new configuration refused, the old one is kept"`, http.StatusNotFound},
		{"auth: {networks: {here: 127.0.0.0/8}}\naccess: [{who: ['network:here']}, {deny: true}]\n", `"msg":"configuration read again"`, http.StatusOK},
		{"auth: {networks: {here: 192.0.2.0/24}}\nauthentication: required\n", `"msg":"configuration read again"`, http.StatusUnauthorized},
		{"", `"msg":"configuration read again"`, http.StatusOK},
	} {
		if err := os.WriteFile(file, []byte(yaml(step.rest)), 0o600); err != nil {
			t.Fatal(err)
		}
		hangUp(t, s, step.said)
		if got := manifest(); got != step.want {
			t.Errorf("with %q manifest = %d, want %d", step.rest, got, step.want)
		}
	}
}
