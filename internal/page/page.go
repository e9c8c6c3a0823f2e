// Package page is the dashboard: a small web application in the binary.
//
// It promises that a browser loads nothing from elsewhere and runs nothing but the files in
// assets: there is no inline script or style, and the policy in every answer allows none.
// The files hold no secret, so that everybody may load them; what they show comes from the
// admin API, which decides who may ask.
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"

	"forebay/internal/wire"
)

//go:embed assets
var assets embed.FS

// Prefix is where the files are. What follows it is a digest of all of them, so that they
// may be kept for ever, and then the name.
const Prefix = "/ui/"

// policy lets the page load its own files and ask its own server, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the page at / and its files below [Prefix].
type Handler struct {
	index file
	files map[string]file // by path
}

// file is what is sent for one path.
type file struct {
	mime    string
	etag    string
	plain   []byte
	zipped  func() []byte // compressed when it is first asked for; nil where that is no smaller
	forever bool          // its path changes with its content
}

// New reads the embedded files. It fails only when the binary was built wrongly.
func New() (*Handler, error) {
	whole := sha256.New()
	contents := map[string][]byte{}
	err := fs.WalkDir(assets, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		contents[strings.TrimPrefix(name, "assets/")] = b
		fmt.Fprintf(whole, "%s %d\n", name, len(b)) // WalkDir goes in the order of the names
		whole.Write(b)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the page: %w", err)
	}
	base := Prefix + hex.EncodeToString(whole.Sum(nil)[:8]) + "/"
	h := &Handler{files: map[string]file{}}
	for name, b := range contents {
		if kinds[path.Ext(name)] == "" {
			return nil, fmt.Errorf("read the page: %s is of no known kind", name)
		}
		if name == "index.html" {
			h.index = newFile(name, bytes.ReplaceAll(b, []byte("{{base}}"), []byte(base)), false)
		} else {
			h.files[base+name] = newFile(name, b, true)
		}
	}
	if h.index.plain == nil {
		return nil, fmt.Errorf("read the page: there is no index.html")
	}
	return h, nil
}

// kinds are the media types of the files, whatever the machine's own table says.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

func newFile(name string, b []byte, forever bool) file {
	sum := sha256.Sum256(b)
	return file{
		mime: kinds[path.Ext(name)], etag: `"` + hex.EncodeToString(sum[:12]) + `"`, plain: b, forever: forever,
		zipped: sync.OnceValue(func() []byte { return zip(b) }),
	}
}

// zip returns b compressed, or nil where that is no smaller.
func zip(b []byte) []byte {
	var zipped bytes.Buffer
	z, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err != nil {
		panic(err) // there is such a level
	}
	_, err = z.Write(b)
	if err = errors.Join(err, z.Close()); err != nil || zipped.Len() >= len(b) { // a buffer refuses nothing
		return nil
	}
	return zipped.Bytes()
}

// ServeHTTP answers GET and HEAD of the page and its files.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := h.files[r.URL.Path]
	if r.URL.Path == "/" {
		f, ok = h.index, true
	}
	if !ok {
		http.Error(w, "There is no such page. The dashboard is at /", http.StatusNotFound)
		return
	}
	f.serve(w, r)
}

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Content-Type", f.mime)
	header.Add("Vary", "Accept-Encoding")
	header.Set("Cache-Control", "no-cache")
	if f.forever {
		header.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	body, etag := f.plain, f.etag
	if wire.AcceptsGzip(r.Header.Get("Accept-Encoding")) && f.zipped() != nil {
		header.Set("Content-Encoding", "gzip")
		body, etag = f.zipped(), strings.TrimSuffix(f.etag, `"`)+`-gzip"`
	}
	header.Set("ETag", etag)
	if matches(r.Header.Get("If-None-Match"), etag) {
		header.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may be gone
	}
}

// matches compares an If-None-Match, weakly, with a tag.
func matches(header, etag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
		if one == etag || one == "*" {
			return true
		}
	}
	return false
}
