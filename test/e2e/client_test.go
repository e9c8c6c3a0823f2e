package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// client is one program that pulls, in the configuration that its users
// have: Docker Hub's names, and the mirror asked first.
type client struct {
	name string
	// open starts it with an empty local store, to pull through the mirror at
	// addr, a host and port.
	open func(t testing.TB, addr string) store
	// cannot has the repositories of the catalogue whose images it does not know
	// how to unpack, and why.
	cannot map[string]string
	// overlap is what it may make the mirror fetch twice of one blob, in bytes.
	overlap int64
}

// store is a client with its local images.
type store interface {
	// pull fetches an image by its name on Docker Hub, "library/app:1.0" or
	// "library/app@sha256:…", and returns the digests that the client has for it:
	// one, or for an index also that of the platform's manifest.
	pull(ctx context.Context, name string) ([]string, error)
}

// runner is a store that can also run what it has pulled.
type runner interface {
	store
	// run returns what the image says. It never pulls.
	run(ctx context.Context, name string) (string, error)
}

// saysDir is where a container finds a folder for what it has to say.
const saysDir = "/said"

// listen has start run a container with a folder of the machine mounted at saysDir, and
// returns what it wrote there.
func listen(dir string, start func(folder string) error) (string, error) {
	folder, err := os.MkdirTemp(dir, "said")
	if err != nil {
		return "", err
	}
	if err := start(folder); err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(folder, "text"))
	return string(text), err
}

// allClients are clients and those that differ from crane by how they read manifests and lists, and
// not by what they do when something fails: that they pull is enough.
func allClients() []client {
	return append(clients(), client{name: "regctl", open: openRegctl}, client{name: "oras", open: openOras}, client{name: "buildah", open: openBuildah})
}

// clients are those whose behaviour in trouble matters. Each test that says "every client" means
// these at least.
func clients() []client {
	return []client{
		{name: "dockerd", open: openDocker, cannot: map[string]string{zstdOCI: "dockerd 20.10 cannot unpack zstd"}},
		{name: "containerd-1.6", open: openContainerd16},
		{name: "containerd-2.4", open: openContainerd24},
		{name: "containerd-2.4-parallel", open: openContainerd24Parallel, overlap: rangesTwice},
		{name: "podman", open: openPodman},
		{name: "skopeo", open: openSkopeo},
		{name: "crane", open: openCrane},
	}
}

// clientConfig has forebay point a client at the mirror at addr, below a folder in place of the
// machine's.
func clientConfig(t testing.TB, client, addr, root string, args ...string) {
	t.Helper()
	args = append([]string{"client-config", client, "--url", "http://" + addr, "--root", root, "--install"}, args...)
	if out, err := run(context.Background(), nil, forebay(), args...); err != nil {
		t.Fatalf("forebay %v: %s, %v", args, out, err)
	}
}
