package main

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"forebay/config"
	"forebay/internal/metrics"
	"forebay/internal/observe"
	"forebay/internal/secret"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// receiver is a collector that takes traces by OTLP over HTTP.
type receiver struct {
	*httptest.Server

	mu      sync.Mutex
	spans   []*otlp.Span
	headers []http.Header
	faults  []string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		var in collector.ExportTraceServiceRequest
		body := io.Reader(q.Body)
		if q.Header.Get("Content-Encoding") == "gzip" {
			zipped, err := gzip.NewReader(q.Body)
			if err != nil {
				r.faults = append(r.faults, err.Error())
				return
			}
			body = zipped
		}
		b, err := io.ReadAll(body)
		if err == nil {
			err = proto.Unmarshal(b, &in)
		}
		if err != nil || q.URL.Path != "/v1/traces" || q.Method != http.MethodPost {
			r.faults = append(r.faults, fmt.Sprintf("%s %s: %v", q.Method, q.URL.Path, err))
		}
		r.headers = append(r.headers, q.Header)
		for _, one := range in.GetResourceSpans() {
			for _, scope := range one.GetScopeSpans() {
				r.spans = append(r.spans, scope.GetSpans()...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	return r
}

// named returns the spans of a name.
func (r *receiver) named(name string) (list []*otlp.Span) {
	for _, s := range r.spans {
		if s.GetName() == name {
			list = append(list, s)
		}
	}
	return list
}

func attributes(s *otlp.Span) map[string]string {
	all := map[string]string{}
	for _, a := range s.GetAttributes() {
		if v := a.GetValue(); v.GetStringValue() != "" {
			all[a.GetKey()] = v.GetStringValue()
		} else {
			all[a.GetKey()] = fmt.Sprint(v.GetIntValue())
		}
	}
	return all
}

const (
	clientTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan  = "00f067aa0ba902b7"
)

func TestOneTraceFromTheClientToTheRegistry(t *testing.T) {
	r := newReceiver(t)
	made, err := observe.NewTraces(&config.Tracing{Endpoint: r.URL, Headers: secret.New("X-Key=k3y-of-collector"), Ratio: 0}, "v1", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	figures := metrics.New(metrics.Options{Upstreams: []string{"docker.io"}})
	hub := hubtest.New(t, hubtest.Options{})
	var told []string // of our trace, to any server upstream
	var mu sync.Mutex
	hub.AddRule(hubtest.Rule{Do: hubtest.Edit("look", func(q *http.Request, _ *hubtest.Reply) {
		mu.Lock()
		defer mu.Unlock()
		for _, name := range []string{"Traceparent", "Tracestate", "Baggage"} {
			if q.Header.Get(name) != "" {
				told = append(told, q.Method+" "+q.URL.Path)
			}
		}
	})})
	m := mirrortest.New(t, mirrortest.Options{Hub: hub, Tracer: made.Tracer(), Observe: figures.Observe, Trusted: mirrortest.Loopback})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{LayerSize: 2 << 20, Layers: 1})
	ask := func(path, parent string) {
		t.Helper()
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.URL+path+"?ns=docker.io&token=s3cr3t-of-client", nil)
		if err != nil {
			t.Fatal(err)
		}
		if parent != "" {
			q.Header.Set("Traceparent", parent)
		}
		q.Header.Set("Authorization", "Bearer s3cr3t-of-client")
		res, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("GET %s = %d, %v", path, res.StatusCode, err)
		}
	}
	layer := img.Children[0].Layers[0].Digest
	sampled := "00-" + clientTrace + "-" + clientSpan + "-01"
	ask("/v2/library/app/manifests/latest", sampled)
	ask("/v2/library/app/blobs/"+layer, sampled)
	ask("/v2/library/app/manifests/latest", "") // of which none is kept: the ratio is 0
	ask("/v2/library/app/manifests/latest", "00-"+clientTrace+"-"+clientSpan+"-00")
	m.Stop() // every span has ended
	http.DefaultClient.CloseIdleConnections()
	made.Close()

	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.faults) > 0 {
		t.Fatalf("what was sent cannot be read: %v", r.faults)
	}
	if len(r.headers) == 0 || r.headers[0].Get("X-Key") != "k3y-of-collector" {
		t.Errorf("the collector got the headers %v", r.headers)
	}
	ids := map[string]*otlp.Span{}
	for _, s := range r.spans {
		ids[string(s.GetSpanId())] = s
		if got := hex.EncodeToString(s.GetTraceId()); got != clientTrace {
			t.Errorf("span %s is of trace %s, want the client's", s.GetName(), got)
		}
		if s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
			t.Errorf("span %s ended before it began", s.GetName())
		}
		text := s.String()
		for _, secret := range []string{"s3cr3t", "Bearer", "X-Amz", "Signature", "verify=", "token=", "scope="} {
			if strings.Contains(text, secret) {
				t.Errorf("span %s has %q: %s", s.GetName(), secret, text)
			}
		}
	}
	// Each is below the one before it.
	for _, chain := range [][]string{
		{"GET manifest", "confirm tag", "ask upstream", "HEAD manifest"},
		{"GET manifest", "confirm tag", "ask upstream", "GET token"},
		{"GET blob", "fill", "ask upstream", "GET blob"},
		{"GET blob", "fill", "ask upstream", "GET redirect"},
		{"GET blob", "wait for fill"},
	} {
		if !r.descends(ids, chain) {
			t.Errorf("no spans %s, each below the one before it", strings.Join(chain, " → "))
		}
	}
	roots := append(r.servers("GET manifest"), r.servers("GET blob")...)
	if len(roots) != 2 {
		t.Fatalf("%d spans of requests, want the 2 that are sampled", len(roots))
	}
	for _, root := range roots {
		if got := hex.EncodeToString(root.GetParentSpanId()); got != clientSpan {
			t.Errorf("%s is below %s, want the client's span", root.GetName(), got)
		}
		a := attributes(root)
		if a["http.request.method"] != "GET" || a["http.response.status_code"] != "200" || a["forebay.result"] != "miss" ||
			a["forebay.upstream"] != "docker.io" || a["forebay.repository"] != "library/app" || !strings.HasPrefix(a["url.path"], "/v2/library/app/") {
			t.Errorf("%s has the attributes %v", root.GetName(), a)
		}
	}
	fill, waits := r.named("fill"), r.named("wait for fill")
	if len(fill) != 1 || len(waits) == 0 || len(waits[0].GetLinks()) != 1 || string(waits[0].GetLinks()[0].GetSpanId()) != string(fill[0].GetSpanId()) {
		t.Errorf("who waits for a fill is not linked to it: %v, %v", fill, waits)
	}
	for _, s := range r.named("GET redirect") {
		if a := attributes(s); a["url.path"] != "" || a["server.address"] == "" || a["server.port"] == "" {
			t.Errorf("a redirect tells %v, want its host and no path", a)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) > 0 {
		t.Errorf("servers upstream were told of the trace: %v", told)
	}
	// The histograms have the trace as an exemplar.
	w := httptest.NewRecorder()
	q := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	q.Header.Set("Accept", "application/openmetrics-text")
	figures.Handler().ServeHTTP(w, q)
	if !strings.Contains(w.Body.String(), `# {trace_id="`+clientTrace+`"}`) {
		t.Error("no bucket has the trace as its exemplar")
	}
}

