package cache

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"forebay/internal/pull"
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

// freshness tells how long what is mutable is served without asking.
type freshness struct {
	rules []compiledRule // first match wins
	ttl   time.Duration  // without a match
}

type compiledRule struct {
	match *regexp.Regexp
	ttl   time.Duration
}

func newFreshness(ttl time.Duration, rules []TagRule) (freshness, error) {
	f := freshness{ttl: ttl}
	for _, r := range rules {
		match, err := compileMatch(r.Match)
		if err != nil {
			return f, fmt.Errorf("tag rule %q: %w", r.Match, err)
		}
		f.rules = append(f.rules, compiledRule{match, r.TTL})
	}
	return f, nil
}

// of returns the time to live of "repository:tag" or "repository@digest".
func (f *freshness) of(name string) time.Duration {
	for _, r := range f.rules {
		if r.match.MatchString(name) {
			return r.ttl
		}
	}
	return f.ttl
}

// compileMatch turns a pattern with *, ? and [sets] into an expression. What path.Match
// has is not enough: there * ends at a slash, and repositories are full of them.
func compileMatch(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString("^")
	for rest := pattern; rest != ""; {
		c := rest[0]
		switch c {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		case '[':
			end := strings.IndexByte(rest, ']')
			if end < 2 {
				return nil, fmt.Errorf("[ without its ]")
			}
			b.WriteString(rest[:end+1])
			rest = rest[end+1:]
			continue
		default:
			b.WriteString(regexp.QuoteMeta(rest[:1]))
		}
		rest = rest[1:]
	}
	b.WriteString("$")
	return regexp.Compile(b.String())
}

// releasePattern is a tag that reads like the version of one release, which nobody is
// expected to move: "1.27.3", "v2.0.0-rc1", but not "1.27" and not "1".
var releasePattern = regexp.MustCompile(`^v?\d+\.\d+\.\d+([.+_-].*)?$`)

// OnGone says what becomes of content that the upstream says is not there any more.
type OnGone uint8

// What becomes of it. An outage never counts as gone.
const (
	Keep OnGone = iota // a tag goes on being served until it is evicted
	Drop               // a tag is forgotten
)

// budgeted is an upstream that knows what it will still give.
type budgeted interface {
	// Low reports whether so little is left of the budget that known tags which moved are
	// served stale, and nothing is refreshed in the background.
	Low() bool
}

// reserving is an upstream that knows its reserve.
type reserving interface {
	// AtReserve reports whether one more pull would make the budget low.
	AtReserve() bool
}

// low reports whether the upstream should be spared.
func (o *origin) low() bool {
	b, ok := o.Upstream.(budgeted)
	return ok && b.Low()
}

// atReserve reports whether what nobody has asked for yet should wait.
func (o *origin) atReserve() bool {
	b, ok := o.Upstream.(reserving)
	return ok && b.AtReserve()
}

// offlineError is the answer of an upstream that must not be asked.
func offlineError(repo Repo) error {
	return &pull.Error{Kind: pull.NotFound, Upstream: repo.Upstream, Op: "ask for " + repo.Name, Err: pull.ErrOffline}
}
