package proxy

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"

	"forebay/internal/logkey"
	"forebay/internal/wire"
)

// This file answers other Forebays, which have us for a registry. Anybody can say that he is one.
// Then he is told the truth about what he asks for, and how to take it, as whoever has no other
// place to ask; the names that he sends go along with his request, and stop nothing but one that
// names us. What is left of a budget is for trusted networks.

// errLoop is the answer to a request that came back to us.
var errLoop = &Refusal{Status: http.StatusLoopDetected, Code: "UNSUPPORTED", Message: "mirrors ask each other in a circle: look at the endpoints of their upstreams"}

// aForebay is what an answer to another mirror has for a name. Ours goes to the mirrors above only,
// who cannot be kept from learning it: with it, anybody could have them refuse what we ask for.
const aForebay = "forebay"

// cascade recognises another mirror as the client. It is told that another answers, what is left
// of the registry's budget, and the true reason of a failure. A request that began here is
// refused at once.
func (h *Handler) cascade(x *exchange) error {
	values := x.r.Header[wire.HopsHeader]
	if len(values) == 0 || h.instance == "" {
		return nil
	}
	x.fromMirror, x.mirrored = true, false
	x.w.Header()[wire.HopsHeader] = []string{aForebay}
	passed, came := wire.ParseHops(values, h.instance)
	if came {
		h.looped.Do(func() {
			h.log.Warn("request came back: mirrors ask each other in a circle", logkey.Upstream(x.route.Upstream), logkey.Addr(x.r.RemoteAddr))
		})
		return errLoop
	}
	x.deadline.hops = passed
	return nil
}

// setBudget tells another mirror what is left of the registry's budget, in the registry's
// own headers, so that it saves pulls too when little is left.
func (h *Handler) setBudget(x *exchange, header http.Header) {
	if !x.fromMirror || h.rates == nil || x.route.Resource != wire.Manifests || !h.trusts(x.r) {
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

// trusts reports whether a request comes straight from a trusted network.
func (h *Handler) trusts(r *http.Request) bool {
	if len(h.trusted) == 0 {
		return false
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	addr := from.Addr().Unmap().WithZone("")
	return err == nil && slices.ContainsFunc(h.trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}
