package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"forebay/test/hubtest"
)

// ownRegistry is a registry of one's own, which wants a password, and counts what it is sent.
type ownRegistry struct {
	host string
	mu   sync.Mutex
	sent map[string]int
	full bool // answers 429 to whoever writes
}

func newOwnRegistry(t *testing.T) *ownRegistry {
	t.Helper()
	r := &ownRegistry{sent: map[string]int{}}
	handler := registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if user, password, _ := q.BasicAuth(); user != "me" || password != "s3cr3t" {
			w.Header().Set("WWW-Authenticate", `Basic realm="own"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.mu.Lock()
		what := q.Method + " blob"
		if strings.Contains(q.URL.Path, "/manifests/") {
			what = q.Method + " manifest"
		}
		r.sent[what]++
		full := r.full && q.Method != http.MethodGet && q.Method != http.MethodHead
		r.mu.Unlock()
		if full {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		handler.ServeHTTP(w, q)
	}))
	t.Cleanup(s.Close)
	r.host = strings.TrimPrefix(s.URL, "http://")
	config := t.TempDir()
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, r.host, base64.StdEncoding.EncodeToString([]byte("me:s3cr3t")))), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", config)
	return r
}

// counts returns what it was sent since it was last asked.
func (r *ownRegistry) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.sent
	r.sent = map[string]int{}
	return was
}

// has fails unless the registry serves bytes.
func (r *ownRegistry) has(t *testing.T, path, want string) {
	t.Helper()
	status, body := get(t, "http://"+r.host+"/v2/"+path, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("me:s3cr3t")))
	if status != 200 || body != want {
		t.Errorf("the registry answers %s with %d and %d bytes, want %d bytes", path, status, len(body), len(want))
	}
}

// An image that vanished goes to a registry of one's own with its signature, each byte once.
func TestCopyTakesImagesToAnotherRegistry(t *testing.T) {
	o, own := newOperated(t, ""), newOwnRegistry(t)
	one := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{Index: true, Platforms: []string{"linux/amd64", "linux/arm64"}, LayerSize: 100 << 10, Seed: 1})
	signature := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/example","config":%s,"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		hubtest.OCIManifest, asText(t, one.Children[0].Config), one.MediaType, one.Digest, len(one.Raw))
	referrer := o.hub.AddReferrer("library/app", one.Digest, "application/example", hubtest.OCIManifest, []byte(signature))
	other := o.hub.PushImage("acme/same", "2", hubtest.ImageSpec{Index: true, Platforms: []string{"linux/amd64", "linux/arm64"}, LayerSize: 100 << 10, Seed: 1})

	out, _ := o.run(0, "copy", "app:1", "acme/same:2", "--platform", "all", "--fetch", own.host+"/mirror/")
	if !strings.Contains(out, "docker.io/library/app:1 → "+own.host+"/mirror/library/app:1: 6 of 6 blobs sent") || !strings.Contains(out, "acme/same:2: nothing was missing of 6 blobs") {
		t.Errorf("copy says %q", out)
	}
	for _, at := range []struct {
		repo string
		img  *hubtest.Image
	}{{"mirror/library/app", one}, {"mirror/acme/same", other}} {
		own.has(t, at.repo+"/manifests/"+at.img.Tag, string(at.img.Raw))
		for _, c := range at.img.Children {
			own.has(t, at.repo+"/manifests/"+c.Digest, string(c.Raw))
		}
	}
	if n := own.counts(); n["PUT blob"] != 6 {
		t.Errorf("the registry was sent %v, want 6 blobs", n)
	}
	o.run(0, "prefetch", "app:1", "--referrers", "--platform", "all", "--wait")
	own.counts()
	out, _ = o.run(0, "copy", "app:1", "--platform", "all", own.host+"/mirror/library/app")
	if !strings.Contains(out, "nothing was missing of 6 blobs, 1 referrer") {
		t.Errorf("copy again says %q", out)
	}
	if n := own.counts(); n["POST blob"]+n["PATCH blob"] != 0 || n["PUT manifest"] != 1 {
		t.Errorf("the registry was sent %v, want the signature alone", n)
	}
	own.has(t, "mirror/library/app/manifests/"+referrer, signature)
}

func asText(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Of an image of which one platform is kept, that gets the tag.
func TestCopyOfOnePlatform(t *testing.T) {
	o, own := newOperated(t, ""), newOwnRegistry(t)
	img := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{Index: true, Platforms: []string{"linux/amd64", "linux/arm64"}})
	o.run(0, "prefetch", "app:1", "--platform", "linux/arm64", "--wait")
	o.run(0, "copy", "app:1", "--platform", "linux/arm64", own.host+"/app:arm")
	own.has(t, "app/manifests/arm", string(img.Children[1].Raw))
}

func TestCopyRefusesWhatCannotWork(t *testing.T) {
	o, own := newOperated(t, ""), newOwnRegistry(t)
	o.hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	o.run(0, "prefetch", "app:1", "--wait")
	for want, args := range map[string][]string{
		"no images are named":      {own.host + "/mirror/"},
		"is the name of one image": {"app:1", "nginx:1", own.host + "/mirror/app"},
		"names no registry":        {"app:1", "mirror/app"},
		"cannot be the name of an": {"app:1", own.host + "/MIRROR/"},
	} {
		if _, stderr := o.run(2, append([]string{"copy"}, args...)...); !strings.Contains(stderr, want) {
			t.Errorf("copy %v says %q, want %q", args, stderr, want)
		}
	}
	if out, stderr := o.run(3, "copy", "app:1", "nginx:1", own.host+"/mirror/"); !strings.Contains(out, "docker.io/library/nginx:1 is not kept here") || !strings.Contains(stderr, "1 of 2 images not copied") {
		t.Errorf("copy of what is not kept says %q %q", out, stderr)
	}
	own.full = true
	if out, _ := o.run(4, "copy", "app:1", own.host+"/more/"); strings.Contains(out, "s3cr3t") {
		t.Errorf("copy says %q", out)
	}
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	if out, _ := o.run(1, "copy", "app:1", own.host+"/more/"); !strings.Contains(out, "UNAUTHORIZED") && !strings.Contains(out, "401") {
		t.Errorf("copy without a login says %q", out)
	}
}
