package governor

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"forebay/internal/wire"
)

const (
	// spentMost bounds the pulls that are remembered for attribution. Docker Hub's limits
	// are 100 and 200 in a window.
	spentMost = 2048
	// believeShare is the part of a window for which a low remainder is believed. After that
	// known tags are confirmed again, by a request that costs nothing and whose answer tells
	// how much remains now.
	believeShare = 10
	// believeLeast is the same for a registry that names no window.
	believeLeast = time.Minute
	// recentShare is the part of a window over which the present rate is measured.
	recentShare = 6
)

// Account is the limit of one credential: what the registry says of it, and what we spent.
// The zero value knows nothing, which means that there is no limit.
type Account struct {
	mu     sync.Mutex
	said   wire.RateLimit
	seenAt time.Time // zero: nothing was ever said
	used   time.Time // since when something is used up without a full reset; zero: nothing is
	spent  []pulled  // by us, oldest first; at most spentMost
	booked int64     // pulls that were ever booked
}

// pulled is one request that was charged.
type pulled struct {
	at                 time.Time
	client, repository string
}

// Asking returns what [Account.See] is told of a request that begins now.
func (a *Account) Asking() (since int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.booked
}

// See remembers what an answer said of the limit. An answer that said nothing changes
// nothing: images of verified publishers have no limit, and do not tell about other images.
// since is what Asking returned: an answer to a request that began before the last pull may
// not know of it, and is not believed when it says that more remains.
func (a *Account) See(l wire.RateLimit, since int64, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if since < a.booked && l.Limit == a.said.Limit && l.Remaining > a.said.Remaining && a.said.Remaining >= 0 {
		return
	}
	a.take(l, now)
}

// take makes l what was said last. a.mu is held.
func (a *Account) take(l wire.RateLimit, now time.Time) {
	a.said, a.seenAt = l, now
	a.trim(now)
	used := a.usedUp()
	switch {
	case used <= 0:
		a.used = time.Time{}
	case a.used.IsZero() || l.Window > 0 && now.Sub(a.used) >= l.Window:
		a.used = now
	}
	// We cannot have spent more than is used up: a window has ended since.
	if used >= 0 && int64(len(a.spent)) > used {
		a.spent = slices.Delete(a.spent, 0, len(a.spent)-int(used))
	}
}

// Spend books a charged pull on a client's address and a repository. Its caller must call
// it before See for the same answer.
func (a *Account) Spend(client, repository string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.spent) == spentMost {
		a.spent = slices.Delete(a.spent, 0, spentMost/8)
	}
	a.spent = append(a.spent, pulled{now, client, repository})
	a.booked++
}

// usedUp returns how much of the limit is gone, by us and by others; -1 when unknown.
func (a *Account) usedUp() int64 {
	if a.said.Limit < 0 || a.said.Remaining < 0 {
		return -1
	}
	return max(a.said.Limit-a.said.Remaining, 0)
}

// trim drops what is older than the window.
func (a *Account) trim(now time.Time) {
	if a.said.Window <= 0 {
		return
	}
	old := 0
	for old < len(a.spent) && now.Sub(a.spent[old].at) >= a.said.Window {
		old++
	}
	a.spent = slices.Delete(a.spent, 0, old)
}

// Low reports whether less than the given share of the limit is known to remain. Without a
// limit that is never so.
func (a *Account) Low(reserve float64, now time.Time) bool { return a.lowAfter(0, reserve, now) }

// AtReserve reports whether one more pull would take from the given share.
func (a *Account) AtReserve(reserve float64, now time.Time) bool { return a.lowAfter(1, reserve, now) }

// AtLast reports whether no more than the given share of the limit is left, in whole pulls: of a
// small limit that is none.
func (a *Account) AtLast(share float64, now time.Time) bool {
	a.mu.Lock()
	whole := 0.0
	if a.said.Limit > 0 {
		whole = math.Floor(share*float64(a.said.Limit)) / float64(a.said.Limit)
	}
	a.mu.Unlock()
	return whole > 0 && a.lowAfter(1, whole, now)
}

// Spent reports whether nothing is known to remain.
func (a *Account) Spent(now time.Time) bool {
	return a.lowAfter(0, math.SmallestNonzeroFloat64, now)
}

