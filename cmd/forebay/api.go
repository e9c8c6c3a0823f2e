package main

import (
	"net"
	"strings"

	"go.uber.org/zap"

	"forebay/config"
	"forebay/internal/admin"
	"forebay/internal/prefetch"
	"forebay/upstream"
)

// newAPI returns the admin API of a mirror, which its owner closes before the mirror; nil
// when there is no admin listener.
func newAPI(c *config.Config, m *mirror, sets *prefetch.Sets, b build, log *zap.Logger) (*admin.API, error) {
	if c.AdminListen == "" {
		return nil, nil
	}
	loopback := onLoopback(c.AdminListen)
	if !loopback && c.AdminToken.Empty() {
		log.Info("admin API refuses everybody: admin_listen is not a loopback address and there is no admin_token_file")
	}
	o := m.apiOptions(sets, b, log)
	o.Price, o.Currency = c.Cost.PerGiB, c.Cost.Currency
	o.Loopback, o.Token = loopback, c.AdminToken.Reveal()
	return admin.NewAPI(o)
}

// apiOptions are those of the admin API that are the mirror's. Nobody is let in by them yet.
func (m *mirror) apiOptions(sets *prefetch.Sets, b build, log *zap.Logger) admin.APIOptions {
	return admin.APIOptions{
		Keeper: m.keeper, Registries: m.names, Upstream: m.registryStatus, Activity: m.activity, Sets: sets,
		Version: b.version, Log: log.Named("admin"),
		Names: admin.Names{Listen: "admin_listen", Token: "admin_token", TokenFile: "admin_token_file"},
	}
}

// onLoopback reports whether an address to listen on is reachable from this machine only.
func onLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// spendersMost bounds how many of those who spent a budget are told.
const spendersMost = 20

// registryStatus tells what is known of a registry's limits and endpoints.
func (m *mirror) registryStatus(name string) admin.RegistryStatus {
	for _, r := range m.registries {
		if s := r.Status(); s.Upstream == name {
			return statusOf(s)
		}
	}
	return admin.RegistryStatus{}
}

func statusOf(s upstream.Status) admin.RegistryStatus {
	out := admin.RegistryStatus{Limited: s.Limited, Probes: s.Probes, Failovers: s.Failovers}
	for _, b := range s.Budgets {
		one := admin.Budget{
			Credential: b.Credential, Host: b.Host, Limit: b.Limit, Remaining: b.Remaining, WindowSeconds: int64(b.Window.Seconds()),
			SeenAt: b.SeenAt, Low: b.Low, PausedUntil: b.PausedUntil, Why: b.Why, PerHour: b.Rate,
			RunsOut: b.RunsOut, Returns: b.Returns, Elsewhere: b.Elsewhere,
		}
		for _, spent := range b.Spent[:min(len(b.Spent), spendersMost)] {
			one.Spent = append(one.Spent, admin.Spending{Client: spent.Client, Repository: spent.Repository, Pulls: spent.Pulls})
		}
		out.Budgets = append(out.Budgets, one)
	}
	for _, e := range s.Endpoints {
		out.Endpoints = append(out.Endpoints, admin.Endpoint{
			URL: e.URL, StandIn: e.StandIn, Open: e.Open, Failures: e.Failures, NextProbe: e.Until, LastFault: e.Last,
			PausedUntil: e.PausedUntil, Why: e.Why,
		})
	}
	return out
}
