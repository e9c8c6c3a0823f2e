package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/upstream"
)

// crowd runs n clients at once, each with connections of its own, and waits for them.
func crowd(t *testing.T, n int, visit func(c *client, i int)) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		c := newClient(t)
		wg.Go(func() { visit(c, i) })
	}
	wg.Wait()
}

// containerdPull pulls the image for one platform as containerd does. It may be called from
// any goroutine.
func containerdPull(t testing.TB, c *client, m *mirrortest.Mirror, hub *hubtest.Hub, img *hubtest.Image, platform int) {
	t.Helper()
	s := shapes()[0]
	visit := func(method, resource, digest string, raw []byte) bool {
		a, err := c.try(t.Context(), method, m.URL, s.path(img.Repo, resource), "User-Agent: "+agentContainerd)
		if err != nil {
			t.Errorf("%s %s: %s", method, resource, err)
			return false
		}
		if a.Status != http.StatusOK || a.Err != nil || a.Header.Get("Docker-Content-Digest") != digest || method == http.MethodGet && string(a.Body) != string(raw) {
			t.Errorf("%s: status %d, %d bytes, %v, want the %d bytes of %s", a.request, a.Status, len(a.Body), a.Err, len(raw), digest)
			return false
		}
		return true
	}
	child := img.Children[platform]
	ok := visit(http.MethodHead, "manifests/"+img.Tag, img.Digest, img.Raw) &&
		visit(http.MethodGet, "manifests/"+img.Digest, img.Digest, img.Raw) &&
		visit(http.MethodGet, "manifests/"+child.Digest, child.Digest, child.Raw) &&
		visit(http.MethodGet, "blobs/"+child.Config.Digest, child.Config.Digest, child.ConfigRaw)
	for _, l := range child.Layers {
		ok = ok && visit(http.MethodGet, "blobs/"+l.Digest, l.Digest, hub.Bytes(l.Digest))
	}
}

// M01, T29 of docs/clients.md (distribution#4664): a hundred clients, one fetch of everything.
func TestM01_T29_HundredClientsOneFetch(t *testing.T) {
	hub, m, _ := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}, LayerSize: 300_000})
	crowd(t, 100, func(c *client, _ int) { containerdPull(t, c, m, hub, img, 0) })
	for _, d := range img.Manifests() {
		if n := hub.ManifestGets(d.Digest); n > 1 {
			t.Errorf("hub sent manifest %s %d times, want once", d.Digest, n)
		}
	}
	child := img.Children[0]
	for _, d := range append([]hubtest.Descriptor{child.Config}, child.Layers...) {
		if n := hub.BlobGets(d.Digest); n != 1 {
			t.Errorf("hub began %d bodies of blob %s, want 1", n, d.Digest)
		}
		if n := hub.BlobBytes(d.Digest); n != d.Size {
			t.Errorf("hub sent %d bytes of blob %s, want %d", n, d.Digest, d.Size)
		}
	}
	if n := hub.ChargedTotal(); n > 2 {
		t.Errorf("charged with %d pulls, want at most 2", n)
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodHead, Route: hubtest.RouteManifestTag, Status: 200}); n != 1 {
		t.Errorf("hub answered %d HEADs of the tag, want 1", n)
	}
}

// M01 for layers large enough to be fetched over several connections: still no byte twice.
func TestM01_T29_LargeLayersOnce(t *testing.T) {
	const size = 40 << 20
	hub, m, _ := setup(t, hubtest.Options{}, mirrortest.Options{})
	digest := hub.PutVirtualBlob("library/app", 1, size)
	crowd(t, 8, func(c *client, i int) {
		lines := []string{"User-Agent: " + agentContainerd}
		if i%2 == 1 {
			lines = append(lines, fmt.Sprintf("Range: bytes=%d-", i*5<<20))
		}
		a, err := c.try(t.Context(), http.MethodGet, m.URL, "/v2/library/app/blobs/"+digest, lines...)
		if err != nil || a.Status >= 300 || a.Err != nil {
			t.Errorf("client %d: %v %+v", i, err, a)
			return
		}
		if i%2 == 0 && hubtest.Digest(a.Body) != digest {
			t.Errorf("client %d got %d bytes with another digest", i, len(a.Body))
		}
	})
	hub.Settle(t)
	if n := hub.BlobBytes(digest); n > size+4<<20 {
		t.Errorf("hub sent %d bytes of a blob of %d", n, size)
	}
}

