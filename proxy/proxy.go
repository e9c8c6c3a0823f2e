// Package proxy speaks the registry API (Registry v2, OCI distribution 1.1) to clients.
//
// It turns a request into (upstream, repository, reference), asks the cache, and turns
// what that answers into HTTP. It knows no upstream, no file and no database.
//
// Without a [Gate] it never answers 401 and never sends WWW-Authenticate: dockerd would hand the
// user's Docker Hub password to whoever does.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"forebay/cache"
	"forebay/internal/allowance"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/registries"
	"forebay/internal/wire"
)

// Fallback says whether clients have somewhere else to go when the mirror fails.
type Fallback uint8

const (
	// FallbackClients: clients that treat us as a mirror can ask the registry itself. When we
	// fail they get the answer that makes them do so at once.
	FallbackClients Fallback = iota
	// FallbackNone: clients reach no registry. Everybody is told the true reason.
	FallbackNone
)

// Options configures a [Handler]. Cache and Upstreams are required.
type Options struct {
	Cache *cache.Cache
	// Redirect returns the URL that a client which GETs a blob is sent to, "" when it is
	// served from here. nil sends nobody anywhere.
	Redirect func(ctx context.Context, repo cache.Repo, d v1.Hash) (string, error)
	// Upstreams maps the canonical name of each configured registry, with its port if it
	// has one, to its aliases. Docker Hub's own aliases need not be given.
	Upstreams map[string][]string
	// Hosts maps values of the Host header, with or without a port, to canonical names.
	Hosts map[string]string
	// Default is the upstream of a request that names none. Empty means docker.io, or none when
	// that is not mirrored.
	Default string
	// Others are registries that are not among Upstreams and may be asked for all the same: see
	// [wire.Registries].
	Others   func(host string) (canonical string, ok bool)
	Fallback Fallback
	// Instance is our name among the Forebays that mirror each other, the same as the
	// upstreams have. "" knows no others.
	Instance string
	// Trusted are the networks of the clients who are told what is left of a budget, as other
	// mirrors need to know, and whose traces requests may join.
	Trusted []netip.Prefix
	// Rates returns what is left of the budget of an upstream. nil means that it is not known.
	Rates func(upstream string) (wire.RateLimit, bool)
	Log   *zap.Logger // nil means no logging
	// AccessLog takes one line per request, at level info. nil means none.
	AccessLog *zap.Logger
	// Observe is told of every request, at its end and in its goroutine: it must not block.
	// What it is given is good only until it returns. nil means nobody is told.
	Observe func(*Request)
	// Past knows what tags were. nil: nobody does.
	Past Past
	// Tracer makes a span for every request, in whose context everything else is asked for.
	// nil means none.
	Tracer trace.Tracer
}

// Handler answers the registry API.
type Handler struct {
	source     source
	redirect   func(ctx context.Context, repo cache.Repo, d v1.Hash) (string, error) // nil for none
	past       Past                                                                  // nil for none
	registries wire.Registries
	fallback   Fallback
	instance   string
	trusted    []netip.Prefix
	rates      func(upstream string) (wire.RateLimit, bool)
	log        *zap.Logger
	accessLog  *zap.Logger
	observe    func(*Request) // nil for none
	tracer     trace.Tracer   // nil for none
	clients    *allowance.Clients
	static     staticHeaders
	fields     sync.Pool      // of *[]zap.Field, for lines of the access log
	looped     rate.Sometimes // bounds a warning
	disagreed  rate.Sometimes // bounds a warning that a misconfigured client may cause at will
}

// New returns a handler. It fails when the names of the upstreams contradict each other.
func New(o Options) (*Handler, error) {
	if o.Cache == nil {
		return nil, errors.New("proxy: no cache given")
	}
	return handlerOf(o, fromCache{o.Cache}, o.Cache.Clients())
}

func handlerOf(o Options, from source, clients *allowance.Clients) (*Handler, error) {
	registries, err := NamesOf(o)
	if err != nil {
		return nil, err
	}
	return &Handler{
		clients:    clients,
		source:     from,
		redirect:   o.Redirect,
		past:       o.Past,
		registries: registries,
		fallback:   o.Fallback,
		instance:   o.Instance,
		trusted:    o.Trusted,
		rates:      o.Rates,
		log:        orNop(o.Log),
		accessLog:  orNop(o.AccessLog),
		observe:    o.Observe,
		tracer:     o.Tracer,
		static:     newStaticHeaders(),
		looped:     rate.Sometimes{Interval: time.Minute},
		disagreed:  rate.Sometimes{Interval: time.Minute},
	}, nil
}

// Registries returns what names of registries mean to the handler.
func (h *Handler) Registries() *wire.Registries { return &h.registries }

func orNop(log *zap.Logger) *zap.Logger {
	if log == nil {
		return zap.NewNop()
	}
	return log
}

