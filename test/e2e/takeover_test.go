package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// startCache starts Debian's docker-registry as a pull-through cache of another.
func startCache(t *testing.T, of, dir string) string {
	t.Helper()
	addr := freeAddr(t)
	config := writeFile(t, stateDir(t), "config.yml", fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %s}
proxy: {remoteurl: %s}
http: {addr: %s}
`, dir, of, addr))
	startProcess(t, "docker-registry", exec.Command(debianProgram("docker-registry"), "serve", config), func() error {
		return answersOK("http://" + addr + "/v2/")
	})
	return addr
}

// Users come from docker-registry: what it has kept, as a plain registry or as a
// pull-through cache, is served by the mirror that takes its folder over, with no
// upstream there.
func TestFolderOfDockerRegistryIsTakenOver(t *testing.T) {
	images, err := catalogue()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{plainOCI, manyOCI}
	plain := startRegistry(t, filepath.Join(stateDir(t), "plain"))
	for _, repo := range names {
		plain.push(t, repo, images[repo], catalogueTag)
	}
	folders := map[string]string{"plain registry": plain.dir}
	through := filepath.Join(stateDir(t), "through")
	cache := startCache(t, plain.url, through)
	for _, repo := range names {
		crane := &craneStore{dir: stateDir(t), addr: cache}
		if _, err := crane.crane(t.Context(), "pull", "--insecure", "--format=oci", cache+"/"+repo+":"+catalogueTag, filepath.Join(crane.dir, "out")); err != nil {
			t.Fatal(err)
		}
	}
	folders["pull-through cache"] = through
	for name, dir := range folders {
		t.Run(name, func(t *testing.T) {
			storage := filepath.Join(stateDir(t), "storage")
			out, err := run(t.Context(), nil, forebay(), "import", "registry", dir, "--json", "--storage-dir", storage)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var done struct{ Repositories, Tags, Blobs, Linked, Missing int64 }
			if err := json.Unmarshal([]byte(out), &done); err != nil || done.Repositories != 2 || done.Blobs == 0 || done.Linked != done.Blobs {
				t.Errorf("import says %s, %v; want two repositories, all linked", out, err)
			}
			m := newMirror(t)
			m.dir = storage
			m.file = writeFile(t, stateDir(t), "forebay.yaml", fmt.Sprintf(`listen: %s
admin_listen: %s
storage: {dir: %q}
offline: true
upstreams: {docker.io: {endpoints: ["http://127.0.0.1:9"]}}
`, m.addr, strings.TrimPrefix(m.admin, "http://"), m.dir))
			m.start(t)
			for _, repo := range names {
				res, err := http.Get("http://" + m.addr + "/v2/" + repo + "/manifests/" + catalogueTag)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != http.StatusOK {
					t.Errorf("%s = %s", repo, res.Status)
				}
			}
			if name == "plain registry" { // which has all platforms
				if _, err := openCrane(t, m.addr).pull(t.Context(), manyOCI+":"+catalogueTag); err != nil {
					t.Error(err)
				}
			}
			for _, client := range []store{openCrane(t, m.addr), openSkopeo(t, m.addr)} {
				if _, err := client.pull(t.Context(), plainOCI+":"+catalogueTag); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
