package dial

import "net/netip"

// Family says which addresses connections are made to. Docker Hub books anonymous pulls
// over IPv6 on the whole /64, which cloud neighbours share, so that IPv4 may have more left.
type Family string

// The families.
const (
	AnyFamily Family = ""
	IPv4Only  Family = "ipv4"
	IPv6Only  Family = "ipv6"
)

// suffix is what names of networks and lookups have behind them: "tcp4", "ip4".
func (f Family) suffix() string {
	switch f {
	case IPv4Only:
		return "4"
	case IPv6Only:
		return "6"
	}
	return ""
}

// has reports whether a is of the family.
func (f Family) has(a netip.Addr) bool {
	switch f {
	case IPv4Only:
		return a.Unmap().Is4()
	case IPv6Only:
		return !a.Unmap().Is4()
	}
	return true
}
