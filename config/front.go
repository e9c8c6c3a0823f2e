package config

import (
	"net"
	"net/netip"
	"slices"

	"forebay/config/key"
	"forebay/config/parse"
)

// Listener is a way in to the registry API.
type Listener struct {
	Address      string // HOST:PORT, "unix:PATH" or "systemd:NAME"
	TLS          TLS
	ClientCAFile string // PEM: who signs certificates of clients
	// Authentication is what the listener wants of its clients. Default: AuthOptional if
	// there is any way to prove who one is, else AuthNone.
	Authentication Authentication
	Upstreams      []string       // served here; none: all
	Proxies        []netip.Prefix // that begin connections with a line of the PROXY protocol
	AsOf           string         // time or snapshot whose tags are served here; empty: those of today
}

// Authentication says what a listener wants of its clients.
type Authentication string

// AuthNone takes no notice of what clients show, AuthOptional lets in those that show nothing,
// AuthRequired does not.
const (
	AuthNone     Authentication = "none"
	AuthOptional Authentication = "optional"
	AuthRequired Authentication = "required"
)

// Auth is how clients prove who they are.
type Auth struct {
	HtpasswdFile string
	TokensFile   string
	Issuers      []Issuer
	Networks     map[string][]netip.Prefix // identities of clients that show nothing
	Groups       map[string][]string       // members by group
}

// Issuer signs tokens that are believed.
type Issuer struct {
	URL, Audience          string
	NameClaim, GroupsClaim string
	CAFile, BearerFile     string
}

// AccessRule allows or denies clients something; the first that matches decides.
type AccessRule struct {
	Name string
	Who  []string
	What []string
	Deny bool
}

// Given reports whether there is any way to tell clients apart.
func (a *Auth) Given() bool { return a.Proves() || len(a.Networks) > 0 }

// Proves reports whether there is anything that a client can show.
func (a *Auth) Proves() bool { return a.HtpasswdFile != "" || a.TokensFile != "" || len(a.Issuers) > 0 }

// Restricted reports whether clients are told apart: then what came by credentials of the mirror is
// only for whom a rule names.
func (c *Config) Restricted() bool {
	return len(c.Access) > 0 || slices.ContainsFunc(c.doors(false), func(l Listener) bool { return l.Authentication != AuthNone })
}

// Asks reports whether any registry is asked what clients may have.
func (c *Config) Asks() bool {
	return slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.Access == AccessUpstream })
}

// Doors returns the listeners of the registry API, that of listen and tls first.
func (c *Config) Doors() []Listener { return c.doors(c.Asks()) }

// doors is Doors; with asks clients may show what is for registries.
func (c *Config) doors(asks bool) []Listener {
	first := Listener{Address: c.Listen, TLS: c.TLS, ClientCAFile: c.ClientCAFile, Authentication: c.Authentication}
	all := append([]Listener{first}, c.Listeners...)
	for i := range all {
		if all[i].Authentication == "" {
			all[i].Authentication = AuthNone
			if asks || c.Auth.Given() || all[i].ClientCAFile != "" {
				all[i].Authentication = AuthOptional
			}
		}
	}
	return all
}

func listenersField(p *[]Listener) field {
	return key.Mappings("listeners",
		"Further ways in to the registry API beside `listen`, each with its own certificate and rules of entry.", p, Listener{},
		func(l *Listener) []field {
			return []field{
				{Name: "address", What: "an address", Doc: "HOST:PORT, `unix:` and the path of a socket, or `systemd:` and the FileDescriptorName of a socket of systemd.",
					Set: key.Into(&l.Address, parse.Listener), Get: func() []string { return []string{l.Address} }},
				{Name: "tls", Kind: key.Section, Fields: append(l.TLS.fields("the listener"), l.TLS.ACME.field()), Doc: "Certificate of the listener. Without one it speaks plain HTTP."},
				clientCAField("client_ca_file", &l.ClientCAFile),
				authenticationField(&l.Authentication),
				key.Texts("upstreams", &l.Upstreams, "names of upstreams", parse.UpstreamName, "Upstreams that are served here. Default: all."),
				{Name: "as_of", What: "a time, or the name of a snapshot", Doc: "Tags are served here as they were at that time, or as they are in that snapshot (`forebay snapshot`). Empty: as they are.",
					Set: key.Into(&l.AsOf, pastOf), Get: func() []string { return []string{l.AsOf} }},
				key.Networks("proxy_protocol", &l.Proxies, "Networks of load balancers whose connections begin with a line of the PROXY protocol (1 or 2), which says who the client is. Connections from elsewhere are taken as they are."),
			}
		})
}

