package proxy

import (
	"errors"
	"syscall"
	"time"

	"go.uber.org/zap"

	"forebay/internal/logkey"
	"forebay/internal/pull"
)

// statusClientLeft is logged for a request whose client left before its answer began. It
// is not what was sent; the number is nginx's.
const statusClientLeft = 499

// logAccess writes the one line about x. Its query is left out, as it may hold anything.
func (h *Handler) logAccess(x *exchange, err error) {
	line := h.access.Check(zap.InfoLevel, "request")
	if line == nil {
		return
	}
	status, result := x.w.status, string(x.result)
	if x.left {
		status = statusClientLeft
	}
	fields := make([]zap.Field, 0, 12)
	fields = append(fields,
		logkey.Method(x.r.Method),
		logkey.URLPath(clip(x.r.URL.Path)),
		logkey.Upstream(x.route.Upstream),
		logkey.Repository(x.route.Repository),
		logkey.Status(status),
		logkey.Bytes(x.w.bytes),
		logkey.Took(time.Since(x.began)),
		logkey.Addr(x.r.RemoteAddr),
		logkey.UserAgent(clip(x.r.UserAgent())),
	)
	// A client that leaves in the middle is everyday: containerd reads layers in pieces and
	// closes each.
	if err != nil && !x.clientLeft() && !hungUp(err) {
		result = "error"
		fields = append(fields, logkey.Err(err))
	}
	if result != "" {
		fields = append(fields, logkey.Result(result))
	}
	line.Write(fields...)
}

// hungUp reports whether err is that of writing to a client that went away, which may be
// seen before its context ends. Errors of upstreams have a kind.
func hungUp(err error) bool {
	return !errors.As(err, new(*pull.Error)) && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET))
}

// clip bounds what a client can make us log.
func clip(s string) string {
	const most = 512
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
