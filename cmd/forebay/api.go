package main

import (
	"cmp"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"forebay/config"
	"forebay/internal/admin"
	"forebay/internal/logkey"
	"forebay/internal/prefetch"
	"forebay/internal/statefile"
	"forebay/upstream"
	"forebay/upstream/governor"
)

// newAPI returns the admin API of a mirror, which its owner closes before the mirror; nil
// when there is neither an admin listener nor a fleet.
func newAPI(c *config.Config, m *mirror, sets *prefetch.Sets, b build, lines *lastLines, log *zap.Logger) (*admin.API, error) {
	if c.AdminListen == "" && !m.inFleet(c) {
		return nil, nil
	}
	o := m.apiOptions(sets, b, log)
	o.Name, o.Address = hostname(), reachableURL(c)
	o.Support = func() (admin.Support, error) { return support(m, b, lines) }
	o.Price, o.Currency = c.Cost.PerGiB, c.Cost.Currency
	o.Loopback, o.Token = config.OnLoopback(c.AdminListen), c.AdminToken.Reveal()
	dir, err := filepath.Abs(c.Storage.Dir)
	if err != nil {
		return nil, err
	}
	o.SessionsOver = filepath.Join(dir, admin.SessionsOver)
	if o.SessionKey, err = statefile.MakeToken(filepath.Join(dir, admin.SessionKey)); err != nil {
		log.Warn("who is logged in to the dashboard has to log in again after the next start", logkey.Err(err))
	}
	if m.audit != nil {
		o.Audit = m.audit.Action
	}
	if c.Operators.Given() {
		o.Operators = m.operator
	}
	if m.inFleet(c) {
		o.Replicas = m.replicas
	}
	switch {
	case o.Token != "" || c.AdminListen == "":
	case o.Loopback:
		o.TokenFile = filepath.Join(dir, admin.OwnToken)
		o.Token, o.Names.Token = ownToken(o.TokenFile, log), admin.OwnToken+" in the folder of storage.dir"
	case o.Operators == nil:
		log.Info("admin API refuses everybody: admin_listen is not a loopback address and there is neither admin_token_file nor operators")
	}
	return admin.NewAPI(o)
}

// ownToken returns the token that a mirror without a configured one makes for itself. A disk that
// does not take it is no reason not to start: then nobody has the token.
func ownToken(name string, log *zap.Logger) string {
	token, err := statefile.MakeToken(name)
	if err != nil {
		log.Warn("admin API refuses everybody until the next start: the token cannot be kept", zap.String("file", name), logkey.Err(err))
	} else {
		log.Info("admin token is in a file", zap.String("file", name))
	}
	return token
}

// apiOptions are those of the admin API that are the mirror's. Nobody is let in by them yet.
func (m *mirror) apiOptions(sets *prefetch.Sets, b build, log *zap.Logger) admin.APIOptions {
	return admin.APIOptions{
		Keeper: m.keeper, Registries: m.names, Upstream: m.registryStatus, Activity: m.activity, Trouble: m.trouble, Sets: sets, Rules: m.rules,
		Version: b.version, Log: log.Named("admin"),
		Names: admin.Names{Listen: "admin_listen", TokenFile: "admin_token_file", Token: "admin_token or admin_token_file, or what auth knows and operators gives a role"},
	}
}

// spendersMost bounds how many of those who spent a budget are told.
const spendersMost = 20

// registryStatus tells what is known of a registry's limits and endpoints.
func (m *mirror) registryStatus(name string) admin.RegistryStatus {
	if r := m.front.Load().client(name); r.Registry != nil {
		return statusOf(r.Status())
	}
	return admin.RegistryStatus{}
}

// sums adds up what was spent: all, by client, and by repository.
func sums(all []governor.Spending) (total int64, clients, repositories []admin.Spent) {
	byClient, byRepository := map[string]int64{}, map[string]int64{}
	for _, s := range all {
		n := int64(s.Pulls)
		total += n
		byClient[s.Client] += n
		byRepository[s.Repository] += n
	}
	return total, mostSpent(byClient), mostSpent(byRepository)
}

func mostSpent(by map[string]int64) []admin.Spent {
	var list []admin.Spent
	for name, pulls := range by {
		list = append(list, admin.Spent{Name: name, Pulls: pulls})
	}
	slices.SortFunc(list, func(a, b admin.Spent) int { return cmp.Or(cmp.Compare(b.Pulls, a.Pulls), cmp.Compare(a.Name, b.Name)) })
	return list[:min(len(list), spendersMost)]
}

func statusOf(s upstream.Status) admin.RegistryStatus {
	out := admin.RegistryStatus{Limited: s.Limited, Probes: s.Probes, Failovers: s.Failovers}
	for _, b := range s.Budgets {
		one := admin.Budget{
			Credential: b.Credential, Host: b.Host, Limit: b.Limit, Remaining: b.Remaining, WindowSeconds: int64(b.Window.Seconds()),
			SeenAt: b.SeenAt, Low: b.Low, PausedUntil: b.PausedUntil, Why: b.Why, PerHour: b.Rate,
			RunsOut: b.RunsOut, Returns: b.Returns, Elsewhere: b.Elsewhere,
		}
		one.SpentHere, one.SpentByClient, one.SpentByRepository = sums(b.Spent)
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
