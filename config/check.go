package config

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"regexp"
	"slices"
	"strings"

	"forebay/config/parse"
	"forebay/internal/registries"
	"forebay/internal/secret"
)

// check reads the files that hold secrets and finds what is wrong between keys.
func (d *decoder) check() {
	c := d.config
	d.checkListeners()
	d.checkPair("tls", "cert_file", &c.TLS.CertFile, "key_file", &c.TLS.KeyFile)
	d.checkPair("admin_tls", "cert_file", &c.AdminTLS.CertFile, "key_file", &c.AdminTLS.KeyFile)
	if c.AdminListen == "" && c.AdminTLS.Enabled() {
		d.Add(c.origins["admin_tls.cert_file"], "admin_tls", "is set although admin_listen is off: remove one of them")
	}
	d.checkACME("admin_tls", c.AdminTLS)
	d.checkFront()
	d.checkWebhooks()
	d.checkTracing()
	d.checkFleet()
	d.checkAdminToken()
	d.checkS3()
	for _, u := range c.configured() {
		d.checkUpstream(u)
	}
	for i := range c.Upstreams {
		c.logIn(&c.Upstreams[i])
	}
	d.checkNames()
	d.checkPrefetch()
	d.checkNotify()
	d.checkPolicies()
	d.checkSigners()
}

// logIn gives an upstream without an account those of the registry whose credentials it takes.
func (c *Config) logIn(u *Upstream) {
	known := registries.Find(u.Name)
	from := c.Upstream(known.LogsInAs)
	if from != nil && !u.named() && slices.Equal(u.Endpoints, []Endpoint{{URL: known.Endpoint}}) {
		u.Account, u.FallbackCredentials = from.Account, from.FallbackCredentials
	}
}

// adminTokenLeast keeps the admin token from being guessed.
const adminTokenLeast = 16

func (d *decoder) checkAdminToken() {
	c := d.config
	faults := len(d.Faults)
	d.password("", "admin_token", &c.AdminToken, "admin_token_file", &c.AdminTokenFile)
	if len(d.Faults) > faults || c.AdminToken.Empty() {
		return
	}
	key := given(c.AdminTokenFile, "admin_token_file", "admin_token")
	if token := c.AdminToken.Reveal(); len(token) < adminTokenLeast || strings.ContainsAny(token, " \t") {
		d.Add(c.origins[key], key, "needs at least %d characters and no blanks", adminTokenLeast)
	}
}

// checkListeners finds two listeners on one address.
func (d *decoder) checkListeners() {
	c := d.config
	host, port, err := net.SplitHostPort(c.Listen)
	adminHost, adminPort, adminErr := net.SplitHostPort(c.AdminListen)
	if err != nil || adminErr != nil || port != adminPort || port == "0" {
		return
	}
	if host == adminHost || parse.EveryAddress(host) || parse.EveryAddress(adminHost) {
		at, key := c.origins["listen"], "listen"
		if origin, given := c.origins["admin_listen"]; given {
			at, key = origin, "admin_listen"
		}
		d.Add(at, key, "listen (%s) and admin_listen (%s) use the same port: change one of them", c.Listen, c.AdminListen)
	}
}

// checkPair checks that a certificate and its key are both there and fit.
func (d *decoder) checkPair(path, certKey string, cert *string, keyKey string, key *string) {
	certPath, keyPath := join(path, certKey), join(path, keyKey)
	switch {
	case *cert == "" && *key == "":
	case *key == "":
		d.Add(d.config.origins[certPath], certPath, "needs %s beside it", keyKey)
	case *cert == "":
		d.Add(d.config.origins[keyPath], keyPath, "needs %s beside it", certKey)
	default:
		// The error names the file or what does not fit, and never the key's bytes.
		if _, err := tls.LoadX509KeyPair(*cert, *key); err != nil {
			d.Add(d.config.origins[certPath], certPath, "%s", err)
		}
	}
}

// checkAllowed checks which registries clients may name.
func (d *decoder) checkAllowed(path string, u *Upstream) {
	add := func(key, text string) { d.Add(d.config.origins[key], key, "%s", text) }
	switch {
	case u != d.config.Others && len(u.Allow) > 0:
		add(join(path, "allow"), "is for upstreams."+AnyRegistry+": this registry is named already")
	case u == d.config.Others && len(u.Allow) == 0:
		add(path, `needs allow, the hosts that clients may name, such as ["*.example.com"]`)
	}
}

