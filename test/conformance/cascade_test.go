package conformance

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"forebay/cache"
	"forebay/internal/wire"
	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/upstream"
)

// before returns a mirror whose docker.io is another one.
func before(t *testing.T, hub *hubtest.Hub, url string, o mirrortest.Options) *mirrortest.Mirror {
	t.Helper()
	o.Upstreams = map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Registry: upstream.Options{
		Endpoints: []upstream.Endpoint{{URL: url}}, Dial: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, Reserve: 0.2,
	}, Fetch: cache.UpstreamOptions{OnGone: cache.Drop}}}
	o.Fallback = proxy.FallbackNone // whoever asks here is told the truth
	return mirrortest.New(t, o)
}

// seen is an answer, read to its end.
type seen struct {
	status int
	header http.Header
	body   string
	took   time.Duration
}

// fetch asks a mirror as a client without a fallback does, unless headers say otherwise.
func fetch(t *testing.T, method, url string, headers ...string) seen {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "*/*")
	req.Header.Set("User-Agent", "crane/v0.20 go-containerregistry/v0.20")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	began := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s %s: %s", method, url, err)
	}
	return seen{resp.StatusCode, resp.Header, string(body), time.Since(began)}
}

// requests counts what a mirror was asked.
func requests(m *mirrortest.Mirror) int { return strings.Count(m.Log(), `"logger":"access"`) }

func TestCascadeOfThreeFetchesOnce(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	img := hub.PushImage("library/app", "1", hubtest.ImageSpec{LayerSize: 2_000_000})
	a := mirrortest.New(t, mirrortest.Options{Hub: hub, TagTTL: alwaysAsk})
	b := before(t, hub, a.URL, mirrortest.Options{TagTTL: alwaysAsk})
	c := before(t, hub, b.URL, mirrortest.Options{TagTTL: alwaysAsk})
	pull := func() {
		t.Helper()
		if got := fetch(t, http.MethodGet, c.URL+"/v2/library/app/manifests/1"); got.status != 200 || got.body != string(img.Raw) {
			t.Fatalf("manifest: %d %s", got.status, got.body)
		}
		var wg sync.WaitGroup
		for _, d := range img.Blobs() {
			for range 5 {
				wg.Go(func() {
					if got := fetch(t, http.MethodGet, c.URL+"/v2/library/app/blobs/"+d.Digest); got.status != 200 || hubtest.Digest([]byte(got.body)) != d.Digest {
						t.Errorf("blob %s: %d, %d bytes", d.Digest, got.status, len(got.body))
					}
				})
			}
		}
		wg.Wait()
	}
	pull()
	if n := hub.ChargedTotal(); n != 1 {
		t.Errorf("the hub charged %d pulls, want 1", n)
	}
	for _, d := range img.Blobs() {
		if n := hub.BlobBytes(d.Digest); n > int64(float64(len(hub.Bytes(d.Digest)))*1.02)+1024 {
			t.Errorf("the hub sent %d bytes of a blob of %d", n, len(hub.Bytes(d.Digest)))
		}
	}
	hub.AssertClean(t)
	hub.SwitchOff()
	pull()
	if got := fetch(t, http.MethodHead, a.URL+"/v2/library/app/manifests/1", wire.HopsHeader, "x"); got.header.Get("Warning") == "" {
		t.Errorf("the first mirror does not say so: %v", got.header)
	}
	if got := fetch(t, http.MethodGet, c.URL+"/v2/library/app/manifests/1"); got.header.Get("Warning") == "" {
		t.Errorf("two mirrors further nobody says that the registry could not be asked: %v", got.header)
	}
	if got := fetch(t, http.MethodHead, b.URL+"/v2/library/app/manifests/1"); got.header.Get("Warning") == "" {
		t.Errorf("one mirror further nobody says so: %v", got.header)
	}
}

