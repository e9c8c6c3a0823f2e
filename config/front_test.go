package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestListenersAuthenticationAndRules(t *testing.T) {
	folder := t.TempDir()
	cert, key := writeCertificate(t, folder)
	c := mustLoad(t, strings.NewReplacer("CERT", cert, "KEY", key).Replace(`
listen: 127.0.0.1:5000
tls: {cert_file: CERT, key_file: KEY}
client_ca_file: CERT
authentication: required
listeners:
  - address: 10.0.0.1:5443
    tls: {cert_file: CERT, key_file: KEY}
    authentication: none
    upstreams: [docker.io]
    proxy_protocol: [10.0.0.0/8]
  - {address: "unix:/run/forebay.sock"}
  - {address: "systemd:registry"}
auth:
  htpasswd_file: CERT
  tokens_file: CERT
  issuers:
    - {url: "https://login.example.com/realm", audience: forebay, name_claim: email, groups_claim: roles, ca_file: CERT, bearer_file: KEY}
  networks: {ci: [10.1.0.0/16, 10.2.0.1], desk: 10.3.0.0/16}
  groups: {team-a: [alice, "network:ci"], all: "alice, bob"}
access:
  - {name: team-a, who: ["group:team-a"], what: ["ghcr.io/teama/*"]}
  - {what: ["quay.io", docker.io/nginx], deny: true}
`))
	want := []Listener{
		{Address: "127.0.0.1:5000", TLS: TLS{CertFile: cert, KeyFile: key}, ClientCAFile: cert, Authentication: AuthRequired},
		{Address: "10.0.0.1:5443", TLS: TLS{CertFile: cert, KeyFile: key}, Authentication: AuthNone, Upstreams: []string{"docker.io"}, Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		{Address: "unix:/run/forebay.sock", Authentication: AuthOptional},
		{Address: "systemd:registry", Authentication: AuthOptional},
	}
	prefixes := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(want, c.Doors(), prefixes); diff != "" {
		t.Errorf("Doors (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Auth{
		HtpasswdFile: cert, TokensFile: cert,
		Issuers: []Issuer{{URL: "https://login.example.com/realm", Audience: "forebay", NameClaim: "email", GroupsClaim: "roles", CAFile: cert, BearerFile: key}},
		Networks: map[string][]netip.Prefix{
			"ci": {netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.1/32")}, "desk": {netip.MustParsePrefix("10.3.0.0/16")},
		},
		Groups: map[string][]string{"team-a": {"alice", "network:ci"}, "all": {"alice", "bob"}},
	}, c.Auth, prefixes); diff != "" {
		t.Errorf("Auth (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]AccessRule{
		{Name: "team-a", Who: []string{"group:team-a"}, What: []string{"ghcr.io/teama/*"}},
		{Who: []string{"anyone"}, What: []string{"quay.io", "docker.io/library/nginx"}, Deny: true},
	}, c.Access); diff != "" {
		t.Errorf("Access (-want +got):\n%s", diff)
	}
	// What is printed is read as the same.
	var printed strings.Builder
	if err := c.Print(&printed); err != nil {
		t.Fatal(err)
	}
	again := mustLoad(t, printed.String())
	for what, diff := range map[string]string{
		"Doors": cmp.Diff(c.Doors(), again.Doors(), prefixes), "Auth": cmp.Diff(c.Auth, again.Auth, prefixes), "Access": cmp.Diff(c.Access, again.Access),
	} {
		if diff != "" {
			t.Errorf("%s of what was printed (-before +after):\n%s\n%s", what, diff, printed.String())
		}
	}
}

// Without a word about it, clients are not told apart.
func TestNobodyIsToldApartByDefault(t *testing.T) {
	c := mustLoad(t, "")
	if c.Restricted() || len(c.Doors()) != 1 || c.Doors()[0].Authentication != AuthNone {
		t.Errorf("Doors = %+v", c.Doors())
	}
	for _, text := range []string{"access: [{what: [ghcr.io]}]", "auth: {networks: {ci: 10.0.0.0/8}}"} {
		if !mustLoad(t, text).Restricted() {
			t.Errorf("%s tells nobody apart", text)
		}
	}
}

func TestFrontFaults(t *testing.T) {
	for text, want := range map[string]string{
		"listeners: [x]":                                                                   `listeners: "x" is no mapping: write one, with address`,
		"listeners: [{}]":                                                                  "listeners[1]: needs an address",
		"listeners: [{address: 5001}]":                                                     `listeners[1].address: "5001" has no colon`,
		"listeners: [{address: ':5000'}]":                                                  "listeners[1]: :5000 is listened on already",
		"listeners: [{address: 'unix:here'}]":                                              "has no usable path",
		"listeners: [{address: 'systemd:'}]":                                               "names no socket",
		"listeners: [{address: ':1', upstreams: [r.lan]}]":                                 "listeners[1]: upstreams names r.lan, which is not configured",
		"listeners: [{address: ':1', client_ca_file: x}]":                                  "certificates of clients need TLS",
		"listeners: [{address: ':1', authentication: required}]":                           "listeners[1]: is required and there is no way to prove who one is",
		"client_ca_file: x":                                                                "client_ca_file: needs tls beside it",
		"tls: {acme: {hosts: [a.b]}}\nclient_ca_file: /none":                               "client_ca_file: open /none",
		"listeners: [{address: ':1', client_ca_file: /none, tls: {acme: {hosts: [a.b]}}}]": "listeners[1].client_ca_file: open /none",
		"tls: {acme: {hosts: [a.b], ca_file: /none}}":                                      "tls.acme.ca_file: open /none",
		"auth: {issuers: [{url: 'https://i.lan', audience: a, ca_file: /none}]}":           "auth.issuers[1].ca_file: open /none",
		"authentication: required":                                                         "authentication: is required and there is no way to prove who one is",
		"authentication: maybe":                                                            `"maybe" is not known: use none, optional or required`,
		"auth: {issuers: [{url: 'https://i.lan'}]}":                                        "auth.issuers[1]: needs url and audience",
		"auth: {issuers: [{url: i.lan}]}":                                                  "has no usable scheme",
		"auth: {networks: {ci: 10.0.0.1/8}}":                                               "has bits behind its mask",
		"auth: {networks: {ci: ''}}":                                                       "ci has nothing that belongs to it",
		"auth: {groups: {team: {a: b}}}":                                                   "auth.groups.team: is a mapping",
		"access: [{who: ['user:alice']}]":                                                  `"user:alice" is not known: users and tokens are named as they are`,
		"access: [{what: ['docker.io/nginx:1']}]":                                          `"docker.io/nginx:1" names a tag`,
		"access: [{what: [nginx]}]":                                                        `"nginx" begins with no registry`,
		"access: [{what: ['docker.io/[a']}]":                                               "has no set of characters between [ and ]",
		"access: [{allow: true}]":                                                          "is not a key",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %q", text, err, want)
		}
	}
}

// A registry that is asked what clients may have is no reason to keep from them what others give.
func TestRegistriesThatAreAsked(t *testing.T) {
	c := mustLoad(t, "upstreams: {ghcr.io: {access: upstream, pass_through: true}, quay.io: {username: u, password: p}}\nlisteners: [{address: ':5001', authentication: none}]")
	if got := c.Doors(); got[0].Authentication != AuthOptional || got[1].Authentication != AuthNone || c.Restricted() || !c.Asks() {
		t.Errorf("doors %+v, restricted %t, asks %t", got, c.Restricted(), c.Asks())
	}
	if u := c.Upstream("ghcr.io"); u.TrustDomain() != "ghcr.io" {
		t.Errorf("what clients may have of ghcr.io is believed by %s", u.TrustDomain())
	}
	mustLoad(t, "authentication: required\nupstreams: {ghcr.io: {access: upstream}}")
	for text, want := range map[string]string{
		"upstreams: {ghcr.io: {pass_through: true}}":                                                        "pass_through: needs access: upstream",
		"upstreams: {ghcr.io: {access: upstream, offline: true}}":                                           "access: the registry must be asked",
		"upstreams: {ghcr.io: {access: upstream, endpoints: [{url: 'https://other.example', tags: true}]}}": "access: the registry must be asked",
		"upstreams: {ghcr.io: {access: upstream, client_cert_file: CERT, client_key_file: KEY}}":            "client_cert_file would prove the right of the mirror",
	} {
		folder := t.TempDir()
		cert, key := writeCertificate(t, folder)
		_, err := load(t, strings.NewReplacer("CERT", cert, "KEY", key).Replace(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestLimitsOfSome(t *testing.T) {
	const auth = "auth: {networks: {ci: 10.0.0.0/8}}\n"
	c := mustLoad(t, auth+"limits:\n  of: [{who: ['network:ci'], shared: true, pulls: 0, budget_share: 25%}, {who: [known], transfers: 3}]\n  pulls: 9\n  requests_per_second: 7\n")
	want := []LimitsOf{
		{Who: []string{"network:ci"}, Shared: true, Limits: Limits{NewPerMinute: 6000, Fills: 512, RequestsPerSecond: 7, BudgetShare: 0.25}},
		{Who: []string{"known"}, Limits: Limits{NewPerMinute: 6000, Pulls: 9, Fills: 512, RequestsPerSecond: 7, Transfers: 3}},
	}
	if diff := cmp.Diff(want, c.LimitsOf); diff != "" {
		t.Errorf("limits.of (-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{
		auth + "limits: {of: [{pulls: 3}]}":                        "limits.of[1]: needs who",
		"limits: {of: [{who: [alice]}]}":                           "limits.of[1]: is about nobody: no listener tells clients apart, set auth or a client_ca_file",
		auth + "limits: {of: [{who: [a], pulls: -1}]}":             "limits.of[1].pulls:",
		"upstreams: {docker.io: {bandwidth_hours: ['8-18=fast']}}": "upstreams.docker.io.bandwidth_hours: \"8-18=fast\" is not usable: use hours of the day and bytes a second",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestAuthoritiesOfListeners(t *testing.T) {
	ca, _ := writeCertificate(t, t.TempDir())
	c := mustLoad(t, "tls: {acme: {hosts: [mirror.example.com, m.example.com]}}\nlisteners: [{address: '10.0.0.1:443', client_ca_file: "+ca+", tls: {acme: {hosts: [x.example.com], directory: 'https://acme.lan/dir', email: a@b.c}}}]\n")
	doors := c.Doors()
	if want := (ACME{Hosts: []string{"mirror.example.com", "m.example.com"}}); !doors[0].TLS.Enabled() || !cmp.Equal(doors[0].TLS.ACME, want) {
		t.Errorf("listen has %+v, want %+v", doors[0].TLS, want)
	}
	if want := (ACME{Hosts: []string{"x.example.com"}, Directory: "https://acme.lan/dir", Email: "a@b.c"}); !cmp.Equal(doors[1].TLS.ACME, want) {
		t.Errorf("the listener has %+v, want %+v", doors[1].TLS, want)
	}
	cert, key := writeCertificate(t, t.TempDir())
	for text, want := range map[string]string{
		"tls: {acme: {hosts: [mirror]}}":                                                                  `tls.acme.hosts: "mirror" is no name that can be certified`,
		"tls: {acme: {hosts: ['*.example.com']}}":                                                         "tls.acme.hosts:",
		"tls: {acme: {hosts: ['mirror.example.com:443']}}":                                                `tls.acme.hosts: "mirror.example.com:443" is no name that can be certified`,
		"tls: {acme: {hosts: [m.example.com], directory: 'http://acme.lan'}}":                             `tls.acme.directory: "http://acme.lan" is not encrypted: use https://`,
		"tls: {acme: {directory: 'https://acme.lan'}}":                                                    "tls.acme: needs hosts",
		"tls: {cert_file: '" + cert + "', key_file: '" + key + "', acme: {hosts: [m.example.com]}}":       "tls: has a cert_file and acme: remove one of them",
		"listeners: [{address: ':1', tls: {acme: {email: a@b.c}}}]":                                       "listeners[1].tls.acme: needs hosts",
		"admin_tls: {acme: {email: a@b.c}}":                                                               "admin_tls.acme: needs hosts",
		"admin_tls: {cert_file: '" + cert + "', key_file: '" + key + "', acme: {hosts: [m.example.com]}}": "admin_tls: has a cert_file and acme: remove one of them",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