func (d *decoder) checkUpstream(u *Upstream) {
	path := "upstreams." + u.Name
	at := func(key string) Origin { return d.config.origins[join(path, key)] }
	fault := func(key, format string, args ...any) { d.Add(at(key), join(path, key), format, args...) }

	d.password(path, "proxy_password", &u.ProxyPassword, "proxy_password_file", &u.ProxyPasswordFile)
	d.checkPair(path, "client_cert_file", &u.ClientCertFile, "client_key_file", &u.ClientKeyFile)

	d.checkAllowed(path, u)
	d.checkAccount(path, &u.Account)
	d.checkFallback(path, u)
	d.checkEndpoints(path, u)
	for i := range u.TagRules {
		r := &u.TagRules[i]
		r.Match = parse.Within(u.Name, r.Match)
		if r.Match == "" || r.TTL == unsetTTL {
			d.Add(d.config.origins[nth(join(path, "tag_rules"), i)], nth(join(path, "tag_rules"), i), "needs match and ttl")
		}
	}
	u.Offline = u.Offline || d.config.Offline
	d.checkIssuer(u)
	switch {
	case u.Proxy == "" && u.ProxyUsername != "":
		fault("proxy_username", "needs proxy beside it")
	case u.ProxyUsername == "" && !u.ProxyPassword.Empty():
		fault("proxy_password", "needs proxy_username beside it")
	}
	switch own := slices.ContainsFunc(u.Endpoints, func(e Endpoint) bool { return !e.StandIn }); {
	case u.Access != AccessUpstream && u.PassThrough:
		fault("pass_through", "needs access: upstream beside it")
	case u.Access == AccessUpstream && (u.Offline || !own):
		fault("access", "the registry must be asked: remove offline, and name it among the endpoints")
	case u.Access == AccessUpstream && u.ClientCertFile != "":
		fault("access", "client_cert_file would prove the right of the mirror in place of that of its clients: remove one of them")
	}
	if u.Parallel > u.MaxConnections {
		key := "parallel"
		if at("max_connections").Source > at("parallel").Source {
			key = "max_connections"
		}
		fault(key, "parallel (%d) is more than max_connections (%d)", u.Parallel, u.MaxConnections)
	}
	d.checkCA(join(path, "ca_file"), u.CAFile)
}

// checkCA wants certificates in a file, if there is to be one.
func (d *decoder) checkCA(key, file string) {
	if file == "" {
		return
	}
	if text, err := readBounded(file); err != nil {
		d.Add(d.config.origins[key], key, "%s", err)
	} else if !x509.NewCertPool().AppendCertsFromPEM(text) {
		d.Add(d.config.origins[key], key, "%q holds no PEM certificate", file)
	}
}

// checkAccount reads an account's password and finds what is missing beside it.
func (d *decoder) checkAccount(path string, a *Account) {
	fault := func(key, format string, args ...any) {
		d.Add(d.config.origins[join(path, key)], join(path, key), format, args...)
	}
	d.password(path, "password", &a.Password, "password_file", &a.PasswordFile)
	switch {
	case a.Username != "" && a.Password.Empty() && a.PasswordFile == "":
		fault("username", "needs password or password_file beside it")
	case a.Username == "" && !a.Password.Empty():
		fault(given(a.PasswordFile, "password_file", "password"), "needs username beside it")
	case a.Username != "" && a.DockerConfig != "":
		fault("docker_config", "cannot be given together with username: remove one of them")
	}
	if a.DockerConfig != "" {
		if _, err := readBounded(registries.LoginFile(a.DockerConfig)); err != nil {
			fault("docker_config", "%s", err)
		}
	}
}

// checkFallback checks the further accounts of an upstream.
func (d *decoder) checkFallback(path string, u *Upstream) {
	for i := range u.FallbackCredentials {
		at := nth(join(path, "fallback_credentials"), i)
		a := &u.FallbackCredentials[i]
		a.Match = parse.Within(u.Name, a.Match)
		if origin, mapping := d.config.origins[at]; mapping && *a == (Account{Match: a.Match}) {
			d.Add(origin, at, "needs username and password_file, or docker_config; for no credentials write %s in its place", anonymous)
			continue
		}
		d.checkAccount(at, a)
	}
}

// checkEndpoints checks that something gives tags, and that no credentials go astray.
func (d *decoder) checkEndpoints(path string, u *Upstream) {
	key := join(path, "endpoints")
	fault := func(at, format string, args ...any) { d.Add(d.config.origins[at], at, format, args...) }
	if len(u.Endpoints) == 0 {
		for _, f := range d.Faults {
			if f.Key == key { // it has some, which are wrong
				return
			}
		}
		fault(key, "is empty: name one, such as https://%s, or remove the key", u.Name)
		return
	}
	tags, own := false, ""
	for i := range u.Endpoints {
		e := &u.Endpoints[i]
		at := nth(key, i)
		tags = tags || !e.StandIn || e.Tags
		switch {
		case e.StandIn && e.URL == "":
			if _, given := d.config.origins[join(at, "url")]; !given { // else it was refused
				fault(at, "needs a url")
			}
		case e.StandIn:
			d.checkAccount(at, &e.Account)
		case own == "":
			own = e.URL
		case u.named() && !parse.SameOwner(own, e.URL):
			fault(key, "%s would get the credentials for %s: if it is another registry, write {url: %s} in its place", e.URL, own, e.URL)
		}
	}
	if !tags {
		fault(key, "none gives tags: name the registry itself beside its stand-ins, or set tags: true")
	}
}

// webhookSecret is a secret that can stand in a URL as it is, and cannot be guessed.
var webhookSecret = regexp.MustCompile(`^[A-Za-z0-9_-]{16,256}$`)

