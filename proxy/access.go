package proxy

import (
	"errors"
	"syscall"
	"time"

	"go.uber.org/zap"

	"forebay/cache"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// statusClientLeft is logged for a request whose client left before its answer began. It is
// never sent. The number is the one that nginx uses.
const statusClientLeft = 499

// ended tells the observer and the access log of x, which has ended with err.
func (h *Handler) ended(x *exchange, err error) {
	result := x.result
	// It is normal that a client leaves in the middle: containerd reads a layer in pieces and
	// closes the connection after each.
	if err != nil && !x.clientLeft() && !hungUp(err) {
		result = Failed
	} else {
		err = nil
	}
	took := time.Since(x.began)
	x.endTrace(result, err)
	if h.observe != nil {
		h.observe(x.observation(took, result, err))
	}
	h.writeAccessLog(x, took, result, err)
}

// writeAccessLog writes the one line about x. Its query is left out, as it may hold anything.
func (h *Handler) writeAccessLog(x *exchange, took time.Duration, result cache.Result, err error) {
	line := h.accessLog.Check(zap.InfoLevel, "request")
	if line == nil {
		return
	}
	status := x.w.status
	if x.leftEarly {
		status = statusClientLeft
	}
	kept, _ := h.fields.Get().(*[]zap.Field)
	if kept == nil {
		kept = new([]zap.Field)
	}
	fields := append((*kept)[:0],
		logkey.Method(x.r.Method),
		logkey.URLPath(clip(x.r.URL.Path)),
		logkey.Upstream(x.route.Upstream),
		logkey.Repository(x.route.Repository),
		logkey.Status(status),
		logkey.Bytes(x.w.bytes),
		logkey.Took(took),
		logkey.Addr(x.r.RemoteAddr),
		logkey.UserAgent(clip(x.r.UserAgent())),
	)
	if x.guest.Name != "" {
		fields = append(fields, logkey.User(clip(x.guest.Name)))
	}
	if err != nil {
		fields = append(fields, logkey.Err(err))
	}
	if result != NoResult {
		fields = append(fields, logkey.Result(string(result)))
	}
	line.Write(fields...) // which keeps none of them
	clear(fields)
	*kept = fields
	h.fields.Put(kept)
}

// hungUp reports whether err comes from writing to a client that went away. It may come
// before the client's context ends. Errors of upstreams have a kind, and are none of these.
func hungUp(err error) bool {
	return !errors.As(err, new(*pull.Error)) && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET))
}

// clip bounds what a client can make us log.
func clip(s string) string { return wire.Clip(s, 512) }
