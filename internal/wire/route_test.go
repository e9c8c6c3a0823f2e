package wire

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	hexA    = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestA = "sha256:" + hexA
)

// testRegistries is a configuration with every kind of name.
func testRegistries() *Registries {
	return &Registries{
		Default: "docker.io",
		Names: map[string]string{
			"docker.io": "docker.io", "index.docker.io": "docker.io",
			"registry-1.docker.io": "docker.io", "registry.hub.docker.com": "docker.io",
			"ghcr.io": "ghcr.io", "my.reg:5000": "my.reg:5000", "inhouse": "inhouse",
			"[2001:db8::5]:5000": "[2001:db8::5]:5000",
		},
		Hosts: map[string]string{
			"ghcr.mirror.example": "ghcr.io", "hub.mirror.example:5000": "docker.io",
			"[2001:db8::1]": "ghcr.io", "[2001:db8::2]:5000": "ghcr.io",
		},
	}
}

func TestRouteShapes(t *testing.T) {
	rows := []struct {
		host, path, ns             string
		resource                   Resource
		upstream, repository, name string
		reference                  string
		prefix                     Prefix
	}{
		// the five shapes of docs/clients.md
		{"", "/v2/library/nginx/manifests/latest", "docker.io", Manifests, "docker.io", "library/nginx", "library/nginx", "latest", NoPrefix},
		{"", "/v2/library/nginx/manifests/latest", "", Manifests, "docker.io", "library/nginx", "library/nginx", "latest", NoPrefix},
		{"", "/v2/docker.io/library/nginx/manifests/latest", "", Manifests, "docker.io", "library/nginx", "docker.io/library/nginx", "latest", PathPrefix},
		{"", "/v2/docker.io/library/nginx/manifests/latest", "docker.io", Manifests, "docker.io", "library/nginx", "docker.io/library/nginx", "latest", PathPrefix},
		{"", "/docker.io/v2/library/nginx/manifests/latest", "docker.io", Manifests, "docker.io", "library/nginx", "library/nginx", "latest", RootPrefix},
		{"", "/docker.io/v2/library/nginx/manifests/latest", "", Manifests, "docker.io", "library/nginx", "library/nginx", "latest", RootPrefix},
		// pings
		{"", "/v2/", "", Ping, "", "", "", "", NoPrefix},
		{"", "/v2", "", Ping, "", "", "", "", NoPrefix},
		{"", "/docker.io/v2/", "", Ping, "docker.io", "", "", "", RootPrefix},
		{"", "/docker.io/v2", "", Ping, "docker.io", "", "", "", RootPrefix},
		// a base that ends with a slash
		{"", "//v2/", "", Ping, "", "", "", "", NoPrefix},
		{"", "///v2/nginx/manifests/1", "", Manifests, "docker.io", "library/nginx", "nginx", "1", NoPrefix},
		{"", "//ghcr.io/v2/a/b/tags/list", "", Tags, "ghcr.io", "a/b", "a/b", "", RootPrefix},
		{"", "/v2/_catalog", "", Catalog, "", "", "", "", NoPrefix},
		{"", "/ghcr.io/v2/_catalog", "", Catalog, "ghcr.io", "", "", "", RootPrefix},
		{"", "/v2/_catalog", "ghcr.io", Catalog, "ghcr.io", "", "", "", NoPrefix},
		// library/
		{"", "/v2/nginx/manifests/1.27", "", Manifests, "docker.io", "library/nginx", "nginx", "1.27", NoPrefix},
		{"", "/v2/docker.io/nginx/manifests/1.27", "", Manifests, "docker.io", "library/nginx", "docker.io/nginx", "1.27", PathPrefix},
		{"", "/v2/ghcr.io/app/manifests/1", "", Manifests, "ghcr.io", "app", "ghcr.io/app", "1", PathPrefix},
		{"", "/v2/app/manifests/1", "ghcr.io", Manifests, "ghcr.io", "app", "app", "1", NoPrefix},
		// aliases
		{"", "/v2/library/nginx/manifests/1", "registry-1.docker.io", Manifests, "docker.io", "library/nginx", "library/nginx", "1", NoPrefix},
		{"", "/v2/index.docker.io/library/nginx/manifests/1", "docker.io", Manifests, "docker.io", "library/nginx", "index.docker.io/library/nginx", "1", PathPrefix},
		{"", "/v2/library/nginx/manifests/1", "Docker.IO", Manifests, "docker.io", "library/nginx", "library/nginx", "1", NoPrefix},
		// ports
		{"", "/v2/a/b/manifests/1", "my.reg:5000", Manifests, "my.reg:5000", "a/b", "a/b", "1", NoPrefix},
		{"", "/v2/my.reg:5000/a/b/manifests/1", "", Manifests, "my.reg:5000", "a/b", "my.reg:5000/a/b", "1", PathPrefix},
		{"", "/v2/my.reg%3A5000/a/b/manifests/1", "", Manifests, "my.reg:5000", "a/b", "my.reg:5000/a/b", "1", PathPrefix},
		// IPv6: as it is written, escaped as Go's clients do, and not in its shortest form
		{"", "/v2/a/b/manifests/1", "[2001:db8::5]:5000", Manifests, "[2001:db8::5]:5000", "a/b", "a/b", "1", NoPrefix},
		{"", "/v2/a/b/manifests/1", "[2001:DB8:0::5]:5000", Manifests, "[2001:db8::5]:5000", "a/b", "a/b", "1", NoPrefix},
		{"", "/v2/[2001:db8::5]:5000/a/b/manifests/1", "", Manifests, "[2001:db8::5]:5000", "a/b", "[2001:db8::5]:5000/a/b", "1", PathPrefix},
		{"", "/v2/%5B2001:db8::5%5D:5000/a/b/manifests/1", "", Manifests, "[2001:db8::5]:5000", "a/b", "[2001:db8::5]:5000/a/b", "1", PathPrefix},
		{"", "/%5b2001%3adb8%3a%3a5%5d:5000/v2/a/manifests/1", "", Manifests, "[2001:db8::5]:5000", "a", "a", "1", RootPrefix},
		{"[2001:db8::1]", "/v2/owner/app/manifests/1", "", Manifests, "ghcr.io", "owner/app", "owner/app", "1", NoPrefix},
		{"[2001:DB8:0::1]:5000", "/v2/owner/app/manifests/1", "", Manifests, "ghcr.io", "owner/app", "owner/app", "1", NoPrefix},
		{"[2001:db8::2]:5000", "/v2/owner/app/manifests/1", "", Manifests, "ghcr.io", "owner/app", "owner/app", "1", NoPrefix},
		{"[2001:db8::2]:80", "/v2/owner/app/manifests/1", "", Manifests, "docker.io", "owner/app", "owner/app", "1", NoPrefix},
		// a registry's name without a dot works, as configured
		{"", "/v2/inhouse/a/manifests/1", "", Manifests, "inhouse", "a", "inhouse/a", "1", PathPrefix},
		// the prefix is taken off once
		{"", "/v2/docker.io/ghcr.io/app/manifests/1", "", Manifests, "docker.io", "ghcr.io/app", "docker.io/ghcr.io/app", "1", PathPrefix},
		{"", "/v2/docker.io/docker.io/app/manifests/1", "docker.io", Manifests, "docker.io", "docker.io/app", "docker.io/docker.io/app", "1", PathPrefix},
		// a Hub namespace that looks like a host, said to be one of Hub
		{"", "/v2/foo.bar/x/manifests/1", "docker.io", Manifests, "docker.io", "foo.bar/x", "foo.bar/x", "1", NoPrefix},
		// Host map, the last to be asked
		{"ghcr.mirror.example", "/v2/owner/app/manifests/1", "", Manifests, "ghcr.io", "owner/app", "owner/app", "1", NoPrefix},
		{"GHCR.mirror.example:5000", "/v2/owner/app/manifests/1", "", Manifests, "ghcr.io", "owner/app", "owner/app", "1", NoPrefix},
		{"hub.mirror.example:5000", "/v2/nginx/manifests/1", "", Manifests, "docker.io", "library/nginx", "nginx", "1", NoPrefix},
		{"ghcr.mirror.example", "/v2/docker.io/nginx/manifests/1", "", Manifests, "docker.io", "library/nginx", "docker.io/nginx", "1", PathPrefix},
		{"ghcr.mirror.example", "/v2/nginx/manifests/1", "docker.io", Manifests, "docker.io", "library/nginx", "nginx", "1", NoPrefix},
		// read from the right
		{"", "/v2/a/manifests/blobs/tags/manifests/latest", "", Manifests, "docker.io", "a/manifests/blobs/tags", "a/manifests/blobs/tags", "latest", NoPrefix},
		{"", "/v2/a/tags/list/tags/list", "", Tags, "docker.io", "a/tags/list", "a/tags/list", "", NoPrefix},
		{"", "/v2/a/tags/manifests/list", "", Manifests, "docker.io", "a/tags", "a/tags", "list", NoPrefix},
		// digests
		{"", "/v2/nginx/manifests/" + digestA, "", Manifests, "docker.io", "library/nginx", "nginx", digestA, NoPrefix},
		{"", "/v2/nginx/manifests/sha256%3a" + hexA, "", Manifests, "docker.io", "library/nginx", "nginx", digestA, NoPrefix},
		{"", "/v2/nginx/blobs/sha512:" + hexA + hexA, "", Blobs, "docker.io", "library/nginx", "nginx", "sha512:" + hexA + hexA, NoPrefix},
		{"", "/v2/nginx/referrers/" + digestA, "", Referrers, "docker.io", "library/nginx", "nginx", digestA, NoPrefix},
	}
	for _, row := range rows {
		got, err := testRegistries().Route(row.host, row.path, row.ns)
		if err != nil {
			t.Errorf("Route(%q, %q, %q): %v", row.host, row.path, row.ns, err)
			continue
		}
		want := Route{
			Resource: row.resource, Upstream: row.upstream, Repository: row.repository, Name: row.name,
			Reference: row.reference, Namespace: row.ns, Prefix: row.prefix,
		}
		for name, upstream := range testRegistries().Hosts {
			if host, _ := Host(row.host); host == name || row.host == name {
				want.Host = upstream
			}
		}
		if strings.Contains(row.reference, ":") {
			want.Digest, _ = ParseDigest(row.reference)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Route(%q, %q, %q) (-want +got):\n%s", row.host, row.path, row.ns, diff)
		}
	}
}

