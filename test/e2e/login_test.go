package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"forebay/test/hubtest"
)

const (
	mirrorUser     = "alice"
	mirrorPassword = "mirror pass 9d1f"
)

// A mirror that wants to know its clients is logged in to as any registry is: by user and password,
// by a token in its place or in a header, by a certificate. Who shows nothing or something wrong gets
// nothing, and what was shown is nowhere to be read.
func TestClientsLogIn(t *testing.T) {
	dir := stateDir(t)
	hash, err := bcrypt.GenerateFromPassword([]byte(mirrorPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(dir, "tokens")
	token := strings.TrimSpace(must(t, "token", "create", "robot", "--group", "robots", "--file", tokens))
	must(t, "gen-cert", "127.0.0.1", "--out", dir)
	must(t, "gen-cert", "--client", "node-7", "--out", dir)
	tls, trail := freeAddr(t), filepath.Join(dir, "audit.log")
	w := newWorld(t, worldOptions{mirror: mirrorOptions{more: fmt.Sprintf(`
authentication: required
audit: %[1]s/audit.log
auth: {htpasswd_file: %[2]s, tokens_file: %[1]s/tokens}
listeners:
  - address: %[3]s
    authentication: required
    tls: {cert_file: %[1]s/server.pem, key_file: %[1]s/server-key.pem}
    client_ca_file: %[1]s/ca.pem
access:
  - {name: people, who: [alice, "group:robots", "certificate:node-*"], what: [docker.io]}
  - {name: nobody else, deny: true}
`, dir, writeFile(t, dir, "htpasswd", mirrorUser+":"+string(hash)+"\n"), tls)}})
	addr, name, img := w.mirror.addr, plainDocker+":"+catalogueTag, w.images[plainDocker]
	ref := addr + "/docker.io/" + name
	want := img.digest.String()
	got := func(t *testing.T, who string, digests []string, err error) {
		t.Helper()
		if err != nil || len(digests) == 0 || digests[0] != want {
			t.Errorf("%s pulled %v, %v; want %s", who, digests, err, want)
		}
	}
	refused := func(t *testing.T, who string, out string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s is let in: %s", who, out)
		}
	}
	t.Run("dockerd", func(t *testing.T) {
		d := startDocker(t, freeAddr(t), nil)
		out, err := d.docker(t.Context(), "pull", "--quiet", ref)
		refused(t, "nobody", out, err)
		out, err = d.docker(t.Context(), "login", "--username", mirrorUser, "--password", "wrong", addr)
		refused(t, "a wrong password", out, err)
		for user, secret := range map[string]string{mirrorUser: mirrorPassword, "any": token} {
			if out, err := d.docker(t.Context(), "login", "--username", user, "--password", secret, addr); err != nil {
				t.Errorf("login of %s: %v: %s", user, err, out)
			}
			if _, err := d.docker(t.Context(), "pull", "--quiet", ref); err != nil {
				t.Errorf("%s: %v", user, err)
			}
			digests, err := d.docker(t.Context(), "image", "inspect", "--format", "{{join .RepoDigests \" \"}}", ref)
			got(t, user, digestsOf(digests), err)
			if _, err := d.docker(t.Context(), "image", "rm", "--force", ref); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("podman", func(t *testing.T) {
		p := openPodman(t, freeAddr(t)).(*podmanStore)
		pull := func() ([]string, error) {
			if _, err := p.podman(t.Context(), "pull", "--quiet", "--tls-verify=false", "--signature-policy", filepath.Join(p.dir, "policy.json"), ref); err != nil {
				return nil, err
			}
			out, err := p.podman(t.Context(), "image", "inspect", "--format", "{{join .RepoDigests \" \"}}", ref)
			return digestsOf(out), err
		}
		_, err := pull()
		refused(t, "nobody", "", err)
		out, err := p.podman(t.Context(), "login", "--tls-verify=false", "--username", mirrorUser, "--password", "wrong", addr)
		refused(t, "a wrong password", out, err)
		if out, err := p.podman(t.Context(), "login", "--tls-verify=false", "--username", mirrorUser, "--password", mirrorPassword, addr); err != nil {
			t.Errorf("login: %v: %s", err, out)
		}
		digests, err := pull()
		got(t, "podman", digests, err)
	})
	t.Run("skopeo", func(t *testing.T) {
		s := openSkopeo(t, freeAddr(t)).(*skopeoStore)
		copied := func(creds ...string) ([]string, error) {
			out := filepath.Join(s.dir, "image")
			if err := os.RemoveAll(out); err != nil {
				return nil, err
			}
			args := append([]string{"copy", "--all", "--preserve-digests", "--src-tls-verify=false"}, creds...)
			if _, err := s.skopeo(t.Context(), append(args, "docker://"+ref, "dir:"+out)...); err != nil {
				return nil, err
			}
			digest, err := checkDir(out)
			return []string{digest}, err
		}
		_, err := copied()
		refused(t, "nobody", "", err)
		digests, err := copied("--src-creds", mirrorUser+":"+mirrorPassword)
		got(t, "a password", digests, err)
		digests, err = copied("--src-registry-token", token)
		got(t, "a token", digests, err)
	})
	t.Run("crane", func(t *testing.T) {
		c := openCrane(t, addr).(*craneStore)
		_, err := c.pull(t.Context(), name)
		refused(t, "nobody", "", err)
		if out, err := c.crane(t.Context(), "auth", "login", "--insecure", "--username", mirrorUser, "--password", mirrorPassword, addr); err != nil {
			t.Errorf("login: %v: %s", err, out)
		}
		digests, err := c.pull(t.Context(), name)
		got(t, "crane", digests, err)
	})
	t.Run("helm", func(t *testing.T) {
		home, chart := stateDir(t), pushChart(t, w.hub, "charts/app", "1.0.0")
		helm := func(args ...string) error {
			_, err := run(t.Context(), []string{"HOME=" + home, "HELM_REGISTRY_CONFIG=" + filepath.Join(home, "registry.json")}, builtProgram("helm"), args...)
			return err
		}
		pull := func() error {
			return helm("pull", "oci://"+addr+"/docker.io/charts/app", "--version", "1.0.0", "--plain-http", "--destination", home)
		}
		refused(t, "nobody", "", pull())
		refused(t, "a wrong password", "", helm("registry", "login", addr, "--plain-http", "--username", mirrorUser, "--password", "wrong"))
		if err := helm("registry", "login", addr, "--plain-http", "--username", mirrorUser, "--password", mirrorPassword); err != nil {
			t.Errorf("login: %v", err)
		}
		if err := pull(); err != nil {
			t.Errorf("pull: %v", err)
		}
		if got, err := os.ReadFile(filepath.Join(home, "app-1.0.0.tgz")); err != nil || !bytes.Equal(got, chart) {
			t.Errorf("helm has %d bytes, %v; want the %d of the chart", len(got), err, len(chart))
		}
	})
	t.Run("containerd", func(t *testing.T) {
		c := openContainerd24(t, addr).(*containerdStore)
		pull := func(ctx context.Context, host string) ([]string, error) {
			writeFile(t, c.hosts, "docker.io/hosts.toml", "server = \"http://127.0.0.1:1\"\n"+host)
			return c.pull(ctx, name)
		}
		plain, encrypted := "[host.\"http://"+addr+"\"]\n  capabilities = [\"pull\", \"resolve\"]\n", "[host.\"https://"+tls+"\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \""+dir+"/ca.pem\"\n"
		_, err := pull(t.Context(), plain)
		refused(t, "nobody", "", err)
		_, err = pull(t.Context(), encrypted)
		refused(t, "nobody by TLS", "", err)
		digests, err := pull(t.Context(), encrypted+fmt.Sprintf("  client = [[%q, %q]]\n", dir+"/node-7.pem", dir+"/node-7-key.pem"))
		got(t, "a certificate", digests, err)
		digests, err = pull(t.Context(), plain+"  [host.\"http://"+addr+"\".header]\n    Authorization = [\"Bearer "+token+"\"]\n")
		got(t, "a header", digests, err)
	})

	text, err := os.ReadFile(trail)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`"event":"pull","who":"alice"`, `"event":"pull","who":"robot","groups":["robots"]`, `"event":"pull","who":"certificate:node-7"`, `"rule":"access[1] (people)"`, `"event":"refusal","addr"`,
		`"digest":"` + want + `"`,
	} {
		if !strings.Contains(string(text), line) {
			t.Errorf("the audit log has no %s:\n%s", line, text)
		}
	}
	for where, said := range map[string]string{"the mirror's log": w.mirror.log(t), "the audit log": string(text), "what the hub saw": w.hub.Ledger()} {
		for _, secret := range []string{mirrorPassword, token, base64.StdEncoding.EncodeToString([]byte(mirrorUser + ":" + mirrorPassword)), "mirror+pass"} {
			if strings.Contains(said, secret) {
				t.Errorf("%s has what a client showed", where)
			}
		}
	}
	if out, err := forebayRun(t.Context(), "access", "explain", "bob", plainDocker, "--config", w.mirror.file); err == nil || !strings.Contains(fmt.Sprint(out, err), "access[2] (nobody else)") {
		t.Errorf("access explain: %s, %v", out, err)
	}
	w.mirror.assertLogClean(t)
	w.hub.AssertClean(t)
}

// pushChart puts a chart of Helm into a registry, and returns its archive.
func pushChart(t *testing.T, hub *hubtest.Hub, repo, version string) []byte {
	t.Helper()
	var archive bytes.Buffer
	z := gzip.NewWriter(&archive)
	a := tar.NewWriter(z)
	name := path.Base(repo)
	text := fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\n", name, version)
	if err := a.WriteHeader(&tar.Header{Name: name + "/Chart.yaml", Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	described := func(mediaType string, b []byte) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, hub.PutBlob(repo, b), len(b))
	}
	config := described("application/vnd.cncf.helm.config.v1+json", fmt.Appendf(nil, `{"name":%q,"version":%q,"apiVersion":"v2"}`, name, version))
	layer := described("application/vnd.cncf.helm.chart.content.v1.tar+gzip", archive.Bytes())
	hub.PutManifest(repo, version, hubtest.OCIManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, hubtest.OCIManifest, config, layer))
	return archive.Bytes()
}
