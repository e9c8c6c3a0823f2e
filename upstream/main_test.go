package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"

	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/test/hubtest"
	"forebay/upstream/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hubOptions returns options for a registry that is hub, with pauses that a test can wait for.
func hubOptions(hub *hubtest.Hub) Options {
	o := Options{
		Name:      "docker.io",
		Endpoints: endpointsOf(hub.RegistryURL()),
		Dial:      hub.DialContext,
		Now:       hub.Now,
		Retry:     Retry{Backoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond},
	}
	if strings.HasPrefix(hub.RegistryURL(), "https:") {
		o.TLS.RootCAs = hub.RootCAs()
		o.Lookup = internet
	}
	return o
}

// internet resolves every name to a public address, so that the hub's names may be those of
// production: the address at which Dial reaches it is not looked at then.
func internet(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("203.0.113.1")}, nil
}

// trusting adds the hub's token server to the trusted realms, and a user.
func trusting(o Options, hub *hubtest.Hub, user, secret string) Options {
	o.Credentials = auth.Credentials{Username: user, Password: secret}
	o.TrustedRealms = []string{strings.TrimPrefix(strings.TrimPrefix(hub.URL(hubtest.RoleAuth), "http://"), "https://")}
	return o
}

// endpointsOf returns endpoints of one registry.
func endpointsOf(urls ...string) []Endpoint {
	var list []Endpoint
	for _, u := range urls {
		list = append(list, Endpoint{URL: u})
	}
	return list
}

func newRegistry(t *testing.T, o Options) *Registry {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatalf("New(%s): %v", o.Name, err)
	}
	t.Cleanup(r.Close)
	return r
}

// newHub starts a hub and a registry that speaks to it.
func newHub(t *testing.T, o hubtest.Options) (*hubtest.Hub, *Registry) {
	t.Helper()
	hub := hubtest.New(t, o)
	return hub, newRegistry(t, hubOptions(hub))
}

// serve starts a registry of which only handle is known, at a loopback address.
func serve(t *testing.T, handle http.HandlerFunc) *Registry {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return newRegistry(t, Options{
		Name: "registry.test", Endpoints: endpointsOf(server.URL),
		Retry: Retry{Backoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond},
	})
}

func digest(t *testing.T, text string) v1.Hash {
	t.Helper()
	d, err := wire.ParseDigest(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wantKind fails the test unless err is a pull.Error of that kind without secrets.
func wantKind(t *testing.T, what string, err error, want pull.Kind) *pull.Error {
	t.Helper()
	var e *pull.Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: error is %v (%T), want a pull.Error of kind %s", what, err, err, want)
	}
	if e.Kind != want {
		t.Errorf("%s: kind is %s, want %s: %v", what, e.Kind, want, err)
	}
	wantNoSecrets(t, what, err.Error())
	return e
}

// wantNoSecrets fails the test if text has a part of a signed URL or a token in it.
func wantNoSecrets(t *testing.T, what, text string) {
	t.Helper()
	for _, part := range []string{"verify=", "Signature", "X-Amz-", "Key-Pair-Id", "eyJ", "dckr_pat"} {
		if strings.Contains(text, part) {
			t.Errorf("%s: text has %q in it: %s", what, part, text)
		}
	}
}

// readBlob reads [off, end) of a blob to its end.
func readBlob(ctx context.Context, r *Registry, repo string, d v1.Hash, off, end int64) (*pull.Body, []byte, error) {
	b, err := r.OpenBlob(ctx, repo, d, off, end)
	if err != nil {
		return nil, nil, err
	}
	defer b.Close()
	got, err := io.ReadAll(b)
	return b, got, err
}

// wantBlob reads a blob whole and compares it.
func wantBlob(t *testing.T, r *Registry, repo string, d v1.Hash, want []byte) {
	t.Helper()
	b, got, err := readBlob(t.Context(), r, repo, d, 0, -1)
	if err != nil {
		t.Fatalf("read blob %s: %v", d, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("blob %s has %d bytes that differ from the %d wanted", d, len(got), len(want))
	}
	if b.Offset != 0 || b.Ranged {
		t.Errorf("blob %s: Offset %d, Ranged %v; want 0, false", d, b.Offset, b.Ranged)
	}
}

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
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