func TestRouteRefuses(t *testing.T) {
	rows := []struct {
		path, ns string
		want     Fault
	}{
		{"/", "", NoRoute},
		{"", "", NoRoute},
		{"/v1/_ping", "", NoRoute},
		{"/v2/nginx", "", NoRoute},
		{"/v2/manifests/latest", "", NoRoute},
		{"/v2//manifests/latest", "", NoRoute},
		{"/v2/nginx/tags/list/", "", NoRoute},
		{"/v2/nginx/blobs/uploads/", "", NoRoute},
		{"/a/b/v2/nginx/manifests/latest", "", NoRoute},
		{"/v3/nginx/manifests/latest", "", NoRoute},
		{"/unknown.example/v2/", "", UnknownRegistry},
		{"/v2/", "unknown.example", UnknownRegistry},
		{"/unknown.example/v2/nginx/manifests/latest", "", UnknownRegistry},
		{"/v2/unknown.example/nginx/manifests/latest", "", UnknownRegistry},
		{"/v2/localhost/nginx/manifests/latest", "", UnknownRegistry},
		{"/v2/10.0.0.1:5000/nginx/manifests/latest", "", UnknownRegistry},
		{"/v2/nginx/manifests/latest", "169.254.169.254", UnknownRegistry},
		{"/v2/[::1]:5000/nginx/manifests/latest", "", UnknownRegistry},
		{"/v2/nginx/manifests/latest", "[2001:db8::5]", UnknownRegistry},
		{"/v2/nginx/manifests/latest", "[2001:db8::5]:5000:1", UnknownRegistry},
		{"/v2/nginx/manifests/latest", "localhost:22", UnknownRegistry},
		{"/v2/nginx/manifests/latest", "docker.io.", UnknownRegistry},
		{"/v2/nginx/manifests/latest", "docker.io/../x", UnknownRegistry},
		{"/v2/nginx/manifests/latest", "docker.io:443", UnknownRegistry},
		{"/v2/nginx/manifests/latest", "http://docker.io", UnknownRegistry},
		{"/v2/nginx/manifests/latest", "\x00", UnknownRegistry},
		{"/v2/ghcr.io/app/manifests/1", "docker.io", Disagreement},
		{"/ghcr.io/v2/app/manifests/1", "docker.io", Disagreement},
		{"/v2/docker.io/manifests/latest", "", BadName},
		{"/v2/docker.io/manifests/latest", "docker.io", BadName},
		{"/v2/Library/nginx/manifests/latest", "", BadName},
		{"/v2/library//nginx/manifests/latest", "", BadName},
		{"/v2/library/../nginx/manifests/latest", "docker.io", BadName},
		{"/v2/library%2Fnginx/manifests/latest", "", BadName},
		{"/v2/library/%2e%2e/manifests/latest", "", BadName},
		{"/v2/lib%253Ary/nginx/manifests/latest", "", BadName},
		{"/v2/lib\\nginx/x/manifests/latest", "", BadName},
		{"/v2/" + strings.Repeat("a", 256) + "/manifests/latest", "", BadName},
		{"/v2/nginx/manifests/.INVALID_MANIFEST_NAME", "", BadTag},
		{"/v2/nginx/manifests/" + strings.Repeat("a", 129), "", BadTag},
		{"/v2/nginx/manifests/sha256:totallywrong", "", BadDigest},
		{"/v2/nginx/manifests/md5:" + hexA, "", BadDigest},
		{"/v2/nginx/blobs/latest", "", BadDigest},
		{"/v2/nginx/blobs/sha256:" + strings.ToUpper(hexA), "", BadDigest},
		{"/v2/nginx/referrers/sha256:", "", BadDigest},
	}
	for _, row := range rows {
		got, err := testRegistries().Route("", row.path, row.ns)
		var fault *RouteError
		if !errors.As(err, &fault) || fault.Fault != row.want {
			t.Errorf("Route(%q, ns %q) = %+v, %v, want fault %d", row.path, row.ns, got, err, row.want)
		}
	}
}