// M02: a warm cache asks nobody; when the time to live is over, one HEAD is shared, nobody
// is charged, and nobody is held up by a hub that is slow to answer it.
func TestM02_WarmCache(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{TagTTL: time.Hour})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	pull(t, c, m, hub, img)
	hub.ResetCounters()
	crowd(t, 50, func(c *client, i int) { containerdPull(t, c, m, hub, img, i%2) })
	if n := hub.Requests(); n != 0 {
		t.Errorf("warm: hub saw %d requests, want 0", n)
	}
}

// M02: once a time to live is over, a hundred clients cost one free request.
func TestM02_ExpiredTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{})
		img := b.hub.PushImage("library/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
		for platform := range 2 {
			if a := b.pull("10.0.0.1", img, platform); a != nil {
				t.Fatalf("%s: status %d", a.request, a.Status)
			}
		}
		time.Sleep(61 * time.Second) // the time to live is a minute
		before := b.spent()
		release := make(chan struct{})
		head := b.hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Method: http.MethodHead, Route: hubtest.RouteManifest, Count: 1, Do: hubtest.Block(release)})
		var clients sync.WaitGroup
		for i := range 100 {
			clients.Go(func() {
				if a := b.pull(fmt.Sprintf("10.0.0.%d", i), img, i%2); a != nil {
					t.Errorf("%s: status %d", a.request, a.Status)
				}
			})
		}
		time.Sleep(200 * time.Millisecond) // all of them wait
		close(release)
		clients.Wait()
		if head.Fired() != 1 {
			t.Errorf("the HEAD was held up %d times, want once", head.Fired())
		}
		if got := b.spent().minus(before); got.heads != 1 || got.gets != 0 || got.bytes != 0 || got.charged != 0 {
			t.Errorf("it cost %+v, want one HEAD", got)
		}
	})
}

// M02: a known tag is served within the time that the configuration gives its
// confirmation, and the confirmation goes on.
func TestM02_SlowConfirmation(t *testing.T) {
	mo := mirrortest.Options{TagTTL: alwaysAsk}
	mo.Cache.RevalidateTimeout = 100 * time.Millisecond
	hub, m, c := setup(t, hubtest.Options{}, mo)
	old := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Seed: 1})
	pull(t, c, m, hub, old)
	young := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Seed: 2})
	release := make(chan struct{})
	slow := hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Method: http.MethodHead, Do: hubtest.Block(release)})
	a := c.get(m.URL, "/v2/library/app/manifests/latest")
	a.assertManifest(t, old.MediaType, old.Digest, old.Raw)
	if a.Took > atOnce {
		t.Errorf("%s: took %s while the hub was slow", a.request, a.Took)
	}
	if a.Header.Get("Warning") == "" {
		t.Errorf("%s: no Warning, though it was not confirmed", a.request)
	}
	slow.Remove()
	close(release)
	eventually(t, "the new image", func() bool {
		return c.get(m.URL, "/v2/library/app/manifests/latest").Header.Get("Docker-Content-Digest") == young.Digest
	})
}

