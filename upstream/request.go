package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/logkey"
	"forebay/internal/pull"
)

// ask is one request to a registry, before it is known which endpoint answers it.
type ask struct {
	op     string // for errors: "head manifest library/nginx:latest"
	method string
	repo   string // whose pull scope is needed
	path   string // below the endpoint: "/v2/library/nginx/manifests/latest"
	query  string // without the question mark
	accept string
	span   string  // Range header; "" asks without
	blob   v1.Hash // the blob that a GET is for; zero for everything else

	// proof says that the registry itself must answer, since the answer shows that the
	// repository holds the blob.
	proof bool

	// from pins a further page of a listing: the endpoint that gave the first, and the
	// URL that it named.
	from *endpoint
	page *url.URL
}

// answer is a response worth having: 200, and 206 or 416 if a range was asked for.
type answer struct {
	*http.Response // its Body is a *body
	endpoint       *endpoint
	grant          *grant
	url            *url.URL // of the first request, at the registry
}

// do asks until there is an answer: with retries, at one endpoint after the other. The
// caller closes the answer's body, which lives as long as ctx. The lane is held until then.
func (r *Registry) do(ctx context.Context, l lane, a *ask) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	slow := time.AfterFunc(r.opts.Timeouts.Answer, func() { cancel(errTooSlow) })
	defer slow.Stop()
	if err := l.enter(ctx); err != nil {
		cancel(nil)
		if errors.Is(err, errTooSlow) {
			return nil, r.fail(a, pull.Overloaded, errBusy).err
		}
		return nil, r.transportFailure(ctx, a, err, false).err
	}
	ans, fail := r.retrying(ctx, a)
	if fail != nil {
		cancel(nil)
		l.leave()
		return nil, fail.err
	}
	e := ans.endpoint
	ans.Body = newBody(ans.Body, r.opts.Timeouts.Stall, cancel, l.leave, func(err error) error {
		return r.bodyError(e, a, err)
	})
	return ans, nil
}

// bodyError makes the error of a body that broke off. The place that it came from is
// not asked again for the rest.
func (r *Registry) bodyError(e *endpoint, a *ask, cause error) error {
	if !errors.Is(cause, context.Canceled) {
		r.locations.drop(e, a)
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

// attempt asks one endpoint, following redirects. An expired signed URL is asked for
// again, a bounded number of times.
func (r *Registry) attempt(ctx context.Context, e *endpoint, a *ask) (*answer, *failure) {
	if ans := r.revisit(ctx, e, a); ans != nil {
		return ans, nil
	}
	const asks = 3
	for n := 1; ; n++ {
		ans, fail := r.once(ctx, e, a)
		if fail == nil || !fail.stale || n == asks || a.method != http.MethodGet {
			return ans, fail
		}
		r.log.Debug("redirect target refused; asking again", logkey.Status(fail.err.Status), logkey.Op(a.op))
	}
}

// revisit asks the place where an earlier request for the same blob was redirected to,
// without asking the registry again. It returns nil if that did not work.
func (r *Registry) revisit(ctx context.Context, e *endpoint, a *ask) *answer {
	if a.span == "" || a.proof {
		return nil
	}
	target := r.locations.get(e, a)
	if target == nil {
		return nil
	}
	resp, fail := r.send(ctx, e, a, target, nil)
	if fail == nil && a.wants(resp.StatusCode) {
		return &answer{Response: resp, endpoint: e, url: e.url(a.path, a.query)}
	}
	r.locations.drop(e, a)
	if fail == nil {
		discard(resp)
	}
	return nil
}

// once asks the registry, authenticates as it wishes, and follows where it points.
func (r *Registry) once(ctx context.Context, e *endpoint, a *ask) (*answer, *failure) {
	u := a.page
	if u == nil {
		u = e.url(a.path, a.query)
	}
	resp, g, fail := r.authenticated(ctx, e, a, u)
	if fail != nil {
		return nil, fail
	}
	r.budgets.see(resp.Header, g.name(), r.opts.Now())
	if redirects(resp) {
		resp, fail = r.follow(ctx, e, a, u, resp, g)
		if fail != nil {
			return nil, fail
		}
	} else if !a.wants(resp.StatusCode) {
		return nil, r.statusFailure(ctx, a, resp, g)
	}
	return &answer{Response: resp, endpoint: e, grant: g, url: u}, nil
}

// wants reports whether a status is an answer to a.
func (a *ask) wants(status int) bool {
	switch status {
	case http.StatusOK:
		return true
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		return a.span != ""
	}
	return false
}

// send makes one request and returns its answer, whatever its status. Its headers are
// made here, from nothing: none of an earlier hop or of a client is ever passed on.
func (r *Registry) send(ctx context.Context, e *endpoint, a *ask, u *url.URL, g *grant) (*http.Response, *failure) {
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
	if a.span != "" {
		req.Header.Set("Range", a.span)
	}
	if g != nil {
		req.Header.Set("Authorization", g.header)
	}
	start := time.Now()
	// A RoundTripper follows no redirect, keeps no cookie and adds no Referer.
	resp, err := e.transport.RoundTrip(req)
	if err != nil {
		fail := r.transportFailure(ctx, a, err, reused)
		r.log.Debug("upstream request failed", logkey.Op(a.op), logkey.Host(u.Host), logkey.Took(time.Since(start)), logkey.Err(fail.err))
		return nil, fail
	}
	r.log.Debug("upstream answered", logkey.Op(a.op), logkey.Host(u.Host), logkey.Status(resp.StatusCode), logkey.Took(time.Since(start)))
	return resp, nil
}

// discard closes an answer that nobody reads. A short body is read, so that the
// connection can be used again.
func discard(resp *http.Response) {
	const most = 4 << 10
	if resp.ContentLength >= 0 && resp.ContentLength <= most {
		var buf [most]byte
		for {
			if _, err := resp.Body.Read(buf[:]); err != nil {
				break
			}
		}
	}
	resp.Body.Close()
}

// contentType returns the media type of a Content-Type header, without parameters, in
// lower case.
func contentType(h http.Header) string {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(t))
}
