package clientconfig

import (
	"encoding/base64"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write the files in testdata anew")

// For every client it is told what to put where, by http and by https with a certificate of one's own.
func TestWhatIsPrinted(t *testing.T) {
	mirrors := map[string]Mirror{
		"http":  {URL: "http://mirror.lan:5000", Registries: []string{"ghcr.io", "quay.io"}},
		"https": {URL: "https://mirror.lan/", CA: "-----BEGIN CERTIFICATE-----\n", Registries: []string{"ghcr.io"}},
	}
	for _, client := range Clients() {
		for scheme, m := range mirrors {
			s, err := For(client, m)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join("testdata", client+"-"+scheme+".txt")
			if *update {
				if err := os.WriteFile(name, []byte(s.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), s.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			if len(s.Traps) == 0 || !strings.Contains(s.String(), "mirror.lan") {
				t.Errorf("%s is told no trap, or no mirror", client)
			}
		}
	}
	for _, m := range []Mirror{{URL: "mirror.lan:5000"}, {URL: "http://mirror.lan/docker.io"}, {URL: "http://u:p@mirror.lan"}, {URL: "http://m", CA: "x"}, {URL: "http://m?x=y"},
		// What would keep clients from starting, or from reading the file.
		{URL: "http://[fe80::1%25eth0]:5000"}, {URL: "http://:5000"}, {URL: "http://m:"}, {URL: "http://m:70000"},
		{URL: "http://m", Registries: []string{"https://ghcr.io"}}, {URL: "http://m", Registries: []string{"*.lan"}}, {URL: "http://m", Registries: []string{"ghcr.io/owner"}}, {URL: "http://m", Registries: []string{""}}} {
		if _, err := For("dockerd", m); err == nil {
			t.Errorf("%+v is taken", m)
		}
	}
	if s, err := For("podman", Mirror{URL: "http://[fd00::1]:5000", Registries: []string{"GHCR.io", "r.lan:5000", "[fd00::2]"}}); err != nil || !strings.Contains(s.String(), "[fd00::1]:5000/ghcr.io\"") {
		t.Errorf("names with capitals, ports and of IPv6: %v, %v", s, err)
	}
	if s, err := For("buildkit", Mirror{URL: "http://m", Registries: []string{"Docker.io", "quay.io", "quay.io"}}); err != nil || strings.Count(s.String(), "docker.io") != 1 || strings.Count(s.String(), "quay.io") != 1 {
		t.Errorf("a registry that is named twice: %v, %v", s, err)
	}
	if _, err := For("docker", Mirror{URL: "http://m"}); err == nil || !strings.Contains(err.Error(), "dockerd, containerd") {
		t.Errorf("a client that is not known: %v", err)
	}
}

// What is printed for YAML files of others is of the types that their documentation describes, and has
// no key beside those: RegistryMirrorConfig, RegistryTLSConfig and machine.registries of Talos, inputs
// of docker/setup-buildx-action in a step of GitHub, services of GitLab.
func TestWhatIsPrintedIsOfTheirTypes(t *testing.T) {
	type (
		endpoint struct {
			URL          string `yaml:"url"`
			OverridePath bool   `yaml:"overridePath"`
		}
		document struct {
			APIVersion   string     `yaml:"apiVersion"`
			Kind, Name   string     `yaml:",omitempty"`
			Endpoints    []endpoint `yaml:"endpoints"`
			SkipFallback bool       `yaml:"skipFallback"`
			CA           string     `yaml:"ca"`
		}
		machine struct {
			Machine struct {
				Registries struct {
					Mirrors map[string]struct{ Endpoints []string }
					Config  map[string]struct{ TLS struct{ CA string } } // base64 of PEM
				}
			}
		}
		step struct {
			Run, Uses string
			With      struct {
				Inline string `yaml:"buildkitd-config-inline"`
			}
		}
		pipeline struct {
			Services []struct {
				Name    string
				Command []string
			}
		}
	)
	const url, ca = "https://mirror.lan", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
	printed := func(client string) string {
		s, err := For(client, Mirror{URL: url, CA: ca})
		if err != nil {
			t.Fatal(err)
		}
		return s.Elsewhere
	}
	strict := func(text string, to any) {
		t.Helper()
		if err := yaml.Load([]byte(text), to, yaml.WithKnownFields()); err != nil {
			t.Errorf("%v:\n%s", err, text)
		}
	}
	now, before, _ := strings.Cut(printed("talos"), "# the same before")
	mirrors, trust, _ := strings.Cut(now, "---\n")
	var m, tls document
	strict(mirrors, &m)
	strict(trust, &tls)
	if m.Kind != "RegistryMirrorConfig" || m.Name != "*" || len(m.Endpoints) != 1 || m.Endpoints[0].URL != url || tls.Kind != "RegistryTLSConfig" || tls.Name != "mirror.lan" || tls.CA != ca {
		t.Errorf("of Talos: %+v, %+v", m, tls)
	}
	var old machine
	strict("#"+before, &old)
	if r := old.Machine.Registries; r.Mirrors["*"].Endpoints[0] != url || r.Config["mirror.lan"].TLS.CA != base64.StdEncoding.EncodeToString([]byte(ca)) {
		t.Errorf("of Talos before 1.12: %+v", r)
	}
	var steps []step
	strict(printed("github-actions"), &steps)
	if len(steps) != 2 || !strings.Contains(steps[0].Run, url) || !strings.HasPrefix(steps[1].Uses, "docker/setup-buildx-action@") || !strings.Contains(steps[1].With.Inline, `mirrors = ["mirror.lan"]`) {
		t.Errorf("of GitHub: %+v", steps)
	}
	_, text, _ := strings.Cut(printed("gitlab-runner"), "# or in .gitlab-ci.yml\n")
	var p pipeline
	strict(text, &p)
	if len(p.Services) != 1 || p.Services[0].Name != "docker:dind" || !slices.Equal(p.Services[0].Command, []string{"--registry-mirror", url}) {
		t.Errorf("of GitLab: %+v", p)
	}
}

// What was there stays, what was written is written once, and it is taken back.
func TestWhatIsThereStays(t *testing.T) {
	const m = "http://mirror.lan:5000"
	for name, tt := range map[string]struct{ client, file, before, with, after string }{
		"daemon.json, new":     {"dockerd", "etc/docker/daemon.json", "", "{\n  \"registry-mirrors\": [\n    \"" + m + "\"\n  ]\n}\n", ""},
		"daemon.json, another": {"dockerd", "etc/docker/daemon.json", `{"log-driver":"a<b","registry-mirrors":["https://other.lan"],"max":12345678901234567890}`, "{\n  \"log-driver\": \"a<b\",\n  \"max\": 12345678901234567890,\n  \"registry-mirrors\": [\n    \"" + m + "\",\n    \"https://other.lan\"\n  ]\n}\n", "{\n  \"log-driver\": \"a<b\",\n  \"max\": 12345678901234567890,\n  \"registry-mirrors\": [\n    \"https://other.lan\"\n  ]\n}\n"},
		"daemon.json, there":   {"dockerd", "etc/docker/daemon.json", `{"registry-mirrors":["` + m + `/"], "debug":true}`, `{"registry-mirrors":["` + m + `/"], "debug":true}`, "{\n  \"debug\": true\n}\n"},
		"daemon.json, Windows": {"dockerd", "etc/docker/daemon.json", "\ufeff" + "{\"debug\": true}\r\n", "{\n  \"debug\": true,\n  \"registry-mirrors\": [\n    \"" + m + "\"\n  ]\n}\n", "{\n  \"debug\": true\n}\n"},
		"registries.yaml, new": {"k3s", "etc/rancher/k3s/registries.yaml", "", "mirrors:\n  \"*\":\n    endpoint:\n      - " + m + "\n", ""},
		"registries.yaml, comments": {"rke2", "etc/rancher/rke2/registries.yaml", "# ours\nmirrors:\n  docker.io: # Hub\n    endpoint:\n      - https://other.lan\n  \"*\":\n    endpoint: [https://third.lan]\nconfigs:\n  x:\n    auth: {username: u}\n",
			"# ours\nmirrors:\n  docker.io: # Hub\n    endpoint:\n      - https://other.lan\n  \"*\":\n    endpoint: ['" + m + "', 'https://third.lan']\nconfigs:\n  x:\n    auth: {username: u}\n",
			"# ours\nmirrors:\n  docker.io: # Hub\n    endpoint:\n      - https://other.lan\n  \"*\":\n    endpoint: ['https://third.lan']\nconfigs:\n  x:\n    auth: {username: u}\n"},
		"registries.yaml, comments only": {"k3s", "etc/rancher/k3s/registries.yaml", "# mirrors:\n#   docker.io:", "# mirrors:\n#   docker.io:\nmirrors:\n  \"*\":\n    endpoint:\n      - " + m + "\n", "# mirrors:\n#   docker.io:\n"},
		"registries.yaml, of others": {"k3s", "etc/rancher/k3s/registries.yaml", "mirrors:\n  docker.io:\n    endpoint: []\n  \"*\":\n    endpoint:\n      # ours\n      - \"http://other.lan\" # the best\nconfigs: {}\n",
			"mirrors:\n  docker.io:\n    endpoint: []\n  \"*\":\n    endpoint:\n      - " + m + "\n      # ours\n      - \"http://other.lan\" # the best\nconfigs: {}\n",
			"mirrors:\n  docker.io:\n    endpoint: []\n  \"*\":\n    endpoint:\n      # ours\n      - \"http://other.lan\" # the best\nconfigs: {}\n"},
		"registries.yaml, a document of nothing": {"k3s", "etc/rancher/k3s/registries.yaml", "---\n", "mirrors:\n  \"*\":\n    endpoint:\n      - " + m + "\n", ""},
		"buildkitd.toml":                         {"buildkit", "etc/buildkit/buildkitd.toml", "debug = true\n[registry.\"quay.io\"]\n", "debug = true\n[registry.\"quay.io\"]\n" + begin + "\n[registry.\"docker.io\"]\n  mirrors = [\"mirror.lan:5000\"]\n[registry.\"mirror.lan:5000\"]\n  http = true\n" + end + "\n", "debug = true\n[registry.\"quay.io\"]\n"},
		"registries.conf":                        {"podman", "etc/containers/registries.conf.d/50-forebay.conf", "", begin + "\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"mirror.lan:5000/docker.io\"\ninsecure = true\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"etc/hostname": "x"}
			if tt.before != "" {
				files[tt.file] = tt.before
			}
			n := newNode(t, files)
			s, err := For(tt.client, Mirror{URL: m})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				changed, err := s.Apply(n.Root, true)
				if err != nil || (len(changed) > 0) != (i == 0 && tt.before != tt.with) {
					t.Fatalf("Apply, time %d = %v, %v", i+1, changed, err)
				}
				if diff := cmp.Diff(tt.with, n.text(t, tt.file)); diff != "" {
					t.Fatalf("after time %d (-want +got):\n%s", i+1, diff)
				}
			}
			if _, err := s.Apply(n.Root, false); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.after, n.text(t, tt.file)); diff != "" {
				t.Errorf("taken back (-want +got):\n%s", diff)
			}
		})
	}
}

