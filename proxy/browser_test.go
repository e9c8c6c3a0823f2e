package proxy

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"forebay/cache"
)

// What browsers send: for a page of another site, for a page whose name was made to mean our address,
// and for people; over TLS or to this machine, and over plain HTTP to another machine.
var browserRequests = []struct {
	name, method string
	headers      []string
}{
	{"image", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}},
	{"image of the same site", "GET", []string{"Sec-Fetch-Site", "same-site"}},
	{"rebound page", "GET", []string{"Host", "evil.example", "Sec-Fetch-Site", "same-origin"}},
	{"typed in", "GET", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}},
	{"one header alone", "HEAD", []string{"Sec-Fetch-Mode", "cors"}},
	{"a header that is yet to come", "GET", []string{"Sec-Fetch-Storage-Access", "active"}},
	{"empty value", "GET", []string{"Sec-Fetch-User", ""}},
	{"fetch", "GET", []string{"Origin", "https://evil.example"}},
	{"fetch of a file", "GET", []string{"Origin", "null"}},
	{"fetch of another port", "GET", []string{"Origin", "http://127.0.0.1:1"}},
	{"two origins", "GET", []string{"Host", "mirror.example", "Origin", "http://mirror.example", "Origin", "http://evil.example"}},
	{"no origin at all", "GET", []string{"Origin", ""}},
	{"socket", "GET", []string{"Upgrade", "websocket", "Connection", "Upgrade", "Sec-Websocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}},
	{"image over plain HTTP", "GET", []string{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}},
	{"preflight", "OPTIONS", []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "GET"}},
	{"form", "POST", []string{"Origin", "https://evil.example", "Content-Type", "text/plain"}},
	{"delete", "DELETE", []string{"Sec-Fetch-Site", "cross-site"}},
}

func TestBrowsersAreRefusedBeforeAnythingIsDone(t *testing.T) {
	var seen []Request
	f := &fakeCache{manifest: aManifest(t), tags: []string{"a"}}
	f.writeBlob(t, someData(5000))
	h := newHandler(t, f, func(o *Options) {
		o.Observe = func(r *Request) { seen = append(seen, *r) }
		o.Instance = "here"
	})
	paths := []string{"/v2/", "/v2/_catalog", "/v2/nginx/manifests/latest?ns=docker.io", blobPath, "/v2/nginx/tags/list", "/v2/nginx/referrers/" + digestA,
		"/nothing", "/v2/unknown.example/a/manifests/x"}
	for _, b := range browserRequests {
		for _, path := range paths {
			seen = nil
			a := ask(t, b.method, serve(t, h)+path, b.headers...)
			if a.StatusCode != http.StatusForbidden || b.method != "HEAD" && a.code() != "DENIED" {
				t.Errorf("%s: %s %s = %d %s, want 403 DENIED", b.name, b.method, path, a.StatusCode, a.body)
			}
			for name := range a.Header {
				if strings.HasPrefix(name, "Access-Control-") || name == "Allow" || name == "Docker-Content-Digest" {
					t.Errorf("%s: %s %s tells a page %s: %s", b.name, b.method, path, name, a.Header[name])
				}
			}
			if got := f.asked(); got != "" {
				t.Errorf("%s: %s %s asks the cache for %s", b.name, b.method, path, got)
			}
			if len(seen) != 1 || seen[0].Kind != KindBrowser || seen[0].Result != Failed || seen[0].Upstream != "" {
				t.Errorf("%s: %s %s is told as %+v, want one browser", b.name, b.method, path, seen)
			}
		}
	}
}

func TestClientsThatNameUsAsOriginAreServed(t *testing.T) {
	f := &fakeCache{manifest: aManifest(t), result: cache.Hit}
	h := newHandler(t, f, nil)
	for _, headers := range [][]string{
		nil,
		{"Host", "mirror.example:5000", "Origin", "http://mirror.example:5000"},
		{"Host", "mirror.example", "Origin", "https://Mirror.example"},
		{"User-Agent", "", "Referer", "https://example.com/", "Accept-Language", "en", "Cookie", "a=b"},
		{"User-Agent", "containerd/2.1.0", "Secret", "x"},
	} {
		r := httptest.NewRequest("GET", "/v2/nginx/manifests/latest?ns=docker.io", nil)
		for i := 0; i+1 < len(headers); i += 2 {
			if r.Header.Add(headers[i], headers[i+1]); headers[i] == "Host" {
				r.Host = headers[i+1]
			}
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusOK {
			t.Errorf("GET with %q = %d %s, want 200", headers, w.Code, w.Body)
		}
	}
}
