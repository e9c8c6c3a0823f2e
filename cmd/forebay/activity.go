package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"forebay/cache/event"
	"forebay/config"
	"forebay/internal/activity"
	"forebay/internal/nodes"
	"forebay/internal/notify"
	"forebay/internal/pull"
	"forebay/internal/trouble"
	"forebay/internal/wire"
	"forebay/proxy"
	"forebay/upstream"
	"forebay/upstream/dial"
)

// newActivity returns what remembers who asks m for what.
func (m *mirror) newActivity(c *config.Config, log *zap.Logger) (*activity.Recorder, error) {
	m.nodes = nodes.InCluster(log)
	o := activity.NamesOptions{File: c.ClientNames.File, Nodes: m.nodes.Nodes, Log: log}
	if c.ClientNames.DNS {
		o.LookUp = net.DefaultResolver.LookupAddr
	}
	var err error
	if m.clientNames, err = activity.NewNames(o); err != nil {
		return nil, fmt.Errorf("client_names.file: %w", err)
	}
	return activity.New(activity.Options{Upstreams: c.UpstreamNames(), Received: m.received, Gauges: m.gauges, Names: m.clientNames, Store: m.cache.Store(), Log: log}), nil
}

// run does the work in the background until ctx is done.
func (m *mirror) run(ctx context.Context) error {
	m.tellEvent(event.Event{Kind: event.Started, Detail: "version " + m.build.version})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.Run(ctx) })
	group.Go(func() error { return m.activity.Run(ctx) })
	group.Go(func() error { return m.clientNames.Run(ctx) })
	group.Go(func() error { return m.nodes.Run(ctx) })
	group.Go(func() error { return m.trouble.Run(ctx) })
	group.Go(func() error { return m.trouble.RunInUse(ctx) })
	return group.Wait()
}

// newTrouble returns what knows what is wrong with m.
func (m *mirror) newTrouble(c *config.Config) *trouble.Watch {
	s := trouble.Sources{
		Keeper: m.keeper, Registries: m.registries, Readable: m.cache.Store().Readable, Drill: m.cache.Rehearsal,
		Tell:  m.tellTrouble,
		Names: trouble.Names{MaxSize: "storage.max_size", Limits: "limits in the configuration", MaxConnections: "max_connections"},
	}
	if m.fleet != nil {
		s.Mirrors = m.fleet.Ailing
		s.Away = func() (time.Time, error) {
			n := m.fleet.Figures()
			return n.Since, n.Err
		}
	}
	for _, w := range c.Warnings() {
		s.Notices = append(s.Notices, w.Key+": "+w.Problem)
	}
	return trouble.New(s)
}

// observe takes in a request that was answered.
func (m *mirror) observe(r *proxy.Request) {
	m.metrics.Observe(r)
	if m.audit != nil {
		m.audit.Observe(r)
	}
	q := activity.Request{
		Client: r.Client, User: r.User, UserAgent: r.UserAgent, Upstream: r.Upstream, Repository: r.Repository, Reference: r.Reference,
		Result: string(r.Result), Bytes: r.Bytes, FirstByte: r.FirstByte, Blob: r.Kind == proxy.KindBlob,
		Pull: r.Kind == proxy.KindManifest && r.Method == http.MethodGet && r.Result != proxy.Failed,
	}
	if r.Err != nil {
		q.Fault = pull.Words(r.Err)
		m.trouble.Refused(r.Client, r.Upstream, r.Err)
	}
	m.activity.Observe(&q)
}

// tellEvent takes in what happened in the cache.
func (m *mirror) tellEvent(e event.Event) {
	m.metrics.Event(e.Kind)
	if m.activity == nil { // while the cache is being opened
		return
	}
	m.notify.Tell(e)
	m.activity.Events.Add(activity.Event{
		At: e.At, Kind: string(e.Kind), Upstream: e.Upstream, Repository: e.Repository, Tag: e.Tag,
		Digest: wire.DigestText(e.Digest), Was: wire.DigestText(e.Was), Count: e.Count, Bytes: e.Bytes, Detail: e.Detail, Actor: e.Actor,
	})
}

// gauges tells what the history needs of cache and registries.
func (m *mirror) gauges() activity.Gauges {
	g := activity.Gauges{Budgets: map[string]int64{}, Elsewhere: map[string]int64{}, Upstreams: map[string]activity.Asked{}}
	if s, err := m.keeper.Stats(); err == nil {
		g.UsedBytes, g.Evicted, g.EvictedBytes, g.Again, g.AgainBytes = s.UsedBytes, s.EvictedBlobs, s.EvictedBytes, s.AgainBlobs, s.AgainBytes
	}
	for _, r := range m.registries() {
		s := r.Status()
		g.Upstreams[s.Upstream] = answersOf(r.Figures())
		for _, b := range s.Budgets {
			if b.Limit >= 0 && b.Remaining >= 0 {
				g.Budgets[s.Upstream] += b.Remaining // of all its credentials together
				g.Elsewhere[s.Upstream] += b.Elsewhere
			}
		}
	}
	return g
}

// answersOf adds up what a registry was asked, whatever for.
func answersOf(n upstream.Figures) (a activity.Asked) {
	for kind, outcomes := range n.Requests {
		if upstream.RequestKind(kind) == upstream.Redirect {
			continue // a further hop of what is counted
		}
		for outcome, count := range outcomes {
			a.Requests += count
			switch upstream.RequestOutcome(outcome) {
			case upstream.Limited, upstream.ServerError, upstream.Failed:
				a.Failed += count
			}
		}
		a.Took = a.Took.Plus(n.Latencies[kind])
	}
	return a
}

// tellTrouble takes in that a trouble has begun, or ended.
func (m *mirror) tellTrouble(t trouble.Trouble, ended bool) {
	e := event.Event{At: time.Now(), Kind: event.TroubleBegan, Upstream: t.Upstream, Detail: t.What + ": " + cmp.Or(t.Cause, string(t.Severity))}
	if ended {
		e.Kind, e.Detail = event.TroubleEnded, fmt.Sprintf("%s: over after %s", t.What, time.Since(t.Since).Round(time.Second))
	}
	m.tellEvent(e)
}

// toTargets are the options of what tells the targets of notifications; ours are our own listeners, nil for none.
func toTargets(ours *dial.Ours, log *zap.Logger) notify.Options {
	return notify.Options{Mirror: hostname(), Ours: ours, UserAgent: "forebay/" + version, Log: log}
}
