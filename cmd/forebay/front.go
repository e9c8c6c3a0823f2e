package main

import (
	"net/http"
	"slices"
	"strings"

	"forebay/cache"
	"forebay/config"
	"forebay/internal/authn"
	"forebay/internal/command"
	"forebay/internal/wire"
	"forebay/proxy"
	"forebay/upstream"
	"forebay/upstream/hubapi"
	"forebay/upstream/issue"
)

// front is the part of a mirror that another configuration replaces: the clients of the registries,
// and what answers requests. It is not changed once a request is answered by it.
type front struct {
	settings *config.Config
	clients  []registryClient
	handler  *proxy.Handler
	auth     *authn.Authenticator // nil where nobody is told apart
	roles    []roleOf             // of operators, the greatest first
	doors    []http.Handler       // what each listener serves; none in a command
}

// registryClient is what asks a registry.
type registryClient struct {
	*upstream.Registry
	issuer *issue.Issuer  // nil where nobody hands out credentials
	api    *hubapi.Client // nil but for Docker Hub
	dates  *hubapi.Dates  // by that
}

func (r registryClient) Close() {
	r.Registry.Close()
	if r.issuer != nil {
		r.issuer.Close()
	}
	if r.api != nil {
		r.api.Close()
	}
}

// newFront returns the front for c without its handler, and how the cache uses its registries. What
// c says of a registry as was did is asked by the same client, which knows its limits; files is
// whether the files that c names may have changed.
func (m *mirror) newFront(c *config.Config, was *front, files bool) (*front, map[string]cache.UpstreamOptions, error) {
	f := &front{settings: c}
	var differing []string
	if was != nil {
		differing = was.settings.Differing(c)
	}
	upstreams := make(map[string]cache.UpstreamOptions, len(c.Upstreams))
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		r := was.client(u.Name)
		if r.Registry == nil || asksOtherwise(u, differing, files) {
			o := registryOptions(u, m.build.version, m.Log.Named("upstream"))
			o.Instance, o.Ours, o.Replaces = m.instance, &m.ours, r.Registry
			var err error
			if r.issuer, err = newIssuer(u, &o); err != nil {
				return nil, nil, command.Usage(err)
			}
			if r.Registry, err = upstream.New(o); err != nil {
				return nil, nil, command.Usage(err)
			}
			if r.api, r.dates, err = newDates(u, o); err != nil {
				return nil, nil, command.Usage(err)
			}
		}
		f.clients = append(f.clients, r)
		upstreams[u.Name] = upstreamOptions(u, m.shared(c, r.Registry), c.Catalog)
	}
	return f, upstreams, nil
}

// client returns the client of a registry; the zero value for none.
func (f *front) client(name string) registryClient {
	if f == nil {
		return registryClient{}
	}
	i := slices.IndexFunc(f.clients, func(r registryClient) bool { return r.Name() == name })
	if i < 0 {
		return registryClient{}
	}
	return f.clients[i]
}

// asksOtherwise reports whether another client is needed for a registry, of whose keys some differ,
// or whose files may: those that clients read once.
func asksOtherwise(u *config.Upstream, differing []string, files bool) bool {
	cached := []string{ // what only the cache goes by
		"aliases", "tag_ttl", "tag_rules", "refresh_ahead", "stale_if_error", "on_gone", "access_ttl", "access", "pass_through", "offline", "parallel", "trust",
	}
	name := u.Name
	if u.Stranger {
		name = config.AnyRegistry
	}
	return files && (u.CAFile != "" || u.ClientCertFile != "" || u.DockerConfig != "") || slices.ContainsFunc(differing, func(key string) bool {
		key, of := strings.CutPrefix(key, "upstreams."+name+".")
		end := strings.IndexAny(key+".", ".[")
		return of && !slices.Contains(cached, key[:end])
	})
}

// names returns what names of images mean.
func (m *mirror) names() *wire.Registries { return m.front.Load().handler.Registries() }

func (m *mirror) registries() []*upstream.Registry {
	clients := m.front.Load().clients
	all := make([]*upstream.Registry, len(clients))
	for i, r := range clients {
		all[i] = r.Registry
	}
	return all
}
