package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"forebay/test/hubtest"
)

// Two versions of one tree, so that one can be followed by the other.
const (
	firstVersion  = "0.0.1-e2e"
	secondVersion = "0.0.2-e2e"
)

// makeReleases makes both, for this machine alone.
func makeReleases(root, dir string) error {
	for _, version := range []string{firstVersion, secondVersion} {
		out := released(dir, version, "")
		if err := os.RemoveAll(out); err != nil {
			return err
		}
		if err := command(exec.Command(filepath.Join(dir, "release"), "-source", root, "-version", "v"+version, "-platforms", "linux/amd64", "-out", out)); err != nil {
			return err
		}
	}
	return nil
}

// released names a file of a release.
func released(dir, version, file string) string {
	if file != "" {
		file = "forebay_" + version + "_" + file
	}
	return filepath.Join(dir, "release-"+version, file)
}

// releasedFile names a file of a release that buildPrograms has made.
func releasedFile(t testing.TB, version, file string) string {
	t.Helper()
	dir, err := binDir()
	if err != nil {
		t.Fatal(err)
	}
	return released(dir, version, file)
}

// pushReleasedImage pushes the image of a release to a registry by crane, and returns its name.
func pushReleasedImage(t testing.TB, addr string) string {
	t.Helper()
	layout := filepath.Join(stateDir(t), "layout")
	if err := os.Mkdir(layout, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := command(exec.Command("tar", "-xf", releasedFile(t, secondVersion, "image.oci.tar"), "-C", layout)); err != nil {
		t.Fatal(err)
	}
	name := addr + "/forebay:" + secondVersion
	if out, err := run(t.Context(), []string{"HOME=" + layout}, builtProgram("crane"), "push", "--insecure", layout, name); err != nil {
		t.Fatalf("crane push: %v\n%s", err, out)
	}
	return name
}

// machine is a systemd of its own as process 1, on a file system that is this one with changes that
// go with it.
type machine struct {
	root string
	pid  int
}

// bootMachine starts the mount of a copy, and systemd in it up to its basic target.
const bootMachine = `set -e
mount -t tmpfs tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$0/upper",workdir="$0/work" "$0/root"
cd "$0/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --rbind /dev dev
rm -f etc/machine-id
: >etc/machine-id
cp "$1" root/first
cp "$2" root/second
exec chroot . /usr/bin/env container=other /lib/systemd/systemd --unit=basic.target
`

// startMachine starts one that has the packages of both versions in /root.
func startMachine(t testing.TB, format string) *machine {
	t.Helper()
	dir := filepath.Join(stateDir(t), "machine")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--fork", "--pid", "--mount", "--cgroup", "--uts", "--ipc", "--kill-child", "sh", "-c", bootMachine, dir,
		releasedFile(t, firstVersion, "linux_amd64."+format), releasedFile(t, secondVersion, "linux_amd64."+format))
	m := &machine{}
	startProcess(t, "systemd", cmd, func() error {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if err != nil {
			return err
		}
		if m.pid, err = strconv.Atoi(strings.TrimSpace(string(children))); err != nil {
			return err
		}
		m.root = fmt.Sprintf("/proc/%d/root", m.pid) // its mounts are its own
		_, err = m.try("systemctl", "is-active", "basic.target")
		return err
	})
	// SIGTERM would have it start anew. All that runs in it ends with it.
	t.Cleanup(func() { syscall.Kill(m.pid, syscall.SIGKILL) })
	return m
}

