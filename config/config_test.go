package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"forebay/config/fault"
	"forebay/config/parse"
	"forebay/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// load loads text as the file forebay.yaml in a folder of its own.
func load(t *testing.T, text string, env ...string) (*Config, error) {
	t.Helper()
	return loadSources(t, text, Sources{Env: env, Root: true})
}

func loadSources(t *testing.T, text string, s Sources) (*Config, error) {
	t.Helper()
	s.File = filepath.Join(t.TempDir(), "forebay.yaml")
	if err := os.WriteFile(s.File, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(s)
}

func mustLoad(t *testing.T, text string, env ...string) *Config {
	t.Helper()
	c, err := load(t, text, env...)
	if err != nil {
		t.Fatalf("Load(%q): %v", text, err)
	}
	return c
}

// faultsOf returns the faults of text, with the file's folder left out.
func faultsOf(t *testing.T, text string, env ...string) []string {
	t.Helper()
	_, err := load(t, text, env...)
	return faultLines(t, text, err)
}

func faultLines(t *testing.T, text string, err error) []string {
	t.Helper()
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("Load(%q) = %v, want Faults", text, err)
	}
	var lines []string
	for _, f := range faults {
		if f.Where.Line > 0 {
			f.Where.Name = "forebay.yaml"
		}
		lines = append(lines, f.String())
	}
	return lines
}

func TestNothingGivenMirrorsTheWellKnownRegistries(t *testing.T) {
	c := mustLoad(t, "")
	var got []string
	for _, u := range c.Upstreams {
		for _, e := range u.Endpoints {
			got = append(got, u.Name+" "+e.URL)
		}
	}
	want := []string{
		"docker.io https://registry-1.docker.io",
		"gcr.io https://gcr.io",
		"ghcr.io https://ghcr.io",
		"mcr.microsoft.com https://mcr.microsoft.com",
		"public.ecr.aws https://public.ecr.aws",
		"quay.io https://quay.io",
		"registry.k8s.io https://registry.k8s.io",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("upstreams (-want +got):\n%s", diff)
	}
	hub := c.Upstream("docker.io")
	if hub.TagTTL != time.Minute || hub.Username != "" || len(hub.Aliases) != 3 {
		t.Errorf("docker.io = %+v, want anonymous with a TTL of 1m and three aliases", hub)
	}
	if c.Listen != ":5000" || c.AdminListen != "127.0.0.1:5001" || c.Storage.Dir != "/var/lib/forebay" {
		t.Errorf("listen %q, admin_listen %q, storage.dir %q, want the defaults", c.Listen, c.AdminListen, c.Storage.Dir)
	}
}

func TestStorageFolderFollowsTheUser(t *testing.T) {
	for _, tt := range []struct {
		name string
		root bool
		env  []string
		want string
	}{
		{"root", true, []string{"HOME=/root"}, "/var/lib/forebay"},
		{"XDG_DATA_HOME", false, []string{"HOME=/home/u", "XDG_DATA_HOME=/data/u"}, "/data/u/forebay"},
		{"relative XDG_DATA_HOME", false, []string{"HOME=/home/u", "XDG_DATA_HOME=data"}, "/home/u/.local/share/forebay"},
		{"HOME", false, []string{"HOME=/home/u"}, "/home/u/.local/share/forebay"},
		{"FOREBAY_STORAGE_DIR", false, []string{"FOREBAY_STORAGE_DIR=/srv/f"}, "/srv/f"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := loadSources(t, "", Sources{Root: tt.root, Env: tt.env})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Storage.Dir; got != tt.want {
				t.Errorf("storage.dir = %q, want %q", got, tt.want)
			}
		})
	}
	_, err := loadSources(t, "", Sources{})
	want := []string{"storage.dir: has no default, since neither XDG_DATA_HOME nor HOME is set: set it, or FOREBAY_STORAGE_DIR"}
	if diff := cmp.Diff(want, faultLines(t, "", err)); diff != "" {
		t.Errorf("without a home (-want +got):\n%s", diff)
	}
}

