package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"forebay/config/key"
	"forebay/config/parse"
	"forebay/config/unit"
)

// field is one key of the file.
type field = key.Key

// fields returns the keys of the whole file but upstreams, whose names are free.
func (c *Config) fields() []field {
	return []field{
		key.Address("listen", &c.Listen, false,
			"Address of the registry API, which clients pull from."),
		key.Address("admin_listen", &c.AdminListen, true,
			"Address of /metrics, /healthz, /readyz and of the admin API, which the operator's commands use. Keep it off public networks. `off` turns it off."),
		key.Secret("admin_token", &c.AdminToken,
			"Token that the admin API asks for, at least 16 characters. Prefer `admin_token_file`. Without one the server makes itself a token where `admin_listen` is a loopback address, in `admin.token` in the folder of `storage.dir`, which the commands find; on any other address the API is not served."),
		key.SecretFile("admin_token_file", &c.AdminTokenFile, "File with that token; a line break at its end is dropped."),
		key.Bool("admin_pprof", &c.AdminPprof,
			"Serves profiles of the running program below /debug/pprof/ of `admin_listen`, to whom the admin API answers."),
		{Name: "tls", Kind: key.Section, Fields: append(c.TLS.fields("listen"), c.TLS.ACME.field()),
			Doc: "Certificate of `listen`. Without one it speaks plain HTTP."},
		clientCAField("client_ca_file", &c.ClientCAFile),
		authenticationField(&c.Authentication),
		listenersField(&c.Listeners),
		{Name: "auth", Kind: key.Section, Fields: c.Auth.fields(), Doc: "How clients prove who they are."},
		accessField(&c.Access),
		auditField(&c.Audit),
		{Name: "admin_tls", Kind: key.Section, Fields: append(c.AdminTLS.fields("admin_listen"), c.AdminTLS.ACME.field()),
			Doc: "Certificate of `admin_listen`. Without one it speaks plain HTTP."},
		clientCAField("admin_client_ca_file", &c.AdminClientCAFile),
		{Name: "operators", Kind: key.Section, Fields: c.Operators.fields(), Doc: "Who may use the admin API and the dashboard beside the holder of the admin token, by what `auth` or a certificate proves."},
		key.Bool("http2", &c.HTTP2,
			"Offers HTTP/2 to clients, over TLS and over plain text. HTTP/1.1 is faster for large layers, since one connection carries one layer."),
		key.Duration("shutdown_grace", &c.ShutdownGrace, 0, time.Hour,
			"How long running transfers may go on after SIGTERM."),
		{Name: "storage", Kind: key.Section, Fields: c.Storage.fields(), Doc: "What is kept, and where."},
		key.Texts("pins", &c.Pins, "patterns", parse.PinPattern,
			"Images that are not evicted: patterns of `docker.io/library/nginx:1.27` with `*`, `?` and `[sets]`; `docker.io/library/` may be left out. `*` stands for any text, slashes too. Of each tag that matches, the platforms are kept that somebody pulls. `forebay pin` pins single images."),
		policiesField(&c.Policies),
		asOfField(&c.AsOf),
		prefetchField(&c.Prefetch),
		{Name: "scrub", Kind: key.Section, Doc: "Reading of what is kept in the background.", Fields: []field{
			key.Duration("interval", &c.ScrubInterval, 0, 3650*parse.Day,
				"Time within which everything that is kept is read and compared with its digest, slowly and at a low priority. What is damaged is put aside and fetched again. 0 turns it off."),
		}},
		hostsField(&c.Hosts),
		key.Networks("trusted_networks", &c.Trusted,
			"Networks of clients that are believed. Of a mirror that has this one for its upstream: it is told what is left of the registry's budget, so that it spares the reserve, too. Of any client: its `traceparent` decides whether its request is traced, and in which trace. Of a proxy: that clients come to it by TLS (`X-Forwarded-Proto`) and under which name (`X-Forwarded-Host`), for the address at which they log in; one on this machine is believed without. A proxy counts by its own address."),
		key.Choice("catalog", &c.Catalog, []Catalog{CatalogOff, CatalogOwn, CatalogOn},
			"Which names clients are told that ask for lists: of repositories (`/v2/_catalog`) and of tags (`tags/list`). `own`: those of upstreams without credentials, which every client could find out on its own. `on`: those that came by credentials of the mirror, too. `off`: none. Repositories to which the mirror is refused access are never among them."),
		key.Choice("fallback", &c.Fallback, []Fallback{FallbackClients, FallbackNone},
			"Whether clients have somewhere else to go when the upstream fails. `clients`: failures are answered so that dockerd, containerd and podman go on to the registry itself at once. `none`: failures are answered with their true status, for clients that pull from here only."),
		key.Choice("on_abandon", &c.OnAbandon, []OnAbandon{AbandonFinish, AbandonCancel},
			"What becomes of a download when all its clients have gone: `finish` keeps it going if anything has come, `cancel` ends it."),
		key.Choice("on_range", &c.OnRange, []OnRange{RangeWhole, RangeOnly},
			"What is fetched of a blob that is not kept when clients ask for ranges of it, as snapshotters do that pull lazily (stargz, SOCI). `whole`: all of it, so that the next range is here. `only`: those ranges, until somebody asks for the whole; they are kept until a day after their last use, do not count for `prefetch`, and are the first to go when room is needed."),
		key.Duration("revalidate_timeout", &c.RevalidateTimeout, time.Millisecond, 15*time.Second,
			"How long a client waits for the check of a tag that is known but older than `tag_ttl`. After that it gets what is known, and the check goes on."),
		key.Duration("negative_ttl", &c.NegativeTTL, 0, parse.Day,
			"How long a \"not found\" of the upstream is remembered. 0 asks every time."),
		key.Bool("offline", &c.Offline, "Never contacts any registry. What is kept is served, all else is not found."),
		{Name: "log", Kind: key.Section, Fields: c.Log.fields(), Doc: "What is logged, to standard error."},
		{Name: "tracing", Kind: key.Section, Fields: c.Tracing.fields(), Doc: "Traces of requests, for OpenTelemetry."},
		{Name: "fleet", Kind: key.Section, Fields: c.Fleet.Fields(), Doc: "Several mirrors behind one balancer that ask a registry once between them: see replicas.md."},
		{Name: "webhooks", Kind: key.Section, Fields: c.Webhooks.fields(), Doc: "Registries that tell of a push."},
		notifyField(&c.Notify),
		signersField(&c.Signers),
		{Name: "limits", Kind: key.Section, Fields: append(c.Limits.fields(), limitsOfField(&c.LimitsOf)), Doc: "What one client may have: an identity where `auth` tells them apart, else an address, behind which there may be many. What is kept and fresh is served without limits but those of requests, transfers and bytes. Whoever is beyond one is answered 429; clients that can go to the registry themselves are told to."},
		{Name: "client_names", Kind: key.Section, Fields: c.ClientNames.fields(), Doc: "What clients are called where operators see them; it decides nothing."},
		{Name: "cost", Kind: key.Section, Fields: c.Cost.fields(), Doc: "What traffic costs, for the dashboard and `forebay status`."},
	}
}

