package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/time/rate"

	"forebay/cache"
	"forebay/cache/event"
	"forebay/cache/s3"
	"forebay/cache/store"
	"forebay/cache/tier"
	"forebay/cache/upkeep"
	"forebay/config"
	"forebay/internal/access"
	"forebay/internal/activity"
	"forebay/internal/allowance"
	"forebay/internal/audit"
	"forebay/internal/command"
	"forebay/internal/fleet"
	"forebay/internal/metrics"
	"forebay/internal/nodes"
	"forebay/internal/notify"
	"forebay/internal/observe"
	"forebay/internal/rules"
	"forebay/internal/trouble"
	"forebay/internal/wire"
	"forebay/proxy"
	"forebay/upstream"
	"forebay/upstream/auth"
	"forebay/upstream/azure"
	"forebay/upstream/dial"
	"forebay/upstream/ecr"
	"forebay/upstream/gcp"
	"forebay/upstream/issue"
)

// mirror is everything between a client's request and the registries. Its owner calls
// Run, and Close once no request is being answered.
type mirror struct {
	cache   *cache.Cache
	keeper  *upkeep.Keeper // of the cache
	rules   *rules.Rules
	front   atomic.Pointer[front]
	retired []registryClient // of fronts before; only takeUp and Close use it
	// reloading is held by who replaces the front, and strangers bounds how often clients cause it.
	reloading   sync.Mutex
	strangers   *rate.Limiter
	instance    string // our name among Forebays, until we end
	ours        dial.Ours
	activity    *activity.Recorder
	clientNames *activity.Names
	nodes       *nodes.List // of the cluster; nil outside of one
	trouble     *trouble.Watch
	metrics     *metrics.Metrics
	traces      *observe.Traces  // nil when they are off
	audit       *audit.Log       // nil when there is none
	notify      *notify.Notifier // nil in a command
	rights      *access.Rights
	signatures  atomic.Pointer[signatures]
	bucket      *s3.Bucket   // nil when there is none
	fleet       *fleet.Fleet // nil when the mirror is alone
	build       build
	observe.Logs
}

// newMirror builds a mirror from its settings and opens its storage. Nothing is contacted.
func newMirror(c *config.Config, b build, l observe.Logs) (_ *mirror, err error) {
	m := &mirror{metrics: newMetrics(c, b), instance: rand.Text(), strangers: newStrangers(), build: b, Logs: l}
	log := l.Log
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if m.fleet, err = m.newFleet(c, log.Named("fleet")); err != nil {
		return nil, err
	}
	f, upstreams, err := m.newFront(c, nil, false)
	if err != nil {
		return nil, err
	}
	m.front.Store(f)
	if m.bucket, err = newBucket(c, version, log.Named("bucket")); err != nil {
		return nil, err
	}
	if m.cache, err = openCache(c, upstreams, tierOptions(c, m.bucket, m.identity), m.tellEvent, m.budget, m.sharing(), log.Named("cache")); err != nil {
		return nil, err
	}
	if err := m.newRules(c, log.Named("policy")); err != nil {
		return nil, err
	}
	if m.rights, err = access.NewRights(m.cache.Life(), m.asking); err != nil {
		return nil, err
	}
	m.keeper = upkeep.New(m.cache, upkeep.Options{ScrubInterval: c.ScrubInterval})
	if m.activity, err = m.newActivity(c, log.Named("activity")); err != nil {
		return nil, command.Usage(err)
	}
	m.trouble = m.newTrouble(c)
	if m.traces, err = observe.NewTraces(&c.Tracing, b.version, log.Named("tracing")); err != nil {
		return nil, command.Usage(fmt.Errorf("tracing: %w", err))
	}
	if f.handler, err = proxy.New(proxyOptions(c, m)); err != nil {
		return nil, command.Usage(err)
	}
	return m, nil
}

// rate returns what is left of the budget of an upstream.
func (m *mirror) rate(name string) (wire.RateLimit, bool) {
	if r := m.front.Load().client(name); r.Registry != nil {
		return r.Rate()
	}
	return wire.RateLimit{}, false
}

// budget returns what a registry gives in a time.
func (m *mirror) budget(name string) (int, time.Duration) {
	r, _ := m.rate(name)
	return int(r.Limit), r.Window
}

// Run does the work of the mirror's cache in the background until ctx is done.
func (m *mirror) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { m.keeper.Run(ctx) })
	work.Go(func() { m.rules.Run(ctx) })
	return m.cache.Run(ctx)
}

// Close closes what newMirror opened. Fills in progress are kept for a later start.
func (m *mirror) Close() error {
	var err error
	if m.cache != nil {
		err = m.cache.Close()
	}
	if m.rights != nil {
		m.rights.Wait()
	}
	if f := m.front.Load(); f != nil {
		m.retired = append(m.retired, f.clients...)
	}
	for _, r := range m.retired {
		r.Close()
	}
	if m.fleet != nil {
		m.fleet.Close()
	}
	if m.bucket != nil {
		m.bucket.Close()
	}
	m.traces.Close()
	if m.audit != nil {
		err = errors.Join(err, m.audit.Close())
	}
	return err
}

// newIssuer lets a platform hand out the credentials of an upstream that wants that; nil for another.
func newIssuer(u *config.Upstream, o *upstream.Options) (i *issue.Issuer, err error) {
	switch u.Credentials {
	case config.CredentialsAWS:
		i, err = ecr.New(ecr.Options{Registry: u.Name, Proxy: o.Proxy, Log: o.Log})
	case config.CredentialsGoogle:
		i = gcp.New(gcp.Options{Registry: u.Name, Log: o.Log})
	case config.CredentialsAzure:
		i = azure.New(azure.Options{Registry: u.Name, Proxy: o.Proxy, Log: o.Log})
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("upstreams.%s.credentials: %w", u.Name, err)
	}
	o.Credentials = auth.Credentials{Issuer: i}
	return i, nil
}

