// Package config holds the settings of Forebay: parsed, defaulted and validated values.
//
// A setting comes from the command line, else from the environment, else from one
// YAML file, else from its default. [Load] returns a configuration that can be used
// as it is, or all its faults at once. Nothing here acts on a setting.
//
// Warning: a [Config] holds passwords. They are of type [Secret], which prints as a mask.
package config

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"forebay/config/fault"
	"forebay/config/parse"
	"forebay/config/unit"
	"forebay/internal/registries"
	"forebay/internal/secret"
)

// What is wrong with a configuration, and where a value comes from.
type (
	Fault  = fault.Fault
	Faults = fault.Faults
	Origin = fault.Origin
)

// Config is a whole configuration. Its documentation for users is the table in
// fields.go, which also writes docs/configuration.md.
type Config struct {
	// Listen is the address of the registry API for clients. Default ":5000".
	Listen string
	// AdminListen is the address of /metrics, /healthz and /readyz. Default
	// "127.0.0.1:5001"; empty means no admin listener ("off" in the file).
	AdminListen string
	// AdminToken is required of users of the admin API. If it is empty, only a listener on
	// loopback serves that API.
	AdminToken     Secret // from AdminToken or AdminTokenFile
	AdminPprof     bool   // serve profiles of the process on AdminListen. Default false
	AdminTokenFile string
	TLS            TLS // of Listen
	// ClientCAFile and Authentication are those of Listen; see [Listener].
	ClientCAFile   string
	Authentication Authentication
	Listeners      []Listener // further ones; see [Config.Doors]
	Auth           Auth
	Access         []AccessRule
	Audit          string // file of the audit log, or AuditStdout; empty: there is none
	AdminTLS       TLS    // of AdminListen
	// AdminClientCAFile is that of AdminListen; Operators have roles there.
	AdminClientCAFile string
	Operators         Operators
	// HTTP2 offers HTTP/2 over TLS, and over plain text to clients that know. Default false.
	HTTP2 bool
	// ShutdownGrace bounds how long running transfers may finish after SIGTERM. Default 30s.
	ShutdownGrace time.Duration
	Storage       Storage
	// Upstreams are the mirrored registries, sorted by name. Never empty.
	Upstreams []Upstream
	// Others is how registries are asked that clients name and that are not among Upstreams; nil
	// means not at all. Its name is [AnyRegistry], and it has Allow and no Aliases.
	Others *Upstream
	// Pins are patterns of images that are not evicted.
	Pins []string
	AsOf map[string]string // time or snapshot by the name in Host, whose tags are served under it
	// Policies say which digest of a tag answers.
	Policies []Policy
	// Prefetch are sets of images that are fetched ahead of need.
	Prefetch []PrefetchSet
	// Signers are those whose signatures count.
	Signers []Signer
	// Notify are those that are told what happens.
	Notify []Target
	// ScrubInterval is the time within which everything that is kept is read once and compared
	// with its digest. Default 30 days; 0 means never.
	ScrubInterval time.Duration
	// Hosts maps the name in a request's Host header to the name of an upstream.
	Hosts map[string]string
	// Trusted are networks whose clients may say how a request is traced, and are told what is
	// left of budgets. Default none.
	Trusted []netip.Prefix
	// Catalog says which names of repositories and tags clients are told. Default CatalogOwn.
	Catalog Catalog
	// Fallback says whether clients have another place to pull from. Default FallbackClients.
	Fallback Fallback
	// OnAbandon says what becomes of a download that no client waits for. Default AbandonFinish.
	OnAbandon OnAbandon
	// OnRange says what is fetched of a blob of which only ranges are asked for. Default RangeWhole.
	OnRange OnRange
	// RevalidateTimeout bounds how long a client waits for the check of a tag that is
	// known but past its TTL. Default 2s.
	RevalidateTimeout time.Duration
	// NegativeTTL is how long the upstream's "not found" is remembered. Default 10s.
	NegativeTTL time.Duration
	// Offline never contacts any registry. Default false. It is set for every upstream too.
	Offline  bool
	Log      Log
	Webhooks Webhooks
	Tracing  Tracing
	Fleet    Fleet
	// Limits are those of one client.
	Limits   Limits
	LimitsOf []LimitsOf // in place of Limits; the first counts
	// Cost is what a GiB from a registry costs, for the figures of what is saved.
	Cost        Cost
	ClientNames ClientNames

	// File is the name of the file that was read; empty when there was none.
	File string

	origins map[string]Origin // by key path; no entry for a default
	foreign []Fault           // variables that begin with FOREBAY_ and mean nothing
}

