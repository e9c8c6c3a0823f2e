//go:build setup

package e2e

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// startBare starts a machine with a program that Debian has, from make test-setup.
func startBare(t *testing.T, program string) *machine {
	t.Helper()
	root, err := repoRoot()
	if err != nil {
		t.Fatal(err)
	}
	m := startMachine(t, "deb")
	debs, err := filepath.Glob(filepath.Join(root, ".cache/e2e/setup/*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range append(debs, filepath.Join(root, "deploy/ansible"), filepath.Join(root, "deploy/cloud-init")) {
		if err := command(exec.Command("cp", "-r", from, filepath.Join(m.root, "root"))); err != nil {
			t.Fatal(err)
		}
	}
	m.do(t, "sh", "-ec", "rm -rf /etc/forebay /var/lib/forebay /etc/docker\ncd /root\nls *.deb >/dev/null 2>&1 && dpkg -i *.deb >/dev/null 2>&1 || true")
	if _, err := m.try("env", "HOME=/root", "LC_ALL=C.UTF-8", program, "--version"); err != nil {
		t.Fatalf("%v: make test-setup downloads it", err)
	}
	return m
}

// mirrors fails the test if no mirror runs as the package has it, and after a restart.
func (m *machine) mirrors(t *testing.T, listen string) {
	t.Helper()
	if err := eventually(startWithin, func() error { return answersOK("http://127.0.0.1:5001/readyz") }); err != nil {
		t.Errorf("%v\n%s", err, m.do(t, "journalctl", "--no-pager", "--lines=20", "--unit=forebay"))
	}
	if got := m.do(t, "systemctl", "is-enabled", "forebay"); got != "enabled" {
		t.Errorf("the service is %s", got)
	}
	if got := m.do(t, "forebay", "config", "print"); !strings.Contains(got, listen) {
		t.Errorf("it listens elsewhere than at %s:\n%s", listen, got)
	}
}

// The role sets a machine up, changes nothing when it is run again, and takes up what is changed.
func TestSetUpByAnsible(t *testing.T) {
	m := startBare(t, "ansible-playbook")
	m.do(t, "cp", "/root/first", "/root/forebay.deb")
	writeFile(t, m.root, "root/hosts", "[mirrors]\nlocalhost\n")
	play := func(want string, more ...string) {
		t.Helper()
		said, err := m.try(append([]string{"env", "HOME=/root", "LC_ALL=C.UTF-8", "ansible-playbook", "--connection=local", "--inventory=/root/hosts", "/root/ansible/playbook.yml"}, more...)...)
		if !strings.Contains(said, want) || (err == nil) != strings.Contains(said, "failed=0") {
			t.Errorf("ansible-playbook says, without %q:\n%s", want, said)
		}
	}
	play("changed=5")
	m.mirrors(t, "127.0.0.1:5000")
	if got := m.do(t, "cat", "/etc/docker/daemon.json"); !strings.Contains(got, `"http://127.0.0.1:5000"`) {
		t.Errorf("dockerd is not pointed at the mirror: %s", got)
	}
	if got, want := m.do(t, "stat", "--format=%U:%G %a", "/etc/forebay/forebay.yaml"), "root:forebay 640"; got != want {
		t.Errorf("the configuration is %s, want %s", got, want)
	}
	play("changed=0")
	play("changed=2", "--extra-vars", `{"forebay_config": {"listen": "127.0.0.1:5050", "storage": {"dir": "/var/lib/forebay"}}}`)
	m.mirrors(t, "127.0.0.1:5050")
	play("listn", "--extra-vars", `{"forebay_config": {"listn": "127.0.0.1:5050"}}`)
	m.mirrors(t, "127.0.0.1:5050")
}

// The data for cloud-init is sound by its own schema, and does what it says.
func TestSetUpByCloudInit(t *testing.T) {
	m := startBare(t, "cloud-init")
	deb, err := os.ReadFile(releasedFile(t, firstVersion, "linux_amd64.deb"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(deb) })}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	text := m.do(t, "cat", "/root/cloud-init/user-data.yaml")
	for old, by := range map[string]string{"https://example.com/forebay_0.1.0_linux_amd64.deb": "http://" + l.Addr().String() + "/forebay.deb", "SHA256": fmt.Sprintf("%x", sha256.Sum256(deb))} {
		if !strings.Contains(text, old) {
			t.Fatalf("%s is not among\n%s", old, text)
		}
		text = strings.ReplaceAll(text, old, by)
	}
	writeFile(t, m.root, "var/lib/cloud/seed/nocloud/user-data", text)
	writeFile(t, m.root, "var/lib/cloud/seed/nocloud/meta-data", "instance-id: one\n")
	writeFile(t, m.root, "etc/cloud/cloud.cfg.d/99-seed.cfg", "datasource_list: [NoCloud]\nnetwork: {config: disabled}\n")
	if out, err := m.try("cloud-init", "schema", "--config-file", "/var/lib/cloud/seed/nocloud/user-data"); err != nil || !strings.Contains(out, "Valid") {
		t.Errorf("cloud-init schema says %s, %v", out, err)
	}
	for _, step := range [][]string{{"init", "--local"}, {"init"}, {"single", "--name", "write_files"}, {"single", "--name", "runcmd"}, {"single", "--name", "scripts_user"}} {
		if out, err := m.try(append([]string{"cloud-init"}, step...)...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	m.mirrors(t, ":5000")
}
