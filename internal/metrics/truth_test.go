package metrics_test

import (
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"forebay/cache/event"
	"forebay/internal/metrics"
	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// world is a mirror with its metrics, the hub before it, and a client that keeps books.
type world struct {
	t       *testing.T
	hub     *hubtest.Hub
	mirror  *mirrortest.Mirror
	metrics *metrics.Metrics
	client  *http.Client

	mu       sync.Mutex
	requests int              // sent by the client
	bytes    map[string]int64 // of bodies that it got, by kind
	content  int64            // of those, the ones of an upstream and without errors
}

func newWorld(t *testing.T, ho hubtest.Options, mo mirrortest.Options) *world {
	t.Helper()
	w := &world{t: t, hub: hubtest.New(t, ho), bytes: map[string]int64{}, client: &http.Client{Transport: &http.Transport{}}}
	w.metrics = metrics.New(metrics.Options{Version: "v1", Revision: "abc", Compiler: "go", Upstreams: []string{"docker.io"}})
	mo.Hub, mo.Observe = w.hub, w.metrics.Observe
	mo.Cache.Store.OnEvent = func(e event.Event) { w.metrics.Event(e.Kind) }
	mo.Cache.RevalidateTimeout = time.Minute // nothing is stale but what a test makes stale
	w.mirror = mirrortest.New(t, mo)
	w.metrics.Watch(metrics.Sources{
		Keeper: w.mirror.Keeper(), Registries: w.mirror.Registries, Reserves: func() map[string]float64 { return map[string]float64{"docker.io": 0.1} },
	})
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

// ask sends one request, reads its answer to the end and books it.
func (w *world) ask(kind proxy.Kind, method, path, span string) (status int, body []byte) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, w.mirror.URL+path, nil)
	if err != nil {
		w.t.Error(err)
		return 0, nil
	}
	if span != "" {
		r.Header.Set("Range", span)
	}
	res, err := w.client.Do(r)
	if err != nil {
		w.t.Error(err)
		return 0, nil
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	if err != nil {
		w.t.Errorf("%s %s: %v", method, path, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests++
	w.bytes[string(kind)] += int64(len(body))
	if res.StatusCode < 300 && kind != proxy.KindPing {
		w.content += int64(len(body))
	}
	return res.StatusCode, body
}

// want asks and fails the test when the status is another.
func (w *world) want(status int, kind proxy.Kind, method, path, span string) []byte {
	w.t.Helper()
	got, body := w.ask(kind, method, path, span)
	if got != status {
		w.t.Errorf("%s %s = %d %.200s, want %d", method, path, got, body, status)
	}
	return body
}

// gather returns the metrics once all requests are counted: a client has its last byte a
// moment before its request is over.
func (w *world) gather() map[string]*dto.MetricFamily {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		families, err := w.metrics.Gatherer().Gather()
		if err != nil {
			w.t.Fatal(err)
		}
		all := names(families)
		w.mu.Lock()
		sent := w.requests
		w.mu.Unlock()
		if got := int(total(all["forebay_requests_total"])); got == sent || time.Now().After(deadline) {
			if got != sent {
				w.t.Errorf("forebay_requests_total is %d, the client sent %d", got, sent)
			}
			return all
		}
		select {
		case <-time.After(time.Millisecond):
		case <-w.t.Context().Done():
		}
	}
}

// value is what a series of any type has: of a histogram, how many it counted.
func value(m *dto.Metric) float64 {
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	}
	return float64(m.GetHistogram().GetSampleCount())
}

func total(f *dto.MetricFamily) (sum float64) {
	for _, m := range f.GetMetric() {
		sum += value(m)
	}
	return sum
}

// by returns the series of a family that are not zero, by the values of some labels.
func by(f *dto.MetricFamily, labels ...string) map[string]int64 {
	all := map[string]int64{}
	for _, m := range f.GetMetric() {
		var key []string
		for _, name := range labels {
			for _, l := range m.GetLabel() {
				if l.GetName() == name {
					key = append(key, l.GetValue())
				}
			}
		}
		if v := int64(value(m)); v != 0 {
			all[strings.Join(key, " ")] += v
		}
	}
	return all
}

// hubSaw returns the hub's own count of requests, in our words.
func hubSaw(c hubtest.Counters) map[string]int64 {
	all := map[string]int64{}
	for key, n := range c.Requests {
		kind := "redirect" // at a CDN
		head := key.Method == http.MethodHead
		switch {
		case key.Role == hubtest.RoleAuth:
			kind = "token"
		case key.Role != hubtest.RoleRegistry:
		case strings.HasPrefix(string(key.Route), "manifest") && head:
			kind = "manifest_head"
		case strings.HasPrefix(string(key.Route), "manifest"):
			kind = "manifest"
		case key.Route == hubtest.RouteBlob && head:
			kind = "blob_head"
		case key.Route == hubtest.RouteBlob:
			kind = "blob"
		case key.Route == hubtest.RoutePing:
			kind = "ping"
		default:
			kind = "list"
		}
		outcome := map[int]string{200: "ok", 206: "ok", 307: "redirect", 401: "unauthorized", 403: "denied", 404: "not_found", 429: "limited", 500: "server_error", 503: "server_error"}[key.Status]
		all[kind+" "+outcome] += int64(n)
	}
	return all
}

// sentBytes is what the hub sent of manifests and blobs.
func sentBytes(h *hubtest.Hub, c hubtest.Counters) (sum int64) {
	for name, n := range c.ManifestGet {
		_, digest, _ := strings.Cut(name, "@")
		sum += int64(n) * int64(len(h.Bytes(digest)))
	}
	for _, n := range c.BlobBytes {
		sum += n
	}
	return sum
}

func noise(seed byte, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{seed})
	_, _ = r.Read(b) // never fails
	return b
}