// Where it cannot be told what is meant, nothing is written, into no file.
func TestNothingIsWrittenByGuess(t *testing.T) {
	for name, tt := range map[string]struct{ client, file, text string }{
		"no JSON":         {"dockerd", "etc/docker/daemon.json", "registry-mirrors: x"},
		"null":            {"dockerd", "etc/docker/daemon.json", "null"},
		"no list":         {"dockerd", "etc/docker/daemon.json", `{"registry-mirrors": "http://x"}`},
		"no YAML":         {"k3s", "etc/rancher/k3s/registries.yaml", "mirrors: [x\n"},
		"another kind":    {"k3s", "etc/rancher/k3s/registries.yaml", "mirrors: {'*': {endpoint: http://x}}\n"},
		"a list at all":   {"k3s", "etc/rancher/k3s/registries.yaml", "- mirrors\n"},
		"the same table":  {"buildkit", "etc/buildkit/buildkitd.toml", "[registry.'docker.io']\n  mirrors = []\n"},
		"and a comment":   {"buildkit", "etc/buildkit/buildkitd.toml", "[registry.\"docker.io\"] # ours\n  mirrors = []\n"},
		"another's file":  {"crio", "etc/containers/registries.conf.d/50-forebay.conf", "[[registry]]\n"},
		"of no machine":   {"kaniko", "etc/x", "x"},
		"no folder of it": {"containerd", "etc/containerd/config.toml", "version = 2\n"},
	} {
		n := newNode(t, map[string]string{tt.file: tt.text})
		m := Mirror{URL: "https://mirror.lan", CA: "PEM\n"}
		s, err := For(tt.client, m)
		if err != nil {
			t.Fatal(err)
		}
		if changed, err := s.Apply(n.Root, true); err == nil || len(changed) > 0 || n.text(t, tt.file) != tt.text {
			t.Errorf("%s: Apply = %v, %v", name, changed, err)
		}
		if n.text(t, "etc/docker/certs.d/mirror.lan/ca.crt") != "" {
			t.Errorf("%s: the certificate was written all the same", name)
		}
	}
}

