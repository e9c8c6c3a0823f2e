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
)

// failure is an attempt that gave no content, and what may help.
type failure struct {
	err       *pull.Error
	again     bool // the same endpoint may do better in a moment
	elsewhere bool // another endpoint may do better now
	another   bool // another credential may do better now
	// stale says that a redirect target refused, so that its signed URL may have
	// expired and the registry should be asked for another.
	stale bool
	limit limitKind // what a 429 limits
	// standIn says that it is a stand-in's, and so says nothing about the registry.
	standIn bool
	// mirror says that it is the word of another mirror of this kind about what it was
	// asked for, and so says nothing about the mirror.
	mirror bool
	// refusal says that the stand-in does its work and does not have this.
	refusal bool
}

// sick reports whether the endpoint did not do its work, rather than refuse to.
func (f *failure) sick() bool {
	if f.limit != notLimited || f.refusal || f.mirror || errors.Is(f.err, context.Canceled) {
		return false
	}
	return f.elsewhere || errors.Is(f.err, errTooSlow)
}

// Causes that decide something. They are in the chain of a pull.Error.
var (
	// errNoRight: the token is good and does not cover this. Nothing else is worth trying.
	errNoRight = errors.New("the identity has no right to it")
	// errTarget: the answer came from a redirect target, not from the registry itself.
	errTarget = errors.New("a redirect target refused")
	// errTooSlow ends a request that has had no answer in Timeouts.Answer.
	errTooSlow = errors.New("no answer in time")
	// errBasicRefused: the registry does not take the user name and password.
	errBasicRefused = errors.New("it refuses the user name and password")
	// errUntrustedRealm: the credentials may not be sent to the token server.
	errUntrustedRealm = errors.New("credentials are not sent to a token server that is not trusted")
	// errStalled ends a body without bytes for Timeouts.Stall.
	errStalled = errors.New("no byte in time")
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
	if errors.Is(err, errRefusedAddress) {
		return r.fail(a, pull.Invalid, quiet(err))
	}
	f := r.fail(a, pull.Unavailable, quiet(err))
	f.again, f.elsewhere = true, true
	if timedOut(err) {
		// Waiting as long again for the same server rarely helps, and the client waits too.
		f.err.Kind, f.again = pull.Timeout, reused
	}
	if certificateFault(err) {
		f.again = false
	}
	return f
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, errStalled) || errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &n) && n.Timeout())
}

// certificateFault reports whether err is a certificate that will not be better in a moment.
func certificateFault(err error) bool {
	var fault *tls.CertificateVerificationError
	return errors.As(err, &fault)
}

// statusFailure classifies an answer that is no success, reads what it says and closes it.
func (r *Registry) statusFailure(ctx context.Context, a *ask, resp *http.Response, g *grant) *failure {
	doc, _ := r.readError(resp, g)
	f := r.fail(a, kindOf(resp.StatusCode), nil)
	f.err.Status, f.err.Code, f.err.Message = resp.StatusCode, doc.Code, doc.Message
	f.err.Detail = detailOf(resp.StatusCode)
	f.err.RetryAfter = wire.ParseRetryAfter(resp.Header, doc.Message, r.opts.Now())
	f.again = temporary(resp.StatusCode)
	f.elsewhere = f.again || resp.StatusCode >= 500
	if resp.StatusCode == http.StatusTooManyRequests {
		f.limit, f.elsewhere = kindOfLimit(a, resp.Header, doc), true
		if f.err.RetryAfter == 0 {
			f.err.RetryAfter = wire.ParseRateLimitReset(resp.Header, r.opts.Now())
		}
	}
	if byMirror(resp.Header) {
		f.ofMirror()
	}
	if ctx.Err() != nil {
		f.again, f.elsewhere = false, false
	}
	return f
}

// readError reads and closes the body of an error answer. Secrets that the request
// carried are taken out, since a hostile server may echo them.
func (r *Registry) readError(resp *http.Response, g *grant) (wire.ErrorDoc, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, errorBodyMax))
	body, decodeErr := decoded(contentEncoding(resp.Header), body, errorBodyMax)
	if decodeErr != nil {
		return wire.ErrorDoc{}, decodeErr
	}
	doc := wire.ParseErrorDoc(body)
	doc.Code, doc.Message = clean(g.hide(doc.Code)), clean(g.hide(doc.Message))
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

// temporary reports whether the same request may succeed in a moment.
func temporary(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout, 520, 521, 522, 523, 524:
		return true
	}
	return false
}
