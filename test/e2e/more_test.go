//go:build clients

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"forebay/test/hubtest"
)

// Clients that take many minutes to build on a fresh machine are tried on request: make test-clients.

// moreProgram returns the path of one of them.
func moreProgram(t testing.TB, name string) string {
	t.Helper()
	root, err := repoRoot()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: make test-clients builds it", err)
	}
	return path
}

// Signatures are found through the mirror: cold, warm and with the hub off. cosign 2 keeps them by a
// tag of its own, cosign 3 and notation as referrers.
func TestSignersVerifyThroughTheMirror(t *testing.T) {
	type signer struct {
		name string
		sign [][]string // REGISTRY/library/signed-NAME, and what the program needs before
		ask  [][]string
	}
	signers := []signer{
		{
			name: "cosign2",
			sign: [][]string{{"generate-key-pair"}, {"sign", "--tlog-upload=false", "--key", "cosign.key", "--allow-insecure-registry", "--yes", "REF"}},
			ask: [][]string{
				{"verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-insecure-registry", "REF"},
				{"tree", "--allow-insecure-registry", "REF"},
			},
		},
		{
			name: "cosign3",
			sign: [][]string{{"generate-key-pair"}, {"sign", "--use-signing-config=false", "--tlog-upload=false", "--key", "cosign.key", "--allow-insecure-registry", "--yes", "REF"}},
			ask: [][]string{
				{"verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-insecure-registry", "REF"},
				{"tree", "--allow-insecure-registry", "REF"},
			},
		},
		{
			name: "notation",
			sign: [][]string{{"cert", "generate-test", "--default", "forebay.test"}, {"policy", "import", "policy.json"}, {"sign", "--insecure-registry", "REF"}},
			ask: [][]string{
				{"ls", "--insecure-registry", "REF"},
				{"verify", "--insecure-registry", "REF"},
				{"inspect", "--insecure-registry", "REF"},
			},
		},
	}
	for _, s := range signers {
		t.Run(s.name, func(t *testing.T) {
			program := moreProgram(t, s.name)
			w := newWorld(t, worldOptions{mirror: mirrorOptions{tagTTL: stale}})
			// What was signed is in a registry that knows no referrers, as the hub is to be then.
			w.hub.AddRule(hubtest.Rule{Route: hubtest.RouteReferrers, Do: hubtest.Status(http.StatusNotFound)})
			repo, img := "library/signed-"+s.name, w.images[plainDocker]
			w.registry.push(t, repo, img, "1")
			dir := stateDir(t)
			writeFile(t, dir, "policy.json", `{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"],
 "signatureVerification": {"level": "strict"}, "trustStores": ["ca:forebay.test"], "trustedIdentities": ["*"]}]}`)
			runs := func(ref string, args []string) error {
				cmd := exec.CommandContext(t.Context(), program)
				for _, arg := range args {
					cmd.Args = append(cmd.Args, strings.ReplaceAll(arg, "REF", ref))
				}
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "COSIGN_PASSWORD=")
				return command(cmd)
			}
			for _, args := range s.sign {
				if err := runs(strings.TrimPrefix(w.registry.url, "http://")+"/"+repo+"@"+img.digest.String(), args); err != nil {
					t.Fatal(err)
				}
			}
			for _, when := range []string{"cold", "warm", "with the hub off"} {
				for _, args := range s.ask {
					if err := runs(w.mirror.addr+"/docker.io/"+repo+":1", args); err != nil {
						t.Errorf("%s: %v", when, err)
					}
				}
				if when == "warm" {
					w.hub.SwitchOff()
				}
			}
			w.assertClean(t)
		})
	}
}

// nerdctl reads the folder of hosts.toml itself.
type nerdctlStore struct {
	*containerdStore
	nerdctl string
}

