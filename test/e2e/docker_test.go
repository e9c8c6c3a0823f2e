package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dockerStore is a dockerd with the mirror as its registry mirror.
type dockerStore struct {
	daemon *process
	socket string
	config string // folder of the command-line client's configuration
}

func openDocker(t testing.TB, addr string) store { return startDocker(t, addr, nil) }

func startDocker(t testing.TB, addr string, env []string) *dockerStore {
	t.Helper()
	return startDockerd(t, debianProgram("dockerd"), addr, env)
}

func startDockerd(t testing.TB, program, addr string, env []string) *dockerStore {
	t.Helper()
	dir := stateDir(t)
	writeFile(t, dir, "etc/docker/daemon.json", `{"log-level": "warn"}`)
	clientConfig(t, "dockerd", addr, dir)
	return runDocker(t, program, dir, env)
}

// runDocker starts a dockerd of its own with the daemon.json below dir. Its containers have no network, so
// it needs no bridge and touches no packet filter.
func runDocker(t testing.TB, program, dir string, env []string, flags ...string) *dockerStore {
	t.Helper()
	d := &dockerStore{socket: filepath.Join(dir, "d.sock"), config: filepath.Join(dir, "client")}
	writeFile(t, d.config, "config.json", "{}")
	cmd := exec.Command(program, append([]string{
		"--config-file", filepath.Join(dir, "etc/docker/daemon.json"),
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--host", "unix://" + d.socket,
		"--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"}, flags...)...)
	cmd.Env = append(cmd.Environ(), env...)
	d.daemon = startProcess(t, "dockerd", cmd, func() error {
		_, err := d.docker(context.Background(), "version")
		return err
	})
	return d
}

func (d *dockerStore) docker(ctx context.Context, args ...string) (string, error) {
	// The old builder needs no BuildKit image and no network.
	return run(ctx, []string{"DOCKER_BUILDKIT=0"}, debianProgram("docker"),
		append([]string{"--config", d.config, "--host", "unix://" + d.socket}, args...)...)
}

func (d *dockerStore) pull(ctx context.Context, name string) ([]string, error) {
	if _, err := d.docker(ctx, "pull", "--quiet", name); err != nil {
		return nil, err
	}
	out, err := d.docker(ctx, "image", "inspect", "--format", "{{join .RepoDigests \" \"}}", name)
	if err != nil {
		return nil, err
	}
	return digestsOf(out), nil
}

func (d *dockerStore) run(ctx context.Context, name string) (string, error) {
	return listen(filepath.Dir(d.socket), func(folder string) error {
		_, err := d.docker(ctx, "run", "--rm", "--pull=never", "--network=none", "--volume="+folder+":"+saysDir, name)
		return err
	})
}

// digestsOf takes the digests from a list of NAME@DIGEST.
func digestsOf(list string) []string {
	var digests []string
	for _, ref := range strings.Fields(list) {
		if _, digest, ok := strings.Cut(ref, "@"); ok {
			digests = append(digests, digest)
		}
	}
	return digests
}
