package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What other tools write is taken in, and runs.
func TestArchivesOfOtherToolsAreImported(t *testing.T) {
	w := newWorld(t, worldOptions{})
	dir := stateDir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	registry := strings.TrimPrefix(w.registry.url, "http://")
	skopeo := openSkopeo(t, w.mirror.addr).(*skopeoStore)
	crane := openCrane(t, w.mirror.addr).(*craneStore)
	podman := openPodman(t, w.mirror.addr).(*podmanStore)
	docker := openDocker(t, w.mirror.addr).(*dockerStore)
	name := plainOCI + ":" + catalogueTag
	for _, s := range []store{podman, docker} {
		pull(t, s, name, w.images[plainOCI])
	}
	do := func(_ string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	from := "docker://" + registry + "/"
	do(skopeo.skopeo(t.Context(), "copy", "--src-tls-verify=false", "--all", from+manyOCI+":"+catalogueTag, "oci-archive:"+at("skopeo-oci.tar")+":docker.io/"+manyOCI+":"+catalogueTag))
	do(skopeo.skopeo(t.Context(), "copy", "--src-tls-verify=false", from+name, "oci:"+at("skopeo-dir")+":"+catalogueTag))
	do(skopeo.skopeo(t.Context(), "copy", "--src-tls-verify=false", from+name, "docker-archive:"+at("skopeo-docker.tar")+":"+name))
	do(crane.crane(t.Context(), "pull", "--insecure", "--format=tarball", registry+"/"+name, at("crane.tar")))
	do(crane.crane(t.Context(), "pull", "--insecure", "--format=oci", "--annotate-ref", registry+"/"+manyOCI+":"+catalogueTag, at("crane-dir")))
	do(docker.docker(t.Context(), "save", "-o", at("docker.tar"), name))
	do(podman.podman(t.Context(), "save", "-o", at("podman-docker.tar"), "docker.io/"+name))
	do(podman.podman(t.Context(), "save", "--format=oci-archive", "-o", at("podman-oci.tar"), "docker.io/"+name))
	do(run(t.Context(), nil, "/bin/gzip", "-k", at("docker.tar")))

	for _, tt := range []struct {
		file   string
		args   []string
		digest bool   // whether the digest is that of the registry
		repo   string // that it is of
	}{
		{"skopeo-oci.tar", nil, true, manyOCI},
		{"skopeo-dir", []string{"--as", plainOCI}, true, plainOCI},
		{"skopeo-docker.tar", nil, false, plainOCI},
		{"crane.tar", []string{"--as", name}, false, plainOCI},
		{"crane-dir", []string{"--as", manyOCI + ":" + catalogueTag}, true, manyOCI},
		{"docker.tar", nil, false, plainOCI},
		{"docker.tar.gz", nil, false, plainOCI},
		{"podman-docker.tar", nil, false, plainOCI},
		{"podman-oci.tar", nil, false, plainOCI},
	} {
		t.Run(tt.file, func(t *testing.T) {
			island := startIsland(t)
			args := append([]string{"import", at(tt.file), "--json", "--config", island.file}, tt.args...)
			var came struct {
				Images []struct {
					Ref, Digest  string
					MissingCount int `json:"missing_count"`
				}
			}
			if err := json.Unmarshal([]byte(must(t, args...)), &came); err != nil {
				t.Fatal(err)
			}
			if len(came.Images) != 1 || came.Images[0].Ref != "docker.io/"+tt.repo+":"+catalogueTag || came.Images[0].MissingCount != 0 {
				t.Fatalf("import brought %+v", came.Images)
			}
			want := w.images[tt.repo]
			if tt.digest && came.Images[0].Digest != want.digest.String() {
				t.Errorf("its digest is %s, want %s", came.Images[0].Digest, want.digest)
			}
			for _, open := range []func(testing.TB, string) store{openDocker, openPodman, openContainerd16} {
				s := open(t, island.addr)
				if err := tryPull(t.Context(), s, tt.repo+":"+catalogueTag, came.Images[0].Digest); err != nil {
					t.Error(err)
					continue
				}
				if got, err := s.(runner).run(t.Context(), tt.repo+":"+catalogueTag); err != nil || got != want.says {
					t.Errorf("run = %q, %v, want %q", got, err, want.says)
				}
			}
			island.assertStoreClean(t)
		})
	}
}

// What we write is read by other tools.
func TestOtherToolsReadOurBundles(t *testing.T) {
	w := newWorld(t, worldOptions{})
	dir := stateDir(t)
	oci, archive := filepath.Join(dir, "site.tar"), filepath.Join(dir, "docker.tar")
	name, many := plainOCI+":"+catalogueTag, manyOCI+":"+catalogueTag
	must(t, "export", "-o", oci, name, many, "--platform", "all", "--fetch", "--config", w.mirror.file)
	must(t, "export", "-o", archive, name, many, "--format", "docker-archive", "--platform", "linux/amd64", "--config", w.mirror.file)
	runs := func(t *testing.T, s runner, repo string) {
		t.Helper()
		if got, err := s.run(t.Context(), repo+":"+catalogueTag); err != nil || got != w.images[repo].says {
			t.Errorf("run %s = %q, %v, want %q", repo, got, err, w.images[repo].says)
		}
	}
	t.Run("skopeo", func(t *testing.T) {
		s := openSkopeo(t, w.mirror.addr).(*skopeoStore)
		for n, src := range []string{"oci-archive:" + oci + ":docker.io/" + name, "oci-archive:" + oci + ":docker.io/" + many} {
			out := filepath.Join(s.dir, fmt.Sprint("out", n))
			if _, err := s.skopeo(t.Context(), "copy", "--all", "--preserve-digests", src, "dir:"+out); err != nil {
				t.Error(err)
				continue
			}
			want := []string{plainOCI, manyOCI}[n]
			if got, err := checkDir(out); err != nil || got != w.images[want].digest.String() {
				t.Errorf("%s = %s, %v, want %s", src, got, err, w.images[want].digest)
			}
		}
		if _, err := s.skopeo(t.Context(), "inspect", "docker-archive:"+archive+":docker.io/"+name); err != nil {
			t.Error(err)
		}
	})
	t.Run("crane", func(t *testing.T) {
		s := openCrane(t, w.mirror.addr).(*craneStore)
		single := filepath.Join(dir, "one.tar")
		must(t, "export", "-o", single, name, "--format", "docker-archive", "--platform", "linux/amd64", "--config", w.mirror.file)
		if _, err := s.crane(t.Context(), "validate", "--tarball", single); err != nil {
			t.Error(err)
		}
		layout := filepath.Join(dir, "layout")
		if err := os.Mkdir(layout, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("tar", "-C", layout, "-xf", oci).CombinedOutput(); err != nil {
			t.Fatalf("tar: %v %s", err, out)
		}
		if err := checkLayout(layout); err != nil {
			t.Error(err)
		}
		to := strings.TrimPrefix(w.registry.url, "http://") + "/library/from-bundle:1"
		if _, err := s.crane(t.Context(), "push", "--insecure", "--index", layout, to); err != nil {
			t.Error(err)
		}
	})
	t.Run("docker", func(t *testing.T) {
		s := openDocker(t, w.mirror.addr).(*dockerStore)
		if _, err := s.docker(t.Context(), "load", "--input", archive); err != nil {
			t.Fatal(err)
		}
		runs(t, s, plainOCI)
		runs(t, s, manyOCI)
	})
	t.Run("podman", func(t *testing.T) {
		s := openPodman(t, w.mirror.addr).(*podmanStore)
		if _, err := s.podman(t.Context(), "load", "--signature-policy", filepath.Join(s.dir, "policy.json"), "--input", archive); err != nil {
			t.Fatal(err)
		}
		runs(t, s, plainOCI)
		runs(t, s, manyOCI)
		if _, err := s.podman(t.Context(), "pull", "--signature-policy", filepath.Join(s.dir, "policy.json"), "oci-archive:"+oci+":docker.io/"+name); err != nil {
			t.Error(err)
		}
	})
	for client, open := range map[string]func(testing.TB, string) store{"containerd-1.6": openContainerd16, "containerd-2.4": openContainerd24} {
		t.Run(client, func(t *testing.T) {
			s := open(t, w.mirror.addr).(*containerdStore)
			if _, err := s.command(t.Context(), "images", "import", oci); err != nil {
				t.Fatal(err)
			}
			runs(t, s, plainOCI)
			runs(t, s, manyOCI)
		})
	}
}
