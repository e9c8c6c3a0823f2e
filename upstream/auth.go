package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/upstream/auth"
)

// authenticated sends a to the registry, with another grant whenever the registry wants
// one. It returns a redirect, a success, or an error that no other grant would change.
func (r *Registry) authenticated(ctx context.Context, e *endpoint, a *ask, u *url.URL) (*http.Response, *auth.Grant, *failure) {
	var g *auth.Grant
	if known := e.challengeOf(a.repo); known != nil {
		var fail *failure
		if g, fail = r.grant(ctx, e, a, known, false); fail != nil {
			if fail.err.Kind != pull.Denied && fail.err.Kind != pull.Limited {
				e.challenge.CompareAndSwap(known, nil) // it may have moved: the registry knows
				e.met.Remove(a.repo)
			}
			// What is denied under our name for it may be allowed under the registry's.
			if fail.err.Kind != pull.Invalid && !(fail.err.Kind == pull.Denied && e.renames.Load() && !e.met.Contains(a.repo)) {
				return nil, nil, fail
			}
		}
	}
	renewed := false
	for n := 1; ; n++ {
		resp, fail := r.send(ctx, e, a, a.kind(), u, g)
		if fail != nil {
			return nil, nil, fail
		}
		verdict, fail := r.judge(ctx, e, a, resp, g, renewed)
		if fail != nil {
			return nil, nil, fail
		}
		if !verdict.again {
			if resp.StatusCode < 400 {
				g.Accept()
				if by := g.By(); by != nil {
					e.met.Add(a.repo, by)
				}
			}
			return resp, g, nil
		}
		if n == asksMost {
			return nil, nil, verdict.refusal
		}
		renewed = renewed || g != nil
		if g, fail = r.renewed(ctx, e, a, g, verdict); fail != nil {
			return nil, nil, fail
		}
	}
}

// asksMost bounds how often a registry is sent a request for the sake of what it says of grants: without one, with
// one that has expired, with another, under the registry's name for it, of another token server.
const asksMost = 5

// challengesKept bounds the repositories of an endpoint of which it is known how they are asked for.
const challengesKept = 4096

// challengeOf returns how a repository is asked for, or nil.
func (e *endpoint) challengeOf(repo string) *auth.Challenge {
	if c, ok := e.met.Get(repo); ok {
		return c
	}
	return e.challenge.Load()
}

// verdict says what to do about an answer's view of our identity.
type verdict struct {
	again   bool // send again with another grant
	want    *auth.Challenge
	former  *auth.Challenge // to be met before want; may be nil
	refusal *failure        // what to say if there is no other grant
}

// judge decides whether the registry may answer otherwise to another grant; it then closes
// resp. It fails when the answer refuses us for good.
func (r *Registry) judge(ctx context.Context, e *endpoint, a *ask, resp *http.Response, g *auth.Grant, renewed bool) (verdict, *failure) {
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized,
		g == nil && (status == http.StatusForbidden || status == http.StatusNotFound) && r.mayHide(ctx, e, a):
		return r.judge401(ctx, e, a, resp, g, renewed)
	case renewed || g == nil:
		return verdict{}, nil
	case status == http.StatusForbidden:
		return r.judge403(ctx, e, a, resp, g)
	case status == http.StatusBadRequest && g.Accepted() && resp.Header.Get("Www-Authenticate") == "":
		// This is how public.ecr.aws says that a token has expired.
		refusal := r.statusFailure(ctx, a, resp, g)
		if wire.BlamesName(refusal.err.Code) {
			return verdict{}, refusal
		}
		return verdict{again: true, want: e.challengeOf(a.repo), refusal: refusal}, nil
	}
	return verdict{}, nil
}

// judge401 judges a 401, and what a registry may say in place of one.
func (r *Registry) judge401(ctx context.Context, e *endpoint, a *ask, resp *http.Response, g *auth.Grant, renewed bool) (verdict, *failure) {
	want, code, err := auth.ReadChallenge(resp.Header, e.base)
	refusal := r.statusFailure(ctx, a, resp, g)
	switch {
	case err != nil:
		refusal.err.Kind, refusal.err.Err = pull.Invalid, err
		return verdict{}, refusal
	case g.By() != nil && (code == "insufficient_scope" || renewed) && want.Elsewhere(a.repo).Differs(g.By()):
		e.renames.Store(true)
		return verdict{again: true, want: want.Elsewhere(a.repo), refusal: refusal}, nil
	case g != nil && code == "insufficient_scope":
		refusal.err.Err = errNoRight
		return verdict{}, refusal
	case renewed && want.Moved(g.By()): // what the former gives is not taken
		return verdict{again: true, want: want, refusal: refusal}, nil
	case renewed:
		if code == "invalid_token" {
			refusal.err.Err = errors.New("it takes no token of its token server")
		}
		return verdict{}, refusal
	case want == nil && g == nil:
		// gcr.io has named its realm only at the ping.
		if want = r.ping(ctx, e, a); want == nil {
			e.open.Store(r.opts.Now().Add(openFor).UnixNano())
			if resp.StatusCode == http.StatusUnauthorized {
				refusal.err.Err = errNoScheme
			}
			return verdict{}, refusal
		}
	case want == nil:
		want = g.By()
	case g.Accepted() && want.Moved(g.By()): // nvcr.io names a token server for members when a stranger's token has expired
		return verdict{again: true, want: want, former: g.By(), refusal: refusal}, nil
	}
	e.challenge.Store(want.General())
	return verdict{again: true, want: want, refusal: refusal}, nil
}

