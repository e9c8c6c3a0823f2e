package azure

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"forebay/upstream/issue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// platform is Azure: metadata service, Entra and the registry's exchange.
func platform(t *testing.T) (*asker, *string) {
	t.Helper()
	for _, name := range []string{"AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
		t.Setenv(name, "")
	}
	t.Setenv("HTTP_PROXY", "")
	var seen string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		f := r.Form
		switch r.URL.Path {
		case "/metadata/identity/oauth2/token":
			seen = fmt.Sprintf("machine %s %s %s", r.Header.Get("Metadata"), f.Get("resource"), f.Get("client_id"))
		case "/msi":
			seen = fmt.Sprintf("app %s %s", r.Header.Get("X-Identity-Header"), f.Get("api-version"))
		case "/tenant-1/oauth2/v2.0/token":
			seen = fmt.Sprintf("workload %s %s %s", f.Get("client_id"), f.Get("client_assertion"), f.Get("scope"))
		case "/oauth2/exchange":
			if f.Get("access_token") != "entra" || f.Get("grant_type") != "access_token" || f.Get("service") != "corp.azurecr.io" {
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, f.Get("access_token"))
				return
			}
			fmt.Fprintf(w, `{"refresh_token":"acr%s"}`, f.Get("tenant"))
			return
		default:
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{"access_token":"entra"}`)
	}))
	t.Cleanup(server.Close)
	t.Setenv("AZURE_AUTHORITY_HOST", server.URL+"/")
	t.Setenv("TEST_URL", server.URL)
	return &asker{opts: Options{Registry: "corp.azurecr.io"}, metadata: server.URL, exchange: server.URL + "/oauth2/exchange"}, &seen
}

func TestIdentityOfThePlatform(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("kubernetes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		env  map[string]string
		seen string
		want string
	}{
		"machine":           {nil, "machine true https://management.azure.com/ ", "acr"},
		"one of identities": {map[string]string{"AZURE_CLIENT_ID": "me"}, "machine true https://management.azure.com/ me", "acr"},
		"App Service":       {map[string]string{"IDENTITY_ENDPOINT": "/msi", "IDENTITY_HEADER": "h"}, "app h 2019-08-01", "acr"},
		"Workload Identity": {map[string]string{"AZURE_FEDERATED_TOKEN_FILE": file, "AZURE_TENANT_ID": "tenant-1", "AZURE_CLIENT_ID": "me"}, "workload me kubernetes https://management.azure.com/.default", "acrtenant-1"},
	} {
		t.Run(name, func(t *testing.T) {
			a, seen := platform(t)
			for key, value := range test.env {
				if strings.HasPrefix(value, "/msi") {
					value = a.metadata + value
				}
				t.Setenv(key, value)
			}
			p, err := a.fetch(t.Context())
			if err != nil || p.User != userName || p.Secret != test.want || *seen != test.seen {
				t.Errorf("fetch = %q, %q, %v and %q was seen; want %q, %q", p.User, p.Secret, err, *seen, test.want, test.seen)
			}
			if text := fmt.Sprintf("%v %+v %#v %s", p, p, p, p); strings.Contains(text, p.Secret) {
				t.Errorf("a password is written as %s", text)
			}
		})
	}
}

func TestRefusalsTellNoToken(t *testing.T) {
	a, _ := platform(t)
	a.opts.Registry = "other.azurecr.io"
	if _, err := a.fetch(t.Context()); err == nil || strings.Contains(err.Error(), "entra") || !strings.Contains(err.Error(), "401") {
		t.Errorf("a registry that refuses the exchange: %v, want the status alone", err)
	}
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", filepath.Join(t.TempDir(), "missing"))
	if _, err := a.fetch(t.Context()); err == nil {
		t.Error("a missing token file is no error")
	}
	if i := New(Options{Registry: "corp.azurecr.io"}); i == (*issue.Issuer)(nil) {
		t.Error("New gives nothing")
	} else {
		i.Close()
	}
}