func (t *TLS) fields(listener string) []field {
	return []field{
		key.File("cert_file", &t.CertFile,
			"PEM file with the certificate of `"+listener+"`, followed by its intermediates. Read again when it changes."),
		key.SecretFile("key_file", &t.KeyFile, "PEM file with its private key."),
	}
}

func (a *ACME) field() field {
	return field{Name: "acme", Kind: key.Section, Doc: "An authority that certifies the listener by itself (RFC 8555), in place of `cert_file`. Who sets it agrees to its terms.", Fields: []field{
		key.Texts("hosts", &a.Hosts, "host names", parse.PublicHost, "Names that certificates are asked for, each when the first client comes, and again when a third of its time is left. The authority must reach this listener, or another of this mirror with `acme`, as port 443 of each (TLS-ALPN-01). Clients that say no name get the first one."),
		{Name: "directory", What: "a URL", Doc: "Where the authority is. Default: Let's Encrypt.",
			Set: key.Into(&a.Directory, func(s string) (string, error) { return s, parse.HTTPS(s) }), Get: func() []string { return []string{a.Directory} }},
		key.File("ca_file", &a.CAFile, "PEM certificates to trust for the directory beside the system's."),
		key.Text("email", &a.Email, "Whom the authority tells of trouble."),
	}}
}

