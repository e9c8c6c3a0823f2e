package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"forebay/cache"
	"forebay/config"
	"forebay/internal/logkey"
	"forebay/upstream"
	"forebay/upstream/auth"
)

// credentials returns an account as the registry's client takes it. A file is read again
// when it changes, so it goes before what was read from it.
func credentials(a config.Account) auth.Credentials {
	c := auth.Credentials{Match: a.Match, Username: a.Username, DockerConfig: a.DockerConfig, PasswordFile: a.PasswordFile}
	if c.PasswordFile == "" {
		c.Password = a.Password.Reveal()
	}
	return c
}

func endpoints(u *config.Upstream) []upstream.Endpoint {
	list := make([]upstream.Endpoint, 0, len(u.Endpoints))
	for _, e := range u.Endpoints {
		one := upstream.Endpoint{URL: e.URL}
		if e.StandIn {
			one.StandIn = &upstream.StandIn{From: e.From, To: e.To, Tags: e.Tags, Credentials: credentials(e.Account)}
		}
		list = append(list, one)
	}
	return list
}

func upstreamOptions(u *config.Upstream, r cache.Upstream, lists config.Catalog) cache.UpstreamOptions {
	o := cache.UpstreamOptions{
		Upstream: r, TagTTL: u.TagTTL, RefreshAhead: u.RefreshMinPulls, Offline: u.Offline,
		Parallel: u.Parallel, MaxConnections: u.MaxConnections, Trust: u.TrustDomain(), Credentialed: u.Credentialed(),
	}
	for _, rule := range u.TagRules {
		ttl := rule.TTL
		if ttl == config.Forever {
			ttl = cache.Forever
		}
		o.TagRules = append(o.TagRules, cache.TagRule{Match: rule.Match, TTL: ttl})
	}
	switch u.StaleIfError {
	case config.Forever: // is 0 for the cache
	case 0:
		o.StaleIfError = time.Nanosecond
	default:
		o.StaleIfError = u.StaleIfError
	}
	o.Unlisted = lists == config.CatalogOff || lists == config.CatalogOwn && (o.Credentialed || u.Access == config.AccessUpstream)
	if u.PassThrough && !o.Credentialed { // in our own name there is nothing to be had
		o.RefreshAhead = 0
	}
	if o.Credentialed && !u.PassThrough {
		o.AccessTTL = u.AccessTTL
	}
	if u.OnGone == config.GoneDrop {
		o.OnGone = cache.Drop
	}
	return o
}

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
