// Package tracing makes the spans of a request on its way through the mirror.
//
// A span is made only below one that is recorded: the handler of clients makes the first,
// if traces are on. Without it everything here costs a look into the context and nothing
// else, and no package below the handler needs to know whether traces are on.
//
// No attribute may hold a query, a token, a signed URL or a header.
package tracing

import (
	"context"
	"net/url"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Name is the instrumentation scope of all spans.
const Name = "forebay"

// Span is a span in progress. Nil is one that nobody records; its methods do nothing.
type Span struct{ span trace.Span }

// Start begins a span below the one in ctx. It is nil, and ctx the same, when that one is
// not recorded. Its owner must call End.
func Start(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, *Span) {
	return start(ctx, name, trace.SpanKindInternal, attributes)
}

// StartClient is Start for a request to another server.
func StartClient(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, *Span) {
	return start(ctx, name, trace.SpanKindClient, attributes)
}

func start(ctx context.Context, name string, kind trace.SpanKind, attributes []attribute.KeyValue) (context.Context, *Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, nil
	}
	ctx, span := parent.TracerProvider().Tracer(Name).Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	return ctx, &Span{span}
}

// Recorded reports whether somebody records what happens in ctx, so that attributes are
// worth making.
func Recorded(ctx context.Context) bool { return trace.SpanFromContext(ctx).IsRecording() }

// Carry returns to with the span of from: work that outlives who began it, in its trace.
func Carry(to, from context.Context) context.Context {
	span := trace.SpanFromContext(from)
	if !span.IsRecording() {
		return to
	}
	return trace.ContextWithSpan(to, span)
}

// Set adds attributes.
func (s *Span) Set(attributes ...attribute.KeyValue) {
	if s != nil {
		s.span.SetAttributes(attributes...)
	}
}

// Link says that the span has to do with another, perhaps of another trace.
func (s *Span) Link(to trace.SpanContext) {
	if s != nil && to.IsValid() {
		s.span.AddLink(trace.Link{SpanContext: to})
	}
}

// Context returns what others may link to; of nil it is not valid.
func (s *Span) Context() trace.SpanContext {
	if s == nil {
		return trace.SpanContext{}
	}
	return s.span.SpanContext()
}

// End ends the span; err says that it failed, and must be free of secrets.
func (s *Span) End(err error) {
	if s == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}

// Attributes by OpenTelemetry's semantic conventions for HTTP, and our own.

// Method is the method of a request.
func Method(m string) attribute.KeyValue { return attribute.String("http.request.method", m) }

// Status is the status of an answer.
func Status(n int) attribute.KeyValue { return attribute.Int("http.response.status_code", n) }

// ErrorType says in a fixed few words why there is no good answer.
func ErrorType(s string) attribute.KeyValue { return attribute.String("error.type", s) }

// Server returns the attributes of where a URL leads, and nothing of its path or query.
func Server(u *url.URL) []attribute.KeyValue {
	list := []attribute.KeyValue{attribute.String("server.address", u.Hostname()), attribute.String("url.scheme", u.Scheme)}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	if n, err := strconv.Atoi(port); err == nil {
		list = append(list, attribute.Int("server.port", n))
	}
	return list
}

// Path is the path of a URL of the registry API, which has no secrets.
func Path(s string) attribute.KeyValue { return attribute.String("url.path", s) }

// Upstream is a registry's public name.
func Upstream(s string) attribute.KeyValue { return attribute.String("forebay.upstream", s) }

// Repository is a canonical name.
func Repository(s string) attribute.KeyValue { return attribute.String("forebay.repository", s) }

// Reference is a tag or digest.
func Reference(s string) attribute.KeyValue { return attribute.String("forebay.reference", s) }

// Result is how a request was answered.
func Result(s string) attribute.KeyValue { return attribute.String("forebay.result", s) }

// Kind is what a request is for.
func Kind(s string) attribute.KeyValue { return attribute.String("forebay.kind", s) }

// Bytes is the length of a body.
func Bytes(n int64) attribute.KeyValue { return attribute.Int64("forebay.bytes", n) }
