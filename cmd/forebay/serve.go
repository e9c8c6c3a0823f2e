package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"forebay/config"
	"forebay/internal/admin"
	"forebay/internal/carry"
	"forebay/internal/command"
	"forebay/internal/logkey"
	"forebay/internal/notify"
	"forebay/internal/observe"
	"forebay/internal/page"
	"forebay/internal/server"
)

func newServe(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Start the mirror",
		Long: `Starts the mirror and runs until SIGTERM or SIGINT. Then it takes no new requests and
lets running transfers finish within shutdown_grace (30s). A second signal ends it at
once; what clients have received is safe either way.

Without any settings it mirrors docker.io, gcr.io, ghcr.io, mcr.microsoft.com,
public.ecr.aws, quay.io and registry.k8s.io without credentials, listens on :5000, and
keeps what it pulls in /var/lib/forebay (as root) or ~/.local/share/forebay. It prints
how to point clients at it.

All settings are described by "forebay config reference".`,
		Example: `  forebay serve
  forebay serve --listen 127.0.0.1:5000 --storage-dir /srv/forebay
  forebay serve --config /etc/forebay/forebay.yaml

  # Docker Hub with an account, without a file:
  FOREBAY_UPSTREAMS_DOCKER_IO_USERNAME=someone \
  FOREBAY_UPSTREAMS_DOCKER_IO_PASSWORD_FILE=/run/secrets/hub forebay serve`,
		Args: cobra.NoArgs,
	}
	load := command.ConfigFlags(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load("")
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		// After the first signal the default comes back, so that the second one kills.
		context.AfterFunc(ctx, stop)
		hangups := make(chan os.Signal, 1) // one more, while another is followed, is enough
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
		return serve(ctx, c, func() (*config.Config, error) { return load("") }, hangups, p)
	}
	return cmd
}

// serve runs a mirror until ctx is done and everything has stopped. At each of hangups it reads the
// configuration again, by load.
func serve(ctx context.Context, c *config.Config, load func() (*config.Config, error), hangups <-chan os.Signal, p command.Process) (err error) {
	l, lines := observe.NewLogs(c.Log, p.Stderr), &lastLines{}
	l.Log = lines.besides(l.Log)
	log := l.Log
	defer func() { _ = log.Sync() }() // a terminal cannot be synced
	b := thisBuild()
	log.Info("starting", zap.String("version", b.version), zap.String("revision", b.revision), zap.String("config", c.File))
	command.LimitMemory(p.Env, log)
	for _, w := range c.Warnings() {
		log.Warn("setting may not be meant", zap.String("key", w.Key), zap.String("why", w.Problem), zap.Stringer("where", w.Where))
	}

	var flush func() error
	l.Access, flush = observe.NewAccessLog(c.Log, p.Stderr)
	defer func() { err = errors.Join(err, flush()) }()
	m, err := newMirror(c, b, l)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, m.Close())
		if err != nil {
			log.Error("stopped", logkey.Err(err))
		} else {
			log.Info("stopped")
		}
	}()
	if m.audit, err = newAudit(c, log.Named("audit")); err != nil {
		return err
	}
	targets, err := carry.Targets(c, toTargets(&m.ours, log.Named("notify")))
	if err != nil {
		return err
	}
	m.notify = notify.New(hostname(), targets)
	if err := reachBucket(ctx, m.bucket, log); err != nil {
		return err
	}
	m.cache.Store().Restore(ctx)
	m.rules.Look()
	sets, err := newSets(c, m, log)
	if err != nil {
		return err
	}
	api, err := newAPI(c, m, sets, b, lines, log)
	if err != nil {
		return err
	}
	if api != nil {
		defer api.Close()
	}
	operators, err := m.operators(ctx, c, api)
	if err != nil {
		return err
	}
	dashboard, err := page.New()
	if err != nil {
		return err
	}
	ready := m.newReadiness(log)
	m.watch(ready)
	webhooks := newWebhooks(m)
	if err := m.front.Load().openDoors(c, nil, m.rights, log.Named("auth")); err != nil {
		return err
	}
	clients := m.clients(c)
	if c.Webhooks.OnListen {
		clients[0] = besides(clients[0], webhooks)
	}
	o := admin.Options{
		Ready: ready.ready, Ailing: m.trouble.Public, Metrics: m.metrics.Handler(), Profiles: c.AdminPprof, Version: b.version,
		Webhooks: webhooks, API: api, Page: dashboard,
	}
	if operators != nil {
		o.Fleet = operators
	}
	s, err := newServers(c, clients, o, ready, log)
	if err != nil {
		return err
	}
	peers, inFleet, err := m.openPeers(c, operators, log.Named("fleet"))
	if err != nil {
		return err
	}
	if peers != nil {
		s.registries = append(s.registries, peers)
	}
	for _, one := range s.all() {
		m.ours.Add(one.Addr())
	}
	tellClients(c, p, s.registries[0].Addr(), log)
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady) // for systemd's Type=notify; without it nobody is told
	command.ForgetStart()
	reload := reloader{m, api, load}
	return s.run(ctx, m.run, inFleet, m.notify.Run, sets.Run, func(ctx context.Context) error { return reload.run(ctx, hangups) })
}

