package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// containerdStore is a containerd that finds the mirror in a hosts.toml.
type containerdStore struct {
	ctr    string
	socket string
	hosts  string // the folder for --hosts-dir
	user   string // NAME:PASSWORD for the registry; may be empty
	env    []string
	runs   atomic.Int64
}

const containerd16Config = `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
`

const containerd24Config = `version = 3
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
`

// rangesAtOnce are the bytes that containerd24Parallel asks for at the same time.
const rangesAtOnce = 4 * 4194304

// rangesTwice are what may come twice of a blob that is fetched so: the ranges that are open at the
// same time, and as much that is on its way in connections which end early. A slow machine has more
// of it there: 21 MiB were seen.
const rangesTwice = 2 * rangesAtOnce

// containerd24Parallel makes the transfer service fetch one layer in ranges.
const containerd24Parallel = containerd24Config + `
[plugins."io.containerd.transfer.v1.local"]
  max_concurrent_downloads = 4
  concurrent_layer_fetch_buffer = 4194304
`

func openContainerd16(t testing.TB, addr string) store {
	return startContainerd(t, addr, debianProgram("containerd"), debianProgram("ctr"), containerd16Config)
}

func openContainerd24(t testing.TB, addr string) store {
	return startContainerd(t, addr, builtProgram("containerd"), builtProgram("ctr"), containerd24Config)
}

func openContainerd24Parallel(t testing.TB, addr string) store {
	return startContainerd(t, addr, builtProgram("containerd"), builtProgram("ctr"), containerd24Parallel)
}

func startContainerd(t testing.TB, addr, containerd, ctr, config string) *containerdStore {
	t.Helper()
	dir := stateDir(t)
	writeFile(t, dir, "etc/containerd/config.toml", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n")
	clientConfig(t, "containerd", addr, dir)
	return runContainerd(t, dir, containerd, ctr, config)
}

// runContainerd starts a containerd of its own with the hosts.toml below dir.
func runContainerd(t testing.TB, dir, containerd, ctr, config string) *containerdStore {
	t.Helper()
	c := &containerdStore{ctr: ctr, socket: filepath.Join(dir, "c.sock"), hosts: filepath.Join(dir, "etc/containerd/certs.d")}
	cmd := exec.Command(containerd,
		"--config", writeFile(t, dir, "config.toml", config),
		"--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "--address", c.socket)
	// It finds the shim of its own version beside itself.
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(containerd)+":"+debianPath)
	startProcess(t, "containerd", cmd, func() error {
		_, err := c.command(context.Background(), "version")
		return err
	})
	return c
}

func (c *containerdStore) command(ctx context.Context, args ...string) (string, error) {
	return run(ctx, c.env, c.ctr, append([]string{"--address", c.socket}, args...)...)
}

func (c *containerdStore) pull(ctx context.Context, name string) ([]string, error) {
	ref := "docker.io/" + name
	args := []string{"images", "pull", "--hosts-dir", c.hosts}
	if c.user != "" {
		args = append(args, "--user", c.user)
	}
	if _, err := c.command(ctx, append(args, ref)...); err != nil {
		return nil, err
	}
	out, err := c.command(ctx, "images", "list", "name=="+ref)
	if err != nil {
		return nil, err
	}
	// REF TYPE DIGEST SIZE PLATFORMS LABELS, below a line of titles.
	for _, field := range strings.Fields(out) {
		if strings.HasPrefix(field, "sha256:") {
			return []string{field}, nil
		}
	}
	return nil, fmt.Errorf("no digest in %q", out)
}

func (c *containerdStore) run(ctx context.Context, name string) (string, error) {
	// All containerds give runc and the cgroups their containers' names as they are.
	id := fmt.Sprintf("e2e-%s-%d", filepath.Base(filepath.Dir(c.socket)), c.runs.Add(1))
	return listen(filepath.Dir(c.socket), func(folder string) error {
		_, err := c.command(ctx, "run", "--rm", "--mount", "type=bind,src="+folder+",dst="+saysDir+",options=rbind:rw", "docker.io/"+name, id)
		return err
	})
}
