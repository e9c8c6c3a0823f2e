package upstream

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"forebay/internal/wire"
)

// Budget is what a registry last said it would still give to one identity.
type Budget struct {
	Credential string        // user name, or "anonymous"
	Limit      int64         // requests in a window; -1 when it did not say
	Remaining  int64         // requests left; -1 when it did not say
	Window     time.Duration // 0 when it did not say
	Source     string        // who is charged, by the registry's own name
	SeenAt     time.Time
}

// Budget returns what the registry has said of its limits, for each identity that was
// used, the latest first. A registry that says nothing has none.
func (r *Registry) Budget() []Budget { return r.budgets.list() }

// budgets keeps the latest rate-limit headers. Identities are few: one, and anonymous.
type budgets struct {
	mu     sync.Mutex
	latest map[string]Budget
}

func newBudgets() *budgets { return &budgets{latest: map[string]Budget{}} }

func (b *budgets) see(h http.Header, who string, now time.Time) {
	limit, ok := wire.ParseRateLimit(h)
	if !ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latest[who] = Budget{
		Credential: who, Limit: limit.Limit, Remaining: limit.Remaining,
		Window: limit.Window, Source: limit.Source, SeenAt: now,
	}
}

func (b *budgets) list() []Budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Budget
	for _, one := range b.latest {
		list = append(list, one)
	}
	slices.SortFunc(list, func(x, y Budget) int { return y.SeenAt.Compare(x.SeenAt) })
	return list
}