// servers are all listeners.
type servers struct {
	registries []*server.Server // in the order of the configuration's doors; the last one may be that for other mirrors
	admin      *server.Server   // nil when it is off
}

func (s *servers) all() []*server.Server {
	if s.admin == nil {
		return s.registries
	}
	return append(slices.Clone(s.registries), s.admin)
}

// newServers opens all listeners and answers nobody yet. clients are what those of the registry API
// serve, operators what the admin listener serves, if there is one.
func newServers(c *config.Config, clients []http.Handler, operators admin.Options, ready *readiness, log *zap.Logger) (*servers, error) {
	s := &servers{}
	stopping := sync.OnceFunc(func() {
		ready.stopping.Store(true)
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) // as above
		log.Info("stopping", zap.Duration("grace", c.ShutdownGrace))
	})
	for i, l := range c.Doors() {
		key, flag := "listen", "--listen"
		if i > 0 {
			key, flag = fmt.Sprintf("listeners[%d]", i), ""
		}
		one, err := server.New(server.Options{
			Addr: l.Address, Handler: clients[i],
			TLSCert: l.TLS.CertFile, TLSKey: l.TLS.KeyFile, ClientCAs: l.ClientCAFile,
			ACME: authority(c, l.TLS.ACME), HTTP2: c.HTTP2, Proxies: l.Proxies,
			ShutdownGrace: max(c.ShutdownGrace, time.Nanosecond), // 0 would mean the server's default
			Sharing:       len(clients),
			Draining:      stopping,
			Log:           log.Named("server"),
		})
		if err != nil {
			return nil, command.Usage(fmt.Errorf("%s: tls: %w", key, err))
		}
		if err := one.Listen(); err != nil {
			return nil, listenError(c, key, flag, err)
		}
		s.registries = append(s.registries, one)
	}
	if c.AdminListen == "" {
		return s, nil
	}
	var err error
	s.admin, err = server.New(server.Options{
		Addr: c.AdminListen, Handler: admin.New(operators),
		Draining: func() {
			if operators.API != nil {
				operators.API.Stop() // what it does for operators ends with the listener
			}
		},
		TLSCert: c.AdminTLS.CertFile, TLSKey: c.AdminTLS.KeyFile, ACME: authority(c, c.AdminTLS.ACME), ClientCAs: c.AdminClientCAFile, HTTP2: c.HTTP2,
		MaxConnections: adminConnections,
		ShutdownGrace:  adminGrace, Log: log.Named("admin"),
	})
	if err != nil {
		return nil, command.Usage(fmt.Errorf("admin_tls: %w", err))
	}
	if err := s.admin.Listen(); err != nil {
		return nil, listenError(c, "admin_listen", "--admin-listen", err)
	}
	return s, nil
}

// authority certifies a listener. All have one folder, so that each answers an authority that checks
// the names of another: only one of them has port 443.
func authority(c *config.Config, a config.ACME) server.ACME {
	return server.ACME{Hosts: a.Hosts, Directory: a.Directory, CAFile: a.CAFile, Email: a.Email, Folder: filepath.Join(c.Storage.Dir, "acme")}
}

// adminConnections are more than all who operate it and all that scrape it have.
const adminConnections = 128

// adminGrace is short: nothing that the admin listener answers takes long.
const adminGrace = 2 * time.Second

// run serves until ctx is done or something fails. The work in the background and the
// admin listener go on until the last client has been served.
func (s *servers) run(ctx context.Context, background ...func(context.Context) error) error {
	after, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer end()
		clients, serving := errgroup.WithContext(serving)
		for _, one := range s.registries {
			clients.Go(func() error { return one.Serve(serving) })
		}
		return clients.Wait()
	})
	for _, work := range background {
		group.Go(func() error { return untilDone(after, work) })
	}
	if s.admin != nil {
		group.Go(func() error { return s.admin.Serve(after) })
	}
	return group.Wait()
}

// untilDone runs f, for which the end of ctx is no error.
func untilDone(ctx context.Context, f func(context.Context) error) error {
	err := f(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// tellClients says how to point clients at the mirror: to people in words to copy, and
// to a log collector as an event.
func tellClients(c *config.Config, p command.Process, addr net.Addr, log *zap.Logger) {
	if observe.ForPeople(c.Log.Format, p.Stderr) {
		fmt.Fprint(p.Stderr, clientHints(c, addr, hostname()))
		return
	}
	log.Info("point clients here", zap.String("dashboard", dashboardURL(c)), zap.String("registry-mirrors", baseURL(c, addr)), zap.Strings("upstreams", c.UpstreamNames()))
}
