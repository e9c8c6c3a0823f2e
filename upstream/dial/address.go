package dial

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// addressClass says who may be reached at an address.
type addressClass uint8

const (
	publicAddress   addressClass = iota
	privateAddress               // only for an upstream that is private itself, see reachOf
	loopbackAddress              // only for one that is on loopback itself
	neverAddress                 // for nobody: link-local, metadata services, not a host
)

// addressRule gives a prefix its class.
type addressRule struct {
	prefix netip.Prefix
	class  addressClass
}

// classify returns the class of a, and of the IPv4 address inside it if that is worse:
// mapped, compatible, NAT64, 6to4 and Teredo addresses all lead to one.
func classify(a netip.Addr) addressClass {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return neverAddress
	}
	class := publicAddress
	for _, rule := range specialAddresses {
		if rule.prefix.Contains(a) {
			class = max(class, rule.class)
		}
	}
	if inner, ok := embedded(a); ok {
		class = max(class, classify(inner))
	}
	return class
}

// specialAddresses are from the IANA special-purpose registries and the documentation
// of the clouds' metadata services. What is not listed is public.
var specialAddresses = [...]addressRule{
	{netip.MustParsePrefix("0.0.0.0/8"), neverAddress},
	{netip.MustParsePrefix("169.254.0.0/16"), neverAddress},     // link-local; most metadata services
	{netip.MustParsePrefix("224.0.0.0/4"), neverAddress},        // multicast
	{netip.MustParsePrefix("240.0.0.0/4"), neverAddress},        // reserved, broadcast
	{netip.MustParsePrefix("100.100.100.200/32"), neverAddress}, // Alibaba metadata
	{netip.MustParsePrefix("168.63.129.16/32"), neverAddress},   // Azure platform
	{netip.MustParsePrefix("192.0.0.192/32"), neverAddress},     // Oracle metadata
	{netip.MustParsePrefix("::/128"), neverAddress},
	{netip.MustParsePrefix("fe80::/10"), neverAddress},              // link-local
	{netip.MustParsePrefix("ff00::/8"), neverAddress},               // multicast
	{netip.MustParsePrefix("fd00:ec2::254/128"), neverAddress},      // AWS metadata
	{netip.MustParsePrefix("fd20:ce::254/128"), neverAddress},       // Google metadata
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), neverAddress}, // Oracle metadata

	{netip.MustParsePrefix("127.0.0.0/8"), loopbackAddress},
	{netip.MustParsePrefix("10.0.0.0/8"), privateAddress},
	{netip.MustParsePrefix("172.16.0.0/12"), privateAddress},
	{netip.MustParsePrefix("192.168.0.0/16"), privateAddress},
	{netip.MustParsePrefix("100.64.0.0/10"), privateAddress}, // carrier NAT
	{netip.MustParsePrefix("192.0.0.0/24"), privateAddress},
	{netip.MustParsePrefix("198.18.0.0/15"), privateAddress}, // benchmarks
	{netip.MustParsePrefix("::1/128"), loopbackAddress},
	{netip.MustParsePrefix("fc00::/7"), privateAddress},
	{netip.MustParsePrefix("fec0::/10"), privateAddress},      // site-local, deprecated
	{netip.MustParsePrefix("64:ff9b:1::/48"), privateAddress}, // a site's own NAT64 (RFC 8215): where it leads only the site knows
	{netip.MustParsePrefix("2001:db8::/32"), neverAddress},    // documentation (RFC 3849)
	{netip.MustParsePrefix("3fff::/20"), neverAddress},        // documentation (RFC 9637)
	{netip.MustParsePrefix("100::/64"), neverAddress},         // discarded (RFC 6666)
	{netip.MustParsePrefix("5f00::/16"), neverAddress},        // segment identifiers (RFC 9602)
}

// Prefixes of IPv6 addresses that carry an IPv4 address.
var (
	compatiblePrefix = netip.MustParsePrefix("::/96")
	translatedPrefix = netip.MustParsePrefix("::ffff:0:0:0/96") // SIIT (RFC 2765 2.1)
	nat64Prefix      = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local       = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFourPrefix  = netip.MustParsePrefix("2002::/16")
	teredoPrefix     = netip.MustParsePrefix("2001::/32")
)

func embedded(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() {
		return netip.Addr{}, false
	}
	b := a.As16()
	switch {
	case a == netip.IPv6Loopback():
		return netip.Addr{}, false
	case nat64Prefix.Contains(a), nat64Local.Contains(a), compatiblePrefix.Contains(a), translatedPrefix.Contains(a),
		b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP (RFC 5214 6.1)
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFourPrefix.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case teredoPrefix.Contains(a): // the client's address, inverted
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	}
	return netip.Addr{}, false
}

// privateDomains are top-level domains that are used inside networks and never delegated
// (RFC 6762 appendix G, RFC 8375, ICANN's reservation of "internal"), and Kubernetes' own.
var privateDomains = []string{"internal", "intranet", "private", "corp", "home", "lan", "local", "localdomain", "home.arpa", "svc"}

// reachOf returns the worst class of address to which an endpoint on host may lead others:
// by what is configured, whatever its name resolves to or it was reached at. A name that says
// nothing is public.
func reachOf(host string) addressClass {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if a, err := netip.ParseAddr(host); err == nil {
		return classify(a)
	}
	switch {
	case Localhost(host):
		return loopbackAddress
	case !strings.Contains(host, "."):
		return privateAddress
	}
	for _, domain := range privateDomains {
		if strings.HasSuffix(host, "."+domain) {
			return privateAddress
		}
	}
	return publicAddress
}

// looksNumeric reports whether some resolver may take host for an IPv4 address that is not
// written as one: "2130706433", "0x7f.1", "127.1".
func looksNumeric(host string) bool {
	labels := strings.Split(strings.TrimSuffix(strings.ToLower(host), "."), ".")
	last := labels[len(labels)-1]
	if rest, hex := strings.CutPrefix(last, "0x"); hex {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// Ours are the addresses on which this process listens. Nothing that a registry says leads
// there. The zero value has none; it may be used concurrently.
type Ours struct {
	mu    sync.Mutex
	addrs []netip.AddrPort // guarded by mu
}

// Add adds the address of a listener; one that has no port is ignored.
func (o *Ours) Add(a net.Addr) {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.addrs = append(o.addrs, plain(at))
}

// plain is an address as it is compared: without a zone, and as IPv4 if it is that.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// has reports whether one of our listeners may be at a. One that listens on a single address is
// there alone: on the others of this machine somebody else may have the same port.
func (o *Ours) has(a netip.AddrPort) bool {
	if o == nil {
		return false
	}
	a = plain(a)
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.addrs, func(l netip.AddrPort) bool {
		switch {
		case l.Port() != a.Port():
			return false
		case a.Addr().IsUnspecified(): // which is loopback to who dials it
			return l.Addr().IsUnspecified() || l.Addr().IsLoopback()
		case l.Addr().IsUnspecified():
			return local(a.Addr())
		}
		return l == a
	})
}

// local reports whether an address is this machine's; without an answer it is.
func local(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(all, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr().Unmap() == a
	})
}
