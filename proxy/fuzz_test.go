package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"forebay/cache"
)

// FuzzRequest holds that no request breaks the handler, and that every answer is one that
// a registry may give: never a challenge, a redirect or an internal error.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/v2/library/nginx/manifests/latest", "ns=docker.io", "m", "Range", "bytes=0-")
	f.Add("HEAD", blobPath, "", "ghcr.mirror.example:80", "If-None-Match", "*")
	f.Add("GET", blobPath, "", "", "Range", "bytes=0-1,5-9")
	f.Add("GET", "/ghcr.io/v2/a/tags/list", "n=2&last=b", "", "Accept", "text/html;q=0")
	f.Add("GET", "/v2/a/referrers/"+digestA, "artifactType=a&last=b", "", "User-Agent", "containers/5")
	f.Add("PUT", "/v2/_catalog", "n=-1", "", "Expect", "x")
	fake := &fakeCache{manifest: aManifest(f), tags: []string{"a", "b", "c"}, catalog: []string{"docker.io/a"}, result: cache.Hit}
	fake.writeBlob(f, someData(100))
	h := newHandler(f, fake, nil)
	allowed := map[int]bool{200: true, 206: true, 304: true, 400: true, 404: true, 405: true, 412: true, 416: true}
	f.Fuzz(func(t *testing.T, method, path, query, host, header, value string) {
		r := &http.Request{
			Method: method, URL: &url.URL{Path: path, RawQuery: query}, Host: host,
			Header: http.Header{http.CanonicalHeaderKey(header): {value}}, Body: http.NoBody, RemoteAddr: "192.0.2.1:1",
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(t.Context()))
		if !allowed[w.Code] || w.Header().Get("WWW-Authenticate") != "" || w.Header().Get("Location") != "" {
			t.Errorf("%s %q ? %q, %s: %q = %d %v", method, path, query, header, value, w.Code, w.Header())
		}
	})
}
