package proxy

import (
	"net/http"
	"net/url"
	"strings"

	"forebay/internal/pull"
)

// Gate says who a client is and what it may have.
type Gate interface {
	// Admit is asked at the begin of every request. Its error is a [Refusal].
	Admit(r *http.Request) (Guest, error)
}

// Guest is a client that was let in.
type Guest struct {
	Name   string   // by which its requests are counted, limited and logged; "" leaves its address
	Groups []string // that it belongs to
	// May returns the rule by which the client may have a repository of an upstream, "" for the
	// upstream as a whole; the error is a [Refusal]. nil lets it have everything.
	May func(upstream, repository string) (rule string, err error)
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
		guest, err := g.Admit(x.r)
		if err != nil {
			return err
		}
		if x.guest = guest; guest.Name != "" {
			// Escaped, no name reads as an address with a port.
			x.deadline.client = url.PathEscape(guest.Name)
		}
	}
	if x.h.paces != nil {
		x.w.ctx, x.w.pace = x.r.Context(), x.h.paces.of(pull.Client(&x.deadline))
	}
	return nil
}

// may reports whether the client may have what it asks for.
func (x *exchange) may() error {
	if x.guest.May == nil || x.route.Upstream == "" {
		return nil
	}
	var err error
	x.rule, err = x.guest.May(x.route.Upstream, x.route.Repository)
	return err
}

// sees reports whether the client may know of a repository, named with its upstream.
func (x *exchange) sees(name string) bool {
	if x.guest.May == nil {
		return true
	}
	upstream, repository, _ := strings.Cut(name, "/")
	_, err := x.guest.May(upstream, repository)
	return err == nil
}
