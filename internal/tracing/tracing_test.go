package tracing

import (
	"context"
	"errors"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
)

// otherKey is the key of a value in a context that is none of ours.
type otherKey struct{}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWithoutARecordedSpanNothingIsMade(t *testing.T) {
	_, unsampled := noop.NewTracerProvider().Tracer("x").Start(t.Context(), "x")
	for name, ctx := range map[string]context.Context{
		"no span": t.Context(), "a span that nobody records": trace.ContextWithSpan(t.Context(), unsampled),
	} {
		got, span := Start(ctx, "below", Upstream("docker.io"))
		if got != ctx || span != nil || Recorded(ctx) {
			t.Errorf("%s: Start made %v", name, span)
		}
		span.Set(Status(200))
		span.Link(span.Context())
		span.End(errors.New("x"))
		if span.Context().IsValid() {
			t.Errorf("%s: a span that is not there has a context", name)
		}
		other := context.WithValue(t.Context(), otherKey{}, 1)
		if Carry(other, ctx) != other {
			t.Errorf("%s: Carry made a context", name)
		}
	}
}

func TestServerTellsNoMoreThanWhereAURLLeads(t *testing.T) {
	for raw, want := range map[string][]attribute.KeyValue{
		"https://user:pass@cdn.example/secret/path?Signature=x#y": {
			attribute.String("server.address", "cdn.example"), attribute.String("url.scheme", "https"), attribute.Int("server.port", 443)},
		"http://[::1]:5000/v2/": {
			attribute.String("server.address", "::1"), attribute.String("url.scheme", "http"), attribute.Int("server.port", 5000)},
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		text := func(list []attribute.KeyValue) (all []string) {
			for _, a := range list {
				all = append(all, string(a.Key)+"="+a.Value.String())
			}
			return all
		}
		if diff := cmp.Diff(text(want), text(Server(u))); diff != "" {
			t.Errorf("Server(%s) (-want +got):\n%s", raw, diff)
		}
	}
}
