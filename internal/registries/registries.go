// Package registries says what is known of public registries by their names alone: under
// which other names clients know them, where they are, and who hands out their tokens.
//
// It is the only such list. What it says can be overridden by the configuration, but for
// the realms: they decide who may see a password, and a wrong one would give it away.
package registries

import (
	"net/url"
	"slices"
	"strings"
)

// Hub is the canonical name of Docker Hub, the only registry whose one-word names mean
// library/NAME.
const Hub = "docker.io"

// Registry is what is known of one registry.
type Registry struct {
	Name     string   // canonical public name, in lower case; with a port if it has one
	Aliases  []string // other names that clients use for it
	Endpoint string   // base URL
	// Realms are the only hosts, besides those that the configuration trusts, whose
	// token server gets credentials. Empty means the rule for unknown registries: the
	// endpoint's own host or registrable domain. Registries on shared domains
	// (*.azurecr.io, *.pkg.dev) would make that rule too wide.
	Realms []string
	// LogsInAs is a registry whose credentials it takes.
	LogsInAs string
	// Mirrored says that it is mirrored when the configuration names no registry.
	Mirrored bool
}

// known are the well-known registries.
func known() []Registry {
	own := func(name string) Registry {
		return Registry{Name: name, Endpoint: "https://" + name, Realms: []string{name}, Mirrored: true}
	}
	return []Registry{
		{
			Name: Hub,
			// regclient, for one, sends ns=registry-1.docker.io.
			Aliases:  []string{"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"},
			Endpoint: "https://registry-1.docker.io", // docker.io itself is a web site
			Realms:   []string{"auth.docker.io"},
			Mirrored: true,
		},
		own("ghcr.io"),
		own("quay.io"),
		own("gcr.io"),
		own("registry.k8s.io"), // asks for no token; manifests redirect to *.pkg.dev
		own("mcr.microsoft.com"),
		own("public.ecr.aws"),
		{
			// Docker Hardened Images: nothing without a login, which is that of Docker Hub.
			Name:     "dhi.io",
			Endpoint: "https://dhi.io",
			Realms:   []string{"dhi.io", "auth.docker.io"},
			LogsInAs: Hub,
		},
		{
			Name:     "registry.gitlab.com",
			Endpoint: "https://registry.gitlab.com",
			Realms:   []string{"gitlab.com"},
		},
	}
}

// sharedDomains are domains below which each registry has another owner, and its token
// server on its own host.
func sharedDomains() []string {
	return []string{".gcr.io", ".pkg.dev", ".azurecr.io", ".amazonaws.com", ".amazonaws.com.cn"}
}

// Find returns what is known of the registry of that public name or alias. For a name that
// is not well known, that is an https endpoint of the same name.
func Find(name string) Registry {
	name = strings.ToLower(name)
	for _, r := range known() {
		if r.Name == name || slices.Contains(r.Aliases, name) {
			return r
		}
	}
	r := Registry{Name: name, Endpoint: "https://" + name}
	switch {
	case onSharedDomain(name):
		r.Realms = []string{name}
	case strings.HasSuffix(name, ".scw.cloud"): // Scaleway: rg.REGION.scw.cloud
		r.Realms = []string{name, "api.scaleway.com"}
	}
	return r
}

// WellKnown reports whether host is the name, an alias or the endpoint of a well-known registry.
func WellKnown(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return slices.ContainsFunc(known(), func(r Registry) bool {
		return r.Name == host || slices.Contains(r.Aliases, host) || r.Endpoint == "https://"+host
	})
}

// Mirrored returns the names of those that are mirrored when the configuration names none.
func Mirrored() []string {
	var names []string
	for _, r := range known() {
		if r.Mirrored {
			names = append(names, r.Name)
		}
	}
	return names
}

// HubAliases returns the other names of Docker Hub.
func HubAliases() []string { return Find(Hub).Aliases }

// Public reports whether host, with its port if it has one, is known to be a public
// registry: a well-known one, or one on a domain that many share.
func Public(host string) bool {
	host = strings.ToLower(host)
	return onSharedDomain(host) || slices.ContainsFunc(known(), func(r Registry) bool { return r.Host() == host })
}

// Host returns the host of the endpoint, with its port if it has one.
func (r Registry) Host() string {
	u, err := url.Parse(r.Endpoint)
	if err != nil {
		return "" // of no registry
	}
	return u.Host
}

func onSharedDomain(host string) bool {
	return slices.ContainsFunc(sharedDomains(), func(domain string) bool { return strings.HasSuffix(host, domain) })
}