func TestFileSetsEveryKey(t *testing.T) {
	folder := t.TempDir()
	certFile, keyFile := writeCertificate(t, folder)
	passwordFile := filepath.Join(folder, "password")
	write(t, passwordFile, "from a file\n")
	write(t, passwordFile+"-admin", "a-token-from-a-file\n")
	write(t, filepath.Join(folder, "docker.json"), "{}")
	c := mustLoad(t, fmt.Sprintf(`
listen: 127.0.0.1:6000
admin_listen: off
admin_token_file: %[3]s-admin
pins: [nginx:1.27, "ghcr.io/owner/*:v[0-9]*"]
scrub: {interval: 7d}
tls: {cert_file: %[1]s, key_file: %[2]s}
http2: true
shutdown_grace: 1m30s
storage: {dir: /srv/forebay, max_size: 1.5TiB}
hosts: {hub.mirror.lan: docker.io, "ghcr.mirror.lan:5000": ghcr.io}
trusted_networks: [10.20.0.0/16]
catalog: "off"
fallback: none
on_abandon: cancel
on_range: only
revalidate_timeout: 500ms
negative_ttl: 0
log: {level: debug, format: json, access: false}
cost: {per_gib: 0.09, currency: EUR}
client_names: {file: %[1]s, dns: false}
fleet: {listen: "127.0.0.1:5003", advertise: 10.0.0.7, zone: a, fanout: 2}
limits: {new_per_minute: 7, pulls: 8, fills: 9, bytes_per_second: 10MiB}
upstreams:
  ghcr.io: {docker_config: %[4]s/docker.json}
  docker.io:
    endpoints:
      - https://one.example.com
      - "http://10.0.0.1:5000/a/b/"
      - url: https://public.ecr.aws/
        rewrite: {from: library/, to: docker/library/}
        tags: true
        username: AWS
        password_file: %[3]s
      - url: https://stand-in.example.com
        docker_config: %[4]s/docker.json
    aliases: [hub]
    username: someone
    password_file: %[3]s
    tag_ttl: 1d12h
    parallel: 8
    max_connections: 64
    connect_timeout: 1s
    tls_timeout: 2s
    first_byte_timeout: 3s
    stall_timeout: 4s
    address_family: ipv4
    ca_file: %[1]s
    client_cert_file: %[1]s
    client_key_file: %[2]s
    proxy: http://proxy.lan:3128
    proxy_username: p
    proxy_password: q
    allow_private: true
    trust: corp
    tag_rules:
      - {match: "library/*:latest", ttl: 30s}
      - {match: "*:v[0-9]*", ttl: forever}
      - "*:edge=0"
    refresh_ahead: {min_pulls: 7}
    stale_if_error: 30d
    on_gone: drop
    access_ttl: 2h
    offline: true
    budget: {reserve: 12.5%%}
    limited: wait
    limited_wait: 9s
    fallback_credentials:
      - {username: second, password_file: %[3]s}
      - anonymous
    trusted_realms: [auth.example.com, "auth.example.com:8443"]
`, certFile, keyFile, passwordFile, folder))
	want := &Config{
		AdminToken: secret.New("a-token-from-a-file"), AdminTokenFile: passwordFile + "-admin",
		Pins: []string{"nginx:1.27", "ghcr.io/owner/*:v[0-9]*"}, ScrubInterval: 7 * parse.Day,
		Listen: "127.0.0.1:6000", TLS: TLS{CertFile: certFile, KeyFile: keyFile}, HTTP2: true, ShutdownGrace: 90 * time.Second,
		Storage: Storage{Dir: "/srv/forebay", MaxSize: 3 << 39, S3: S3{SSE: SSEBucket, Uploads: 4}},
		Hosts:   map[string]string{"hub.mirror.lan": "docker.io", "ghcr.mirror.lan:5000": "ghcr.io"},
		Trusted: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}, Catalog: CatalogOff,
		Fallback: FallbackNone, OnAbandon: AbandonCancel, OnRange: RangeOnly, RevalidateTimeout: 500 * time.Millisecond,
		Log: Log{LevelDebug, LogJSON, false}, Cost: Cost{0.09, "EUR"}, ClientNames: ClientNames{File: certFile}, File: c.File, Tracing: Tracing{Ratio: 0.1}, Fleet: Fleet{Listen: "127.0.0.1:5003", Advertise: "10.0.0.7", Zone: "a", Fanout: 2},
		Limits: Limits{NewPerMinute: 7, Pulls: 8, Fills: 9, BytesPerSecond: 10 << 20},
		Upstreams: []Upstream{{
			Name: "docker.io", Endpoints: []Endpoint{{URL: "https://one.example.com"}, {URL: "http://10.0.0.1:5000/a/b"}, {
				URL: "https://public.ecr.aws", StandIn: true, From: "library/", To: "docker/library/", Tags: true,
				Account: Account{Username: "AWS", Password: secret.New("from a file"), PasswordFile: passwordFile},
			}, {
				URL: "https://stand-in.example.com", StandIn: true, Account: Account{DockerConfig: folder + "/docker.json"},
			}}, Aliases: []string{"hub"},
			Account:             Account{Username: "someone", Password: secret.New("from a file"), PasswordFile: passwordFile},
			FallbackCredentials: []Account{{Username: "second", Password: secret.New("from a file"), PasswordFile: passwordFile}, {}},
			TagTTL:              36 * time.Hour,
			TagRules:            []TagRule{{"library/*:latest", 30 * time.Second}, {"*:v[0-9]*", Forever}, {"*:edge", 0}},
			RefreshMinPulls:     7, StaleIfError: 30 * parse.Day, OnGone: GoneDrop, AccessTTL: 2 * time.Hour, Access: AccessMirror, Offline: true,
			Reserve: 0.125, Limited: LimitedWait, LimitedWait: 9 * time.Second,
			Parallel: 8, MaxConnections: 64,
			ConnectTimeout: time.Second, TLSTimeout: 2 * time.Second, FirstByteTimeout: 3 * time.Second, StallTimeout: 4 * time.Second,
			Credentials: CredentialsGiven, AddressFamily: IPv4Family,
			CAFile: certFile, ClientCertFile: certFile, ClientKeyFile: keyFile,
			Proxy: "http://proxy.lan:3128", ProxyUsername: "p", ProxyPassword: secret.New("q"),
			AllowPrivate: true, Trust: "corp", TrustedRealms: []string{"auth.example.com", "auth.example.com:8443"},
		}, defaultUpstream("ghcr.io")},
	}
	want.Upstreams[1].DockerConfig = folder + "/docker.json"
	if diff := cmp.Diff(want, c, cmp.AllowUnexported(Secret{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.FilterPath(func(p cmp.Path) bool {
		return p.Last().String() == ".origins" || p.Last().String() == ".foreign"
	}, cmp.Ignore())); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestWebhooksAndCredentialsOfAmazon(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	write(t, file, "from-a-file-0123456789\n")
	c := mustLoad(t, fmt.Sprintf(`
webhooks: {secret_file: %s}
upstreams:
  public.ecr.aws: {credentials: aws}
  123456789012.dkr.ecr.eu-west-1.amazonaws.com: {credentials: aws, address_family: ipv6}
`, file))
	if got := c.Webhooks.Secret.Reveal(); got != "from-a-file-0123456789" {
		t.Errorf("webhooks.secret = %q, want what is in the file", got)
	}
	for _, u := range c.Upstreams {
		if u.Credentials != CredentialsAWS {
			t.Errorf("%s: credentials = %s, want aws", u.Name, u.Credentials)
		}
	}
	if got := mustLoad(t, "", "FOREBAY_WEBHOOKS_SECRET=0123456789abcdef").Webhooks.Secret.Reveal(); got != "0123456789abcdef" {
		t.Errorf("webhooks.secret = %q, want that of the environment", got)
	}
}

func TestCost(t *testing.T) {
	if got, want := mustLoad(t, "").Cost, (Cost{0, "USD"}); got != want {
		t.Errorf("cost without settings = %+v, want %+v", got, want)
	}
	if got, want := mustLoad(t, "cost: {per_gib: 0.085, currency: €}").Cost, (Cost{0.085, "€"}); got != want {
		t.Errorf("cost = %+v, want %+v", got, want)
	}
}

func TestFlagOverEnvironmentOverFileOverDefault(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		env        []string
		flags      []Flag
		want       string
		origin     string
	}{
		{"default", "", nil, nil, ":5000", ""},
		{"file", "listen: ':1'", nil, nil, ":1", "forebay.yaml:1:9"},
		{"environment", "listen: ':1'", []string{"FOREBAY_LISTEN=:2"}, nil, ":2", "FOREBAY_LISTEN"},
		{"flag", "listen: ':1'", []string{"FOREBAY_LISTEN=:2"}, []Flag{{"--listen", "listen", ":3"}}, ":3", "--listen"},
		{"empty variable", "listen: ':1'", []string{"FOREBAY_LISTEN="}, nil, ":1", "forebay.yaml:1:9"},
		{"null in the file", "listen:", nil, nil, ":5000", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := loadSources(t, tt.file, Sources{Env: tt.env, Flags: tt.flags, Root: true})
			if err != nil {
				t.Fatal(err)
			}
			if c.Listen != tt.want {
				t.Errorf("listen = %q, want %q", c.Listen, tt.want)
			}
			if got := filepath.Base(c.Origin("listen").String()); got != tt.origin && !(tt.origin == "" && got == ".") {
				t.Errorf("origin = %q, want %q", got, tt.origin)
			}
		})
	}
}

