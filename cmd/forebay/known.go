package main

import (
	"context"

	"go.uber.org/zap"

	"forebay/config"
	"forebay/internal/logkey"
	"forebay/upstream/auth"
)

// tellOfStrangers warns of docker configs in which nothing is for the registry that they are given
// for, which is then asked anonymously, or which cannot be used.
func tellOfStrangers(ctx context.Context, c *config.Config, log *zap.Logger) {
	for _, u := range c.Upstreams {
		var own []string
		accounts := append([]config.Account{u.Account}, u.FallbackCredentials...)
		for _, e := range u.Endpoints {
			if !e.StandIn {
				own = append(own, e.URL)
			}
		}
		for _, a := range accounts {
			if a.DockerConfig == "" || u.Offline {
				continue
			}
			if known, err := auth.Known(ctx, credentials(a), u.Name, own); !known && ctx.Err() == nil {
				log.Warn("docker_config has no credentials for its registry", logkey.Upstream(u.Name), logkey.Path(a.DockerConfig), logkey.Err(err))
			}
		}
	}
}
