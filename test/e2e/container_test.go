package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// The image of a release, in a dockerd that pulls through it.
func TestMirrorRunsFromItsImage(t *testing.T) {
	images, err := catalogue()
	if err != nil {
		t.Fatal(err)
	}
	backend := startFullRegistry(t)
	hub := hubtest.New(t, hubtest.Options{Backend: backend.url, Anonymous: hubtest.Unlimited()})
	front := openFront(t, nil)
	addr := freeAddr(t)
	d := startDocker(t, addr, nil)
	docker := func(args ...string) string {
		t.Helper()
		out, err := d.docker(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}

	root, err := repoRoot()
	if err != nil {
		t.Fatal(err)
	}
	docker("build", "--quiet", "--target=ready", "--tag=built", root)
	ours := startRegistry(t, filepath.Join(stateDir(t), "ours"))
	released := pushReleasedImage(t, strings.TrimPrefix(ours.url, "http://"))
	docker("pull", "--quiet", released)
	docker("tag", released, "forebay")
	// What the image is asked to do is the same, however it was made.
	for _, field := range []string{"User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Volumes", "ExposedPorts", "Healthcheck"} {
		format := "--format={{json .Config." + field + "}}"
		if got, want := docker("image", "inspect", format, released), docker("image", "inspect", format, "built"); got != want {
			t.Errorf("%s of the image is %s, and %s when docker builds it", field, got, want)
		}
	}
	runsInContainerd(t, released)
	docker("run", "--detach", "--name=mirror", "--network=host", "--read-only",
		// Debian's dockerd waits a whole interval before the first check.
		"--health-interval=1s",
		"--volume="+containerConfig(t, addr, hub.RegistryURL())+":/forebay.yaml:ro",
		"forebay", "serve", "--config=/forebay.yaml")
	defer func() {
		if t.Failed() {
			t.Logf("container:\n%s", docker("logs", "--tail=30", "mirror"))
		}
		docker("rm", "--force", "--volumes", "mirror")
	}()
	healthy := func() {
		t.Helper()
		if err := eventually(startWithin, func() error {
			switch state := docker("inspect", "--format={{.State.Status}} {{.State.Health.Status}}", "mirror"); {
			case state == "running healthy":
				return nil
			case strings.HasPrefix(state, "exited"):
				return permanent{errors.New(state)}
			default:
				return errors.New(state)
			}
		}); err != nil {
			t.Fatalf("container is not healthy: %v", err)
		}
	}

	healthy()
	name, want := manyOCI+":"+catalogueTag, images[manyOCI]
	pull(t, d, name, want)
	docker("image", "rm", name)
	hub.SwitchOff()
	docker("restart", "mirror") // the volume keeps what it has
	healthy()
	pull(t, d, name, want)
	front.assertUnused(t)
	hub.AssertClean(t)
}

// containerConfig writes a configuration that the image's user can read.
func containerConfig(t testing.TB, addr, endpoint string) string {
	t.Helper()
	path := writeFile(t, stateDir(t), "forebay.yaml", fmt.Sprintf(`listen: %s
upstreams:
  docker.io:
    endpoints: [%q]
    tag_ttl: 1h
`, addr, endpoint))
	for p, mode := range map[string]os.FileMode{path: 0o644, filepath.Dir(path): 0o755} {
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// runsInContainerd has containerd pull the image by its name and run it.
func runsInContainerd(t *testing.T, name string) {
	t.Helper()
	c := startContainerd(t, freeAddr(t), builtProgram("containerd"), builtProgram("ctr"), containerd24Config)
	for _, args := range [][]string{
		{"images", "pull", "--plain-http", name},
		{"run", "--rm", name, "version", "/forebay", "version"},
	} {
		out, err := c.command(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		if args[0] == "run" && !strings.HasPrefix(out, "forebay v"+secondVersion) {
			t.Errorf("in containerd the image says %q", out)
		}
	}
}
