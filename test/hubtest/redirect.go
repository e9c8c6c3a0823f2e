package hubtest

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// RedirectTo answers code with a Location of exactly the given text, in which "{evil}"
// and the other roles in braces become base URLs. "{signed}" becomes the path
// and query of the blob, signed for any CDN role but R2: "{cdn-sub}{signed}".
func RedirectTo(code int, location string) Fault {
	return Fault{Name: "redirect to " + location, before: func(x *exchange) {
		x.reply = redirect(code, x.Hub.expandFor(x, location))
	}}
}

// RedirectNowhere answers code without a Location header.
func RedirectNowhere(code int) Fault {
	return Fault{Name: "redirect nowhere", before: func(x *exchange) {
		x.reply = redirect(code, "")
		x.reply.Header.Del("Location")
	}}
}

// RedirectCDN sends the client of a blob to a CDN role of the caller's choice, with a
// good signature.
func RedirectCDN(code int, role Role) Fault {
	return Fault{Name: "redirect to " + string(role), before: func(x *exchange) {
		if x.Route == RouteBlob && x.Ref != "" {
			x.reply = redirect(code, x.Hub.signedURL(role, x.r.Method, x.Ref))
		}
	}}
}

// RedirectRelative sends the client of a blob to a path on the registry's own host, as
// Artifact Registry does.
func RedirectRelative(code int) Fault {
	return Fault{Name: "relative redirect", before: func(x *exchange) {
		if x.Route == RouteBlob && x.Repo != "" {
			x.reply = redirect(code, signedPath(x, RoleRegistry))
		}
	}}
}

// RedirectChain makes a CDN redirect n times to itself before it serves. The
// rule must be for CDN roles and fire always.
func RedirectChain(n, code int) Fault {
	return Fault{Name: fmt.Sprintf("chain of %d", n), before: func(x *exchange) {
		hop, _ := strconv.Atoi(x.r.URL.Query().Get("hop"))
		if hop >= n {
			return
		}
		base, _, _ := strings.Cut(x.r.RequestURI, "&hop=")
		x.reply = redirect(code, fmt.Sprintf("%s%s&hop=%d", x.Hub.URL(x.Role), base, hop+1))
	}}
}

// RedirectLoop redirects to the very URL that was asked for.
func RedirectLoop(code int) Fault {
	return Fault{Name: "redirect loop", before: func(x *exchange) {
		x.reply = redirect(code, x.Hub.URL(x.Role)+x.r.RequestURI)
	}}
}

// ExpireURL makes all signed URLs issued so far expired before the request is
// answered, so that a resume needs a new one. For a life of its own use
// Options.SignedTTL; a negative one is over from the start.
func ExpireURL() Fault {
	return Fault{Name: "expire url", before: func(x *exchange) { x.Hub.ExpireURLs() }}
}

// ExpireURLAfter is ExpireURL for the moment when the answer was given: the body under
// way is not touched.
func ExpireURLAfter() Fault {
	return Fault{Name: "expire url after", after: func(x *exchange) { x.Hub.ExpireURLs() }}
}

// RefuseAuthHeader makes a CDN answer 403 to a request with an Authorization header,
// instead of the 400 that it answers anyway.
func RefuseAuthHeader() Fault {
	return Fault{Name: "refuse authorization", before: func(x *exchange) {
		if x.r.Header.Get("Authorization") != "" {
			x.reply = xmlError(http.StatusForbidden, "AccessDenied", "Access Denied")
		}
	}}
}

// Rewrite makes the registry one behind a proxy that puts prefix before the names of repositories: it
// looks for those, and its challenges name them.
func Rewrite(prefix string) Fault {
	return Fault{Name: "rewrite to " + prefix, before: func(x *exchange) { x.Repo = prefix + x.Repo }}
}

// NewAuth makes the target of a redirect ask for credentials of its own, for the
// attacker.
func NewAuth() Fault {
	return Challenge(`Bearer realm="{evil}/token",service="registry.docker.io",scope="repository:library/alpine:pull"`)
}

// BigHeaders adds response headers of n bytes in all, in lines of at most 4 KiB.
func BigHeaders(n int) Fault {
	return wireFault("big headers", func(_ *exchange, w *wire) {
		for i := 0; n > 0; i++ {
			size := min(n, 4<<10)
			w.lines = append(w.lines, fmt.Sprintf("X-Big-%d: %s", i, strings.Repeat("h", size)))
			n -= size
		}
	})
}

// ManyHeaders adds n short header lines.
func ManyHeaders(n int) Fault {
	return wireFault("many headers", func(_ *exchange, w *wire) {
		for i := range n {
			w.lines = append(w.lines, fmt.Sprintf("X-Many-%d: 1", i))
		}
	})
}

// Endless repeats the body in chunks until the client goes away.
func Endless() Fault {
	return wireFault("endless", func(x *exchange, w *wire) {
		if x.reply.n > 0 {
			w.framing, w.endless = chunked, true
		}
	})
}

func redirect(code int, location string) *Reply {
	a := newReply(code, "application/octet-stream", nil)
	a.Header["Location"] = []string{location}
	return a
}

// signedPath is the blob's path and query, signed for a role.
func signedPath(x *exchange, role Role) string {
	path := cdnPath(x.Ref)
	return path + "?" + x.Hub.signQuery(role, x.r.Method, path)
}

// expandFor is expand that also knows {signed}.
func (h *Hub) expandFor(x *exchange, s string) string {
	if strings.Contains(s, "{signed}") && validDigest(x.Ref) {
		for _, site := range roleSites() {
			if site.role != RoleR2 && strings.Contains(s, "{"+string(site.role)+"}") {
				s = strings.ReplaceAll(s, "{signed}", signedPath(x, site.role))
				break
			}
		}
	}
	return h.expand(s)
}
