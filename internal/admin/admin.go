// Package admin answers operators: whether the mirror lives, whether it is ready, its
// metrics, and the API by which it is looked into and worked on.
//
// Nothing here but webhooks and the API asks who is asking. The listener must not be reachable from where
// clients are not trusted.
package admin

import (
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options configures the handler of the admin listener. All but Webhooks and API are required.
type Options struct {
	// Ready returns why no traffic should be sent here, or nil. It must not block.
	Ready func() error
	// Ailing returns what is wrong and keeps no client from being served, or nil; /readyz
	// says so. It may be nil and must not block.
	Ailing  func() error
	Metrics prometheus.Gatherer
	Version string
	// Webhooks is asked what is below /webhooks/; nil means that nothing is there. It alone
	// of all asks for a secret, since registries post to it.
	Webhooks http.Handler
	// API answers what is below /api/; nil means that nothing is there.
	API *API
}

// New returns the handler of the admin listener.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := o.Ready(); err != nil {
			text(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		if o.Ailing != nil {
			if err := o.Ailing(); err != nil {
				text(w, http.StatusOK, "ready, but "+err.Error())
				return
			}
		}
		text(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{}))
	if o.Webhooks != nil {
		mux.Handle("/webhooks/", o.Webhooks)
	}
	if o.API != nil {
		mux.Handle("/api/", o.API)
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		text(w, http.StatusOK, fmt.Sprintf("forebay %s\n\n/healthz  it lives\n/readyz   it takes traffic\n/metrics  figures for Prometheus\n/api/v1/openapi.json  the admin API", o.Version))
	})
	return mux
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, s+"\n") // the client may be gone
}

// NewMetrics returns a registry with the metrics of the process itself: the Go runtime,
// the operating system's view of it, and which build it is.
func NewMetrics(version, revision, goVersion string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "forebay_build_info",
		Help:        "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "go_version": goVersion},
	})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