// M03: a tag that moved costs one HEAD and what is new; shared layers are not fetched again.
func TestM03_MovedTag(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{TagTTL: alwaysAsk})
	first := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Layers: 3, Seed: 7})
	pull(t, c, m, hub, first)
	second := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Layers: 4, Seed: 7})
	hub.ResetCounters()
	// As dockerd does: HEAD of the tag, everything else by digest.
	c.head(m.URL, "/v2/library/app/manifests/latest").assertManifest(t, second.MediaType, second.Digest, second.Raw)
	for _, r := range resources(t, hub, second)[1:] {
		r.assert(t, c.get(m.URL, "/v2/library/app/"+r.path))
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodHead, Status: 200}); n != 1 {
		t.Errorf("hub answered %d HEADs, want 1", n)
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodGet, Route: hubtest.RouteManifest, Status: 200}); n != 1 {
		t.Errorf("hub sent %d manifests, want 1", n)
	}
	for i, l := range second.Children[0].Layers {
		want := 0
		if i == 3 {
			want = 1
		}
		if n := hub.BlobGets(l.Digest); n != want {
			t.Errorf("hub began %d bodies of layer %d, want %d", n, i, want)
		}
	}
	for _, r := range resources(t, hub, first)[1:] { // the old image is still there
		r.assert(t, c.get(m.URL, "/v2/library/app/"+r.path))
	}
}

// M04, as far as it needs no governor: at the pull limit everything cached is served, what
// is not is an honest 429, HEADs go on, and it is over when the window is.
func TestM04_PullLimit(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 3, Window: time.Hour}}, mirrortest.Options{TagTTL: alwaysAsk})
	kept := hub.PushImage("library/kept", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	other := hub.PushImage("library/other", "latest", hubtest.ImageSpec{})
	pull(t, c, m, hub, kept)
	if n := hub.Remaining("127.0.0.1"); n != 0 {
		t.Fatalf("%d pulls remain, want 0", n)
	}
	pull(t, c, m, hub, kept)
	a := c.get(m.URL, "/v2/library/kept/manifests/latest")
	a.assertManifest(t, kept.MediaType, kept.Digest, kept.Raw)
	if got := a.Header.Get("Warning"); got != "" {
		t.Errorf("%s: Warning %q, though a free HEAD confirmed it", a.request, got)
	}
	assertLimited(t, c.get(m.URL, "/v2/library/other/manifests/latest", "User-Agent: "+agentContainerd))
	assertLimited(t, c.get(m.URL, "/v2/library/other/manifests/"+other.Digest, "User-Agent: "+agentContainerd))
	if n := hub.Count(hubtest.Query{Method: http.MethodHead, Repo: "library/other", Status: 200}); n == 0 {
		t.Errorf("hub answered no HEAD, though they are free")
	}
	// A HEAD leads to a GET of what it names, so it must not name what is not to be had.
	if a := c.head(m.URL, "/v2/library/other/manifests/latest", "User-Agent: "+agentContainerd); a.Status != http.StatusTooManyRequests {
		t.Errorf("%s: status %d, want 429", a.request, a.Status)
	} else {
		a.assertRetryAfter(t)
	}
	for _, d := range other.Blobs() {
		c.get(m.URL, "/v2/library/other/blobs/"+d.Digest).assertBlob(t, d.Digest, hub.Bytes(d.Digest)) // not counted
	}
	hub.Advance(time.Hour + time.Second)
	pull(t, c, m, hub, other)
}

// M05, as far as it needs no governor: an abuse limit of one registry is not another's.
func TestM05_AbuseLimitOfOneRegistry(t *testing.T) {
	t.Parallel()
	hub, house := hubtest.New(t, hubtest.Options{}), hubtest.New(t, hubtest.Options{})
	m := mirrortest.New(t, mirrortest.Options{Hub: hub, TagTTL: alwaysAsk, Upstreams: map[string]mirrortest.Upstream{"my.reg": {Hub: house}}})
	c := newClient(t)
	kept := hub.PushImage("library/kept", "latest", hubtest.ImageSpec{})
	hub.PushImage("library/other", "latest", hubtest.ImageSpec{})
	pull(t, c, m, hub, kept)
	hub.TripAbuse(time.Hour)
	pull(t, c, m, hub, kept)
	assertLimited(t, c.get(m.URL, "/v2/library/other/manifests/latest", "User-Agent: "+agentContainerd))
	img := house.PushImage("library/other", "latest", hubtest.ImageSpec{})
	for _, r := range resources(t, house, img) {
		r.assert(t, c.get(m.URL, "/v2/library/other/"+r.path+"?ns=my.reg"))
	}
	hub.AssertClean(t)
	house.AssertClean(t)
}

