package proxy

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache"
	"forebay/internal/wire"
)

// aManifest is one that every client accepts as a whole.
func aManifest(t testing.TB) cache.Manifest {
	body := []byte(" {\r\n\"schemaVersion\": 2, \"schemaVersion\":2}\n")
	return cache.Manifest{
		Desc:   v1.Descriptor{MediaType: types.MediaType(ociManifest), Digest: mustDigest(t, digestA), Size: int64(len(body))},
		Bytes:  body,
		Result: cache.Hit,
	}
}

// T23, T24 of docs/clients.md: however a client names it, it is one thing.
func TestAllShapesReachOneRepository(t *testing.T) {
	f := &fakeCache{manifest: aManifest(t)}
	url := serve(t, newHandler(t, f, nil))
	rows := []struct{ path, host, want, namespace string }{
		{"/v2/library/nginx/manifests/latest?ns=docker.io", "", "docker.io/library/nginx:latest", "docker.io"},
		{"/v2/library/nginx/manifests/latest?ns=registry-1.docker.io", "", "docker.io/library/nginx:latest", "registry-1.docker.io"},
		{"/v2/library/nginx/manifests/latest?x=1&ns=Index.Docker.io&y", "", "docker.io/library/nginx:latest", "Index.Docker.io"},
		{"/v2/library/nginx/manifests/latest", "", "docker.io/library/nginx:latest", ""},
		{"/v2/nginx/manifests/latest", "", "docker.io/library/nginx:latest", ""},
		{"/v2/docker.io/library/nginx/manifests/latest", "", "docker.io/library/nginx:latest", ""},
		{"/v2/docker.io/library/nginx/manifests/latest?ns=docker.io", "", "docker.io/library/nginx:latest", "docker.io"},
		{"/docker.io/v2/library/nginx/manifests/latest?ns=docker.io", "", "docker.io/library/nginx:latest", "docker.io"},
		{"/v2/ghcr.io/owner/app/manifests/v1", "", "ghcr.io/owner/app:v1", ""},
		{"/v2/owner/app/manifests/v1", "ghcr.mirror.example:5000", "ghcr.io/owner/app:v1", ""},
		{"/v2/a/manifests/v1?ns=my.reg:5000", "", "my.reg:5000/a:v1", "my.reg:5000"},
		{"/v2/a/manifests/v1?ns=my.reg%3A5000", "", "my.reg:5000/a:v1", "my.reg:5000"},
		{"/v2/a/manifests/v1?ns=old.reg", "", "my.reg:5000/a:v1", "old.reg"},
		{"/v2/a/manifests/v1?ns=OLD.reg", "", "my.reg:5000/a:v1", "OLD.reg"}, // as it was spelt
		{"/v2/a/manifests/manifests/v1", "", "docker.io/a/manifests:v1", ""},
	}
	for _, row := range rows {
		a := ask(t, "GET", url+row.path, "Host", row.host)
		if a.StatusCode != 200 || f.asked() != row.want {
			t.Errorf("GET %s: status %d, want the cache asked for %s", row.path, a.StatusCode, row.want)
		}
		if got := a.Header.Get("OCI-Namespace"); got != row.namespace {
			t.Errorf("GET %s: OCI-Namespace %q, want %q", row.path, got, row.namespace)
		}
	}
}

// T24, T25, M61: what is not configured is refused, and nobody is asked.
func TestUnknownNamesAreRefusedWithoutAsking(t *testing.T) {
	f := &fakeCache{manifest: aManifest(t)}
	url := serve(t, newHandler(t, f, nil))
	rows := []struct {
		path   string
		status int
		code   string
	}{
		{"/", 404, "UNSUPPORTED"},
		{"/v1/_ping", 404, "UNSUPPORTED"},
		{"/v2/library/nginx", 404, "UNSUPPORTED"},
		{"/v2/library/nginx/manifests/latest?ns=quay.io", 404, "NAME_UNKNOWN"},
		{"/v2/library/nginx/manifests/latest?ns=169.254.169.254", 404, "NAME_UNKNOWN"},
		{"/v2/library/nginx/manifests/latest?ns=localhost:22", 404, "NAME_UNKNOWN"},
		{"/v2/library/nginx/manifests/latest?ns=docker.io.", 404, "NAME_UNKNOWN"},
		{"/v2/library/nginx/manifests/latest?ns=http://docker.io/", 404, "NAME_UNKNOWN"},
		{"/v2/quay.io/owner/app/manifests/latest", 404, "NAME_UNKNOWN"},
		{"/quay.io/v2/owner/app/manifests/latest", 404, "NAME_UNKNOWN"},
		{"/quay.io/v2/", 404, "NAME_UNKNOWN"},
		{"/v2/ghcr.io/owner/app/manifests/latest?ns=docker.io", 404, "NAME_UNKNOWN"},
		{"/v2/library%2Fnginx/manifests/latest", 400, "NAME_INVALID"},
		{"/v2/library/%2e%2e/manifests/latest", 400, "NAME_INVALID"},
		{"/v2/library/../nginx/manifests/latest", 400, "NAME_INVALID"},
		{"/v2/library//nginx/manifests/latest", 400, "NAME_INVALID"},
		{"/v2/Library/nginx/manifests/latest", 400, "NAME_INVALID"},
		{"/v2/nginx/manifests/sha256:totallywrong", 400, "DIGEST_INVALID"},
		{"/v2/nginx/blobs/sha256:" + strings.ToUpper(hexA), 400, "DIGEST_INVALID"},
		{"/v2/nginx/referrers/latest", 400, "DIGEST_INVALID"},
		{"/v2/nginx/manifests/.INVALID_MANIFEST_NAME", 404, "MANIFEST_UNKNOWN"},
	}
	for _, row := range rows {
		a := ask(t, "GET", url+row.path)
		if a.StatusCode != row.status || a.code() != row.code {
			t.Errorf("GET %s = %d %s, want %d %s", row.path, a.StatusCode, a.code(), row.status, row.code)
		}
		if calls := f.asked(); calls != "" {
			t.Errorf("GET %s asked the cache for %s", row.path, calls)
		}
		if got := a.Header.Get("Docker-Distribution-Api-Version"); got != "registry/2.0" {
			t.Errorf("GET %s: Docker-Distribution-Api-Version %q", row.path, got)
		}
	}
}

