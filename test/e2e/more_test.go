//go:build clients

package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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

// A real build, whose base comes through the mirror, by BuildKit of its own.
func TestBuildKitBuildsThroughTheMirror(t *testing.T) {
	daemon, client := moreProgram(t, "buildkitd"), moreProgram(t, "buildctl")
	w := newWorld(t, worldOptions{})
	for _, when := range []string{"cold", "warm", "with the hub off"} {
		dir := stateDir(t)
		clientConfig(t, "buildkit", w.mirror.addr, dir, "--registry", "docker.io")
		addr := "unix://" + filepath.Join(dir, "s")
		cmd := exec.Command(daemon, "--addr", addr, "--root", filepath.Join(dir, "root"), "--config", filepath.Join(dir, "etc/buildkit/buildkitd.toml"), "--oci-worker-snapshotter", "native")
		cmd.Env = append(os.Environ(), "PATH="+debianPath)
		p := startProcess(t, "buildkitd", cmd, func() error {
			_, err := run(t.Context(), nil, client, "--addr", addr, "debug", "workers")
			return err
		})
		writeFile(t, dir, "context/Dockerfile", "FROM "+manyOCI+":"+catalogueTag+"\nCOPY file /file\n")
		writeFile(t, dir, "context/file", when)
		if _, err := run(t.Context(), nil, client, "--addr", addr, "build", "--frontend", "dockerfile.v0", "--local", "context="+filepath.Join(dir, "context"), "--local", "dockerfile="+filepath.Join(dir, "context"),
			"--output", "type=local,dest="+filepath.Join(dir, "out")); err != nil {
			t.Errorf("%s: %v", when, err)
		} else if text, err := os.ReadFile(filepath.Join(dir, "out", "file")); err != nil || string(text) != when {
			t.Errorf("%s: the build has %q, %v", when, text, err)
		}
		p.stop(t)
		if when == "warm" {
			w.hub.SwitchOff()
		}
	}
	w.assertFetchedOnce(t)
}
