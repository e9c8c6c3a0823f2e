package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// askHub runs a command below "forebay hub" against a hub, with credentials for docker.io
// if user is not "".
func askHub(t *testing.T, hub *hubtest.Hub, user, password string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	login := ""
	if user != "" {
		login = fmt.Sprintf(", username: %s, password: %s, trusted_realms: ['%s']", user, password, strings.TrimPrefix(hub.URL(hubtest.RoleAuth), "http://"))
	}
	file := write(t, "forebay.yaml", fmt.Sprintf("upstreams: {docker.io: {endpoints: ['%s']%s}}", hub.RegistryURL(), login))
	args = append(append([]string{"hub"}, args...), "--config", file, "--api-url", hub.URL(hubtest.RoleHubAPI))
	code, stdout, stderr = execute(t, nil, args...)
	if password != "" && strings.Contains(stdout+stderr, password) {
		t.Errorf("forebay %q shows the password:\n%s%s", args, stdout, stderr)
	}
	return code, stdout, stderr
}

func TestHubTagsListsTheLatestChangeFirst(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.PushImage("library/app", "old", hubtest.ImageSpec{})
	hub.Advance(time.Hour)
	hub.PushImage("library/app", "new", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64/v8"}})

	code, stdout, stderr := askHub(t, hub, "", "", "tags", "app")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != 0 || len(lines) != 3 || !strings.HasPrefix(lines[0], "TAG ") || !strings.HasPrefix(lines[1], "new ") || !strings.HasPrefix(lines[2], "old ") {
		t.Fatalf("hub tags = %d\n%s%s", code, stdout, stderr)
	}
	if !strings.Contains(lines[1], "linux/amd64 linux/arm64/v8") || !strings.Contains(lines[1], strings.TrimPrefix(hub.Tag("library/app", "new"), "sha256:")) {
		t.Errorf("line of the tag new = %s", lines[1])
	}
	if code, stdout, _ := askHub(t, hub, "", "", "tags", "docker.io/library/app:new"); code != 0 || strings.Count(stdout, "\n") != 4 {
		t.Errorf("hub tags of one tag = %d\n%s", code, stdout)
	}
	if _, stdout, _ := askHub(t, hub, "", "", "tags", "app", "--most", "1"); strings.Count(stdout, "\n") != 2 {
		t.Errorf("hub tags --most 1:\n%s", stdout)
	}

	_, stdout, _ = askHub(t, hub, "", "", "tags", "app", "--json")
	var docs []struct {
		Name        string
		Digest      string
		LastUpdated time.Time `json:"last_updated"`
		Images      []struct{ Platform, Digest string }
	}
	if err := json.Unmarshal([]byte(stdout), &docs); err != nil || len(docs) != 2 {
		t.Fatalf("hub tags --json: %v\n%s", err, stdout)
	}
	if d := docs[0]; d.Name != "new" || d.Digest != hub.Tag("library/app", "new") || d.LastUpdated.IsZero() || len(d.Images) != 2 || d.Images[1].Platform != "linux/arm64/v8" {
		t.Errorf("first tag = %+v", d)
	}
	if n := hub.ChargedTotal(); n != 0 {
		t.Errorf("hub tags cost %d pulls, want none", n)
	}
	hub.AssertClean(t)
}

func TestHubTagsOfAPrivateRepositoryNeedsCredentials(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"dckr_pat_hunter2"}})
	hub.PushImage("acme/app", "v1", hubtest.ImageSpec{})
	hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
	if code, stdout, stderr := askHub(t, hub, "acme", "dckr_pat_hunter2", "tags", "acme/app"); code != 0 || !strings.Contains(stdout, "v1") {
		t.Errorf("hub tags = %d %s%s", code, stdout, stderr)
	}
	if code, _, stderr := askHub(t, hub, "", "", "tags", "acme/app"); code != 1 || !strings.Contains(stderr, "not found") {
		t.Errorf("hub tags without credentials = %d %s, want 1 and not found", code, stderr)
	}
	if code, _, stderr := askHub(t, hub, "acme", "dckr_pat_wrong", "tags", "acme/app"); code != 1 || !strings.Contains(stderr, "denied") {
		t.Errorf("hub tags with a wrong token = %d %s, want 1 and denied", code, stderr)
	}
}

func TestHubLimits(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{ClientIP: "203.0.113.7"})
	hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"dckr_pat_hunter2"}})
	hub.PushImage("ratelimitpreview/test", "latest", hubtest.ImageSpec{})

	code, stdout, stderr := askHub(t, hub, "", "", "limits")
	if code != 0 || !strings.Contains(stdout, "pulls as anonymous: 100 of 100 left in each 1h0m0s, charged to 203.0.113.7\n") || !strings.Contains(stdout, "web API: 179 of 180 requests left until ") {
		t.Errorf("hub limits = %d\n%s%s", code, stdout, stderr)
	}
	hub.SpendAll("203.0.113.7")
	if code, stdout, stderr := askHub(t, hub, "", "", "limits"); code != 0 || !strings.Contains(stdout, "0 of 100 left") {
		t.Errorf("hub limits when none is left = %d\n%s%s", code, stdout, stderr)
	}

	code, stdout, _ = askHub(t, hub, "acme", "dckr_pat_hunter2", "limits", "--json")
	var doc struct {
		Pulls []struct {
			Credential       string
			Limit, Remaining int
			WindowS          int    `json:"window_s"`
			ChargedTo        string `json:"charged_to"`
		}
		API *struct{ Limit, Remaining int }
	}
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || code != 0 || len(doc.Pulls) != 1 || doc.API == nil {
		t.Fatalf("hub limits --json = %d, %v\n%s", code, err, stdout)
	}
	if p := doc.Pulls[0]; p.Credential != "acme" || p.Limit != 200 || p.Remaining != 200 || p.WindowS != 3600 || p.ChargedTo != "acme" || doc.API.Limit != 180 {
		t.Errorf("hub limits --json = %+v", doc)
	}
	if n := hub.ChargedTotal(); n != 0 {
		t.Errorf("hub limits cost %d pulls, want none", n)
	}

	hub.Set(func(o *hubtest.Options) { o.RateHeaders = hubtest.RateNone })
	if code, stdout, _ := askHub(t, hub, "", "", "limits"); code != 0 || !strings.Contains(stdout, "no limit is told") {
		t.Errorf("hub limits without headers = %d\n%s", code, stdout)
	}
	hub.SwitchOff(hubtest.RoleHubAPI)
	if code, stdout, _ := askHub(t, hub, "", "", "limits"); code != 0 || !strings.Contains(stdout, "web API: hub.docker.com: ") {
		t.Errorf("hub limits without the API = %d\n%s", code, stdout)
	}
	hub.SwitchOff(hubtest.RoleRegistry)
	if code, _, stderr := askHub(t, hub, "", "", "limits"); code != 1 || !strings.Contains(stderr, "docker.io: ") {
		t.Errorf("hub limits without the registry = %d %s, want 1 and why", code, stderr)
	}
}

