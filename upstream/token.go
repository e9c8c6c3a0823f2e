package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/upstream/auth"
	"forebay/upstream/dial"
)

const (
	// tokenReplyMax bounds a token server's reply. Real ones have up to 5 KiB.
	tokenReplyMax = 64 << 10
	// tokenMost is the longest pause after a 429 of a token server.
	tokenMost = 5 * time.Minute
)

// realms returns the token servers that may be asked over t, on the way to e.
func (r *Registry) realms(e *endpoint, t *http.Transport, trust auth.Trust) *auth.Realms {
	s := &auth.Realms{Trust: trust, Vet: e.dialer.Vet}
	s.Ask = func(ctx context.Context, q *auth.Request) (*auth.Token, *pull.Error) { return r.askToken(ctx, t, s, q) }
	return s
}

// askToken asks a token server for a token, with retries.
func (r *Registry) askToken(ctx context.Context, over *http.Transport, s *auth.Realms, q *auth.Request) (*auth.Token, *pull.Error) {
	a := &ask{op: q.Op(), method: http.MethodGet}
	for n := 1; ; n++ {
		t, fail := r.askTokenLimited(ctx, over, s, a, q)
		if fail == nil {
			return t, nil
		}
		if !fail.helps(tryAgain) || !r.pause(ctx, n, fail) {
			if fail.err.Err == nil {
				fail.err.Err = fmt.Errorf("token server %s refused", q.Realm.Host)
			} else {
				fail.err.Err = fmt.Errorf("token server %s: %w", q.Realm.Host, fail.err.Err)
			}
			return nil, fail.err
		}
	}
}

// askTokenLimited asks the token server once, unless it limits us.
func (r *Registry) askTokenLimited(ctx context.Context, over *http.Transport, s *auth.Realms, a *ask, q *auth.Request) (*auth.Token, *failure) {
	gate := r.tokenGates.Of(dial.HostPort(q.Realm))
	pass, err := gate.Enter(ctx)
	if err != nil {
		return nil, r.notSent(ctx, a, err)
	}
	t, fail := r.askTokenOnce(ctx, over, s, a, q)
	switch {
	case fail == nil:
		pass.Through()
	case fail.limit != notLimited:
		r.counts.limits[tokenLimit].Add(1)
		if pass.Refused(fail.err.RetryAfter, "its token server refuses so many requests") {
			r.log.Warn("token server limits us", logkey.Host(q.Realm.Host), logkey.User(q.User()), logkey.RetryAfter(fail.err.RetryAfter))
		}
		r.tellWhen(fail, gate)
	case fail.err.Status == 0:
		pass.Unclear()
	default:
		pass.Through()
	}
	return t, fail
}

// askTokenOnce makes one token request and follows its redirects. The endpoint's connections are
// used, so that the address policy of the endpoint holds for its token server.
func (r *Registry) askTokenOnce(ctx context.Context, over *http.Transport, s *auth.Realms, a *ask, q *auth.Request) (*auth.Token, *failure) {
	req, err := q.HTTP()
	if err != nil {
		return nil, r.broken(a, "%w", err)
	}
	resp, fail := r.sendToken(ctx, over, a, q, req)
	for hop := 1; fail == nil && redirects(resp); hop++ {
		discard(resp)
		to, err := wire.Locate(req.URL, resp.Header.Get("Location"))
		if err == nil {
			req, err = q.Follow(s, to, resp.StatusCode)
		}
		if hop > hopsMax {
			err = fmt.Errorf("more than %d", hopsMax)
		}
		if err != nil {
			return nil, r.broken(a, "redirect: %w", err)
		}
		resp, fail = r.sendToken(ctx, over, a, q, req)
	}
	if fail != nil {
		return nil, fail
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 { // some answer 201: what is in it counts
		return nil, r.tokenRefusal(ctx, a, q, resp)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, tokenReplyMax+1))
	if err != nil {
		return nil, r.transportFailure(ctx, a, err, false)
	}
	if len(body) > tokenReplyMax {
		return nil, r.broken(a, "reply has more than %d bytes", tokenReplyMax)
	}
	if body, err = wire.Decode(wire.ContentEncoding(resp.Header), body, tokenReplyMax); err != nil {
		return nil, r.broken(a, "%w", err)
	}
	t, err := q.Token(body)
	if err != nil {
		return nil, r.broken(a, "%w", err)
	}
	return t, nil
}

// sendToken sends one request to a token server.
func (r *Registry) sendToken(ctx context.Context, over *http.Transport, a *ask, q *auth.Request, req *http.Request) (*http.Response, *failure) {
	req.Header.Set("User-Agent", r.opts.UserAgent)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "identity")
	ctx, span := spanOf(ctx, req.Method, TokenGet, req.URL)
	start := time.Now()
	resp, err := over.RoundTrip(req.WithContext(ctx))
	r.counts.request(TokenGet, resp, start)
	if err != nil {
		fail := r.transportFailure(ctx, a, err, false)
		endSpan(span, nil, fail)
		return nil, fail
	}
	endSpan(span, resp, nil)
	r.log.Debug("token server answered", logkey.Host(req.URL.Host), logkey.Status(resp.StatusCode), logkey.Op(a.op+" for "+q.Scope))
	return resp, nil
}

// tokenRefusal classifies an error of a token server. An outage never looks like an
// absence: only 401 and 403 mean that we may not.
func (r *Registry) tokenRefusal(ctx context.Context, a *ask, q *auth.Request, resp *http.Response) *failure {
	f := r.statusFailure(ctx, a, resp, q.Sent(resp.Request))
	switch {
	case q.Refuses(f.err.Status, f.err.Code):
		f.err.Kind, f.err.Err = pull.Denied, pull.ErrLogin
	case f.err.Kind == pull.NotFound, f.err.Kind == pull.Unsupported:
		f.err.Kind = pull.Invalid
	case f.err.Kind == pull.Denied:
		f.err.Err = errNoRight
	}
	return f
}
