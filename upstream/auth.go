package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/net/http/httpguts"

	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// challenge is how an endpoint wants us to authenticate, learned from its 401.
type challenge struct {
	realm   *url.URL // of the token server; nil means Basic
	service string
	// scope is asked for literally instead of the repository's: "aws" at public.ecr.aws.
	scope string
}

// literalScope matches a scope that is a bare word. Any other is made from the
// repository, since some registries name a placeholder or more than we want.
var literalScope = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// scopeFor returns the one scope that a token for repo must have.
func (c *challenge) scopeFor(repo string) string {
	if c.scope != "" {
		return c.scope
	}
	return "repository:" + repo + ":pull"
}

// readChallenge returns the first Bearer challenge of an answer, else a Basic one, else
// nil. It is only ever called for answers of the registry itself.
func readChallenge(h http.Header) (c *challenge, code string, err error) {
	list, err := wire.ParseChallenges(h.Values("Www-Authenticate"))
	if err != nil {
		return nil, "", err
	}
	if bearer, ok := wire.FindChallenge(list, "bearer"); ok {
		realm, err := url.Parse(bearer.Params["realm"])
		if err != nil || realm.Host == "" {
			return nil, "", fmt.Errorf("challenge has no usable realm: %q", wire.Redact(bearer.Params["realm"]))
		}
		c := &challenge{realm: realm, service: bearer.Params["service"]}
		if scope := bearer.Params["scope"]; literalScope.MatchString(scope) {
			c.scope = scope
		}
		return c, bearer.Params["error"], nil
	}
	if _, ok := wire.FindChallenge(list, "basic"); ok {
		return &challenge{}, "", nil
	}
	return nil, "", nil
}

// grant is what a request authenticates with.
type grant struct {
	header string // value of Authorization
	who    identity
	token  *token // nil for Basic
	key    tokenKey
	fresh  bool // made for this very request, and not yet accepted by anyone
}

// hide takes what g authenticates with out of a text that a server made.
func (g *grant) hide(text string) string {
	if g == nil {
		return text
	}
	_, value, _ := strings.Cut(g.header, " ")
	return hideSecrets(text, value, g.who.secret)
}

func hideSecrets(text string, secrets ...string) string {
	for _, s := range secrets {
		if len(s) >= 4 { // a shorter one would take ordinary text apart
			text = strings.ReplaceAll(text, s, "…")
		}
	}
	return text
}

// accepted reports whether g is a token that the registry has taken before.
func (g *grant) accepted() bool {
	return g != nil && g.token != nil && !g.fresh && g.token.accepted.Load()
}

// authenticated sends a to the registry, with another grant whenever the registry wants
// one. It returns a redirect, a success, or an error that no other grant would change.
func (r *Registry) authenticated(ctx context.Context, e *endpoint, a *ask, u *url.URL) (*http.Response, *grant, *failure) {
	var g *grant
	if known := e.challenge.Load(); known != nil {
		var fail *failure
		if g, fail = r.grant(ctx, e, a, known, false); fail != nil {
			if fail.err.Kind != pull.Denied && fail.err.Kind != pull.Limited {
				e.challenge.CompareAndSwap(known, nil) // it may have moved: the registry knows
			}
			if fail.err.Kind != pull.Invalid {
				return nil, nil, fail
			}
		}
	}
	renewed := false
	for {
		resp, fail := r.send(ctx, e, a, a.kind(), u, g)
		if fail != nil {
			return nil, nil, fail
		}
		verdict, fail := r.judge(ctx, e, a, resp, g, renewed)
		if fail != nil {
			return nil, nil, fail
		}
		if !verdict.again {
			if g != nil && g.token != nil && resp.StatusCode < 400 {
				g.token.accepted.Store(true)
			}
			return resp, g, nil
		}
		renewed = renewed || g != nil
		if g, fail = r.renewed(ctx, e, a, g, verdict); fail != nil {
			return nil, nil, fail
		}
	}
}

// verdict says what to do about an answer's view of our identity.
type verdict struct {
	again   bool // send again with another grant
	want    *challenge
	refusal *failure // what to say if there is no other grant
}

// judge decides whether the registry may answer otherwise to another grant; it then closes
// resp. It fails when the answer refuses us for good.
func (r *Registry) judge(ctx context.Context, e *endpoint, a *ask, resp *http.Response, g *grant, renewed bool) (verdict, *failure) {
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized:
		return r.judge401(ctx, e, a, resp, g, renewed)
	case renewed || g == nil:
		return verdict{}, nil
	case status == http.StatusForbidden:
		return r.judge403(ctx, e, a, resp, g)
	case status == http.StatusBadRequest && g.accepted() && resp.Header.Get("Www-Authenticate") == "":
		// This is how public.ecr.aws says that a token has expired.
		refusal := r.statusFailure(ctx, a, resp, g)
		if nameFault(refusal.err.Code) {
			return verdict{}, refusal
		}
		return verdict{again: true, want: e.challenge.Load(), refusal: refusal}, nil
	}
	return verdict{}, nil
}

// nameFault reports whether an error code blames the request and not the token.
func nameFault(code string) bool {
	switch code {
	case "NAME_INVALID", "DIGEST_INVALID", "TAG_INVALID", "MANIFEST_INVALID", "PAGINATION_NUMBER_INVALID":
		return true
	}
	return false
}

