package authn

import (
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// Bounds on wrong credentials of one address: a person who mistypes meets none of them, and who
// guesses has some 8,600 tries a day.
const (
	guessBurst   = 20
	guessEvery   = 10 * time.Second
	guessersMost = 8192 // addresses that are remembered, some 200 bytes each
)

// guesses are the wrong credentials that addresses have shown.
type guesses struct {
	of *lru.Cache[netip.Addr, *rate.Limiter]
}

func newGuesses() guesses {
	of, err := lru.New[netip.Addr, *rate.Limiter](guessersMost)
	if err != nil {
		panic(err) // only for a size below one
	}
	return guesses{of}
}

// client returns what counts as one: of IPv6 addresses a network of 64 bits, which is what one
// site or machine has (RFC 6177).
func client(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		return netip.PrefixFrom(addr, 64).Masked().Addr()
	}
	return addr
}

// may reports whether addr may show another credential that has to be looked at.
func (g guesses) may(addr netip.Addr) bool {
	l, ok := g.of.Get(client(addr))
	return !ok || l.Tokens() >= 1
}

// failed counts a wrong one.
func (g guesses) failed(addr netip.Addr) {
	l, ok := g.of.Get(client(addr))
	if !ok {
		l = rate.NewLimiter(rate.Every(guessEvery), guessBurst)
		g.of.Add(client(addr), l)
	}
	l.Allow()
}
