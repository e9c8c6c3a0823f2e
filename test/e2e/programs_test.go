package e2e

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// debianPath finds Debian's own programs: a newer docker in /usr/local must not
// stand in for the one that these tests are about.
const debianPath = "/usr/sbin:/usr/bin:/sbin:/bin"

// debianPrograms maps each program of the machine to the package that has it.
var debianPrograms = []struct{ program, pkg string }{
	{"docker-registry", "docker-registry"},
	{"dockerd", "docker.io"},
	{"docker", "docker.io"},
	{"containerd", "containerd"},
	{"ctr", "containerd"},
	{"runc", "runc"},
	{"podman", "podman"},
	{"conmon", "conmon"},
	{"crun", "crun"},
	{"skopeo", "skopeo"},
	{"buildah", "buildah"},
	{"umoci", "umoci"},
	{"busybox", "busybox-static"},
	{"docker-compose", "docker-compose"},
	{"make", "make"},
}

// repoRoot is the module's folder: tests run in their package's folder.
func repoRoot() (string, error) { return filepath.Abs("../..") }

// binDir is where the built programs go. It is kept between runs and ignored by git.
func binDir() (string, error) {
	root, err := repoRoot()
	return filepath.Join(root, ".cache", "e2e", "bin"), err
}

// forebay returns the path of the mirror.
func forebay() string {
	root, err := repoRoot()
	if err != nil {
		panic(err) // the working folder is gone
	}
	return filepath.Join(root, "bin", "forebay")
}

// builtProgram returns the path of a client made by buildPrograms.
func builtProgram(name string) string {
	dir, err := binDir()
	if err != nil {
		panic(err) // the working folder is gone
	}
	return filepath.Join(dir, name)
}

// debianProgram returns the path of one of debianPrograms.
func debianProgram(name string) string {
	path, err := lookDebian(name)
	if err != nil {
		panic(err) // checkPrograms has found it before
	}
	return path
}

func lookDebian(name string) (string, error) {
	for _, dir := range filepath.SplitList(debianPath) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s in %s", name, debianPath)
}

// checkPrograms names every program that is missing and how to get them all.
func checkPrograms() error {
	var missing, pkgs []string
	for _, p := range debianPrograms {
		if _, err := lookDebian(p.program); err != nil {
			missing = append(missing, p.program)
			pkgs = append(pkgs, p.pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing %s: run \"make deps\" or \"apt-get install --no-install-recommends %s\"",
			strings.Join(missing, ", "), strings.Join(pkgs, " "))
	}
	return checkStatic(debianProgram("busybox"))
}

// checkStatic refuses a program that needs a loader, which the images do not have.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%q is not a static program: run \"apt-get install busybox-static\"", path)
		}
	}
	return nil
}

// buildPrograms builds the mirror from this tree and the clients that Debian
// does not have from tools/e2e. With a warm build cache it takes a second.
func buildPrograms() error {
	root, err := repoRoot()
	if err != nil {
		return err
	}
	dir, err := binDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		goBuild(filepath.Join(root, "tools", "e2e"), dir+"/", "tool"),
		goBuild(filepath.Join(root, "tools", "kube"), dir+"/", "tool"),
		goBuild(filepath.Join(root, "tools", "release"), dir+"/", "."),
		makeReleases(root, dir),
		// The binary and the files of the image, as users make them.
		command(exec.Command("make", "-C", root, "--no-print-directory", "dist/image")),
	)
}

func goBuild(module, out, pkg string) error {
	cmd := exec.Command("go", "build", "-C", module, "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return command(cmd)
}

// command runs cmd; its error has all that it printed.
func command(cmd *exec.Cmd) error {
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, text)
	}
	return nil
}

// neverCache keeps go test from reusing a result: it cannot see that the
// binaries changed. It caches no test that reads a file written this second.
func neverCache() error {
	dir, err := binDir()
	if err != nil {
		return err
	}
	stamp := filepath.Join(dir, "last-run")
	if err := os.WriteFile(stamp, nil, 0o644); err != nil {
		return err
	}
	_, err = os.ReadFile(stamp)
	return err
}
