package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// This file keeps web browsers out. Any page that somebody looks at can have their browser send
// requests to every address that it reaches, this one too: they would spend pulls, and a page whose
// name comes to mean our address could read what is private.

// errBrowser is the answer to a web browser.
var errBrowser = &Refusal{Status: http.StatusForbidden, Code: "DENIED", Message: "this is a registry for container clients: a web browser is refused, lest a page that it shows pulls through it"}

// fromBrowser reports whether a web browser sent r, which a page cannot hide: it may not set a
// header that begins with Sec-, nor the Origin. Over plain HTTP to another machine no Sec-Fetch-… is
// sent (W3C Fetch Metadata, 2), and no Origin by an <img>; then only the User-Agent is left, which
// begins with Mozilla/ in every browser. No registry client sends any of them.
func fromBrowser(r *http.Request) bool {
	for name := range r.Header { // net/http spells all names in one way
		if strings.HasPrefix(name, "Sec-") {
			return true
		}
	}
	if strings.HasPrefix(r.UserAgent(), "Mozilla/") {
		return true
	}
	for _, origin := range r.Header["Origin"] {
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return true
		}
	}
	return false
}

// kind returns what x asks for, for who counts.
func (x *exchange) kind() Kind {
	if x.browser {
		return KindBrowser
	}
	return kindOf(x.route.Resource)
}
