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

// refusal is a request that we answer with an error of its own.
type refusal struct {
	status  int
	code    string // of the OCI error document
	message string
}

func (e *refusal) Error() string { return e.message }

// The refusals that always read the same.
var (
	errMethod = &refusal{http.StatusMethodNotAllowed, "UNSUPPORTED", "this is a read-only mirror: only GET and HEAD are supported"}
	errRange  = &refusal{http.StatusRequestedRangeNotSatisfiable, "SIZE_INVALID", "the range lies outside of the blob"}
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
	var refused *refusal
	if errors.As(err, &refused) {
		return reply{status: refused.status, code: refused.code, message: refused.message}
	}
	var fault *wire.RouteError
	if errors.As(err, &fault) {
		return routeReply(fault)
	}
	if errors.Is(err, pull.ErrOffline) && x.hops {
		// Another mirror must not take for gone what we cannot look for.
		return reply{http.StatusServiceUnavailable, "UNAVAILABLE", pull.ErrOffline.Error(), retryUnavailable}
	}
	if errors.Is(err, pull.ErrOffline) {
		r := unknownReply(x.route.Resource)
		r.message += ": this mirror is offline and does not have it"
		return r
	}
	t := troubleOf(err)
	switch {
	case !x.mirrored:
		return directReply(x, t)
	case x.route.Resource == wire.Blobs:
		return mirroredBlobReply(t)
	default:
		return mirroredReply(x, t)
	}
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
	case wire.BadTag:
		return reply{status: http.StatusNotFound, code: "MANIFEST_UNKNOWN", message: fault.Text}
	default:
		return reply{status: http.StatusNotFound, code: "UNSUPPORTED", message: fault.Text}
	}
}

// trouble is what matters of an error from the cache.
type trouble struct {
	kind       pull.Kind
	upstream   string
	status     int // the upstream's
	message    string
	retryAfter time.Duration
}

func troubleOf(err error) trouble {
	t := trouble{kind: pull.KindOf(err)}
	var e *pull.Error
	if errors.As(err, &e) {
		t.upstream, t.status, t.message, t.retryAfter = e.Upstream, e.Status, e.Message, e.RetryAfter
	}
	if t.kind == pull.Unavailable && errors.Is(err, context.DeadlineExceeded) {
		t.kind = pull.Timeout
	}
	return t
}

// text says what went wrong in a line that users see, kubelet's for one. It is made of
// what a [pull.Error] promises to be free of secrets, and never of its cause, which may
// name addresses.
func (t trouble) text() string {
	who := t.upstream
	if who == "" {
		who = "the registry"
	}
	var text string
	switch t.kind {
	case pull.NotFound:
		text = "not found on " + who
	case pull.Denied:
		text = who + " denies access: private, or it does not exist"
	case pull.Limited:
		text = who + " limits our pulls"
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
	if t.status != 0 {
		text += fmt.Sprintf(" (status %d)", t.status)
	}
	if t.message != "" {
		text += ": " + t.message
	}
	return text
}

// retry returns how long the client should wait.
func (t trouble) retry(standard time.Duration) time.Duration {
	if t.retryAfter > 0 {
		return min(t.retryAfter, retryMost)
	}
	return standard
}

// unknownCode is the error code for something of this kind that is not there.
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

// unknownReply is the one answer for "not there" and "not yours", so that the two cannot
// be told apart.
func unknownReply(r wire.Resource) reply {
	return reply{status: http.StatusNotFound, code: unknownCode(r), message: r.String() + " unknown"}
}

// mirroredReply is for everything but blobs, to clients that go on to the registry.
func mirroredReply(x *exchange, t trouble) reply {
	switch t.kind {
	case pull.NotFound, pull.Denied:
		return unknownReply(x.route.Resource)
	case pull.Unsupported:
		return reply{status: http.StatusNotFound, code: "UNSUPPORTED", message: t.text()}
	case pull.Limited:
		if x.client.Image() {
			// A 429 costs containers/image 20 to 30 s before it goes on; a 503 nothing.
			return reply{http.StatusServiceUnavailable, "TOOMANYREQUESTS", t.text(), t.retry(retryLimited)}
		}
		return reply{http.StatusTooManyRequests, "TOOMANYREQUESTS", t.text(), t.retry(retryLimited)}
	default:
		return reply{http.StatusServiceUnavailable, "UNAVAILABLE", t.text(), t.retry(retryUnavailable)}
	}
}

// mirroredBlobReply is for blobs, to clients that go on to the registry: always 404, since
// dockerd tries a blob again for 51 to 77 s after a 5xx before it goes there, and podman
// tries the pull again only after a 404 with this document.
func mirroredBlobReply(t trouble) reply {
	r := unknownReply(wire.Blobs)
	if t.kind != pull.NotFound && t.kind != pull.Denied {
		r.message = t.text()
	}
	return r
}

// directReply is for clients that have only us: they are told the truth.
func directReply(x *exchange, t trouble) reply {
	switch t.kind {
	case pull.NotFound:
		return unknownReply(x.route.Resource)
	case pull.Denied:
		return reply{status: http.StatusForbidden, code: "DENIED", message: t.text()}
	case pull.Limited:
		return reply{http.StatusTooManyRequests, "TOOMANYREQUESTS", t.text(), t.retry(retryLimited)}
	case pull.Unsupported:
		return reply{status: http.StatusNotFound, code: "UNSUPPORTED", message: t.text()}
	case pull.Invalid:
		return reply{status: http.StatusBadGateway, code: "UNAVAILABLE", message: t.text()}
	case pull.Timeout:
		return reply{status: http.StatusGatewayTimeout, code: "UNAVAILABLE", message: t.text()}
	case pull.Unavailable:
		switch t.status {
		case 0, http.StatusServiceUnavailable: // below
		case http.StatusLoopDetected:
			return reply{status: http.StatusLoopDetected, code: "UNAVAILABLE", message: t.text()}
		case http.StatusGatewayTimeout:
			return reply{status: http.StatusGatewayTimeout, code: "UNAVAILABLE", message: t.text()}
		default:
			return reply{status: http.StatusBadGateway, code: "UNAVAILABLE", message: t.text()}
		}
	}
	return reply{http.StatusServiceUnavailable, "UNAVAILABLE", t.text(), t.retry(retryUnavailable)}
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
