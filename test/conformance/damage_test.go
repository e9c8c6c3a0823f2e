package conformance

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// blobFile is where the mirror keeps a blob (the design, "On disk").
func blobFile(m *mirrortest.Mirror, digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return filepath.Join(m.Dir, "blobs", algorithm, hex[:2], hex)
}

// damage changes a kept file in place.
func damage(t testing.TB, file string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("read kept blob: %s", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, change(b), 0o600); err != nil {
		t.Fatalf("damage kept blob: %s", err)
	}
}

// damages are what happens to files.
func damages() map[string]func([]byte) []byte {
	return map[string]func([]byte) []byte{
		"first byte":  func(b []byte) []byte { b[0] ^= 1; return b },
		"middle byte": func(b []byte) []byte { b[len(b)/2] ^= 0x80; return b },
		"last byte":   func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"truncated":   func(b []byte) []byte { return b[:len(b)/2] },
		"one short":   func(b []byte) []byte { return b[:len(b)-1] },
		"one long":    func(b []byte) []byte { return append(b, 'x') },
		"empty":       func([]byte) []byte { return nil },
		"zeroes":      func(b []byte) []byte { return make([]byte, len(b)) },
	}
}

// T11 of docs/clients.md, containerd#9552, distribution#4191: a mirror with a damaged file
// answered 200 with it, for good. Damage is found, nobody gets a complete wrong body, and the next one who
// asks gets the right one.
func TestT11_DamagedFilesAreFetchedAgain(t *testing.T) {
	t.Parallel()
	for name, change := range damages() {
		for _, size := range []int{5_000, 2<<20 + 9} {
			t.Run(fmt.Sprintf("%s of %d", name, size), func(t *testing.T) {
				hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
				raw := letters(size, size)
				digest := hub.PutBlob("library/app", raw)
				path := "/v2/library/app/blobs/" + digest
				c.get(m.URL, path).assertBlob(t, digest, raw)
				m.Stop()
				damage(t, blobFile(m, digest), change)
				m.Start()
				c.get(m.URL, path).assertNeverWrong(t, raw)
				c.get(m.URL, path).assertBlob(t, digest, raw)

				m.Stop()
				damage(t, blobFile(m, digest), change)
				m.Start()
				hub.SwitchOff()
				for range 3 {
					a := c.get(m.URL, path)
					a.assertNeverWrong(t, raw)
					if a.Status == http.StatusOK && a.Err == nil {
						t.Errorf("%s: a whole blob, though neither disk nor upstream have it", a.request)
					}
				}
			})
		}
	}
}

// T11: ranges of a damaged file: no client may put together a wrong blob that it then
// takes for whole, and the damage does not stay.
func TestT11_RangesOfDamagedFiles(t *testing.T) {
	t.Parallel()
	for name, change := range damages() {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			raw := letters(1, 2<<20)
			digest := hub.PutBlob("library/app", raw)
			path := "/v2/library/app/blobs/" + digest
			c.get(m.URL, path).assertBlob(t, digest, raw)
			m.Stop()
			damage(t, blobFile(m, digest), change)
			m.Start()
			a := c.get(m.URL, path, "Range: bytes=1000000-")
			if a.Status == http.StatusPartialContent && a.Err == nil && string(a.Body) != string(raw[1000000:]) {
				t.Errorf("%s: a complete range with wrong bytes", a.request)
			}
			eventually(t, "the right blob", func() bool {
				a := c.get(m.URL, path)
				a.assertNeverWrong(t, raw)
				return a.Status == http.StatusOK && a.Err == nil
			})
		})
	}
}

// T11: a file that changes its length under a running mirror, which has verified it.
func TestT11_FilesTruncatedWhileRunning(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"truncated", "one short", "one long", "empty"} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			raw := letters(1, 2<<20)
			digest := hub.PutBlob("library/app", raw)
			path := "/v2/library/app/blobs/" + digest
			for range 2 {
				c.get(m.URL, path).assertBlob(t, digest, raw)
			}
			m.Settle()
			damage(t, blobFile(m, digest), damages()[name])
			c.get(m.URL, path).assertNeverWrong(t, raw)
			if a := c.head(m.URL, path); a.Status == http.StatusOK && a.Length != int64(len(raw)) {
				t.Errorf("%s: Content-Length %d, want %d or an error", a.request, a.Length, len(raw))
			}
			eventually(t, "the right blob", func() bool {
				a := c.get(m.URL, path)
				a.assertNeverWrong(t, raw)
				return a.Status == http.StatusOK && a.Err == nil
			})
		})
	}
}

// T11: the same for manifests, which are small and always checked whole.
func TestT11_DamagedManifests(t *testing.T) {
	t.Parallel()
	for name, change := range damages() {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
			pull(t, c, m, hub, img)
			m.Stop()
			damage(t, blobFile(m, img.Digest), change)
			m.Start()
			for _, ref := range []string{"latest", img.Digest} {
				for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodHead} {
					c.ask(method, m.URL, "/v2/library/app/manifests/"+ref).assertManifest(t, img.MediaType, img.Digest, img.Raw)
				}
			}
			m.Stop()
			damage(t, blobFile(m, img.Digest), change)
			m.Start()
			hub.SwitchOff()
			for _, ref := range []string{"latest", img.Digest} {
				if a := c.get(m.URL, "/v2/library/app/manifests/"+ref); a.Status < 400 {
					t.Errorf("%s: status %d with %d bytes, want an error", a.request, a.Status, len(a.Body))
				}
			}
		})
	}
}
