// Package upstream speaks to registries: challenge and token, redirects, ranges, retries,
// and the choice of an endpoint.
//
// It promises that what a request authenticates with goes along no redirect, and that every
// connection is made by package dial, and every credential used by package auth. Manifests
// are verified here; blobs are not: whoever keeps or serves them must verify them.
//
// Every error is or wraps a [pull.Error], and none holds a secret or a signed URL.
//
// A registry that limits us is not asked until it may answer (see package governor). When an
// endpoint fails, another one is asked, if there is one (see [Endpoint]).
//
// Lock order: no lock of this package is taken while another is held, and none is held
// across I/O.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/time/rate"

	"forebay/internal/lane"
	"forebay/internal/logkey"
	"forebay/internal/registries"
	"forebay/internal/wire"
	"forebay/upstream/auth"
	"forebay/upstream/dial"
	"forebay/upstream/governor"
	"forebay/upstream/heads"
	"forebay/upstream/places"
)

// Options configures a [Registry]. Name is required.
type Options struct {
	// Name is the public name of the registry, "docker.io".
	Name string
	// Endpoints are tried in order, those that fail last. None means that of [registries.Find].
	Endpoints []Endpoint

	Credentials auth.Credentials // zero: anonymous
	// Fallback are further credentials, each used only while those before it are refused,
	// may not be sent, or have no pulls left. The zero value among them is anonymous. Those with a
	// Match are used for the repositories that it fits, before all others.
	Fallback []auth.Credentials
	// Reserve is the share of a pull limit below which [Registry.Low] is true. 0 means never.
	Reserve float64
	// LimitedWait bounds how long a limited request is held, which happens only if it may get
	// through by then. Timeouts.Answer counts after it. 0 means that such a request fails at once.
	LimitedWait time.Duration
	// Stranger says that a client named the registry: see [dial.Options].
	Stranger bool
	// ForeignHosts are those that foreign layers may be fetched from, by the URLs of their
	// manifest ([pull.WithURLs]) and without credentials, where the registry has them not. nil
	// means none.
	ForeignHosts []string
	// TrustedRealms are hosts ("auth.example.com", with a port if it is not the scheme's)
	// of token servers that may get the credentials beside those of the built-in rule.
	TrustedRealms []string
	// AllowPrivate to Lookup say how connections are made: see
	// [dial.Options].
	AllowPrivate bool
	Ours         *dial.Ours
	TLS          dial.TLS
	Proxy        *url.URL
	Environment  *httpproxy.Config
	Bandwidth    *dial.Bandwidth
	Family       dial.Family
	Dial         func(ctx context.Context, network, addr string) (net.Conn, error)
	Lookup       func(ctx context.Context, network, host string) ([]netip.Addr, error)

	// MaxConnections bounds blob transfers at once; 0 means 32. Manifests, HEADs and
	// lists have a lane of the same width of their own, and token requests never wait.
	MaxConnections int
	Timeouts       Timeouts
	Retry          Retry
	// Instance names this mirror to other Forebays, so that no request comes back to where it
	// began: up to 64 letters and digits. "" tells nobody.
	Instance string
	// UserAgent is sent with every request; "" means "forebay".
	UserAgent string
	Log       *zap.Logger // nil means no logging
	Names     Names
	// Replaces is the registry in whose place this one comes, with other settings: its figures
	// go on. nil for none.
	Replaces *Registry
	// Now replaces the clock for the life of tokens and credentials.
	Now func() time.Time
}

// Names are what settings are called where they are made, for errors that say what to
// change. Empty ones are said in words.
type Names struct{ TrustedRealms, MaxConnections, AllowPrivate string }

// Timeouts bound the parts of a request; 0 means the default. A body as a whole has no bound.
type Timeouts struct {
	Connect   time.Duration // name lookup and TCP connect; 3s
	TLS       time.Duration // TLS handshake; 5s
	FirstByte time.Duration // from request to the headers of its answer; 10s
	Stall     time.Duration // without a byte of a body; 15s
	// Answer bounds everything until there is an answer, with all retries, tokens and
	// redirects; 16s. Clients must hear within 20 s (dockerd and podman wait for ever).
	Answer time.Duration
}

// Retry says how temporary failures are retried; 0 means the default.
type Retry struct {
	Attempts   int           // in all; 4
	Backoff    time.Duration // before the second attempt, then three times as long each; 100ms
	MaxBackoff time.Duration // 2s
}

// Defaults of Options. With them four attempts take one to two seconds, which no client
// takes for a hang (docs/clients.md, "How long clients wait").
const (
	defaultConnections = 32
	defaultConnect     = 3 * time.Second
	defaultTLS         = 5 * time.Second
	defaultFirstByte   = 10 * time.Second
	defaultStall       = 15 * time.Second
	defaultAnswer      = 16 * time.Second
	defaultAttempts    = 4
	defaultBackoff     = 100 * time.Millisecond
	defaultMaxBackoff  = 2 * time.Second
)

