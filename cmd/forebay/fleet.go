package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"forebay/cache"
	"forebay/config"
	"forebay/config/section"
	"forebay/internal/admin"
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
		Name: hostname(), Zone: o.Zone, Fanout: o.Fanout, Version: m.build.version, Log: log,
	})
	if err != nil {
		return nil, command.Usage(fmt.Errorf("fleet.engine %w", err))
	}
	m.instance = f.Name()
	return f, nil
}

// shared returns what is asked in place of a registry: what other mirrors of the fleet fetch comes from them.
func (m *mirror) shared(c *config.Config, r *upstream.Registry) cache.Upstream {
	if !m.inFleet(c) {
		return r
	}
	m.fleet.Adopt(r)
	return m.fleet.Share(r.Name(), r)
}

// operators makes of the admin API of this mirror that of the fleet, nil where mirrors do not speak with each
// other. What was done while we were away is done by then. The storage folder is ours.
func (m *mirror) operators(ctx context.Context, c *config.Config, api *admin.API) (*fleet.Operators, error) {
	if !m.inFleet(c) {
		return nil, nil
	}
	m.fleet.ShareLimits(m.registries)
	if err := m.fleet.Remember(c.Storage.Dir); err != nil {
		return nil, err
	}
	o := fleet.OperatorsOptions{
		Local: api, Dir: c.Storage.Dir,
		Who: func(r *http.Request) (string, string) {
			who := admin.Asked(r)
			return who.Name, string(who.Role)
		},
		As: func(r *http.Request, name, role string) *http.Request {
			return admin.As(r, admin.Operator{Name: name, Role: admin.Role(role)})
		},
	}
	if m.bucket != nil {
		o.Files = m.bucket
	}
	all := m.fleet.Operators(o)
	all.CatchUp(ctx)
	return all, nil
}

// inFleet reports whether mirrors speak with each other.
func (m *mirror) inFleet(c *config.Config) bool {
	return m.fleet != nil && c.Fleet.Listen != section.FleetOff
}

// replicas returns what this mirror is to its fleet.
func (m *mirror) replicas() []fleet.Replica {
	return []fleet.Replica{m.fleet.Replica(m.front.Load().settings.UpstreamNames())}
}

// openPeers opens the listener for the other mirrors, nil where there are none, and returns what takes part
// in the fleet meanwhile.
func (m *mirror) openPeers(c *config.Config, all *fleet.Operators, log *zap.Logger) (*server.Server, func(context.Context) error, error) {
	o := c.Fleet
	if all == nil {
		return nil, func(context.Context) error { return nil }, nil
	}
	s, err := server.New(server.Options{
		Addr: o.Listen, Handler: all.Peers(m.fleet.Handler(m.cache)), Config: m.fleet.TLS(), ShutdownGrace: max(c.ShutdownGrace, time.Nanosecond), Log: log,
	})
	if err != nil {
		return nil, nil, err
	}
	if err := s.Listen(); err != nil {
		return nil, nil, listenError(c, "fleet.listen", "", err)
	}
	address := fleet.Advertised(o.Advertise, s.Addr())
	return s, func(ctx context.Context) error {
		var work sync.WaitGroup
		work.Go(func() { all.Run(ctx) })
		defer work.Wait()
		return m.fleet.Run(ctx, address)
	}, nil
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
