package registries

import (
	"slices"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	tests := []struct{ name, want, endpoint, realm string }{
		{"docker.io", "docker.io", "https://registry-1.docker.io", "auth.docker.io"},
		{"index.docker.io", "docker.io", "https://registry-1.docker.io", "auth.docker.io"},
		{"registry-1.docker.io", "docker.io", "https://registry-1.docker.io", "auth.docker.io"},
		{"registry.hub.docker.com", "docker.io", "https://registry-1.docker.io", "auth.docker.io"},
		{"Docker.IO", "docker.io", "https://registry-1.docker.io", "auth.docker.io"},
		{"dhi.io", "dhi.io", "https://dhi.io", "dhi.io,auth.docker.io"},
		{"ghcr.io", "ghcr.io", "https://ghcr.io", "ghcr.io"},
		{"registry.gitlab.com", "registry.gitlab.com", "https://registry.gitlab.com", "gitlab.com"},
		{"europe-docker.pkg.dev", "europe-docker.pkg.dev", "https://europe-docker.pkg.dev", "europe-docker.pkg.dev"},
		{"mine.azurecr.io", "mine.azurecr.io", "https://mine.azurecr.io", "mine.azurecr.io"},
		{"1.dkr.ecr.eu-west-1.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com", "https://1.dkr.ecr.eu-west-1.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com"},
		{"rg.fr-par.scw.cloud", "rg.fr-par.scw.cloud", "https://rg.fr-par.scw.cloud", "rg.fr-par.scw.cloud,api.scaleway.com"},
		{"registry.corp:5000", "registry.corp:5000", "https://registry.corp:5000", ""},
	}
	for _, test := range tests {
		r := Find(test.name)
		if r.Name != test.want || r.Endpoint != test.endpoint || strings.Join(r.Realms, ",") != test.realm {
			t.Errorf("Find(%q) = %+v, want %s at %s with realm %q", test.name, r, test.want, test.endpoint, test.realm)
		}
	}
}

func TestMirrored(t *testing.T) {
	want := []string{"docker.io", "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "mcr.microsoft.com", "public.ecr.aws"}
	if got := Mirrored(); !slices.Equal(got, want) {
		t.Errorf("Mirrored() = %v, want %v", got, want)
	}
}

func TestPublic(t *testing.T) {
	for host, want := range map[string]bool{
		"registry-1.docker.io": true, "GHCR.io": true, "eu.gcr.io": true, "mine.azurecr.io": true, "registry.gitlab.com": true,
		"docker.io":    false, // a web site
		"ghcr.io:5000": false, "registry.corp:5000": false, "pkg.dev": false, "": false,
	} {
		if got := Public(host); got != want {
			t.Errorf("Public(%q) = %t, want %t", host, got, want)
		}
	}
}
