package proxy

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"forebay/internal/allowance"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// Gate says who a client is and what it may have.
type Gate interface {
	// Admit is asked at the begin of every request, which means to; what that holds where it means
	// nothing is as of [wire.Registries.Route]. Its error is a [Refusal].
	Admit(r *http.Request, to *wire.Route) (Guest, error)
}

// Guest is a client that was let in.
type Guest struct {
	Name   string   // by which its requests are counted, limited and logged; "" leaves its address
	Groups []string // that it belongs to
	// Terms are its limits; nil leaves it those of all.
	Terms *allowance.Terms
	// May returns the rule by which the client may have what a request means; the error is a
	// [Refusal], or that of a registry which was asked for it. nil lets it have everything.
	May func(ctx context.Context, to *wire.Route) (rule string, err error)
	// Sees reports whether the client may know of a repository, without anything being asked. It is
	// set where May is.
	Sees func(upstream, repository string) bool
	// Login is in whose name registries are asked for what it may have; nil: in ours.
	Login *pull.Login
}

// ErrHidden refuses a client something in the way in which it is told that a thing does not exist.
var ErrHidden = &Refusal{Status: http.StatusNotFound}

// Behind returns the handler with a gate before it, for one listener.
func (h *Handler) Behind(g Gate) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.answer(w, r, g) })
}

// admit lets the client in, or not.
func (x *exchange) admit(g Gate) error {
	if g != nil {
		guest, err := g.Admit(x.r, &x.route)
		if err != nil {
			return err
		}
		if x.guest = guest; guest.Name != "" {
			// Escaped, no name reads as an address with a port.
			x.deadline.client = url.PathEscape(guest.Name)
		}
		x.deadline.terms = guest.Terms
	}
	x.w.ctx, x.w.pace = x.r.Context(), x.h.clients.Pace(&x.deadline)
	return nil
}

// may reports whether the client may have what it asks for.
func (x *exchange) may() error {
	if x.guest.May == nil || x.route.Upstream == "" {
		return nil
	}
	var err error
	x.rule, err = x.guest.May(&x.deadline, &x.route)
	x.deadline.login = x.guest.Login
	return err
}

// sees reports whether the client may know of a repository, named with its upstream.
func (x *exchange) sees(name string) bool {
	if x.guest.May == nil {
		return true
	}
	upstream, repository, _ := strings.Cut(name, "/")
	return x.guest.Sees(upstream, repository)
}
