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

// This file is about endpoints that are mirrors of this kind, as at the boundaries of
// sites: a request must not come back to where it began, and what such an endpoint says is
// about what was asked for, not about the endpoint.

// mayCascade reports whether the endpoint at base may be another mirror of this kind, for
// the registry of that name: it is neither where that registry is by itself nor one of the
// public registries, which are told nothing of us.
func mayCascade(base *url.URL, name string, standIn bool) bool {
	host := strings.ToLower(base.Host)
	if !standIn && host == registries.Find(name).Host() {
		return false
	}
	return !registries.Public(host)
}

// setHops names the mirrors that a request came through, and us.
func (r *Registry) setHops(ctx context.Context, e *endpoint, req *http.Request) {
	if e.cascade && req.URL.Host == e.base.Host {
		req.Header[wire.HopsHeader] = []string{wire.AddHop(pull.Hops(ctx), r.opts.Instance)}
	}
}

// byMirror reports whether an answer came from another mirror of this kind.
func byMirror(h http.Header) bool { return h.Get(wire.HopsHeader) != "" }

// unconfirmed reports whether another mirror says that it could not confirm a tag: by
// 110 (response is stale), 111 (revalidation failed) or 112 (disconnected) of RFC 7234, 5.5,
// or by 299, of which other texts are no news of this kind.
func unconfirmed(h http.Header) bool {
	if !byMirror(h) {
		return false
	}
	return slices.ContainsFunc(h.Values("Warning"), func(v string) bool {
		code, _, _ := strings.Cut(v, " ")
		return code == "110" || code == "111" || code == "112" || code == "299" && strings.Contains(v, "stale")
	})
}

// ofMirror makes of a failure what it means from another mirror: it has tried as often as is
// any use, and its limits and outages are those of what was asked for, while all else that
// it keeps can be had.
func (f *failure) ofMirror() {
	f.atWork, f.limit = true, notLimited
	f.remedies &^= tryAgain
	if f.err.Status == http.StatusLoopDetected && f.err.Message == "" { // the answer to a HEAD
		f.err.Message = "mirrors ask each other in a circle"
	}
}
