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
