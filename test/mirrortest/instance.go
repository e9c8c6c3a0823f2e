package mirrortest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"forebay/cache"
	"forebay/cache/upkeep"
	"forebay/internal/server"
	"forebay/internal/wire"
	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/upstream"
)

// instance is a mirror between a start and a stop.
type instance struct {
	addr       string
	registries []*upstream.Registry
	cache      *cache.Cache
	keeper     *upkeep.Keeper
	cancel     context.CancelFunc // ends the server
	work       errgroup.Group     // server and cache
}

func start(m *Mirror) (_ *instance, err error) {
	i := &instance{}
	if m.opts.Instance == "" {
		m.opts.Instance = rand.Text()
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.close())
		}
	}()
	options := m.opts.Cache
	options.Store.Dir, options.Store.Log = m.Dir, m.log.Named("cache")
	options.Upstreams = map[string]cache.UpstreamOptions{}
	for name, u := range m.opts.upstreams() {
		r, err := i.registry(m, name, u)
		if err != nil {
			return nil, err
		}
		u.Fetch.Upstream, u.Fetch.TagTTL = r, tagTTL(m.opts.TagTTL)
		options.Upstreams[name] = u.Fetch
	}
	if i.cache, err = cache.Open(options); err != nil {
		return nil, err
	}
	i.cache.Store().Restore(context.Background())
	i.keeper = upkeep.New(i.cache, m.opts.Upkeep)
	handler, err := proxy.New(proxy.Options{
		Cache:     i.cache,
		Redirect:  i.cache.Redirect,
		Upstreams: m.opts.aliases(),
		Hosts:     m.opts.Hosts,
		Default:   m.opts.defaultUpstream(),
		Fallback:  m.opts.Fallback,
		Instance:  m.opts.Instance,
		Trusted:   m.opts.Trusted,
		Rates:     i.rates,
		Log:       m.log.Named("proxy"),
		AccessLog: m.log.Named("access"),
		Observe:   m.opts.Observe,
		Tracer:    m.opts.Tracer,
	})
	if err != nil {
		return nil, err
	}
	s, err := open(strings.TrimPrefix(m.URL, "http://"), server.Options{
		Handler:       handler.Behind(m.opts.Gate),
		ShutdownGrace: max(m.opts.Grace, time.Nanosecond), // 0 would mean the server's default
		Log:           m.log.Named("server"),
	})
	if err != nil {
		return nil, err
	}
	i.addr = s.Addr().String()
	i.run(s)
	return i, nil
}

// tagTTL turns the value of [Options] into that of the cache.
func tagTTL(d time.Duration) time.Duration {
	if d == 0 {
		return time.Minute
	}
	return max(d, 0)
}

// defaultUpstream is Docker Hub, or the only upstream there is.
func (o *Options) defaultUpstream() string {
	all := o.upstreams()
	if _, ok := all["docker.io"]; ok || len(all) != 1 {
		return ""
	}
	for name := range all {
		return name
	}
	return ""
}

// registry makes an upstream that dials nothing but its hub.
func (i *instance) registry(m *Mirror, name string, u Upstream) (*upstream.Registry, error) {
	o := u.Registry
	o.Name, o.Log, o.Instance = name, m.log.Named("upstream"), m.opts.Instance
	if len(o.Endpoints) == 0 {
		o.Endpoints = []upstream.Endpoint{{URL: u.Hub.RegistryURL()}}
	}
	if o.Dial == nil {
		o.Dial = u.Hub.DialContext
	}
	if o.Now == nil {
		o.Now = u.Hub.Now // so that both sides agree when a window ends
	}
	if o.Retry == (upstream.Retry{}) {
		o.Retry = upstream.Retry{Backoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond}
	}
	if len(o.TrustedRealms) == 0 && strings.HasPrefix(u.Hub.RegistryURL(), "http:") {
		// On bare addresses no token server belongs to a registry by its name.
		o.TrustedRealms = []string{hostOf(u.Hub.URL(hubtest.RoleAuth))}
	}
	if o.TLS.CAFile == "" && strings.HasPrefix(u.Hub.RegistryURL(), "https:") {
		o.TLS.CAFile = filepath.Join(m.t.TempDir(), "ca.pem")
		if err := os.WriteFile(o.TLS.CAFile, u.Hub.CAPEM(), 0o600); err != nil {
			return nil, err
		}
	}
	r, err := upstream.New(o)
	if err != nil {
		return nil, err
	}
	i.registries = append(i.registries, r)
	return r, nil
}

// rates tells what is left of an upstream's budget, as the shipped program does.
func (i *instance) rates(name string) (wire.RateLimit, bool) {
	for _, r := range i.registries {
		if r.Name() == name {
			return r.Rate()
		}
	}
	return wire.RateLimit{}, false
}

func hostOf(base string) string {
	_, host, _ := strings.Cut(base, "://")
	return host
}

// open returns a server that listens at addr, on a free port if it is empty. An address
// that was used a moment ago may be refused for a moment.
func open(addr string, o server.Options) (*server.Server, error) {
	o.Addr = addr
	if addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	s, err := server.New(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.Listen()
		if err == nil || addr == "" {
			return s, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("listen again: %w", err)
		}
	}
}

// run serves until stop, and lets the cache work until the last client has been served.
func (i *instance) run(s *server.Server) {
	ctx, cancel := context.WithCancel(context.Background())
	i.cancel = cancel
	after, end := context.WithCancel(context.Background())
	i.work.Go(func() error {
		defer end()
		return s.Serve(ctx)
	})
	i.work.Go(func() error {
		i.keeper.Run(after)
		return nil
	})
	i.work.Go(func() error {
		if err := i.cache.Run(after); after.Err() == nil || !errors.Is(err, after.Err()) {
			return err
		}
		return nil
	})
}

// stop ends everything in the order of the shipped program: listener, transfers, cache,
// registries.
func (i *instance) stop() error {
	i.cancel()
	return errors.Join(i.work.Wait(), i.close())
}

// close closes what holds files and connections.
func (i *instance) close() (err error) {
	if i.cache != nil {
		err = i.cache.Close()
	}
	for _, r := range i.registries {
		r.Close()
	}
	return err
}