func TestQueryValue(t *testing.T) {
	rows := []struct {
		raw, want string
		ok        bool
	}{
		{"", "", false},
		{"ns=docker.io", "docker.io", true},
		{"a=b&ns=my.reg%3A5000&ns=other", "my.reg:5000", true},
		{"ns", "", true},
		{"nsx=1&xns=2", "", false},
		{"ns=%zz", "%zz", true},
	}
	for _, row := range rows {
		if got, ok := QueryValue(row.raw, "ns"); got != row.want || ok != row.ok {
			t.Errorf("QueryValue(%q) = %q, %t, want %q, %t", row.raw, got, ok, row.want, row.ok)
		}
	}
}

// FuzzRoute holds that what comes out is canonical: its names are valid, its registry is
// configured, and its path-style spelling means the same thing again.
func FuzzRoute(f *testing.F) {
	f.Add("", "/v2/library/nginx/manifests/latest", "docker.io")
	f.Add("ghcr.mirror.example", "/v2/docker.io/nginx/blobs/"+digestA, "")
	f.Add("", "/my.reg:5000/v2/a/tags/list", "my.reg:5000")
	f.Add("", "/v2/a/manifests/tags/referrers/sha256%3A"+hexA, "")
	f.Add("", "/v2/../%2e%2e//manifests/x", "169.254.169.254")
	f.Add("[2001:db8::1]:5000", "/v2/%5B2001:db8::5%5D:5000/a/manifests/1", "[2001:DB8:0::5]:5000")
	f.Add("[fe80::1%25eth0]", "/[::1/v2/", "[[::1]]:1")
	g := testRegistries()
	f.Fuzz(func(t *testing.T, host, path, ns string) {
		r, err := g.Route(host, path, ns)
		if err != nil {
			var fault *RouteError
			if !errors.As(err, &fault) {
				t.Fatalf("Route(%q, %q, %q): error of type %T, want *RouteError", host, path, ns, err)
			}
			return
		}
		if r.Upstream != "" && g.Names[r.Upstream] != r.Upstream {
			t.Fatalf("Route(%q, %q, %q): upstream %q is not configured", host, path, ns, r.Upstream)
		}
		if r.Resource == Ping || r.Resource == Catalog {
			return
		}
		if !ValidRepository(r.Repository) || r.Upstream == "" {
			t.Fatalf("Route(%q, %q, %q) = %+v, want a valid repository of an upstream", host, path, ns, r)
		}
		tail := "/" + r.Resource.String() + "s/" + r.Reference
		switch r.Resource {
		case Tags:
			tail = "/tags/list"
		case Referrers:
			tail = "/referrers/" + r.Reference
		}
		again, err := g.Route("", "/v2/"+r.Upstream+"/"+r.Repository+tail, "")
		if err != nil {
			t.Fatalf("canonical form of %q: %v", path, err)
		}
		if again.Upstream != r.Upstream || again.Repository != r.Repository ||
			again.Reference != r.Reference || again.Digest != r.Digest {
			t.Fatalf("Route(%q, %q, %q) = %+v, but its canonical form means %+v", host, path, ns, r, again)
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "a", "a/b", "a__b", "a___b", "a--b", "a-_b", "-a", "a/", ".x", "A", strings.Repeat("a/", 127) + "ab"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := validRepository(s), ValidRepository(s); got != want {
			t.Errorf("validRepository(%q) = %t, want %t as the pattern says", s, got, want)
		}
		if got, want := validTag(s), ValidTag(s); got != want {
			t.Errorf("validTag(%q) = %t, want %t as the pattern says", s, got, want)
		}
	})
}

func FuzzQueryValue(f *testing.F) {
	f.Add("ns=docker.io&n=1")
	f.Add("ns=%zz&&=&ns")
	f.Fuzz(func(t *testing.T, raw string) {
		value, ok := QueryValue(raw, "ns")
		if !ok && value != "" {
			t.Errorf("QueryValue(%q) = %q but not found", raw, value)
		}
	})
}
