package upstream

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"forebay/internal/tracing"
)

// spanOf begins the span of one HTTP request. The span ends with the head of the answer,
// since a blob's bytes may come for hours. It tells the host, and for requests to the
// registry itself the path; never a query, and nothing more of a redirect's target or a
// token server, whose URLs may be secrets.
//
// The server is not told the trace: no registry has a use for it, and it would let the
// registry follow one client's requests through the mirror.
func spanOf(ctx context.Context, method string, k RequestKind, u *url.URL) (context.Context, *tracing.Span) {
	if !tracing.Recorded(ctx) {
		return ctx, nil
	}
	ctx, span := tracing.StartClient(ctx, method+" "+strings.TrimSuffix(k.String(), "_head"), tracing.Method(method), tracing.Kind(k.String()))
	span.Set(tracing.Server(u)...)
	if k != Redirect && k != TokenGet {
		span.Set(tracing.Path(u.Path))
	}
	return ctx, span
}

// endSpan ends the span of a request that was answered, or not.
func endSpan(span *tracing.Span, resp *http.Response, fail *failure) {
	switch {
	case span == nil:
	case fail != nil:
		span.Set(tracing.ErrorType(fail.err.Kind.String()))
		span.End(fail.err)
	default:
		span.Set(tracing.Status(resp.StatusCode))
		if resp.StatusCode >= http.StatusBadRequest {
			span.Set(tracing.ErrorType(strconv.Itoa(resp.StatusCode)))
		}
		span.End(nil)
	}
}
