// Package metrics turns what the mirror counts into metrics for Prometheus.
//
// Requests are counted by [Metrics.Observe], which takes no lock and allocates nothing once a
// kind of request has been seen. All else is counted elsewhere and read when somebody
// scrapes: see [Metrics.Watch].
//
// No label has values that clients or registries choose: the number of series is bounded.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"forebay/cache/event"
	"forebay/cache/tier"
	"forebay/cache/upkeep"
	"forebay/internal/fleet"
	"forebay/internal/notify"
	"forebay/internal/rules"
	"forebay/internal/trouble"
	"forebay/upstream"
)

// Options configures [New].
type Options struct {
	Version, Revision, Compiler string   // of the build
	Upstreams                   []string // names of the configured registries
}

// Metrics are the metrics of one mirror.
type Metrics struct {
	registry *prometheus.Registry
	families families
	requests *requests
	events   map[event.Kind]prometheus.Counter
}

// New returns metrics of nothing but the process itself and of requests.
func New(o Options) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), families: newFamilies(), events: map[event.Kind]prometheus.Counter{}}
	m.requests = newRequests(&m.families, o.Upstreams)
	events := prometheus.NewCounterVec(prometheus.CounterOpts(m.families.events.opts()), m.families.events.Labels)
	for _, kind := range event.Kinds() {
		m.events[kind] = events.WithLabelValues(string(kind))
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts(m.families.build.opts()), m.families.build.Labels)
	build.WithLabelValues(o.Version, o.Revision, o.Compiler).Set(1)
	m.registry.MustRegister(build, events, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(m.requests.all()...)
	return m
}

// Sources are where figures come from. Cache and Registries are required.
type Sources struct {
	Keeper     *upkeep.Keeper
	Registries func() []*upstream.Registry
	Reserves   func() map[string]float64 // share of its pull limit that each upstream keeps back
	// Ready returns why no traffic should be sent here, or nil. nil means always ready.
	Ready func() error
	// Troubles returns what is wrong. nil means that nothing is.
	Troubles func() []trouble.Trouble
	// InUse returns the images in use. nil means that nobody looked.
	InUse func() trouble.InUse
	// Fleet returns what other mirrors told, and were told. nil means that there are none.
	Fleet func() fleet.Figures
	// Notify returns how messages to targets ended. nil means that there are none.
	Notify func() []notify.Figures
	// Rules are the policy. nil means that there is none.
	Rules *rules.Rules
	// S3 tells of the calls to the bucket since the start, those of one operation side by
	// side; nil where blobs are not kept in one.
	S3 func() []tier.Calls
}

// Watch reads all that s counts from now on. It is called once.
func (m *Metrics) Watch(s Sources) {
	m.requests.received.Store(&s.Registries)
	m.registry.MustRegister(&collector{f: &m.families, s: s})
}

// Event counts something that happened.
func (m *Metrics) Event(k event.Kind) {
	if c := m.events[k]; c != nil {
		c.Inc()
	}
}

// Handler serves the metrics as text for Prometheus, and as OpenMetrics or protobuf to
// whoever asks for them.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		Registry:          m.registry, // counts what could not be had
		// A store that cannot be measured must not hide the other metrics.
		ErrorHandling: promhttp.ContinueOnError,
		// Two scrapers and a person; each costs a look at the store's folders.
		MaxRequestsInFlight: 8,
		Timeout:             20 * time.Second,
	})
}

// Family is one metric with all its series.
type Family struct {
	Name   string
	Help   string
	Type   string // counter, gauge or histogram
	Labels []string

	desc *prometheus.Desc
}

func (f *Family) opts() prometheus.Opts { return prometheus.Opts{Name: f.Name, Help: f.Help} }
