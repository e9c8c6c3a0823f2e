package page

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func open(t *testing.T) *Handler {
	t.Helper()
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ask(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// links are the files that a document names.
func links(text string) (paths []string) {
	for _, m := range regexp.MustCompile(`(?:src|href)="(/[^"]+)"`).FindAllStringSubmatch(text, -1) {
		paths = append(paths, m[1])
	}
	return paths
}

func TestPageNamesOnlyFilesThatAreServed(t *testing.T) {
	h := open(t)
	w := ask(h, "/")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" || w.Header().Get("Cache-Control") != "no-cache" {
		t.Fatalf("GET / = %d %v", w.Code, w.Header())
	}
	paths := links(w.Body.String())
	if len(paths) < 10 {
		t.Fatalf("the page names %d files: %v", len(paths), paths)
	}
	for _, path := range paths {
		f := ask(h, path)
		if f.Code != http.StatusOK || !strings.Contains(f.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("GET %s = %d %v", path, f.Code, f.Header())
		}
	}
	for _, path := range []string{"/ui/", "/ui/0000000000000000/app.js", "/ui/../page.go", paths[0] + "/"} {
		if w := ask(h, path); w.Code != http.StatusNotFound {
			t.Errorf("GET %s = %d, want 404", path, w.Code)
		}
	}
}

func TestEveryFileGoesOutWithThePolicy(t *testing.T) {
	h := open(t)
	for _, path := range append(links(ask(h, "/").Body.String()), "/") {
		w := ask(h, path)
		for name, want := range map[string]string{
			"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("GET %s: %s: %s, want %s", path, name, got, want)
			}
		}
	}
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy lacks %s", part)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("the policy allows what is unsafe: %s", policy)
	}
}

func TestFilesAreZippedAndKnownAgain(t *testing.T) {
	h := open(t)
	plain, zipped := ask(h, "/"), ask(h, "/", "Accept-Encoding", "br, gzip")
	z, err := gzip.NewReader(bytes.NewReader(zipped.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(got, plain.Body.Bytes()) || zipped.Header().Get("Content-Encoding") != "gzip" {
		t.Errorf("zipped: %v, %d bytes, want the same %d: %v", zipped.Header(), len(got), plain.Body.Len(), err)
	}
	etag := zipped.Header().Get("ETag")
	if etag == plain.Header().Get("ETag") || etag == "" {
		t.Errorf("ETag of zipped and plain are %s", etag)
	}
	for _, known := range []string{etag, `"other", W/` + etag, "*"} {
		if w := ask(h, "/", "Accept-Encoding", "gzip", "If-None-Match", known); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("If-None-Match %s = %d with %d bytes, want 304", known, w.Code, w.Body.Len())
		}
	}
	for _, refused := range []string{"", "br", "gzip;q=0", "gzip; q=0.0", "identity"} {
		if w := ask(h, "/", "Accept-Encoding", refused); w.Header().Get("Content-Encoding") != "" {
			t.Errorf("Accept-Encoding %q is answered with gzip", refused)
		}
	}
}

// All of it together, as a browser fetches it first.
func TestWeight(t *testing.T) {
	h := open(t)
	sum := ask(h, "/", "Accept-Encoding", "gzip").Body.Len()
	for _, path := range links(ask(h, "/").Body.String()) {
		sum += ask(h, path, "Accept-Encoding", "gzip").Body.Len()
	}
	t.Logf("the page has %d bytes zipped", sum)
	if sum > 100<<10 {
		t.Errorf("the page has %d bytes zipped, want at most 100 KiB: the rest of 200 is for figures", sum)
	}
}

// What makes markup of text, runs text, or loads from elsewhere has no place in our files.
func TestFilesHaveNothingThatReadsMarkup(t *testing.T) {
	bad := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|createContextualFragment|DOMParser|style="|\son[a-z]+="`)
	elsewhere := regexp.MustCompile(`https?://[a-z0-9.-]+`)
	err := fs.WalkDir(assets, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, "assets/vendor/") {
			return nil // as it is published; the browser's policy holds for it too
		}
		if m := bad.Find(b); m != nil {
			t.Errorf("%s has %s", name, m)
		}
		for _, m := range elsewhere.FindAll(b, -1) {
			if string(m) != "http://www.w3.org" { // the name of a namespace
				t.Errorf("%s names %s", name, m)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
