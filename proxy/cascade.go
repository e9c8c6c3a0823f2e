package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"forebay/internal/logkey"
	"forebay/internal/wire"
)

// This file answers other Forebays, which have us for a registry.

// errLoop is the answer to a request that came back to us, or that came through more mirrors
// than anybody puts in a row.
var errLoop = &refusal{http.StatusLoopDetected, "UNSUPPORTED",
	"mirrors ask each other in a circle: look at the endpoints of their upstreams"}

// cascade recognises another mirror as the client. It is told who answers, what is left of
// the registry's budget, and the true reason of a failure. A request that began here is
// refused at once.
func (h *Handler) cascade(x *exchange) error {
	values := x.r.Header[wire.HopsHeader]
	if len(values) == 0 || h.instance == "" {
		return nil
	}
	x.fromMirror, x.mirrored = true, false
	x.w.Header()[wire.HopsHeader] = []string{h.instance}
	hops, ok := wire.ParseHops(values)
	if !ok || slices.Contains(hops, h.instance) {
		h.looped.Do(func() {
			h.log.Warn("request came back: mirrors ask each other in a circle", logkey.Upstream(x.route.Upstream), logkey.Addr(x.r.RemoteAddr))
		})
		return errLoop
	}
	x.deadline.hops = strings.Join(hops, ", ")
	return nil
}

// setBudget tells another mirror what is left of the registry's budget, in the registry's
// own headers, so that it saves pulls too when little is left.
func (h *Handler) setBudget(x *exchange, header http.Header) {
	if !x.fromMirror || h.rates == nil || x.route.Resource != wire.Manifests {
		return
	}
	l, ok := h.rates(x.route.Upstream)
	if !ok || l.Limit < 0 || l.Remaining < 0 {
		return
	}
	window := ""
	if l.Window > 0 {
		window = ";w=" + strconv.FormatInt(int64(l.Window.Seconds()), 10)
	}
	header.Set("Ratelimit-Limit", strconv.FormatInt(l.Limit, 10)+window)
	header.Set("Ratelimit-Remaining", strconv.FormatInt(l.Remaining, 10)+window)
}