// Every figure is compared with what the hub counted and with what the client got.
func TestFiguresAreWhatHappened(t *testing.T) {
	w := newWorld(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 100}}, mirrortest.Options{TagTTL: -1})
	img := w.hub.PushImage("library/app", "1.2.3", hubtest.ImageSpec{Layers: 3, LayerSize: 200_000, Seed: 1})
	next := w.hub.PushImage("library/app", "next", hubtest.ImageSpec{Layers: 1, LayerSize: 1000, Seed: 2})
	shared := w.hub.PutBlob("library/app", noise(3, 3<<20))
	base := "/v2/library/app/"
	pull := func() {
		w.want(200, proxy.KindManifest, "GET", base+"manifests/1.2.3", "")
		for _, d := range img.Blobs() {
			w.want(200, proxy.KindBlob, "GET", base+"blobs/"+d.Digest, "")
		}
	}
	blobs := int64(len(img.Blobs()))
	pull() // cold
	pull() // warm: a HEAD confirms the tag
	w.want(200, proxy.KindManifest, "HEAD", base+"manifests/1.2.3", "")
	w.want(200, proxy.KindManifest, "GET", base+"manifests/"+img.Digest, "")
	w.want(200, proxy.KindBlob, "HEAD", base+"blobs/"+img.Blobs()[0].Digest, "")
	layer := img.Blobs()[1].Digest
	w.want(206, proxy.KindBlob, "GET", base+"blobs/"+layer, "bytes=100-299")
	w.want(416, proxy.KindBlob, "GET", base+"blobs/"+layer, "bytes=9999999-")
	w.want(200, proxy.KindPing, "GET", "/v2/", "")
	w.want(404, proxy.KindOther, "GET", "/nothing", "")
	w.want(405, proxy.KindOther, "DELETE", base+"manifests/1.2.3", "")
	w.want(404, proxy.KindManifest, "GET", base+"manifests/missing", "")
	w.want(404, proxy.KindOther, "GET", "/v2/a/b/manifests/x?ns=unknown.example", "")

	// Joined: four more clients while a blob is on its way.
	release := make(chan struct{})
	w.hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Method: http.MethodGet, Ref: shared, Count: 1, Do: hubtest.Block(release)})
	var crowd sync.WaitGroup
	for range 5 {
		crowd.Go(func() { w.want(200, proxy.KindBlob, "GET", base+"blobs/"+shared, "") })
	}
	w.await("five clients at one fill", func(all map[string]*dto.MetricFamily) bool {
		return total(all["forebay_fill_readers"]) == 5 && total(all["forebay_fills_in_progress"]) == 1
	})
	close(release)
	crowd.Wait()

	// A tag that moves: a HEAD, and a GET of what it points to now.
	w.hub.MoveTag("library/app", "1.2.3", next.Digest)
	w.want(200, proxy.KindManifest, "GET", base+"manifests/1.2.3", "")

	all := w.gather()
	w.hub.Settle(t)
	saw := w.hub.Counters()
	check := func(name string, want map[string]int64, labels ...string) {
		t.Helper()
		if diff := cmp.Diff(want, by(all[name], labels...)); diff != "" {
			t.Errorf("%s by %v (-want +got):\n%s", name, labels, diff)
		}
	}
	check("forebay_requests_total", map[string]int64{
		"docker.io manifest miss": 2, "docker.io manifest hit": 3, "docker.io manifest error": 1,
		"docker.io blob miss": blobs + 1, "docker.io blob hit": blobs + 2, "docker.io blob joined": 4, "docker.io blob error": 1,
		"none ping none": 1, "none other error": 3,
	}, "upstream", "kind", "result")
	check("forebay_request_duration_seconds", map[string]int64{
		"docker.io manifest": 6, "docker.io blob": 2*blobs + 8, "none ping": 1, "none other": 3,
	}, "upstream", "kind")
	check("forebay_response_bytes_total", w.bytes, "kind")
	check("forebay_upstream_requests_total", hubSaw(saw), "kind", "outcome")
	check("forebay_upstream_bytes_total", map[string]int64{"docker.io": sentBytes(w.hub, saw)}, "upstream")
	spent := int64(w.hub.ChargedTotal())
	check("forebay_upstream_pulls_total", map[string]int64{"docker.io": spent}, "upstream")
	check("forebay_pulls_total", map[string]int64{"docker.io": 4}, "upstream")
	check("forebay_saved_pulls_total", map[string]int64{"docker.io": 4 - spent}, "upstream")
	check("forebay_saved_bytes_total", map[string]int64{"docker.io": w.content - sentBytes(w.hub, saw)}, "upstream")
	check("forebay_budget_limit_pulls", map[string]int64{"anonymous": 100}, "credential")
	check("forebay_budget_remaining_pulls", map[string]int64{"anonymous": 100 - spent}, "credential")
	check("forebay_budget_window_seconds", map[string]int64{"anonymous": 3600}, "credential")
	check("forebay_fills_total", map[string]int64{"done": blobs + 1}, "outcome")
	check("forebay_tags_moved_total", map[string]int64{"release": 1}, "tag")
	check("forebay_events_total", map[string]int64{"release_moved": 1}, "kind")
	check("forebay_store_blobs", map[string]int64{"": blobs + 3})
	check("forebay_verification_failures_total", map[string]int64{})
	check("forebay_upstream_limited_total", map[string]int64{})
	if spent != 2 {
		t.Errorf("the hub charged %d pulls, want 2: one for each manifest", spent)
	}
	families := slices.Collect(maps.Values(all))
	conforms(t, families)
	lint(t, families)
}

