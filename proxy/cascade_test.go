package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"forebay/internal/wire"
)

// What is left of a budget is for trusted networks, and our name is for nobody who asks.
func TestOnlyTrustedMirrorsAreToldOfTheBudget(t *testing.T) {
	f := &fakeCache{manifest: aManifest(t)}
	h := newHandler(t, f, func(o *Options) {
		o.Instance = "our-own-name"
		o.Trusted = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}
		o.Rates = func(string) (wire.RateLimit, bool) { return wire.RateLimit{Limit: 100, Remaining: 7}, true }
	})
	for remote, trusted := range map[string]bool{
		"10.1.2.3:1": true, "[2001:db8::7]:1": true, "[::ffff:10.1.2.3]:1": true, "10.2.0.1:1": false, "127.0.0.1:1": false, "[::1]:1": false,
		"[2001:db9::7]:1": false, "[fe80::1%eth0]:1": false, "": false, "@": false, "10.1.2.3": false,
	} {
		for _, hops := range []string{"", "someone", "a, b, c, d, e, f, g, h", "!, ,;"} {
			r := httptest.NewRequest("GET", "/v2/nginx/manifests/latest?ns=docker.io", nil)
			r.RemoteAddr = remote
			r.Header.Set("X-Forwarded-For", "10.1.2.3")
			if hops != "" {
				r.Header.Set(wire.HopsHeader, hops)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				t.Errorf("from %s through %q: %d %s", remote, hops, w.Code, w.Body)
			}
			if got := w.Header().Get("Ratelimit-Remaining"); (got == "7") != (trusted && hops != "") {
				t.Errorf("from %s through %q: told of the budget %q, trusted %t", remote, hops, got, trusted)
			}
			if got := w.Header().Get(wire.HopsHeader); (got != "") != (hops != "") {
				t.Errorf("from %s through %q: the answer is from %q", remote, hops, got)
			}
			for name, values := range w.Header() {
				if strings.Contains(strings.Join(values, ""), "our-own-name") {
					t.Errorf("from %s through %q: %s has our name", remote, hops, name)
				}
			}
		}
	}
	r := httptest.NewRequest("GET", "/v2/nginx/manifests/latest?ns=docker.io", nil)
	r.Header.Set(wire.HopsHeader, "a, our-own-name, b, c, d, e, f, g, h, i, j")
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusLoopDetected {
		t.Errorf("a request that came back: %d, want 508 whoever brings it", w.Code)
	}
}

func TestOnlyTrustedClientsChooseTheirTrace(t *testing.T) {
	for remote, trusted := range map[string]bool{"10.1.2.3:1": true, "127.0.0.1:1": false, "192.0.2.1:1": false} {
		f := &fakeCache{manifest: aManifest(t)}
		seen := false
		h := newHandler(t, f, func(o *Options) {
			o.Trusted = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
			o.Tracer = noop.NewTracerProvider().Tracer("")
			o.Observe = func(r *Request) { seen = r.TraceID != "" } // the noop tracer hands the parent on
		})
		r := httptest.NewRequest("GET", "/v2/nginx/manifests/latest?ns=docker.io", nil)
		r.RemoteAddr = remote
		r.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		h.ServeHTTP(httptest.NewRecorder(), r)
		if seen != trusted {
			t.Errorf("traceparent from %s has its request sampled: %t, want %t", remote, seen, trusted)
		}
	}
}