func (s *Storage) fields() []field {
	return []field{
		key.File("dir", &s.Dir,
			"Folder of everything that is kept; created when it is missing. Default: /var/lib/forebay for root, else forebay in $XDG_DATA_HOME or ~/.local/share."),
		key.File("index_dir", &s.IndexDir,
			"Folder for the database of the index, as on a faster disk; it moves there by itself, and its size does not count for `max_size`. The journal from which it can be rebuilt stays in `dir`. Empty: `dir`."),
		key.Size("max_size", &s.MaxSize, sizeLeast,
			"What the folder may hold, index and partial fills included. `auto` is 100GiB, or 80 % of the file system if that is less. What is worth least is evicted ahead of need; a blob that does not fit is passed through and not kept."),
		key.Size("min_free", &s.MinFree, 1,
			"What is left free on the file system, whoever fills it. `auto` is 5 % of it, and at least 512MiB where it is larger than 10GiB."),
		key.Duration("max_age", &s.MaxAge, 0, 3650*parse.Day,
			"Content that nobody used for so long is dropped. 0: never."),
		{Name: "s3", Kind: key.Section, Fields: s.S3.fields(), Doc: "A bucket behind the folder, for more than a disk holds."},
	}
}

func (l *Log) fields() []field {
	return []field{
		key.Choice("level", &l.Level, []Level{LevelDebug, LevelInfo, LevelWarn, LevelError}, "Least severe lines that are logged."),
		key.Choice("format", &l.Format, []LogFormat{LogAuto, LogJSON, LogConsole}, "`json`, `console` (for people), or `auto`: console on a terminal and JSON elsewhere."),
		key.Bool("access", &l.Access, "One line per client request."),
	}
}

func (t *Tracing) fields() []field {
	return []field{
		tracesField(&t.Endpoint),
		key.Secret("headers", &t.Headers,
			"Headers that the collector wants, as `name=value` pairs separated by commas. Prefer `headers_file`."),
		key.SecretFile("headers_file", &t.HeadersFile, "File with those pairs, all in one line."),
		key.Percent("ratio", &t.Ratio,
			"Share of the requests of which a trace is kept. A client of `trusted_networks` that sends a `traceparent` decides for its own request."),
	}
}

// tracesField is where traces go.
func tracesField(p *string) field {
	return field{Name: "endpoint", What: "a URL",
		Doc: "Collector that takes traces by OTLP over HTTP, such as `https://collector.lan:4318`; `/v1/traces` is added where there is no path. http:// sends them unencrypted. Empty: no traces.",
		Set: key.Into(p, parse.Traces), Get: func() []string { return []string{*p} }}
}