func (n *nerdctlStore) pull(ctx context.Context, name string) ([]string, error) {
	ref := "docker.io/" + name
	base := []string{"--address", n.socket, "--hosts-dir", n.hosts, "--namespace", "default", "--data-root", filepath.Join(filepath.Dir(n.socket), "nerdctl")}
	if _, err := run(ctx, nil, n.nerdctl, append(base, "pull", "--quiet", ref)...); err != nil {
		return nil, err
	}
	out, err := n.command(ctx, "images", "list", "name=="+ref)
	return anyDigest.FindAllString(out, -1), err
}

func TestNerdctlPullsThroughTheMirror(t *testing.T) {
	program := moreProgram(t, "nerdctl")
	w := newWorld(t, worldOptions{})
	for _, when := range []string{"cold", "warm", "with the hub off"} {
		s := &nerdctlStore{openContainerd24(t, w.mirror.addr).(*containerdStore), program}
		for _, repo := range []string{plainDocker, manyOCI, zstdOCI} {
			pull(t, s, repo+":"+catalogueTag, w.images[repo])
			pull(t, s, repo+"@"+w.images[repo].digest.String(), w.images[repo])
		}
		if when == "warm" {
			w.hub.SwitchOff()
		}
	}
	w.assertFetchedOnce(t)
}

// criStore is the CRI of a containerd, as the kubelet asks it.
type criStore struct {
	containerd *containerdStore
	crictl     string
}

func openCRI(t testing.TB, addr string) store {
	dir := stateDir(t)
	config := fmt.Sprintf("version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = %q\n", filepath.Join(dir, "etc/containerd/certs.d"))
	writeFile(t, dir, "crictl.yaml", "{}\n")
	writeFile(t, dir, "etc/containerd/config.toml", strings.ReplaceAll(config, dir, ""))
	clientConfig(t, "containerd", addr, dir)
	return &criStore{runContainerd(t, dir, builtProgram("containerd"), builtProgram("ctr"), config), moreProgram(t, "crictl")}
}

func (c *criStore) cri(ctx context.Context, args ...string) (string, error) {
	return run(ctx, nil, c.crictl, append([]string{"--config", filepath.Join(filepath.Dir(c.containerd.socket), "crictl.yaml"), "--runtime-endpoint", "unix://" + c.containerd.socket, "--timeout", "60s"}, args...)...)
}

func (c *criStore) pull(ctx context.Context, name string) ([]string, error) {
	if _, err := c.cri(ctx, "pull", "docker.io/"+name); err != nil {
		return nil, err
	}
	out, err := c.cri(ctx, "inspecti", "-o", "go-template", "--template", "{{range .status.repoDigests}}{{.}} {{end}}", "docker.io/"+name)
	return digestsOf(out), err
}

// buildStore builds on top of what it pulls.
type buildStore struct {
	client, addr, dir string
	daemon            *process
}

func openBuildKit(t testing.TB, addr string) store {
	dir := stateDir(t)
	clientConfig(t, "buildkit", addr, dir, "--registry", "docker.io")
	return runBuildKit(t, dir)
}

// runBuildKit starts a buildkitd with the buildkitd.toml below dir.
func runBuildKit(t testing.TB, dir string) *buildStore {
	b := &buildStore{client: moreProgram(t, "buildctl"), dir: dir}
	b.addr = "unix://" + filepath.Join(b.dir, "s")
	cmd := exec.Command(moreProgram(t, "buildkitd"), "--addr", b.addr, "--root", filepath.Join(b.dir, "root"), "--config", filepath.Join(b.dir, "etc/buildkit/buildkitd.toml"), "--oci-worker-snapshotter", "native")
	cmd.Env = append(os.Environ(), "PATH="+debianPath)
	b.daemon = startProcess(t, "buildkitd", cmd, func() error {
		_, err := run(t.Context(), nil, b.client, "--addr", b.addr, "debug", "workers")
		return err
	})
	return b
}

