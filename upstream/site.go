package upstream

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/upstream/auth"
	"forebay/upstream/governor"
)

// Endpoint is a base URL of the registry, or of another registry that stands in for it.
type Endpoint struct {
	URL string // http or https, a host, perhaps a path before /v2/
	// StandIn says that it is another registry, which carries the same content under
	// names of its own. nil: it is the registry itself, and gets its credentials.
	StandIn *StandIn
}

// StandIn says what a registry that stands in for another is asked for, and how. It is
// always asked for digests, since their content is verified. It is trusted when it says that
// a repository holds a digest, never when it says that something does not exist.
type StandIn struct {
	// From begins the names of the repositories that it carries, and To is what it has
	// in that place: "library/" and "docker/library/". Empty: all, under the same name.
	From, To string
	// Tags says that its tags and lists are as good as the registry's own.
	Tags        bool
	Credentials auth.Credentials // its own; zero: anonymous
}

// name returns the stand-in's name for a repository, if it carries it.
func (s *StandIn) name(repo string) (string, bool) {
	rest, ok := strings.CutPrefix(repo, s.From)
	return s.To + rest, ok
}

// Pauses for a registry that does not say how long to wait. Docker Hub names no time with
// its pull limit, and 60 s with its abuse limit.
const (
	pullPause     = 5 * time.Second
	pullPauseMost = time.Minute
	abusePause    = time.Minute
	abuseMost     = 15 * time.Minute
	// slowDown is for a 429 of neither kind: too many requests a second, as at public.ecr.aws.
	slowDown = 5 * time.Second
)

// site is the endpoints that share limits: all of the registry, or one stand-in.
type site struct {
	host     string                       // of its first endpoint, for people
	standIn  *StandIn                     // nil: the registry itself
	accounts []*account                   // for all repositories, in the order in which they are used; never empty
	matched  []*account                   // for some, before all others
	logins   *lru.Cache[string, *account] // of clients' own logins, by their IDs
	pause    governor.Backoff             // of the gates of accounts
	now      func() time.Time
	all      *governor.Gate
	store    *governor.Gate  // where blobs are redirected to
	repos    *governor.Gates // of repositories that are limited on their own
	pace     *governor.Pace
}

// account is a credential at a site, with what it may still pull there.
type account struct {
	source auth.Source            // nil of a client's login, which is kept nowhere
	who    atomic.Pointer[string] // name that was last used; nil before
	given  string                 // name by the configuration
	match  *regexp.Regexp         // repositories that it is for, of those in site.matched
	budget governor.Account
	pulls  *governor.Gate // GETs of manifests
	heads  *governor.Gate // HEADs of manifests, which are free and hardly ever refused
}

func (a *account) name() string {
	if who := a.who.Load(); who != nil {
		return *who
	}
	return a.given
}

// gate returns the gate of the account that a request must pass, or nil.
func (a *account) gate(q *ask) *governor.Gate {
	switch {
	case !q.manifest:
		return nil
	case q.charged():
		return a.pulls
	default:
		return a.heads
	}
}

// newSite returns the site of an endpoint, which uses the given credentials in their order.
func newSite(base *url.URL, standIn *StandIn, name string, endpoints []string, creds []auth.Credentials, opts *Options) (*site, error) {
	most := pullPauseMost
	if opts.LimitedWait > 0 { // so that whoever is held sees a probe
		most = max(min(most, opts.LimitedWait/2), pullPause)
	}
	s := &site{
		now: opts.Now, pause: governor.Backoff{First: pullPause, Most: most},
		host: base.Host, standIn: standIn,
		all:   governor.NewGate(governor.Backoff{First: abusePause, Most: abuseMost}, opts.Now),
		store: governor.NewGate(governor.Backoff{First: slowDown, Most: abuseMost}, opts.Now),
		repos: governor.NewGates(governor.Backoff{First: pullPause, Most: pullPauseMost}, opts.Now),
		pace:  governor.NewPace(opts.Now),
	}
	var err error
	if s.logins, err = lru.New[string, *account](loginsKept); err != nil {
		return nil, err
	}
	for i, c := range creds {
		source, err := auth.NewSource(c, name, endpoints, opts.Now)
		if err != nil && i > 0 {
			err = fmt.Errorf("fallback %d: %w", i, err)
		}
		if err != nil {
			return nil, err
		}
		one := s.account(c.Name(), source)
		if c.Match == "" {
			s.accounts = append(s.accounts, one)
			continue
		}
		if one.match, err = wire.CompilePattern(c.Match); err != nil {
			return nil, fmt.Errorf("match %q: %w", c.Match, err)
		}
		s.matched = append(s.matched, one)
	}
	return s, nil
}

func (s *site) account(name string, source auth.Source) *account {
	return &account{source: source, given: name, pulls: governor.NewGate(s.pause, s.now), heads: governor.NewGate(s.pause, s.now)}
}

// loginsKept bounds the logins of which it is remembered what they may still pull.
const loginsKept = 1024

// accountsFor returns the accounts to ask with for a, in their order: a client's login alone, or of
// ours those that are for its repository before those for all.
func (s *site) accountsFor(a *ask) []*account {
	l := a.login
	if l == nil {
		return append(slices.DeleteFunc(slices.Clone(s.matched), func(one *account) bool { return !one.match.MatchString(a.repo) }), s.accounts...)
	}
	one, known := s.logins.Get(l.ID)
	if !known {
		one = s.account("a client's login", nil)
		if other, there, _ := s.logins.PeekOrAdd(l.ID, one); there {
			one = other
		}
	}
	return []*account{one}
}

// serves reports whether e may be asked for a. A HEAD proves that a repository of the registry
// holds something, which only that can say, or who is as good.
func (e *endpoint) serves(a *ask) bool {
	s := e.site.standIn
	if s == nil || a.login != nil {
		return s == nil // a login is for the registry itself
	}
	_, carried := s.name(a.repo)
	return carried && (s.Tags || a.byDigest && a.method != http.MethodHead)
}

// translate returns a as it is asked of e, under e's name for the repository.
func (e *endpoint) translate(a *ask) *ask {
	b := *a
	if s := e.site.standIn; s != nil {
		b.repo, _ = s.name(a.repo)
	}
	return &b
}

// tell turns the failure of a stand-in into what it means for the registry: what a stand-in
// does not have, the registry may have.
func (e *endpoint) tell(f *failure) *failure {
	if e.site.standIn == nil {
		return f
	}
	f.standIn = true
	f.remedies |= tryEndpoint
	switch f.err.Kind {
	case pull.NotFound, pull.Denied, pull.Unsupported:
		f.atWork = true
		fallthrough
	case pull.Invalid:
		f.err.Err = fmt.Errorf("stand-in %s: %s", e.site.host, f.err.Kind)
		f.err.Kind, f.err.Detail, f.err.Status, f.err.Code, f.err.Message = pull.Unavailable, pull.NoDetail, 0, "", ""
	}
	return f
}