func TestStrangersChooseNoTrace(t *testing.T) {
	r := newReceiver(t)
	made, err := observe.NewTraces(&config.Tracing{Endpoint: r.URL, Ratio: 0}, "v1", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	hub := hubtest.New(t, hubtest.Options{})
	hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
	m := mirrortest.New(t, mirrortest.Options{Hub: hub, Tracer: made.Tracer()})
	if status, body := get(t, m.URL+"/v2/library/app/manifests/latest", "Traceparent", "00-"+clientTrace+"-"+clientSpan+"-01"); status != 200 {
		t.Fatalf("manifest = %d %s", status, body)
	}
	m.Stop()
	made.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.spans) > 0 {
		t.Errorf("a client outside of trusted_networks had %d spans made", len(r.spans))
	}
}

// servers returns the spans of requests of clients of a name.
func (r *receiver) servers(name string) (list []*otlp.Span) {
	for _, s := range r.named(name) {
		if s.GetKind() == otlp.Span_SPAN_KIND_SERVER {
			list = append(list, s)
		}
	}
	return list
}

// descends reports whether there are spans of these names, each below the one before it.
func (r *receiver) descends(ids map[string]*otlp.Span, chain []string) bool {
	for _, s := range r.named(chain[len(chain)-1]) {
		at, left := s, len(chain)-1
		for at != nil && left > 0 {
			at = ids[string(at.GetParentSpanId())]
			if at != nil && at.GetName() == chain[left-1] {
				left--
			}
		}
		if left == 0 {
			return true
		}
	}
	return false
}

// A collector that is away costs no client anything.
func TestTracesAreDroppedWhenNobodyTakesThem(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	made, err := observe.NewTraces(&config.Tracing{Endpoint: gone.URL, Ratio: 1}, "v1", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 { // more than the queue holds
		_, span := made.Tracer().Start(context.Background(), "x")
		span.End()
	}
	began := time.Now()
	made.Close()
	if took := time.Since(began); took > 10*observe.TraceGrace {
		t.Errorf("the end took %s, want some %s", took, observe.TraceGrace)
	}
}

func TestNoTracesWithoutACollector(t *testing.T) {
	made, err := observe.NewTraces(&config.Tracing{Ratio: 1}, "", zap.NewNop())
	if made != nil || err != nil || made.Tracer() != nil {
		t.Errorf("newTraces without an endpoint = %v, %v", made, err)
	}
	made.Close()
}
