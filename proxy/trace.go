package proxy

import (
	"net"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"forebay/cache"
	"forebay/internal/tracing"
	"forebay/internal/wire"
)

// traced begins the span of a request, and returns the request with it. If a client that is trusted
// sent a traceparent (W3C Trace Context), the span belongs to the client's trace: with it, a client
// has every request of its own sampled, and chooses what the trace is called.
func (h *Handler) traced(r *http.Request) (*http.Request, trace.Span) {
	ctx := r.Context()
	if h.trusts(r) {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	method := methodName(r.Method)
	ctx, span := h.tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(tracing.Method(method)))
	if span.IsRecording() {
		host, port, err := net.SplitHostPort(r.RemoteAddr)
		if n, perr := strconv.Atoi(port); err == nil && perr == nil {
			span.SetAttributes(attribute.String("client.address", host), attribute.Int("client.port", n))
		}
		span.SetAttributes(attribute.String("user_agent.original", clip(r.UserAgent())))
	}
	return r.WithContext(ctx), span
}

// methodName returns a method for the name of a span, which no client may choose freely.
func methodName(method string) string {
	if method == http.MethodGet || method == http.MethodHead {
		return method
	}
	return "_OTHER"
}

// endTrace writes what became of x into its span.
func (x *exchange) endTrace(result cache.Result, err error) {
	s := x.span
	if s == nil {
		return
	}
	defer s.End()
	if !s.IsRecording() {
		return
	}
	kind := x.kind()
	s.SetName(methodName(x.r.Method) + " " + string(kind))
	status := x.w.status
	if x.leftEarly {
		status = statusClientLeft
	}
	s.SetAttributes(tracing.Status(status), tracing.Kind(string(kind)), tracing.Bytes(x.w.bytes))
	if x.route.Upstream != "" {
		s.SetAttributes(tracing.Upstream(x.route.Upstream), tracing.Repository(x.route.Repository))
	}
	if x.route.Resource != wire.NoResource {
		s.SetAttributes(tracing.Path(clip(x.r.URL.Path)))
	}
	if result != NoResult {
		s.SetAttributes(tracing.Result(string(result)))
	}
	if err != nil {
		s.SetAttributes(tracing.ErrorType(strconv.Itoa(status)))
		if status >= http.StatusInternalServerError || status < http.StatusBadRequest { // a body that broke off
			s.SetStatus(codes.Error, err.Error())
		}
	}
}

// traceID returns the ID of the request's trace if it is sampled, else "".
func (x *exchange) traceID() string {
	if x.span == nil {
		return ""
	}
	if c := x.span.SpanContext(); c.IsSampled() {
		return c.TraceID().String()
	}
	return ""
}
