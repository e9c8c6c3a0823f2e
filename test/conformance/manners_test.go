package conformance

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forebay/cache"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/upstream"
	"forebay/upstream/auth"
)

// crowdOf pulls an image as 100 clients at once, half for each platform.
func (b *bubble) crowdOf(img *hubtest.Image) {
	b.t.Helper()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if a := b.pull(fmt.Sprintf("10.0.0.%d", i+1), img, i%2); a != nil {
				b.t.Errorf("%s: status %d (%s)", a.request, a.Status, a.Body)
			}
		})
	}
	wg.Wait()
}

// The figures of what a crowd costs: new, warm, past the TTL, and after a move.
func TestFiguresOfACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{})
		spec := hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}, LayerSize: 1 << 20, Seed: 1}
		img := b.hub.PushImage("library/app", "latest", spec)
		var size int64
		for _, d := range img.Blobs() {
			size += d.Size
		}
		step := func(what string, want cost) {
			t.Helper()
			before := b.spent()
			b.crowdOf(img)
			got := b.spent().minus(before)
			t.Logf("%-28s %3d requests upstream, of them %d HEADs and %d GETs of manifests; %d pulls charged; %.1f MiB of blobs",
				what, got.requests, got.heads, got.gets, got.charged, float64(got.bytes)/(1<<20))
			if got.heads != want.heads || got.gets != want.gets || got.charged != want.charged || got.bytes != want.bytes {
				t.Errorf("%s cost %+v, want %+v\n%s", what, got, want, b.hub.Ledger())
			}
		}
		step("(a) 100 clients, new image:", cost{heads: 1, gets: 3, charged: 3, bytes: size})
		step("(b) the same, warm:", cost{})
		time.Sleep(time.Minute)
		step("(c) past the TTL, unmoved:", cost{heads: 1})
		spec.Seed = 1000 // no layer in common
		img = b.hub.PushImage("library/app", "latest", spec)
		size = 0
		for _, d := range img.Blobs() {
			size += d.Size
		}
		time.Sleep(time.Minute)
		step("(d) moved to a new image:", cost{heads: 1, gets: 3, charged: 3, bytes: size})
		// M01 of docs/clients.md: where all are of one platform, that is the index and one child.
		one := b.hub.PushImage("library/one", "latest", hubtest.ImageSpec{Platforms: spec.Platforms, Seed: 2000})
		before := b.spent()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if a := b.pull(fmt.Sprintf("10.0.0.%d", i+1), one, 0); a != nil {
					t.Errorf("%s: status %d (%s)", a.request, a.Status, a.Body)
				}
			})
		}
		wg.Wait()
		if got := b.spent().minus(before); got.charged != 2 || got.heads != 1 || got.gets != 2 {
			t.Errorf("100 clients of one platform cost %+v, want 1 HEAD and 2 GETs", got)
		}
		b.hub.AssertClean(t)
	})
}

// week is how the registry lives under (e): fifty tags that are pulled all the time, a
// fifth of which moves within each TTL, and two images in each that nobody has yet.
const (
	steadyTags = 50
	ttls       = 10
	newEach    = 2
	pullsEach  = 100
)

// outcomes is what clients of (e) got.
type outcomes struct {
	pulls, failed, stale int
	newFailed, new       int // of images that nobody had
}

// live plays (e) and returns what came of it. Each image is a single manifest: one pull.
func live(t *testing.T, b *bubble) (o outcomes) {
	t.Helper()
	push := func(repo string, seed int) *hubtest.Image {
		return b.hub.PushImage(repo, "latest", hubtest.ImageSpec{Seed: uint64(seed + 1), Layers: 1})
	}
	images := make([]*hubtest.Image, steadyTags)
	for i := range images {
		images[i] = push(fmt.Sprintf("library/app%d", i), i)
	}
	for ttl := range ttls {
		for n := range pullsEach {
			i := n % steadyTags
			path := "/v2/" + images[i].Repo + "/manifests/latest?ns=docker.io"
			a := b.ask(http.MethodGet, fmt.Sprintf("10.0.1.%d", n%20), path)
			o.pulls++
			switch {
			case a.Status != http.StatusOK:
				o.failed++
			case a.Header.Get("Warning") != "":
				o.stale++
			}
			time.Sleep(time.Minute / pullsEach)
		}
		for n := range newEach {
			img := push(fmt.Sprintf("library/new%d-%d", ttl, n), 10_000+ttl*newEach+n)
			o.new++
			if a := b.pull("10.0.2.1", img, 0); a != nil {
				o.newFailed++
			}
		}
		for n := range steadyTags / 5 {
			i := (ttl*steadyTags/5 + n) % steadyTags
			images[i] = push(images[i].Repo, 20_000+ttl*steadyTags+i)
		}
	}
	return o
}

