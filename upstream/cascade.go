package upstream

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"forebay/internal/pull"
	"forebay/internal/registries"
	"forebay/internal/wire"
)

// This file is about endpoints that are Forebays themselves, such as one mirror for each
// site behind a central one. A request must not come back to where it began, and an error
// from such an endpoint is about what was asked for, not about the endpoint.

// mayCascade reports whether the endpoint at base of the registry of that name may be
// another Forebay: it is neither the registry's own nor that of a public registry. Those
// are told nothing of us.
func mayCascade(base *url.URL, name string, standIn bool) bool {
	host := strings.ToLower(base.Host)
	if !standIn && host == registries.Find(name).Host() {
		return false
	}
	return !registries.Public(host)
}

// setHops adds us to the mirrors that a request came through.
func (r *Registry) setHops(ctx context.Context, e *endpoint, req *http.Request) {
	if e.cascade && req.URL.Host == e.base.Host {
		req.Header[wire.HopsHeader] = []string{wire.AddHop(pull.Hops(ctx), r.opts.Instance)}
	}
}

// byMirror reports whether an answer came from another Forebay.
func byMirror(h http.Header) bool { return h.Get(wire.HopsHeader) != "" }

// unconfirmed reports whether another Forebay says that it could not confirm a tag: by a
// warning 110 (response is stale), 111 (revalidation failed) or 112 (disconnected operation)
// of RFC 7234, 5.5, or by a 299 that says "stale".
func unconfirmed(h http.Header) bool {
	if !byMirror(h) {
		return false
	}
	return slices.ContainsFunc(h.Values("Warning"), func(v string) bool {
		code, _, _ := strings.Cut(v, " ")
		return code == "110" || code == "111" || code == "112" || code == "299" && strings.Contains(v, "stale")
	})
}

// ofMirror changes f to what it means when another Forebay reports it. That mirror has tried
// again itself, so that we need not. The limit or outage that it tells of is that of the
// registry: whatever else it keeps can still be had from it.
func (f *failure) ofMirror() {
	f.atWork, f.limit = true, notLimited
	f.remedies &^= tryAgain
	if f.err.Status == http.StatusLoopDetected && f.err.Message == "" { // the answer to a HEAD
		f.err.Message = "mirrors ask each other in a circle"
	}
}