func (w *Webhooks) fields() []field {
	return []field{
		key.Bool("on_listen", &w.OnListen,
			"Receives them at `listen`, too, so that `admin_listen` need not be reachable from where the registries are."),
		key.Secret("secret", &w.Secret,
			"Lets registries tell of a push, by a POST to /webhooks of `admin_listen`: Docker Hub, GitHub, Quay, Harbor, ACR, ECR (EventBridge) and distribution. A tag that is known is then checked at once with one HEAD; nothing in the payload is believed. At least 16 letters, digits, `-` or `_`. Empty: off. Who posts has to know it: as the key of the signature that GitHub sends (`X-Hub-Signature-256`), in the header `Authorization` (Harbor, ACR, EventBridge, distribution), or, where nothing else can be set, as the end of the path, /webhooks/SECRET, which proxies on the way may write down. Append `?upstream=NAME` for a registry that calls itself otherwise than in `upstreams`. Prefer `secret_file`."),
		key.SecretFile("secret_file", &w.SecretFile, "File with that secret; a line break at its end is dropped."),
	}
}

func (l *Limits) fields() []field {
	return []field{
		key.Int("new_per_minute", &l.NewPerMinute, 0, 10_000_000,
			"Requests a minute that go to registries for tags and digests which are not known here. A node that starts a hundred pods makes some 500. 0: no limit."),
		key.Int("pulls", &l.Pulls, 0, 10_000_000,
			"Requests in six hours that registries count as pulls. The last quarter of an upstream's `budget.reserve` goes only to repositories that are known here, whatever this says. 0: no limit."),
		key.Percent("budget_share", &l.BudgetShare,
			"Share of what each registry gives to the mirror, in its own time: `25%` of 200 pulls in six hours are 50. It counts once the registry has told its limit. 0: no limit."),
		key.Int("fills", &l.Fills, 0, 1_000_000, "Downloads that a client has begun and that are in progress. 0: no limit."),
		key.Int("requests_per_second", &l.RequestsPerSecond, 0, 1_000_000, "Requests of any kind in a second, over time: those of ten seconds may come at once. 0: no limit."),
		key.Int("transfers", &l.Transfers, 0, 1_000_000, "Blobs that are sent to it at once. 0: no limit."),
		{Name: "bytes_per_second", What: "a number of bytes, such as `100MiB`", Doc: "Bytes that are sent to it in a second. 0: no limit.",
			Set: key.Into(&l.BytesPerSecond, unit.ParseSize), Get: func() []string { return []string{unit.FormatSize(l.BytesPerSecond)} }},
	}
}

// limitsOfField is the list of limits of some. What an element does not say is taken from those of all,
// once these are read.
func limitsOfField(p *[]LimitsOf) field {
	initial := LimitsOf{Limits: Limits{-1, -1, -1, -1, -1, -1, -1}}
	return key.Mappings("of", "Limits of some clients, in place of those above; the first element that is about a client counts. What it leaves out is as above.", p, initial,
		func(l *LimitsOf) []field {
			return append([]field{
				key.Texts("who", &l.Who, "identities", parse.Who, "As in `access.who`."),
				key.Bool("shared", &l.Shared, "They have these limits together, as a team, instead of each for itself. Whose turn it is remains with each."),
			}, l.Limits.fields()...)
		})
}

// inherit takes from all what the limits leave out.
func (l *Limits) inherit(all *Limits) {
	for _, f := range [][2]*int{{&l.NewPerMinute, &all.NewPerMinute}, {&l.Pulls, &all.Pulls}, {&l.Fills, &all.Fills}, {&l.RequestsPerSecond, &all.RequestsPerSecond}, {&l.Transfers, &all.Transfers}} {
		if *f[0] < 0 {
			*f[0] = *f[1]
		}
	}
	if l.BudgetShare < 0 {
		l.BudgetShare = all.BudgetShare
	}
	if l.BytesPerSecond < 0 {
		l.BytesPerSecond = all.BytesPerSecond
	}
}

func (c *Cost) fields() []field {
	return []field{
		key.Price("per_gib", &c.PerGiB,
			"Price of one GiB that comes from a registry, such as `0.09`. With it, what the mirror saves is told as money, too. 0: it is not."),
		{Name: "currency", What: "a currency", Doc: "What the price is in: at most 8 characters, such as `EUR`.",
			Set: key.Into(&c.Currency, parse.Currency), Get: func() []string { return []string{c.Currency} }},
	}
}

