package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/command"
	"forebay/test/hubtest"
)

// provided asks for credentials as kubelet does (its package pkg/credentialprovider/plugin): one request on
// standard input, one response on standard output, decoded strictly.
func provided(t *testing.T, request string, args ...string) (auth map[string]struct{ Username, Password string }, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"token", "kubelet"}, args...), command.Process{Stdin: strings.NewReader(request), Stdout: &out, Stderr: &errs})
	if code != 0 {
		return nil, errs.String(), code
	}
	var response struct {
		Kind, APIVersion, CacheKeyType string
		CacheDuration                  *string
		Auth                           map[string]struct{ Username, Password string }
	}
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&response); err != nil {
		t.Fatalf("kubelet cannot read the response: %v", err)
	}
	if response.Kind != "CredentialProviderResponse" || response.APIVersion != "credentialprovider.kubelet.k8s.io/v1" || response.CacheKeyType != "Registry" {
		t.Errorf("the response is a %s of %s by %s", response.Kind, response.APIVersion, response.CacheKeyType)
	}
	return response.Auth, errs.String(), 0
}

func TestKubeletGetsCredentials(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
	hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	dir := t.TempDir()
	code, token, stderr := execute(t, nil, "token", "create", "node-7", "--file", filepath.Join(dir, "tokens"))
	if code != 0 {
		t.Fatal(stderr)
	}
	file := filepath.Join(dir, "node.token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, fmt.Sprintf("storage: {dir: %[1]s/store}\nauthentication: required\nauth: {tokens_file: %[1]s/tokens}\nupstreams: {docker.io: {endpoints: [%[2]q]}}\n", dir, hub.RegistryURL()))
	registry := strings.TrimPrefix(s.registry, "http://")
	request := func(image, more string) string {
		return fmt.Sprintf(`{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":%q%s}`, image, more)
	}
	auth, _, code := provided(t, request(registry+"/docker.io/library/alpine", ""), "--token-file", file)
	one, there := auth[registry]
	if code != 0 || len(auth) != 1 || !there {
		t.Fatalf("credentials are for %d registries, exit code %d", len(auth), code)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.registry+"/v2/docker.io/library/alpine/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(one.Username, one.Password)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if status, _ := get(t, r.URL.String()); response.StatusCode != http.StatusOK || status != http.StatusUnauthorized {
		t.Errorf("with the credentials %d and without %d, want 200 and 401", response.StatusCode, status)
	}

	auth, _, _ = provided(t, request("mirror.lan:5000/docker.io/library/alpine", `,"serviceAccountToken":"eyJ.of.pod","serviceAccountAnnotations":{"a":"b"}`))
	if diff := cmp.Diff(map[string]struct{ Username, Password string }{"mirror.lan:5000": {"forebay", "eyJ.of.pod"}}, auth); diff != "" {
		t.Errorf("with the token of a pod (-want +got):\n%s", diff)
	}
	for request, want := range map[string]string{
		``: "read the request of kubelet", `{`: "read the request of kubelet",
		request("alpine", ""):            "names no registry",
		request("mirror.lan/alpine", ""): "there is no token",
		strings.ReplaceAll(request("mirror.lan/alpine", ""), "/v1\"", "/v1alpha1\""): "set apiVersion: credentialprovider.kubelet.k8s.io/v1",
	} {
		if _, stderr, code := provided(t, request); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s = %d %s, want %q", request, code, stderr, want)
		}
	}
	if _, stderr, code := provided(t, request("mirror.lan/alpine", ""), "--token-file", file+"-none"); code == 0 || strings.Contains(stderr, strings.TrimSpace(token)) {
		t.Errorf("without the file = %d %s", code, stderr)
	}
}