// openFor is for how long a registry is not asked again whether it wants credentials.
const openFor = time.Minute

// mayHide reports whether e may show us what it says a stranger cannot have. GitHub's registry of
// packages has challenged only at its root, where docker asks first.
func (r *Registry) mayHide(ctx context.Context, e *endpoint, a *ask) bool {
	if e.challengeOf(a.repo) != nil || r.opts.Now().UnixNano() < e.open.Load() {
		return false
	}
	who, fail := r.identity(ctx, a, false)
	return fail != nil || !who.Anonymous()
}

// judge403 recognises an expired credential, for which ECR answers 403. With Basic nothing
// else tells of one, so that after every 403 the source of the credential is looked at again.
func (r *Registry) judge403(ctx context.Context, e *endpoint, a *ask, resp *http.Response, g *auth.Grant) (verdict, *failure) {
	refusal := r.statusFailure(ctx, a, resp, g)
	if g.Minted() && !strings.Contains(strings.ToLower(refusal.err.Message), "expired") {
		return verdict{}, refusal
	}
	return verdict{again: true, want: e.challengeOf(a.repo), refusal: refusal}, nil
}

// renewed returns another grant than g, which the registry has refused.
func (r *Registry) renewed(ctx context.Context, e *endpoint, a *ask, g *auth.Grant, v verdict) (*auth.Grant, *failure) {
	r.tokens.Drop(g)
	if v.former != nil {
		if next, fail := r.grant(ctx, e, a, v.former, true); fail == nil && next != nil && !next.Same(g) {
			return next, nil
		}
	}
	next, fail := r.grant(ctx, e, a, v.want, g != nil)
	if other := v.want.Elsewhere(a.repo); fail == nil && other != nil && g.Minted() && next != nil && next.Same(g) {
		next, fail = r.grant(ctx, e, a, other, false)
	}
	if fail != nil {
		return nil, fail
	}
	if v.want.Moved(g.By()) && next != nil {
		e.challenge.Store(v.want.General())
	}
	if next == nil || (g != nil && next.Same(g)) {
		if v.want != nil && v.want.Basic() {
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
func (r *Registry) grant(ctx context.Context, e *endpoint, a *ask, c *auth.Challenge, renew bool) (*auth.Grant, *failure) {
	who, fail := r.identity(ctx, a, renew)
	if fail != nil || c == nil {
		return nil, fail
	}
	g, err := r.tokens.Grant(ctx, e.realms, c, who, a.repo)
	if other := c.Elsewhere(a.repo); errors.Is(err, errNoRight) && other != nil {
		e.renames.Store(true)
		g, err = r.tokens.Grant(ctx, e.realms, other, who, a.repo)
	}
	if err != nil {
		return nil, r.grantFailure(ctx, e, a, err)
	}
	return g, nil
}

// identity returns who asks for a.
func (r *Registry) identity(ctx context.Context, a *ask, renew bool) (auth.Identity, *failure) {
	source := a.who.source
	if a.login != nil {
		source = auth.SourceOf(a.login)
	}
	who, err := source.Identity(ctx, a.repo, renew)
	if err != nil {
		return who, r.fail(a, pull.Unavailable, fmt.Errorf("credentials: %w", err))
	}
	a.who.use(who)
	return who, nil
}

// grantFailure classifies the error of a grant.
func (r *Registry) grantFailure(ctx context.Context, e *endpoint, a *ask, err error) *failure {
	var untrusted *auth.UntrustedError
	var misfit *auth.MisfitError
	var from *pull.Error
	switch {
	case errors.As(err, &untrusted):
		f := r.broken(a, "%w", auth.ErrUntrusted)
		f.err.Message = fmt.Sprintf("the token server %s is not trusted with the credentials: list it in %s if it is right", untrusted.Host, r.opts.Names.TrustedRealms)
		f.remedies |= tryAccount
		if old := e.distrusted.Swap(&untrusted.Host); old == nil || *old != untrusted.Host {
			r.log.Warn("token server is not trusted", logkey.Host(untrusted.Host), logkey.User(a.who.name()), logkey.Setting(r.opts.Names.TrustedRealms))
		}
		return f
	case errors.As(err, &misfit):
		return r.broken(a, "%w", err)
	case !errors.As(err, &from): // ctx is done
		return r.transportFailure(ctx, a, err, false)
	}
	shared := *from // with all who wait
	shared.Op = a.op
	f := &failure{err: &shared}
	if pull.Failing(&shared) {
		f.remedies |= tryEndpoint
	}
	if errors.Is(&shared, pull.ErrLogin) {
		f.remedies |= tryAccount
	}
	if shared.Kind == pull.Limited {
		f.limit = tokenLimit
	}
	return f
}

// ping asks an endpoint's root for its challenge and returns it, or nil if there is none.
// Only its realm and service are used: its scope is a placeholder.
func (r *Registry) ping(ctx context.Context, e *endpoint, a *ask) *auth.Challenge {
	root := &ask{op: a.op + ": ping", method: http.MethodGet, repo: a.repo}
	resp, fail := r.send(ctx, e, root, Ping, e.url("/v2/", ""), nil)
	if fail != nil {
		return nil
	}
	defer discard(resp)
	c, _, err := auth.ReadChallenge(resp.Header, e.base)
	if err != nil || c == nil || resp.StatusCode != http.StatusUnauthorized {
		r.log.Debug("ping has no challenge", logkey.Host(e.base.Host), logkey.Status(resp.StatusCode))
		return nil
	}
	return c.General()
}
