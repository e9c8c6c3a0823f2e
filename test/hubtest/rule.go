package hubtest

import (
	"fmt"
	"regexp"
	"sync"
	"testing"
)

// Rule says which requests suffer a fault. Rules are tried in the order in which
// they were added, and the first that fires wins. A rule whose turn has not come
// (From, Every) or is over (Count) lets the request pass to the next.
type Rule struct {
	ID     string // for counters and messages; "" means one made from the fault
	Role   Role   // "" means any
	Method string // "" means any
	Route  Route  // "" means any
	// Repo and Ref are regular expressions that must match as a whole; "" means any.
	// At a CDN the repository is not known (it is empty) and Ref is the digest.
	Repo, Ref string
	From      int // the first match that fires, counted from 1; 0 means 1
	Count     int // how often it fires; 0 means always
	Every     int // of the matches from From on, every how many fires; 0 means 1
	When      func(*State) bool
	Do        Fault
}

// ActiveRule is a rule in force.
type ActiveRule struct {
	set       *ruleSet
	rule      Rule
	repo, ref *regexp.Regexp
	matched   int // guarded by set.mu
	fired     int // guarded by set.mu
	removed   bool
}

// Fired returns how often the rule has fired.
func (a *ActiveRule) Fired() int {
	a.set.mu.Lock()
	defer a.set.mu.Unlock()
	return a.fired
}

// Remove takes the rule out of force. AssertAllFired still looks at it.
func (a *ActiveRule) Remove() {
	a.set.mu.Lock()
	defer a.set.mu.Unlock()
	a.removed = true
}

// AddRule puts a rule in force, after those added before.
func (h *Hub) AddRule(r Rule) *ActiveRule {
	if r.Do.Name == "" {
		panic("hubtest: rule without a fault")
	}
	a := &ActiveRule{set: h.rules, rule: r, repo: whole(r.Repo), ref: whole(r.Ref)}
	h.rules.mu.Lock()
	defer h.rules.mu.Unlock()
	if a.rule.ID == "" {
		a.rule.ID = fmt.Sprintf("%d %s", len(h.rules.list)+1, r.Do.Name)
	}
	h.rules.list = append(h.rules.list, a)
	return a
}

// ClearRules takes all rules out of force. AssertAllFired still looks at them.
func (h *Hub) ClearRules() {
	h.rules.mu.Lock()
	defer h.rules.mu.Unlock()
	for _, a := range h.rules.list {
		a.removed = true
	}
}

// AssertAllFired fails the test for each rule that never fired.
func (h *Hub) AssertAllFired(t testing.TB) {
	t.Helper()
	h.rules.mu.Lock()
	defer h.rules.mu.Unlock()
	for _, a := range h.rules.list {
		if a.fired == 0 {
			t.Errorf("rule %s never fired (%d requests matched)", a.rule.ID, a.matched)
		}
	}
}

func whole(pattern string) *regexp.Regexp {
	if pattern == "" {
		return nil
	}
	return regexp.MustCompile(`^(?:` + pattern + `)$`)
}

type ruleSet struct {
	mu   sync.Mutex
	list []*ActiveRule
}

// match returns the fault for a request; its zero value does nothing.
func (s *ruleSet) match(st *State) Fault {
	s.mu.Lock()
	list := s.list
	s.mu.Unlock()
	for _, a := range list {
		if a.covers(st) && a.take() {
			return a.rule.Do
		}
	}
	return Fault{}
}

func (a *ActiveRule) covers(st *State) bool {
	r := a.rule
	return r.Role.covers(st.Role) && r.Route.covers(st.Route) &&
		(r.Method == "" || r.Method == st.Request.Method) &&
		(a.repo == nil || a.repo.MatchString(st.Repo)) &&
		(a.ref == nil || a.ref.MatchString(st.Ref)) &&
		(r.When == nil || r.When(st))
}

// take counts a match and reports whether the rule fires on it.
func (a *ActiveRule) take() bool {
	a.set.mu.Lock()
	defer a.set.mu.Unlock()
	if a.removed {
		return false
	}
	a.matched++
	from, every := max(a.rule.From, 1), max(a.rule.Every, 1)
	if a.matched < from || (a.matched-from)%every != 0 {
		return false
	}
	if a.rule.Count > 0 && a.fired >= a.rule.Count {
		return false
	}
	a.fired++
	return true
}
