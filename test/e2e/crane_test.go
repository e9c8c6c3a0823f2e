package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// craneStore is a folder to which crane pulls OCI layouts. crane has no mirror
// setting: the mirror and the registry are in the name that it is given.
type craneStore struct {
	dir  string
	addr string
}

func openCrane(t testing.TB, addr string) store {
	t.Helper()
	return &craneStore{dir: stateDir(t), addr: addr}
}

func (c *craneStore) crane(ctx context.Context, args ...string) (string, error) {
	return run(ctx, []string{"HOME=" + c.dir, "DOCKER_CONFIG=" + c.dir}, builtProgram("crane"), args...)
}

// ref is a name of Docker Hub as crane must be told it.
func (c *craneStore) ref(name string) string { return c.addr + "/docker.io/" + name }

func (c *craneStore) pull(ctx context.Context, name string) ([]string, error) {
	out, err := os.MkdirTemp(c.dir, "image")
	if err != nil {
		return nil, err
	}
	if _, err := c.crane(ctx, "pull", "--format=oci", c.ref(name), out); err != nil {
		return nil, err
	}
	if err := checkLayout(out); err != nil {
		return nil, err
	}
	digest, err := c.crane(ctx, "digest", c.ref(name))
	return []string{strings.TrimSpace(digest)}, err
}

// checkLayout sums every blob of an OCI layout.
func checkLayout(dir string) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	entries, err := os.ReadDir(blobs)
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(blobs, e.Name()))
		if err != nil {
			return err
		}
		if got := newBlob(b).digest.Hex; got != e.Name() {
			return fmt.Errorf("blob %s has the sum %s", e.Name(), got)
		}
	}
	return nil
}