func TestGivenUpstreamsReplaceTheDefaultOnes(t *testing.T) {
	names := func(c *Config) string {
		var all []string
		for _, u := range c.Upstreams {
			all = append(all, u.Name)
		}
		return strings.Join(all, " ")
	}
	for _, tt := range []struct{ name, file, env, want string }{
		{"in the file", "upstreams: {quay.io: , 'my.lan:5000': {}}", "", "my.lan:5000 quay.io"},
		{"in the environment", "", "FOREBAY_UPSTREAMS=quay.io, docker.io", "docker.io quay.io"},
		{"in both", "upstreams: {quay.io: {tag_ttl: 5m}, ghcr.io: {}}", "FOREBAY_UPSTREAMS=docker.io,quay.io", "docker.io quay.io"},
		{"blank in the environment", "upstreams: {quay.io: }", "FOREBAY_UPSTREAMS= ", "quay.io"},
		{"null", "upstreams:", "", "docker.io gcr.io ghcr.io mcr.microsoft.com public.ecr.aws quay.io registry.k8s.io"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := mustLoad(t, tt.file, tt.env)
			if got := names(c); got != tt.want {
				t.Errorf("upstreams = %s, want %s", got, tt.want)
			}
			if tt.name == "in both" && c.Upstream("quay.io").TagTTL != 5*time.Minute {
				t.Errorf("quay.io lost its settings from the file: %+v", c.Upstream("quay.io"))
			}
		})
	}
}

