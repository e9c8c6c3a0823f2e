package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"forebay/internal/pull"
	"forebay/test/hubtest"
)

// virtual returns a hub and a registry with the real pauses, for a synctest bubble.
func virtual(t *testing.T, o hubtest.Options) (*hubtest.Hub, *Registry) {
	t.Helper()
	o.InMemory = true
	hub := hubtest.New(t, o)
	options := hubOptions(hub)
	options.Retry = Retry{}
	return hub, newRegistry(t, options)
}

func TestTemporaryFailuresAreRetried(t *testing.T) {
	faults := []hubtest.Fault{
		hubtest.Status(408), hubtest.Status(500), hubtest.StatusHTML(502), hubtest.StatusEmpty(503), hubtest.Status(504),
		hubtest.StatusHTML(520), hubtest.StatusHTML(522), hubtest.StatusHTML(524),
		hubtest.NoReply(hubtest.RST), hubtest.NoReply(hubtest.FIN), hubtest.StatusRetryAfter(503, "1"),
	}
	for _, fault := range faults {
		synctest.Test(t, func(t *testing.T) {
			hub, r := virtual(t, hubtest.Options{})
			img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, When: bearer, Count: 3, Do: fault})
			start := time.Now()
			desc, raw, err := r.Manifest(t.Context(), repoAlpine, "latest")
			wantManifest(t, desc, raw, err, img)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s: four attempts took %v, want a few seconds", fault.Name, took)
			}
			hub.AssertAllFired(t)
		})
	}
}

func TestLastingFailureIsToldWithinSeconds(t *testing.T) {
	tests := []struct {
		fault  hubtest.Fault
		want   pull.Kind
		status int
		asked  int // requests with a token
		within time.Duration
	}{
		{hubtest.Status(503), pull.Unavailable, 503, 4, 2 * time.Second},
		{hubtest.Status(500), pull.Unavailable, 500, 4, 2 * time.Second},
		{hubtest.StatusHTML(522), pull.Timeout, 522, 4, 2 * time.Second},
		{hubtest.StatusRetryAfter(503, "120"), pull.Unavailable, 503, 1, time.Second},
		{hubtest.Status(501), pull.Unsupported, 501, 1, time.Second},
		{hubtest.Status(507), pull.Unavailable, 507, 1, time.Second},
		{hubtest.Status(429), pull.Limited, 429, 1, time.Second},
		{hubtest.Status(400), pull.Invalid, 400, 1, time.Second},
		{hubtest.Status(418), pull.Invalid, 418, 1, time.Second},
		{hubtest.Status(204), pull.Invalid, 204, 1, time.Second},
		{hubtest.Status(206), pull.Invalid, 206, 1, time.Second},
		{hubtest.Hang(), pull.Timeout, 0, 2, defaultAnswer + time.Second}, // once more, on a fresh connection
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			hub, r := virtual(t, hubtest.Options{})
			hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
			rule := hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, When: bearer, Do: test.fault})
			start := time.Now()
			_, _, err := r.Manifest(t.Context(), repoAlpine, "latest")
			e := wantKind(t, test.fault.Name, err, test.want)
			if e.Status != test.status {
				t.Errorf("%s: status is %d, want %d", test.fault.Name, e.Status, test.status)
			}
			if crowded := e.Detail == pull.Crowded; crowded != (test.status == 503) {
				t.Errorf("%s: crowded is %t", test.fault.Name, crowded)
			}
			if n := rule.Fired(); n != test.asked {
				t.Errorf("%s: hub was asked %d times, want %d", test.fault.Name, n, test.asked)
			}
			if took := time.Since(start); took > test.within {
				t.Errorf("%s: the error came after %v, want within %v", test.fault.Name, took, test.within)
			}
		})
	}
}

