package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"forebay/internal/pull"
	"forebay/internal/wire"
)

// This file is the only place where an error becomes an HTTP answer.

// Waiting times that we ask for when the upstream did not say.
const (
	retryLimited     = 60 * time.Second
	retryUnavailable = 5 * time.Second
	retryMost        = 24 * time.Hour // no registry's window is longer
)

// Refusal is a request that we answer with an error of its own.
type Refusal struct {
	Status     int
	Code       string // of the OCI error document; empty: that of what does not exist
	Message    string
	RetryAfter time.Duration // with 429
	Challenge  string        // value of WWW-Authenticate, with 401
}

func (e *Refusal) Error() string {
	if e.Code == "" {
		return "hidden from this client"
	}
	return e.Message
}

// The refusals that always read the same.
var (
	errMethod  = &Refusal{Status: http.StatusMethodNotAllowed, Code: "UNSUPPORTED", Message: "this is a read-only mirror: only GET and HEAD are supported"}
	errChanged = &Refusal{Status: http.StatusPreconditionFailed, Code: "UNSUPPORTED", Message: "the content is not what If-Match asks for"}
	errRange   = &Refusal{Status: http.StatusRequestedRangeNotSatisfiable, Code: "SIZE_INVALID", Message: "the range lies outside of the blob"}
)

// reply is an error as it goes out.
type reply struct {
	status     int
	code       string
	message    string
	retryAfter time.Duration // sent with 429 and 503
}

// replyTo is the table from error to answer.
func (h *Handler) replyTo(x *exchange, err error) reply {
	var refused *Refusal
	if errors.As(err, &refused) {
		if refused.Code == "" {
			return unknownReply(x.route.Resource)
		}
		return reply{refused.Status, refused.Code, refused.Message, refused.RetryAfter}
	}
	var fault *wire.RouteError
	if errors.As(err, &fault) {
		return routeReply(fault)
	}
	if pull.DetailOf(err) == pull.ByPolicy {
		return policyReply(err)
	}
	if errors.Is(err, pull.ErrOffline) && x.fromMirror {
		// Another mirror must not take for gone what we cannot look for.
		return reply{http.StatusServiceUnavailable, "UNAVAILABLE", pull.ErrOffline.Error(), retryUnavailable}
	}
	if errors.Is(err, pull.ErrOffline) {
		r := unknownReply(x.route.Resource)
		r.message += ": this mirror is offline and does not have it"
		return r
	}
	f := failureOf(err)
	switch {
	case !x.mirrored:
		return directReply(x, f)
	case x.route.Resource == wire.Blobs:
		return mirroredBlobReply(f)
	default:
		return mirroredReply(x, f)
	}
}

// policyReply is what a rule of ours refuses. Clients that can go elsewhere get it by
// [Handler.writeRefused] where that stops them.
func policyReply(err error) reply {
	f := failureOf(err)
	if f.kind == pull.NotFound {
		return reply{status: http.StatusNotFound, code: "MANIFEST_UNKNOWN", message: f.message}
	}
	return reply{status: http.StatusForbidden, code: "DENIED", message: f.message}
}

// routeReply answers requests that mean nothing here. 404 makes every client move on.
func routeReply(fault *wire.RouteError) reply {
	switch fault.Fault {
	case wire.UnknownRegistry, wire.Disagreement:
		return reply{status: http.StatusNotFound, code: "NAME_UNKNOWN", message: fault.Text}
	case wire.BadName:
		return reply{status: http.StatusBadRequest, code: "NAME_INVALID", message: fault.Text}
	case wire.BadDigest:
		return reply{status: http.StatusBadRequest, code: "DIGEST_INVALID", message: fault.Text}
	case wire.BadTag, wire.BadAsOf:
		return reply{status: http.StatusNotFound, code: "MANIFEST_UNKNOWN", message: fault.Text}
	default:
		return reply{status: http.StatusNotFound, code: "UNSUPPORTED", message: fault.Text}
	}
}

// failure is what matters of an error from the cache.
type failure struct {
	kind       pull.Kind
	upstream   string
	status     int // the upstream's
	message    string
	retryAfter time.Duration
	ours       bool // the limit is one of ours for this client
}

func failureOf(err error) failure {
	f := failure{kind: pull.KindOf(err)}
	var e *pull.Error
	if errors.As(err, &e) {
		f.upstream, f.status, f.message, f.retryAfter = e.Upstream, e.Status, e.Message, e.RetryAfter
		f.ours = e.Detail == pull.ClientLimited
	}
	if f.kind == pull.Unavailable && errors.Is(err, context.DeadlineExceeded) {
		f.kind = pull.Timeout
	}
	return f
}

// text says what went wrong in one line, which users see, in kubelet's events for one. It is
// made of the parts of a [pull.Error] that are free of secrets; never of its cause, which
// may name addresses.
func (f failure) text() string {
	who := f.upstream
	if who == "" {
		who = "the registry"
	}
	var text string
	switch f.kind {
	case pull.NotFound:
		text = "not found on " + who
	case pull.Denied:
		text = who + " denies access: private, or it does not exist"
	case pull.Limited:
		text = who + " limits our pulls"
		if f.ours {
			text = "the mirror limits you"
		}
	case pull.Invalid:
		text = who + " gave an invalid answer"
	case pull.Unsupported:
		text = who + " does not support this request"
	case pull.Overloaded:
		text = "the mirror is overloaded"
	case pull.Timeout:
		text = who + " did not answer in time"
	default:
		text = who + " is unavailable"
	}
	if f.status != 0 {
		text += fmt.Sprintf(" (status %d)", f.status)
	}
	if f.message != "" {
		text += ": " + f.message
	}
	return text
}

