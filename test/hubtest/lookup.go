package hubtest

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// names holds what LookupNetIP answers besides the roles' addresses.
type names struct {
	mu      sync.Mutex
	answers map[string][][]netip.Addr // by host; the next lookup takes the first, the last one stays
}

// SetAddrs makes successive lookups of a host give successive answers; the last one
// stays. It is how a name is bound to a forbidden address, or rebound to one between
// two lookups.
func (h *Hub) SetAddrs(host string, answers ...[]netip.Addr) {
	h.names.mu.Lock()
	defer h.names.mu.Unlock()
	if h.names.answers == nil {
		h.names.answers = map[string][][]netip.Addr{}
	}
	h.names.answers[host] = answers
}

// LookupNetIP has the type of net.Resolver.LookupNetIP. It knows the production names
// of the roles (at their loopback addresses) and what SetAddrs told it. Nothing else exists.
func (h *Hub) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	h.names.mu.Lock()
	defer h.names.mu.Unlock()
	if list := h.names.answers[host]; len(list) > 0 {
		if len(list) > 1 {
			h.names.answers[host] = list[1:]
		}
		return slices.Clone(list[0]), nil
	}
	for _, s := range h.servers {
		if s.site.name == host && s.site.role != RoleMeta {
			return []netip.Addr{netip.MustParseAddr(s.site.ip)}, nil
		}
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}