func TestFiguresOfTheGovernor(t *testing.T) {
	results := map[bool]outcomes{}
	for _, governed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, bubbleOptions{registry: func(_ *hubtest.Hub, o *upstream.Options) {
				if !governed {
					o.Reserve = 0
				}
			}})
			o := live(t, b)
			c := b.spent()
			refused := b.hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Status: 429})
			t.Logf("(e) governor %t: %d pulls of %d tags over %d TTLs at a limit of 100: %d pulls charged, %d HEADs, %d refused by the registry; clients: %d failed, %d stale; new images: %d of %d not to be had",
				governed, o.pulls, steadyTags, ttls, c.charged, c.heads, refused, o.failed, o.stale, o.newFailed, o.new)
			results[governed] = o
			if o.failed != 0 {
				t.Errorf("%d pulls of tags that were here failed", o.failed)
			}
			if c.charged > 100 {
				t.Errorf("%d pulls charged, limit 100", c.charged)
			}
			if refused > 10 {
				t.Errorf("registry refused %d GETs, want few", refused)
			}
		})
	}
	if results[true].newFailed != 0 {
		t.Errorf("with the governor %d new images could not be had: the reserve is for them", results[true].newFailed)
	}
	if results[false].newFailed == 0 {
		t.Error("without the governor all new images could be had: the test shows nothing")
	}
}

// How long a client waits for a tag that is here when the registry is in trouble.
func TestFiguresOfTrouble(t *testing.T) {
	for _, trouble := range []struct {
		name   string
		strike func(*hubtest.Hub)
		first  time.Duration // at most, for the first client
		then   time.Duration // for those after it
	}{
		{"refuses connections", func(h *hubtest.Hub) { h.SwitchOff() }, 2 * time.Second, 300 * time.Millisecond}, // it is asked again
		{"answers 503", func(h *hubtest.Hub) { h.AddRule(hubtest.Rule{Do: hubtest.Status(503)}) }, 2 * time.Second, 300 * time.Millisecond},
		{"limits pulls", func(h *hubtest.Hub) { h.SpendAll("127.0.0.1") }, 0, 0},
		{"limits everything", func(h *hubtest.Hub) { h.TripAbuse(time.Hour) }, 0, 0},
		{"hangs", func(h *hubtest.Hub) { h.AddRule(hubtest.Rule{Do: hubtest.Hang()}) }, 2 * time.Second, 300 * time.Millisecond},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, bubbleOptions{fetch: cache.UpstreamOptions{TagTTL: alwaysAsk}})
				img := b.hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
				if a := b.pull("10.0.0.1", img, 0); a != nil {
					t.Fatalf("%s: status %d", a.request, a.Status)
				}
				trouble.strike(b.hub)
				var took []time.Duration
				for range 4 {
					a := b.get("/v2/library/app/manifests/latest")
					a.assertManifest(t, img.MediaType, img.Digest, img.Raw)
					took = append(took, a.Took)
				}
				t.Logf("a cached tag while the registry %s: first answer after %v, then %v", trouble.name, took[0], took[1:])
				if took[0] > trouble.first || took[3] > trouble.then {
					t.Errorf("answers after %v and %v, want %v and %v", took[0], took[3], trouble.first, trouble.then)
				}
			})
		})
	}
}

