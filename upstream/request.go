package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/lane"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/tracing"
	"forebay/internal/wire"
	"forebay/upstream/auth"
	"forebay/upstream/stall"
)

// A request goes down these steps, each of which may take the next one several times:
//
//	do            holds a lane, and has until Timeouts.Answer
//	retrying      asks the endpoints in order, and all again after a pause
//	atEndpoint    asks with one account after the other
//	withAccount   passes the gates, and tells them how it went
//	withFreshURL  asks again when a signed URL has expired
//	atRegistry    asks the registry and follows its redirects
//	authenticated sends it with another grant when one is refused
//	send          makes one HTTP request

// ask is one request to a registry, before it is known which endpoint answers it.
type ask struct {
	op     string // for errors: "head manifest library/nginx:latest"
	method string
	repo   string // whose pull scope is needed
	tail   string // of the path, behind the repository: "/manifests/latest"
	query  string // without the question mark
	accept string
	blob   v1.Hash // the blob that it is for; zero for everything else
	// byteRange is the Range header; "" asks without.
	byteRange string
	// unless is an ETag: content that has it is not to be sent.
	unless string

	manifest bool // it is for a manifest
	byDigest bool // it names a digest, so that it does not matter who answers
	// needsRegistry says that the registry must be asked, and no place that it redirected
	// to before: its answer shows that the repository holds the blob.
	needsRegistry bool
	// elsewhere is where else the blob is; it is asked instead of the registry.
	elsewhere *url.URL
	// avoid gave a wrong answer: others are asked first.
	avoid *endpoint

	who   *account    // set by atEndpoint
	login *pull.Login // in whose name, set by do; nil: in ours
	start time.Time   // set by retrying

	// from pins a further page of a listing to the endpoint that gave the first.
	from *endpoint
}

func (a *ask) path() string { return "/v2/" + a.repo + a.tail }

// charged reports whether registries count the request as a pull.
func (a *ask) charged() bool { return a.manifest && a.method == http.MethodGet && a.unless == "" }

// answer is a response with what was asked for: 200, 206 or 416 if a range was, 304 if it may be.
type answer struct {
	*http.Response // its Body is a *stall.Body
	endpoint       *endpoint
	ask            *ask // as it was asked of the endpoint
	grant          *auth.Grant
	url            *url.URL // of the first request, at the registry
}

// do asks until there is an answer: with retries, at one endpoint after the other. The
// caller closes the answer's body, which lives as long as ctx. The lane is held until then.
func (r *Registry) do(ctx context.Context, l *lane.Lane, a *ask) (_ *answer, err error) {
	ctx, span := tracing.Start(ctx, "ask upstream", tracing.Upstream(r.opts.Name), tracing.Repository(a.repo), tracing.Kind(a.kind().String()))
	defer func() { span.End(err) }()
	ctx, cancel := context.WithCancelCause(ctx)
	slow := time.AfterFunc(r.opts.Timeouts.Answer, func() { cancel(errTooSlow) })
	defer slow.Stop()
	a.login = pull.LoginOf(ctx)
	if err := l.Enter(ctx); err != nil {
		cancel(nil)
		switch {
		case errors.Is(err, errTooSlow):
			return nil, r.fail(a, pull.Overloaded, fmt.Errorf("%s are in use", r.opts.Names.MaxConnections)).err
		case errors.Is(err, lane.ErrFull):
			return nil, r.fail(a, pull.Overloaded, err).err
		}
		return nil, r.transportFailure(ctx, a, err, false).err
	}
	ans, fail := r.retrying(ctx, a)
	if fail != nil {
		cancel(nil)
		l.Leave()
		if kind := fail.err.Kind; a.login != nil && (kind == pull.Denied || kind == pull.NotFound) {
			fail.err.Detail = pull.OfLogin
		}
		return nil, fail.err
	}
	b := stall.New(ans.Body, r.opts.Timeouts.Stall, cancel, l.Leave, func(err error) error {
		return r.bodyError(ans, a, err)
	})
	b.Whole, b.Count = ans.endpoint.breaker.Good, &r.counts.bytes
	ans.Body = b
	return ans, nil
}

