package hubtest

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestF1RolesHaveAddressesOfTheirOwn(t *testing.T) {
	hub := New(t, Options{})
	seen := map[string]Role{}
	for _, site := range roleSites() {
		u, err := url.Parse(hub.URL(site.role))
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[u.Hostname()]; ok && site.role != RoleAlt {
			t.Errorf("roles %s and %s share %s", site.role, other, u.Hostname())
		}
		seen[u.Hostname()] = site.role
	}
	alt, _ := url.Parse(hub.URL(RoleAlt))
	registry, _ := url.Parse(hub.RegistryURL())
	if alt.Hostname() != registry.Hostname() || alt.Port() == registry.Port() {
		t.Errorf("%s and %s: want one host, two ports", alt, registry)
	}
}

func TestF1EvilAndMetaRecord(t *testing.T) {
	hub := New(t, Options{})
	p := newProbe(t, hub)
	wantStatus(t, p.do(http.MethodGet, hub.URL(RoleEvil)+"/x", "Authorization", "Bearer secret"), http.StatusOK)
	wantStatus(t, p.do(http.MethodGet, hub.URL(RoleMeta)+"/latest/meta-data/"), http.StatusOK)
	c := hub.Counters()
	if c.EvilHits != 1 || c.EvilCredential != 1 || c.MetaHits != 1 {
		t.Errorf("evil_hits, evil_credentials, meta_hits = %d, %d, %d, want 1, 1, 1", c.EvilHits, c.EvilCredential, c.MetaHits)
	}
	if l := hub.Ledger(); strings.Contains(l, "secret") {
		t.Errorf("ledger shows a secret:\n%s", l)
	}
}

func TestF2NamedModeDeniesOtherAddresses(t *testing.T) {
	hub := New(t, Options{Named: true})
	p := newProbe(t, hub)
	if got, want := hub.RegistryURL(), "https://registry-1.docker.io"; got != want {
		t.Errorf("RegistryURL() = %s, want %s", got, want)
	}
	wantStatus(t, p.do(http.MethodGet, "https://registry-1.docker.io/v2/"), http.StatusUnauthorized)
	for _, target := range []string{"https://example.com/", "http://registry-1.docker.io/v2/", "http://127.0.0.1:1/"} {
		if _, err := p.try(http.MethodGet, target); err == nil {
			t.Errorf("GET %s went through", target)
		}
	}
	wantStatus(t, p.do(http.MethodGet, "http://169.254.169.254/latest"), http.StatusOK)
	if c := hub.Counters(); c.EgressDenied["example.com:443"] == 0 || c.EgressDenied["registry-1.docker.io:80"] == 0 || c.MetaHits != 1 {
		t.Errorf("egress_denied = %v, meta_hits = %d", c.EgressDenied, c.MetaHits)
	}
}

func TestF3AdvanceIsRaceFree(t *testing.T) {
	start := time.Date(2026, 7, 15, 14, 24, 11, 0, time.UTC)
	hub := New(t, Options{Now: func() time.Time { return start }})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { hub.Advance(time.Second); _ = hub.Now() })
	}
	wg.Wait()
	if got, want := hub.Now(), start.Add(50*time.Second); !got.Equal(want) {
		t.Errorf("Now() = %s, want %s", got, want)
	}
}

func TestF3DateFollowsTheHubsClock(t *testing.T) {
	start := time.Date(2026, 7, 15, 14, 24, 11, 0, time.UTC)
	hub := New(t, Options{Now: func() time.Time { return start }})
	hub.Advance(time.Hour)
	wantHeader(t, newProbe(t, hub).registry(http.MethodGet, "/v2/", ""), "Date", "Wed, 15 Jul 2026 15:24:11 GMT")
}

func TestF4HTTP2IsOfferedOnRequest(t *testing.T) {
	for _, want := range []int{1, 2} {
		hub := New(t, Options{TLS: true, HTTP2: want == 2})
		if got := newProbe(t, hub).registry(http.MethodGet, "/v2/", "").proto; got != want {
			t.Errorf("HTTP2 %t: HTTP/%d, want HTTP/%d", want == 2, got, want)
		}
	}
}

func TestF4RawFaultOverHTTP2IsAProblem(t *testing.T) {
	hub, err := Start(Options{TLS: true, HTTP2: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	hub.AddRule(Rule{Do: Drop(1, RST)})
	if _, err := newProbe(t, hub).try(http.MethodGet, hub.RegistryURL()+"/v2/"); err == nil {
		t.Error("the request was answered")
	}
	if len(hub.book.problems()) == 0 {
		t.Error("no problem was reported")
	}
}

func TestF5ContentIsDeterministic(t *testing.T) {
	a, b := New(t, Options{}), New(t, Options{})
	spec := ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}, Seed: 4, LayerSize: 5000}
	if x, y := a.PushImage("a/b", "1", spec), b.PushImage("c/d", "2", spec); x.Digest != y.Digest {
		t.Errorf("same seed: %s and %s", x.Digest, y.Digest)
	}
	if VirtualDigest(1, 100) == VirtualDigest(2, 100) {
		t.Error("different seeds, same virtual blob")
	}
}