// M04 with the clock: at the limit, what is cached is served and marked, what is not is
// an honest 429, HEADs go on, no GET is made before its time, and it recovers by itself.
func TestM04_OverHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{hub: hubtest.Options{Anonymous: hubtest.Plan{Limit: 3, Window: time.Hour}}})
		kept := b.hub.PushImage("library/kept", "latest", hubtest.ImageSpec{Seed: 1})
		other := b.hub.PushImage("library/other", "latest", hubtest.ImageSpec{Seed: 2})
		if a := b.pull("10.0.0.1", kept, 0); a != nil {
			t.Fatalf("%s: status %d", a.request, a.Status)
		}
		b.hub.SpendAll("127.0.0.1")
		start := time.Now()
		stale, moved := 0, false
		for time.Since(start) < 55*time.Minute {
			if time.Since(start) > 30*time.Minute && !moved {
				b.hub.PushImage("library/kept", "latest", hubtest.ImageSpec{Seed: 3})
				moved = true
			}
			a := b.get("/v2/library/kept/manifests/latest?ns=docker.io")
			a.assertManifest(t, kept.MediaType, kept.Digest, kept.Raw)
			if a.Header.Get("Warning") != "" {
				stale++
			}
			if stale != 0 && !moved {
				t.Error("an unmoved tag, which the free request confirms, was marked as stale")
			}
			b.get("/v2/library/kept/manifests/"+kept.Digest+"?ns=docker.io").assertManifest(t, kept.MediaType, kept.Digest, kept.Raw)
			a = b.get("/v2/library/other/manifests/" + other.Digest + "?ns=docker.io")
			a.assertError(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
			if a.Header.Get("Retry-After") == "" || !strings.Contains(string(a.Body), "next try at") {
				t.Errorf("%s: Retry-After %q, body %s; want until when and why", a.request, a.Header.Get("Retry-After"), a.Body)
			}
			time.Sleep(10 * time.Second)
		}
		if stale < 24*6 { // but for the time to live that it had when it moved
			t.Errorf("%d answers were marked as stale after the tag moved, want all of 24 minutes", stale)
		}
		refused := b.hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodGet, Route: hubtest.RouteManifest, Status: 429})
		if refused != 1 {
			t.Errorf("registry refused %d GETs, want 1: the free request tells", refused)
		}
		time.Sleep(7 * time.Minute)
		if a := b.pull("10.0.0.1", other, 0); a != nil {
			t.Errorf("after the window: %s: status %d (%s)", a.request, a.Status, a.Body)
		}
		b.hub.AssertClean(t)
	})
}

// M05 with the clock: while the abuse limit holds there is no more than one probe in its
// interval, with a hundred clients that come again all the time.
func TestM05_OneProbeAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{})
		kept := b.hub.PushImage("library/kept", "latest", hubtest.ImageSpec{})
		if a := b.pull("10.0.0.1", kept, 0); a != nil {
			t.Fatalf("%s: status %d", a.request, a.Status)
		}
		var others []*hubtest.Image
		for i := range 100 {
			others = append(others, b.hub.PushImage(fmt.Sprintf("library/other%d", i), "latest", hubtest.ImageSpec{Seed: uint64(i + 1)}))
		}
		b.hub.TripAbuse(20 * time.Minute)
		b.hub.ResetCounters()
		first := 0
		for minute := range 19 {
			var wg sync.WaitGroup
			for _, img := range others {
				wg.Go(func() {
					for range 3 {
						a := b.get("/v2/" + img.Repo + "/manifests/latest?ns=docker.io")
						a.assertError(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
						time.Sleep(20 * time.Second)
					}
				})
			}
			b.get("/v2/library/kept/manifests/latest?ns=docker.io").assertManifest(t, kept.MediaType, kept.Digest, kept.Raw)
			wg.Wait()
			if minute == 0 {
				first = b.hub.Requests()
			}
		}
		if n := b.hub.Requests() - first; n > 19 {
			t.Errorf("registry saw %d requests in 18 minutes after the first, want one a minute", n)
		}
		time.Sleep(5 * time.Minute)
		for _, img := range others[:5] {
			if a := b.pull("10.0.0.1", img, 0); a != nil {
				t.Errorf("after it: %s: status %d (%s)", a.request, a.Status, a.Body)
			}
		}
	})
}

