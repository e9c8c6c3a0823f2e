package metrics_test

import (
	"testing"
	"time"

	"forebay/cache"
	"forebay/internal/metrics"
	"forebay/proxy"
)

// BenchmarkObserve is what a request costs that is counted.
func BenchmarkObserve(b *testing.B) {
	m := metrics.New(metrics.Options{Upstreams: []string{"docker.io"}})
	q := &proxy.Request{Upstream: "docker.io", Repository: "library/nginx", Kind: proxy.KindManifest, Method: "GET", Result: cache.Hit,
		Status: 200, Bytes: 2000, FirstByte: 300 * time.Microsecond, Took: 400 * time.Microsecond}
	b.ReportAllocs()
	for b.Loop() {
		q.FirstByte += time.Microsecond
		m.Observe(q)
	}
}

func TestObservingARequestAllocatesNothing(t *testing.T) {
	m := metrics.New(metrics.Options{Upstreams: []string{"docker.io"}})
	q := &proxy.Request{Upstream: "docker.io", Kind: proxy.KindManifest, Method: "GET", Result: cache.Hit,
		Status: 200, Bytes: 2000, FirstByte: 300 * time.Microsecond, Took: 400 * time.Microsecond}
	if n := testing.AllocsPerRun(1000, func() { m.Observe(q) }); n != 0 {
		t.Errorf("Observe allocates %v times, want 0", n)
	}
}
