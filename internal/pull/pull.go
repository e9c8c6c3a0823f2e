// Package pull holds the nouns that cache, upstream and proxy share: why an
// upstream did not give what it was asked for, and the body of a blob.
//
// It imports nothing of ours, so that cache and upstream need not know each other.
package pull

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// ErrDigest is the cause of an Invalid: the bytes do not have the digest that they should have.
var ErrDigest = errors.New("digest mismatch")

// Kind says why content could not be had. The proxy alone turns it into an HTTP
// status (proxy/errors.go).
type Kind uint8

const (
	// Unavailable: the upstream could not be reached or could not answer: refused,
	// timed out, DNS, TLS, 5xx. It says nothing about whether the content exists.
	Unavailable Kind = iota
	// NotFound: the upstream says that it does not have it.
	NotFound
	// Denied: the upstream refuses it to our identity (401 or 403 after the whole
	// token flow). On Docker Hub a missing repository looks the same.
	Denied
	// Limited: the upstream answered 429, or was not asked since it would have.
	Limited
	// Invalid: the upstream's answer broke the protocol: wrong digest, wrong size,
	// a manifest over the size limit, a redirect to an address never dialled.
	Invalid
	// Unsupported: the upstream does not offer this request (HEAD, referrers, tags).
	Unsupported
	// Overloaded: a bound of ours was reached; the upstream was not asked.
	Overloaded
	// Timeout: the upstream was too slow to answer. A special Unavailable.
	Timeout
)

func (k Kind) String() string {
	switch k {
	case Unavailable:
		return "unavailable"
	case NotFound:
		return "not found"
	case Denied:
		return "denied"
	case Limited:
		return "limited"
	case Invalid:
		return "invalid"
	case Unsupported:
		return "unsupported"
	case Overloaded:
		return "overloaded"
	case Timeout:
		return "timeout"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Detail is what an [Error] tells beyond its kind, for code that acts on it. Only upstream,
// the bucket and the proxy know HTTP; all others look at kind and detail, never at the
// status.
type Detail uint8

const (
	// NoDetail is that of most errors.
	NoDetail Detail = iota
	// OutOfRange: the content ends before the range that was asked for begins (416).
	OutOfRange
	// Crowded: the server turns a request away because it has too many (503). Fewer at
	// a time may get through.
	Crowded
	// HeadOnly: it is the word of a HEAD, which some registries refuse, or answer with 404, for
	// content that they have. Only a GET tells.
	HeadOnly
	// Refused: the content is what the registry means it to be, and we do not pass it on: a
	// manifest that is too large, or no manifest. Another try brings the same.
	Refused
	// OfLogin: it was said to a client's own login, and is about nobody else.
	OfLogin
	// ByPolicy: a rule of ours refuses it, and the message says which and what to do.
	ByPolicy
	// ClientLimited: it is a bound of ours for one client. The registry limits nobody.
	ClientLimited
)

// Error is a request to an upstream that gave no content. Its text never holds a
// credential, a token or a signed URL: whoever makes one keeps them out.
type Error struct {
	Kind     Kind
	Upstream string // public name, "docker.io"
	Op       string // what was tried: "head manifest library/nginx:latest"
	Status   int    // the upstream's HTTP status; 0 without an answer
	Detail   Detail
	Code     string // error code of its error document, "MANIFEST_UNKNOWN"; may be empty
	Message  string // message of its error document, cut to 256 bytes; may be empty
	// RetryAfter is how long to wait; 0 when the upstream did not say.
	RetryAfter time.Duration
	Err        error // cause; may be nil
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s", e.Upstream, e.Op, e.Kind)
	if e.Status != 0 {
		fmt.Fprintf(&b, " (status %d)", e.Status)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, ": %s", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %s", e.Err)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first [Error] in err's chain, else Unavailable:
// an error that nobody classified is treated as a failure, never as an absence.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Unavailable
}

// DetailOf returns the detail of the first [Error] in err's chain, else NoDetail.
func DetailOf(err error) Detail {
	var e *Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return NoDetail
}

// Failing reports whether err means that the upstream itself is in trouble, so
// that stale content may be served in its place.
func Failing(err error) bool {
	switch KindOf(err) {
	case Unavailable, Timeout, Limited, Overloaded, Invalid:
		return true
	default:
		return false
	}
}

// Body is one answer to a request for a blob's bytes. Its receiver must close it. When the
// transfer breaks off, Read returns an error other than io.EOF: io.ErrUnexpectedEOF for an
// end before the announced length, an [Error] of kind Timeout for a stall.
type Body struct {
	io.ReadCloser
	// Offset is the position in the blob of the first byte that Read returns. It is
	// what was asked for, or 0 when the upstream ignored the range.
	Offset int64
	// End is the position after the last byte that Read will return, -1 when the
	// upstream did not announce a length.
	End int64
	// Size is the size of the whole blob, -1 when unknown.
	Size int64
	// Ranged says that the upstream honoured a range (206).
	Ranged bool
}
