package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/upstream/auth"
	"forebay/upstream/dial"
	"forebay/upstream/stall"
)

// failure is a request that gave no content, and what to do about it.
type failure struct {
	err      *pull.Error
	remedies remedy
	limit    limitKind // what a 429 limits
	// untold: the registry tells of no limit but by that 429, which may say what it allows in a minute.
	untold  bool
	allowed int
	// standIn says that a stand-in has failed, which says nothing about the registry.
	standIn bool
	// atWork says that the endpoint does its work, whatever the error: it told what it, or
	// a registry behind it, thinks of what was asked for.
	atWork bool
}

// remedy is what may help after a failure. Several may.
type remedy uint8

const (
	tryAgain    remedy = 1 << iota // the same endpoint, in a moment
	tryEndpoint                    // another endpoint, at once
	tryAccount                     // another credential, at once
	// tryRegistry: the registry again, at once. A place that it redirected to refused, so
	// that the signed URL may have expired.
	tryRegistry
)

// helps reports whether a remedy may help.
func (f *failure) helps(r remedy) bool { return f.remedies&r != 0 }

// sick reports whether the endpoint did not do its work, rather than refuse to.
func (f *failure) sick() bool {
	if f.limit != notLimited || f.atWork || errors.Is(f.err, context.Canceled) {
		return false
	}
	return f.helps(tryEndpoint) || errors.Is(f.err, errTooSlow)
}

// Causes that decide something. They are in the chain of a pull.Error.
var (
	// errNoRight: the token is good but does not cover this. Nothing else is worth trying.
	errNoRight = errors.New("the identity has no right to it")
	// errNoScheme: a 401 does not say how to authenticate.
	errNoScheme = errors.New("it says neither Bearer nor Basic")
	// errTarget: the answer came from a redirect target, not from the registry itself.
	errTarget = errors.New("a redirect target refused")
	// errTooSlow ends a request that has had no answer in Timeouts.Answer.
	errTooSlow = errors.New("no answer in time")
	// errBasicRefused: the registry does not take the user name and password.
	errBasicRefused = fmt.Errorf("it refuses the user name and password: %w", pull.ErrLogin)
)

// errorBodyMax bounds the part of an error body that is read.
const errorBodyMax = 64 << 10

// fail returns a failure of that kind, of this request, without an answer.
func (r *Registry) fail(a *ask, kind pull.Kind, cause error) *failure {
	return &failure{err: &pull.Error{Kind: kind, Upstream: r.opts.Name, Op: a.op, Err: cause}}
}

// broken returns the failure for an answer that breaks the protocol.
func (r *Registry) broken(a *ask, format string, args ...any) *failure {
	return r.fail(a, pull.Invalid, fmt.Errorf(format, args...))
}

// transportFailure classifies an error of a round trip, or of reading an answer. reused
// says that an idle connection was used, which may have been dead.
func (r *Registry) transportFailure(ctx context.Context, a *ask, err error, reused bool) *failure {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, errTooSlow) || errors.Is(cause, context.DeadlineExceeded) {
			return r.fail(a, pull.Timeout, cause)
		}
		return r.fail(a, pull.Unavailable, cause)
	}
	if errors.Is(err, dial.ErrRefused) {
		return r.fail(a, pull.Invalid, wire.RedactError(err))
	}
	f := r.fail(a, pull.Unavailable, wire.RedactError(err))
	f.remedies = tryAgain | tryEndpoint
	if timedOut(err) {
		f.err.Kind = pull.Timeout
	}
	// To wait once more for the same server rarely helps, and the client waits meanwhile.
	if timedOut(err) && !reused || certificateFault(err) {
		f.remedies = tryEndpoint
	}
	return f
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, stall.Err) || errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &n) && n.Timeout())
}

// certificateFault reports whether err is a certificate that will not be better in a moment.
func certificateFault(err error) bool {
	var fault *tls.CertificateVerificationError
	return errors.As(err, &fault)
}

// statusFailure classifies an answer that is no success, reads what it says and closes it.
func (r *Registry) statusFailure(ctx context.Context, a *ask, resp *http.Response, g *auth.Grant) *failure {
	doc, _ := r.readError(resp, g)
	f := r.fail(a, kindOf(resp.StatusCode), nil)
	f.err.Status, f.err.Code, f.err.Message = resp.StatusCode, doc.Code, doc.Message
	f.err.Detail = detailOf(resp.StatusCode)
	f.err.RetryAfter = wire.ParseRetryAfter(resp.Header, doc.Message, r.opts.Now())
	f.remedies = remediesFor(resp.StatusCode)
	if resp.StatusCode == http.StatusTooManyRequests {
		f.limit, f.untold = kindOfLimit(a, resp.Header, doc)
		f.allowed = wire.ParseAllowed(doc.Message)
		if f.untold && f.err.RetryAfter > 0 && f.err.RetryAfter <= politeWait {
			f.remedies |= tryAgain // GHCR means less than a millisecond
		}
		if f.err.RetryAfter == 0 {
			f.err.RetryAfter = wire.ParseRateLimitReset(resp.Header, r.opts.Now())
		}
	}
	if byMirror(resp.Header) {
		f.ofMirror()
	}
	if ctx.Err() != nil {
		f.remedies = 0
	}
	return f
}

// readError reads and closes the body of an error answer. Secrets that the request
// carried are taken out, since a hostile server may echo them.
func (r *Registry) readError(resp *http.Response, g *auth.Grant) (wire.ErrorDoc, error) {
	defer resp.Body.Close()
	if resp.StatusCode < 300 {
		return wire.ErrorDoc{}, nil // content, though not what was asked for
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, errorBodyMax))
	body, decodeErr := wire.Decode(wire.ContentEncoding(resp.Header), body, errorBodyMax)
	if decodeErr != nil {
		return wire.ErrorDoc{}, decodeErr
	}
	doc := wire.ParseErrorDoc(body)
	doc.Code, doc.Message = wire.Redact(g.Hide(doc.Code)), wire.Redact(g.Hide(doc.Message))
	return doc, err
}

// kindOf gives the kind of an HTTP status that is no success. The status decides, since
// error codes differ between registries.
func kindOf(status int) pull.Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusPaymentRequired, http.StatusUnavailableForLegalReasons:
		return pull.Denied
	case http.StatusNotFound, http.StatusGone:
		return pull.NotFound
	case http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
		return pull.Unsupported
	case http.StatusTooManyRequests:
		return pull.Limited
	case http.StatusRequestTimeout, http.StatusGatewayTimeout, 522, 524: // 52x: Cloudflare
		return pull.Timeout
	}
	if status >= 500 {
		return pull.Unavailable
	}
	return pull.Invalid
}

// detailOf returns what a status tells beyond its kind.
func detailOf(status int) pull.Detail {
	switch status {
	case http.StatusRequestedRangeNotSatisfiable:
		return pull.OutOfRange
	case http.StatusServiceUnavailable:
		return pull.Crowded
	}
	return pull.NoDetail
}

// remediesFor returns what may help after a status that is no success.
func remediesFor(status int) remedy {
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusInternalServerError, status == http.StatusBadGateway,
		status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout,
		status >= 520 && status <= 524: // Cloudflare
		return tryAgain | tryEndpoint
	case status == http.StatusTooManyRequests, status >= 500:
		return tryEndpoint
	}
	return 0
}