func TestEnvironmentSetsKeysOfUpstreams(t *testing.T) {
	c := mustLoad(t, "upstreams: {docker.io: {username: old, password: old}, 'reg.lan:5000': {}}",
		"FOREBAY_UPSTREAMS_DOCKER_IO_USERNAME=someone",
		"FOREBAY_UPSTREAMS_DOCKER_IO_PASSWORD=pa,ss=word",
		"FOREBAY_UPSTREAMS_REG_LAN_5000_ENDPOINTS=http://127.0.0.1:1, http://127.0.0.1:2",
		"FOREBAY_HOSTS=a.lan=docker.io,b.lan=reg.lan:5000",
		"FOREBAY_STORAGE_MAX_SIZE=5GiB",
		"FOREBAY_LOG_ACCESS=false",
	)
	hub := c.Upstream("docker.io")
	if hub.Username != "someone" || hub.Password.Reveal() != "pa,ss=word" {
		t.Errorf("docker.io: user %q, password as given: %t", hub.Username, hub.Password.Reveal() == "pa,ss=word")
	}
	want := []Endpoint{{URL: "http://127.0.0.1:1"}, {URL: "http://127.0.0.1:2"}}
	if diff := cmp.Diff(want, c.Upstream("reg.lan:5000").Endpoints, cmp.AllowUnexported(Secret{})); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"a.lan": "docker.io", "b.lan": "reg.lan:5000"}, c.Hosts); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	if c.Storage.MaxSize != 5<<30 || c.Log.Access {
		t.Errorf("max_size %d, log.access %t, want 5 GiB and false", c.Storage.MaxSize, c.Log.Access)
	}
}

