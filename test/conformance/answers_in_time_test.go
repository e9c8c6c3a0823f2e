package conformance

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forebay/cache"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/upstream"
)

// T14 of docs/clients.md, containerd#10624: a client may wait for headers for ever. With
// the shipped timeouts
// it hears within 20 s, wherever the upstream hangs; 2 s of them are left to the machine and
// the network.
func TestT14_HeadersWithinTwentySeconds(t *testing.T) {
	for name, rule := range map[string]hubtest.Rule{
		"registry": {Role: hubtest.RoleRegistry, Do: hubtest.Hang()},
		"token":    {Role: hubtest.RoleAuth, Do: hubtest.Hang()},
		"CDN":      {Role: hubtest.CDN, Do: hubtest.Hang()},
		"CDN drip": {Role: hubtest.CDN, Do: hubtest.StallAt(0)},
		"headers":  {Role: hubtest.RoleRegistry, Do: hubtest.SlowHeaders(5 * time.Second)},
		"body":     {Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Do: hubtest.StallAt(20)},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, bubbleOptions{})
			img := b.hub.PushImage("library/app", "latest", hubtest.ImageSpec{LayerSize: 3 << 20})
			b.hub.AddRule(rule)
			blobs := []string{"blobs/" + img.Children[0].Layers[0].Digest, "blobs/" + img.Children[0].Config.Digest}
			paths := append(blobs, "manifests/latest", "manifests/"+img.Digest, "tags/list", "referrers/"+img.Digest)
			switch {
			case rule.Role == hubtest.CDN:
				paths = blobs
			case rule.Route == hubtest.RouteManifest:
				paths = paths[2:4]
			}
			var wg sync.WaitGroup
			for _, path := range paths {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					if rule.Role == hubtest.CDN && method == http.MethodHead {
						continue
					}
					wg.Go(func() {
						a := b.askAs(agentDocker, method, "10.0.0.1", "/v2/library/app/"+path)
						if a.Took > 18*time.Second {
							t.Errorf("%s hangs: %s took %s", name, a.request, a.Took)
						}
						if a.Status < 400 && method == http.MethodGet {
							t.Errorf("%s hangs: %s: status %d, want an error", name, a.request, a.Status)
						}
					})
				}
			}
			wg.Wait()
		})
	}
}

// T14 over real connections, which have timeouts of their own.
func TestT14_HeadersOverTheWire(t *testing.T) {
	t.Parallel()
	hub := hubtest.New(t, hubtest.Options{})
	hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.Hang()})
	m := mirrortest.New(t, mirrortest.Options{Hub: hub})
	start := time.Now()
	a, err := newClient(t).try(context.Background(), http.MethodGet, m.URL, "/v2/library/app/manifests/latest", "User-Agent: "+agentDocker)
	if took := time.Since(start); err != nil || a.Status < 500 || took > 20*time.Second {
		t.Errorf("the registry hangs: %+v, %v after %s", a, err, took)
	}
}

// T14: a body that stalls is taken up again where it stopped, and the client sees nothing
// but a pause.
func TestT14_StalledBodiesGoOn(t *testing.T) {
	hub, m, c := setupWith(t, hubtest.Options{}, mirrortest.Options{}, upstream.Options{Timeouts: upstream.Timeouts{Stall: 2 * time.Second}})
	for _, at := range []int64{1, 100_000, 2_999_999} {
		digest := hub.PutBlob("library/app", letters(int(at), 3_000_000))
		hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Ref: digest, Count: 1, Do: hubtest.StallAt(at)})
		c.get(m.URL, "/v2/library/app/blobs/"+digest).assertBlob(t, digest, hub.Bytes(digest))
	}
	hub.AssertAllFired(t)
}

// TestPageOfALongListComesInTime: a page is answered while the whole list is under way, and its links lead
// through all pages of the registry, in whatever order it has them.
func TestPageOfALongListComesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{hub: hubtest.Options{TagsPaging: hubtest.PagingInner}, fetch: cache.UpstreamOptions{TagTTL: time.Hour}})
		img := b.hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
		want := []string{"latest"}
		for n := range 20_000 {
			tag := fmt.Sprintf("v%05d", n)
			b.hub.MoveTag("library/app", tag, img.Digest)
			want = append(want, tag)
		}
		slow := b.hub.AddRule(hubtest.Rule{Route: hubtest.RouteTags, Do: hubtest.Delay(2 * time.Second)})
		var got []string
		for path, n := "/v2/library/app/tags/list?n=500&ns=docker.io", 0; path != ""; n++ {
			a := b.askAs(agentRenovate, http.MethodGet, "10.0.0.1", path)
			if a.Status != http.StatusOK || a.Took > 7*time.Second {
				t.Fatalf("page %d: status %d after %s: %.200s", n, a.Status, a.Took, a.Body)
			}
			tags := a.tags(t).Tags
			if len(tags) > 500 {
				t.Errorf("page %d has %d tags, want at most 500", n, len(tags))
			}
			got = append(got, tags...)
			path, _, _ = strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
			if n == 3 { // and a page that fails is no end
				slow.Remove()
				broken := b.hub.AddRule(hubtest.Rule{Route: hubtest.RouteTags, Count: 1, Do: hubtest.Status(http.StatusNotImplemented)})
				if a := b.askAs(agentRenovate, http.MethodGet, "10.0.0.1", path); a.Status == http.StatusOK {
					t.Errorf("a page that fails is answered by %s", a.Body)
				}
				broken.Remove()
				slow = b.hub.AddRule(hubtest.Rule{Route: hubtest.RouteTags, Do: hubtest.Delay(2 * time.Second)})
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the pages have %d tags, want %d", len(got), len(want))
		}
		slow.Remove()
		for _, path := range []string{"/v2/library/app/tags/list?next=%25zz", "/v2/library/app/tags/list?next=" + strings.Repeat("x", 3000)} {
			if a := b.askAs(agentRenovate, http.MethodGet, "10.0.0.1", path); a.Status != http.StatusBadRequest {
				t.Errorf("%.60s: status %d, want 400", path, a.Status)
			}
		}
		// The whole, which came meanwhile, is served from here.
		before := b.hub.Requests()
		if a := b.askAs(agentRenovate, http.MethodGet, "10.0.0.1", "/v2/library/app/tags/list?n=10"); len(a.tags(t).Tags) != 10 || b.hub.Requests() > before {
			t.Errorf("when the whole list is known: %d tags, and %d requests", len(a.tags(t).Tags), b.hub.Requests()-before)
		}
	})
}