// try runs a command on the machine.
func (m *machine) try(args ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--root", "--wd", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (m *machine) do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := m.try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// there reports whether a path is on the machine.
func (m *machine) there(path string) bool {
	_, err := m.try("test", "-e", path)
	return err == nil
}

// packaged is what a machine does with packages of a format.
type packaged struct {
	install, upgrade, remove []string
	kept                     string // the configuration after the removal, if it was changed
	purge                    []string
}

// formats are those that can be had on a Debian. rpm knows nothing of what Debian has installed.
func formats() map[string]packaged {
	return map[string]packaged{
		"deb": {
			install: []string{"dpkg", "--install", "/root/first"},
			upgrade: []string{"dpkg", "--install", "/root/second"},
			remove:  []string{"dpkg", "--remove", "forebay"},
			kept:    "/etc/forebay/forebay.yaml",
			purge:   []string{"dpkg", "--purge", "forebay"},
		},
		"rpm": {
			install: []string{"rpm", "--force-debian", "--nodeps", "--install", "/root/first"},
			upgrade: []string{"rpm", "--force-debian", "--nodeps", "--upgrade", "/root/second"},
			remove:  []string{"rpm", "--force-debian", "--erase", "forebay"},
			kept:    "/etc/forebay/forebay.yaml.rpmsave",
		},
	}
}

// Packages are installed, started by systemd, followed by the next version, removed and, where there
// is such a thing, purged. What it has pulled and what was written into its configuration stays as long
// as it should.
func TestPackagesLiveAndGo(t *testing.T) {
	for format, with := range formats() {
		t.Run(format, func(t *testing.T) { packageLivesAndGoes(t, format, with) })
	}
}

func packageLivesAndGoes(t *testing.T, format string, with packaged) {
	images, err := catalogue()
	if err != nil {
		t.Fatal(err)
	}
	hub := hubtest.New(t, hubtest.Options{Backend: startFullRegistry(t).url, Anonymous: hubtest.Unlimited()})
	m := startMachine(t, format)
	m.do(t, with.install...)
	if state, err := m.try("systemctl", "is-active", "forebay"); err == nil {
		t.Errorf("it runs before anybody has started it: %s", state)
	}
	for _, path := range []string{"/usr/share/man/man1/forebay-serve.1.gz", "/usr/share/man/man5/forebay.yaml.5.gz", "/usr/share/bash-completion/completions/forebay", "/usr/share/doc/forebay/LICENSE"} {
		if !m.there(path) {
			t.Errorf("the package has no %s", path)
		}
	}
	if got, want := m.do(t, "stat", "--format=%U:%G %a", "/etc/forebay"), "root:forebay 750"; got != want {
		t.Errorf("/etc/forebay is %s, want %s", got, want)
	}
	if out, err := m.try("runuser", "-u", "forebay", "--", "forebay", "config", "check"); err != nil {
		t.Errorf("the configuration of the package: %v %s", err, out)
	}

	addr, admin := freeAddr(t), freeAddr(t)
	config := fmt.Sprintf("listen: %s\nadmin_listen: %s\nstorage: {dir: /var/lib/forebay}\nupstreams:\n  docker.io:\n    endpoints: [%q]\n    tag_ttl: 1h\n", addr, admin, hub.RegistryURL())
	writeFile(t, filepath.Join(m.root, "etc/forebay"), "forebay.yaml", config)
	running := func(version string) {
		t.Helper()
		if err := eventually(startWithin, func() error { return answersOK("http://" + admin + "/readyz") }); err != nil {
			out, _ := m.try("journalctl", "--no-pager", "--lines=20", "--unit=forebay")
			t.Fatalf("forebay is not ready: %v\n%s", err, out)
		}
		pid := m.do(t, "systemctl", "show", "--property=MainPID", "--value", "forebay")
		if said := m.do(t, "/proc/"+pid+"/exe", "version"); !strings.Contains(said, "v"+version) {
			t.Errorf("what runs is %s, want %s", said, version)
		}
		if user := m.do(t, "stat", "--format=%U", "/proc/"+pid); user != "forebay" {
			t.Errorf("it runs as %s", user)
		}
	}
	repo := manyOCI
	served := func() error {
		response, err := http.Get("http://" + addr + "/v2/" + repo + "/manifests/" + images[repo].digest.String())
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	}

	m.do(t, "chown", "root:forebay", "/etc/forebay/forebay.yaml")
	m.do(t, "chmod", "0640", "/etc/forebay/forebay.yaml")
	m.do(t, "systemctl", "enable", "--now", "forebay")
	if err := answersOK("http://" + addr + "/v2/"); err != nil {
		t.Errorf("it is started and does not listen: %v", err)
	}
	running(firstVersion)
	if err := served(); err != nil {
		t.Fatalf("pull: %v", err)
	}
	hub.SwitchOff()
	m.do(t, with.upgrade...)
	running(secondVersion)
	if err := served(); err != nil {
		t.Errorf("what was kept by the version before: %v", err)
	}
	if got := m.do(t, "cat", "/etc/forebay/forebay.yaml"); got != strings.TrimSpace(config) {
		t.Errorf("the configuration was changed by the upgrade:\n%s", got)
	}

	m.do(t, with.remove...)
	if state, err := m.try("systemctl", "is-active", "forebay"); err == nil {
		t.Errorf("it is %s after its removal", state)
	}
	for path, want := range map[string]bool{
		"/usr/bin/forebay": false, "/lib/systemd/system/forebay.service": false, "/etc/systemd/system/multi-user.target.wants/forebay.service": false,
		with.kept: true, "/var/lib/forebay/blobs": true,
	} {
		if m.there(path) != want {
			t.Errorf("%s is there after the removal: %t, want %t", path, !want, want)
		}
	}
	hub.AssertClean(t)
	if with.purge == nil {
		return
	}
	m.do(t, with.purge...)
	for _, path := range []string{"/etc/forebay", "/var/lib/forebay"} {
		if m.there(path) {
			t.Errorf("%s is there after the purge", path)
		}
	}
	if out, err := m.try("getent", "passwd", "forebay"); err == nil {
		t.Errorf("the user is there after the purge: %s", out)
	}
}
