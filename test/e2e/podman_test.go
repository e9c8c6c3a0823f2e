package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
)

// registriesConf is below a folder the file that makes containers/image ask the mirror first. It sends no ns, so
// the registry's name is in the path.
const registriesConf = "etc/containers/registries.conf.d/50-forebay.conf"

// podmanStore is podman with storage of its own.
type podmanStore struct {
	dir string
}

func openPodman(t testing.TB, addr string) store {
	t.Helper()
	p := &podmanStore{dir: stateDir(t)}
	clientConfig(t, "podman", addr, p.dir, "--registry", "docker.io")
	writeFile(t, p.dir, "policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	writeFile(t, p.dir, "storage.conf", fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n",
		filepath.Join(p.dir, "root"), filepath.Join(p.dir, "run")))
	writeFile(t, p.dir, "containers.conf", "")
	writeFile(t, p.dir, "auth.json", "{}")
	return p
}

func (p *podmanStore) podman(ctx context.Context, args ...string) (string, error) {
	at := func(name string) string { return filepath.Join(p.dir, name) }
	env := []string{
		"HOME=" + p.dir, "XDG_RUNTIME_DIR=" + p.dir,
		"CONTAINERS_REGISTRIES_CONF=" + at(registriesConf),
		"CONTAINERS_STORAGE_CONF=" + at("storage.conf"),
		"CONTAINERS_CONF=" + at("containers.conf"),
		"REGISTRY_AUTH_FILE=" + at("auth.json"),
	}
	return run(ctx, env, debianProgram("podman"), append([]string{
		"--root", at("root"), "--runroot", at("run"), "--tmpdir", at("tmp"),
		// crun refuses the cgroups of some machines that runc takes.
		"--runtime", debianProgram("runc"), "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--log-level", "error",
	}, args...)...)
}

func (p *podmanStore) pull(ctx context.Context, name string) ([]string, error) {
	ref := "docker.io/" + name
	if _, err := p.podman(ctx, "pull", "--quiet", "--signature-policy", filepath.Join(p.dir, "policy.json"), ref); err != nil {
		return nil, err
	}
	out, err := p.podman(ctx, "image", "inspect", "--format", "{{join .RepoDigests \" \"}}", ref)
	return digestsOf(out), err
}

func (p *podmanStore) run(ctx context.Context, name string) (string, error) {
	return listen(p.dir, func(folder string) error {
		_, err := p.podman(ctx, "run", "--rm", "--pull=never", "--network=none", "--volume="+folder+":"+saysDir, "docker.io/"+name)
		return err
	})
}