func (a *Account) lowAfter(pulls int64, reserve float64, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seenAt.IsZero() || a.said.Remaining < 0 {
		return false
	}
	if now.Sub(a.seenAt) >= max(a.said.Window/believeShare, believeLeast) {
		return false
	}
	if a.said.Limit < 0 {
		return reserve > 0 && a.said.Remaining == 0
	}
	return float64(a.said.Remaining-pulls) < reserve*float64(a.said.Limit)
}

// Statement is what is known of an account, and what to expect.
type Statement struct {
	Limit     int64         // pulls in a window; -1 when the registry did not say
	Remaining int64         // pulls left when it last said; -1 when it did not
	Window    time.Duration // 0 when it did not say
	Source    string        // who is charged, by the registry's own name
	SeenAt    time.Time     // when it last said; zero: never

	// Spent is who spent it in the window: the most first.
	Spent []Spending
	// Elsewhere is what others have spent in the window, who have the same credential or the
	// same address.
	Elsewhere int64
	// Rate is the pulls an hour at present, by us and others.
	Rate float64
	// RunsOut is when nothing will be left at the present rate; zero when some of the limit
	// returns before that.
	RunsOut time.Time
	// Returns is when some of what is used up comes back; zero when nothing is used up or
	// the window is not known.
	Returns time.Time
}

// Spending is how much of the limit one client used for one repository.
type Spending struct {
	Client     string // address; "" is the mirror itself, which refreshes ahead
	Repository string
	Pulls      int
}

// Statement returns what is known at the given time.
func (a *Account) Statement(now time.Time) Statement {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seenAt.IsZero() {
		return Statement{Limit: -1, Remaining: -1}
	}
	a.trim(now)
	s := Statement{
		Limit: a.said.Limit, Remaining: a.said.Remaining, Window: a.said.Window,
		Source: a.said.Source, SeenAt: a.seenAt, Spent: a.spendings(),
	}
	if used := a.usedUp(); used >= 0 {
		s.Elsewhere = max(used-int64(len(a.spent)), 0)
	}
	a.forecast(&s, now)
	return s
}

// spendings sums up by client and repository.
func (a *Account) spendings() []Spending {
	sums := map[Spending]int{}
	for _, p := range a.spent {
		sums[Spending{Client: p.client, Repository: p.repository}]++
	}
	list := make([]Spending, 0, len(sums))
	for key, n := range sums {
		key.Pulls = n
		list = append(list, key)
	}
	slices.SortFunc(list, func(x, y Spending) int {
		return cmp.Or(cmp.Compare(y.Pulls, x.Pulls), cmp.Compare(x.Client, y.Client), cmp.Compare(x.Repository, y.Repository))
	})
	return list
}

// forecast fills in Rate, RunsOut and Returns. A window may begin with the first pull and
// return whole, or slide and return pull by pull: either way something returns as soon as
// the oldest pull is as old as the window.
func (a *Account) forecast(s *Statement, now time.Time) {
	if s.Window <= 0 || s.Limit < 0 || s.Remaining < 0 {
		return
	}
	if now.Sub(s.SeenAt) >= s.Window { // all of it has come back, unless others spent it
		return
	}
	if !a.used.IsZero() {
		oldest := a.used
		if len(a.spent) > 0 && a.spent[0].at.Before(oldest) {
			oldest = a.spent[0].at
		}
		s.Returns = oldest.Add(s.Window)
	}
	s.Rate = a.rate(s.Window/recentShare, now) + float64(s.Elsewhere)/s.Window.Hours()
	if s.Rate <= 0 || s.Remaining == 0 {
		return
	}
	hours := float64(s.Remaining) / s.Rate
	if hours >= s.Window.Hours() {
		return // and some would come back before
	}
	end := now.Add(time.Duration(hours * float64(time.Hour)))
	if s.Returns.IsZero() || end.Before(s.Returns) {
		s.RunsOut = end
	}
}

// rate returns our pulls an hour over the last while, or since the first of them, but over
// at least a quarter of that while, so that a single pull does not look like a rush.
func (a *Account) rate(while time.Duration, now time.Time) float64 {
	n, span := 0, while/4
	for i := len(a.spent) - 1; i >= 0; i-- {
		age := now.Sub(a.spent[i].at)
		if age >= while {
			span = while
			break
		}
		n, span = n+1, max(span, age)
	}
	return float64(n) / span.Hours()
}
