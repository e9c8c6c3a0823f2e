package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// What the mirror keeps goes to a real registry when those that it came from are gone: each blob is
// uploaded once, mounted where another repository has it, and not sent again.
func TestImagesAreCopiedToARealRegistry(t *testing.T) {
	w := newWorld(t, worldOptions{})
	own := startRegistry(t, stateDir(t))
	target, err := url.Parse(own.url)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	uploads, mounts, twice := map[string]int{}, 0, 0 // by digest
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(res *http.Response) error {
		mu.Lock()
		defer mu.Unlock()
		q := res.Request.URL.Query()
		switch {
		case res.Request.Method == http.MethodPut && q.Get("digest") != "":
			if uploads[q.Get("digest")]++; uploads[q.Get("digest")] > 1 {
				twice++
			}
		case res.Request.Method == http.MethodPost && q.Get("mount") != "" && res.StatusCode == http.StatusCreated:
			mounts++
		}
		return nil
	}
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { // the host stays, for Location
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	var list strings.Builder
	for repo := range w.images {
		fmt.Fprintf(&list, "%s:%s\n", repo, catalogueTag)
	}
	images := writeFile(t, stateDir(t), "images.txt", list.String())
	must(t, "prefetch", "-f", images, "--platform", "all", "--referrers", "--config", w.mirror.file)
	to := strings.TrimPrefix(front.URL, "http://") + "/kept/"
	if out, err := forebayRun(t.Context(), "copy", "-f", images, "--platform", "all", "--fetch", to, "--config", w.mirror.file); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for repo, img := range w.images {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, own.url+"/v2/kept/"+repo+"/manifests/"+img.digest.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", string(img.mediaType))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || newBlob(body).digest != img.digest {
			t.Errorf("%s by digest: %d and %d bytes, %v", repo, res.StatusCode, len(body), err)
		}
	}
	if twice > 0 || mounts == 0 {
		t.Errorf("%d blobs were uploaded twice, and %d mounted; want 0, and some", twice, mounts)
	}
	t.Logf("%d blobs uploaded, %d mounted", len(uploads), mounts)
	w.hub.SwitchOff()
	out := must(t, "copy", "-f", images, "--platform", "all", to, "--config", w.mirror.file)
	if n := strings.Count(out, "nothing was missing"); n != len(w.images) {
		t.Errorf("copied again it says of %d images that nothing was missing, want %d:\n%s", n, len(w.images), out)
	}
}
