package auth

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forebay/internal/registries"
)

// coded is the auth of user:secret.
func coded(user string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":secret-of-" + user))
}

// The keys that docker, podman, helm and Kubernetes write for a registry and parts of it.
func TestKeysOfDockerConfigs(t *testing.T) {
	for _, test := range []struct {
		name, text string // of the registry, and of the file, in which %s is an auth of the user "right"
		repo       string
		want       string // user
	}{
		{"docker.io", `{"auths":{"https://index.docker.io/v1/":{"auth":"%s"}}}`, "library/a", "right"},
		{"docker.io", `{"auths":{"index.docker.io/v1":{"auth":"%s"}}}`, "library/a", "right"},
		{"docker.io", `{"auths":{"http://docker.io/":{"auth":"%s"}}}`, "library/a", "right"},
		{"docker.io", `{"auths":{"docker.io:443":{"auth":"%s"}}}`, "library/a", "right"},
		{"docker.io", `{"auths":{"Docker.IO":{"auth":"%s"}}}`, "library/a", "right"},
		{"docker.io", `{"auths":{"https://registry-1.docker.io/v2/":{"auth":"%s"}}}`, "library/a", "right"},
		{"docker.io", `{"auths":{"*.docker.io":{"auth":"%s"}}}`, "library/a", "right"},
		{"reg.example:5000", `{"auths":{"https://reg.example:5000/v2":{"auth":"%s"}}}`, "a", "right"},
		{"reg.example:5000", `{"auths":{"reg.example":{"auth":"%s"}}}`, "a", ""},
		{"reg.example", `{"auths":{"reg.example:5000":{"auth":"%s"}}}`, "a", ""},
		{"[2001:db8::1]:5000", `{"auths":{"[2001:DB8:0::1]:5000":{"auth":"%s"}}}`, "a", "right"},
		{"my.azurecr.io", `{"auths":{"*.azurecr.io":{"auth":"%s"}}}`, "a", "right"},
		{"my.own.azurecr.io", `{"auths":{"*.azurecr.io":{"auth":"%s"}}}`, "a", ""},
		// An exact key goes before a pattern, whichever comes first.
		{"my.azurecr.io", `{"auths":{"*.azurecr.io":{"username":"w","password":"w"},"my.azurecr.io":{"auth":"%s"}}}`, "a", "right"},
		// For a part of the registry, and for nothing else of it.
		{"quay.io", `{"auths":{"quay.io/team":{"auth":"%s"}}}`, "team/app", "right"},
		{"quay.io", `{"auths":{"quay.io/team":{"auth":"%s"}}}`, "team", "right"},
		{"quay.io", `{"auths":{"quay.io/team":{"auth":"%s"}}}`, "teams/app", ""},
		{"quay.io", `{"auths":{"https://quay.io/v2/team/":{"auth":"%s"}}}`, "team/app", "right"},
		{"quay.io", `{"auths":{"quay.io/team":{"username":"w","password":"w"},"quay.io/team/app":{"auth":"%s"},"quay.io":{"username":"v","password":"v"}}}`, "team/app/x", "right"},
		{"quay.io", `{"auths":{"quay.io/team":{"username":"w","password":"w"},"quay.io":{"auth":"%s"}}}`, "other/app", "right"},
		{"docker.io", `{"auths":{"docker.io/library":{"auth":"%s"}}}`, "library/nginx", "right"},
		// As Kubernetes holds them.
		{"ghcr.io", `{"ghcr.io":{"auth":"%s","email":"x@y"}}`, "a", "right"},
		{"ghcr.io", `{"ghcr.io":{"auth":"%s"},"quay.io":{"username":"w","password":"w"}}`, "a", "right"},
		{"ghcr.io", `{"auths":{"ghcr.io":{"username":"right","password":"secret-of-right"}}}`, "a", "right"},
		{"ghcr.io", "apiVersion: v1\nkind: Secret\nstringData:\n  .dockerconfigjson: '{\"auths\":{\"ghcr.io\":{\"auth\":\"%s\"}}}'\n", "a", "right"},
		{"ghcr.io", `{"kind":"Secret","type":"kubernetes.io/dockercfg","stringData":{".dockercfg":"{\"ghcr.io\":{\"auth\":\"%s\"}}"}}`, "a", "right"},
		// What is in such files beside it.
		{"ghcr.io", `{"HttpHeaders":{"X":"y"},"auths":{"ghcr.io":{"auth":"%s"}}}`, "a", "right"},
		{"ghcr.io", `{"auths":{"ghcr.io":{},"https://ghcr.io":{"auth":"%s"}}}`, "a", "right"},
		{"ghcr.io", "\ufeff" + `{"auths":{"ghcr.io":{"auth":"%s"}}}`, "a", "right"},
		{"ghcr.io", `{"auths":{"ghcr.io":{"auth": "` + base64.RawStdEncoding.EncodeToString([]byte("right:secret-of-right\x00")) + `"}}}`, "a", "right"},
		{"ghcr.io", `{}`, "a", ""},
	} {
		text := test.text
		if strings.Contains(text, "%s") {
			text = fmt.Sprintf(text, coded("right"))
		}
		source, err := NewSource(Credentials{DockerConfig: writeFile(t, "config.json", text)}, test.name, nil, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		got, err := source.Identity(t.Context(), test.repo, false)
		if err != nil || got.user != test.want || test.want != "" && got.secret != "secret-of-right" {
			t.Errorf("%s of %s by %s: %q, %v; want %q", test.repo, test.name, test.text, got.user, err, test.want)
		}
	}
}

func TestSecretsOfKubernetes(t *testing.T) {
	file := fmt.Sprintf(`{"auths":{"ghcr.io":{"auth":%q}}}`, coded("right"))
	for name, text := range map[string]string{
		"data":        "kind: Secret\ntype: kubernetes.io/dockerconfigjson\ndata:\n  .dockerconfigjson: " + base64.StdEncoding.EncodeToString([]byte(file)) + "\n",
		"folded data": "kind: Secret\ndata:\n  .dockerconfigjson: |\n    " + base64.StdEncoding.EncodeToString([]byte(file))[:40] + "\n    " + base64.StdEncoding.EncodeToString([]byte(file))[40:] + "\n",
	} {
		known, err := Known(t.Context(), Credentials{DockerConfig: writeFile(t, "secret.yaml", text)}, "ghcr.io", nil)
		if err != nil || !known {
			t.Errorf("%s: known is %t, %v", name, known, err)
		}
		if known, err := Known(t.Context(), Credentials{DockerConfig: writeFile(t, "secret.yaml", text)}, "quay.io", nil); err != nil || known {
			t.Errorf("%s: of another registry known is %t, %v", name, known, err)
		}
	}
	for _, text := range []string{"kind: Secret\ndata: {other: eA==}\n", "kind: Secret\ndata: {.dockerconfigjson: '!'}\n"} {
		if known, err := Known(t.Context(), Credentials{DockerConfig: writeFile(t, "secret.yaml", text)}, "ghcr.io", nil); err == nil {
			t.Errorf("%q: known is %t, want an error", text, known)
		}
	}
	// A mounted secret is a folder.
	for _, name := range registries.LoginFiles() {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		if known, err := Known(t.Context(), Credentials{DockerConfig: dir}, "ghcr.io", nil); err != nil || !known {
			t.Errorf("folder with %s: known is %t, %v", name, known, err)
		}
	}
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"quay.io/team":{"username":"u","password":"p"},"*.io":{"identitytoken":"t"}}}`))
	f.Add([]byte(`{"ghcr.io":{"auth":"dTpw"}}`))
	f.Add([]byte("kind: Secret\ndata: {.dockercfg: e30=}\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(dir, "config.json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		parsed, err := readDockerConfig(file)
		if err != nil || parsed.CredentialsStore != "" || len(parsed.CredentialHelpers) > 0 {
			return // no helper is run by what a fuzzer wrote
		}
		k, err := readKeyring(file, registryNames("docker.io", nil))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range k.parts {
			if p.who.Anonymous() || p.path == "" {
				t.Errorf("%q has a part %q of %s", text, p.path, p.who)
			}
		}
	})
}