// M09: a tag whose HEAD names what is already here costs no GET, though the client asked
// with one.
func TestM09_KnownDigestCostsNoGet(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "1.36", hubtest.ImageSpec{})
	pull(t, c, m, hub, img)
	hub.MoveTag("library/app", "latest", img.Digest)
	hub.ResetCounters()
	charged := hub.ChargedTotal()
	c.get(m.URL, "/v2/library/app/manifests/latest").assertManifest(t, img.MediaType, img.Digest, img.Raw)
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodGet}); n != 0 {
		t.Errorf("hub saw %d GETs, want 0", n)
	}
	if n := hub.ChargedTotal(); n != charged {
		t.Errorf("charged with %d pulls, want 0", n-charged)
	}
}

// M10: a thousand requests for one repository share a token; each repository has one of
// its own, with the one scope that it needs.
func TestM10_Tokens(t *testing.T) {
	hub, m, _ := setup(t, hubtest.Options{Anonymous: hubtest.Unlimited()}, mirrortest.Options{})
	const repos, perRepo = 50, 20
	for r := range repos {
		for i := range perRepo {
			hub.PutBlob(fmt.Sprintf("team/app-%d", r), letters(r*1000+i, 100))
		}
	}
	crowd(t, 100, func(c *client, worker int) {
		for n := worker; n < repos*perRepo; n += 100 {
			r, i := n%repos, n/repos
			raw := letters(r*1000+i, 100)
			a, err := c.try(t.Context(), http.MethodGet, m.URL, fmt.Sprintf("/v2/team/app-%d/blobs/%s", r, hubtest.Digest(raw)))
			if err != nil || a.Status != http.StatusOK || string(a.Body) != string(raw) {
				t.Errorf("repository %d, blob %d: %v %+v", r, i, err, a)
			}
		}
	})
	if n := hub.TokenRequests(); n != repos {
		t.Errorf("%d token requests for %d repositories", n, repos)
	}
	for key, n := range hub.Counters().TokensIssued {
		_, scope, _ := strings.Cut(key, " ")
		if n != 1 || !strings.HasPrefix(scope, "repository:team/app-") || !strings.HasSuffix(scope, ":pull") || strings.Contains(scope, " ") {
			t.Errorf("%d tokens with scope %q, want one with pull of one repository", n, scope)
		}
	}
}

// M10: a thousand at once for one repository, all of them cold.
func TestM10_ThousandRequestsOneToken(t *testing.T) {
	hub, m, _ := setup(t, hubtest.Options{}, mirrortest.Options{})
	const blobs = 250
	for i := range blobs {
		hub.PutBlob("team/app", letters(i, 100))
	}
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleAuth, Do: hubtest.Delay(50 * time.Millisecond)}) // so that all of them wait for it
	crowd(t, 100, func(c *client, worker int) {
		for n := worker; n < 4*blobs; n += 100 {
			raw := letters(n%blobs, 100)
			a, err := c.try(t.Context(), http.MethodGet, m.URL, "/v2/team/app/blobs/"+hubtest.Digest(raw))
			if err != nil || a.Status != http.StatusOK || string(a.Body) != string(raw) {
				t.Errorf("blob %d: %v %+v", n, err, a)
			}
		}
	})
	if n := hub.TokenRequests(); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

