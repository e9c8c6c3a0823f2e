package auth

import (
	"net/url"
	"testing"

	"forebay/internal/registries"
)

func TestTrust(t *testing.T) {
	tests := []struct {
		endpoint, name, realm string
		listed                []string
		want                  bool
	}{
		{"https://registry-1.docker.io", "docker.io", "https://auth.docker.io/token", nil, true},
		{"https://registry-1.docker.io", "docker.io", "https://AUTH.docker.io/token", nil, true},
		{"https://registry-1.docker.io", "docker.io", "https://other.docker.io/token", nil, false},
		{"https://registry-1.docker.io", "docker.io", "https://registry-1.docker.io/token", nil, true},
		{"https://registry-1.docker.io", "docker.io", "https://auth.docker.io:444/token", nil, false},
		{"https://registry-1.docker.io", "docker.io", "http://auth.docker.io/token", nil, false},
		{"https://registry-1.docker.io", "docker.io", "https://auth.docker.io.evil.com/token", nil, false},
		{"https://registry-1.docker.io", "docker.io", "https://evil.com/token", []string{"evil.com"}, true},
		{"https://registry-1.docker.io", "docker.io", "http://evil.com/token", []string{"evil.com"}, false},
		{"https://mirror.corp.example", "docker.io", "https://auth.docker.io/token", nil, false},
		{"https://mirror.corp.example", "docker.io", "https://auth.corp.example/token", nil, true},
		{"https://mirror.corp.com", "docker.io", "https://auth.corp.com/token", nil, true},
		{"https://registry.gitlab.com", "registry.gitlab.com", "https://gitlab.com/jwt/auth", nil, true},
		{"https://registry.gitlab.com", "registry.gitlab.com", "https://evil.gitlab.com/jwt/auth", nil, false},
		{"https://ghcr.io", "ghcr.io", "https://ghcr.io/token", nil, true},
		{"https://mine.azurecr.io", "mine.azurecr.io", "https://mine.azurecr.io/oauth2/token", nil, true},
		{"https://mine.azurecr.io", "mine.azurecr.io", "https://yours.azurecr.io/oauth2/token", nil, false},
		{"https://eu-docker.pkg.dev", "eu-docker.pkg.dev", "https://us-docker.pkg.dev/v2/token", nil, false},
		{"https://reg.example.co.uk", "reg.example.co.uk", "https://auth.example.co.uk/t", nil, true},
		{"https://reg.example.co.uk", "reg.example.co.uk", "https://auth.other.co.uk/t", nil, false},
		{"https://a.github.io", "a.github.io", "https://b.github.io/t", nil, false},
		{"https://reg.example.com", "reg.example.com", "https://reg.example.com:8443/t", nil, true},
		{"https://10.0.0.1:5000", "corp", "https://10.0.0.1:5000/t", nil, true},
		{"https://10.0.0.1:5000", "corp", "https://10.0.0.1:5001/t", nil, false},
		{"https://10.0.0.1:5000", "corp", "https://10.0.0.1:5001/t", []string{"10.0.0.1:5001"}, true},
		{"https://localhost:5000", "corp", "https://localhost:5001/t", nil, false},
		{"https://registry:5000", "corp", "https://auth:5001/t", nil, false},
		{"http://reg.example.com", "corp", "http://reg.example.com/t", nil, true},
		{"http://reg.example.com", "corp", "http://auth.example.com/t", nil, false},
		{"http://reg.example.com", "corp", "http://auth.example.com/t", []string{"auth.example.com"}, true},
		{"http://reg.example.com", "corp", "https://auth.example.com/t", nil, true},
		{"https://reg.example.com", "corp", "ftp://reg.example.com/t", []string{"reg.example.com"}, false},
	}
	for _, test := range tests {
		base, err := url.Parse(test.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		realm, err := url.Parse(test.realm)
		if err != nil {
			t.Fatal(err)
		}
		trust := NewTrust(base, registries.Find(test.name), test.listed)
		if got := trust.trusts(realm); got != test.want {
			t.Errorf("%s (%s, listed %v) trusts %s: %v, want %v", test.endpoint, test.name, test.listed, test.realm, got, test.want)
		}
	}
}
