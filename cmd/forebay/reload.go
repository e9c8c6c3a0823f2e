package main

import (
	"context"
	"os"
	"strings"

	"go.uber.org/zap"

	"forebay/cache/event"
	"forebay/config"
	"forebay/internal/admin"
	"forebay/internal/carry"
	"forebay/internal/command"
	"forebay/internal/logkey"
	"forebay/internal/observe"
	"forebay/proxy"
)

// reloader takes up another configuration while the mirror runs.
type reloader struct {
	mirror *mirror
	api    *admin.API // nil without an admin listener
	load   func() (*config.Config, error)
}

// run reads the configuration again at each signal, until ctx is done.
func (l *reloader) run(ctx context.Context, signals <-chan os.Signal) error {
	for {
		tellOfStrangers(ctx, l.mirror.front.Load().settings, l.mirror.Log)
		select {
		case <-signals:
			l.reload()
		case <-ctx.Done():
			return nil
		}
	}
}

// reload takes up what can be taken up now and says what cannot. If anything is wrong everything
// stays as it was.
func (l *reloader) reload() {
	m := l.mirror
	m.reloading.Lock()
	defer m.reloading.Unlock()
	was := m.front.Load().settings
	next, err := l.load()
	var c *config.Config
	if err == nil {
		c = takenUp(was, next)
		err = m.takeUp(c, true)
	}
	if err != nil {
		m.Log.Error("new configuration refused, the old one is kept", logkey.Err(err))
		m.cache.Store().Tell(event.Event{Kind: event.ConfigRefused}.Because(err))
		return
	}
	if l.api != nil && !c.AdminToken.Empty() {
		l.api.SetToken(c.AdminToken.Reveal())
	}
	now, later := was.Differing(c), c.Differing(next)
	m.Log.Info("configuration read again", zap.Strings("changed", now), zap.Strings("at-next-start", later))
	detail := "changed: " + strings.Join(now, ", ")
	if len(now) == 0 {
		detail = "nothing changed"
	}
	if len(later) > 0 {
		detail += "; at the next start: " + strings.Join(later, ", ")
		m.Log.Warn("changes wait for the next start", zap.Strings("keys", later))
	}
	m.cache.Store().Tell(event.Event{Kind: event.ConfigReloaded, Detail: detail})
}

// takenUp returns what a mirror that runs by was makes of next: see [config.Live].
func takenUp(was, next *config.Config) *config.Config {
	c := *was
	c.Trusted, c.Fallback, c.Catalog = next.Trusted, next.Fallback, next.Catalog
	c.Limits, c.LimitsOf = next.Limits, next.LimitsOf
	c.Policies, c.Signers, c.AsOf, c.Notify = next.Policies, next.Signers, next.AsOf, next.Notify
	c.Auth, c.Access, c.Authentication = next.Auth, next.Access, next.Authentication
	c.Log.Level, c.Log.Access = next.Log.Level, next.Log.Access
	if !was.AdminToken.Empty() && !next.AdminToken.Empty() { // else who may ask is another question
		c.AdminToken, c.AdminTokenFile = next.AdminToken, next.AdminTokenFile
	}
	if was.Operators.Given() && next.Operators.Given() {
		c.Operators = next.Operators
	}
	c.Upstreams = nil
	c.Others = next.Others
	for _, u := range was.Upstreams {
		other := next.Upstream(u.Name)
		if other == nil && u.Stranger {
			if met, ok := stranger(next, u.Name); ok {
				other = &met
			} else {
				continue
			}
		}
		if other != nil {
			u = *other
		}
		c.Upstreams = append(c.Upstreams, u)
	}
	c.Hosts = map[string]string{}
	for host, name := range next.Hosts {
		if c.Upstream(name) != nil {
			c.Hosts[host] = name
		}
	}
	return &c
}

// takeUp makes the mirror go on by c. Downloads in progress go on as they began. It is called with
// m.reloading; files is whether those that c names may have changed.
func (m *mirror) takeUp(c *config.Config, files bool) error {
	was := m.front.Load()
	f, upstreams, err := m.newFront(c, was, files)
	if err != nil {
		return err
	}
	if f.handler, err = proxy.New(proxyOptions(c, m)); err != nil {
		return command.Usage(err)
	}
	if err := f.openDoors(c, was, m.rights, m.Log.Named("auth")); err != nil {
		return err
	}
	targets, err := carry.Targets(c, toTargets(&m.ours, m.Log.Named("notify")))
	if err != nil {
		return err
	}
	if err := m.cache.Configure(upstreams, limits(c.Limits)); err != nil {
		return command.Usage(err)
	}
	signatures, err := newSignatures(c, m.elsewhere())
	if err != nil {
		return err
	}
	configured, err := rulesOf(c)
	if err == nil {
		m.signatures.Store(signatures)
		err = m.rules.Configure(configured)
	}
	if err != nil {
		return command.Usage(err)
	}
	m.notify.Use(targets)
	m.front.Store(f)
	if files { // else c says of all upstreams that were there what it said
		m.rights.Forget()
	}
	m.Level.SetLevel(observe.LevelOf(c.Log))
	for _, r := range was.clients {
		if f.client(r.Name()) != r {
			m.retired = append(m.retired, r)
		}
	}
	// Downloads may still need theirs. One that outlives so many changes ends with an error.
	const retiredMost = 64
	for len(m.retired) > retiredMost {
		m.retired[0].Close()
		m.retired = m.retired[1:]
	}
	return nil
}