func TestEveryMethodAnswersInTime(t *testing.T) {
	d := digestOf("", nil)
	methods := map[string]func(context.Context, *Registry) error{
		"Resolve": func(ctx context.Context, r *Registry) error {
			_, err := r.Resolve(ctx, repoAlpine, "latest")
			return err
		},
		"Manifest": func(ctx context.Context, r *Registry) error {
			_, _, err := r.Manifest(ctx, repoAlpine, "latest")
			return err
		},
		"StatBlob": func(ctx context.Context, r *Registry) error { _, err := r.StatBlob(ctx, repoAlpine, d); return err },
		"OpenBlob": func(ctx context.Context, r *Registry) error {
			_, err := r.OpenBlob(ctx, repoAlpine, d, 0, -1)
			return err
		},
		"Tags":      func(ctx context.Context, r *Registry) error { _, err := r.Tags(ctx, repoAlpine); return err },
		"Referrers": func(ctx context.Context, r *Registry) error { _, err := r.Referrers(ctx, repoAlpine, d); return err },
	}
	faults := map[string]func(*hubtest.Hub){
		"hangs":          func(h *hubtest.Hub) { h.AddRule(hubtest.Rule{Do: hubtest.Hang()}) },
		"slow headers":   func(h *hubtest.Hub) { h.AddRule(hubtest.Rule{Do: hubtest.SlowHeaders(5 * time.Second)}) },
		"token hangs":    func(h *hubtest.Hub) { h.AddRule(hubtest.Rule{Route: hubtest.RouteToken, Do: hubtest.Hang()}) },
		"no connection":  func(h *hubtest.Hub) { h.FailDial(hubtest.RoleRegistry, hubtest.DialTimeout) },
		"connection off": func(h *hubtest.Hub) { h.FailDial(hubtest.RoleRegistry, hubtest.DialRefused) },
		"no such name":   func(h *hubtest.Hub) { h.FailDial(hubtest.RoleRegistry, hubtest.DialNXDomain) },
		"reset":          func(h *hubtest.Hub) { h.FailDial(hubtest.RoleRegistry, hubtest.DialReset) },
		"token off":      func(h *hubtest.Hub) { h.FailDial(hubtest.RoleAuth, hubtest.DialRefused) },
		"503 slowly": func(h *hubtest.Hub) {
			h.AddRule(hubtest.Rule{Do: hubtest.Both(hubtest.Delay(4*time.Second), hubtest.Status(503))})
		},
	}
	for name, method := range methods {
		for kind, fault := range faults {
			synctest.Test(t, func(t *testing.T) {
				hub, r := virtual(t, hubtest.Options{})
				hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
				fault(hub)
				start := time.Now()
				err := method(t.Context(), r)
				if k := pull.KindOf(err); err == nil || (k != pull.Unavailable && k != pull.Timeout) {
					t.Errorf("%s when the upstream %s: %v, want unavailable or timeout", name, kind, err)
				}
				if took := time.Since(start); took > 18*time.Second {
					t.Errorf("%s when the upstream %s: the error came after %v", name, kind, took)
				}
			})
		}
	}
}

func TestManifestThatDripsTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, r := virtual(t, hubtest.Options{})
		hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
		hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, When: bearer, Do: hubtest.Drip(1, time.Second)})
		start := time.Now()
		_, _, err := r.Manifest(t.Context(), repoAlpine, "latest")
		wantKind(t, "Manifest", err, pull.Timeout)
		if took := time.Since(start); took != defaultAnswer {
			t.Errorf("the error came after %v, want %v", took, defaultAnswer)
		}
	})
}

func TestDeadIdleConnectionCostsNothing(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	for range 3 {
		if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
			t.Errorf("Resolve: %v", err)
		}
		hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, When: hubtest.Reused, Count: 1, Do: hubtest.NoReply(hubtest.FIN)})
	}
}

func TestCancelledRequestReturnsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, r := virtual(t, hubtest.Options{})
		hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
		hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.Status(503)})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, _, err := r.Manifest(ctx, repoAlpine, "latest")
		if err == nil || time.Since(start) > 200*time.Millisecond {
			t.Errorf("Manifest: %v after %v, want an error within 200ms", err, time.Since(start))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = r.Resolve(gone, repoAlpine, "latest")
		wantKind(t, "Resolve with a context that is done", err, pull.Unavailable)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want it to be context.Canceled", err)
		}
	})
}

func TestRetriesAreBoundedOverAllRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, r := virtual(t, hubtest.Options{})
		rule := hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.Status(503)})
		const clients = 1000
		var wg sync.WaitGroup
		for n := range clients {
			wg.Go(func() {
				if _, err := r.Resolve(t.Context(), fmt.Sprintf("a/b%d", n), "latest"); err == nil {
					t.Error("Resolve: no error")
				}
			})
		}
		wg.Wait()
		if n := rule.Fired(); n > clients+retriesBurst+20*retriesPerSecond {
			t.Errorf("hub saw %d requests of %d clients in an outage", n, clients)
		}
	})
}

// twoEndpoints returns two hubs with the same image, and a registry with both as endpoints.
func twoEndpoints(t *testing.T) (first, second *hubtest.Hub, r *Registry, img *hubtest.Image) {
	t.Helper()
	first, second = hubtest.New(t, hubtest.Options{}), hubtest.New(t, hubtest.Options{})
	img = first.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	second.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	r = newRegistry(t, Options{
		Name: "docker.io", Endpoints: endpointsOf(first.RegistryURL(), second.RegistryURL()),
		Retry: Retry{Backoff: time.Millisecond, MaxBackoff: time.Millisecond},
		Log:   zap.NewNop(),
	})
	return first, second, r, img
}

