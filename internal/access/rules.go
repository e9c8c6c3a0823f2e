// Package access decides who may enter and pull what.
//
// It promises that what a client may not have looks to it like what does not exist, and that the
// same rules decide over every way to the same thing: tags, digests, blobs, lists and referrers.
package access

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"forebay/internal/authn"
	"forebay/internal/wire"
)

// Rule allows or denies identities something. A [Rules] has them in order.
type Rule struct {
	Name string   // what explanations call it; may be empty
	Who  []string // see [authn.NewWho]
	// What are patterns of upstream/repository: "docker.io/library/*", "ghcr.io" for all of it.
	What []string
	Deny bool
}

// Rules are those of a mirror. The first that matches decides.
type Rules struct {
	// Asked reports whether an upstream is asked what each client may have, where no rule matches;
	// nil: none is.
	Asked func(upstream string) bool

	rules  []rule
	public func(upstream string) bool
}

// rule is one with its patterns compiled.
type rule struct {
	label     string
	who       authn.Who
	anything  bool // whatever what has
	what      []*regexp.Regexp
	upstreams []*regexp.Regexp // of what: whether anything in an upstream may match
	deny      bool
}

// Decision is what becomes of a request, and why.
type Decision struct {
	Allowed bool
	Ask     bool   // the registry is asked with what the client shows for it
	Rule    string // that decided: "access[2] (team-a)", or "default" and why
}

// NewRules compiles rules. public reports whether an upstream is read without credentials of the
// mirror's: where no rule matches, that is for everybody, and what came by credentials for nobody.
func NewRules(list []Rule, public func(upstream string) bool) (*Rules, error) {
	r := &Rules{public: public}
	for i, given := range list {
		made := rule{label: fmt.Sprintf("access[%d]", i+1), deny: given.Deny}
		if given.Name != "" {
			made.label += " (" + given.Name + ")"
		}
		var err error
		if made.who, err = authn.NewWho(given.Who); err != nil {
			return nil, fmt.Errorf("access[%d].who: %w", i+1, err)
		}
		for _, what := range given.What {
			if err := made.addWhat(what); err != nil {
				return nil, fmt.Errorf("access[%d].what: %q: %w", i+1, what, err)
			}
		}
		r.rules = append(r.rules, made)
	}
	return r, nil
}

func (r *rule) addWhat(what string) error {
	if what == "" {
		return fmt.Errorf("names nothing")
	}
	r.anything = r.anything || what == "*"
	upstream, repository, found := strings.Cut(what, "/")
	if !found {
		repository = "*" // all of it, or of everything
	}
	p, err := wire.CompilePattern(upstream + "/" + repository)
	if err != nil {
		return err
	}
	of, err := wire.CompilePattern(upstream)
	if err != nil {
		return err
	}
	r.what, r.upstreams = append(r.what, p), append(r.upstreams, of)
	return nil
}

func matches(patterns []*regexp.Regexp, s string) bool {
	return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(s) })
}

// Decide returns whether id may pull from a repository of an upstream, by their canonical names.
func (r *Rules) Decide(id authn.Identity, upstream, repository string) Decision {
	name := upstream + "/" + repository
	for i := range r.rules {
		if rule := &r.rules[i]; rule.who.Has(id) && (rule.anything || matches(rule.what, name)) {
			return Decision{Allowed: !rule.deny, Rule: rule.label}
		}
	}
	if r.asks(upstream) {
		return Decision{Ask: true, Rule: "default: " + upstream + " is asked whether this client may have it"}
	}
	if r.public(upstream) {
		return Decision{Allowed: true, Rule: "default: " + upstream + " is read without credentials"}
	}
	return Decision{Rule: "default: " + upstream + " is read by the mirror's credentials, and no rule allows it"}
}

// Any reports whether id may pull anything of an upstream at all.
func (r *Rules) Any(id authn.Identity, upstream string) bool {
	if r.public(upstream) || r.asks(upstream) {
		return true
	}
	return slices.ContainsFunc(r.rules, func(rule rule) bool {
		return !rule.deny && matches(rule.upstreams, upstream) && rule.who.Has(id)
	})
}

func (r *Rules) asks(upstream string) bool { return r.Asked != nil && r.Asked(upstream) }
