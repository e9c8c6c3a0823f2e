package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// printed returns what client-config tells people to do for a client.
func printed(t testing.TB, client, addr string, args ...string) string {
	t.Helper()
	out, err := run(context.Background(), nil, forebay(), append([]string{"client-config", client, "--url", "http://" + addr}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// flagsOf are the arguments of a program among what is printed.
func flagsOf(text string) []string {
	return regexp.MustCompile(`(?m)--[a-z-]+=\S+`).FindAllString(text, -1)
}

// follow runs commands that are printed, by the shell of a machine whose folder dir is below root: the
// functions stand for the programs that would lead there.
func follow(t testing.TB, root, dir, functions, commands string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("set -e\nmkdir -p /%s\nmount --bind %s /%[1]s\n%[3]s\n%[4]s", dir, filepath.Join(root, dir), functions, commands)
	if _, err := run(t.Context(), nil, "unshare", "--mount", "sh", "-c", script); err != nil {
		t.Fatal(err)
	}
}

// hostsOf is the hosts.toml among what is printed.
func hostsOf(text string) string {
	_, rest, _ := strings.Cut(text, "[host.")
	hosts, _, _ := strings.Cut(rest, "\n\n")
	return "[host." + hosts + "\n"
}

// What is printed for services and machines of others ends in dockerd or containerd there, as flags, files
// or commands. Those daemons are given it here.
func TestWhatIsPrintedReachesTheDaemons(t *testing.T) {
	w := newWorld(t, worldOptions{})
	addr := w.mirror.addr
	containerd := func(t *testing.T, dir string) store {
		return runContainerd(t, dir, builtProgram("containerd"), builtProgram("ctr"), containerd24Config)
	}
	dockerd := func(t *testing.T, dir string, flags ...string) store {
		if name := filepath.Join(dir, "etc/docker/daemon.json"); len(flags) > 0 {
			writeFile(t, dir, "etc/docker/daemon.json", "{}")
		} else if text, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		} else {
			t.Logf("daemon.json: %s", text)
		}
		return runDocker(t, debianProgram("dockerd"), dir, nil, flags...)
	}
	for _, c := range []struct {
		name string
		open func(t *testing.T, dir, text string) store
	}{
		{"kind", func(t *testing.T, dir, text string) store {
			// A node is a container whose /etc/containerd is that of dir.
			follow(t, dir, "etc/containerd", `kind() { echo node; }; docker() { shift; [ "$1" != -i ] || shift; shift; "$@"; }`, text)
			return containerd(t, dir)
		}},
		{"minikube", func(t *testing.T, dir, text string) store { return dockerd(t, dir, flagsOf(text)...) }},
		{"minikube", func(t *testing.T, dir, text string) store {
			writeFile(t, dir, "etc/containerd/certs.d/_default/hosts.toml", hostsOf(text))
			return containerd(t, dir)
		}},
		{"github-actions", func(t *testing.T, dir, text string) store {
			var steps []struct{ Run string }
			if err := yaml.Load([]byte(text), &steps); err != nil {
				t.Fatal(err)
			}
			follow(t, dir, "etc/docker", `sudo() { "$@"; }; systemctl() { [ "$*" = "restart docker" ]; }`, steps[0].Run)
			return dockerd(t, dir)
		}},
		{"gitlab-runner", func(t *testing.T, dir, text string) store {
			_, ci, _ := strings.Cut(text, "# or in .gitlab-ci.yml\n")
			var p struct{ Services []struct{ Command []string } }
			if err := yaml.Load([]byte(ci), &p); err != nil {
				t.Fatal(err)
			}
			return dockerd(t, dir, p.Services[0].Command...)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t, stateDir(t), printed(t, c.name, addr))
			for _, repo := range []string{plainDocker, manyOCI} {
				pull(t, s, repo+":"+catalogueTag, w.images[repo])
			}
		})
	}
	w.assertFetchedOnce(t)
	w.assertClean(t)
}
