package clientconfig

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	containerd1 = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"
	containerd2 = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '/etc/containerd/certs.d'\n"
	hostsBlock  = begin + "\n[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"2s\"\n" + end + "\n"
	hosts       = "etc/containerd/certs.d/_default/hosts.toml"
)

// node is a machine whose containerd is pointed at a mirror.
type node struct{ Root, Mirror string }

func (n node) apply(put bool) (file string, changed bool, err error) {
	s, err := For("containerd", Mirror{URL: n.Mirror})
	if err != nil {
		return "", false, err
	}
	all, err := s.Apply(n.Root, put)
	return strings.Join(all, " "), len(all) > 0, err
}

func (n node) Install() (file string, changed bool, err error) { return n.apply(true) }
func (n node) Remove() (file string, changed bool, err error)  { return n.apply(false) }

// newNode is a machine with these files.
func newNode(t *testing.T, files map[string]string) node {
	t.Helper()
	n := node{Root: t.TempDir(), Mirror: "http://127.0.0.1:5000"}
	for name, text := range files {
		name = filepath.Join(n.Root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n node) text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.Root, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func TestMirrorIsWrittenAfterWhatWasThereAndTakenBack(t *testing.T) {
	const theirs = "[host.\"https://other.lan\"]\n  capabilities = [\"pull\"]\n"
	for name, tt := range map[string]struct{ config, at, before string }{
		"containerd 1": {containerd1, "etc/containerd/config.toml", ""},
		"containerd 2": {containerd2, "etc/containerd/config.toml", theirs},
		"no last line": {containerd2, "etc/containerd/config.toml", strings.TrimSuffix(theirs, "\n")},
		"k3s":          {strings.ReplaceAll(containerd1, "/etc/containerd", "/etc/containerd"), "var/lib/rancher/k3s/agent/etc/containerd/config.toml", theirs},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{tt.at: tt.config, "etc/containerd/certs.d/ghcr.io/hosts.toml": "x"}
			if tt.before != "" {
				files[hosts] = tt.before
			}
			n := newNode(t, files)
			for i := range 2 { // the second time it is there
				file, changed, err := n.Install()
				if err != nil || changed != (i == 0) || changed && file != "/"+hosts {
					t.Fatalf("Install = %q, %t, %v", file, changed, err)
				}
			}
			want := hostsBlock
			if tt.before != "" {
				want = theirs + hostsBlock
			}
			if got := n.text(t, hosts); got != want {
				t.Errorf("hosts.toml is\n%swant\n%s", got, want)
			}
			if _, changed, err := n.Remove(); err != nil || !changed {
				t.Fatalf("Remove = %t, %v", changed, err)
			}
			if got := n.text(t, hosts); strings.TrimSpace(got) != strings.TrimSpace(tt.before) {
				t.Errorf("after the removal hosts.toml is\n%s", got)
			}
			if tt.before == "" {
				if _, err := os.Stat(filepath.Join(n.Root, filepath.Dir(hosts))); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the folder is left: %v", err)
				}
			}
			if n.text(t, "etc/containerd/certs.d/ghcr.io/hosts.toml") != "x" || n.text(t, tt.at) != tt.config {
				t.Error("a file of others was changed")
			}
		})
	}
}

func TestRuntimeThatWouldBreakIsLeftAlone(t *testing.T) {
	for name, config := range map[string]string{
		"no configuration":   "",
		"no config_path":     "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n",
		"another's path":     "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".image_decryption]\n config_path = \"/x\"\n",
		"two folders":        strings.ReplaceAll(containerd2, "certs.d'", "certs.d:/etc/docker/certs.d'"),
		"with mirrors":       containerd1 + "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n endpoint = []\n",
		"with configs":       containerd1 + "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"x\".tls]\n",
		"a folder somewhere": strings.ReplaceAll(containerd1, "\"/etc", "\"etc"),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, map[string]string{"etc/containerd/config.toml": config})
			if _, _, err := n.Install(); !errors.Is(err, ErrUnfit) {
				t.Errorf("Install: %v, want ErrUnfit", err)
			}
			if got := n.text(t, hosts); got != "" {
				t.Errorf("hosts.toml is\n%s", got)
			}
		})
	}
}

// Beside config_path containerd takes the empty sections of its own default, and logins (its
// ValidateImageConfig), which k3s and rke2 write.
func TestSectionsThatDoNotHinderAreLeft(t *testing.T) {
	for name, more := range map[string]string{
		"what containerd config default has": "[plugins.\"io.containerd.grpc.v1.cri\".registry.auths]\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs]\n[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n",
		"a login":                            "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"mirror.lan:5000\".auth]\n  username = \"u\"\n",
	} {
		n := newNode(t, map[string]string{"etc/containerd/config.toml": containerd1 + more})
		if _, changed, err := n.Install(); err != nil || !changed {
			t.Errorf("%s: Install = %t, %v", name, changed, err)
		}
	}
}