// A retry takes a token from a bucket of the whole registry, so that an outage under
// load does not multiply the load by the number of attempts.
const (
	retriesPerSecond = 50
	retriesBurst     = 500
)

// Registry is one configured registry. Its methods may be called concurrently.
type Registry struct {
	opts       Options
	endpoints  []*endpoint
	tokens     *auth.Tokens
	tokenGates *governor.Gates // of token servers, by "host:port"
	places     *places.Memory
	heads      *heads.Memory
	own        *site   // of the registry itself; that of the first endpoint if all are stand-ins
	sites      []*site // own and those of stand-ins
	counts     *counts
	retries    *rate.Limiter
	blobs      *lane.Lane
	questions  *lane.Lane // manifests, HEADs, lists
	log        *zap.Logger

	stopping context.Context // done after Close: the life of token requests, which have no caller
	stop     context.CancelFunc
	work     sync.WaitGroup // token requests in progress
}

// New returns the registry that opts describes. Nothing is contacted.
func New(opts Options) (*Registry, error) {
	if opts.Name == "" {
		return nil, errors.New("upstream has no name")
	}
	opts.setDefaults()
	known := registries.Find(opts.Name)
	if len(opts.Endpoints) == 0 {
		opts.Endpoints = []Endpoint{{URL: known.Endpoint}}
	}
	r := &Registry{
		opts:       opts,
		places:     places.New(opts.Now),
		heads:      heads.New(opts.Now),
		tokenGates: governor.NewGates(governor.Backoff{First: slowDown, Most: tokenMost}, opts.Now),
		retries:    rate.NewLimiter(retriesPerSecond, retriesBurst),
		blobs:      lane.New(opts.MaxConnections),
		questions:  lane.New(opts.MaxConnections),
		log:        opts.Log.With(logkey.Upstream(opts.Name)),
	}
	for _, given := range opts.Endpoints {
		if err := r.add(given, known); err != nil {
			return nil, fmt.Errorf("upstream %s: %w", opts.Name, err)
		}
	}
	if !slices.ContainsFunc(opts.Endpoints, func(e Endpoint) bool { return e.StandIn == nil || e.StandIn.Tags }) {
		return nil, fmt.Errorf("upstream %s: no endpoint gives tags: name one that is the registry itself, or a stand-in with tags", opts.Name)
	}
	if r.own == nil {
		r.own = r.sites[0]
	}
	if r.counts = newCounts(); opts.Replaces != nil {
		r.counts = opts.Replaces.counts
	}
	r.stopping, r.stop = context.WithCancel(context.Background())
	r.tokens = auth.NewTokens(r.stopping, &r.work, auth.Options{
		Upstream: opts.Name,
		Patience: opts.Timeouts.Answer * 3 / 4, // so that those who wait hear why
		Now:      opts.Now, Log: r.log,
	})
	return r, nil
}

// add makes an endpoint, and its site if it is not the registry's.
func (r *Registry) add(given Endpoint, known registries.Registry) error {
	base, err := parseBase(given.URL)
	if err != nil {
		return err
	}
	s := r.own
	switch standIn := given.StandIn; {
	case standIn != nil:
		known = registries.Find(base.Host)
		s, err = newSite(base, standIn, base.Host, []string{given.URL}, []auth.Credentials{standIn.Credentials}, &r.opts)
	case s == nil:
		var urls []string
		for _, e := range r.opts.Endpoints {
			if e.StandIn == nil {
				urls = append(urls, e.URL)
			}
		}
		creds := append([]auth.Credentials{r.opts.Credentials}, r.opts.Fallback...)
		s, err = newSite(base, nil, r.opts.Name, urls, creds, &r.opts)
		r.own = s
	}
	if err != nil {
		return err
	}
	if !slices.Contains(r.sites, s) {
		r.sites = append(r.sites, s)
	}
	e, err := newEndpoint(base, given.StandIn != nil, &r.opts)
	if err != nil {
		return err
	}
	e.realms = r.realms(e, e.transport, auth.NewTrust(base, known, r.opts.TrustedRealms))
	e.site = s
	e.cascade = r.opts.Instance != "" && mayCascade(base, r.opts.Name, given.StandIn != nil)
	r.endpoints = append(r.endpoints, e)
	return nil
}