func clientCAField(name string, p *string) field {
	return key.File(name, p, "PEM file of those who sign certificates of clients. A client that shows one is called `certificate:` and its common name, and its organizations are its groups. Read again when it changes.")
}

func authenticationField(p *Authentication) field {
	return field{Name: "authentication", What: "`none`, `optional` or `required`",
		Doc: "What is wanted of clients. `none`: what they show is not looked at. `optional`: who shows nothing is nobody, and has what is for everybody. `required`: who proves nothing is asked to log in, by a challenge; dockerd answers the challenge of a mirror with the user's password for Docker Hub, so use it where clients name this mirror in image names. Default: `optional` where `auth`, a `client_ca_file` or `access: upstream` is set, else `none`.",
		Set: key.Into(p, func(s string) (Authentication, error) {
			return parse.OneOf(s, []Authentication{AuthNone, AuthOptional, AuthRequired})
		}), Get: func() []string { return []string{string(*p)} }}
}

func (a *Auth) fields() []field {
	return []field{
		key.SecretFile("htpasswd_file", &a.HtpasswdFile, "File of users, a NAME:HASH per line with hashes of bcrypt, as `htpasswd -B` writes it. Read again when it changes."),
		key.SecretFile("tokens_file", &a.TokensFile, "File with the hashes of tokens that `forebay token create` gave out. A token is shown as a bearer token or in the place of a password. Read again when it changes."),
		key.Mappings("issuers", "Who signs tokens that are believed: OpenID providers, and API servers of Kubernetes, for the tokens of service accounts.", &a.Issuers, Issuer{}, (*Issuer).fields),
		key.Members("networks", "pairs of a name and networks", "Identities of clients that show nothing, by where they are: `ci: 10.1.0.0/16` makes them `network:ci` in rules. The narrowest network counts.",
			func(name string, values []string) error {
				var f []netip.Prefix
				networks := key.Networks(name, &f, "")
				for _, v := range values {
					if err := networks.Set(v); err != nil {
						return err
					}
				}
				if a.Networks == nil {
					a.Networks = map[string][]netip.Prefix{}
				}
				a.Networks[name] = f
				return nil
			}, func() { a.Networks = nil }, func() []string { return key.MembersOf(a.Networks, netip.Prefix.String) }),
		key.Members("groups", "pairs of a name and members", "Members of groups, beside those that issuers and tokens name: users and tokens by their names, networks and certificates as `network:ci` and `certificate:node-7`.",
			func(name string, values []string) error {
				if a.Groups == nil {
					a.Groups = map[string][]string{}
				}
				a.Groups[name] = values
				return nil
			}, func() { a.Groups = nil }, func() []string { return key.MembersOf(a.Groups, func(s string) string { return s }) }),
	}
}

func (i *Issuer) fields() []field {
	text := func(name string, p *string, doc string) field {
		return field{Name: name, What: "a text", Doc: doc, Set: key.Into(p, parse.Plain), Get: func() []string { return []string{*p} }}
	}
	return []field{
		{Name: "url", What: "a URL", Doc: "As in the claim `iss`; `/.well-known/openid-configuration` below it says where the keys are.",
			Set: key.Into(&i.URL, func(s string) (string, error) {
				_, err := parse.URL(s, "use https:// and a host, such as https://login.example.com")
				return s, err
			}), Get: func() []string { return []string{i.URL} }},
		text("audience", &i.Audience, "That a token must be for, in the claim `aud`."),
		text("name_claim", &i.NameClaim, "Claim with the name of the identity. Default: `sub`."),
		text("groups_claim", &i.GroupsClaim, "Claim with its groups. Default: `groups`."),
		key.File("ca_file", &i.CAFile, "PEM certificates to trust for the issuer beside the system's."),
		key.SecretFile("bearer_file", &i.BearerFile, "File with a token that is shown to the issuer when it is asked for its keys, as API servers of Kubernetes want one. Read each time."),
	}
}