// containerd reads more files than its own, the last of which counts.
func TestImportsAreReadToo(t *testing.T) {
	for _, line := range []string{`imports = ["/etc/containerd/conf.d/*.toml"]`, `imports = ["conf.d/*.toml"]`, "imports = [\n  '/etc/none.toml', # not there\n  '/etc/containerd/conf.d/registry.toml',\n]"} {
		n := newNode(t, map[string]string{
			"etc/containerd/config.toml":          "version = 3\n" + line + "\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n",
			"etc/containerd/conf.d/registry.toml": containerd2,
		})
		if _, changed, err := n.Install(); err != nil || !changed {
			t.Errorf("with %s: Install = %t, %v", line, changed, err)
		}
	}
}

func TestNothingIsWrittenTwiceOrByGuess(t *testing.T) {
	own := "[host.\"http://127.0.0.1:5000\"]\n"
	n := newNode(t, map[string]string{"etc/containerd/config.toml": containerd1, hosts: own})
	if _, changed, err := n.Install(); err != nil || changed {
		t.Errorf("with the mirror written by hand: %t, %v", changed, err)
	}
	cut := begin + "\n" + own
	n = newNode(t, map[string]string{"etc/containerd/config.toml": containerd1, hosts: cut})
	if _, _, err := n.Remove(); err == nil || n.text(t, hosts) != cut {
		t.Errorf("a block without an end: %v, %q", err, n.text(t, hosts))
	}
	for _, bad := range []string{"", "127.0.0.1:5000", "ftp://x", "http://x\"]\n"} {
		n.Mirror = bad
		if _, _, err := n.Install(); err == nil {
			t.Errorf("mirror %q is written", bad)
		}
	}
	// A link out of the machine's file system is not followed.
	n = newNode(t, map[string]string{"etc/containerd/config.toml": containerd1})
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(n.Root, "etc/containerd/certs.d")); err != nil {
		t.Fatal(err)
	}
	_, _, err := n.Install()
	if all, there := os.ReadDir(outside); there != nil || len(all) > 0 {
		t.Errorf("a link out of the machine is followed: %v, %v, %v", err, all, there)
	}
}

// A link leads to where it does on the machine, wherever its root is, and stays a link.
func TestLinksAreFollowedBelowTheRoot(t *testing.T) {
	const (
		daemon = "etc/docker/daemon.json"
		config = "srv/rancher/k3s/agent/etc/containerd/config.toml"
	)
	for name, tt := range map[string]struct{ client, link, to, file, text, written string }{
		"a file, from the root":     {"dockerd", daemon, "/opt/docker/daemon.json", "opt/docker/daemon.json", "{}", "opt/docker/daemon.json"},
		"a file, from its folder":   {"dockerd", daemon, "../../opt/daemon.json", "opt/daemon.json", "{}", "opt/daemon.json"},
		"a folder, from the root":   {"dockerd", "etc/docker", "/opt/docker", "opt/docker/daemon.json", "{}", "opt/docker/daemon.json"},
		"a folder of k3s elsewhere": {"containerd", "var/lib/rancher", "/srv/rancher", config, strings.ReplaceAll(containerd2, "/etc/containerd", "/var/lib/rancher/certs"), "srv/rancher/certs/certs.d/_default/hosts.toml"},
		"nothing yet":               {"dockerd", daemon, "/opt/daemon.json", "etc/hostname", "x", "opt/daemon.json"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, map[string]string{tt.file: tt.text})
			link := filepath.Join(n.Root, tt.link)
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(tt.to, link); err != nil {
				t.Fatal(err)
			}
			s, err := For(tt.client, Mirror{URL: n.Mirror})
			if err != nil {
				t.Fatal(err)
			}
			changed, err := s.Apply(n.Root, true)
			if err != nil || !slices.Equal(changed, []string{"/" + tt.written}) || !strings.Contains(n.text(t, tt.written), n.Mirror) {
				t.Errorf("Apply = %v, %v; %s is\n%s", changed, err, tt.written, n.text(t, tt.written))
			}
			if to, err := os.Readlink(link); err != nil || to != tt.to {
				t.Errorf("the link leads to %q, %v", to, err)
			}
		})
	}
	n := newNode(t, nil)
	if err := os.Symlink("loop", filepath.Join(n.Root, "loop")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(n.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if got := Real(root, "loop/x"); got != "loop/x" {
		t.Errorf("of a link to itself: %q", got)
	}
}
