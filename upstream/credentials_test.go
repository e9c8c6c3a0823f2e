package upstream

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream/auth"
)

func TestPasswordFileThatIsGoneIsNotAnonymous(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	o := hubOptions(hub)
	o.Credentials = auth.Credentials{Username: "acme", PasswordFile: filepath.Join(t.TempDir(), "gone")}
	_, err := newRegistry(t, o).Resolve(t.Context(), repoAlpine, "latest")
	if e := wantKind(t, "Resolve", err, pull.Unavailable); !strings.Contains(e.Error(), "password file") {
		t.Errorf("error is not clear: %v", e)
	}
	if n := hub.TokenRequests(); n != 0 {
		t.Errorf("hub saw %d token requests, want 0", n)
	}
}

// helper puts a credential helper named docker-credential-NAME on the PATH.
func helper(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestCredentialHelperThatFailsIsNotAnonymous(t *testing.T) {
	helper(t, "bad", `echo "the vault is sealed: https://vault/?token=s3cret" ; exit 1`)
	for _, config := range []string{`{"credHelpers":{"docker.io":"bad","https://index.docker.io/v1/":"bad"}}`, `{"credsStore":"bad"}`, `{"credsStore":"missing"}`} {
		hub := hubtest.New(t, hubtest.Options{})
		hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
		o := hubOptions(hub)
		o.Credentials = auth.Credentials{DockerConfig: writeFile(t, "config.json", config)}
		o.Fallback = []auth.Credentials{{}} // is about refused credentials, not about a broken helper
		_, err := newRegistry(t, o).Resolve(t.Context(), repoAlpine, "latest")
		e := wantKind(t, "Resolve", err, pull.Unavailable)
		if !strings.Contains(e.Error(), "docker config") || strings.Contains(e.Error(), "s3cret") {
			t.Errorf("error is not clear: %v", e)
		}
		if n := hub.TokenRequests(); n != 0 {
			t.Errorf("hub saw %d token requests, want 0", n)
		}
	}
}

// The robot of a team pulls for its repositories, and only for those. A config.json that a program like Vault's agent writes anew is taken up at the next request.
func TestCredentialsByRepository(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	for name, repos := range map[string]string{"all": "other/*", "robot-a": "a/*", "robot-b": "b/*", "robot-c": "c/*"} {
		hub.AddUser(hubtest.User{Name: name, Secrets: []string{"of " + name}, Repos: []string{repos}, Plan: hubtest.Unlimited()})
	}
	for _, repo := range []string{"a/app", "b/app", "c/app", "other/app"} {
		hub.AddRepo(repo, hubtest.RepoOpts{Private: true})
		hub.PushImage(repo, "1", hubtest.ImageSpec{})
	}
	login := func(name string) string {
		return `{"auths":{"docker.io":{"username":"` + name + `","password":"of ` + name + `"}}}`
	}
	file := writeFile(t, "config.json", login("robot-c"))
	o := hubOptions(hub)
	o.TrustedRealms = []string{strings.TrimPrefix(hub.URL(hubtest.RoleAuth), "http://")}
	o.Credentials = auth.Credentials{Username: "all", Password: "of all"}
	o.Fallback = []auth.Credentials{
		{Match: "a/*", Username: "robot-a", PasswordFile: writeFile(t, "password", "of robot-a\n")},
		{Match: "[bc]/*", DockerConfig: file},
	}
	r := newRegistry(t, o)
	as := func(repo string) string {
		t.Helper()
		hub.ResetCounters()
		if _, err := r.Resolve(t.Context(), repo, "1"); err != nil {
			return pull.KindOf(err).String()
		}
		for key := range hub.Counters().TokensIssued {
			name, scope, _ := strings.Cut(key, " ")
			if strings.Contains(scope, repo) {
				return name
			}
		}
		return "nobody"
	}
	for repo, want := range map[string]string{"other/app": "all", "a/app": "robot-a", "c/app": "robot-c", "b/app": "denied"} {
		if got := as(repo); got != want {
			t.Errorf("%s was asked for by %s, want %s", repo, got, want)
		}
	}
	if err := os.WriteFile(file, []byte(login("robot-b")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := as("b/app"); got != "robot-b" {
		t.Errorf("b/app was asked for by %s after its credentials were written anew", got)
	}
}