// Tracing is where traces of requests go.
type Tracing struct {
	Endpoint    string // URL; empty: no traces are made
	Headers     Secret // from Headers or HeadersFile: pairs of name=value
	HeadersFile string
	Ratio       float64 // share of requests. Default 0.1
}

// Webhooks is how registries may tell of a push, at /webhooks of AdminListen.
type Webhooks struct {
	OnListen   bool   // at Listen, too. Default false
	Secret     Secret // from Secret or SecretFile; empty: no webhooks are received
	SecretFile string
}

// Limits bounds what one client, which is an address or an identity, may have. 0 means no limit.
type Limits struct {
	NewPerMinute      int     // requests to registries for what is not known here. Default 6,000
	Pulls             int     // requests that registries count, in six hours. Default 0
	BudgetShare       float64 // of what each registry gives, in its window. Default 0
	Fills             int     // downloads begun and in progress. Default 512
	RequestsPerSecond int     // of any kind. Default 0
	Transfers         int     // blobs that are sent at once. Default 0
	BytesPerSecond    int64   // that are sent. Default 0
}

// LimitsOf are those of some clients, in place of those of all.
type LimitsOf struct {
	Who    []string
	Shared bool // by all of them together
	Limits Limits
}

// Cost is the price of what comes from registries.
type Cost struct {
	PerGiB   float64 // price of one GiB; 0, the default: none is told
	Currency string  // what the price is in. Default "USD"
}

// ClientNames is where operators are told from what clients are called.
type ClientNames struct {
	File string // with an address or network and a name on each line
	DNS  bool   // the name server is asked. Default true
}

// TLS is a certificate for a listener. Both files are set or neither is.
type TLS struct {
	CertFile string // PEM, leaf first
	KeyFile  string // PEM
	ACME     ACME   // in place of the files
}

// ACME is an authority that certifies names of a listener, if there are any.
type ACME struct {
	Hosts                    []string
	Directory, CAFile, Email string
}

// Enabled reports whether the listener speaks TLS.
func (t TLS) Enabled() bool { return t.CertFile != "" || len(t.ACME.Hosts) > 0 }

// Storage is where and how much is kept.
type Storage struct {
	// Dir holds everything that is kept. Default /var/lib/forebay as root, else
	// $XDG_DATA_HOME/forebay or ~/.local/share/forebay.
	Dir string
	// IndexDir takes the database of the index; empty means Dir.
	IndexDir string
	// MaxSize is how many bytes may be kept. 0 ("auto", the default) leaves the choice to
	// the program, by the size of the file system.
	MaxSize int64
	// MinFree is how many bytes of the file system are left free. 0 ("auto", the default)
	// leaves the choice to the program.
	MinFree int64
	MaxAge  time.Duration // how long unused content is kept; 0 is for ever
	S3      S3            // a bucket behind the folder
}

// Secret is a password or token in the configuration.
type Secret = secret.Text

// AnyRegistry stands among the names of upstreams for those that clients name.
const AnyRegistry = "*"