// M06: the second credential is for when the first has none left.
func TestM06_SecondCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{registry: func(h *hubtest.Hub, o *upstream.Options) {
			for _, name := range []string{"first", "second"} {
				h.AddUser(hubtest.User{Name: name, Secrets: []string{name + "-secret"}, Plan: hubtest.Plan{Limit: 4, Window: time.Hour}})
			}
			o.Credentials = auth.Credentials{Username: "first", Password: "first-secret"}
			o.Fallback = []auth.Credentials{{Username: "second", Password: "second-secret"}}
		}})
		for i := range 8 {
			img := b.hub.PushImage("library/app", fmt.Sprint(i), hubtest.ImageSpec{Seed: uint64(i + 1)})
			if a := b.pull("10.0.0.1", img, 0); a != nil {
				t.Fatalf("%s: status %d (%s)", a.request, a.Status, a.Body)
			}
			if got, want := b.hub.Charged("second"), max(i+1-4, 0); got != want {
				t.Errorf("after %d images %d are charged to the second, want %d", i+1, got, want)
			}
		}
		ninth := b.hub.PushImage("library/app", "9", hubtest.ImageSpec{Seed: 10})
		if a := b.pull("10.0.0.1", ninth, 0); a == nil || a.Status != http.StatusTooManyRequests {
			t.Errorf("with none left: %+v, want 429", a)
		}
	})
}

// M08: below the reserve nothing is refreshed in the background, known tags are not
// asked for, and what clients want that nobody has goes on to the very end.
func TestM08_WhatStopsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{
			hub:   hubtest.Options{Anonymous: hubtest.Plan{Limit: 10, Window: time.Hour}},
			fetch: cache.UpstreamOptions{RefreshAhead: 1},
		})
		app := b.hub.PushImage("library/app", "latest", hubtest.ImageSpec{Seed: 1})
		busy := func(d time.Duration) (heads int) {
			before := b.hub.ManifestHeads("library/app", "latest")
			for start := time.Now(); time.Since(start) < d; time.Sleep(5 * time.Second) {
				b.get("/v2/library/app/manifests/latest?ns=docker.io").assertManifest(t, app.MediaType, app.Digest, app.Raw)
			}
			return b.hub.ManifestHeads("library/app", "latest") - before
		}
		if n := busy(5 * time.Minute); n < 5 {
			t.Errorf("with plenty left %d HEADs in five minutes, want one each minute at least", n)
		}
		for i := range 8 {
			img := b.hub.PushImage(fmt.Sprintf("library/new%d", i), "latest", hubtest.ImageSpec{Seed: uint64(i + 10)})
			if a := b.pull("10.0.0.1", img, 0); a != nil {
				t.Fatalf("%s: status %d (%s)", a.request, a.Status, a.Body)
			}
		}
		if !b.registry.Low() {
			t.Fatalf("not low: %+v", b.registry.Budget())
		}
		charged := b.hub.ChargedTotal()
		if n := busy(5 * time.Minute); n > 5 {
			t.Errorf("below the reserve %d HEADs in five minutes, want one each minute at most", n)
		}
		moved := b.hub.PushImage("library/app", "latest", hubtest.ImageSpec{Seed: 2})
		time.Sleep(2 * time.Minute)
		if a := b.get("/v2/library/app/manifests/latest?ns=docker.io"); !bytes.Equal(a.Body, app.Raw) || a.Header.Get("Warning") == "" {
			t.Errorf("moved tag below the reserve: %d, Warning %q, want what it was before, stale", a.Status, a.Header.Values("Warning"))
		}
		if n := b.hub.ChargedTotal() - charged; n != 0 || b.hub.ManifestGets(moved.Digest) != 0 {
			t.Errorf("known tags cost %d pulls below the reserve, want none", n)
		}
		last := b.hub.PushImage("library/last", "latest", hubtest.ImageSpec{Seed: 99})
		if a := b.pull("10.0.0.1", last, 0); a != nil {
			t.Errorf("the last pull: %s: status %d (%s)", a.request, a.Status, a.Body)
		}
		if n := b.hub.Remaining("127.0.0.1"); n != 0 {
			t.Errorf("%d pulls remain, want 0", n)
		}
	})
}