// NamesOf returns all names of registries that a request may use, by Upstreams, Hosts and Default of o.
func NamesOf(o Options) (wire.Registries, error) {
	g := wire.Registries{Default: o.Default, Others: o.Others, Names: map[string]string{}, Hosts: map[string]string{}}
	if _, ok := o.Upstreams[wire.Hub]; ok && g.Default == "" {
		g.Default = wire.Hub
	}
	if _, ok := o.Upstreams[g.Default]; !ok && g.Default != "" {
		return g, fmt.Errorf("proxy: the default upstream %q is not configured", g.Default)
	}
	for canonical := range o.Upstreams {
		if canonical == "" || canonical != strings.ToLower(canonical) || strings.Contains(canonical, "/") {
			return g, fmt.Errorf("proxy: upstream %q is not a lower-case registry name", canonical)
		}
		g.Names[canonical] = canonical
	}
	for canonical, aliases := range o.Upstreams {
		if canonical == wire.Hub {
			aliases = slices.Concat(aliases, registries.HubAliases())
		}
		for _, alias := range aliases {
			alias = strings.ToLower(alias)
			if other, ok := g.Names[alias]; ok && other != canonical {
				return g, fmt.Errorf("proxy: %q cannot name both upstream %s and upstream %s", alias, other, canonical)
			}
			g.Names[alias] = canonical
		}
	}
	for host, name := range o.Hosts {
		canonical, ok := g.Names[strings.ToLower(name)]
		if !ok {
			return g, fmt.Errorf("proxy: host %q is mapped to %q, which is not configured", host, name)
		}
		g.Hosts[strings.ToLower(host)] = canonical
	}
	return g, nil
}

// errAborted ends a response of unknown length so that its end is not taken for a whole.
var errAborted = errors.New("body ended short")

// ServeHTTP answers one request, writes one line about it and tells who observes.
func (h *Handler) ServeHTTP(rw http.ResponseWriter, r *http.Request) { h.answer(rw, r, nil) }

// answer is ServeHTTP for the clients of a gate; nil lets everybody in.
func (h *Handler) answer(rw http.ResponseWriter, r *http.Request, g Gate) {
	var span trace.Span
	if h.tracer != nil {
		r, span = h.traced(r)
	}
	x := newExchange(h, rw, r)
	x.span = span
	defer x.deadline.end()
	err := h.serve(x, g)
	abort := errors.Is(err, errAborted)
	if err != nil && !x.w.wroteHeader() {
		// This holds even when the client seems to have left: without an answer from us
		// net/http sends an empty 200, which a client that is still there takes for content.
		x.leftEarly = x.clientLeft()
		h.writeError(x, err)
	}
	h.ended(x, err)
	if abort {
		// A plain return would end a chunked body as if it were complete.
		panic(http.ErrAbortHandler)
	}
}

func (h *Handler) serve(x *exchange, g Gate) error {
	if r := x.r; r.ContentLength != 0 {
		x.discardBody()
	}
	if x.browser = fromBrowser(x.r); x.browser {
		return errBrowser
	}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return errMethod
	}
	routeErr := h.route(x)
	if err := x.admit(g); err != nil {
		return err
	}
	if x.route.Namespace != "" {
		x.w.Header()["Oci-Namespace"] = []string{x.route.Namespace}
	}
	if routeErr != nil {
		return routeErr
	}
	if err := x.may(); err != nil {
		return err
	}
	if err := h.clients.Request(&x.deadline, x.route.Upstream, x.route.Repository); err != nil {
		return err
	}
	if err := h.cascade(x); err != nil {
		return err
	}
	switch x.route.Resource {
	case wire.Ping:
		return h.ping(x)
	case wire.Catalog:
		return h.catalog(x)
	case wire.Manifests:
		return h.manifest(x)
	case wire.Blobs:
		if !x.head() {
			ended, err := h.clients.Transfer(&x.deadline, x.route.Upstream, x.route.Repository)
			if err != nil {
				return err
			}
			defer ended()
		}
		return h.blob(x)
	case wire.Tags:
		return h.tags(x)
	case wire.Referrers:
		return h.referrers(x)
	case wire.History:
		return h.history(x)
	}
	return &wire.RouteError{Fault: wire.NoRoute, Text: "no such path in the registry API"}
}

// route finds out what x asks for, and of whom.
func (h *Handler) route(x *exchange) error {
	ns, _ := wire.QueryValue(x.r.URL.RawQuery, "ns")
	route, err := h.registries.Route(x.r.Host, x.r.URL.EscapedPath(), ns)
	x.route = route
	x.mirrored = h.fallback == FallbackClients && x.hasFallback()
	var fault *wire.RouteError
	if errors.As(err, &fault) && fault.Fault == wire.Disagreement {
		h.disagreed.Do(func() {
			h.log.Warn("client misconfigured: path and ns name different registries",
				logkey.URLPath(clip(x.r.URL.Path)), logkey.Addr(x.r.RemoteAddr))
		})
	}
	return err
}

// unavailable is the error of a request that is refused although the cache gave an answer.
func unavailable(x *exchange, op, why string) error {
	return &pull.Error{Kind: pull.Unavailable, Upstream: x.route.Upstream, Op: op, Message: why}
}
