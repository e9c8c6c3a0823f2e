package auth

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
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
	metadata   bool // it wants metadataRead beside pull
}

// metadataRead is what Azure's registries want of a token for lists of tags.
const metadataRead = "metadata_read"

// Elsewhere returns c as it words its scope itself, if that is another than that of repo: a proxy in front of
// the registry rewrites names, or more than a pull is wanted. Else it returns nil.
func (c *Challenge) Elsewhere(repo string) *Challenge {
	if c == nil || c.repository == "" || c.repository == repo && !c.metadata {
		return nil
	}
	other := c.General()
	if other.scope = scopeOf(c.repository); c.metadata {
		other.scope += "," + metadataRead
	}
	return other
}

// General returns c as it holds for any repository. c is not nil.
func (c *Challenge) General() *Challenge {
	return &Challenge{realm: c.realm, service: c.service, scope: c.scope}
}

// Differs reports whether a request that meets c is another than one that meets met. c may be nil,
// which differs from nothing.
func (c *Challenge) Differs(met *Challenge) bool { return c != nil && c.scope != met.scope }

// Moved reports whether c names another token server than met. Either may be nil.
func (c *Challenge) Moved(met *Challenge) bool {
	return c != nil && met != nil && c.realm != nil && met.realm != nil && (c.realm.Host != met.realm.Host || c.realm.Path != met.realm.Path)
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
	return scopeOf(repo)
}

func scopeOf(repo string) string { return "repository:" + repo + ":pull" }

// repositoryIn returns the first repository that a scope names, and whether metadataRead is wanted of it.
func repositoryIn(scope string) (name string, metadata bool) {
	for _, one := range strings.Fields(scope) {
		rest, ok := strings.CutPrefix(one, "repository:")
		if name, actions, more := strings.Cut(rest, ":"); ok && more && wire.ValidRepository(name) {
			return name, slices.Contains(strings.Split(actions, ","), metadataRead)
		}
	}
	return "", false
}

// ReadChallenge returns the first Bearer challenge of an answer whose realm can be asked, else a Basic
// one, else nil. It may only be called for answers of the registry itself, which is at base.
func ReadChallenge(h http.Header, base *url.URL) (c *Challenge, code string, err error) {
	list, err := wire.ParseChallenges(h.Values("Www-Authenticate"))
	if err != nil {
		return nil, "", err
	}
	for _, one := range list {
		if one.Scheme != "bearer" {
			continue
		}
		realm, unusable := readRealm(one.Params["realm"], base)
		if unusable != nil {
			err = unusable
			continue
		}
		c := &Challenge{realm: realm, service: one.Params["service"]}
		if scope := one.Params["scope"]; literalScope.MatchString(scope) {
			c.scope = scope
		} else {
			c.repository, c.metadata = repositoryIn(scope)
		}
		return c, one.Params["error"], nil
	}
	if _, ok := wire.FindChallenge(list, "basic"); ok {
		return &Challenge{}, "", nil // whose Bearer may be for people, with a realm that is a name
	}
	return nil, "", err
}

// readRealm reads the URL of a token server. Registries behind a proxy that ends TLS (Harbor, Gitea, Pulp)
// name their own host with http: that is reached as the registry is. Nexus 3.80 doubles the port, and 3.79
// has named the scheme null. A path is one of the registry's host.
func readRealm(text string, base *url.URL) (*url.URL, error) {
	scheme, rest, _ := strings.Cut(text, "://")
	host, path, _ := strings.Cut(rest, "/")
	if parts := strings.Split(host, ":"); len(parts) == 3 && parts[1] == parts[2] {
		text = scheme + "://" + parts[0] + ":" + parts[1] + "/" + path
	}
	realm, err := url.Parse(text)
	if err == nil && strings.HasPrefix(text, "/") {
		realm = base.ResolveReference(realm)
	}
	if err != nil || realm.Host == "" {
		return nil, fmt.Errorf("challenge has no usable realm: %q", wire.Redact(text))
	}
	if (realm.Scheme == "null" || realm.Scheme == "http" && base.Scheme == "https") && strings.EqualFold(realm.Hostname(), base.Hostname()) {
		realm.Scheme, realm.Host = base.Scheme, base.Host
	}
	return realm, nil
}
