package proxy

import (
	"errors"
	"io"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.opentelemetry.io/otel/trace"

	"forebay/cache"
	"forebay/internal/wire"
)

// Bounds on the body of a request, which means nothing to us. A body within them is read and
// thrown away, so that the connection can be used again; else it is closed after the answer.
const (
	discardMost = 256 << 10
	discardTime = 5 * time.Second
)

// exchange is one request and what is known of its answer.
type exchange struct {
	h          *Handler
	r          *http.Request
	w          responseWriter
	route      wire.Route
	guest      Guest  // who the client is; zero without a gate
	rule       string // that let it have what it asks for, or did not
	client     wire.Client
	mirrored   bool         // the client asks the registry itself when we fail
	result     cache.Result // how it was answered
	leftEarly  bool         // the client was gone before its answer began
	fromMirror bool         // the client is another Forebay
	browser    bool         // the client is a web browser, and refused
	began      time.Time
	deadline   deadline   // for whatever must be had before the headers go out
	observed   Request    // what the observer is told
	span       trace.Span // nil without tracing
}

func newExchange(h *Handler, rw http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{h: h, r: r, client: wire.ParseClient(r.UserAgent()), began: time.Now()}
	x.w.wrap(rw, h.observe != nil)
	x.deadline.parent, x.deadline.at, x.deadline.client = r.Context(), x.began.Add(headersWithin), r.RemoteAddr
	x.w.Header()["Docker-Distribution-Api-Version"] = h.static.apiVersion
	return x
}

// repo returns the repository that the request is about.
func (x *exchange) repo() cache.Repo {
	return cache.Repo{Upstream: x.route.Upstream, Name: x.route.Repository}
}

// head reports whether no body is wanted.
func (x *exchange) head() bool { return x.r.Method == http.MethodHead }

// hasFallback reports whether the client treats us as a mirror and asks the registry
// itself when we fail: by the shape of its request, else by what it is.
func (x *exchange) hasFallback() bool {
	if x.client == wire.Forebay {
		return false // who asks us further down decides that
	}
	if x.route.Namespace != "" || x.route.Prefix != wire.PathPrefix {
		return true
	}
	switch x.client {
	case wire.ContainersImage, wire.BuildKit, wire.Kaniko:
		return true
	default:
		return false
	}
}

// stays reports whether the client takes every blob from us once it has a manifest from us,
// or fails. It must not get a manifest whose blobs it may not get.
func (x *exchange) stays() bool { return x.mirrored && x.client.Image() }

// clientLeft reports whether nobody waits for the answer any more.
func (x *exchange) clientLeft() bool { return x.r.Context().Err() != nil }

// unlessMatch returns a refusal when the client wants to go on only with other content than
// that of the digest (RFC 9110, 13.1.1).
func (x *exchange) unlessMatch(d v1.Hash) error {
	if values := x.r.Header["If-Match"]; len(values) > 0 && !wire.NamesETag(values, d.String()) {
		return errChanged
	}
	return nil
}

// notModified answers a client that has the content already.
func (x *exchange) notModified() error {
	x.w.Header().Del("Content-Type")
	x.w.WriteHeader(http.StatusNotModified)
	return nil
}

// query returns a parameter of the request.
func (x *exchange) query(key string) (string, bool) {
	return wire.QueryValue(x.r.URL.RawQuery, key)
}

// discardBody reads the request's body and throws it away, within limits. When it stops at
// a limit, the connection is closed after the answer. The read deadline then stays set:
// net/http reads on before it closes, as long as the deadline lets it.
func (x *exchange) discardBody() {
	control := http.NewResponseController(x.w.ResponseWriter)
	if control.SetReadDeadline(time.Now().Add(discardTime)) != nil {
		return
	}
	if x.r.Header.Get("Expect") != "" {
		x.w.Header().Set("Connection", "close")
		return // reading would invite the body
	}
	n, err := io.CopyN(io.Discard, x.r.Body, discardMost)
	if !errors.Is(err, io.EOF) || n == discardMost {
		x.w.Header().Set("Connection", "close")
		return
	}
	// With an error the connection is of no use after the answer anyway.
	_ = control.SetReadDeadline(time.Time{})
}
