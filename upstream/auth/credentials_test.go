package auth

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"forebay/internal/registries"
)

func TestPasswordFileIsReadAgainWhenItChanges(t *testing.T) {
	file := writeFile(t, "password", "\ufefffirst\r\n")
	source, err := NewSource(Credentials{Username: "u", PasswordFile: file}, "x", nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	want := func(secret string) Identity {
		t.Helper()
		got, err := source.Identity(t.Context(), "", false)
		if err != nil || got.secret != secret || got.user != "u" || got.refresh {
			t.Errorf("identity has secret %q, %v; want %q", got.secret, err, secret)
		}
		return got
	}
	one := want("first")
	if again := want("first"); again.id != one.id {
		t.Error("the same password has two ids")
	}
	replaceFile(t, file, "second")
	if two := want("second"); two.id == one.id {
		t.Error("two passwords have one id")
	}
	for name, text := range map[string]string{"empty": "\n", "too big": strings.Repeat("x", secretMax+1)} {
		replaceFile(t, file, text)
		if _, err := source.Identity(t.Context(), "", true); err == nil {
			t.Errorf("%s password file: no error", name)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Identity(t.Context(), "", false); err == nil {
		t.Error("missing password file: no error")
	}
}

func TestDockerConfig(t *testing.T) {
	pair := func(user, password string) string {
		return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	}
	text := fmt.Sprintf(`{"auths":{
		"https://index.docker.io/v1/":{"auth":%q},
		"ghcr.io":{"auth":%q},
		"corp.example:5000":{"identitytoken":"identity","auth":%q},
		"token.example":{"registrytoken":"direct"}
	}}`, pair("hubuser", "hubpass"), pair("ghuser", "gh:pass"), pair(tokenUser, "ignored"))
	file := writeFile(t, "config.json", text)
	tests := []struct {
		name, user, secret string
		refresh            bool
		direct             string
	}{
		{"docker.io", "hubuser", "hubpass", false, ""},
		{"dhi.io", "hubuser", "hubpass", false, ""},
		{"ghcr.io", "ghuser", "gh:pass", false, ""},
		{"corp.example:5000", tokenUser, "identity", true, ""},
		{"token.example", "", "", false, "direct"},
		{"quay.io", "", "", false, ""},
	}
	for _, test := range tests {
		for _, path := range []string{file, filepath.Dir(file)} {
			source, err := NewSource(Credentials{DockerConfig: path}, test.name, []string{registries.Find(test.name).Endpoint}, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			got, err := source.Identity(t.Context(), "", false)
			if err != nil || got.user != test.user || got.secret != test.secret || got.refresh != test.refresh || got.registryToken != test.direct {
				t.Errorf("%s: identity is %q %q %v %q, %v; want %+v", test.name, got.user, got.secret, got.refresh, got.registryToken, err, test)
			}
			if anonymous := test.user == "" && test.direct == ""; got.Anonymous() != anonymous {
				t.Errorf("%s: anonymous is %v, want %v", test.name, got.Anonymous(), anonymous)
			}
		}
	}
}

// docker login, podman, Kubernetes' secrets and helm each write Docker Hub under another name.
func TestDockerConfigKnowsDockerHubByAllItsNames(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("hubuser:hubpass"))
	for _, key := range []string{
		"https://index.docker.io/v1/", "index.docker.io", "docker.io", "https://docker.io", "registry-1.docker.io",
		"https://registry-1.docker.io/v2/", "registry.hub.docker.com",
	} {
		file := writeFile(t, "config.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, auth))
		source, err := NewSource(Credentials{DockerConfig: file}, "docker.io", []string{registries.Find("docker.io").Endpoint}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := source.Identity(t.Context(), "", false); err != nil || got.user != "hubuser" || got.secret != "hubpass" {
			t.Errorf("under %s: %q, %v", key, got.user, err)
		}
	}
}

func TestDockerConfigThatCannotBeReadFails(t *testing.T) {
	for name, path := range map[string]string{
		"missing":  filepath.Join(t.TempDir(), "config.json"),
		"no JSON":  writeFile(t, "config.json", "{"),
		"bad auth": writeFile(t, "config.json", `{"auths":{"ghcr.io":{"auth":"!!!"}}}`),
	} {
		source, err := NewSource(Credentials{DockerConfig: path}, "ghcr.io", nil, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := source.Identity(t.Context(), "", false); err == nil {
			t.Errorf("%s: identity is %v, want an error", name, got)
		}
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

func TestCredentialHelper(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	helper(t, "good", fmt.Sprintf(`echo x >>%q
read server
printf '{"ServerURL":"%%s","Username":"AWS","Secret":"from-helper"}' "$server"`, count))
	file := writeFile(t, "config.json", `{"credHelpers":{"ghcr.io":"good"}}`)
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	source, err := NewSource(Credentials{DockerConfig: file}, "ghcr.io", nil, clock)
	if err != nil {
		t.Fatal(err)
	}
	runs := func(want int) {
		t.Helper()
		text, err := os.ReadFile(count)
		if err != nil || strings.Count(string(text), "x") != want {
			t.Errorf("helper ran %d times, want %d", strings.Count(string(text), "x"), want)
		}
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			got, err := source.Identity(t.Context(), "", false)
			if err != nil || got.user != "AWS" || got.secret != "from-helper" {
				t.Errorf("identity is %q %q, %v", got.user, got.secret, err)
			}
		})
	}
	wg.Wait()
	runs(1)
	if _, err := source.Identity(t.Context(), "", true); err != nil { // refused a moment later
		t.Error(err)
	}
	runs(1)
	mu.Lock()
	now = now.Add(keychainAgain + time.Second)
	mu.Unlock()
	if _, err := source.Identity(t.Context(), "", true); err != nil {
		t.Error(err)
	}
	runs(2)
}

// Docker names the helper of Docker Hub by a URL, podman by the registry, and each asks it by that.
func TestCredentialHelperOfDockerHub(t *testing.T) {
	helper(t, "good", `read server
printf '{"ServerURL":"x","Username":"u","Secret":"%s"}' "$server"`)
	t.Setenv("DOCKER_AUTH_CONFIG", `{"auths":{"docker.io":{"auth":"dTplbnZpcm9ubWVudA=="}}}`)
	for _, key := range []string{"https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"} {
		source, err := NewSource(Credentials{DockerConfig: writeFile(t, "config.json", `{"credHelpers":{"`+key+`":"good"}}`)}, "docker.io", nil, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		got, err := source.Identity(t.Context(), "", false)
		if err != nil || got.user != "u" || got.secret != key {
			t.Errorf("by %s: identity is %q %q, %v", key, got.user, got.secret, err)
		}
	}
}

func TestCredentialHelperWithoutAnEntryIsAnonymous(t *testing.T) {
	helper(t, "none", `echo "credentials not found in native keychain" ; exit 1`)
	source, err := NewSource(Credentials{DockerConfig: writeFile(t, "config.json", `{"credsStore":"none"}`)}, "docker.io", nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := source.Identity(t.Context(), "", false); err != nil || !got.Anonymous() {
		t.Errorf("identity is %v, %v; want anonymous", got, err)
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// replaceFile puts another file in the place of path, with a modification time of its own.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(path+".new", later, later); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