func TestF6StateUnderConcurrentRequests(t *testing.T) {
	hub := New(t, Options{Anonymous: Unlimited()})
	p := newProbe(t, hub)
	img := hub.PushImage("library/a", "1", ImageSpec{})
	token := p.token("library/a")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				hub.PushImage("library/a", "2", ImageSpec{})
				hub.MoveTag("library/a", "1", img.Digest)
				hub.DeleteTag("library/a", "2")
				hub.DeleteRepo("library/none")
			}
		})
		wg.Go(func() {
			for range 20 {
				wantStatus(t, p.pull("/v2/library/a/manifests/1", token), http.StatusOK)
			}
		})
	}
	wg.Wait()
}

func TestF6DeletionsTakeEffect(t *testing.T) {
	hub := New(t, Options{})
	p := newProbe(t, hub)
	img := hub.PushImage("library/a", "1", ImageSpec{})
	token := p.token("library/a")
	blob := img.Blobs()[0].Digest
	hub.DeleteBlob("library/a", blob)
	wantStatus(t, p.registry(http.MethodGet, "/v2/library/a/blobs/"+blob, token), http.StatusNotFound)
	hub.DeleteTag("library/a", "1")
	wantStatus(t, p.pull("/v2/library/a/manifests/1", token), http.StatusNotFound)
	wantStatus(t, p.pull("/v2/library/a/manifests/"+img.Digest, token), http.StatusOK)
	hub.DeleteManifest("library/a", img.Digest)
	wantStatus(t, p.pull("/v2/library/a/manifests/"+img.Digest, token), http.StatusNotFound)
	hub.DeleteRepo("library/a")
	wantStatus(t, p.pull("/v2/library/a/manifests/"+img.Digest, token), http.StatusUnauthorized)
}

func TestF6ImageSpecs(t *testing.T) {
	hub := New(t, Options{})
	docker := hub.PushImage("library/d", "1", ImageSpec{Docker: true, Index: true, Foreign: true})
	if docker.MediaType != DockerList || docker.Children[0].MediaType != DockerManifest {
		t.Errorf("media types %s, %s", docker.MediaType, docker.Children[0].MediaType)
	}
	layers := docker.Children[0].Layers
	if last := layers[len(layers)-1]; len(last.URLs) != 1 || hub.Bytes(last.Digest) != nil {
		t.Errorf("foreign layer = %+v, want a URL and no bytes", last)
	}
	long := hub.PushImage("library/l", "1", ImageSpec{Algorithm: "sha512", Attestations: true})
	for _, d := range append(long.Manifests(), long.Blobs()...) {
		if got := DigestBy("sha512", hub.Bytes(d.Digest)); got != d.Digest || int64(len(hub.Bytes(d.Digest))) != d.Size {
			t.Errorf("content of %s has digest %s and %d bytes, want %d", d.Digest, got, len(hub.Bytes(d.Digest)), d.Size)
		}
	}
	if len(long.Others) != 1 {
		t.Errorf("%d attestations, want 1", len(long.Others))
	}
}

func TestSwitchOffRefusesUntilSwitchOn(t *testing.T) {
	for name, o := range map[string]Options{"loopback": {}, "memory": {InMemory: true}} {
		t.Run(name, func(t *testing.T) {
			hub := New(t, o)
			p := newProbe(t, hub)
			before := hub.RegistryURL()
			wantStatus(t, p.registry(http.MethodGet, "/v2/", ""), http.StatusUnauthorized)
			hub.SwitchOff()
			if _, err := p.try(http.MethodGet, before+"/v2/"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("switched off: error %v, want connection refused", err)
			}
			if err := hub.SwitchOn(); err != nil {
				t.Fatal(err)
			}
			if hub.RegistryURL() != before {
				t.Errorf("RegistryURL() = %s, want %s as before", hub.RegistryURL(), before)
			}
			wantStatus(t, p.registry(http.MethodGet, "/v2/", ""), http.StatusUnauthorized)
		})
	}
}

func TestSwitchOffEndsHangingRequests(t *testing.T) {
	hub := New(t, Options{})
	hub.AddRule(Rule{Role: RoleAuth, Do: Hang()})
	p := newProbe(t, hub)
	failed := make(chan error, 1)
	go func() {
		_, err := p.try(http.MethodGet, p.tokenURL("library/a"))
		failed <- err
	}()
	hub.WaitFor(t, 30*time.Second, "token request", func() bool { return hub.TokenRequests() == 1 })
	hub.SwitchOff(RoleAuth)
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
	wantStatus(t, p.registry(http.MethodGet, "/v2/", ""), http.StatusUnauthorized)
	hub.Settle(t)
}

