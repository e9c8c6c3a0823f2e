package proxy

import (
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/internal/wire"
)

// Results that a request may have beside those of the cache.
const (
	Failed cache.Result = "error" // it was refused, or its body ended short
	// NoResult: it was not about content (a ping), or its client left before there was an
	// answer.
	NoResult cache.Result = ""
)

// Request is what became of one request of a client, for whoever observes the handler.
// Its texts come from the client: whoever shows them must escape them.
type Request struct {
	Upstream   string // canonical name; empty when the request named none that is configured
	Repository string // canonical; what was asked for when Upstream is empty
	Reference  string // tag or digest as asked; empty for lists and pings
	Digest     v1.Hash
	Kind       Kind
	Method     string // as the client wrote it; one of GET and HEAD when Result is not Failed
	Result     cache.Result
	Status     int           // as it was sent; 499 when the client left before its answer began
	Bytes      int64         // of the body, sent
	FirstByte  time.Duration // until the header went out; 0 when none did
	Took       time.Duration // until the end of the body
	Client     string        // address without port
	User       string        // who the client has proved to be; empty without a gate, and for nobody
	Groups     []string      // of User
	Rule       string        // that let it have what it asked for, or did not; empty without a gate
	UserAgent  string        // as the client wrote it, at full length
	Err        error         // why Result is Failed; nil otherwise
	TraceID    string        // of the trace that the request belongs to; empty when it is not sampled
}

// Kind says what a request asks for.
type Kind string

// The kinds.
const (
	KindManifest  Kind = "manifest"
	KindBlob      Kind = "blob"
	KindTags      Kind = "tags"
	KindReferrers Kind = "referrers"
	KindCatalog   Kind = "catalog"
	KindPing      Kind = "ping"
	KindBrowser   Kind = "browser" // a web browser asked, which is refused whatever it is for
	KindOther     Kind = "other"   // no path of the registry API
)

func kindOf(r wire.Resource) Kind {
	switch r {
	case wire.Manifests:
		return KindManifest
	case wire.Blobs:
		return KindBlob
	case wire.Tags:
		return KindTags
	case wire.Referrers:
		return KindReferrers
	case wire.Catalog:
		return KindCatalog
	case wire.Ping:
		return KindPing
	default:
		return KindOther
	}
}

// observation describes x, which has ended.
func (x *exchange) observation(took time.Duration, result cache.Result, err error) *Request {
	o := &x.observed // part of the exchange, so that nothing is allocated for it
	o.Upstream, o.Repository, o.Reference, o.Digest = x.route.Upstream, x.route.Repository, x.route.Reference, x.route.Digest
	o.Kind, o.Method, o.Result, o.Err = x.kind(), x.r.Method, result, err
	o.Status, o.Bytes, o.Took = x.w.status, x.w.bytes, took
	if x.leftEarly {
		o.Status = statusClientLeft
	}
	if !x.w.first.IsZero() {
		o.FirstByte = x.w.first.Sub(x.began)
	}
	o.TraceID = x.traceID()
	o.User, o.Groups, o.Rule = x.guest.Name, x.guest.Groups, x.rule
	o.Client, o.UserAgent = addressOf(x.r.RemoteAddr), x.r.UserAgent()
	return o
}

// addressOf takes the port off an address that net/http made.
func addressOf(remote string) string {
	i := strings.LastIndexByte(remote, ':')
	if i < 0 {
		return remote
	}
	return strings.TrimSuffix(strings.TrimPrefix(remote[:i], "["), "]")
}
