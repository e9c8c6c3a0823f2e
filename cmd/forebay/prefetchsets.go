package main

import (
	"path/filepath"
	_ "time/tzdata" // for prefetch.time_zone: images of containers have no time zones

	"go.uber.org/zap"

	"forebay/config"
	"forebay/internal/command"
	"forebay/internal/prefetch"
	"forebay/internal/wire"
)

// prefetchState is the file in the storage folder that keeps what became of prefetch sets.
const prefetchState = "prefetch.json"

// newSets returns the prefetch sets of the configuration.
func newSets(c *config.Config, m *mirror, log *zap.Logger) (*prefetch.Sets, error) {
	o := prefetch.SetsOptions{
		Keeper: m.keeper, Registries: m.names, File: filepath.Join(c.Storage.Dir, prefetchState), Log: log.Named("prefetch"),
	}
	for _, s := range c.Prefetch {
		one := prefetch.Set{
			Name: s.Name, Images: s.Images, Files: s.Files, Platforms: s.Platforms, Referrers: s.Referrers, Pin: s.Pin,
			Schedule: s.Schedule, TimeZone: s.TimeZone, Jitter: s.Jitter,
		}
		if len(one.Platforms) == 0 {
			one.Platforms = []string{wire.MachinePlatform()}
		}
		o.Sets = append(o.Sets, one)
	}
	sets, err := prefetch.NewSets(o)
	if err != nil {
		return nil, command.Usage(err)
	}
	return sets, nil
}