func TestCascadePassesErrorsTruly(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 2, Window: time.Hour}})
	hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	hub.PushImage("library/app", "2", hubtest.ImageSpec{Seed: 2})
	hub.PushImage("library/app", "3", hubtest.ImageSpec{Seed: 3})
	hub.AddRepo("secret/app", hubtest.RepoOpts{Private: true})
	hub.PushImage("secret/app", "1", hubtest.ImageSpec{})
	a := mirrortest.New(t, mirrortest.Options{Hub: hub, Trusted: mirrortest.Loopback})
	b := before(t, hub, a.URL, mirrortest.Options{})

	if got := fetch(t, http.MethodGet, b.URL+"/v2/library/app/manifests/none"); got.status != 404 || !strings.Contains(got.body, "MANIFEST_UNKNOWN") {
		t.Errorf("a tag that is not there: %d %s", got.status, got.body)
	}
	if got := fetch(t, http.MethodGet, b.URL+"/v2/secret/app/manifests/1"); got.status != 403 || !strings.Contains(got.body, "DENIED") {
		t.Errorf("what is denied: %d %s", got.status, got.body)
	}
	for _, tag := range []string{"1", "2"} {
		if got := fetch(t, http.MethodGet, a.URL+"/v2/library/app/manifests/"+tag); got.status != 200 {
			t.Fatalf("tag %s: %d %s", tag, got.status, got.body)
		}
	}
	limited := fetch(t, http.MethodGet, b.URL+"/v2/library/app/manifests/3")
	if limited.status != 429 || limited.header.Get("Retry-After") == "" || !strings.Contains(limited.body, "TOOMANYREQUESTS") {
		t.Errorf("what the hub limits: %d %v %s", limited.status, limited.header, limited.body)
	}
	// The mirror above has this one: that another is limited must not keep it from us.
	if got := fetch(t, http.MethodGet, b.URL+"/v2/library/app/manifests/1"); got.status != 200 {
		t.Errorf("what the mirror above has, while the hub limits: %d %s", got.status, got.body)
	}
	told := fetch(t, http.MethodHead, a.URL+"/v2/library/app/manifests/1", wire.HopsHeader, "someone")
	if told.header.Get("Ratelimit-Limit") != "2;w=3600" || told.header.Get("Ratelimit-Remaining") != "0;w=3600" || told.header.Get(wire.HopsHeader) == "" {
		t.Errorf("another mirror is told of the budget: %v", told.header)
	}
	if got := fetch(t, http.MethodHead, a.URL+"/v2/library/app/manifests/1"); got.header.Get("Ratelimit-Limit") != "" || got.header.Get(wire.HopsHeader) != "" {
		t.Errorf("a client is told of the budget: %v", got.header)
	}

	hub.SwitchOff()
	asked := requests(a)
	down := fetch(t, http.MethodGet, b.URL+"/v2/library/app/manifests/4")
	if down.status != 503 && down.status != 429 {
		t.Errorf("while the hub is away: %d %s", down.status, down.body)
	}
	if n := requests(a) - asked; n > 1 {
		t.Errorf("one request became %d at the mirror above", n)
	}
}

func TestOutageIsNoAbsenceForTheMirrorBelow(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	img := hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	hub.PushImage("library/app", "2", hubtest.ImageSpec{Seed: 2})
	a := mirrortest.New(t, mirrortest.Options{Hub: hub, TagTTL: alwaysAsk})
	b := before(t, hub, a.URL, mirrortest.Options{TagTTL: alwaysAsk})
	if got := fetch(t, http.MethodGet, b.URL+"/v2/library/app/manifests/1"); got.status != 200 {
		t.Fatalf("first: %d", got.status)
	}
	// The mirror above loses all and goes offline: for the one below, which drops what is
	// gone, nothing is gone.
	a.RestartWith(func(o *mirrortest.Options) {
		o.Hub, o.Upstreams = nil, map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Fetch: cache.UpstreamOptions{Offline: true}}}
	})
	if got := fetch(t, http.MethodGet, a.URL+"/v2/library/app/manifests/2"); got.status != 404 || !strings.Contains(got.body, "offline") {
		t.Errorf("a client of the offline mirror: %d %s", got.status, got.body)
	}
	if got := fetch(t, http.MethodGet, b.URL+"/v2/library/app/manifests/2"); got.status != 503 {
		t.Errorf("a client of the mirror below: %d %s", got.status, got.body)
	}
	if got := fetch(t, http.MethodGet, b.URL+"/v2/library/app/manifests/1"); got.status != 200 || got.body != string(img.Raw) {
		t.Errorf("what the mirror below has: %d", got.status)
	}
}

