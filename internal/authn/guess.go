package authn

import (
	"context"
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/semaphore"
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
	of *lru.Cache[netip.Addr, *guesser]
}

// guesser is what an address may still show. Of those that are looked at just now nobody knows
// yet whether they are wrong, so their number is bounded too: others wait.
type guesser struct {
	left    *rate.Limiter
	looking *semaphore.Weighted
}

func newGuesses() guesses {
	of, err := lru.New[netip.Addr, *guesser](guessersMost)
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

// Guess lets whoever is at addr try credentials that are not ours, within the bounds that hold for ours.
// If it may, end is to be called with whether they were right.
func (a *Authenticator) Guess(ctx context.Context, addr netip.Addr) (end func(right bool), ok bool) {
	return a.guesses.begin(ctx, addr)
}

// begin reports whether another credential of addr is looked at, once those before it are. Then end
// is to be called with whether it was right.
func (g guesses) begin(ctx context.Context, addr netip.Addr) (end func(right bool), ok bool) {
	one, known := g.of.Get(client(addr))
	if !known {
		one = &guesser{rate.NewLimiter(rate.Every(guessEvery), guessBurst), semaphore.NewWeighted(guessBurst)}
		if other, there, _ := g.of.PeekOrAdd(client(addr), one); there { // by another request of it
			one = other
		}
	}
	if one.looking.Acquire(ctx, 1) != nil {
		return nil, false
	}
	if one.left.Tokens() < 1 {
		one.looking.Release(1)
		return nil, false
	}
	return func(right bool) {
		if !right {
			one.left.Allow()
		}
		one.looking.Release(1)
	}, true
}
