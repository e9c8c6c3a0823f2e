package wire

import (
	"errors"
	"net/url"
	"strings"
)

// Locate returns the URL that a Location header names, seen from base. Nothing in it
// is cleaned: a double slash or a dot may be part of what was signed. Who names itself with http, behind a
// proxy that ends TLS, is reached as base was.
func Locate(base *url.URL, location string) (*url.URL, error) {
	location = strings.TrimSpace(location)
	if location == "" {
		return nil, errors.New("it names no location")
	}
	if rest, ok := strings.CutPrefix(location, "//"); ok {
		location = base.Scheme + "://" + rest
	} else if strings.HasPrefix(location, "/") {
		location = base.Scheme + "://" + base.Host + location
	}
	u, err := url.Parse(location)
	if err != nil {
		return nil, errors.New("its location is no URL") // err would quote it
	}
	if !u.IsAbs() {
		u = base.ResolveReference(u)
	}
	port := u.Port()
	if u.Scheme == "http" && base.Scheme == "https" && strings.EqualFold(u.Hostname(), base.Hostname()) && (port == "" || port == "80" || port == base.Port()) {
		u.Scheme, u.Host = base.Scheme, base.Host
	}
	u.Fragment, u.RawFragment = "", "" // RFC 9110, 10.2.2 allows one, and it is never sent
	return u, nil
}