// Names and values as Kubernetes' service links and docker's links write them.
func TestVariablesThatOthersSetNeverStopTheStart(t *testing.T) {
	c := mustLoad(t, "",
		"FOREBAY_SERVICE_HOST=10.0.0.1", "FOREBAY_SERVICE_PORT=5000", "FOREBAY_SERVICE_PORT_REGISTRY=5000",
		"FOREBAY_PORT=tcp://10.0.0.1:5000", "FOREBAY_PORT_5000_TCP=tcp://10.0.0.1:5000", "FOREBAY_PORT_5000_TCP_PROTO=tcp",
		"FOREBAY_PORT_5000_TCP_PORT=5000", "FOREBAY_PORT_5000_TCP_ADDR=10.0.0.1", "FOREBAY_PORT_5000_TCP_PORT_START=5000",
		"FOREBAY_ADMIN_SERVICE_HOST=10.0.0.2", "FOREBAY_ADMIN_PORT_5001_TCP=tcp://[fd00::2]:5001", "FOREBAY_ADMIN_PORT=tcp://[fd00::2]:5001",
		"FOREBAY_UPSTREAMS_DOCKER_IO_SERVICE_HOST=10.0.0.3",
		"FOREBAY_NAME=/web/forebay", "FOREBAY_ENV_FOREBAY_LISTEN=:5000", "FOREBAY_1_ENV_PATH=/bin")
	for _, w := range c.Warnings() {
		t.Errorf("warned of %s", w)
	}
	// By a person, who is told what it does.
	c = mustLoad(t, "", "FOREBAY_PORT=5000", "FOREBAY_VERSION=1.2", "FOREBAY_LISTEN_PORT=80")
	var warned []string
	for _, w := range c.Warnings() {
		warned = append(warned, w.String())
	}
	const what = ": is not a setting, and does nothing"
	if diff := cmp.Diff([]string{"FOREBAY_LISTEN_PORT" + what, "FOREBAY_PORT" + what, "FOREBAY_VERSION" + what}, warned); diff != "" {
		t.Errorf("Warnings (-want +got):\n%s", diff)
	}
}

// Patterns are of repositories of the registry, and people write names as clients do.
func TestPatternsMayBeWrittenAsNamesAre(t *testing.T) {
	for _, tt := range []struct{ registry, pattern, want string }{
		{"docker.io", "nginx:1.*", "library/nginx:1.*"},
		{"docker.io", "docker.io/nginx", "library/nginx"},
		{"docker.io", "docker.io/acme/*", "acme/*"},
		{"docker.io", "library/*:latest", "library/*:latest"},
		{"docker.io", "*:edge", "*:edge"},
		{"ghcr.io", "ghcr.io/acme/*", "acme/*"},
		{"ghcr.io", "app:1", "app:1"},
		{AnyRegistry, "*/app:1", "*/app:1"},
	} {
		if got := parse.Within(tt.registry, tt.pattern); got != tt.want {
			t.Errorf("Within(%q, %q) = %q, want %q", tt.registry, tt.pattern, got, tt.want)
		}
	}
	u := mustLoad(t, "upstreams: {docker.io: {tag_rules: ['nginx:*=1h'], fallback_credentials: [{match: docker.io/acme/*, username: u, password: p}]}}").Upstream("docker.io")
	if rule, account := u.TagRules[0].Match, u.FallbackCredentials[0].Match; rule != "library/nginx:*" || account != "acme/*" {
		t.Errorf("tag_rules have %q, fallback_credentials %q", rule, account)
	}
}