// bodyError makes the error of a body that broke off. The place that it came from is
// not asked again for the rest.
func (r *Registry) bodyError(ans *answer, a *ask, cause error) error {
	if !errors.Is(cause, context.Canceled) {
		r.places.Drop(ans.endpoint.place(ans.ask))
		if timedOut(cause) {
			r.sick(ans.endpoint, ans.ask.start, "a body stalled")
		} else { // which may be the fault of this one blob
			ans.endpoint.breaker.Cool(r.opts.Now())
		}
	}
	if errors.Is(cause, io.ErrUnexpectedEOF) {
		return io.ErrUnexpectedEOF
	}
	kind := pull.Unavailable
	if timedOut(cause) {
		kind = pull.Timeout
	}
	return r.fail(a, kind, cause).err
}

// atEndpoint asks one endpoint, with one credential after the other as long as the registry
// refuses them or has no pulls left for them.
func (r *Registry) atEndpoint(ctx context.Context, e *endpoint, a *ask) (*answer, *failure) {
	var last *failure
	for _, who := range e.site.accountsFor(a) {
		b := e.translate(a)
		b.who = who
		ans, fail := r.withAccount(ctx, e, b)
		if fail == nil {
			ans.ask = b
			return ans, nil
		}
		last = moreTelling(last, fail)
		if !fail.helps(tryAccount) || ctx.Err() != nil {
			break
		}
	}
	return nil, e.tell(last)
}

// moreTelling returns which of the failures of two accounts to tell. That a second one is
// denied does not matter as long as the first may be let through later.
func moreTelling(first, second *failure) *failure {
	if first == nil || first.err.Kind != pull.Limited || (second.err.Kind != pull.Denied && second.err.Kind != pull.Limited) {
		return second
	}
	return first
}

// withAccount asks with one credential, if the gates on the way let it.
func (r *Registry) withAccount(ctx context.Context, e *endpoint, a *ask) (*answer, *failure) {
	p, err := e.site.enter(ctx, a)
	if err != nil {
		return nil, r.notSent(ctx, a, err)
	}
	gate := a.who.gate(a)
	if p.own, err = gate.Enter(ctx); err != nil {
		p.unclear()
		fail := r.notSent(ctx, a, err)
		fail.remedies |= tryAccount
		return nil, fail
	}
	var ans *answer
	var fail *failure
	if p.own.Probe() && a.charged() {
		fail = r.probe(ctx, e, a)
	}
	if fail == nil {
		ans, fail = r.withFreshURL(ctx, e, a)
	}
	r.report(e, a, p, fail)
	if fail != nil {
		switch fail.limit {
		case pullLimit:
			fail.remedies |= tryAccount
			r.tellWhen(fail, gate)
		case allLimit, slowLimit:
			r.tellWhen(fail, e.site.all)
		case storeLimit:
			r.tellWhen(fail, e.site.store)
		case repoLimit:
			r.tellWhen(fail, e.site.repos.Of(a.repo))
		}
	}
	return ans, fail
}

// withFreshURL asks where the blob was found before, else the registry, and the registry
// again when the signed URL that it pointed to has expired, a bounded number of times.
func (r *Registry) withFreshURL(ctx context.Context, e *endpoint, a *ask) (*answer, *failure) {
	if ans := r.revisit(ctx, e, a); ans != nil {
		return ans, nil
	}
	if a.elsewhere != nil { // as if the registry had sent us there
		resp, fail := r.follow(ctx, e, a, a.elsewhere, &http.Response{Header: http.Header{"Location": {a.elsewhere.String()}}, Body: http.NoBody}, nil)
		return &answer{Response: resp, endpoint: e, url: a.elsewhere}, fail
	}
	const asks = 3
	for n := 1; ; n++ {
		ans, fail := r.atRegistry(ctx, e, a)
		if fail == nil || !fail.helps(tryRegistry) || n == asks || a.method != http.MethodGet {
			return ans, fail
		}
		r.log.Debug("redirect target refused; asking again", logkey.Status(fail.err.Status), logkey.Op(a.op))
	}
}

// revisit asks the place where an earlier request for the same blob was redirected to,
// without asking the registry again. It returns nil if that did not work.
func (r *Registry) revisit(ctx context.Context, e *endpoint, a *ask) *answer {
	if a.byteRange == "" || a.needsRegistry {
		return nil
	}
	target := r.places.Get(e.place(a))
	if target == nil {
		return nil
	}
	resp, fail := r.send(ctx, e, a, Redirect, target, nil)
	if fail == nil && a.answeredBy(resp.StatusCode) {
		return &answer{Response: resp, endpoint: e, url: e.url(a.path(), a.query)}
	}
	r.places.Drop(e.place(a))
	if fail == nil {
		discard(resp)
	}
	return nil
}