func (o *Options) setDefaults() {
	setDefault(&o.MaxConnections, defaultConnections)
	setDefault(&o.Timeouts.Connect, defaultConnect)
	setDefault(&o.Timeouts.TLS, defaultTLS)
	setDefault(&o.Timeouts.FirstByte, defaultFirstByte)
	setDefault(&o.Timeouts.Stall, defaultStall)
	setDefault(&o.Timeouts.Answer, defaultAnswer)
	setDefault(&o.Retry.Attempts, defaultAttempts)
	setDefault(&o.Retry.Backoff, defaultBackoff)
	setDefault(&o.Retry.MaxBackoff, defaultMaxBackoff)
	setDefault(&o.UserAgent, "forebay")
	setDefault(&o.Names.TrustedRealms, "the trusted realms")
	setDefault(&o.Names.MaxConnections, "all connections")
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// dialing returns how connections are made.
func (o *Options) dialing() dial.Options {
	return dial.Options{
		AllowPrivate: o.AllowPrivate, AllowPrivateName: o.Names.AllowPrivate, Stranger: o.Stranger, Ours: o.Ours, TLS: o.TLS, Proxy: o.Proxy, Environment: o.Environment, Bandwidth: o.Bandwidth, Family: o.Family,
		Connect: o.Timeouts.Connect, Handshake: o.Timeouts.TLS, FirstByte: o.Timeouts.FirstByte, IdleConns: o.MaxConnections,
		Dial: o.Dial, Lookup: o.Lookup,
	}
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Name returns the public name of the registry.
func (r *Registry) Name() string { return r.opts.Name }

// Close ends token requests in progress, waits for them, and closes idle connections.
// Bodies that are open stay open.
func (r *Registry) Close() {
	r.stop()
	r.tokens.Close()
	r.work.Wait()
	for _, e := range r.endpoints {
		e.transport.CloseIdleConnections()
		e.outside.CloseIdleConnections()
	}
}

// endpoint is one base URL of a registry. Each has its own connections, so that one
// that hangs holds up no other.
type endpoint struct {
	base      *url.URL     // scheme, host, path without a slash at its end
	realms    *auth.Realms // token servers that it may name
	dialer    *dial.Dialer
	transport *http.Transport // for the endpoint itself and its token server
	outside   *http.Transport // for redirect targets, which must not see a client certificate
	// challenge is how this endpoint wants us to authenticate; nil until it has said so.
	challenge atomic.Pointer[auth.Challenge]
	// met are the challenges that let us through, by repository: behind one endpoint may be several
	// registries, or one that has other names.
	met        *lru.Cache[string, *auth.Challenge]
	renames    atomic.Bool            // it has other names
	distrusted atomic.Pointer[string] // the token server that the log warned of
	site       *site
	cascade    bool // it may be another Forebay
	breaker    governor.Breaker
	// noReferrers is the time (Unix nanoseconds) until which only the tag schema is asked.
	noReferrers atomic.Int64
	open        atomic.Int64 // likewise, until which its root need not be asked for a challenge
}

// parseBase reads the base URL of an endpoint.
func parseBase(raw string) (*url.URL, error) {
	base, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf("endpoint: %w", wire.RedactError(err))
	case base.Scheme != "https" && base.Scheme != "http":
		return nil, fmt.Errorf("endpoint %q: the scheme must be https or http", wire.Redact(raw))
	case base.User != nil:
		return nil, fmt.Errorf("endpoint %q: a user belongs in the credentials", base.Redacted())
	case base.Hostname() == "" || base.RawQuery != "" || base.Fragment != "" || base.Opaque != "":
		return nil, fmt.Errorf("endpoint %q: need scheme, host and nothing after the path", wire.Redact(raw))
	}
	return &url.URL{Scheme: base.Scheme, Host: strings.ToLower(base.Host), Path: strings.TrimSuffix(base.Path, "/")}, nil
}

func newEndpoint(base *url.URL, standIn bool, opts *Options) (_ *endpoint, err error) {
	e := &endpoint{base: base}
	if e.met, err = lru.New[string, *auth.Challenge](challengesKept); err != nil {
		return nil, err
	}
	if e.dialer, err = dial.New(base, opts.dialing()); err != nil {
		return nil, err
	}
	if e.transport, err = e.dialer.Transport(); err != nil {
		return nil, err
	}
	e.outside = e.transport
	if opts.TLS.CertFile != "" {
		e.outside = e.transport.Clone()
		e.outside.TLSClientConfig.Certificates = nil
	}
	if standIn { // it is somebody else
		e.transport = e.outside
	}
	return e, nil
}

// url returns the URL of a path below the endpoint, such as "/v2/a/b/tags/list". The
// path needs no escaping: its parts are valid names, tags and digests.
func (e *endpoint) url(path, query string) *url.URL {
	u := *e.base
	u.Path += path
	u.RawQuery = query
	return &u
}

// sameOrigin reports whether u has exactly the endpoint's scheme, host and port.
func (e *endpoint) sameOrigin(u *url.URL) bool {
	return u.Scheme == e.base.Scheme && dial.HostPort(u) == dial.HostPort(e.base)
}