func TestLoopOfMirrorsEndsAtOnce(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	img := hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	a := mirrortest.New(t, mirrortest.Options{Hub: hub, Fallback: proxy.FallbackNone})
	b := before(t, hub, a.URL, mirrortest.Options{})
	a.RestartWith(func(o *mirrortest.Options) { // now A asks B, and B asks A
		o.Hub = nil
		o.Upstreams = map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Registry: upstream.Options{
			Endpoints: []upstream.Endpoint{{URL: b.URL}}, Dial: (&net.Dialer{}).DialContext,
		}}}
	})
	for _, path := range []string{"manifests/1", "manifests/" + img.Digest, "blobs/" + img.Blobs()[0].Digest, "tags/list"} {
		for _, m := range []*mirrortest.Mirror{a, b} {
			before := requests(a) + requests(b)
			got := fetch(t, http.MethodGet, m.URL+"/v2/library/app/"+path)
			if got.status != http.StatusLoopDetected || got.took > atOnce || !strings.Contains(got.body, "in a circle") {
				t.Errorf("%s: %d after %s: %s", path, got.status, got.took, got.body)
			}
			if n := requests(a) + requests(b) - before; n > 6 {
				t.Errorf("%s: one request became %d", path, n)
			}
		}
	}
	// Clients that can go elsewhere are sent there.
	a.RestartWith(func(o *mirrortest.Options) { o.Fallback = proxy.FallbackClients })
	mirrored := fetch(t, http.MethodGet, a.URL+"/v2/library/app/manifests/1?ns=docker.io", "User-Agent", "containerd/2.0")
	if mirrored.status != 503 || mirrored.took > atOnce {
		t.Errorf("containerd gets %d after %s", mirrored.status, mirrored.took)
	}
	if hub.Requests() != 0 {
		t.Errorf("the hub saw %d requests", hub.Requests())
	}
	if len(a.Entries("request came back: mirrors ask each other in a circle"))+len(b.Entries("request came back: mirrors ask each other in a circle")) == 0 {
		t.Error("nobody logged the loop")
	}
}

func TestMirrorThatAsksItselfSaysSo(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	m := mirrortest.New(t, mirrortest.Options{Hub: hub, Fallback: proxy.FallbackNone})
	m.RestartWith(func(o *mirrortest.Options) {
		o.Hub = nil
		o.Upstreams = map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Registry: upstream.Options{
			Endpoints: []upstream.Endpoint{{URL: m.URL}}, Dial: (&net.Dialer{}).DialContext,
		}}}
	})
	if got := fetch(t, http.MethodGet, m.URL+"/v2/library/app/manifests/1"); got.status != http.StatusLoopDetected || got.took > atOnce {
		t.Errorf("it answers %d after %s: %s", got.status, got.took, got.body)
	}
}

// cascaded returns a mirror, and one below it at which a stranger may ask as well.
func cascaded(t *testing.T, hub *hubtest.Hub) (parent, site *mirrortest.Mirror) {
	t.Helper()
	parent = mirrortest.New(t, mirrortest.Options{Hub: hub, Instance: "name-of-the-parent"})
	return parent, before(t, hub, parent.URL, mirrortest.Options{Instance: "name-of-the-site"})
}