// build adds a file with a text to an image, and returns what BuildKit says.
func (b *buildStore) build(ctx context.Context, name, text string) (string, error) {
	context := filepath.Join(b.dir, "context")
	err := errors.Join(os.MkdirAll(context, 0o755), os.WriteFile(filepath.Join(context, "Dockerfile"), []byte("FROM "+name+"\nCOPY file /file\n"), 0o644), os.WriteFile(filepath.Join(context, "file"), []byte(text), 0o644))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, b.client, "--addr", b.addr, "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--local", "context="+context, "--local", "dockerfile="+context,
		"--output", "type=local,dest="+filepath.Join(b.dir, "out"))
	said, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return string(said), err
}

func (b *buildStore) pull(ctx context.Context, name string) ([]string, error) {
	said, err := b.build(ctx, name, "")
	return anyDigest.FindAllString(said, -1), err
}

// openDocker29 starts a dockerd with containerd's image store, to which the client of Debian is too old by itself. It
// runs nothing: Debian's runc is too old for it.
func openDocker29(t testing.TB, addr string) store {
	return struct{ store }{startDockerd(t, moreProgram(t, "dockerd29"), addr, []string{"DOCKER_MIN_API_VERSION=1.24", "PATH=" + filepath.Dir(builtProgram("containerd")) + ":" + debianPath})}
}

// What the table of docs/policies.md says of those that take long to build.
func TestDeniedStopsBuildKitCRIAndDocker29(t *testing.T) { testDenied(t, moreClients(), moreClients()) }

func TestHeldFromBuildKitCRIAndDocker29(t *testing.T) { testHeld(t, moreClients()) }

func moreClients() []client {
	return []client{{name: "buildkit", open: openBuildKit}, {name: "cri", open: openCRI}, {name: "dockerd-29", open: openDocker29}}
}

// A real build, whose base comes through the mirror, by BuildKit of its own.
func TestBuildKitBuildsThroughTheMirror(t *testing.T) {
	w := newWorld(t, worldOptions{})
	for _, when := range []string{"cold", "warm", "with the hub off"} {
		dir := stateDir(t)
		clientConfig(t, "buildkit", w.mirror.addr, dir, "--registry", "docker.io")
		buildByBuildKit(t, dir, when)
		if when == "warm" {
			w.hub.SwitchOff()
		}
	}
	w.assertFetchedOnce(t)
}

// buildByBuildKit builds an image with a file of the given text, by a buildkitd with the buildkitd.toml below dir.
func buildByBuildKit(t testing.TB, dir, text string) {
	t.Helper()
	b := runBuildKit(t, dir)
	if _, err := b.build(t.Context(), manyOCI+":"+catalogueTag, text); err != nil {
		t.Errorf("%s: %v", text, err)
	} else if got, err := os.ReadFile(filepath.Join(dir, "out", "file")); err != nil || string(got) != text {
		t.Errorf("%s: the build has %q, %v", text, got, err)
	}
	b.daemon.stop(t)
}

// RKE2 pulls what it starts from by the module that reads registries.yaml; the containerd of k3s and RKE2
// pulls by the hosts.toml that they write from the same file.
func TestK3sAndRke2PullThroughTheMirror(t *testing.T) {
	program := moreProgram(t, "rancher")
	w := newWorld(t, worldOptions{})
	for _, client := range []string{"rke2", "k3s"} {
		dir := stateDir(t)
		file := filepath.Join(dir, "etc/rancher", client, "registries.yaml")
		clientConfig(t, client, w.mirror.addr, dir)
		for _, repo := range []string{plainDocker, plainOCI} {
			out, err := run(t.Context(), nil, program, file, "pull", repo+":"+catalogueTag)
			if want := w.images[repo].digest.String(); err != nil || strings.TrimSpace(out) != want {
				t.Errorf("%s pulls %s as %q, %v, want %s", client, repo, out, err, want)
			}
		}
		if _, err := run(t.Context(), nil, program, file, "hosts", filepath.Join(dir, "etc/containerd/certs.d")); err != nil {
			t.Fatal(err)
		}
		s := runContainerd(t, dir, builtProgram("containerd"), builtProgram("ctr"), containerd24Config)
		for _, repo := range []string{plainDocker, manyOCI} {
			pull(t, s, repo+":"+catalogueTag, w.images[repo])
		}
		w.hub.SwitchOff() // for the second one
	}
	w.assertFetchedOnce(t)
	w.assertClean(t)
}