func TestPingIsAlways200(t *testing.T) {
	f := &fakeCache{err: kind(0)}
	url := serve(t, newHandler(t, f, nil))
	for _, path := range []string{"/v2/", "/v2", "/docker.io/v2/", "/docker.io/v2", "/v2/?ns=docker.io"} {
		for _, method := range []string{"GET", "HEAD"} {
			a := ask(t, method, url+path, "Authorization", "Basic aHViOnB3")
			if a.StatusCode != 200 || a.Header.Get("WWW-Authenticate") != "" || a.Header.Get("Content-Type") != "application/json" ||
				a.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" || a.ContentLength != 2 {
				t.Errorf("%s %s = %d %v, want 200 without a challenge", method, path, a.StatusCode, a.Header)
			}
		}
	}
}

// M63: every other method is refused alike, whatever the path, and its body taken.
func TestOtherMethodsAreRefused(t *testing.T) {
	f := &fakeCache{}
	url := serve(t, newHandler(t, f, nil))
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"} {
		for _, path := range []string{"/v2/", "/v2/nginx/blobs/uploads/", "/v2/nginx/manifests/latest", "/v2/nginx/tags/list", "/v2/nginx/blobs/" + digestA, "/v2/_catalog"} {
			a := ask(t, method, url+path)
			if a.StatusCode != 405 || a.Header.Get("Allow") != "GET, HEAD" || a.code() != "UNSUPPORTED" {
				t.Errorf("%s %s = %d, Allow %q, %s", method, path, a.StatusCode, a.Header.Get("Allow"), a.code())
			}
		}
	}
	for _, size := range []int{10, 200 << 10, 4 << 20} {
		resp, err := http.Post(url+"/v2/nginx/blobs/uploads/", "application/octet-stream", strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			t.Errorf("POST of %d bytes: %v, want 405", size, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != 405 || resp.Close != (size > discardMost) {
			t.Errorf("POST of %d bytes = %d, close %t", size, resp.StatusCode, resp.Close)
		}
	}
	if calls := f.asked(); calls != "" {
		t.Errorf("the cache was asked for %s", calls)
	}
}

func TestMirrorWithoutDockerHubHasNoDefault(t *testing.T) {
	h, err := New(Options{Cache: new(cache.Cache), Upstreams: map[string][]string{"ghcr.io": nil}, Hosts: map[string]string{"g.lan": "ghcr.io"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ host, path, ns, want string }{
		{"m.lan", "/v2/a/b/manifests/1", "", ""},
		{"m.lan", "/v2/alpine/manifests/1", "", ""},
		{"m.lan", "/v2/a/b/manifests/1", "docker.io", ""},
		{"m.lan", "/v2/a/b/manifests/1", "ghcr.io", "ghcr.io"},
		{"m.lan", "/v2/ghcr.io/a/b/manifests/1", "", "ghcr.io"},
		{"g.lan", "/v2/a/b/manifests/1", "", "ghcr.io"},
	} {
		route, fault := h.Registries().Route(tc.host, tc.path, tc.ns)
		if (fault == nil) != (tc.want != "") || fault == nil && route.Upstream != tc.want {
			t.Errorf("%+v: %q, %v", tc, route.Upstream, fault)
		}
		var why *wire.RouteError
		if tc.want == "" && (!errors.As(fault, &why) || why.Fault != wire.UnknownRegistry) {
			t.Errorf("%+v: %v, want an unknown registry", tc, fault)
		}
	}
}

func TestNewRefusesContradictions(t *testing.T) {
	rows := map[string]Options{
		"no cache":         {Upstreams: map[string][]string{"docker.io": nil}},
		"no such default":  {Upstreams: map[string][]string{"ghcr.io": nil}, Default: "docker.io"},
		"alias twice":      {Upstreams: map[string][]string{"docker.io": {"a.example"}, "ghcr.io": {"a.example"}}},
		"alias is a name":  {Upstreams: map[string][]string{"docker.io": nil, "index.docker.io": nil}},
		"upper case":       {Upstreams: map[string][]string{"docker.io": nil, "GHCR.io": nil}},
		"host of nobody":   {Upstreams: map[string][]string{"docker.io": nil}, Hosts: map[string]string{"m": "quay.io"}},
		"path as upstream": {Upstreams: map[string][]string{"docker.io": nil, "ghcr.io/owner": nil}},
	}
	for name, o := range rows {
		if name != "no cache" {
			o.Cache = new(cache.Cache)
		}
		if _, err := New(o); err == nil {
			t.Errorf("New with %s succeeded, want an error", name)
		}
	}
}
