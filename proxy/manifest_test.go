package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
)

// M27, T05, T06 of docs/clients.md: the same headers for HEAD and GET, and the bytes as
// they came.
func TestManifestHeaders(t *testing.T) {
	f := &fakeCache{manifest: aManifest(t)}
	url := serve(t, newHandler(t, f, nil))
	rows := map[string]string{
		"/v2/library/nginx/manifests/latest":                       "no-cache",
		"/v2/library/nginx/manifests/" + digestA:                   "public, max-age=31536000, immutable",
		"/v2/library/nginx/manifests/" + digestA + "?ns=docker.io": "public, max-age=31536000, immutable",
	}
	for path, cacheControl := range rows {
		get := ask(t, "GET", url+path, "Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5")
		if get.StatusCode != 200 || get.body != string(f.manifest.Bytes) {
			t.Errorf("GET %s = %d %q", path, get.StatusCode, get.body)
		}
		want := http.Header{
			"Content-Type":                    {ociManifest},
			"Content-Length":                  {strconv.Itoa(len(f.manifest.Bytes))},
			"Docker-Content-Digest":           {digestA},
			"Etag":                            {`"` + digestA + `"`},
			"Docker-Distribution-Api-Version": {"registry/2.0"},
			"Cache-Control":                   {cacheControl},
		}
		if ns := get.Header.Get("OCI-Namespace"); ns != "" {
			want["Oci-Namespace"] = []string{"docker.io"}
		}
		head := ask(t, "HEAD", url+path)
		if head.body != "" || head.StatusCode != 200 {
			t.Errorf("HEAD %s = %d with body %q", path, head.StatusCode, head.body)
		}
		for method, a := range map[string]answer{"GET": get, "HEAD": head} {
			a.Header.Del("Date")
			if diff := cmp.Diff(want, a.Header); diff != "" {
				t.Errorf("%s %s headers (-want +got):\n%s", method, path, diff)
			}
		}
	}
}

func TestManifestHeadNeedsNoBytes(t *testing.T) {
	f := &fakeCache{manifest: aManifest(t)}
	f.manifest.Bytes = nil
	url := serve(t, newHandler(t, f, nil))
	if a := ask(t, "HEAD", url+"/v2/library/nginx/manifests/latest"); a.StatusCode != 200 || a.ContentLength != f.manifest.Desc.Size {
		t.Errorf("HEAD = %d, length %d, want 200 and %d", a.StatusCode, a.ContentLength, f.manifest.Desc.Size)
	}
}

// What clients fail on for good is an error that sends them elsewhere.
func TestBrokenManifestIsNeverServed(t *testing.T) {
	rows := map[string]func(*cache.Manifest){
		"no type":         func(m *cache.Manifest) { m.Desc.MediaType = "" },
		"no size":         func(m *cache.Manifest) { m.Desc.Size, m.Bytes = 0, nil },
		"no digest":       func(m *cache.Manifest) { m.Desc.Digest = v1.Hash{} },
		"another digest":  func(m *cache.Manifest) { m.Desc.Digest.Hex = "b" + hexA[1:] },
		"bytes too short": func(m *cache.Manifest) { m.Bytes = m.Bytes[1:] },
	}
	for name, change := range rows {
		f := &fakeCache{manifest: aManifest(t)}
		change(&f.manifest)
		url := serve(t, newHandler(t, f, nil))
		if a := ask(t, "GET", url+"/v2/library/nginx/manifests/"+digestA); a.StatusCode != 503 || a.Header.Get("Docker-Content-Digest") != "" {
			t.Errorf("manifest with %s = %d %v, want 503", name, a.StatusCode, a.Header)
		}
	}
}