// Whatever a stranger says of where its request has been, who asks for the same is answered.
func TestHopsOfStrangersHarmNobody(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	const tags = 12
	images := make([]*hubtest.Image, tags)
	for i := range images {
		images[i] = hub.PushImage("library/app", strconv.Itoa(i), hubtest.ImageSpec{Seed: uint64(i + 1)})
	}
	parent, site := cascaded(t, hub)
	said := []string{"a, b, c, d, e, f, g, h", strings.Repeat("x,", 2000) + "y", "a,b,c,d,e,f,g", "!!", "name-of-the-site-not", ""}
	hub.AddRule(hubtest.Rule{Do: hubtest.Delay(20 * time.Millisecond)}) // so that requests meet
	var wg sync.WaitGroup
	for i, img := range images {
		ask := func(path, want string) {
			for _, hops := range said {
				wg.Go(func() { fetch(t, http.MethodGet, site.URL+path, wire.HopsHeader, hops) })
			}
			for range 2 {
				wg.Go(func() {
					if got := fetch(t, http.MethodGet, site.URL+path); got.status != 200 || hubtest.Digest([]byte(got.body)) != want {
						t.Errorf("GET %s beside a stranger: %d %.200s", path, got.status, got.body)
					}
				})
			}
			wg.Wait()
		}
		ask("/v2/library/app/manifests/"+strconv.Itoa(i), img.Digest)
		for _, d := range img.Blobs() {
			ask("/v2/library/app/blobs/"+d.Digest, d.Digest)
		}
	}
	for _, m := range []*mirrortest.Mirror{parent, site} {
		for _, hops := range said {
			got := fetch(t, http.MethodGet, m.URL+"/v2/library/app/manifests/0", wire.HopsHeader, hops)
			for name, values := range got.header {
				if strings.Contains(strings.Join(values, ","), "name-of-the") {
					t.Errorf("a stranger is told the name of a mirror in %s: %q", name, values)
				}
			}
		}
		if len(m.Entries("request came back: mirrors ask each other in a circle")) > 0 {
			t.Error("a stranger makes a mirror see a circle")
		}
	}
}

// One mirror asks its neighbour, and the registry if that fails; the neighbour asks the one. A client
// of the neighbour joins what that asks for on behalf of the one, which goes in a circle: its own
// request does not.
func TestWhoJoinsARequestInACircleAsksForItself(t *testing.T) {
	for _, what := range []string{"tag", "manifest", "blob"} {
		t.Run(what, func(t *testing.T) {
			hub := hubtest.New(t, hubtest.Options{})
			img := hub.PushImage("library/app", "1", hubtest.ImageSpec{Layers: 1, LayerSize: 2 << 20})
			layer := img.Children[0].Layers[0].Digest
			path, want := "manifests/1", img.Digest
			switch what {
			case "manifest":
				path = "manifests/" + img.Digest
			case "blob":
				path, want = "blobs/"+layer, layer
			}
			a := mirrortest.New(t, mirrortest.Options{Hub: hub, Fallback: proxy.FallbackNone})
			// What comes to a from its neighbour, and began at a, is held up here.
			waiting, release := make(chan struct{}, 100), make(chan struct{})
			origin, err := url.Parse(a.URL)
			if err != nil {
				t.Fatal(err)
			}
			onward := httputil.NewSingleHostReverseProxy(origin)
			gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.Header.Get(wire.HopsHeader), ",") {
					waiting <- struct{}{}
					<-release
				}
				onward.ServeHTTP(w, r)
			}))
			defer gate.Close()
			b := before(t, hub, gate.URL, mirrortest.Options{})
			a.RestartWith(func(o *mirrortest.Options) {
				o.Hub = nil
				o.Upstreams = map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Registry: upstream.Options{
					Endpoints: []upstream.Endpoint{{URL: b.URL}, {URL: hub.RegistryURL()}}, Dial: (&net.Dialer{}).DialContext,
				}}}
			})
			if what == "blob" { // named by a manifest, so that nobody asks for it by HEAD before
				for _, m := range []*mirrortest.Mirror{b, a} {
					if got := fetch(t, http.MethodGet, m.URL+"/v2/library/app/manifests/"+img.Children[0].Digest); got.status != 200 {
						t.Fatalf("manifest: %d %s", got.status, got.body)
					}
				}
			}
			var wg sync.WaitGroup
			ask := func(m *mirrortest.Mirror) {
				wg.Go(func() {
					if got := fetch(t, http.MethodGet, m.URL+"/v2/library/app/"+path); got.status != 200 || hubtest.Digest([]byte(got.body)) != want {
						t.Errorf("GET %s: %d %.200s", path, got.status, got.body)
					}
				})
			}
			ask(a)
			select {
			case <-waiting:
			case <-time.After(time.Minute):
				t.Error("what went in a circle never came back")
			}
			for range 4 {
				ask(b)
			}
			fetch(t, http.MethodGet, b.URL+"/v2/") // those before are on their way
			close(release)
			wg.Wait()
		})
	}
}