func (r *Registry) judge401(ctx context.Context, e *endpoint, a *ask, resp *http.Response, g *grant, renewed bool) (verdict, *failure) {
	want, code, err := readChallenge(resp.Header)
	refusal := r.statusFailure(ctx, a, resp, g)
	switch {
	case err != nil:
		refusal.err.Kind, refusal.err.Err = pull.Invalid, err
		return verdict{}, refusal
	case g != nil && code == "insufficient_scope":
		refusal.err.Err = errNoRight
		return verdict{}, refusal
	case renewed:
		if code == "invalid_token" {
			refusal.err.Err = errors.New("it takes no token of its token server")
		}
		return verdict{}, refusal
	case want == nil && g == nil:
		// gcr.io has named its realm only at the ping.
		if want = r.ping(ctx, e, a); want == nil {
			refusal.err.Err = errors.New("it says neither Bearer nor Basic")
			return verdict{}, refusal
		}
	case want == nil:
		want = e.challenge.Load()
	}
	e.challenge.Store(want)
	return verdict{again: true, want: want, refusal: refusal}, nil
}

// judge403 recognises an expired credential, for which ECR answers 403. With Basic nothing
// else tells of one, so that after every 403 the source of the credential is looked at again.
func (r *Registry) judge403(ctx context.Context, e *endpoint, a *ask, resp *http.Response, g *grant) (verdict, *failure) {
	refusal := r.statusFailure(ctx, a, resp, g)
	if g.token != nil && !strings.Contains(strings.ToLower(refusal.err.Message), "expired") {
		return verdict{}, refusal
	}
	return verdict{again: true, want: e.challenge.Load(), refusal: refusal}, nil
}

// renewed returns another grant than g, which the registry has refused.
func (r *Registry) renewed(ctx context.Context, e *endpoint, a *ask, g *grant, v verdict) (*grant, *failure) {
	if g != nil && g.token != nil {
		r.tokens.drop(g.key, g.token)
	}
	next, fail := r.grant(ctx, e, a, v.want, g != nil)
	if fail != nil {
		return nil, fail
	}
	if next == nil || (g != nil && next.header == g.header) {
		if v.want != nil && v.want.realm == nil {
			v.refusal.err.Err = errBasicRefused
			v.refusal.remedies |= tryAccount
			if next == nil {
				v.refusal.err.Err = errors.New("it wants a user name and password, and none is configured")
			}
		}
		return nil, v.refusal
	}
	return next, nil
}

// grant makes what a challenge asks for from our credentials; nil means that there are
// none. renew says that the source of the credentials must be looked at again.
func (r *Registry) grant(ctx context.Context, e *endpoint, a *ask, c *challenge, renew bool) (*grant, *failure) {
	who, err := a.who.source.identity(ctx, renew)
	if err != nil {
		return nil, r.fail(a, pull.Unavailable, fmt.Errorf("credentials: %w", err))
	}
	a.who.use(who)
	if c == nil {
		return nil, nil
	}
	if c.realm == nil {
		return r.basicGrant(a, who)
	}
	if who.registryToken != "" {
		return &grant{header: "Bearer " + who.registryToken, who: who}, nil
	}
	if !who.anonymous() && !e.trust.trusts(c.realm) {
		f := r.broken(a, "%w: %s: list it in %s if it is right", errUntrustedRealm, wire.Redact(c.realm.Host), r.opts.Names.TrustedRealms)
		f.remedies |= tryAccount
		return nil, f
	}
	return r.bearerGrant(ctx, e, a, c, who)
}

func (r *Registry) basicGrant(a *ask, who identity) (*grant, *failure) {
	switch {
	case who.anonymous():
		return nil, nil
	case who.user == "" || who.refresh:
		return nil, r.broken(a, "it wants a user name and password, and the credentials are a token")
	}
	pair := base64.StdEncoding.EncodeToString([]byte(who.user + ":" + who.secret))
	return &grant{header: "Basic " + pair, who: who}, nil
}

func (r *Registry) bearerGrant(ctx context.Context, e *endpoint, a *ask, c *challenge, who identity) (*grant, *failure) {
	if err := e.dialer.Vet(c.realm); err != nil {
		return nil, r.broken(a, "token server: %w", err)
	}
	key := tokenKey{realm: c.realm.String(), service: c.service, scope: c.scopeFor(a.repo), who: who.id}
	t, fresh, err := r.tokens.get(ctx, r, key, func(ctx context.Context) (*token, *pull.Error) {
		return r.mint(ctx, e, c.realm, key, who)
	})
	if err == nil {
		return &grant{header: "Bearer " + t.value, who: who, token: t, key: key, fresh: fresh}, nil
	}
	var from *pull.Error
	if !errors.As(err, &from) { // ctx is done
		return nil, r.transportFailure(ctx, a, err, false)
	}
	shared := *from // with all who wait
	shared.Op = a.op
	f := &failure{err: &shared}
	if pull.Failing(&shared) {
		f.remedies |= tryEndpoint
	}
	if errors.Is(&shared, errBadCredentials) {
		f.remedies |= tryAccount
	}
	if shared.Kind == pull.Limited {
		f.limit = tokenLimit
	}
	return nil, f
}

// ping asks an endpoint's root for its challenge and returns it, or nil if there is none.
// Only its realm and service are used: its scope is a placeholder.
func (r *Registry) ping(ctx context.Context, e *endpoint, a *ask) *challenge {
	root := &ask{op: a.op + ": ping", method: http.MethodGet, repo: a.repo}
	resp, fail := r.send(ctx, e, root, Ping, e.url("/v2/", ""), nil)
	if fail != nil {
		return nil
	}
	defer discard(resp)
	c, _, err := readChallenge(resp.Header)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		r.log.Debug("ping has no challenge", logkey.Host(e.base.Host), logkey.Status(resp.StatusCode))
		return nil
	}
	return c
}

// headerSafe reports whether s can be a header value as it is.
func headerSafe(s string) bool { return s != "" && httpguts.ValidHeaderFieldValue(s) }