func (n *ClientNames) fields() []field {
	return []field{
		key.File("file", &n.File, "File with an address or a network, a space and a name on each line; what follows `#` is for people. Read again when it changes. Who has a name here and never asks is told as well; in Kubernetes nodes are known without it, where the pod may list them."),
		key.Bool("dns", &n.DNS, "Asks the name server for names of clients, in the background, when somebody looks at them."),
	}
}

// fields returns the keys below upstreams.NAME.
func (u *Upstream) fields() []field {
	list := []field{
		endpointsField(&u.Endpoints),
		key.Texts("aliases", &u.Aliases, "host names", parse.Host,
			"Other names that clients use for this registry, in `?ns=` or in front of the repository."),
		key.Texts("allow", &u.Allow, "patterns", parse.Match,
			"Of `upstreams.*` only, and needed there: the hosts that clients may name, as patterns with `*`, `?` and [sets], such as `*.example.com` or `registry.example.com:5000`. With it any such registry is mirrored once somebody asks for it by `?ns=` or in front of the repository: anonymously, at https://HOST, at public addresses only (unless `allow_private`), and by the other keys of `upstreams.*`. Figures count all of these as one. Beside `*` alone the well-known registries are mirrored."),
	}
	list = append(list, u.Account.fields()...)
	list = append(list, key.Choice("credentials", &u.Credentials, []CredentialSource{CredentialsGiven, CredentialsAWS, CredentialsGoogle, CredentialsAzure},
		"Where the credentials come from. `given`: `username` or `docker_config`, or none. `aws`: Amazon hands out passwords for ACCOUNT.dkr.ecr.REGION.amazonaws.com and public.ecr.aws, which are renewed before their 12 hours end. Who asks for them is found out as by all programs on AWS: environment, shared files, web identity, container or instance role; it needs the right ecr:GetAuthorizationToken. `google`: the metadata server hands them out for gcr.io, *.gcr.io and *.pkg.dev, to the service account of the machine, or the one that Workload Identity Federation for GKE gives the pod. `azure`: NAME.azurecr.io gives them for the managed identity of the machine, App Service or Container Apps, or for Workload Identity (AZURE_FEDERATED_TOKEN_FILE, AZURE_TENANT_ID, AZURE_CLIENT_ID); it needs the role AcrPull."))
	list = append(list, fallbackField(&u.FallbackCredentials))
	list = append(list, u.freshnessFields()...)
	list = append(list, u.mannersFields()...)
	list = append(list, u.connectionFields()...)
	if u.Name == AnyRegistry { // which they are, and who asks them, is not said of many at once
		ofOne := []string{"endpoints", "aliases", "username", "password", "password_file", "docker_config", "credentials", "fallback_credentials",
			"client_cert_file", "client_key_file", "trusted_realms", "trust", "access", "pass_through"}
		list = slices.DeleteFunc(list, func(f field) bool { return slices.Contains(ofOne, f.Name) })
	}
	return list
}

