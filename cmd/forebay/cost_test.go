package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"forebay/config"
	"forebay/internal/metrics"
	"forebay/internal/observe"
	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// BenchmarkCostOfTelling compares a cached manifest over a kept connection with and without
// metrics and access log, in turns, by the time of the processor that it takes, client and
// server together, so that what else the machine does matters little. The figures are medians
// of rounds; "metrics-%" and "both-%" say how much more a request takes.
func BenchmarkCostOfTelling(b *testing.B) {
	hub := hubtest.New(b, hubtest.Options{})
	m := mirrortest.New(b, mirrortest.Options{Hub: hub, TagTTL: time.Hour})
	hub.PushImage("library/app", "latest", hubtest.ImageSpec{Layers: 12})
	access, flush := observe.NewAccessLog(config.Log{Level: config.LevelInfo, Format: config.LogJSON, Access: true}, io.Discard)
	defer func() {
		if err := flush(); err != nil {
			b.Error(err)
		}
	}()
	figures := metrics.New(metrics.Options{Upstreams: []string{"docker.io"}})
	serve := func(observe func(*proxy.Request), log *zap.Logger) (visit func()) {
		h, err := proxy.New(proxy.Options{Cache: m.Cache(), Upstreams: map[string][]string{"docker.io": nil}, Observe: observe, AccessLog: log})
		if err != nil {
			b.Fatal(err)
		}
		s := httptest.NewServer(h)
		b.Cleanup(s.Close)
		client := &http.Client{Transport: &http.Transport{}}
		b.Cleanup(client.CloseIdleConnections)
		return func() {
			res, err := client.Get(s.URL + "/v2/library/app/manifests/latest")
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
				b.Fatalf("status %d, %v", res.StatusCode, err)
			}
			res.Body.Close()
		}
	}
	visits := []func(){serve(nil, nil), serve(figures.Observe, nil), serve(figures.Observe, access)}
	const round = 50
	took := make([][]float64, len(visits))
	for _, visit := range visits {
		visit() // fills, and opens the connection
	}
	n := 0
	for b.Loop() {
		n++
		for i := range visits {
			i = (i + n) % len(visits) // none is always the first
			began := processor(b)
			for range round {
				visits[i]()
			}
			took[i] = append(took[i], float64(processor(b)-began)/round)
		}
	}
	median := func(all []float64) float64 { slices.Sort(all); return all[len(all)/2] }
	off, counted, both := median(took[0]), median(took[1]), median(took[2])
	b.ReportMetric(off, "off-cpu-ns/req")
	b.ReportMetric((counted/off-1)*100, "metrics-%")
	b.ReportMetric((both/off-1)*100, "both-%")
}

// processor returns the time of the processor that the process has taken.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
