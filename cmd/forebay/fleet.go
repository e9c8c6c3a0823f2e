package main

import (
	"fmt"

	"go.uber.org/zap"

	"forebay/cache"
	"forebay/config"
	"forebay/internal/command"
	"forebay/internal/fleet"
)

// newFleet returns what mirrors know together, nil for one that is alone. Nothing is contacted. All mirrors
// of a fleet have one name, so that no request goes round among them.
func (m *mirror) newFleet(c *config.Config, log *zap.Logger) (*fleet.Fleet, error) {
	o := c.Fleet
	if o.Engine == "" {
		return nil, nil
	}
	f, err := fleet.New(fleet.Options{
		Engine: o.Engine, Password: o.Password.Reveal(), Secret: []byte(o.Secret.Reveal()), Identity: m.sharedIdentity, Log: log,
	})
	if err != nil {
		return nil, command.Usage(fmt.Errorf("fleet.engine %w", err))
	}
	m.instance = f.Name()
	return f, nil
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
