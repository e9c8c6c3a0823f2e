package server

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

const (
	// descriptorsKept are those that connections leave for everything else: the index, downloads
	// and their connections (at most 32 of an upstream), and the other listener.
	descriptorsKept = 512
	// connectionsLeast is how many there may be, however few descriptors the process has.
	connectionsLeast = 64
	// crowd is how many connections there are before it is looked whether the next is worth reading.
	crowd = 128
)

// connectionsMost returns how many connections of clients so many descriptors are enough for:
// each may have a file that is sent to it.
func connectionsMost(descriptors int) int {
	return max((descriptors-descriptorsKept)/2, connectionsLeast)
}

// guests counts the connections that are open: in all, and those of each address, which has at
// most half of them. The next are closed at once, so that nobody waits in vain.
type guests struct {
	most   int
	refuse rate.Sometimes // bounds a warning

	mu  sync.Mutex
	all int                // guarded by mu
	by  map[netip.Addr]int // guarded by mu; no zeros
}

// enter counts a connection, until left is called, which may be done more than once. It
// reports whether there is room for it. A proxy, which connects for many, may have all of them.
func (g *guests) enter(from net.Addr, proxy bool) (left func(), ok bool) {
	var addr netip.Addr
	if tcp, is := from.(*net.TCPAddr); is {
		addr = tcp.AddrPort().Addr().Unmap()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= g.most || !proxy && addr.IsValid() && g.by[addr] >= max(g.most/2, 1) {
		return nil, false
	}
	if g.by == nil {
		g.by = map[netip.Addr]int{}
	}
	g.all++
	g.by[addr]++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
		if g.by[addr]--; g.by[addr] == 0 {
			delete(g.by, addr)
		}
	}), true
}

// crowded reports whether there are so many that those who have left already are not let in.
func (g *guests) crowded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all > crowd
}