// Upstream is one mirrored registry.
type Upstream struct {
	Name string // public name, as in image references: "docker.io"
	// Endpoints are tried in order. Default https://NAME, and https://registry-1.docker.io
	// for docker.io. At least one gives tags.
	Endpoints []Endpoint
	// Aliases are other names that clients use for this registry.
	Aliases []string
	Allow   []string // patterns of the hosts that clients may name, of Others only

	Account
	FallbackCredentials []Account // for when those before are refused or used up
	// Credentials says where those of Account come from. Default CredentialsGiven.
	Credentials CredentialSource

	TagTTL          time.Duration // how long a tag is served without asking again; 0 asks every time
	TagRules        []TagRule     // first match wins over TagTTL
	RefreshMinPulls int           // pulls that make a tag worth a check in the background; 0: none is
	StaleIfError    time.Duration // age up to which tags are served while the registry fails; Forever is the default
	OnGone          OnGone
	AccessTTL       time.Duration // how long a proven right to a repository holds; 0: for ever
	Access          Access        // who says what clients may have. Default AccessMirror
	PassThrough     bool          // with AccessUpstream: what is fetched for a client is fetched in its name
	Offline         bool          // never contacted; also when that is set for all
	Stranger        bool          // a client named it; not a key

	Reserve     float64 // share of a pull limit below which the registry is spared; 0: never
	Limited     Limited
	LimitedWait time.Duration // bound of LimitedWait

	Parallel       int // connections for one large blob
	MaxConnections int // connections to this upstream, all together

	ConnectTimeout   time.Duration
	TLSTimeout       time.Duration
	FirstByteTimeout time.Duration // until the headers of an answer
	StallTimeout     time.Duration // without a byte of a body

	Bandwidth int64 // bytes a second at most; 0: no bound
	// BandwidthHours are others by the time of day.
	BandwidthHours []unit.Hours
	AddressFamily  AddressFamily // which addresses are connected to. Default AnyFamily

	CAFile         string // PEM certificates to trust beside the system's
	ClientCertFile string // PEM
	ClientKeyFile  string // PEM

	Proxy             string // URL without user; empty: none
	ProxyUsername     string
	ProxyPassword     Secret // from ProxyPassword or ProxyPasswordFile
	ProxyPasswordFile string

	// AllowPrivate lets redirects and token servers be on private addresses, and the endpoint
	// of a well-known registry.
	AllowPrivate bool
	// Trust names the upstreams that believe each other about what they hold. Default: see
	// [Upstream.TrustDomain].
	Trust string
	// ForeignHosts may be asked for layers whose manifest says that they are there.
	ForeignHosts []string
	// TrustedRealms are token servers that may get the credentials although they are
	// on another domain than the endpoint: host names, with a port if it is not 443.
	TrustedRealms []string
}

// Fallback says whether clients have another place to pull from.
type Fallback string

// FallbackClients answers failures so that clients go on to the registry itself at
// once. FallbackNone answers them with the true status.
const (
	FallbackClients Fallback = "clients"
	FallbackNone    Fallback = "none"
)

// Catalog says which names of repositories and tags clients are told.
type Catalog string

// CatalogOff tells none, CatalogOwn those of upstreams that everybody can ask, CatalogOn all.
const (
	CatalogOff Catalog = "off"
	CatalogOwn Catalog = "own"
	CatalogOn  Catalog = "on"
)

// CredentialSource says where the credentials of an upstream come from.
type CredentialSource string

// CredentialsGiven are Username or DockerConfig, or none. The others are handed out by a platform for its
// registries, to the identity that it gives us.
const (
	CredentialsGiven  CredentialSource = "given"
	CredentialsAWS    CredentialSource = "aws"
	CredentialsGoogle CredentialSource = "google"
	CredentialsAzure  CredentialSource = "azure"
)

// Access says who decides what clients may have of an upstream, where no rule does.
type Access string

// AccessMirror goes by our own credentials, AccessUpstream asks the registry by those of each client.
const (
	AccessMirror   Access = "mirror"
	AccessUpstream Access = "upstream"
)

// AddressFamily says which addresses of an upstream are connected to.
type AddressFamily string

// The address families.
const (
	AnyFamily  AddressFamily = "any"
	IPv4Family AddressFamily = "ipv4"
	IPv6Family AddressFamily = "ipv6"
)

// OnAbandon says what becomes of a download that no client waits for any more.
type OnAbandon string

// AbandonFinish keeps the download going, since most of it is usually done.
// AbandonCancel ends it.
const (
	AbandonFinish OnAbandon = "finish"
	AbandonCancel OnAbandon = "cancel"
)

// OnRange says what is fetched of a blob of which only ranges are asked for.
type OnRange string