func accessField(p *[]AccessRule) field {
	return key.Mappings("access",
		"Who may pull what; the first rule that matches decides. Where none does, what is read without credentials of the mirror is for everybody who is let in, and what is read by them for nobody, as soon as there is a rule or a way to prove who one is. What a client may not have looks to it as if it did not exist. `forebay access explain` says which rule decides.", p, AccessRule{},
		func(r *AccessRule) []field {
			return []field{
				{Name: "name", What: "a text", Doc: "What explanations and the audit log call the rule.", Set: key.Into(&r.Name, parse.Plain), Get: func() []string { return []string{r.Name} }},
				key.Texts("who", &r.Who, "identities", parse.Who, "`anyone`; `known`, who has proved who it is; `group:NAME`; names of users and tokens; `network:NAME`; `certificate:NAME`. `*` stands for any text. Default: `anyone`."),
				key.Texts("what", &r.What, "patterns of upstream/repository", parse.What, "Such as `docker.io/library/*`, or `ghcr.io` for all of it. `*` stands for any text, slashes too. Default: everything."),
				key.Bool("deny", &r.Deny, "Denies instead of allowing."),
			}
		})
}

// Operators are the identities that have each role in the admin API.
type Operators struct {
	Read, Operate, Admin []string
}

// Given reports whether there is any.
func (o *Operators) Given() bool { return len(o.Read)+len(o.Operate)+len(o.Admin) > 0 }

func (o *Operators) fields() []field {
	const who = ": `group:NAME`, names of users and tokens, `certificate:NAME`, or `known` for everybody who has proved who it is. `*` stands for any text."
	return []field{
		key.Texts("read", &o.Read, "identities", parse.Operator, "Who may look at everything but the bytes of images and the log"+who),
		key.Texts("operate", &o.Operate, "identities", parse.Operator, "Who may also change what is kept (pin, refresh, repair, purge, prefetch), and read all of it"+who),
		key.Texts("admin", &o.Admin, "identities", parse.Operator, "Who may also bring in bundles and profile the running program, as who has the admin token may"+who),
	}
}

// AuditStdout writes the audit log to standard output.
const AuditStdout = "stdout"

func auditField(p *string) field {
	return field{Name: "audit", What: "a file name, or `stdout`", File: true, Plain: AuditStdout,
		Doc: "Where it is written down who pulled what and who changed what: lines of JSON with identity, address, image, digest, rule and result, for every manifest that goes out, every refusal and every action by the admin API. A file is only appended to; when it is moved away, as logrotate does, a new one is begun. Empty: nowhere.",
		Set: key.Into(p, parse.Plain), Get: func() []string { return []string{*p} }}
}