func (d *decoder) checkWebhooks() {
	c := d.config
	d.password("webhooks", "secret", &c.Webhooks.Secret, "secret_file", &c.Webhooks.SecretFile)
	if c.Webhooks.Secret.Empty() {
		return
	}
	key := given(c.Webhooks.SecretFile, "webhooks.secret_file", "webhooks.secret")
	if !webhookSecret.MatchString(c.Webhooks.Secret.Reveal()) {
		d.Add(c.origins[key], key, "cannot be a part of a URL or is easily guessed: use 16 to 256 letters, digits, - or _")
	}
	if c.AdminListen == "" && !c.Webhooks.OnListen {
		d.Add(c.origins[key], key, "needs a listener, and admin_listen is off: turn it on, or set webhooks.on_listen")
	}
}

func (d *decoder) checkTracing() {
	t := &d.config.Tracing
	d.password("tracing", "headers", &t.Headers, "headers_file", &t.HeadersFile)
	key := given(t.HeadersFile, "tracing.headers_file", "tracing.headers")
	if _, err := parse.HeaderPairs(t.Headers.Reveal()); err != nil {
		d.Add(d.config.origins[key], key, "%s", err)
	}
	if t.Endpoint == "" && !t.Headers.Empty() {
		d.Add(d.config.origins[key], key, "there is no collector to send them to: set tracing.endpoint")
	}
}

// platforms are those that hand out credentials: for registries of which names.
var platforms = map[CredentialSource]struct {
	names *regexp.Regexp
	are   string
}{
	CredentialsAWS:    {regexp.MustCompile(`^(public\.ecr\.aws|[0-9]{12}\.dkr[.-]ecr(-fips)?\..+)$`), "public.ecr.aws and ACCOUNT.dkr.ecr.REGION.amazonaws.com"},
	CredentialsGoogle: {regexp.MustCompile(`(^|\.)gcr\.io$|\.pkg\.dev$`), "gcr.io, *.gcr.io and *.pkg.dev"},
	CredentialsAzure:  {regexp.MustCompile(`\.azurecr\.(io|us|cn)$`), "NAME.azurecr.io"},
}

// checkIssuer finds an upstream that is no registry of the platform that is to hand out its credentials.
func (d *decoder) checkIssuer(u *Upstream) {
	path := "upstreams." + u.Name + ".credentials"
	at := d.config.origins[path]
	switch platform, ok := platforms[u.Credentials]; {
	case !ok:
	case u.Username != "" || u.DockerConfig != "":
		d.Add(at, path, "%s cannot be given together with username or docker_config: remove one of them", u.Credentials)
	case !platform.names.MatchString(u.Name):
		d.Add(at, path, "%s is for %s: the upstream must have such a name", u.Credentials, platform.are)
	}
}

// password decides whether a secret or its file counts, and reads the file.
func (d *decoder) password(path, key string, to *Secret, fileKey string, file *string) {
	at, fileAt := d.config.origins[join(path, key)], d.config.origins[join(path, fileKey)]
	switch {
	case *file == "":
		return
	case to.Empty() || fileAt.Source > at.Source:
		*to = Secret{}
	case fileAt.Source < at.Source:
		*file = ""
		return
	default:
		d.Add(fileAt, join(path, fileKey), "cannot be given together with %s: remove one of them", key)
		return
	}
	text, err := readBounded(*file)
	if err != nil {
		d.Add(fileAt, join(path, fileKey), "%s", err)
		return
	}
	line := secret.Line(text)
	if line == "" {
		d.Add(fileAt, join(path, fileKey), "%q is empty", *file)
		return
	}
	if _, err := parse.Plain(line); err != nil {
		d.Add(fileAt, join(path, fileKey), "%q %s", *file, err)
		return
	}
	*to = secret.New(line)
}

// checkNames finds aliases and hosts that lead to no upstream, or to two.
func (d *decoder) checkNames() {
	c := d.config
	owner := map[string]string{}
	for _, u := range c.Upstreams {
		if registries.Find(u.Name).Name == u.Name {
			owner[u.Name] = u.Name
		}
	}
	names := c.UpstreamNames()
	for _, u := range c.Upstreams {
		if known := registries.Find(u.Name); known.Name != u.Name {
			d.Add(c.origins["upstreams."+u.Name], "upstreams."+u.Name, "is another name of %s, as which clients ask for it: write %s", known.Name, known.Name)
		}
		path := "upstreams." + u.Name + ".aliases"
		for _, alias := range u.Aliases {
			if have, taken := owner[alias]; taken && have != u.Name {
				d.Add(c.origins[path], path, "%q already means %s", alias, have)
				continue
			}
			owner[alias] = u.Name
		}
	}
	for _, pair := range parse.Pairs(c.Hosts) {
		host, name, _ := strings.Cut(pair, "=")
		if !slices.Contains(names, name) {
			d.Add(c.origins["hosts"], join("hosts", parse.Clip(host)), "%q is not among the upstreams, which are %s%s",
				parse.Clip(name), strings.Join(names, ", "), parse.DidYouMean(name, names))
		}
	}
}
