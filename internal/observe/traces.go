package observe

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"forebay/config"
	"forebay/config/parse"
	"forebay/internal/logkey"
	"forebay/internal/tracing"
)

// Traces sends spans to a collector. Nil sends none.
type Traces struct {
	provider *sdktrace.TracerProvider
	log      *zap.Logger
}

const (
	// traceTimeout bounds one sending of spans.
	traceTimeout = 10 * time.Second
	// TraceGrace bounds the sending of the last spans at the end.
	TraceGrace = 3 * time.Second
)

// NewTraces returns what sends spans where c says, or nil; version is of the program. The caller closes it. Nothing is contacted. Spans wait
// in a bounded queue, and are dropped when the collector does not keep up: no request ever
// waits for it.
func NewTraces(c *config.Tracing, version string, log *zap.Logger) (*Traces, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	headers, err := parse.HeaderPairs(c.Headers.Reveal())
	if err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	// HTTP and not gRPC: one protocol less through proxies, and to debug.
	exporter, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression), otlptracehttp.WithTimeout(traceTimeout))
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	// The SDK tells of its troubles through globals; there is no other way.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces not sent", logkey.Err(err)) }))
	otel.SetLogger(logr.Discard())
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.Ratio))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "forebay"), attribute.String("service.version", version))),
	)
	return &Traces{provider, log}, nil
}

// Tracer returns what makes spans, nil for none.
func (t *Traces) Tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer(tracing.Name)
}

// Close sends what waits, for a moment, and ends. Spans that end later are lost.
func (t *Traces) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), TraceGrace)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("last traces not sent", logkey.Err(err))
	}
}
