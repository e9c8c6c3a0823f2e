package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/test/hubtest"
)

// T38 of docs/clients.md: what people ask a registry for beside pulls, with the hub there
// and gone.
func TestReadOnlyCommands(t *testing.T) {
	w := newWorld(t, worldOptions{})
	crane := openCrane(t, w.mirror.addr).(*craneStore)
	skopeo := openSkopeo(t, w.mirror.addr).(*skopeoStore)
	index, single := w.images[manyOCI], w.images[plainOCI]
	ask := func(t *testing.T) {
		for _, c := range []struct {
			args []string
			want string // exactly, or anything if empty
		}{
			{[]string{"digest", crane.ref(manyOCI) + ":" + catalogueTag}, index.digest.String() + "\n"},
			{[]string{"digest", "--platform=linux/arm64/v8", crane.ref(manyOCI) + ":" + catalogueTag}, index.children[1].digest.String() + "\n"},
			{[]string{"manifest", crane.ref(manyOCI) + ":" + catalogueTag}, string(index.bytes)},
			{[]string{"manifest", crane.ref(plainOCI) + "@" + single.digest.String()}, string(single.bytes)},
			{[]string{"config", crane.ref(plainOCI) + ":" + catalogueTag}, string(single.blobs[len(single.blobs)-1].bytes)},
			{[]string{"ls", crane.ref(plainOCI)}, catalogueTag + "\n"},
			{[]string{"validate", "--remote", crane.ref(plainOCI) + ":" + catalogueTag}, ""},
			{[]string{"validate", "--remote", crane.ref(bigDocker) + ":" + catalogueTag}, ""},
		} {
			got, err := crane.crane(t.Context(), c.args...)
			if err != nil {
				t.Error(err)
			} else if c.want != "" && strings.TrimSuffix(got, "\n") != strings.TrimSuffix(c.want, "\n") {
				t.Errorf("crane %s: %s", strings.Join(c.args, " "), cmp.Diff(c.want, got))
			}
		}
		var seen struct {
			Digest   string
			RepoTags []string
			Layers   []string
		}
		out, err := skopeo.skopeo(t.Context(), "inspect", "--tls-verify=false", "docker://"+crane.ref(plainOCI)+":"+catalogueTag)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), &seen); err != nil {
			t.Fatal(err)
		}
		if seen.Digest != single.digest.String() || !slices.Equal(seen.RepoTags, []string{catalogueTag}) || len(seen.Layers) != 2 {
			t.Errorf("skopeo inspect saw %+v, want digest %s, one tag and two layers", seen, single.digest)
		}
	}
	t.Run("hub there", ask)
	w.hub.SwitchOff()
	t.Run("hub gone", ask)
	w.assertFetchedOnce(t)
}

// BuildKit resolves with containerd's code and sends ns, unlike the dockerd around it.
func TestBuildKitBuildsThroughMirror(t *testing.T) {
	w := newWorld(t, worldOptions{})
	from := plainOCI + ":" + catalogueTag
	dir := stateDir(t)
	writeFile(t, dir, "Dockerfile", "FROM "+from+"\nRUN [\"/bin/busybox\", \"touch\", \"/built\"]\n")
	for range 2 {
		d := startDocker(t, w.mirror.addr, nil)
		if _, err := run(t.Context(), []string{"DOCKER_BUILDKIT=1"}, debianProgram("docker"),
			"--config", d.config, "--host", "unix://"+d.socket,
			"build", "--network=none", "--tag=built", "--file", filepath.Join(dir, "Dockerfile"), dir); err != nil {
			t.Fatal(err)
		}
		got, err := d.run(t.Context(), "built")
		if want := w.images[plainOCI].says; err != nil || got != want {
			t.Errorf("run what was built = %q, %v, want %q", got, err, want)
		}
		w.hub.SwitchOff() // for the second time
	}
	w.assertFetched(t, plainOCI)
	w.assertFetchedOnce(t)
}

// With nothing configured but where to store, the mirror is one of Docker Hub, and
// says how to point a client at it.
func TestDefaultsMirrorDockerHub(t *testing.T) {
	images, err := catalogue()
	if err != nil {
		t.Fatal(err)
	}
	hub := hubtest.New(t, hubtest.Options{Named: true, Backend: startFullRegistry(t).url})
	openFront(t, hub)
	m := newMirror(t)
	m.addr, m.admin = "127.0.0.1:5000", "http://127.0.0.1:5001"
	m.env = []string{
		"FOREBAY_STORAGE_DIR=" + m.dir,
		"SSL_CERT_FILE=" + writeFile(t, stateDir(t), "ca.pem", string(hub.CAPEM())),
	}
	m.start(t)
	d := openDocker(t, m.addr)
	for _, repo := range []string{plainDocker, manyOCI} {
		pull(t, d, repo+":"+catalogueTag, images[repo])
	}
	for agent := range hub.Counters().UserAgent {
		if !strings.HasPrefix(strings.ToLower(agent), "forebay/") {
			t.Errorf("Docker Hub was asked by %q, want only the mirror", agent)
		}
	}
	if said := m.log(t); !strings.Contains(said, "registry-mirrors") {
		t.Errorf("the mirror does not say how to point a client at it:\n%s", said)
	}
	hub.AssertClean(t)
	m.assertStoreClean(t)
}