// await gathers until the metrics are as they should be.
func (w *world) await(what string, is func(map[string]*dto.MetricFamily) bool) {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		families, err := w.metrics.Gatherer().Gather()
		if err != nil {
			w.t.Fatal(err)
		}
		if is(names(families)) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no %s in a minute", what)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-w.t.Context().Done():
		}
	}
}

// What an upstream refuses, breaks and spoils is counted as what it is.
func TestTroubleIsCountedAsWhatItWas(t *testing.T) {
	w := newWorld(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 50}}, mirrortest.Options{TagTTL: -1})
	w.hub.PushImage("library/app", "a", hubtest.ImageSpec{Seed: 1})
	w.hub.PushImage("library/app", "b", hubtest.ImageSpec{Seed: 2})
	base := "/v2/library/app/"
	w.want(200, proxy.KindManifest, "GET", base+"manifests/a", "")

	// Bytes that are wrong twice, and a transfer that breaks off.
	wrong := w.hub.PutBlob("library/app", noise(4, 2<<20))
	broken := w.hub.PutBlob("library/app", noise(5, 12<<20))
	w.hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Method: http.MethodGet, Ref: wrong, Do: hubtest.Corrupt(5)})
	w.hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Method: http.MethodGet, Ref: broken, Count: 1, Do: hubtest.Drop(5<<20, hubtest.FIN)})
	res, err := w.client.Get(w.mirror.URL + base + "blobs/" + wrong)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err == nil {
		t.Errorf("a blob with wrong bytes came whole, with status %d", res.StatusCode)
	}
	w.requests++
	w.bytes["blob"] += int64(len(got))
	w.want(200, proxy.KindBlob, "GET", base+"blobs/"+broken, "")

	// The pull limit is reached: a known tag is served stale, an unknown manifest is refused.
	for _, principal := range slices.Collect(maps.Keys(w.hub.Counters().Charged)) {
		w.hub.SpendAll(principal)
	}
	status, _ := w.ask(proxy.KindManifest, "GET", base+"manifests/b", "")
	if status != 429 {
		t.Errorf("GET of a manifest over the limit = %d, want 429", status)
	}
	// The registry is gone: what is known is served stale.
	w.hub.SwitchOff(hubtest.RoleRegistry)
	w.want(200, proxy.KindManifest, "GET", base+"manifests/a", "")

	all := w.gather()
	w.hub.Settle(t)
	check := func(name string, want map[string]int64, labels ...string) {
		t.Helper()
		if diff := cmp.Diff(want, by(all[name], labels...)); diff != "" {
			t.Errorf("%s by %v (-want +got):\n%s", name, labels, diff)
		}
	}
	limited := int64(0)
	for key, n := range w.hub.Counters().Requests {
		if key.Status == 429 {
			limited += int64(n)
		}
	}
	check("forebay_upstream_limited_total", map[string]int64{"pulls": limited}, "limit")
	check("forebay_budget_remaining_pulls", map[string]int64{}, "credential")
	check("forebay_budget_paused", map[string]int64{"anonymous": 1}, "credential")
	check("forebay_verification_failures_total", map[string]int64{"upstream": 1}, "source")
	check("forebay_fills_total", map[string]int64{"done": 1, "wrong": 1}, "outcome")
	check("forebay_fill_resumes_total", map[string]int64{"broken": 1}, "cause")
	check("forebay_upstream_up", map[string]int64{}, "upstream")
	check("forebay_requests_total", map[string]int64{"manifest miss": 1, "manifest error": 1, "manifest stale": 1, "blob miss": 1, "blob error": 1}, "kind", "result")
	if failed := by(all["forebay_upstream_requests_total"], "kind", "outcome")["manifest_head failed"]; failed == 0 {
		t.Error("no failed request counted of a registry that is gone")
	}
	told := by(all["forebay_events_total"], "kind")
	for _, kind := range []event.Kind{event.VerificationFailed, event.FillFailed, event.Limited, event.ServedStale, event.UpstreamFailing} {
		if told[string(kind)] != 1 {
			t.Errorf("%d events of kind %s, want 1", told[string(kind)], kind)
		}
	}
	if n := len(all["forebay_budget_forecast_seconds"].GetMetric()); n != 1 || total(all["forebay_budget_forecast_seconds"]) != 0 {
		t.Errorf("forecast of a spent budget: %v, want 0", all["forebay_budget_forecast_seconds"])
	}
	conforms(t, slices.Collect(maps.Values(all)))
}

