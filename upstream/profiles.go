package upstream

import (
	"slices"
	"strings"
)

// Profile is what is known of a registry by its name alone.
type Profile struct {
	Name      string   // canonical public name
	Aliases   []string // other names that clients use for it
	Endpoints []string // base URLs; never empty
	// Realms are the only hosts, besides those that the configuration trusts, whose
	// token server gets credentials. Empty means the rule for unknown registries: the
	// endpoint's own host or registrable domain. Registries on shared domains
	// (*.azurecr.io, *.pkg.dev) would make that rule too wide.
	Realms []string
}

// ProfileFor returns what is known of the registry of that public name or alias. For
// a name that is not well known, that is an https endpoint of the same name.
func ProfileFor(name string) Profile {
	name = strings.ToLower(name)
	for _, p := range wellKnown() {
		if p.Name == name || slices.Contains(p.Aliases, name) {
			return p
		}
	}
	p := Profile{Name: name, Endpoints: []string{"https://" + name}}
	for _, domain := range sharedDomains() {
		if strings.HasSuffix(name, domain) {
			p.Realms = []string{name}
		}
	}
	return p
}

func wellKnown() []Profile {
	own := func(name string) Profile {
		return Profile{Name: name, Endpoints: []string{"https://" + name}, Realms: []string{name}}
	}
	return []Profile{
		{
			Name:      "docker.io",
			Aliases:   []string{"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"},
			Endpoints: []string{"https://registry-1.docker.io"}, // docker.io itself is a web site
			Realms:    []string{"auth.docker.io"},
		},
		own("ghcr.io"),
		own("quay.io"),
		own("gcr.io"),
		own("registry.k8s.io"), // asks for no token; manifests redirect to *.pkg.dev
		own("mcr.microsoft.com"),
		own("public.ecr.aws"),
		{
			Name:      "registry.gitlab.com",
			Endpoints: []string{"https://registry.gitlab.com"},
			Realms:    []string{"gitlab.com"},
		},
	}
}

// sharedDomains are domains below which each registry has another owner, and its token
// server on its own host.
func sharedDomains() []string {
	return []string{".gcr.io", ".pkg.dev", ".azurecr.io", ".amazonaws.com", ".amazonaws.com.cn"}
}
