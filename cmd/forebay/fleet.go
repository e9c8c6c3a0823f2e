package main

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"forebay/cache"
	"forebay/config"
	"forebay/config/section"
	"forebay/internal/command"
	"forebay/internal/fleet"
	"forebay/internal/server"
	"forebay/upstream"
)

// newFleet returns what mirrors know together, nil for one that is alone. Nothing is contacted. All mirrors
// of a fleet have one name, so that no request goes round among them.
func (m *mirror) newFleet(c *config.Config, log *zap.Logger) (*fleet.Fleet, error) {
	o := c.Fleet
	if o.Engine == "" {
		return nil, nil
	}
	f, err := fleet.New(fleet.Options{
		Engine: o.Engine, Password: o.Password.Reveal(), Secret: []byte(o.Secret.Reveal()), Identity: m.sharedIdentity,
		Zone: o.Zone, Fanout: o.Fanout, Version: m.build.version, Log: log,
	})
	if err != nil {
		return nil, command.Usage(fmt.Errorf("fleet.engine %w", err))
	}
	m.instance = f.Name()
	return f, nil
}

// shared returns what is asked in place of a registry: what other mirrors of the fleet fetch comes from them.
func (m *mirror) shared(c *config.Config, r *upstream.Registry) cache.Upstream {
	if m.fleet == nil || c.Fleet.Listen == section.FleetOff {
		return r
	}
	m.fleet.Adopt(r)
	return m.fleet.Share(r.Name(), r)
}

// openPeers opens the listener for the other mirrors, nil where there are none, and returns what takes part
// in the fleet meanwhile. The storage folder is ours by then.
func (m *mirror) openPeers(c *config.Config, log *zap.Logger) (*server.Server, func(context.Context) error, error) {
	o := c.Fleet
	if m.fleet == nil || o.Listen == section.FleetOff {
		return nil, func(context.Context) error { return nil }, nil
	}
	m.fleet.ShareLimits(m.registries)
	if err := m.fleet.Remember(c.Storage.Dir); err != nil {
		return nil, nil, err
	}
	s, err := server.New(server.Options{
		Addr: o.Listen, Handler: m.fleet.Handler(m.cache), Config: m.fleet.TLS(), ShutdownGrace: max(c.ShutdownGrace, time.Nanosecond), Log: log,
	})
	if err != nil {
		return nil, nil, err
	}
	if err := s.Listen(); err != nil {
		return nil, nil, listenError(c, "fleet.listen", "", err)
	}
	address := fleet.Advertised(o.Advertise, s.Addr())
	return s, func(ctx context.Context) error { return m.fleet.Run(ctx, address) }, nil
}

// sharing returns the fleet for the cache.
func (m *mirror) sharing() cache.Fleet {
	if m.fleet == nil {
		return nil // and no interface around nothing
	}
	return m.fleet
}

// sharedIdentity is the identity of an upstream whose answers are those of the mirror and not of a client.
func (m *mirror) sharedIdentity(name string) string {
	if u := m.front.Load().settings.Upstream(name); u != nil && u.PassThrough {
		return ""
	}
	return m.identity(name)
}
