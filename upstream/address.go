package upstream

import "net/netip"

// addressClass says who may be reached at an address.
type addressClass uint8

const (
	publicAddress  addressClass = iota
	privateAddress              // only for an upstream that is private itself
	neverAddress                // for nobody: link-local, metadata services, not a host
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

	{netip.MustParsePrefix("127.0.0.0/8"), privateAddress},
	{netip.MustParsePrefix("10.0.0.0/8"), privateAddress},
	{netip.MustParsePrefix("172.16.0.0/12"), privateAddress},
	{netip.MustParsePrefix("192.168.0.0/16"), privateAddress},
	{netip.MustParsePrefix("100.64.0.0/10"), privateAddress}, // carrier NAT
	{netip.MustParsePrefix("192.0.0.0/24"), privateAddress},
	{netip.MustParsePrefix("198.18.0.0/15"), privateAddress}, // benchmarks
	{netip.MustParsePrefix("::1/128"), privateAddress},
	{netip.MustParsePrefix("fc00::/7"), privateAddress},
	{netip.MustParsePrefix("fec0::/10"), privateAddress}, // site-local, deprecated
}

// Prefixes of IPv6 addresses that carry an IPv4 address.
var (
	compatiblePrefix = netip.MustParsePrefix("::/96")
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
	case nat64Prefix.Contains(a), nat64Local.Contains(a), compatiblePrefix.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFourPrefix.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case teredoPrefix.Contains(a): // the client's address, inverted
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	}
	return netip.Addr{}, false
}