// A real build by kaniko, with the flags that are printed, in a root of its own, which it takes for its
// image's: of Docker Hub by its mirror, of another registry by its map.
func TestKanikoBuildsThroughTheMirror(t *testing.T) {
	program, err := os.ReadFile(moreProgram(t, "kaniko"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, worldOptions{})
	m := startMirror(t, mirrorOptions{endpoint: w.hub.RegistryURL(), more: fmt.Sprintf("  quay.io: {endpoints: [%q]}\n", w.hub.RegistryURL())})
	flags := flagsOf(printed(t, "kaniko", m.addr, "--registry", "quay.io"))
	if len(flags) != 3 {
		t.Fatalf("the flags are %q", flags)
	}
	for _, from := range []string{manyOCI, "quay.io/" + plainDocker} {
		root := stateDir(t)
		writeFile(t, root, "workspace/Dockerfile", "FROM "+from+":"+catalogueTag+"\nCOPY file /file\nRUN [\"/bin/busybox\", \"cp\", \"/file\", \"/copy\"]\n")
		writeFile(t, root, "workspace/file", from)
		if err := os.Chmod(writeFile(t, root, "kaniko/executor", string(program)), 0o755); err != nil {
			t.Fatal(err)
		}
		script := `mkdir "$1/proc" "$1/dev" "$1/tmp"; mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"; exec chroot "$@"`
		args := append([]string{"--mount", "sh", "-ec", script, "sh", root, "/kaniko/executor", "--force", "--context=dir:///workspace", "--no-push", "--tar-path=/kaniko/out.tar", "--destination=out"}, flags...)
		if _, err := run(t.Context(), []string{"HOME=/kaniko", "PATH=" + debianPath}, "unshare", args...); err != nil {
			t.Errorf("%s: %v", from, err)
			continue
		}
		if text, err := os.ReadFile(filepath.Join(root, "copy")); err != nil || string(text) != from {
			t.Errorf("%s: the build has %q, %v", from, text, err)
		}
		if _, err := os.Stat(filepath.Join(root, "kaniko/out.tar")); err != nil {
			t.Errorf("%s: no image: %v", from, err)
		}
	}
	w.assertClean(t)
}

// Talos takes what is printed, for the versions that it is printed for, into the configuration of a
// machine, and finds that right. What pulls there is containerd, as above.
func TestTalosTakesWhatIsPrinted(t *testing.T) {
	program, dir := moreProgram(t, "talos"), stateDir(t)
	must(t, "gen-cert", "127.0.0.1", "--out", dir)
	out := must(t, "client-config", "talos", "--url", "https://mirror.lan:5443", "--ca", filepath.Join(dir, "ca.pem"))
	now, before, _ := strings.Cut(out, "# the same before Talos 1.12\n")
	before, _, _ = strings.Cut(before, "\n#")
	for version, text := range map[string]string{"v1.12": now, "v1.11": before} {
		got, err := run(t.Context(), nil, program, version, writeFile(t, dir, version+".yaml", text))
		if want := "* from https://mirror.lan:5443\nmirror.lan:5443 has a CA\n"; err != nil || got != want {
			t.Errorf("Talos %s takes %q, %v, want %q from\n%s", version, got, err, want, text)
		}
	}
}

// What goes into a workflow of GitHub's for builds is given to BuildKit.
func TestGitHubsBuildsPullThroughTheMirror(t *testing.T) {
	w := newWorld(t, worldOptions{})
	var steps []struct {
		With struct {
			Inline string `yaml:"buildkitd-config-inline"`
		}
	}
	if err := yaml.Load([]byte(printed(t, "github-actions", w.mirror.addr)), &steps); err != nil {
		t.Fatal(err)
	}
	dir := stateDir(t)
	writeFile(t, dir, "etc/buildkit/buildkitd.toml", steps[1].With.Inline)
	buildByBuildKit(t, dir, "GitHub")
	w.assertFetchedOnce(t)
}
