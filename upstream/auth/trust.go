package auth

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"forebay/internal/registries"
	"forebay/upstream/dial"
)

// Trust decides which token servers get an endpoint's credentials. A registry, or
// whoever answers in its place, names its token server itself, so this is what stands
// between a wrong answer and a stolen password (CVE-2026-33540 and its kin).
type Trust struct {
	base *url.URL
	// listed are hosts that the operator trusts, as host or host:port.
	listed []string
	// known are the realms of a well-known registry, which then stand instead of the rule.
	known []string
}

// NewTrust returns what an endpoint at base of a well-known registry, or of none, may name, beside
// the hosts that the operator listed.
func NewTrust(base *url.URL, known registries.Registry, listed []string) Trust {
	t := Trust{base: base}
	for _, host := range listed {
		t.listed = append(t.listed, strings.ToLower(host))
	}
	if u, err := url.Parse(known.Endpoint); err == nil && dial.HostPort(u) == dial.HostPort(base) && u.Scheme == base.Scheme {
		t.known = known.Realms
	}
	return t
}

// trusts reports whether credentials may be sent to realm: over https (or over http to
// an endpoint's own host when the endpoint itself is http), and to a host that is
// listed, or known for this registry, or the endpoint's own, or of the same registrable
// domain.
func (t Trust) trusts(realm *url.URL) bool {
	secure := realm.Scheme == "https"
	if !secure && (realm.Scheme != "http" || t.base.Scheme != "http") {
		return false
	}
	if slices.Contains(t.listed, strings.ToLower(realm.Host)) || slices.Contains(t.listed, dial.HostPort(realm)) {
		return true
	}
	if dial.HostPort(realm) == dial.HostPort(t.base) {
		return true
	}
	if !secure {
		return false
	}
	host, base := strings.ToLower(realm.Hostname()), t.base.Hostname()
	if len(t.known) > 0 {
		return realm.Port() == "" && slices.Contains(t.known, host)
	}
	return sameRegistrable(host, base)
}

// sameRegistrable reports whether two host names are equal or have one owner by the
// public suffix list. Addresses and localhost have no owner.
func sameRegistrable(a, b string) bool {
	if noOwner(a) || noOwner(b) {
		return false
	}
	if a == b {
		return true
	}
	domainA, errA := publicsuffix.EffectiveTLDPlusOne(a)
	domainB, errB := publicsuffix.EffectiveTLDPlusOne(b)
	return errA == nil && errB == nil && domainA == domainB
}

func noOwner(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return dial.Localhost(host) || !strings.Contains(host, ".")
}
