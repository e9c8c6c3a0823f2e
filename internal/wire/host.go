package wire

import (
	"net/netip"
	"strings"
)

// Host returns a host as it is compared, and its port if it has one: in lower case, without the
// dot that ends a whole name of DNS, an IPv6 address in its shortest form in brackets. Its zone is left out: it means nothing to others
// (RFC 6874, section 1), and clients do not send it.
func Host(s string) (host, port string) {
	host = strings.ToLower(s)
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.Count(host, ":") == 1 || i > 0 && host[0] == '[' && host[i-1] == ']' {
		host, port = host[:i], host[i+1:]
	}
	bare := host
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		bare = host[1 : len(host)-1]
	}
	// The percent sign before a zone is escaped in URLs.
	if a, err := netip.ParseAddr(strings.Replace(bare, "%25", "%", 1)); err == nil && a.Is6() {
		return "[" + a.WithZone("").String() + "]", port
	}
	return strings.TrimSuffix(host, "."), port
}

// registry returns the canonical name of the registry that s, in lower case, is a name of.
func (g *Registries) registry(s string) (string, bool) {
	name, ok := g.Names[s]
	if !ok && strings.HasPrefix(s, "[") {
		host, port := Host(s)
		if port != "" {
			host += ":" + port
		}
		name, ok = g.Names[host]
	}
	if !ok && g.Others != nil && looksLikeHost(s) {
		return g.Others(s)
	}
	return name, ok
}

// byHost returns the registry that a name of the mirror stands for, with its port or without.
func (g *Registries) byHost(s string) string {
	if len(g.Hosts) == 0 {
		return ""
	}
	host, port := Host(s)
	if name, ok := g.Hosts[host+":"+port]; ok {
		return name
	}
	return g.Hosts[host]
}
