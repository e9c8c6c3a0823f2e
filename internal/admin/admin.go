// Package admin answers operators: whether the mirror lives, whether it is ready, its
// metrics, and the API by which it is looked into and worked on.
//
// Webhooks and the API check who asks. A listener on loopback answers nothing at all to what did
// not come from a program on this machine, unless it brings the token. Any other must not be
// reachable from where clients are not trusted: it tells everybody its figures.
package admin

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"strings"
)

// Options configures the handler of the admin listener. Ready, Metrics and Version are required.
type Options struct {
	// Ready returns why no traffic should be sent here, or nil. Everybody is told, so that it must
	// name no path. It must not block.
	Ready func() error
	// Ailing says what is wrong while clients are served, "" when all is well; /readyz tells it
	// everybody, too. It may be nil and must not block.
	Ailing  func() string
	Metrics http.Handler // of /metrics
	Version string
	// Webhooks answers /webhooks and what is below it; nil means that nothing is there. Registries
	// post to it, with a secret of its own.
	Webhooks http.Handler
	// API answers what is below /api/; nil means that nothing is there.
	API *API
	// Fleet answers what is below /api/ in place of API; nil for a mirror that is alone.
	Fleet http.Handler
	// Profiles says that /debug/pprof/ is there, for administrators. It needs API.
	Profiles bool
	// Page answers / for browsers and what is below /ui/; nil means that there is only a text
	// at /. It serves no secrets: the browser asks the API for what the page shows.
	Page http.Handler
}

// New returns the handler of the admin listener.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := o.Ready(); err != nil {
			text(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		if o.Ailing != nil {
			if what := o.Ailing(); what != "" {
				text(w, http.StatusOK, "ready, but: "+what)
				return
			}
		}
		text(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /metrics", o.Metrics)
	if o.Webhooks != nil {
		mux.Handle("/webhooks", o.Webhooks)
		mux.Handle("/webhooks/", o.Webhooks)
	}
	if o.API != nil {
		mux.Handle("/api/", cmp.Or(o.Fleet, http.Handler(o.API)))
		if o.Profiles {
			profiles(mux, o.API)
		}
	}
	if o.Page != nil {
		mux.Handle("GET /ui/", o.Page)
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if o.Page != nil && strings.Contains(r.Header.Get("Accept"), "text/html") {
			o.Page.ServeHTTP(w, r)
			return
		}
		text(w, http.StatusOK, fmt.Sprintf("forebay %s\n\n/healthz  it lives\n/readyz   it takes traffic\n/metrics  figures for Prometheus\n/api/v1/openapi.json  the admin API", o.Version))
	})
	if o.API == nil {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, _ = visiting(r)
		// Who posts to a webhook is elsewhere by its nature, and brings a secret of its own.
		if o.Webhooks == nil || r.URL.Path != "/webhooks" && !strings.HasPrefix(r.URL.Path, "/webhooks/") {
			if err := o.API.guard.foreign(r); err != nil {
				o.API.refuse(w, r, err)
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// profiles lets administrators look into the running program. Profiles show
// names of repositories and clients, and take time of the processor.
func profiles(mux *http.ServeMux, api *API) {
	for path, handle := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
	} {
		mux.HandleFunc("GET /debug/pprof/"+path, func(w http.ResponseWriter, r *http.Request) {
			api.answer(w, r, Admin, func(w http.ResponseWriter, r *http.Request) error {
				handle(w, r)
				return nil
			})
		})
	}
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, s+"\n") // the client may be gone
}