func registryOptions(u *config.Upstream, version string, log *zap.Logger) upstream.Options {
	o := upstream.Options{
		Name:          u.Name,
		Endpoints:     endpoints(u),
		Credentials:   credentials(u.Account),
		Reserve:       u.Reserve,
		TrustedRealms: u.TrustedRealms, ForeignHosts: u.ForeignHosts, Stranger: u.Stranger,
		Names:        upstream.Names{TrustedRealms: "upstreams." + u.Name + ".trusted_realms", MaxConnections: "max_connections", AllowPrivate: "allow_private"},
		AllowPrivate: u.AllowPrivate,
		TLS:          dial.TLS{CAFile: u.CAFile, CertFile: u.ClientCertFile, KeyFile: u.ClientKeyFile},
		Proxy:        proxyURL(u),
		Environment:  httpproxy.FromEnvironment(),
		Bandwidth:    dial.NewBandwidth(u.Bandwidth, u.BandwidthHours...),
		Family:       family(u.AddressFamily),
		Timeouts: upstream.Timeouts{
			Connect: u.ConnectTimeout, TLS: u.TLSTimeout, FirstByte: u.FirstByteTimeout, Stall: u.StallTimeout,
		},
		MaxConnections: u.MaxConnections,
		UserAgent:      "forebay/" + version,
		Log:            log,
	}
	for _, a := range u.FallbackCredentials {
		o.Fallback = append(o.Fallback, credentials(a))
	}
	if u.Limited == config.LimitedWait {
		o.LimitedWait = u.LimitedWait
	}
	return o
}

func family(f config.AddressFamily) dial.Family {
	switch f {
	case config.IPv4Family:
		return dial.IPv4Only
	case config.IPv6Family:
		return dial.IPv6Only
	default:
		return dial.AnyFamily
	}
}

// proxyURL returns the proxy of an upstream with its user, or nil.
func proxyURL(u *config.Upstream) *url.URL {
	if u.Proxy == "" {
		return nil
	}
	p, err := url.Parse(u.Proxy)
	if err != nil {
		panic("wire: config let through the proxy of " + u.Name)
	}
	if u.ProxyUsername != "" {
		p.User = url.UserPassword(u.ProxyUsername, u.ProxyPassword.Reveal())
	}
	return p
}

func openCache(c *config.Config, upstreams map[string]cache.UpstreamOptions, bucket *tier.Options, tell func(event.Event), budget allowance.Budget, sharing cache.Fleet, log *zap.Logger) (*cache.Cache, error) {
	most, free, err := bounds(c.Storage)
	if err != nil {
		return nil, openError(c, err)
	}
	negative := c.NegativeTTL
	if negative == 0 {
		negative = -1 // what the cache calls never
	}
	opened, err := cache.Open(cache.Options{
		Store: store.Options{
			Dir: c.Storage.Dir, IndexDir: c.Storage.IndexDir, MaxBytes: most, MinFree: free, MaxAge: c.Storage.MaxAge,
			Bucket: bucket, OnEvent: tell, Log: log,
		},
		Upstreams:         upstreams,
		Pins:              c.Pins,
		RevalidateTimeout: c.RevalidateTimeout,
		NegativeTTL:       negative,
		CancelAbandoned:   c.OnAbandon == config.AbandonCancel,
		OnlyRanges:        c.OnRange == config.RangeOnly,
		Limits:            limits(c.Limits),
		Budget:            budget,
		Fleet:             sharing,
	})
	if err != nil {
		return nil, openError(c, err)
	}
	return opened, nil
}

func limits(l config.Limits) allowance.Limits {
	return allowance.Limits{
		NewPerMinute: l.NewPerMinute, Pulls: l.Pulls, Share: l.BudgetShare, Fills: l.Fills,
		RequestsPerSecond: l.RequestsPerSecond, Transfers: l.Transfers, BytesPerSecond: l.BytesPerSecond,
	}
}

// bounds returns how much may be kept and how much is to be left free; 0 in the
// configuration is "auto", which is the store's to say.
func bounds(s config.Storage) (most, free int64, err error) {
	if most = s.MaxSize; most == 0 {
		if most, err = store.AutoMaxBytes(s.Dir); err != nil {
			return 0, 0, err
		}
	}
	if free = s.MinFree; free == 0 {
		free, err = store.AutoMinFree(s.Dir)
	}
	return most, free, err
}

func proxyOptions(c *config.Config, m *mirror) proxy.Options {
	aliases := make(map[string][]string, len(c.Upstreams))
	for _, u := range c.Upstreams {
		aliases[u.Name] = u.Aliases
	}
	o := proxy.Options{
		Cache:     m.cache,
		Upstreams: aliases,
		Hosts:     c.Hosts,
		Others:    m.meet,
		Fallback:  proxy.FallbackClients,
		Instance:  m.instance,
		Trusted:   c.Trusted,
		Rates:     m.rate,
		Observe:   m.observe,
		Past:      past{m.rules},
		Tracer:    m.traces.Tracer(),
		Log:       m.Log.Named("proxy"),
	}
	if c.Storage.S3.Redirect {
		o.Redirect = m.cache.Redirect
	}
	if c.Fallback == config.FallbackNone {
		o.Fallback = proxy.FallbackNone
	}
	if c.Log.Access {
		o.AccessLog = m.Access
	}
	return o
}
