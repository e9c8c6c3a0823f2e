package governor

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
)

// gatesMost bounds the gates of one kind. What was shut longest ago is forgotten first.
const gatesMost = 1024

// Gates are gates that are told apart by a key, such as the host of a token server or a repository.
type Gates struct {
	backoff Backoff
	now     func() time.Time

	mu    sync.Mutex
	gates *lru.LRU[string, *Gate] // guarded by mu
}

// NewGates returns no gate yet.
func NewGates(b Backoff, now func() time.Time) *Gates {
	g := &Gates{backoff: b, now: now}
	g.gates, _ = lru.NewLRU[string, *Gate](gatesMost, nil) // fails only for a size below one
	return g
}

// Of returns the gate of key, which is made if there is none.
func (g *Gates) Of(key string) *Gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	gate, ok := g.gates.Get(key)
	if !ok {
		gate = NewGate(g.backoff, g.now)
		g.gates.Add(key, gate)
	}
	return gate
}

// Known is Of for a key that may have no gate: it returns nil then, which is always open.
func (g *Gates) Known(key string) *Gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	gate, _ := g.gates.Get(key)
	return gate
}

// Refused is [Pass.Refused] for a request to key, which had the pass p, the zero one if there was no gate.
func (g *Gates) Refused(key string, p Pass, d time.Duration, why string) bool {
	if p.gate == nil {
		p = Pass{gate: g.Of(key)}
	}
	return p.Refused(d, why)
}