// connectionFields are the keys that say how the registry is connected to.
func (u *Upstream) connectionFields() []field {
	return []field{
		key.Int("parallel", &u.Parallel, 1, 32, "Connections for one large blob."),
		key.Int("max_connections", &u.MaxConnections, 1, 1024, "Connections to this registry, all together."),
		key.Size("bandwidth", &u.Bandwidth, 128<<10, "Bytes a second that come from this registry at most, over all connections; `auto`: no bound."),
		key.Hours("bandwidth_hours", &u.BandwidthHours, "Other bounds by the time of day, such as `08:00-18:00=5MiB`, or `22:00-06:00=auto` for none; the first that holds counts. The clock is that of the machine, with TZ."),
		key.Duration("connect_timeout", &u.ConnectTimeout, time.Millisecond, time.Minute, "Longest wait for a TCP connection."),
		key.Duration("tls_timeout", &u.TLSTimeout, time.Millisecond, time.Minute, "Longest wait for a TLS handshake."),
		key.Duration("first_byte_timeout", &u.FirstByteTimeout, time.Millisecond, 20*time.Second,
			"Longest wait for the headers of an answer. At most 20s: dockerd and podman wait for us without a limit of their own."),
		key.Duration("stall_timeout", &u.StallTimeout, time.Millisecond, 10*time.Minute, "Longest pause within a body, after which the transfer is resumed on a new connection."),
		key.Choice("address_family", &u.AddressFamily, []AddressFamily{AnyFamily, IPv4Family, IPv6Family},
			"Which addresses are connected to. Docker Hub counts anonymous pulls over IPv6 for a whole /64, which other machines may share: with `ipv4` they count for one address."),
		key.File("ca_file", &u.CAFile, "PEM file with certificates to trust beside the system's."),
		key.File("client_cert_file", &u.ClientCertFile, "PEM file with a client certificate for the registry and its token server. Neither redirect targets nor stand-ins are shown it."),
		key.SecretFile("client_key_file", &u.ClientKeyFile, "PEM file with its private key."),
		key.Proxy(&u.Proxy),
		key.Text("proxy_username", &u.ProxyUsername, "User for the proxy."),
		key.Secret("proxy_password", &u.ProxyPassword, "Password of `proxy_username`. Prefer `proxy_password_file`."),
		key.SecretFile("proxy_password_file", &u.ProxyPasswordFile, "File with that password; a line break at its end is dropped."),
		key.Bool("allow_private", &u.AllowPrivate,
			"Lets redirects and token servers be on private addresses. Without it they may be only when the endpoint is written as one, or with a name of one label or below .internal, .intranet, .private, .corp, .home, .lan, .local, .localdomain, .svc or .home.arpa. An endpoint on loopback may lead to loopback too. A well-known public registry is never contacted at a private address without it. Link-local and metadata addresses, and our own listeners, are never contacted."),
		key.Text("trust", &u.Trust, "Upstreams with the same name here believe each other: when one says that it holds what came from another, that is served for it. Else content that is kept comes once more from each registry that says that it holds it, and is compared. Default: a name of its own; well-known public registries without credentials share one, since nothing of theirs is private."),
		key.Texts("foreign_hosts", &u.ForeignHosts, "host names", parse.Host,
			"Hosts that foreign layers (of Windows images) are fetched from, without credentials, where the registry does not have them and their manifest names a URL there. Without them such a layer is called missing."),
		key.Texts("trusted_realms", &u.TrustedRealms, "host names", parse.Host,
			"Token servers that may get the credentials although they are on another domain than the endpoint."),
	}
}

// sizeLeast is the least max_size: a store that cannot hold a layer or two is a mistake.
const sizeLeast = 16 << 20

// sizeSound is the least of which most is for blobs.
const sizeSound = 256 << 20

func hostsField(p *map[string]string) field {
	return field{Name: "hosts", Kind: key.Table, What: "pairs of a host name and an upstream",
		Doc: "Names of this server (in a request's Host header) that stand for one upstream, such as `ghcr.mirror.lan: ghcr.io`.",
		Set: func(s string) error {
			host, upstream, ok := strings.Cut(s, "=")
			if !ok {
				return fmt.Errorf("%q is not a pair: use HOST=UPSTREAM", parse.Clip(s))
			}
			if upstream == "" {
				return errors.New("has no upstream: name one, such as docker.io")
			}
			host, err := parse.Host(host)
			if err != nil {
				return err
			}
			host = strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":80") // clients leave out the port of their scheme
			if _, twice := (*p)[host]; twice {
				return fmt.Errorf("%q is there twice", parse.Clip(host))
			}
			(*p)[host] = upstream
			return nil
		},
		Clear: func() { *p = map[string]string{} },
		Get:   func() []string { return parse.Pairs(*p) }}
}