// retry returns how long the client should wait.
func (f failure) retry(standard time.Duration) time.Duration {
	if f.retryAfter > 0 {
		return min(f.retryAfter, retryMost)
	}
	return standard
}

// unknownCode is the error code for a resource that is not there.
func unknownCode(r wire.Resource) string {
	switch r {
	case wire.Blobs:
		return "BLOB_UNKNOWN"
	case wire.Tags, wire.Catalog:
		return "NAME_UNKNOWN"
	default:
		return "MANIFEST_UNKNOWN"
	}
}

// unknownReply is the answer both to what does not exist and to what the client may not
// have, so that the two cannot be told apart.
func unknownReply(r wire.Resource) reply {
	return reply{status: http.StatusNotFound, code: unknownCode(r), message: r.String() + " unknown"}
}

// mirroredReply is for everything but blobs, to clients that can ask the registry itself.
func mirroredReply(x *exchange, f failure) reply {
	switch f.kind {
	case pull.NotFound, pull.Denied:
		return unknownReply(x.route.Resource)
	case pull.Unsupported:
		return reply{status: http.StatusNotFound, code: "UNSUPPORTED", message: f.text()}
	case pull.Limited:
		if x.client.Image() {
			// A 429 costs containers/image 20 to 30 s before it goes on; a 503 nothing.
			return reply{http.StatusServiceUnavailable, "TOOMANYREQUESTS", f.text(), f.retry(retryLimited)}
		}
		return reply{http.StatusTooManyRequests, "TOOMANYREQUESTS", f.text(), f.retry(retryLimited)}
	default:
		return reply{http.StatusServiceUnavailable, "UNAVAILABLE", f.text(), f.retry(retryUnavailable)}
	}
}

// mirroredBlobReply is for blobs, to clients that can ask the registry itself. It is always
// a 404: after a 5xx dockerd asks us for the blob again for 51 to 77 s before it asks the
// registry, and podman repeats the pull there only after a 404 with this document.
func mirroredBlobReply(f failure) reply {
	r := unknownReply(wire.Blobs)
	if f.kind != pull.NotFound && f.kind != pull.Denied {
		r.message = f.text()
	}
	return r
}

// directReply is for clients that have only us: they are told the truth.
func directReply(x *exchange, f failure) reply {
	switch f.kind {
	case pull.NotFound:
		return unknownReply(x.route.Resource)
	case pull.Denied:
		return reply{status: http.StatusForbidden, code: "DENIED", message: f.text()}
	case pull.Limited:
		return reply{http.StatusTooManyRequests, "TOOMANYREQUESTS", f.text(), f.retry(retryLimited)}
	case pull.Unsupported:
		return reply{status: http.StatusNotFound, code: "UNSUPPORTED", message: f.text()}
	case pull.Invalid:
		return reply{status: http.StatusBadGateway, code: "UNAVAILABLE", message: f.text()}
	case pull.Timeout:
		return reply{status: http.StatusGatewayTimeout, code: "UNAVAILABLE", message: f.text()}
	case pull.Unavailable:
		switch f.status {
		case 0, http.StatusServiceUnavailable: // below
		case http.StatusLoopDetected:
			return reply{status: http.StatusLoopDetected, code: "UNAVAILABLE", message: f.text()}
		case http.StatusGatewayTimeout:
			return reply{status: http.StatusGatewayTimeout, code: "UNAVAILABLE", message: f.text()}
		default:
			return reply{status: http.StatusBadGateway, code: "UNAVAILABLE", message: f.text()}
		}
	}
	return reply{http.StatusServiceUnavailable, "UNAVAILABLE", f.text(), f.retry(retryUnavailable)}
}

// errorDocument is the body of every error (OCI distribution specification, "Error Codes").
type errorDocument struct {
	Errors [1]errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// writeError answers x with err. Nothing of the answer has been sent yet.
func (h *Handler) writeError(x *exchange, err error) {
	r := h.replyTo(x, err)
	header := x.w.Header()
	for _, name := range [...]string{"Docker-Content-Digest", "Etag", "Accept-Ranges", "Warning", "Link"} {
		delete(header, name)
	}
	if r.status != http.StatusRequestedRangeNotSatisfiable {
		delete(header, "Content-Range")
	}
	h.setBudget(x, header)
	switch r.status {
	case http.StatusUnauthorized:
		var refused *Refusal
		if errors.As(err, &refused) {
			header.Set("Www-Authenticate", refused.Challenge)
		}
	case http.StatusMethodNotAllowed:
		header.Set("Allow", "GET, HEAD")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(r.retryAfter.Seconds()))))
	}
	body, _ := json.Marshal(errorDocument{[1]errorEntry{{r.code, r.message}}}) // strings always encode
	header["Content-Type"] = h.static.json
	header["Cache-Control"] = h.static.noStore
	setLength(header, int64(len(body)))
	x.w.WriteHeader(r.status)
	if !x.head() {
		_, _ = x.w.Write(body) // the client is gone if it fails, and the log line says so
	}
}