// RangeWhole fetches all of it. RangeOnly fetches the ranges, and keeps them.
const (
	RangeWhole OnRange = "whole"
	RangeOnly  OnRange = "only"
)

// Log is what is logged and how.
type Log struct {
	Level  Level     // least severe level that is logged. Default LevelInfo
	Format LogFormat // Default LogAuto
	Access bool      // one line per client request. Default true
}

// OnLoopback reports whether HOST:PORT, of a listener or of a server, is reachable from this
// machine only.
func OnLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && parse.Loopback(host)
}

// Level is the severity of a log line.
type Level string

// The levels.
const (
	LevelDebug Level = "debug"
	LevelInfo  Level = "info"
	LevelWarn  Level = "warn"
	LevelError Level = "error"
)

// LogFormat is the form of log lines.
type LogFormat string

// LogAuto is LogConsole on a terminal and LogJSON elsewhere.
const (
	LogAuto    LogFormat = "auto"
	LogJSON    LogFormat = "json"
	LogConsole LogFormat = "console"
)

// Origin says where the value of a key comes from, such as "storage.dir".
func (c *Config) Origin(key string) Origin { return c.origins[key] }

// Upstream returns the upstream of that name, or nil.
func (c *Config) Upstream(name string) *Upstream {
	for i := range c.Upstreams {
		if c.Upstreams[i].Name == name {
			return &c.Upstreams[i]
		}
	}
	return nil
}

// defaults returns the configuration of an empty file, without the default storage
// folder and without upstreams.
func defaults() *Config {
	return &Config{
		Listen:            ":5000",
		AdminListen:       "127.0.0.1:5001",
		ShutdownGrace:     30 * time.Second,
		Hosts:             map[string]string{},
		Fallback:          FallbackClients,
		Catalog:           CatalogOwn,
		OnAbandon:         AbandonFinish,
		OnRange:           RangeWhole,
		ScrubInterval:     30 * parse.Day,
		RevalidateTimeout: 2 * time.Second,
		NegativeTTL:       10 * time.Second,
		Tracing:           Tracing{Ratio: 0.1},
		Fleet:             Fleet{Listen: ":5002", Fanout: 4},
		Log:               Log{Level: LevelInfo, Format: LogAuto, Access: true},
		Limits:            Limits{NewPerMinute: 6000, Fills: 512},
		Cost:              Cost{Currency: "USD"},
		ClientNames:       ClientNames{DNS: true},
		Storage:           Storage{S3: S3{SSE: SSEBucket, Uploads: 4}},
		origins:           map[string]Origin{},
	}
}

// defaultUpstream returns the settings of an upstream of which only the name is given.
func defaultUpstream(name string) Upstream {
	u := Upstream{
		Name:             name,
		Endpoints:        []Endpoint{{URL: "https://" + name}},
		TagTTL:           time.Minute,
		RefreshMinPulls:  3,
		StaleIfError:     Forever,
		OnGone:           GoneKeep,
		AccessTTL:        time.Hour,
		Reserve:          0.2,
		Limited:          LimitedRefuse,
		LimitedWait:      15 * time.Second,
		Parallel:         4,
		MaxConnections:   32,
		ConnectTimeout:   3 * time.Second,
		TLSTimeout:       5 * time.Second,
		FirstByteTimeout: 10 * time.Second,
		StallTimeout:     15 * time.Second,
		Credentials:      CredentialsGiven,
		Access:           AccessMirror,
		AddressFamily:    AnyFamily,
	}
	if known := registries.Find(name); known.Name == name { // and not one that has it for an alias
		u.Endpoints, u.Aliases = []Endpoint{{URL: known.Endpoint}}, known.Aliases
	}
	return u
}

// useUpstreams makes names the set of upstreams. One that is there keeps its settings.
func (c *Config) useUpstreams(names []string) {
	var kept []Upstream
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		if u := c.Upstream(name); u != nil {
			kept = append(kept, *u)
		} else {
			kept = append(kept, defaultUpstream(name))
		}
	}
	c.Upstreams = kept
}

func (c *Config) useWellKnown() { c.useUpstreams(registries.Mirrored()) }
