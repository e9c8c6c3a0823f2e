package main

import (
	"net/http"
	"net/url"
	"strings"

	"forebay/cache"
	"forebay/config"
	"forebay/internal/webhook"
)

// newWebhooks returns what registries post to, or nil when that is off.
func newWebhooks(m *mirror) http.Handler {
	secret := m.front.Load().settings.Webhooks.Secret
	if secret.Empty() {
		return nil
	}
	return webhook.New(webhook.Options{
		Secret: secret.Reveal(),
		Log:    m.Log.Named("webhook"),
		Hint: func(registry, repository, tag string) bool {
			name, ok := registryNames(m.front.Load().settings)[strings.ToLower(registry)]
			if !ok {
				return false
			}
			if name == "docker.io" && !strings.Contains(repository, "/") {
				repository = "library/" + repository
			}
			m.cache.Hint(cache.Repo{Upstream: name, Name: repository}, tag)
			return true
		},
	})
}

// besides serves webhooks, if there are any, beside what clients ask for.
func besides(clients, webhooks http.Handler) http.Handler {
	if webhooks == nil {
		return clients
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if webhook.Is(r.URL.Path) {
			webhooks.ServeHTTP(w, r)
		} else {
			clients.ServeHTTP(w, r)
		}
	})
}

// registryNames returns the name of the upstream for each name that its registry may
// call itself by: the upstream's own, its aliases and the hosts of its endpoints.
func registryNames(c *config.Config) map[string]string {
	names := map[string]string{}
	for _, u := range c.Upstreams {
		for _, given := range u.Endpoints {
			if e, err := url.Parse(given.URL); err == nil && !given.StandIn { // a stand-in calls itself what it is
				names[strings.ToLower(e.Host)] = u.Name
			}
		}
	}
	for _, u := range c.Upstreams { // a name is more than a host that several may use
		for _, alias := range u.Aliases {
			names[strings.ToLower(alias)] = u.Name
		}
	}
	for _, u := range c.Upstreams {
		names[strings.ToLower(u.Name)] = u.Name
	}
	return names
}