func TestHubRefusesWhatCannotWork(t *testing.T) {
	for _, args := range [][]string{{"tags"}, {"tags", "a/b/c"}, {"tags", "a", "--most", "-1"}, {"limits", "--image", ":"}, {"limits", "--api-url", "x"}} {
		if code, _, stderr := execute(t, nil, append([]string{"hub"}, args...)...); code != 2 || stderr == "" {
			t.Errorf("hub %q = %d %s, want 2 and why", args, code, stderr)
		}
	}
}

// TestWebhookMakesTheMirrorLookAtOnce: a tag with a long time to live is served anew
// right after its registry has told of a push.
func TestWebhookMakesTheMirrorLookAtOnce(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.PushImage("acme/app", "v1", hubtest.ImageSpec{Seed: 1})
	const secret = "correct-horse-battery"
	s := start(t, fmt.Sprintf("storage: {dir: %q}\nwebhooks: {secret: %s}\nupstreams: {docker.io: {endpoints: [%q], tag_ttl: 1d}}\n", t.TempDir(), secret, hub.RegistryURL()))
	pull := func() string {
		t.Helper()
		status, body := get(t, s.registry+"/v2/acme/app/manifests/v1")
		if status != 200 {
			t.Fatalf("manifest = %d %s", status, body)
		}
		return hubtest.Digest([]byte(body))
	}
	first := pull()
	second := hub.PushImage("acme/app", "v1", hubtest.ImageSpec{Seed: 2})
	if got := pull(); got != first {
		t.Errorf("pull within the time to live = %s, want the former %s", got, first)
	}
	if status, err := hub.EmitWebhook(t.Context(), s.admin+"/webhooks/wrong", "acme/app", "v1", hubtest.WebhookNormal); status != 404 || err != nil {
		t.Errorf("webhook with a wrong secret = %d, %v; want 404", status, err)
	}
	heads := hub.ManifestHeads("acme/app", "v1")
	if status, err := hub.EmitWebhook(t.Context(), s.admin+"/webhooks/"+secret, "acme/app", "v1", hubtest.WebhookNormal); status != 202 || err != nil {
		t.Fatalf("webhook = %d, %v; want 202", status, err)
	}
	hub.WaitFor(t, 30*time.Second, "the HEAD of the tag", func() bool { return hub.ManifestHeads("acme/app", "v1") > heads })
	deadline := time.Now().Add(30 * time.Second)
	for pull() != second.Digest {
		if time.Now().After(deadline) {
			t.Fatalf("pull after the webhook is not %s", second.Digest)
		}
	}
	if strings.Contains(s.stderr.String(), secret) {
		t.Error("the log has the secret")
	}
	hub.AssertClean(t) // nothing was called that the payload names

	if status, err := hub.EmitWebhook(t.Context(), s.registry+"/webhooks/"+secret, "acme/app", "v1", hubtest.WebhookNormal); status == 202 || err != nil {
		t.Errorf("webhook at listen, where none is received = %d, %v", status, err)
	}

	both := start(t, fmt.Sprintf("storage: {dir: %q}\nwebhooks: {on_listen: true, secret: %s}\nupstreams: {docker.io: {endpoints: [%q]}}\n", t.TempDir(), secret, hub.RegistryURL()))
	for url, want := range map[string]int{both.registry + "/webhooks/" + secret: 202, both.admin + "/webhooks/" + secret: 202, both.registry + "/webhooks/wrong": 404, both.registry + "/webhooks": 404} {
		if status, err := hub.EmitWebhook(t.Context(), url, "acme/app", "v1", hubtest.WebhookNormal); status != want || err != nil {
			t.Errorf("webhook to %s = %d, %v; want %d", strings.ReplaceAll(url, secret, "SECRET"), status, err, want)
		}
	}
	if status, body := get(t, both.registry+"/v2/acme/app/manifests/v1"); status != 200 {
		t.Errorf("manifest beside webhooks = %d %s", status, body)
	}
	if status, _ := get(t, both.registry+"/api/v1/status"); status != 404 {
		t.Errorf("the admin API at listen = %d, want 404", status)
	}

	off := start(t, fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q]}}\n", t.TempDir(), hub.RegistryURL()))
	if status, err := hub.EmitWebhook(t.Context(), off.admin+"/webhooks/"+secret, "acme/app", "v1", hubtest.WebhookNormal); status != 404 || err != nil {
		t.Errorf("webhook where none are received = %d, %v; want 404", status, err)
	}
}