// k3s trusts the mirror also when its certificate is named later, and no file that is gone.
func TestCertificateOfRancherComesAndGoes(t *testing.T) {
	const file, want = "etc/rancher/k3s/registries.yaml", "  mirror.lan:\n    tls:\n      ca_file: /etc/rancher/k3s/" + caName + "\n"
	n := newNode(t, map[string]string{file: "configs:\n  x:\n    auth:\n      username: u\n"})
	for _, step := range []struct {
		ca      string
		put     bool
		trusted bool
	}{{"", true, false}, {"PEM\n", true, true}, {"", false, false}, {"PEM\n", true, true}, {"PEM\n", false, false}} {
		s, err := For("k3s", Mirror{URL: "https://mirror.lan", CA: step.ca})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(n.Root, step.put); err != nil {
			t.Fatal(err)
		}
		text := n.text(t, file)
		if strings.Contains(text, want) != step.trusted || !strings.Contains(text, "username: u") || strings.Contains(text, "endpoint") != step.put {
			t.Errorf("after %+v it is\n%s", step, text)
		}
	}
}

// The certificate of the mirror's CA comes to where the client looks for it, and goes again.
func TestCertificates(t *testing.T) {
	for client, want := range map[string]string{
		"dockerd": "etc/docker/certs.d/mirror.lan:5443/ca.crt", "podman": "etc/containers/certs.d/mirror.lan:5443/ca.crt",
		"containerd": "var/lib/rancher/k3s/agent/certs/_default/" + caName, "k3s": "etc/rancher/k3s/" + caName, "buildkit": "etc/buildkit/" + caName,
	} {
		n := newNode(t, map[string]string{"var/lib/rancher/k3s/agent/etc/containerd/config.toml": strings.ReplaceAll(containerd2, "/etc/containerd/certs.d", "/var/lib/rancher/k3s/agent/certs")})
		s, err := For(client, Mirror{URL: "https://mirror.lan:5443", CA: "PEM\n"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			changed, err := s.Apply(n.Root, true)
			if err != nil || (len(changed) == 2) != (i == 0) {
				t.Fatalf("%s: Apply = %v, %v", client, changed, err)
			}
		}
		if n.text(t, want) != "PEM\n" {
			t.Errorf("%s: no certificate in %s", client, want)
		}
		if client == "containerd" && !strings.Contains(n.text(t, "var/lib/rancher/k3s/agent/certs/_default/hosts.toml"), `ca = "/`+want+`"`) {
			t.Errorf("hosts.toml is\n%s", n.text(t, "var/lib/rancher/k3s/agent/certs/_default/hosts.toml"))
		}
		if _, err := s.Apply(n.Root, false); err != nil || n.text(t, want) != "" {
			t.Errorf("%s: taken back: %v, %q", client, err, n.text(t, want))
		}
	}
}
