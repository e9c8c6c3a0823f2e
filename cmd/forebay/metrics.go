package main

import (
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"forebay/config"
	"forebay/internal/logkey"
	"forebay/internal/metrics"
)

// readiness says whether clients should be sent here.
type readiness struct {
	stopping atomic.Bool
	readable func() error // returns why the store cannot be read, or nil
	log      *zap.Logger
	told     rate.Sometimes // bounds what is logged
}

func (m *mirror) newReadiness(log *zap.Logger) *readiness {
	return &readiness{readable: m.cache.Store().Readable, log: log, told: rate.Sometimes{Interval: time.Minute}}
}

// ready returns why not. An upstream that is down is no reason: what is kept is served.
func (r *readiness) ready() error {
	if r.stopping.Load() {
		return errors.New("stopping")
	}
	if err := r.readable(); err != nil {
		// Everybody may ask: what names the folder is for the log.
		r.told.Do(func() { r.log.Error("store cannot be read", logkey.Err(err)) })
		return errors.New("the store cannot be read")
	}
	return nil
}

// newMetrics returns the metrics of a mirror that is still to be built.
func newMetrics(c *config.Config, b build) *metrics.Metrics {
	return metrics.New(metrics.Options{Version: b.version, Revision: b.revision, Compiler: b.compiler, Upstreams: c.UpstreamNames()})
}

// watch has the metrics read what m counts.
func (m *mirror) watch(r *readiness) {
	s := metrics.Sources{Keeper: m.keeper, Registries: m.registries, Reserves: m.reserves, Ready: r.ready, Troubles: m.trouble.List, InUse: m.trouble.InUse, Notify: m.notify.Figures, Rules: m.rules}
	if m.fleet != nil {
		s.Fleet = m.fleet.Figures
	}
	if m.bucket != nil {
		s.S3 = m.bucket.Calls
	}
	m.metrics.Watch(s)
}

func (m *mirror) reserves() map[string]float64 {
	all := map[string]float64{}
	for _, u := range m.front.Load().settings.Upstreams {
		all[u.Name] = u.Reserve
	}
	return all
}

// received tells how many bytes of content came from each upstream.
func (m *mirror) received() map[string]int64 {
	all := map[string]int64{}
	for _, r := range m.registries() {
		all[r.Name()] = r.Figures().Bytes
	}
	return all
}