// M11: a token that ends between manifest and blobs is replaced once, unseen; one that is
// refused again and again is given up; a right that is lacking is not asked for twice.
func TestM11_TokensEnd(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("the mirror's clock moves too: %t", shared), func(t *testing.T) {
			t.Parallel()
			hub := hubtest.New(t, hubtest.Options{})
			var uo upstream.Options
			if shared {
				uo.Now = hub.Now
			}
			m := mirrortest.New(t, mirrortest.Options{Upstreams: map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Registry: uo}}})
			c := newClient(t)
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Layers: 4})
			c.get(m.URL, "/v2/library/app/manifests/latest").assertManifest(t, img.MediaType, img.Digest, img.Raw)
			before := hub.TokenRequests()
			hub.Advance(301 * time.Second)
			crowd(t, 4, func(c *client, i int) {
				d := img.Children[0].Layers[i].Digest
				if a, err := c.try(t.Context(), http.MethodGet, m.URL, "/v2/library/app/blobs/"+d); err != nil || a.Status != http.StatusOK {
					t.Errorf("layer %d: %v %+v", i, err, a)
				}
			})
			if n := hub.TokenRequests() - before; n != 1 {
				t.Errorf("%d token requests after the first ended, want 1", n)
			}
			hub.AssertClean(t)
		})
	}
	t.Run("between redirect and resume", func(t *testing.T) {
		hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
		raw := letters(1, 3<<20)
		digest := hub.PutBlob("library/app", raw)
		hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Count: 1, Do: hubtest.Both(hubtest.Drop(1<<20, hubtest.FIN), hubtest.Call(hub.ExpireTokens))})
		c.get(m.URL, "/v2/library/app/blobs/"+digest).assertBlob(t, digest, raw)
		hub.AssertAllFired(t)
	})
	t.Run("refused for good", func(t *testing.T) {
		hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
		hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
		hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.ExpireToken()})
		if a := c.get(m.URL, "/v2/docker.io/library/app/manifests/latest", "User-Agent: "+agentCrane); a.Status < 400 {
			t.Errorf("%s: status %d, want an error", a.request, a.Status)
		}
		if n := hub.TokenRequests(); n > 4 {
			t.Errorf("%d token requests, want a few: one refresh, then give up", n)
		}
	})
	t.Run("insufficient scope", func(t *testing.T) {
		hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
		hub.AddRepo("acme/private", hubtest.RepoOpts{Private: true})
		for range 3 {
			c.get(m.URL, "/v2/docker.io/acme/private/manifests/latest", "User-Agent: "+agentCrane).assertError(t, http.StatusForbidden, "DENIED")
		}
		if n := hub.TokenRequests(); n > 1 {
			t.Errorf("%d token requests, want 1: a better token is not to be had", n)
		}
	})
}

// M13: trouble of the token server is trouble, not absence; what is cached is served.
func TestM13_TokenServerFails(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"429": hubtest.Abuse429(), "500": hubtest.Status(500), "503": hubtest.StatusHTML(503), "closed": hubtest.NoReply(hubtest.FIN),
		"400": hubtest.Status(400), "404": hubtest.StatusHTML(404), "HTML": hubtest.StatusWith(200, "text/html", "<html>Sign in</html>", nil),
		"empty": hubtest.StatusWith(200, "application/json", "", nil), "no token": hubtest.StatusWith(200, "application/json", "{}", nil),
		"huge": hubtest.StatusWith(200, "application/json", `{"token":"`+strings.Repeat("x", 3<<20)+`"}`, nil), "hangs": hubtest.Hang(),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setupWith(t, hubtest.Options{}, mirrortest.Options{TagTTL: alwaysAsk}, upstream.Options{})
			kept := hub.PushImage("library/kept", "latest", hubtest.ImageSpec{})
			other := hub.PushImage("library/other", "latest", hubtest.ImageSpec{})
			pull(t, c, m, hub, kept)
			suffer(m, hub, name) // which also forgets its tokens
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleAuth, Do: fault})
			for _, path := range []string{"manifests/latest", "manifests/" + other.Digest, "blobs/" + other.Blobs()[0].Digest, "tags/list"} {
				a := c.get(m.URL, "/v2/docker.io/library/other/"+path, "User-Agent: "+agentCrane)
				switch a.Status {
				case 429, 502, 503, 504:
				default:
					t.Errorf("%s: status %d (%s), want 429, 502, 503 or 504", a.request, a.Status, a.Body)
				}
			}
			for _, path := range []string{"manifests/latest", "manifests/" + other.Digest} {
				a := c.get(m.URL, "/v2/library/other/"+path, "User-Agent: "+agentDocker)
				if a.Status != 429 && a.Status != 503 {
					t.Errorf("%s: status %d (%s), want 429 or 503", a.request, a.Status, a.Body)
				}
			}
			pull(t, c, m, hub, kept)
		})
	}
}
