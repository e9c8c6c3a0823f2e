package auth

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"forebay/internal/wire"
)

// Challenge is how an endpoint wants us to authenticate, learned from its 401.
type Challenge struct {
	realm   *url.URL // of the token server; nil means Basic
	service string
	// scope is asked for literally instead of the repository's: "aws" at public.ecr.aws.
	scope string
	// repository is the one that it names, which should be that of the request.
	repository string
}

// Elsewhere returns c for the repository that it names itself, if that is another than repo: a
// proxy in front of the registry rewrites names. Else it returns nil.
func (c *Challenge) Elsewhere(repo string) *Challenge {
	if c == nil || c.repository == "" || c.repository == repo {
		return nil
	}
	other := c.General()
	other.scope = scopeOf(c.repository)
	return other
}

// General returns c as it holds for any repository. c is not nil.
func (c *Challenge) General() *Challenge {
	return &Challenge{realm: c.realm, service: c.service, scope: c.scope}
}

// Differs reports whether a request that meets c is another than one that meets met. c may be nil,
// which differs from nothing.
func (c *Challenge) Differs(met *Challenge) bool { return c != nil && c.scope != met.scope }

// Basic reports whether a user name and password are wanted, and no token.
func (c *Challenge) Basic() bool { return c.realm == nil }

// literalScope matches a scope that is a bare word. Any other is made from the
// repository, since some registries name a placeholder or more than we want.
var literalScope = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// scopeFor returns the one scope that a token for repo must have.
func (c *Challenge) scopeFor(repo string) string {
	if c.scope != "" {
		return c.scope
	}
	return scopeOf(repo)
}

func scopeOf(repo string) string { return "repository:" + repo + ":pull" }

// repositoryIn returns the first repository that a scope names.
func repositoryIn(scope string) string {
	for _, one := range strings.Fields(scope) {
		rest, ok := strings.CutPrefix(one, "repository:")
		if name, _, more := strings.Cut(rest, ":"); ok && more && wire.ValidRepository(name) {
			return name
		}
	}
	return ""
}

// ReadChallenge returns the first Bearer challenge of an answer, else a Basic one, else
// nil. It may only be called for answers of the registry itself.
func ReadChallenge(h http.Header) (c *Challenge, code string, err error) {
	list, err := wire.ParseChallenges(h.Values("Www-Authenticate"))
	if err != nil {
		return nil, "", err
	}
	if bearer, ok := wire.FindChallenge(list, "bearer"); ok {
		realm, err := url.Parse(bearer.Params["realm"])
		if err != nil || realm.Host == "" {
			return nil, "", fmt.Errorf("challenge has no usable realm: %q", wire.Redact(bearer.Params["realm"]))
		}
		c := &Challenge{realm: realm, service: bearer.Params["service"]}
		if scope := bearer.Params["scope"]; literalScope.MatchString(scope) {
			c.scope = scope
		} else {
			c.repository = repositoryIn(scope)
		}
		return c, bearer.Params["error"], nil
	}
	if _, ok := wire.FindChallenge(list, "basic"); ok {
		return &Challenge{}, "", nil
	}
	return nil, "", nil
}
