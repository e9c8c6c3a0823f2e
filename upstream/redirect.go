package upstream

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/registries"
	"forebay/internal/wire"
	"forebay/upstream/auth"
	"forebay/upstream/places"
)

// hopsMax bounds the redirects of one request. Real registries need two.
const hopsMax = 5

// redirects reports whether an answer points elsewhere. Without a place it is a refusal, as of HEADs.
func redirects(resp *http.Response) bool {
	if resp.Header.Get("Location") == "" {
		return false
	}
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// follow follows the redirect resp, the answer from u, and those after it. Credentials are
// sent along only until a hop leaves the exact origin of the registry.
func (r *Registry) follow(ctx context.Context, e *endpoint, a *ask, u *url.URL, resp *http.Response, g *auth.Grant) (*http.Response, *failure) {
	for range hopsMax {
		location := resp.Header.Get("Location")
		discard(resp)
		target, err := wire.Locate(u, location)
		if err == nil {
			err = e.dialer.Vet(target)
		}
		if err != nil {
			return nil, r.broken(a, "redirect from %s: %w", wire.Redact(u.Host), err)
		}
		u = target
		if !e.sameOrigin(u) {
			g = nil
		}
		var fail *failure
		if resp, fail = r.send(ctx, e, a, Redirect, u, g); fail == nil && g == nil && resp.StatusCode == http.StatusUnauthorized {
			resp, fail = r.admitted(ctx, e, a, u, resp)
		}
		if fail != nil {
			return nil, fail
		}
		switch {
		case redirects(resp):
		case a.answeredBy(resp.StatusCode):
			if g == nil && a.forBlob() && a.method == http.MethodGet { // that of a HEAD is signed for HEAD
				r.places.Keep(e.place(a), u)
			}
			return resp, nil
		default:
			return nil, r.targetFailure(ctx, a, u, resp, g)
		}
	}
	discard(resp)
	return nil, r.broken(a, "more than %d redirects", hopsMax)
}

// admitted answers the challenge resp of a registry to which another one redirected a, at u: with an anonymous
// token of its own token server. Nothing of that is remembered for the registry that redirected. Any
// other 401 is returned as it is.
func (r *Registry) admitted(ctx context.Context, e *endpoint, a *ask, u *url.URL, resp *http.Response) (*http.Response, *failure) {
	path, api := strings.CutSuffix(u.Path, a.tail)
	_, repo, found := strings.Cut(path, "/v2/")
	c, _, err := auth.ReadChallenge(resp.Header, u)
	if !api || !found || err != nil || c == nil || c.Basic() {
		return resp, nil
	}
	if other := c.Elsewhere(repo); other != nil {
		c = other
	}
	g, err := r.tokens.Grant(ctx, r.realms(e, e.outside, auth.NewTrust(u, registries.Registry{}, nil)), c, auth.Identity{}, repo)
	if err != nil {
		r.log.Debug("no token for a redirect's target", logkey.Host(u.Host), logkey.Err(err))
		return resp, nil
	}
	discard(resp)
	return r.send(ctx, e, a, Redirect, u, g)
}

// targetFailure classifies the refusal of a redirect target. It is not the registry: a
// 401 or 403 there says that a signed URL has expired, never that the content is
// forbidden, and what it says about authentication is ignored.
func (r *Registry) targetFailure(ctx context.Context, a *ask, u *url.URL, resp *http.Response, g *auth.Grant) *failure {
	f := r.statusFailure(ctx, a, resp, g)
	f.err.Err = fmt.Errorf("%w: %s", errTarget, wire.Redact(u.Host))
	switch f.err.Status {
	case http.StatusTooManyRequests:
		f.limit = storeLimit
		if !a.forBlob() {
			f.limit = pullLimit // registry.k8s.io redirects every manifest
		}
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		f.err.Kind = pull.Unavailable
		f.remedies |= tryRegistry
	case http.StatusNotFound, http.StatusGone:
		// Redirects of manifests are not signed (registry.k8s.io), so that a 404 there is true.
		if a.forBlob() {
			f.remedies |= tryRegistry
		}
	}
	return f
}

// forBlob reports whether a is for a blob, and not for a manifest or a list.
func (a *ask) forBlob() bool { return a.blob.Hex != "" }

// place names the blob of a among the places that blobs were redirected to.
func (e *endpoint) place(a *ask) places.Blob {
	return places.Blob{Endpoint: e.base, Repo: a.repo, Digest: a.blob}
}
