package gcp

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"forebay/test/hubtest"
	"forebay/upstream"
	"forebay/upstream/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPasswordsOfTheMetadataServer(t *testing.T) {
	asked, status := 0, http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata-Flavor") != "Google" || r.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/token" {
			t.Errorf("asked for %s with %v", r.URL, r.Header)
		}
		if status != http.StatusOK {
			w.WriteHeader(status)
			fmt.Fprint(w, "hunter2")
			return
		}
		asked++
		fmt.Fprintf(w, `{"access_token":"ya29.%d","expires_in":3599,"token_type":"Bearer"}`, asked)
	}))
	defer server.Close()
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(server.URL, "http://"))
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	now := time.Now()
	i := New(Options{Registry: "europe-docker.pkg.dev", Now: func() time.Time { return now }})
	defer i.Close()
	want := func(secret string) {
		t.Helper()
		user, got, err := i.Issue(t.Context(), false)
		if err != nil || user != "oauth2accesstoken" || got != secret {
			t.Errorf("Issue = %q, %q, %v; want %q", user, got, err, secret)
		}
		i.Wait()
	}
	for range 3 {
		want("ya29.1")
	}
	now = now.Add(56 * time.Minute) // near its end it is replaced, and nobody waits
	want("ya29.1")
	want("ya29.2")
	now = now.Add(2 * time.Hour)
	status = http.StatusNotFound
	if _, _, err := i.Issue(t.Context(), false); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "404") {
		t.Errorf("Issue of no service account: %v, want the status and nothing of the text", err)
	}
}

func TestPullFromArtifactRegistry(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"access_token":"ya29.token","expires_in":3599}`)
	}))
	defer server.Close()
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(server.URL, "http://"))
	hub := hubtest.New(t, hubtest.Options{Profile: hubtest.GAR})
	hub.AddUser(hubtest.User{Name: userName, Secrets: []string{"ya29.token"}, Repos: []string{"p/r/app"}})
	img := hub.PushImage("p/r/app", "latest", hubtest.ImageSpec{})
	hub.AddRepo("p/r/app", hubtest.RepoOpts{Private: true})
	i := New(Options{Registry: "europe-docker.pkg.dev"})
	defer i.Close()
	r, err := upstream.New(upstream.Options{
		Name: "europe-docker.pkg.dev", Endpoints: []upstream.Endpoint{{URL: hub.RegistryURL()}}, Credentials: auth.Credentials{Issuer: i},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if desc, _, err := r.Manifest(t.Context(), img.Repo, img.Tag); err != nil || desc.Digest.String() != img.Digest {
		t.Errorf("Manifest = %v, %v; want %s", desc.Digest, err, img.Digest)
	}
	hub.AssertClean(t)
}
