package proxy

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"forebay/cache"
	"forebay/internal/pull"
)

func TestObserveTellsOfEveryRequest(t *testing.T) {
	var seen []Request
	f := &fakeCache{manifest: aManifest(t), result: cache.Joined, tags: []string{"a"}}
	f.writeBlob(t, someData(5000))
	h := newHandler(t, f, func(o *Options) { o.Observe = func(r *Request) { seen = append(seen, *r) } })
	rows := []struct {
		method, target string
		err            error
		want           Request
	}{
		{"GET", "/v2/nginx/manifests/latest?ns=docker.io", nil,
			Request{Upstream: "docker.io", Repository: "library/nginx", Reference: "latest", Kind: KindManifest, Result: cache.Hit, Status: 200}},
		{"HEAD", "/v2/ghcr.io/a/b/manifests/" + digestA, nil,
			Request{Upstream: "ghcr.io", Repository: "a/b", Reference: digestA, Digest: mustDigest(t, digestA), Kind: KindManifest, Result: cache.Hit, Status: 200}},
		{"GET", blobPath, nil,
			Request{Upstream: "docker.io", Repository: "library/nginx", Reference: digestA, Digest: mustDigest(t, digestA), Kind: KindBlob, Result: cache.Joined, Status: 200}},
		{"GET", "/v2/nginx/tags/list", nil,
			Request{Upstream: "docker.io", Repository: "library/nginx", Kind: KindTags, Result: cache.Joined, Status: 200}},
		{"GET", "/v2/", nil, Request{Kind: KindPing, Status: 200}},
		{"GET", "/v2/_catalog", nil, Request{Kind: KindCatalog, Result: cache.Hit, Status: 200}},
		{"GET", "/favicon.ico", nil, Request{Kind: KindOther, Result: Failed, Status: 404}},
		{"GET", "/v2/unknown.example/a/b/manifests/x", nil, Request{Repository: "unknown.example/a/b", Reference: "x", Kind: KindManifest, Result: Failed, Status: 404}},
		{"PUT", "/v2/nginx/manifests/latest", nil, Request{Kind: KindOther, Result: Failed, Status: 405}},
		{"GET", "/v2/nginx/manifests/latest", kind(pull.NotFound),
			Request{Upstream: "docker.io", Repository: "library/nginx", Reference: "latest", Kind: KindManifest, Result: Failed, Status: 404}},
	}
	for _, row := range rows {
		seen, f.err = nil, row.err
		req := httptest.NewRequest(row.method, row.target, nil)
		req.RemoteAddr = "[2001:db8::7]:4711"
		req.Header.Set("User-Agent", "test/1")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if len(seen) != 1 {
			t.Errorf("%s %s: told of %d requests, want 1", row.method, row.target, len(seen))
			continue
		}
		got, want := seen[0], row.want
		want.Method, want.Client, want.UserAgent = row.method, "2001:db8::7", "test/1"
		if want.Bytes = int64(rec.Body.Len()); row.method == "HEAD" {
			want.Bytes = 0
		}
		if (got.Err != nil) != (want.Result == Failed) {
			t.Errorf("%s %s: result %q with error %v", row.method, row.target, got.Result, got.Err)
		}
		if got.FirstByte <= 0 || got.Took < got.FirstByte {
			t.Errorf("%s %s: first byte after %s, all after %s", row.method, row.target, got.FirstByte, got.Took)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Request{}, "FirstByte", "Took", "Err")); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", row.method, row.target, diff)
		}
	}
}

func TestObserveTellsHowBodiesEnd(t *testing.T) {
	var seen []Request
	told := func(o *Options) { o.Observe = func(r *Request) { seen = append(seen, *r) } }
	f := &fakeCache{result: cache.Miss, blob: fakeBlob{data: someData(50000), failAt: 30000, fail: errors.New("disk on fire")}}
	ask(t, "GET", serve(t, newHandler(t, f, told))+blobPath)
	if len(seen) != 1 || seen[0].Result != Failed || seen[0].Bytes != 30000 || seen[0].Status != 200 || !strings.Contains(seen[0].Err.Error(), "disk on fire") {
		t.Errorf("broken body: told %+v", seen)
	}

	seen = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f = &fakeCache{err: context.Canceled}
	newHandler(t, f, told).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", blobPath, nil))
	if len(seen) != 1 || seen[0].Result != NoResult || seen[0].Status != statusClientLeft || seen[0].Err != nil {
		t.Errorf("client that left: told %+v", seen)
	}
}

func TestObservingAllocatesNothing(t *testing.T) {
	f := &fakeCache{manifest: aManifest(t), result: cache.Hit}
	r := httptest.NewRequest("GET", "/v2/library/nginx/manifests/latest", nil)
	r.Header.Set("User-Agent", "containerd/2.3.4")
	per := func(change func(*Options)) float64 {
		h := newHandler(t, f, change)
		return testing.AllocsPerRun(200, func() {
			f.calls = f.calls[:0]
			h.ServeHTTP(&nowhere{header: make(map[string][]string, 16)}, r)
		})
	}
	without := per(nil)
	var told int
	with := per(func(o *Options) { o.Observe = func(*Request) { told++ } })
	if with > without || told == 0 {
		t.Errorf("a request costs %v allocations when observed, want %v as without (told %d times)", with, without, told)
	}
}
