package doctor

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"forebay/internal/clientconfig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registry answers as a mirror does, with a status for its probe.
func registry(probe int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		if r.URL.Path != "/v2/" {
			w.WriteHeader(probe)
			_, _ = io.WriteString(w, `{"errors":[{"message":"what went wrong"}]}`)
		}
	})
}

// setup is a machine, and what answers at mirror.lan, which has the port of the test's server.
type setup struct {
	files   map[string]string // with MIRROR for mirror.lan and its port
	links   map[string]string // where each leads to
	handler http.Handler      // nil: a mirror that has everything
	tls     bool
	trusted bool     // the machine has the CA of the mirror for its clients
	ca      string   // file with it that hosts.toml names
	addrs   []string // of mirror.lan; none: it has one that answers
	wants   string   // --url: scheme of MIRROR
	want    []string // parts of findings, each of "where wrong do"
}

const (
	cri   = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"
	hosts = "etc/containerd/certs.d/_default/hosts.toml"
	good  = "[host.\"http://MIRROR\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"2s\"\n"
)

func (s setup) look(t *testing.T) *Report {
	t.Helper()
	handler := s.handler
	if handler == nil {
		handler = registry(http.StatusOK)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if s.tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	name := "example.com:" + port // of httptest's certificate
	files := map[string]string{}
	for file, text := range s.files {
		files[strings.ReplaceAll(file, "MIRROR", name)] = strings.ReplaceAll(text, "MIRROR", name)
	}
	if s.trusted {
		s.ca = "etc/docker/certs.d/" + name + "/mirror.lan.crt"
	}
	if s.ca != "" {
		files[s.ca] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	}
	m := Machine{Root: t.TempDir(), Probe: "library/busybox:latest"}
	if s.wants != "" {
		m.Mirror = s.wants + name
	}
	for file, text := range files {
		file = filepath.Join(m.Root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range s.links {
		link = filepath.Join(m.Root, link)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	m.Lookup = func(_ context.Context, host string) (all []netip.Addr, err error) {
		if host != "example.com" {
			return nil, errors.New("no such host")
		}
		for _, a := range append(s.addrs, "192.0.2.1")[:max(len(s.addrs), 1)] {
			all = append(all, netip.MustParseAddr(a))
		}
		return all, nil
	}
	m.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(addr)
		if host != "192.0.2.1" && host != "example.com" {
			return nil, &net.OpError{Op: "dial", Err: errors.New("no route")}
		}
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	r, err := m.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhatIsWrongIsFound(t *testing.T) {
	daemon := func(url string) map[string]string {
		return map[string]string{"etc/docker/daemon.json": `{"registry-mirrors": ["` + url + `"]}`}
	}
	containerd := func(config, text string) map[string]string {
		return map[string]string{"etc/containerd/config.toml": config, hosts: text}
	}
	podman := func(text string) map[string]string {
		return map[string]string{"etc/containers/registries.conf.d/50-x.conf": text}
	}
	for name, s := range map[string]setup{
		"dockerd is well":                       {files: daemon("http://MIRROR")},
		"containerd is well":                    {files: containerd(cri, good)},
		"containerd is well, with comments":     {files: containerd(cri, "server = \"https://registry-1.docker.io\" # Hub\n[host.\"http://MIRROR/v2/docker.io\"] # ours [1]\n  capabilities = [\"pull\", \"Resolve\"] # no push\n  override_path = true # \"whole\"\n")},
		"containerd is well, with certificates": {files: containerd(cri, "[host.\"https://MIRROR/v2/docker.io\"]\n  override_path = true\n  client = [\n    [\"/a.cert\", \"/a.key\"]\n  ]\n  ca = [\"own ca.pem\"] # one\n"), tls: true, ca: "etc/containerd/certs.d/_default/own ca.pem"},
		"k3s wrote hosts.toml":                  {files: map[string]string{"etc/containerd/config.toml": cri, "etc/containerd/certs.d/docker.io/hosts.toml": "server = \"https://registry-1.docker.io/v2\"\n[host]\n[host.\"http://MIRROR/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n  [host.\"http://MIRROR/v2\".rewrite]\n    \"^rancher/(.*)\" = \"m/$1\"\n"}},
		"the registry itself is last":           {files: map[string]string{"etc/containerd/config.toml": cri, "etc/containerd/certs.d/docker.io/hosts.toml": good + "[host.\"https://registry-1.docker.io\"]\n"}},
		"an inner registry with its CA":         {files: map[string]string{"etc/containerd/config.toml": cri, hosts: good, "etc/ca.pem": "", "etc/containerd/certs.d/registry.lan:5000/hosts.toml": "server = \"https://registry.lan:5000\"\n[host.\"https://registry.lan:5000\"]\n  ca = \"/etc/ca.pem\"\n"}},
		"k3s ends with the registry":            {files: map[string]string{"etc/rancher/k3s/registries.yaml": "mirrors: {docker.io: {endpoint: ['http://MIRROR', 'https://registry-1.docker.io']}}"}},
		"podman is told of no registry":         {files: podman("[[registry]]\nlocation = \"MIRROR/docker.io\"\nprefix = \"docker.io\"\ninsecure = true\n[[registry]]\nprefix = \"old.lan\"\nlocation = \"new.lan\"\n")},
		"podman is well, location first":        {files: podman("[[registry]]\nlocation = \"registry-1.docker.io\"\nprefix = \"docker.io\"\n[[registry.mirror]]\ninsecure = true\nlocation = \"MIRROR\"\n[[registry]]\nlocation = \"quay.io/team\"\n[[registry.mirror]]\nlocation = \"MIRROR/quay.io/team\"\ninsecure = true\n")},
		"podman is well, with comments":         {files: podman("[[registry]] # of [Hub]\nprefix = \"docker.io\" # Hub\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"MIRROR/docker.io\" # ours\ninsecure = true # by http\n")},
		"one of two paths is whole":             {files: containerd(cri, "[host.\"http://MIRROR/v2/a\"]\n[host.\"http://MIRROR/v2/b\"]\n  override_path = true\n"), want: []string{"the host http://example.com", "/v2/a has a path and no override_path"}},
		"podman is well":                        {files: podman("[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"MIRROR/docker.io\"\ninsecure = true\n")},
		"k3s is well":                           {files: map[string]string{"etc/rancher/k3s/registries.yaml": "mirrors: {'*': {endpoint: ['http://MIRROR']}}"}},
		"tls is well":                           {files: daemon("https://MIRROR"), tls: true, trusted: true},

		"a link is followed":                  {files: map[string]string{"opt/d.json": `{"registry-mirrors": ["http://MIRROR"]}`}, links: map[string]string{"etc/docker/daemon.json": "/opt/d.json"}},
		"a folder of containerd is elsewhere": {files: map[string]string{"srv/containerd/config.toml": cri}, links: map[string]string{"etc/containerd": "/srv/containerd"}, want: []string{"has no hosts.toml"}},
		"daemon.json of Windows":              {files: map[string]string{"etc/docker/daemon.json": "\ufeff{\"registry-mirrors\": [\"http://MIRROR\"]}\r\n"}},
		"daemon.json without content":         {files: map[string]string{"etc/docker/daemon.json": " \n"}, want: []string{"names no registry-mirrors"}},
		"registries.yaml of comments":         {files: map[string]string{"etc/rancher/k3s/registries.yaml": "# mirrors:\n"}},
		"dockerd goes to the registry":        {files: map[string]string{"etc/docker/daemon.json": "{}"}, want: []string{"names no registry-mirrors"}},
		"another mirror":                      {files: map[string]string{"etc/docker/daemon.json": `{"debug": true}`}, wants: "http://", want: []string{"names no registry-mirrors", "go to registries without http://example.com"}},
		"daemon.json is no JSON":              {files: map[string]string{"etc/docker/daemon.json": "{,}"}, want: []string{"dockerd does not start"}},
		"a trailing path":                     {files: daemon("http://MIRROR/docker.io"), want: []string{"leave the path out: http://example.com"}},
		"no scheme":                           {files: daemon("MIRROR"), want: []string{"which is no URL"}},
		"a user in the URL":                   {files: daemon("http://u:secret@MIRROR"), want: []string{"has a user in a URL"}},
		"hosts.toml in place of mirrors":      {files: map[string]string{"etc/docker/daemon.json": `{"registry-mirrors": ["http://MIRROR"]}`, "etc/docker/certs.d/docker.io/hosts.toml": "server = \"https://registry-1.docker.io\"\n"}, want: []string{"takes the place of registry-mirrors"}},
		"no config_path":                      {files: containerd("version = 2\n", good), want: []string{"sets no config_path"}},
		"config_path with two folders":        {files: containerd(strings.Replace(cri, "certs.d\"", "certs.d:/etc/docker/certs.d\"", 1), good), want: []string{"names several folders"}},
		"config_path beside mirrors":          {files: containerd(cri+"[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n", good), want: []string{"CRI plugin does not load"}},
		"no hosts.toml":                       {files: map[string]string{"etc/containerd/config.toml": cri}, want: []string{"has no hosts.toml"}},
		"an unknown key":                      {files: containerd(cri, good+"  timeout = \"2s\"\n"), want: []string{"has the key timeout, which containerd does not read"}},
		"an unknown capability":               {files: containerd(cri, strings.Replace(good, `"resolve"`, `"resolve", "referrers"`, 1)), want: []string{`has the capability "referrers"`}},
		"docker.io is no registry":            {files: containerd(cri, "server = \"https://docker.io\"\n"+good), want: []string{"which is no registry"}},
		"a registry that is kept from it":     {files: map[string]string{"etc/containerd/config.toml": cri, hosts: good, "etc/containerd/certs.d/docker.io/hosts.toml": "server = \"https://registry-1.docker.io\"\n"}, want: []string{"names the registry itself and no mirror"}},
		"a path without override_path":        {files: containerd(cri, strings.Replace(good, "MIRROR", "MIRROR/v2/hub", 1)), want: []string{"no override_path"}},
		"a CA for plain HTTP":                 {files: containerd(cri, good+"  ca = \"/etc/ca.pem\"\n"), want: []string{"try https:// first"}},
		"a CA that is not there":              {files: containerd(cri, strings.Replace(good, "http:", "https:", 1)+"  ca = \"/etc/ca.pem\"\n"), tls: true, want: []string{`names the certificate "/etc/ca.pem", which is not there`, "does not trust"}},
		"a missing CA":                        {files: daemon("https://MIRROR"), tls: true, want: []string{"certificate that this machine does not trust"}},
		"https where there is none":           {files: daemon("https://MIRROR"), want: []string{"speaks no TLS"}},
		"http where there is https":           {files: daemon("http://MIRROR"), tls: true, want: []string{"speaks TLS, and clients ask it without"}},
		"insecure is missing":                 {files: podman("[[registry]]\nprefix = \"docker.io\"\n[[registry.mirror]]\nlocation = \"MIRROR/docker.io\"\n"), want: []string{"speaks no TLS"}},
		"no registry in the location":         {files: podman("[[registry]]\nprefix = \"docker.io\"\n[[registry.mirror]]\nlocation = \"MIRROR\"\ninsecure = true\n[[registry]]\nprefix = \"ghcr.io\"\n[[registry.mirror]]\nlocation = \"MIRROR\"\ninsecure = true\n"), want: []string{"do not say which registry they mean"}},
		"a later file takes it back":          {files: map[string]string{"etc/containers/registries.conf.d/50-x.conf": "[[registry]]\nprefix = \"docker.io\"\n[[registry.mirror]]\nlocation = \"MIRROR/docker.io\"\ninsecure = true\n", "etc/containers/registries.conf.d/99-y.conf": "[[registry]]\nlocation = \"docker.io\"\n"}, want: []string{"/etc/containers/registries.conf.d/99-y.conf docker.io has no mirror"}},
		"an endpoint twice":                   {files: map[string]string{"etc/rancher/k3s/registries.yaml": "mirrors: {docker.io: {endpoint: ['http://MIRROR', 'http://MIRROR']}}"}, want: []string{"is there twice"}},
		"a path that is not whole":            {files: map[string]string{"etc/rancher/rke2/registries.yaml": "mirrors: {docker.io: {endpoint: ['http://MIRROR/docker.io']}}"}, want: []string{"write http://example.com"}},
		"IPv6 first":                          {files: daemon("http://MIRROR"), addrs: []string{"2001:db8::1", "192.0.2.1"}, want: []string{"has the IPv6 address 2001:db8::1, which does not answer and is tried first"}},
		"nobody at any address":               {files: daemon("http://MIRROR"), addrs: []string{"192.0.2.9"}, want: []string{"cannot be connected to"}},
		"a name without an address":           {files: daemon("http://mirror.invalid:5000"), want: []string{"its name has no address"}},
		"another program":                     {files: daemon("http://MIRROR"), handler: http.NotFoundHandler(), want: []string{"is no registry"}},
		"it wants a login": {files: daemon("http://MIRROR"), handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Www-Authenticate", "Bearer")
			w.WriteHeader(401)
		}), want: []string{"wants to know who its clients are"}},
		"it cannot pull": {files: daemon("http://MIRROR"), handler: registry(http.StatusServiceUnavailable), want: []string{"answered 503", "what went wrong"}},
		"it is limited":  {files: daemon("http://MIRROR"), handler: registry(http.StatusTooManyRequests), want: []string{"the registry limits the mirror"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.look(t)
			var all []string
			for _, f := range r.Findings {
				if f.Where == "" || f.Wrong == "" || f.Do == "" {
					t.Errorf("it does not say where, what and what to do: %+v", f)
				}
				all = append(all, f.Where+" "+f.Wrong+" "+f.Do)
			}
			text := strings.Join(all, "\n")
			for _, want := range s.want {
				if !strings.Contains(text, want) {
					t.Errorf("it does not say %q, but\n%s", want, text)
				}
			}
			if len(s.want) == 0 && len(all) > 0 || strings.Contains(text, "secret") {
				t.Errorf("it says\n%s", text)
			}
		})
	}
}

// What client-config writes is found right.
func TestWhatWeWriteIsRight(t *testing.T) {
	for _, client := range []string{"dockerd", "containerd", "podman", "k3s", "rke2"} {
		root := t.TempDir()
		config := filepath.Join(root, "etc/containerd/config.toml")
		if client == "containerd" {
			if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(config, []byte(cri), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		made, err := clientconfig.For(client, clientconfig.Mirror{URL: "http://MIRROR", Registries: []string{"ghcr.io"}})
		if err != nil {
			t.Fatal(err)
		}
		s := setup{files: map[string]string{}}
		names, err := made.Apply(root, true)
		if err != nil {
			t.Fatal(err)
		}
		if client == "containerd" {
			names = append(names, "/etc/containerd/config.toml")
		}
		for _, name := range names {
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			s.files[strings.TrimPrefix(name, "/")] = string(text)
		}
		if r := s.look(t); len(r.Findings) > 0 || len(r.Clients) != 1 || len(r.Mirrors) != 1 {
			t.Errorf("%s: %+v", client, r)
		}
	}
}