func TestPasswordOfTheStrongerSourceCounts(t *testing.T) {
	folder := t.TempDir()
	passwordFile := filepath.Join(folder, "password")
	write(t, passwordFile, "\ufefffrom a file\r\n")
	for _, tt := range []struct{ name, file, env, want string }{
		{"variable over file's password_file", "password_file: " + passwordFile, "FOREBAY_UPSTREAMS_DOCKER_IO_PASSWORD=direct", "direct"},
		{"variable _FILE over file's password", "password: direct", "FOREBAY_UPSTREAMS_DOCKER_IO_PASSWORD_FILE=" + passwordFile, "from a file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := mustLoad(t, "upstreams: {docker.io: {username: u, "+tt.file+"}}", tt.env)
			if got := c.Upstream("docker.io").Password.Reveal(); got != tt.want {
				t.Errorf("password = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFileNamesAreRelativeToTheFile(t *testing.T) {
	c := mustLoad(t, "storage: {dir: data}")
	if want := filepath.Join(filepath.Dir(c.File), "data"); c.Storage.Dir != want {
		t.Errorf("storage.dir = %q, want %q", c.Storage.Dir, want)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c = mustLoad(t, "", "FOREBAY_STORAGE_DIR=data")
	if want := filepath.Join(here, "data"); c.Storage.Dir != want {
		t.Errorf("storage.dir from the environment = %q, want %q", c.Storage.Dir, want)
	}
}

func TestMissingFileIsAnErrorOnlyWhenNamed(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	for name, s := range map[string]Sources{
		"by flag":     {File: missing, Root: true},
		"by variable": {Env: []string{"FOREBAY_CONFIG=" + missing}, Root: true},
	} {
		_, err := Load(s)
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
			t.Errorf("named %s: Load = %v, want a missing file that is named", name, err)
		}
	}
}

func TestPrintedConfigurationLoadsAgain(t *testing.T) {
	for _, text := range []string{
		"",
		"admin_listen: off\nlog: {access: false}\nstorage: {dir: '/a b: c', max_size: 7GB}",
		"upstreams: {docker.io: {username: 'true', password: hunter2, tag_ttl: 0}, 'reg.lan:5000': {endpoints: ['http://127.0.0.1:5000'], username: '123', password: '#x'}}\nhosts: {h.lan: docker.io}",
		"upstreams: {docker.io: , '*': {allow: ['*.example.com', 'r.lan:5000'], tag_ttl: 2h, proxy: 'http://p.lan:1', proxy_username: p, proxy_password: hunter2}}",
		"upstreams: {'*': {allow: ['*']}}",
		"offline: true\nupstreams: {docker.io: {endpoints: ['https://registry-1.docker.io', {url: 'https://public.ecr.aws', rewrite: {from: library/, to: docker/library/}, username: a, password: hunter2}], " +
			"fallback_credentials: [{username: b, password: hunter2}, anonymous], tag_rules: [{match: '*:v[0-9]*', ttl: forever}, 'a:b=0'], budget: {reserve: 7.5%}}}",
	} {
		t.Run(text, func(t *testing.T) {
			first := mustLoad(t, text)
			var printed, again bytes.Buffer
			if err := first.Print(&printed); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(printed.String(), "hunter2") {
				t.Errorf("Print shows a password:\n%s", printed.String())
			}
			second := mustLoad(t, printed.String())
			second.origins, first.origins = nil, nil
			if err := second.Print(&again); err != nil {
				t.Fatal(err)
			}
			var plain bytes.Buffer
			if err := first.Print(&plain); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(plain.String(), again.String()); diff != "" {
				t.Errorf("printed, loaded and printed again (-first +second):\n%s", diff)
			}
		})
	}
}

func TestPrintSaysWhereValuesComeFrom(t *testing.T) {
	c := mustLoad(t, "listen: ':1'\nupstreams:\n  docker.io:\n    aliases: [hub.lan]\n", "FOREBAY_LOG_LEVEL=warn")
	c.origins["listen"] = Origin{Source: fault.FromFile, Name: "f.yaml", Line: 1, Column: 9}
	c.origins["upstreams.docker.io.aliases"] = Origin{Source: fault.FromFile, Name: "f.yaml", Line: 4, Column: 14}
	var b bytes.Buffer
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"listen: :1 # f.yaml:1:9\n", "level: warn # FOREBAY_LOG_LEVEL\n", "# f.yaml:4:14\n    aliases:", "http2: false\n", "max_size: auto\n", "parallel: 4\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("Print lacks %q:\n%s", want, b.String())
		}
	}
}

func TestIPv6Everywhere(t *testing.T) {
	c := mustLoad(t, `
listen: "[fe80::1%eth0]:5000"
admin_listen: "[::1]:5001"
trusted_networks: ["2001:db8::/32", "::1"]
hosts: {"::1": docker.io, "[2001:DB8:0::1]:5000": docker.io, "[2001:db8::3]:443": docker.io}
upstreams:
  docker.io:
    endpoints: ["http://[2001:DB8:0::2]:5000/hub"]
    trusted_realms: ["[2001:db8:0::4]:5000"]
    proxy: http://[::1]:3128
  "[2001:DB8:0::1]:5000": {aliases: ["2001:db8::9"]}
`)
	if diff := cmp.Diff(map[string]string{"[::1]": "docker.io", "[2001:db8::1]:5000": "docker.io", "[2001:db8::3]": "docker.io"}, c.Hosts); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	var got []string
	for _, u := range c.Upstreams {
		got = append(got, u.Name, u.Endpoints[0].URL, strings.Join(u.Aliases, " ")+strings.Join(u.TrustedRealms, " "), u.Proxy)
	}
	want := []string{
		"[2001:db8::1]:5000", "https://[2001:db8::1]:5000", "[2001:db8::9]", "",
		"docker.io", "http://[2001:db8::2]:5000/hub", "index.docker.io registry-1.docker.io registry.hub.docker.com[2001:db8::4]:5000", "http://[::1]:3128",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("upstreams (-want +got):\n%s", diff)
	}
	c = mustLoad(t, "", "FOREBAY_UPSTREAMS=[::1]:5000,docker.io", "FOREBAY_UPSTREAMS____1__5000_TAG_TTL=1h", "FOREBAY_HOSTS=[::1]:80=docker.io")
	if u := c.Upstream("[::1]:5000"); u == nil || u.TagTTL != time.Hour || c.Hosts["[::1]"] != "docker.io" {
		t.Errorf("by variables: upstream %+v, hosts %v", u, c.Hosts)
	}
}

// TestHardenedImagesLogInAsDockerHub: dhi.io takes docker.io's credentials, unless it has its own.
func TestHardenedImagesLogInAsDockerHub(t *testing.T) {
	for text, want := range map[string]string{
		"upstreams: {docker.io: {username: u, password: p}, dhi.io: {}}":                                         "u",
		"upstreams: {docker.io: {username: u, password: p}, dhi.io: {username: v, password: p}}":                 "v",
		"upstreams: {docker.io: {username: u, password: p}, dhi.io: {endpoints: ['https://elsewhere.example']}}": "",
		"upstreams: {docker.io: {username: u, password: p}, ghcr.io: {}, dhi.io: {}}":                            "u",
		"upstreams: {docker.io: {}, dhi.io: {}}":                                                                 "",
		"upstreams: {dhi.io: {}}":                                                                                "",
	} {
		c := mustLoad(t, text)
		u := c.Upstream("dhi.io")
		if u.Account.Username != want || u.Credentialed() != (want != "") {
			t.Errorf("%s: dhi.io is asked as %q, want %q", text, u.Account.Username, want)
		}
		if g := c.Upstream("ghcr.io"); g != nil && g.Credentialed() {
			t.Errorf("%s: ghcr.io has credentials too", text)
		}
	}
}
