package auth

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"

	"forebay/internal/wire"
)

// Challenge is how an endpoint wants us to authenticate, learned from its 401.
type Challenge struct {
	realm   *url.URL // of the token server; nil means Basic
	service string
	// scope is asked for literally instead of the repository's: "aws" at public.ecr.aws.
	scope string
}

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
	return "repository:" + repo + ":pull"
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
		}
		return c, bearer.Params["error"], nil
	}
	if _, ok := wire.FindChallenge(list, "basic"); ok {
		return &Challenge{}, "", nil
	}
	return nil, "", nil
}