// atRegistry asks the registry, authenticates as it wishes, and follows where it points.
func (r *Registry) atRegistry(ctx context.Context, e *endpoint, a *ask) (*answer, *failure) {
	u := e.url(a.path(), a.query)
	since := a.who.budget.Asking()
	resp, g, fail := r.authenticated(ctx, e, a, u)
	if fail != nil {
		return nil, fail
	}
	r.noteBudget(ctx, a, resp, since)
	if redirects(resp) {
		resp, fail = r.follow(ctx, e, a, u, resp, g)
		if fail != nil {
			return nil, fail
		}
	} else if !a.answeredBy(resp.StatusCode) {
		return nil, r.statusFailure(ctx, a, resp, g)
	}
	if a.charged() {
		r.counts.pulls.Add(1)
	}
	return &answer{Response: resp, endpoint: e, grant: g, url: u}, nil
}

// answeredBy reports whether a status is an answer to a.
func (a *ask) answeredBy(status int) bool {
	switch status {
	case http.StatusOK:
		return true
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		return a.byteRange != ""
	case http.StatusNotModified:
		return a.unless != ""
	}
	return false
}

// whole reports whether an answer is as good as a 200: a 203, which somebody on the way has
// changed (RFC 9110, 15.3.4) and whose digest is looked at like any other's; or a 206 with all of
// it, as some CDNs send what nobody asked for in ranges.
func (a *ask) whole(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusNonAuthoritativeInfo:
		return true
	case http.StatusPartialContent:
		span, err := wire.ParseContentRange(resp.Header.Get("Content-Range"))
		return a.byteRange == "" && err == nil && span.Start == 0 && span.End == span.Size && (resp.ContentLength < 0 || resp.ContentLength == span.Size)
	}
	return false
}

// send makes one request and returns its answer, whatever its status. Its headers are
// made here, from nothing: none of an earlier hop or of a client is ever passed on.
func (r *Registry) send(ctx context.Context, e *endpoint, a *ask, k RequestKind, u *url.URL, g *auth.Grant) (*http.Response, *failure) {
	ctx, span := spanOf(ctx, a.method, k, u)
	reused := false
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
	req := (&http.Request{
		Method: a.method,
		URL:    u,
		Host:   u.Host,
		Header: http.Header{
			"User-Agent":      {r.opts.UserAgent},
			"Accept-Encoding": {"identity"},
		},
	}).WithContext(httptrace.WithClientTrace(ctx, trace))
	if a.accept != "" {
		req.Header.Set("Accept", a.accept)
	}
	if a.byteRange != "" {
		req.Header.Set("Range", a.byteRange)
	}
	if a.unless != "" {
		req.Header.Set("If-None-Match", a.unless)
	}
	g.Authorize(req)
	r.setHops(ctx, e, req)
	start := time.Now()
	// A RoundTripper follows no redirect, keeps no cookie and adds no Referer.
	transport := e.outside
	if e.sameOrigin(u) {
		transport = e.transport
	}
	resp, err := transport.RoundTrip(req)
	r.counts.request(k, resp, start)
	if err != nil {
		fail := r.transportFailure(ctx, a, err, reused)
		endSpan(span, nil, fail)
		r.log.Debug("upstream request failed", logkey.Op(a.op), logkey.Host(u.Host), logkey.Took(time.Since(start)), logkey.Err(fail.err))
		return nil, fail
	}
	endSpan(span, resp, nil)
	if a.whole(resp) {
		resp.StatusCode = http.StatusOK
	}
	r.log.Debug("upstream answered", logkey.Op(a.op), logkey.Host(u.Host), logkey.Status(resp.StatusCode), logkey.Took(time.Since(start)))
	return resp, nil
}

// discard closes an answer that nobody reads. A short body is read, so that the
// connection can be used again.
func discard(resp *http.Response) {
	const most = 4 << 10
	if resp.ContentLength >= 0 && resp.ContentLength <= most {
		_, _ = io.Copy(io.Discard, resp.Body) // or the connection is not used again
	}
	resp.Body.Close()
}
