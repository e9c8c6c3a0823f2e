package policy

import (
	"fmt"
	"math"
	"regexp"
	"time"

	"forebay/internal/wire"
)

// Forever as a time to live means that a tag, once known, is never asked for again.
const Forever = time.Duration(math.MaxInt64)

// TagRule gives tags that match a time to live of their own.
type TagRule struct {
	// Match is a pattern of "repository:tag", or of "repository@digest" for the referrers
	// of a digest. * stands for any text, slashes too, ? for one character, [a-z] for one
	// of a set, which may occur once.
	Match string
	TTL   time.Duration // 0 means always ask, [Forever] never again
}

// Freshness tells how long what is mutable is served without asking.
type Freshness struct {
	rules []compiledRule // first match wins
	ttl   time.Duration  // without a match
}

type compiledRule struct {
	match *regexp.Regexp
	ttl   time.Duration
}

// NewFreshness returns the rules, with ttl for what none matches.
func NewFreshness(ttl time.Duration, rules []TagRule) (Freshness, error) {
	f := Freshness{ttl: ttl}
	for _, r := range rules {
		match, err := wire.CompilePattern(r.Match)
		if err != nil {
			return f, fmt.Errorf("tag rule %q: %w", r.Match, err)
		}
		f.rules = append(f.rules, compiledRule{match, r.TTL})
	}
	return f, nil
}

// Of returns the time to live of "repository:tag" or "repository@digest".
func (f *Freshness) Of(name string) time.Duration {
	for _, r := range f.rules {
		if r.match.MatchString(name) {
			return r.ttl
		}
	}
	return f.ttl
}