// A hub in memory works inside a bubble: an hour of dripping takes no time.
func TestInMemoryFollowsVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := New(t, Options{InMemory: true})
		digest := hub.PutBlob("library/a", []byte(strings.Repeat("x", 60)))
		hub.AddRule(Rule{Role: CDN, Do: Drip(1, time.Minute)})
		p := newProbe(t, hub)
		p.client.Timeout = 0
		start := time.Now()
		a := p.do(http.MethodGet, p.location("library/a", digest, p.token("library/a")))
		wantBody(t, a, strings.Repeat("x", 60))
		if took := time.Since(start); took != 59*time.Minute {
			t.Errorf("took %s of virtual time, want 59m", took)
		}
		p.client.CloseIdleConnections()
	})
}

func TestInMemoryEndsInsideABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := New(t, Options{Named: true, InMemory: true})
		hub.AddRule(Rule{Role: RoleRegistry, Do: Hang()})
		p := newProbe(t, hub)
		p.client.Timeout = time.Hour
		if _, err := p.try(http.MethodGet, hub.RegistryURL()+"/v2/"); err == nil {
			t.Error("the request was answered")
		}
		p.client.CloseIdleConnections()
	})
}

func TestLineLimitIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := New(t, Options{InMemory: true, LineBytesPerSecond: 1 << 20})
		digest := hub.PutVirtualBlob("library/a", 1, 2<<20)
		p := newProbe(t, hub)
		p.client.Timeout = 0
		token := p.token("library/a")
		start := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			at := p.location("library/a", digest, token)
			wg.Go(func() { p.do(http.MethodGet, at) })
		}
		wg.Wait()
		if took := time.Since(start).Round(100 * time.Millisecond); took != 4*time.Second {
			t.Errorf("two blobs of 2 MiB over 1 MiB/s took %s, want 4s", took)
		}
		p.client.CloseIdleConnections()
	})
}

func TestConnectionLimitIsPerConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := New(t, Options{InMemory: true, CDNBytesPerSecond: 1 << 20})
		digest := hub.PutVirtualBlob("library/a", 1, 2<<20)
		p := newProbe(t, hub)
		p.client.Timeout = 0
		token := p.token("library/a")
		start := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			at := p.location("library/a", digest, token)
			wg.Go(func() { p.do(http.MethodGet, at) })
		}
		wg.Wait()
		if took := time.Since(start).Round(100 * time.Millisecond); took != 2*time.Second {
			t.Errorf("two connections took %s, want 2s", took)
		}
		p.client.CloseIdleConnections()
	})
}

func TestRateIsKeptByLateSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pacer
		start := time.Now()
		send := func(n int64) {
			if err := p.wait(t.Context(), n, 1000); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			send(10)
			time.Sleep(3 * time.Millisecond) // woken late
		}
		if took := time.Since(start).Round(10 * time.Millisecond); took != time.Second {
			t.Errorf("1000 bytes at 1000 a second took %s, want 1s", took)
		}
		time.Sleep(time.Minute) // a pause is not caught up
		start = time.Now()
		send(500)
		if took := time.Since(start); took != 500*time.Millisecond {
			t.Errorf("500 bytes after a pause took %s, want 500ms", took)
		}
	})
}

func TestFaultDialFaults(t *testing.T) {
	hub := New(t, Options{Named: true, InMemory: true})
	p := newProbe(t, hub)
	try := func() error {
		p.client.CloseIdleConnections()
		_, err := p.try(http.MethodGet, hub.URL(RoleAuth)+"/token")
		return err
	}
	for f, want := range map[DialFault]string{
		DialNXDomain: "no such host", DialRefused: "connection refused", DialReset: "reset by peer",
		TLSExpired: "expired", TLSWrongName: "other.example",
	} {
		hub.FailDial(RoleAuth, f)
		if err := try(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", f, err, want)
		}
	}
	hub.FailDial(RoleAuth, DialTimeout)
	p.client.Timeout = 50 * time.Millisecond
	if err := try(); err == nil {
		t.Error("timeout: no error")
	}
	p.client.Timeout = 20 * time.Second
	hub.FailDial(RoleAuth, DialOK)
	if err := try(); err != nil {
		t.Errorf("healed: %s", err)
	}
}

func TestFaultLookupsCanBeRebound(t *testing.T) {
	hub := New(t, Options{Named: true})
	good, bad := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("169.254.169.254")
	hub.SetAddrs("cdn.example", []netip.Addr{good}, []netip.Addr{bad})
	for i, want := range []netip.Addr{good, bad, bad} {
		got, err := hub.LookupNetIP(t.Context(), "ip", "cdn.example")
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("lookup %d = %v, %v, want %s", i, got, err, want)
		}
	}
	var dns *net.DNSError
	if _, err := hub.LookupNetIP(t.Context(), "ip", "unknown.example"); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("unknown name: %v, want not found", err)
	}
}