func TestManifestConditions(t *testing.T) {
	f := &fakeCache{manifest: aManifest(t)}
	url := serve(t, newHandler(t, f, nil))
	rows := []struct {
		header, value string
		want          int
	}{
		{"If-None-Match", `"` + digestA + `"`, 304},
		{"If-None-Match", digestA, 304},
		{"If-None-Match", "*", 304},
		{"If-None-Match", `"sha256:other"`, 200},
		{"If-Match", `"` + digestA + `"`, 200},
		{"If-Match", "*", 200},
		{"If-Match", `"sha256:other"`, 412},
		{"If-Match", `W/"` + digestA + `"`, 412}, // RFC 9110, 13.1.1: the comparison is strong
		{"If-Modified-Since", time.Now().UTC().Format(http.TimeFormat), 200},
		{"Range", "bytes=0-", 200}, // a whole manifest is the way to say: no ranges
		{"Accept", ociManifest, 200},
		{"Accept", "*/*", 200},
		{"Accept", ociIndex + ", */*", 200},
		{"Accept", ociIndex, 404},
	}
	for _, row := range rows {
		for _, method := range []string{"GET", "HEAD"} {
			a := ask(t, method, url+"/v2/library/nginx/manifests/latest", row.header, row.value)
			if a.StatusCode != row.want {
				t.Errorf("%s with %s: %s = %d, want %d", method, row.header, row.value, a.StatusCode, row.want)
			}
			if row.want == 304 && (a.body != "" || a.Header.Get("ETag") == "" || a.Header.Get("Docker-Content-Digest") != digestA) {
				t.Errorf("304 with body %q and headers %v", a.body, a.Header)
			}
			if row.want == 412 && (a.Header.Get("ETag") != "" || method == "GET" && a.code() == "") {
				t.Errorf("412 with headers %v and body %q, want an error", a.Header, a.body)
			}
			if row.want == 404 && method == "GET" && a.code() != "MANIFEST_UNKNOWN" {
				t.Errorf("a type that is not accepted: %s", a.body)
			}
		}
	}
}

func TestTypesThatAClientTakesBeyondTheUsual(t *testing.T) {
	f := &fakeCache{manifest: aManifest(t)}
	url := serve(t, newHandler(t, f, nil))
	for accept, want := range map[string]string{
		"*/*": "", ociManifest + ", " + ociIndex: "",
		"application/vnd.example.manifest.v1+json;q=0.5, */*": "application/vnd.example.manifest.v1+json",
	} {
		ask(t, "GET", url+"/v2/library/nginx/manifests/latest", "Accept", accept)
		if f.accept != want {
			t.Errorf("Accept %q: the cache was told of %q, want %q", accept, f.accept, want)
		}
	}
}

// T32: what is stale says so.
func TestStaleManifestCarriesWarning(t *testing.T) {
	f := &fakeCache{manifest: aManifest(t)}
	f.manifest.Result, f.manifest.StaleFor = cache.Stale, time.Hour
	url := serve(t, newHandler(t, f, nil))
	a := ask(t, "GET", url+"/v2/library/nginx/manifests/latest")
	got := a.Header.Values("Warning")
	if a.StatusCode != 200 || len(got) != 2 || got[0] != `110 - "Response is Stale"` || !strings.HasPrefix(got[1], `299 - "stale`) {
		t.Errorf("stale manifest = %d, Warning %q, want the codes 110 and 299", a.StatusCode, got)
	}
}

// T34: podman stays with whoever gave it the manifest.
func TestContainersImageGetsNoManifestWithoutBlobs(t *testing.T) {
	const podman, path = "containers/5.40.0 (github.com/containers/image)", "/v2/library/nginx/manifests/latest"
	f := &fakeCache{manifest: aManifest(t)}
	url := serve(t, newHandler(t, f, nil))
	none := serve(t, newHandler(t, f, func(o *Options) { o.Fallback = FallbackNone }))
	rows := []struct {
		troubled, unservable bool
		url, agent           string
		want                 int
	}{
		{false, false, url + path, podman, 200},
		{true, false, url + path, podman, 503},
		{false, true, url + path, podman, 503},
		{true, false, url + "/v2/docker.io/library/nginx/manifests/latest", "cri-o/1.33", 503},
		{true, true, url + path, "containerd/2.3.4", 200},
		{true, true, url + path, "docker/28", 200},
		{true, true, none + path, podman, 200},
		{true, true, url + "/v2/docker.io/library/nginx/manifests/latest", "skopeo/1.20", 200}, // direct
	}
	for _, row := range rows {
		f.troubled, f.unservable = row.troubled, row.unservable
		if a := ask(t, "GET", row.url, "User-Agent", row.agent); a.StatusCode != row.want {
			t.Errorf("%s to %s, troubled %t, unservable %t = %d, want %d", row.url, row.agent, row.troubled, row.unservable, a.StatusCode, row.want)
		}
	}
}