func TestNextEndpointAnswersWhenTheFirstFails(t *testing.T) {
	for name, fault := range map[string]hubtest.Fault{
		"503": hubtest.Status(503), "507": hubtest.Status(507), "reset": hubtest.NoReply(hubtest.RST),
	} {
		first, second, r, img := twoEndpoints(t)
		rule := first.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: fault})
		for range 3 {
			desc, raw, err := r.Manifest(t.Context(), repoAlpine, "latest")
			wantManifest(t, desc, raw, err, img)
		}
		if n := rule.Fired(); n != 1 {
			t.Errorf("%s: first endpoint was asked %d times, want once and then a pause", name, n)
		}
		if n := second.ManifestGets(img.Digest); n != 3 {
			t.Errorf("%s: second endpoint gave the manifest %d times, want 3", name, n)
		}
		for _, b := range img.Blobs() {
			wantBlob(t, r, repoAlpine, digest(t, b.Digest), second.Bytes(b.Digest))
		}
	}
}

func TestNextEndpointIsNotAskedWhatTheFirstKnows(t *testing.T) {
	first, second, r, _ := twoEndpoints(t)
	_, _, err := r.Manifest(t.Context(), repoAlpine, "missing")
	wantKind(t, "Manifest of a missing tag", err, pull.NotFound)
	first.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.Status(429)})
	_, _, err = r.Manifest(t.Context(), repoAlpine, "latest")
	wantKind(t, "Manifest over the limit", err, pull.Limited)
	if n := second.Requests(); n != 0 {
		t.Errorf("second endpoint saw %d requests, want 0", n)
	}
}

func TestFirstEndpointIsPreferredAgainAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{}, "second.test")
		r := w.registry(func(o *Options) {
			o.Endpoints = append(o.Endpoints, Endpoint{URL: "http://second.test"})
			o.Retry.Attempts = 1
		})
		first, img := w.hub, w.push(repoAlpine, "latest")
		first.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Count: 1, Do: hubtest.Status(503)})
		for range 2 {
			if _, _, err := r.Manifest(t.Context(), repoAlpine, "latest"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(11 * time.Second)
		if _, _, err := r.Manifest(t.Context(), repoAlpine, "latest"); err != nil {
			t.Fatal(err)
		}
		if n := first.ManifestGets(img.Digest); n != 1 {
			t.Errorf("first endpoint gave the manifest %d times, want 1", n)
		}
	})
}

func TestAllEndpointsDown(t *testing.T) {
	first, second, r, _ := twoEndpoints(t)
	first.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.Status(502)})
	second.SwitchOff()
	_, _, err := r.Manifest(t.Context(), repoAlpine, "latest")
	if e := wantKind(t, "Manifest", err, pull.Unavailable); e.Status != 502 {
		t.Errorf("error is %v, want that of the first endpoint", err)
	}
}

func TestHungRegistryHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, r1 := virtual(t, hubtest.Options{})
		fast, r2 := virtual(t, hubtest.Options{})
		slow.AddRule(hubtest.Rule{Do: hubtest.Hang()})
		fast.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := r1.Resolve(t.Context(), repoAlpine, "latest"); err == nil {
					t.Error("Resolve at a registry that hangs: no error")
				}
			})
		}
		start := time.Now()
		if _, err := r2.Resolve(t.Context(), repoAlpine, "latest"); err != nil || time.Since(start) > time.Second {
			t.Errorf("Resolve at another registry: %v after %v", err, time.Since(start))
		}
		wg.Wait()
	})
}

func TestTLSFaultsAreUnavailable(t *testing.T) {
	for _, fault := range []hubtest.DialFault{hubtest.TLSExpired, hubtest.TLSWrongName} {
		hub := hubtest.New(t, hubtest.Options{Named: true})
		hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
		r := newRegistry(t, hubOptions(hub))
		hub.FailDial(hubtest.RoleRegistry, fault)
		_, err := r.Resolve(t.Context(), repoAlpine, "latest")
		if e := wantKind(t, string(fault), err, pull.Unavailable); !strings.Contains(e.Error(), "certificate") {
			t.Errorf("%s: error does not say why: %v", fault, e)
		}
		if n := hub.Requests(); n != 0 {
			t.Errorf("%s: hub saw %d requests, want 0", fault, n)
		}
	}
}

func TestHTTP2(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{Named: true, HTTP2: true})
	img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	d, want := aBlob(t, hub)
	if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
		t.Fatal(err) // many at once would each dial before it is known that one is enough
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			desc, raw, err := r.Manifest(t.Context(), repoAlpine, "latest")
			wantManifest(t, desc, raw, err, img)
			wantBlob(t, r, repoAlpine, d, want)
			if _, got, err := readBlob(t.Context(), r, repoAlpine, d, 1000, 2000); err != nil || !bytes.Equal(got, want[1000:2000]) {
				t.Errorf("range: %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if c := hub.Counters(); c.Conns[hubtest.RoleRegistry] > 2 {
		t.Errorf("registry saw %d connections, want HTTP/2 to share one", c.Conns[hubtest.RoleRegistry])
	}
	hub.AssertClean(t)
}

func TestManyHeadersAreRefused(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, When: bearer, Do: hubtest.ManyHeaders(50_000)})
	_, err := r.Resolve(t.Context(), repoAlpine, "latest")
	wantKind(t, "Resolve", err, pull.Unavailable)
}
