package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpproxy"

	"forebay/cache"
	"forebay/config"
	"forebay/config/parse"
	"forebay/internal/command"
	"forebay/internal/pull"
	"forebay/internal/registries"
	"forebay/internal/rules"
	"forebay/internal/wire"
	"forebay/proxy"
	"forebay/upstream"
	"forebay/upstream/dial"
	"forebay/upstream/hubapi"
)

// newRules has the clients of a mirror served by the policies of its configuration.
func (m *mirror) newRules(c *config.Config, log *zap.Logger) error {
	configured, err := rulesOf(c)
	if err != nil {
		return command.Usage(err)
	}
	client := m.elsewhere()
	signatures, err := newSignatures(c, client)
	if err != nil {
		return err
	}
	m.signatures.Store(signatures)
	m.rules, err = rules.New(rules.Options{Cache: m.cache, Client: client, Updated: m.updated, Signed: m.signed, Log: log}, configured)
	return err
}

// rulesOf returns the policies of a configuration.
func rulesOf(c *config.Config) (all []rules.Configured, err error) {
	for i := range c.Policies {
		p := &c.Policies[i]
		one := rules.Configured{DenyFrom: p.DenyFrom, AllowFrom: p.AllowFrom}
		if one.Rule, err = p.Rule(); err != nil {
			return nil, err
		}
		if one.Rule.Judge {
			one.Judge = rules.Judge{URL: p.Judge.URL, Timeout: p.Judge.Timeout, OnError: string(p.Judge.OnError)}
			if one.Judge.Headers, err = parse.HeaderPairs(p.Judge.Headers.Reveal()); err != nil {
				return nil, fmt.Errorf("policy %s: %w", p.Name, err)
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// newDates returns what Docker Hub's web API is asked by, and dates tags; nil for another registry, and for a
// mirror that asks somebody in its place.
func newDates(u *config.Upstream, o upstream.Options) (*hubapi.Client, *hubapi.Dates, error) {
	if u.Name != wire.Hub || u.Offline || !slices.ContainsFunc(u.Endpoints, func(e config.Endpoint) bool { return !e.StandIn && e.URL == registries.Find(wire.Hub).Endpoint }) {
		return nil, nil, nil
	}
	api, err := hubapi.New(hubapi.Options{Registry: o})
	if err != nil {
		return nil, nil, err
	}
	return api, hubapi.NewDates(api), nil
}

// updated returns since when a registry says that a tag has a digest; zero for one that cannot be asked for free.
func (m *mirror) updated(ctx context.Context, repo cache.Repo, tag string, d v1.Hash) (time.Time, error) {
	if dates := m.front.Load().client(repo.Upstream).dates; dates != nil {
		return dates.Updated(ctx, repo.Name, tag, d)
	}
	return time.Time{}, nil
}

func (m *mirror) elsewhere() *http.Client {
	return &http.Client{Transport: elsewhere{&m.ours}, CheckRedirect: noRedirect}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// elsewhere connects to what the configuration names, private addresses included, and never to this
// mirror or to addresses that no configuration means.
type elsewhere struct{ ours *dial.Ours }

func (e elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	d, err := dial.New(&url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host}, dial.Options{Ours: e.ours, Environment: httpproxy.FromEnvironment()})
	if err != nil {
		return nil, err
	}
	t, err := d.Transport()
	if err != nil {
		return nil, err
	}
	t.DisableKeepAlives = true // a judge is asked once for each digest, and a list once a minute
	return t.RoundTrip(r)
}

// past serves [proxy.Past].
type past struct{ rules *rules.Rules }

func (p past) AsOf(ctx context.Context, repo cache.Repo, tag, at string) (v1.Hash, time.Time, error) {
	e, err := p.rules.AsOf(ctx, repo, tag, at)
	return e.Digest, e.Since, unknownThen(repo, tag, err)
}

func (p past) TagsAsOf(ctx context.Context, repo cache.Repo, at string) ([]string, error) {
	tags, err := p.rules.TagsAsOf(ctx, repo, at)
	return tags, unknownThen(repo, "", err)
}

func (p past) History(repo cache.Repo, tag string) ([]proxy.Held, error) {
	bindings, err := p.rules.History(repo, tag)
	all := make([]proxy.Held, 0, len(bindings))
	for _, b := range slices.Backward(bindings) {
		all = append(all, proxy.Held{Since: b.Since.UTC().Truncate(time.Millisecond), Digest: b.Digest.String()})
	}
	return all, unknownThen(repo, tag, err)
}

// unknownThen is the answer for what was not known: clients must not get what there is today
// from elsewhere in its place.
func unknownThen(repo cache.Repo, tag string, err error) error {
	if !errors.Is(err, rules.ErrNotThen) {
		return err
	}
	return &pull.Error{Kind: pull.NotFound, Detail: pull.ByPolicy, Code: "as-of", Upstream: repo.Upstream, Op: "look for " + repo.Name + ":" + tag, Message: err.Error()}
}

// inPast serves what h does, with the tags of a past: of at, or of what hosts says of the name in Host.
func inPast(h http.Handler, at string, hosts map[string]string) http.Handler {
	if at == "" && len(hosts) == 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		past := at
		if past == "" {
			name, _ := wire.Host(r.Host)
			past = hosts[name]
		}
		if past != "" {
			u := *r.URL
			u.Path, u.RawPath = wire.WithAsOf(u.Path, past), ""
			if r.URL.RawPath != "" {
				u.RawPath = wire.WithAsOf(r.URL.RawPath, past)
			}
			other := *r
			other.URL = &u
			r = &other
		}
		h.ServeHTTP(w, r)
	})
}