func TestOpenMetricsAreServedToWhoAsks(t *testing.T) {
	w := newWorld(t, hubtest.Options{}, mirrortest.Options{})
	w.want(200, proxy.KindPing, "GET", "/v2/", "")
	w.gather()
	for accept, want := range map[string]string{
		"":                             "text/plain",
		"application/openmetrics-text": "application/openmetrics-text",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": "application/vnd.google.protobuf",
	} {
		status, kind, body := scrape(t, w.metrics.Handler(), accept)
		if status != 200 || !strings.HasPrefix(kind, want) || !strings.Contains(body, "forebay_requests_total") {
			t.Errorf("Accept %q: %d, %s, %d bytes; want %s", accept, status, kind, len(body), want)
		}
		if strings.HasPrefix(want, "application/openmetrics") && !strings.HasSuffix(body, "# EOF\n") {
			t.Errorf("OpenMetrics end with %q", body[max(0, len(body)-20):])
		}
		for _, name := range []string{"go_goroutines", "process_open_fds", "promhttp_metric_handler_errors_total"} {
			if !strings.Contains(body, strings.TrimSuffix(name, "_total")) {
				t.Errorf("Accept %q: no %s", accept, name)
			}
		}
	}
}

// A figure that cannot be had must not hide the others.
func TestFiguresGoOnWithoutTheStore(t *testing.T) {
	w := newWorld(t, hubtest.Options{}, mirrortest.Options{})
	w.want(200, proxy.KindPing, "GET", "/v2/", "")
	w.gather()
	w.mirror.Stop()
	_, _, body := scrape(t, w.metrics.Handler(), "")
	if !strings.Contains(body, `forebay_requests_total{kind="ping",result="none",upstream="none"} 1`) || strings.Contains(body, "forebay_disk_free_bytes ") {
		t.Errorf("metrics of a mirror whose store is closed:\n%.2000s", body)
	}
}