// What was spent is known by client and repository.
func TestBudgetTellsWhoSpentIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{})
		for i, client := range []string{"10.0.0.7", "10.0.0.7", "10.0.0.8"} {
			img := b.hub.PushImage(fmt.Sprintf("library/app%d", i%2), fmt.Sprintf("v%d", i), hubtest.ImageSpec{Seed: uint64(i + 1)})
			if a := b.pull(client, img, 0); a != nil {
				t.Fatalf("%s: status %d (%s)", a.request, a.Status, a.Body)
			}
		}
		list := b.registry.Budget()
		if len(list) != 1 {
			t.Fatalf("Budget = %+v, want one", list)
		}
		got := fmt.Sprint(list[0].Spent)
		if want := "[{10.0.0.7 library/app0 1} {10.0.0.7 library/app1 1} {10.0.0.8 library/app0 1}]"; got != want {
			t.Errorf("Spent = %s, want %s", got, want)
		}
		if list[0].Remaining != 97 || list[0].Elsewhere != 0 || list[0].Returns.IsZero() {
			t.Errorf("Budget = %+v", list[0])
		}
	})
}

// Offline, nothing is asked, whatever is wanted.
func TestOfflineContactsNobody(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	other := hub.PushImage("library/other", "latest", hubtest.ImageSpec{})
	pull(t, c, m, hub, img)
	m.RestartWith(func(o *mirrortest.Options) {
		o.Hub = nil
		o.Upstreams = map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Fetch: cache.UpstreamOptions{Offline: true}}}
		o.TagTTL = alwaysAsk
	})
	hub.Settle(t)
	hub.ResetCounters()
	pull(t, c, m, hub, img)
	for _, r := range resources(t, hub, other) {
		if a := c.get(m.URL, "/v2/library/other/"+r.path); a.Status != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", a.request, a.Status)
		}
	}
	for _, path := range []string{"tags/list", "referrers/" + img.Digest} {
		c.get(m.URL, "/v2/library/app/"+path)
	}
	// A blob that is here, through a repository that is not known to hold it.
	c.get(m.URL, "/v2/library/other/blobs/"+img.Blobs()[0].Digest)
	if n := hub.Requests(); n != 0 {
		t.Errorf("hub saw %d requests, want 0:\n%s", n, hub.Ledger())
	}
}

// A registry that carries the same images stands in when Docker Hub limits, under names
// of its own; nothing that it gets wrong is served.
func TestStandIn(t *testing.T) {
	t.Parallel()
	hub, house := hubtest.New(t, hubtest.Options{}), hubtest.New(t, hubtest.Options{Profile: hubtest.Plain})
	registry := upstream.Options{
		Endpoints: []upstream.Endpoint{
			{URL: hub.RegistryURL()},
			{URL: house.RegistryURL(), StandIn: &upstream.StandIn{From: "library/", To: "docker/library/"}},
		},
		Dial: hubtest.DialAll(hub, house),
	}
	m := mirrortest.New(t, mirrortest.Options{Upstreams: map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Registry: registry}}})
	c := newClient(t)
	spec := hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}, LayerSize: 300_000, Seed: 5}
	img := hub.PushImage("library/app", "latest", spec)
	house.PushImage("docker/library/app", "latest", spec)
	hub.SpendAll("127.0.0.1")
	hub.AddRule(hubtest.Rule{Route: hubtest.RouteBlob, Do: hubtest.Status(http.StatusServiceUnavailable)})
	bad := img.Children[1].Layers[0]
	house.AddRule(hubtest.Rule{Route: hubtest.RouteBlob, Ref: bad.Digest, Do: hubtest.Corrupt(100)})
	for _, r := range resources(t, hub, img) { // the tag too: its HEAD is free, and tells the digest
		a, err := c.try(t.Context(), http.MethodGet, m.URL, "/v2/library/app/"+r.path)
		if r.digest != bad.Digest {
			if err != nil {
				t.Fatal(err)
			}
			r.assert(t, a)
		} else if err == nil && a.Err == nil && a.Status == http.StatusOK {
			t.Errorf("%s: 200 with a body that looks whole, of damaged bytes", a.request)
		}
	}
	if n := hub.ChargedTotal(); n != 0 {
		t.Errorf("%d pulls charged, want 0", n)
	}
	hub.AssertClean(t)
	house.AssertClean(t)
}
