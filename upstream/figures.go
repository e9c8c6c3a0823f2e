package upstream

import (
	"net/http"
	"sync/atomic"
	"time"

	"forebay/internal/tally"
)

// RequestKind is what a request to a registry is for.
type RequestKind uint8

// The kinds of requests. A redirect is a further hop of any of the others, to wherever the
// registry points.
const (
	ManifestGet RequestKind = iota // what registries count as a pull
	ManifestHead
	BlobGet
	BlobHead
	List // tags and referrers
	TokenGet
	Redirect
	Ping
	requestKinds
)

func (k RequestKind) String() string {
	return [...]string{"manifest", "manifest_head", "blob", "blob_head", "list", "token", "redirect", "ping"}[k]
}

// RequestOutcome is how a request to a registry ended.
type RequestOutcome uint8

// The outcomes. Failed is a request without an answer: no connection, or none in time.
const (
	OK RequestOutcome = iota
	Redirected
	Unauthorized // which begins a token flow
	Denied
	NotFound
	Limited
	ClientError // other 4xx
	ServerError
	Failed
	requestOutcomes
)

func (o RequestOutcome) String() string {
	return [...]string{"ok", "redirect", "unauthorized", "denied", "not_found", "limited", "client_error", "server_error", "failed"}[o]
}

// outcomeOf reads a status.
func outcomeOf(status int) RequestOutcome {
	switch {
	case status < 300:
		return OK
	case status < 400:
		return Redirected
	case status == http.StatusUnauthorized:
		return Unauthorized
	case status == http.StatusForbidden, status == http.StatusPaymentRequired, status == http.StatusUnavailableForLegalReasons:
		return Denied
	case status == http.StatusNotFound, status == http.StatusGone:
		return NotFound
	case status == http.StatusTooManyRequests:
		return Limited
	case status < 500:
		return ClientError
	default:
		return ServerError
	}
}

// Figures are what a registry was asked since the start.
type Figures struct {
	Requests [requestKinds][requestOutcomes]int64
	// Latencies are the times until the head of an answer, by kind, of requests that got one.
	Latencies [requestKinds]tally.Snapshot
	// Pulls are the GETs of manifests that were answered with one: what registries count.
	Pulls int64
	// Bytes are those of content that arrived: manifests, blobs and lists, and no errors or tokens.
	Bytes     int64
	Failovers int64 // requests that an endpoint answered after another had failed
	Probes    int64 // HEADs that asked whether pulls go through again
	// Limited counts the 429s by what was limited: pulls, requests, rate, blobs, tokens.
	Limited map[string]int64
	// Transfers are the blobs that arrive at this moment, and Questions all other requests
	// that wait for an answer.
	Transfers, Questions int
}

// Figures returns what was counted. It is cheap.
func (r *Registry) Figures() Figures {
	c := r.counts
	f := Figures{
		Pulls: c.pulls.Load(), Bytes: c.bytes.Load(), Failovers: c.failovers.Load(), Probes: c.probes.Load(),
		Limited: c.limited(true), Transfers: r.blobs.Used(), Questions: r.questions.Used(),
	}
	for kind := range c.requests {
		for outcome := range c.requests[kind] {
			f.Requests[kind][outcome] = c.requests[kind][outcome].Load()
		}
		f.Latencies[kind] = c.latencies[kind].Read()
	}
	return f
}

// counts is what happened since the start.
type counts struct {
	requests          [requestKinds][requestOutcomes]atomic.Int64
	latencies         [requestKinds]*tally.Histogram
	pulls, bytes      atomic.Int64
	probes, failovers atomic.Int64
	limits            [gateClosed + 1]atomic.Int64
}

func newCounts() *counts {
	c, bounds := &counts{}, tally.Latencies()
	for k := range c.latencies {
		c.latencies[k] = tally.NewHistogram(bounds)
	}
	return c
}

// request notes one request that began at start. resp is nil when there was no answer.
func (c *counts) request(k RequestKind, resp *http.Response, start time.Time) {
	if resp == nil {
		c.requests[k][Failed].Add(1)
		return
	}
	c.requests[k][outcomeOf(resp.StatusCode)].Add(1)
	c.latencies[k].Since(start)
}

// limited returns the 429s since the start by what was limited, with all that may be or
// only what was.
func (c *counts) limited(zeros bool) map[string]int64 {
	all := map[string]int64{}
	for _, k := range []limitKind{pullLimit, allLimit, slowLimit, storeLimit, tokenLimit, repoLimit} {
		if n := c.limits[k].Load(); n > 0 || zeros {
			all[k.String()] = n
		}
	}
	return all
}

// kind returns what the request is for, as long as it is at the registry itself.
func (a *ask) kind() RequestKind {
	head := a.method == http.MethodHead
	switch {
	case a.manifest && head:
		return ManifestHead
	case a.manifest:
		return ManifestGet
	case !a.forBlob():
		return List
	case head:
		return BlobHead
	default:
		return BlobGet
	}
}
