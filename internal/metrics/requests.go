package metrics

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"forebay/cache"
	"forebay/proxy"
	"forebay/upstream"
)

// The kinds and results by their places in arrays, so that a request costs one look into a
// map, for its upstream.
const (
	kinds   = 8
	results = 7
)

// kindAt returns where a kind is; what is not known counts as the last, other.
func kindAt(k proxy.Kind) int {
	for i, one := range [kinds - 1]proxy.Kind{proxy.KindManifest, proxy.KindBlob, proxy.KindTags, proxy.KindReferrers, proxy.KindCatalog, proxy.KindPing, proxy.KindBrowser} {
		if one == k {
			return i
		}
	}
	return kinds - 1
}

// resultAt returns where a result is, and its name as a label.
func resultAt(r cache.Result) (int, string) {
	switch r {
	case cache.Hit:
		return 0, string(r)
	case cache.Joined:
		return 1, string(r)
	case cache.Miss:
		return 2, string(r)
	case cache.Stale:
		return 3, string(r)
	case cache.Passed:
		return 4, string(r)
	case proxy.Failed:
		return 5, string(r)
	default:
		return 6, "none"
	}
}

// requests counts the requests of clients.
type requests struct {
	count      *prometheus.CounterVec
	firstByte  *prometheus.HistogramVec
	took       *prometheus.HistogramVec
	sent       *prometheus.CounterVec
	pulls      *prometheus.CounterVec
	savedPulls *prometheus.CounterVec
	savedBytes *prometheus.Desc

	upstreams map[string]*ofUpstream // never changed; "" for requests that name none
	received  atomic.Pointer[func() []*upstream.Registry]
}

// ofUpstream are the series of one upstream. Those of a kind of request are made when the
// first such request comes.
type ofUpstream struct {
	name       string
	pulls      prometheus.Counter
	savedPulls prometheus.Counter
	kinds      [kinds]atomic.Pointer[ofKind]
	content    atomic.Int64 // bytes to clients, errors left out
	savedMost  atomic.Int64 // what was saved at most
}

type ofKind struct {
	took    prometheus.Observer
	sent    prometheus.Counter
	results [results]atomic.Pointer[ofResult]
}

type ofResult struct {
	count     prometheus.Counter
	firstByte prometheus.Observer
}

// noUpstream is the label of requests that name no configured upstream.
const noUpstream = "none"

func newRequests(f *families, upstreams []string) *requests {
	// Buckets for those who do not keep native histograms. A hit takes half a millisecond,
	// a miss what the upstream takes, a large blob minutes.
	buckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20}
	histogram := func(of *Family, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: of.Name, Help: of.Help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, of.Labels)
	}
	counter := func(of *Family) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(of.opts()), of.Labels)
	}
	r := &requests{
		count: counter(f.requests), sent: counter(f.sent), pulls: counter(f.pulls), savedPulls: counter(f.savedPulls),
		firstByte: histogram(f.firstByte, buckets), took: histogram(f.took, append(buckets, 60, 300)),
		savedBytes: f.savedBytes.desc, upstreams: map[string]*ofUpstream{},
	}
	r.upstreams[""] = &ofUpstream{name: noUpstream}
	for _, name := range upstreams {
		r.upstreams[name] = &ofUpstream{name: name, pulls: r.pulls.WithLabelValues(name), savedPulls: r.savedPulls.WithLabelValues(name)}
	}
	return r
}

func (r *requests) all() []prometheus.Collector {
	return []prometheus.Collector{r.count, r.firstByte, r.took, r.sent, r.pulls, r.savedPulls, r}
}

// Observe takes in one request of a client; see [proxy.Options].
func (m *Metrics) Observe(q *proxy.Request) { m.requests.observe(q) }

func (r *requests) observe(q *proxy.Request) {
	u := r.upstreams[q.Upstream]
	if u == nil {
		u = r.upstreams[""]
	}
	k := r.kind(u, q.Kind)
	i, label := resultAt(q.Result)
	one := k.results[i].Load()
	if one == nil {
		one = &ofResult{count: r.count.WithLabelValues(u.name, string(q.Kind), label), firstByte: r.firstByte.WithLabelValues(u.name, string(q.Kind), label)}
		k.results[i].Store(one)
	}
	one.count.Inc()
	if q.FirstByte > 0 {
		observe(one.firstByte, q.FirstByte, q.TraceID)
	}
	observe(k.took, q.Took, q.TraceID)
	if q.Bytes > 0 {
		k.sent.Add(float64(q.Bytes))
	}
	if q.Result == proxy.Failed && q.Status >= http.StatusBadRequest {
		return
	}
	u.content.Add(q.Bytes)
	if q.Kind == proxy.KindManifest && q.Method == http.MethodGet && u.pulls != nil && q.Result != proxy.NoResult && q.Result != proxy.Failed {
		u.pulls.Inc()
		if q.Result == cache.Hit || q.Result == cache.Joined || q.Result == cache.Stale {
			u.savedPulls.Inc()
		}
	}
}

// observe notes a duration, with its trace as an exemplar if it has one.
func observe(o prometheus.Observer, d time.Duration, trace string) {
	if e, ok := o.(prometheus.ExemplarObserver); ok && trace != "" {
		e.ObserveWithExemplar(d.Seconds(), prometheus.Labels{"trace_id": trace})
		return
	}
	o.Observe(d.Seconds())
}

// kind returns the series of a kind of request. Two first requests at once make the same.
func (r *requests) kind(u *ofUpstream, k proxy.Kind) *ofKind {
	at := &u.kinds[kindAt(k)]
	if known := at.Load(); known != nil {
		return known
	}
	made := &ofKind{took: r.took.WithLabelValues(u.name, string(k)), sent: r.sent.WithLabelValues(u.name, string(k))}
	if at.CompareAndSwap(nil, made) {
		return made
	}
	return at.Load()
}

// Describe and Collect are for the bytes saved, which only a look at both sides tells.
func (r *requests) Describe(to chan<- *prometheus.Desc) { to <- r.savedBytes }

// Collect implements [prometheus.Collector].
func (r *requests) Collect(to chan<- prometheus.Metric) {
	registries := r.received.Load()
	if registries == nil {
		return
	}
	for _, one := range (*registries)() {
		if u := r.upstreams[one.Name()]; u != nil {
			// Bytes come from an upstream before they go to a client, and some never go to one: the
			// counter stands still until more was sent than fetched again.
			saved := u.content.Load() - one.Figures().Bytes
			to <- prometheus.MustNewConstMetric(r.savedBytes, prometheus.CounterValue, float64(raise(&u.savedMost, saved)), u.name)
		}
	}
}

// raise makes v at least n and returns it.
func raise(v *atomic.Int64, n int64) int64 {
	for {
		old := v.Load()
		if n <= old {
			return old
		}
		if v.CompareAndSwap(old, n) {
			return n
		}
	}
}
