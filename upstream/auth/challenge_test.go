package auth

import (
	"net/http"
	"net/url"
	"testing"

	"forebay/internal/registries"
)

// TestChallengesOfRegistries: what registries and software of the field answer, and who may be told
// the credentials by that.
func TestChallengesOfRegistries(t *testing.T) {
	for name, test := range map[string]struct {
		base       string
		challenges []string
		realm      string
		scope      string // for the repository a/b
		trusted    bool
	}{
		"Gitea, Forgejo": {"https://codeberg.org",
			[]string{`Bearer realm="https://codeberg.org/v2/token",service="container_registry",scope="*"`, `Basic realm="Gitea Container Registry"`},
			"https://codeberg.org/v2/token", "repository:a/b:pull", true},
		"Gitea whose ROOT_URL is http": {"https://git.example.com:8443",
			[]string{`Bearer realm="http://git.example.com/v2/token",service="container_registry",scope="*"`},
			"https://git.example.com:8443/v2/token", "repository:a/b:pull", true},
		"Harbor behind TLS": {"https://harbor.example.com",
			[]string{`Bearer realm="http://harbor.example.com/service/token",service="harbor-registry",scope="repository:a/b:pull"`},
			"https://harbor.example.com/service/token", "repository:a/b:pull", true},
		"Harbor that names its inner host": {"https://harbor.example.com",
			[]string{`Bearer realm="http://harbor-core.default.svc.cluster.local/service/token",service="harbor-registry"`},
			"http://harbor-core.default.svc.cluster.local/service/token", "repository:a/b:pull", false},
		"Nexus 3.80": {"https://nexus.example.com:5002",
			[]string{`Bearer realm="https://nexus.example.com:5002:5002/v2/token",service="https://nexus.example.com:5002:5002/v2/token"`},
			"https://nexus.example.com:5002/v2/token", "repository:a/b:pull", true},
		"Nexus 3.79": {"http://nexus.example.com:5005",
			[]string{`Bearer realm="null://nexus.example.com:5005/v2/token",service="null://nexus.example.com:5005/v2/token"`},
			"http://nexus.example.com:5005/v2/token", "repository:a/b:pull", true},
		"null of another host": {"https://nexus.example.com",
			[]string{`Bearer realm="null://auth.example.com/v2/token"`},
			"null://auth.example.com/v2/token", "repository:a/b:pull", false},
		"Artifactory": {"https://corp.jfrog.io",
			[]string{`Bearer realm="https://corp.jfrog.io/artifactory/api/docker/docker-remote/v2/token",service="corp.jfrog.io"`},
			"https://corp.jfrog.io/artifactory/api/docker/docker-remote/v2/token", "repository:a/b:pull", true},
		"Pulp": {"https://pulp.example.com",
			[]string{`Bearer realm="http://pulp.example.com/token/",service="pulp.example.com",scope="repository:a/b:pull"`},
			"https://pulp.example.com/token/", "repository:a/b:pull", true},
		"GitLab's dependency proxy": {"https://gitlab.com",
			[]string{`Bearer realm="https://gitlab.com/jwt/auth",service="dependency_proxy",scope=""`},
			"https://gitlab.com/jwt/auth", "repository:a/b:pull", true},
		"Alibaba": {"https://registry.cn-hangzhou.aliyuncs.com",
			[]string{`Bearer realm="https://dockerauth.cn-hangzhou.aliyuncs.com/auth",service="registry.aliyuncs.com:cn-hangzhou:26842"`},
			"https://dockerauth.cn-hangzhou.aliyuncs.com/auth", "repository:a/b:pull", true},
		"DigitalOcean": {"https://registry.digitalocean.com",
			[]string{`Bearer realm="https://api.digitalocean.com/v2/registry/auth",service="registry.digitalocean.com"`},
			"https://api.digitalocean.com/v2/registry/auth", "repository:a/b:pull", true},
		"Scaleway": {"https://rg.fr-par.scw.cloud",
			[]string{`Bearer realm="https://api.scaleway.com/registry-internal/v1/regions/fr-par/tokens",service="registry"`},
			"https://api.scaleway.com/registry-internal/v1/regions/fr-par/tokens", "repository:a/b:pull", true},
		"a thief in Scaleway's place": {"https://rg.fr-par.scw.cloud",
			[]string{`Bearer realm="https://functions.fnc.fr-par.scw.cloud/tokens",service="registry"`},
			"https://functions.fnc.fr-par.scw.cloud/tokens", "repository:a/b:pull", false},
		"a path of the registry's host": {"https://registry.example.com:8443/proxy",
			[]string{`Bearer realm="/token?a=b",service="s"`},
			"https://registry.example.com:8443/token?a=b", "repository:a/b:pull", true},
		"a host without a scheme": {"https://registry.example.com",
			[]string{`Bearer realm="//thief.example.net/token"`},
			"https://thief.example.net/token", "repository:a/b:pull", false},
		"Bearer for people beside one for programs": {"https://registry.example.com",
			[]string{`Bearer`, `Bearer realm="https://registry.example.com/token"`},
			"https://registry.example.com/token", "repository:a/b:pull", true},
		"http of another host": {"https://registry.example.com",
			[]string{`Bearer realm="http://auth.example.com/token"`},
			"http://auth.example.com/token", "repository:a/b:pull", false},
	} {
		base, err := url.Parse(test.base)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := ReadChallenge(http.Header{"Www-Authenticate": test.challenges}, base)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.realm.String() != test.realm || c.scopeFor("a/b") != test.scope {
			t.Errorf("%s: realm %s and scope %s, want %s and %s", name, c.realm, c.scopeFor("a/b"), test.realm, test.scope)
		}
		if got := NewTrust(base, registries.Find(base.Host), nil).trusts(c.realm); got != test.trusted {
			t.Errorf("%s: trusted is %t, want %t", name, got, test.trusted)
		}
	}
}

// TestBearerForPeopleIsNoChallenge: a Bearer whose realm is a name, beside Basic, as Talos' image factory had.
func TestBearerForPeopleIsNoChallenge(t *testing.T) {
	base := &url.URL{Scheme: "https", Host: "registry.example.com"}
	for _, challenges := range [][]string{
		{`Bearer realm="registry"`, `Basic realm="registry"`}, {`Bearer, Basic realm="registry"`}, {`Basic realm="registry", Bearer realm=""`},
	} {
		c, _, err := ReadChallenge(http.Header{"Www-Authenticate": challenges}, base)
		if err != nil || c == nil || !c.Basic() {
			t.Errorf("ReadChallenge(%q) = %v, %v; want Basic", challenges, c, err)
		}
	}
	if c, _, err := ReadChallenge(http.Header{"Www-Authenticate": {`Bearer realm="registry"`}}, base); c != nil || err == nil {
		t.Errorf("ReadChallenge of a Bearer alone = %v, %v; want an error", c, err)
	}
}