// checkFront finds what is wrong between listeners, authentication and rules.
func (d *decoder) checkFront() {
	c := d.config
	seen := map[string]bool{c.Listen: true, c.AdminListen: c.AdminListen != ""}
	upstreams := map[string]bool{}
	for _, u := range c.Upstreams {
		upstreams[u.Name] = true
	}
	for i := range c.Listeners {
		l, at := &c.Listeners[i], nth("listeners", i)
		fault := func(format string, args ...any) { d.Add(c.origins[at], at, format, args...) }
		d.checkPair(at+".tls", "cert_file", &l.TLS.CertFile, "key_file", &l.TLS.KeyFile)
		switch _, port, err := net.SplitHostPort(l.Address); {
		case l.Address == "":
			fault("needs an address")
		case seen[l.Address] && (err != nil || port != "0"):
			fault("%s is listened on already", l.Address)
		case l.ClientCAFile != "" && !l.TLS.Enabled():
			fault("has a client_ca_file and no tls: certificates of clients need TLS")
		default:
			d.checkCA(at+".client_ca_file", l.ClientCAFile)
		}
		seen[l.Address] = true
		for _, name := range l.Upstreams {
			if !upstreams[name] {
				fault("upstreams names %s, which is not configured", name)
			}
		}
	}
	if c.ClientCAFile != "" && !c.TLS.Enabled() {
		d.Add(c.origins["client_ca_file"], "client_ca_file", "needs tls beside it: certificates of clients need TLS")
	} else {
		d.checkCA("client_ca_file", c.ClientCAFile)
	}
	if c.AdminClientCAFile != "" && !c.AdminTLS.Enabled() {
		d.Add(c.origins["admin_client_ca_file"], "admin_client_ca_file", "needs admin_tls beside it: certificates of operators need TLS")
	} else {
		d.checkCA("admin_client_ca_file", c.AdminClientCAFile)
	}
	if c.Operators.Given() && !c.Auth.Proves() && c.AdminClientCAFile == "" {
		key := "operators.read"
		for _, other := range []string{"operators.operate", "operators.admin"} {
			if _, given := c.origins[key]; !given {
				key = other
			}
		}
		d.Add(c.origins[key], key, "needs a way to prove who one is: set auth.htpasswd_file, auth.tokens_file, auth.issuers or admin_client_ca_file")
	}
	for i := range c.Auth.Issuers {
		if at := nth("auth.issuers", i); c.Auth.Issuers[i].URL == "" || c.Auth.Issuers[i].Audience == "" {
			d.Add(c.origins[at], at, "needs url and audience: a token for somebody else must not open this mirror")
		}
		d.checkCA(nth("auth.issuers", i)+".ca_file", c.Auth.Issuers[i].CAFile)
	}
	for i := range c.Access {
		r := &c.Access[i]
		if len(r.Who) == 0 {
			r.Who = []string{"anyone"}
		}
		if len(r.What) == 0 {
			r.What = []string{"*"}
		}
	}
	for i := range c.LimitsOf {
		l, at := &c.LimitsOf[i], nth("limits.of", i)
		l.Limits.inherit(&c.Limits)
		switch {
		case len(l.Who) == 0:
			d.Add(c.origins[at], at, "needs who")
		case !c.Restricted():
			d.Add(c.origins[at], at, "is about nobody: no listener tells clients apart, set auth or a client_ca_file")
		}
	}
	for i, l := range c.Doors() {
		at := "tls"
		if i > 0 {
			at = nth("listeners", i-1) + ".tls"
		}
		d.checkACME(at, l.TLS)
		if l.Authentication == AuthRequired && !c.Auth.Given() && l.ClientCAFile == "" && !c.Asks() {
			at := "authentication"
			if i > 0 {
				at = nth("listeners", i-1)
			}
			d.Add(c.origins[at], at, "is required and there is no way to prove who one is: set auth.htpasswd_file, auth.tokens_file, auth.issuers, auth.networks or a client_ca_file")
		}
	}
}

func (d *decoder) checkACME(at string, t TLS) {
	d.checkCA(at+".acme.ca_file", t.ACME.CAFile)
	switch {
	case len(t.ACME.Hosts) > 0 && t.CertFile != "":
		d.Add(d.config.origins[at+".cert_file"], at, "has a cert_file and acme: remove one of them")
	case len(t.ACME.Hosts) == 0 && t.ACME.Directory+t.ACME.CAFile+t.ACME.Email != "":
		d.Add(d.config.origins[at+".acme.directory"], at+".acme", "needs hosts")
	}
}

// plainDoors returns the keys of listeners that ask for what everybody on the way can read.
func (c *Config) plainDoors() (keys []string) {
	if !c.Auth.Proves() && !c.Asks() {
		return nil
	}
	for i, l := range c.Doors() {
		_, _, err := net.SplitHostPort(l.Address)
		if l.TLS.Enabled() || l.Authentication == AuthNone || err != nil || OnLoopback(l.Address) {
			continue
		}
		key := "authentication"
		if i > 0 {
			key = nth("listeners", i-1)
		}
		keys = append(keys, key)
	}
	return keys
}
