package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"forebay/internal/admin"
	"forebay/internal/bundle"
	"forebay/test/hubtest"
)

// offline is a mirror that has no upstream: what it serves was imported.
func offline(t *testing.T, dir string) *operated {
	t.Helper()
	o := &operated{t: t, dir: dir}
	o.started = start(t, offlineYAML(dir))
	return o
}

func offlineYAML(dir string) string {
	return fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [\"http://127.0.0.1:1\"], offline: true}}\n", dir)
}

// holds checks that an image is served whole.
func (o *operated) holds(repo, tag string, img *hubtest.Image) {
	o.t.Helper()
	status, body := get(o.t, o.registry+"/v2/"+repo+"/manifests/"+tag)
	if status != 200 || body != string(img.Raw) {
		o.t.Errorf("manifest of %s:%s = %d %s, want the bytes of the hub", repo, tag, status, body)
	}
	for _, b := range img.Blobs() {
		if status, body := get(o.t, o.registry+"/v2/"+repo+"/blobs/"+b.Digest); status != 200 || hubtest.DigestBy(strings.Split(b.Digest, ":")[0], []byte(body)) != b.Digest {
			o.t.Errorf("blob %s = %d and %d bytes", b.Digest, status, len(body))
		}
	}
}

func TestWhatIsExportedIsForItsOwnerOnly(t *testing.T) {
	o := newOperated(t, "")
	o.hub.PushImage("library/app", "1", hubtest.ImageSpec{LayerSize: 3 << 20})
	dir := t.TempDir()
	// What is there from before must not stay open to others.
	for _, name := range []string{"whole.tar", "whole.tar.part", "parts.tar.001", "parts.tar.volumes.tmp", "inventory", "inventory.part"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o.run(0, "export", "-o", filepath.Join(dir, "whole.tar"), "app:1", "--fetch")
	o.run(0, "export", "-o", filepath.Join(dir, "more.tar"), "app:1", "--format", "docker-archive", "--platform", "linux/amd64")
	o.run(0, "export", "-o", filepath.Join(dir, "parts.tar"), "app:1", "--split", "1MiB")
	o.run(0, "inventory", "-o", filepath.Join(dir, "inventory"))
	made, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	volumes := 0
	for _, name := range made {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(info.Name(), "parts.tar.0") {
			volumes++
		}
		if info.Size() > 0 && info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", info.Name(), info.Mode())
		}
	}
	if volumes < 2 || len(made) < 8 {
		t.Errorf("%d volumes among %q", volumes, made)
	}
}

func TestBundleCarriesImagesToAMirrorWithoutALine(t *testing.T) {
	o := newOperated(t, "")
	app := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	team := o.hub.PushImage("team/tool", "v2", hubtest.ImageSpec{Seed: 9, Algorithm: "blake3"})
	for name, args := range map[string][]string{
		"through servers": {},
		"compressed":      {"--zstd"},
		"in volumes":      {"--split", "1MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "site.tar")
			out, _ := o.run(0, append([]string{"export", "-o", file, "app:1", "team/tool:v2", "--fetch"}, args...)...)
			if !strings.Contains(out, "site.tar: 2 images; ") || !strings.Contains(out, "keep site.tar.manifest here") {
				t.Errorf("export says: %s", out)
			}
			there := offline(t, t.TempDir())
			there.t = t
			out, _ = there.run(0, "import", file, "--pin")
			if !strings.Contains(out, "docker.io/library/app:1") || strings.Count(out, "complete, pinned") != 2 || !strings.Contains(out, "forebay bundle: ") {
				t.Errorf("import says: %s", out)
			}
			there.holds("library/app", "1", app)
			there.holds("team/tool", "v2", team)
			if out, _ := there.run(0, "inspect", "team/tool:v2", "-o", "json"); !strings.Contains(out, team.Digest) {
				t.Errorf("inspect of an image with %s: %s", team.Digest, out)
			}
			if out, _ := there.run(0, "ls", "team/tool", "-o", "json"); !strings.Contains(out, team.Digest) {
				t.Errorf("ls of an image with %s: %s", team.Digest, out)
			}
			if status, body := get(t, there.registry+"/v2/library/other/manifests/1"); status != 404 {
				t.Errorf("an image that was not carried = %d %s", status, body)
			}
			if out, _ := there.run(0, "import", file); !strings.Contains(out, "0 blobs, 0 B came") {
				t.Errorf("import once more says: %s", out)
			}
		})
	}
}

func TestBundleOfAFolderThatNoServerUses(t *testing.T) {
	o := newOperated(t, "")
	app := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	o.pull("library/app", "1", app.Blobs()...)
	file, dir := filepath.Join(t.TempDir(), "site.tar"), filepath.Join(t.TempDir(), "new")
	if _, stderr := o.runs(1, "export", "-o", file, "app:1", "--storage-dir", o.dir); !strings.Contains(stderr, "in use by another process") {
		t.Errorf("export of a folder in use: %s", stderr)
	}
	byServer := filepath.Join(t.TempDir(), "server.tar")
	o.run(0, "export", "-o", byServer, "app:1")
	o.stop()
	o.runs(0, "export", "-o", file, "app:1", "--storage-dir", o.dir)
	a, b := read(t, file), read(t, byServer)
	if !bytes.Equal(a, b) {
		t.Errorf("a folder and its server make different bundles: %d and %d bytes", len(a), len(b))
	}
	o.runs(0, "import", file, "--storage-dir", dir)
	offline(t, dir).holds("library/app", "1", app)
	if _, stderr := o.runs(2, "export", "-o", file, "app:1", "--storage-dir", o.dir, "--server", "x"); !strings.Contains(stderr, "--server is for a running server") {
		t.Errorf("export of both: %s", stderr)
	}
	gone := filepath.Join(t.TempDir(), "gone")
	if _, stderr := o.runs(1, "export", "-o", file, "app:1", "--storage-dir", gone); !strings.Contains(stderr, "is not there") {
		t.Errorf("export of a folder that is not there: %s", stderr)
	}
	if _, err := os.Stat(gone); err == nil {
		t.Error("export made the folder that it was to read")
	}
}

// runs runs a command without naming the server.
func (o *operated) runs(code int, args ...string) (stdout, stderr string) {
	o.t.Helper()
	got, stdout, stderr := execute(o.t, nil, args...)
	if got != code {
		o.t.Errorf("forebay %s = %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout, stderr
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExportTellsWhatIsMissing(t *testing.T) {
	o := newOperated(t, "")
	app := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	index := o.hub.PushImage("library/multi", "1", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	o.pull("library/app", "1", app.Blobs()[0])
	o.pull("library/multi", "1")
	file := filepath.Join(t.TempDir(), "site.tar")
	_, stderr := o.run(1, "export", "-o", file, "app:1", "multi:1", "none:1")
	for _, want := range []string{
		"3 images cannot be exported", "docker.io/library/app:1: ", "missing", "docker.io/library/none:1 is not kept here",
		"docker.io/library/multi:1: nobody has pulled a platform of it: name one with --platform (linux/amd64, linux/arm64)", "--fetch",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("export lacks %q: %s", want, stderr)
		}
	}
	if left, _ := filepath.Glob(file + "*"); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	o.run(0, "export", "-o", file, "multi:1", "--fetch", "--platform", "linux/arm64", "--json")
	m := manifestOf(t, file)
	if len(m.Images) != 1 || fmt.Sprint(m.Images[0].Platforms, m.Images[0].Left) != "[linux/arm64] [linux/amd64]" {
		t.Errorf("manifest: %+v", m.Images)
	}
	there := offline(t, t.TempDir())
	out, _ := there.run(0, "import", file)
	if !strings.Contains(out, "docker.io/library/multi:1: here for linux/arm64; not for linux/amd64") {
		t.Errorf("import says: %s", out)
	}
	if status, _ := get(t, there.registry+"/v2/library/multi/manifests/"+index.Children[1].Digest); status != 200 {
		t.Errorf("the platform that was carried = %d", status)
	}
	for args, want := range map[string]string{
		"export app":                                          "name the file to write with -o",
		"export -o x":                                         "no images are named",
		"export -o x -f /dev/null":                            "no image is named there",
		"export -o x app --format zip":                        "--format",
		"export -o x app --split 5":                           "--split",
		"export -o - app --split 5MiB":                        "--split needs a file",
		"export -o x app --since nowhere":                     "--since",
		"export -o x app --sign nowhere":                      "no such file",
		"export -o x app --format docker-archive --since y":   "leave --since and --lacking out",
		"export -o x app:1 -f nowhere":                        "no such file",
		"export -o x unknown.example.com/app":                 "not configured here",
		"export -o x app:1 --platform bad":                    "is not a platform",
		"export -o x multi:1 --platform linux/riscv64 --json": "it has no platform linux/riscv64",
	} {
		code, _, stderr := execute(t, o.asked(), strings.Fields(args)...)
		if code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("forebay %s = %d %s, want %q", args, code, stderr, want)
		}
	}
}

func manifestOf(t *testing.T, file string) *bundle.Manifest {
	t.Helper()
	m, _, err := bundle.ReadManifest(bytes.NewReader(read(t, file+".manifest")))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestDeltaCarriesWhatTheOtherSideLacks(t *testing.T) {
	o := newOperated(t, "")
	dir := t.TempDir()
	had := map[string]bool{}
	for n, name := range []string{"library/base", "library/app"} {
		for _, b := range o.hub.PushImage(name, "1", hubtest.ImageSpec{LayerSize: 1 << 20, Seed: uint64(n + 1)}).Blobs() {
			had[b.Digest] = true
		}
	}
	o.run(0, "export", "-o", dir+"/one.tar", "base:1", "app:1", "--fetch")
	there := offline(t, t.TempDir())
	there.run(0, "import", dir+"/one.tar")
	there.run(0, "inventory", "-o", dir+"/inv")

	moved := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{LayerSize: 1 << 20, Seed: 3})
	changed := int64(len(moved.Raw))
	for _, b := range moved.Blobs() { // one layer is the same as before
		if !had[b.Digest] {
			changed += b.Size
		}
	}
	o.run(0, "refresh", "app:1")
	o.run(1, "export", "-o", dir+"/since.tar", "base:1", "app:1", "--since", dir+"/one.tar.manifest")
	o.run(0, "repair", "app:1", "--platform", "linux/amd64")
	for name, arg := range map[string]string{"since": dir + "/one.tar.manifest", "lacking": dir + "/inv"} {
		file := dir + "/" + name + ".tar"
		o.run(0, "export", "-o", file, "base:1", "app:1", "--"+name, arg)
		n := int64(len(read(t, file)))
		t.Logf("--%s: %d bytes for %d that changed: %.4f", name, n, changed, float64(n)/float64(changed))
		if float64(n) > 1.05*float64(changed) {
			t.Errorf("--%s: the delta has %d bytes for %d that changed", name, n, changed)
		}
	}
	if a, b := read(t, dir+"/since.tar"), read(t, dir+"/lacking.tar"); !bytes.Equal(a, b) {
		t.Error("the two deltas differ, and the other side has the same")
	}
	out, _ := there.run(0, "import", dir+"/since.tar")
	if !strings.Contains(out, "complete, moved") {
		t.Errorf("import of the delta says: %s", out)
	}
	there.holds("library/app", "1", moved)

	// A delta alone brings what it has and tells what it has not.
	alone := offline(t, t.TempDir())
	_, stderr := alone.run(1, "import", dir+"/since.tar")
	for _, want := range []string{
		"docker.io/library/base:1: its manifest is neither in the file nor here", "docker.io/library/app:1: still missing are 1 blob, 1.0 MiB",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("import of a delta alone lacks %q: %s", want, stderr)
		}
	}
	// A third step on the delta's manifest counts what both brought.
	o.run(0, "export", "-o", dir+"/third.tar", "base:1", "app:1", "--since", dir+"/since.tar.manifest")
	if m := manifestOf(t, dir+"/third.tar"); len(m.Blobs) != 0 {
		t.Errorf("a delta without changes carries %v", m.Blobs)
	}
}

// A file that names what it does not bring grants nothing of it, by any way in.
func TestImportGrantsOnlyWhatTheFileBrings(t *testing.T) {
	o := newOperated(t, "")
	private := o.hub.PushImage("team/private", "1", hubtest.ImageSpec{})
	o.pull("team/private", "1", private.Blobs()...)
	dir := t.TempDir()
	layer := private.Blobs()[1]
	own := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}]}`, private.Blobs()[0].Digest, private.Blobs()[0].Size, layer.Digest, layer.Size)
	writeLayout(t, dir+"/own.tar", "docker.io/library/own:1", []byte(own))
	writeLayout(t, dir+"/named.tar", "docker.io/library/named:1", private.Raw)
	text := read(t, dir+"/named.tar")
	blob := bytes.Index(text, private.Raw)
	if blob < 0 {
		t.Fatal("the layout has no manifest")
	}
	// Only the file of the manifest gets another name, so that the index names what is not there.
	digest := []byte("blobs/sha256/" + strings.TrimPrefix(hubtest.Digest(private.Raw), "sha256:"))
	if err := exec.Command("tar", "--delete", "-f", dir+"/named.tar", "./"+string(digest)).Run(); err != nil {
		t.Fatal(err)
	}
	refused := func(run func(code int, args ...string) (string, string), where string) {
		t.Helper()
		if _, stderr := run(1, "import", dir+"/named.tar"); !strings.Contains(stderr, "its manifest is neither in the file nor here") {
			t.Errorf("%s: import of a name alone says: %s", where, stderr)
		}
		if _, stderr := run(0, "import", dir+"/own.tar"); !strings.Contains(stderr, "still missing are 2 blobs") {
			t.Errorf("%s: import of a manifest alone says: %s", where, stderr)
		}
	}
	refused(o.run, "server")
	for _, path := range []string{"named/manifests/1", "named/manifests/" + hubtest.Digest(private.Raw), "own/blobs/" + layer.Digest, "named/blobs/" + layer.Digest} {
		if status, _ := get(t, o.registry+"/v2/library/"+path); status == 200 {
			t.Errorf("GET %s = 200 after an import that only named it", path)
		}
	}
	o.holds("team/private", "1", private)
	o.stop()
	refused(func(code int, args ...string) (string, string) {
		return o.runs(code, append(args, "--storage-dir", o.dir)...)
	}, "folder")
}

func TestDeltaReliesOnOtherRepositoriesBySignatureOnly(t *testing.T) {
	o := newOperated(t, "")
	dir := t.TempDir()
	o.hub.PushImage("library/base", "1", hubtest.ImageSpec{LayerSize: 1 << 20, Seed: 1})
	app := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{LayerSize: 1 << 20, Seed: 2}) // has a layer of the other
	o.run(0, "export", "-o", dir+"/base.tar", "base:1", "--fetch")
	there := offline(t, t.TempDir())
	there.run(0, "import", dir+"/base.tar")
	there.run(0, "inventory", "-o", dir+"/inv")
	if b, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/key").CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s (install openssh-client)", err, b)
	}
	out, _ := o.run(0, "export", "-o", dir+"/plain.tar", "app:1", "--fetch", "--lacking", dir+"/inv")
	if !strings.Contains(out, "left out 1, 1.0 MiB") || !strings.Contains(out, "It is not signed: ") {
		t.Errorf("export of a delta without a signature says: %s", out)
	}
	o.run(0, "export", "-o", dir+"/signed.tar", "app:1", "--lacking", dir+"/inv", "--sign", dir+"/key")
	for _, name := range []string{"/plain.tar", "/signed.tar"} {
		_, stderr := there.run(0, "import", dir+name)
		if !strings.Contains(stderr, "docker.io/library/app:1: still missing are 1 blob, 1.0 MiB") || !strings.Contains(stderr, "import it with --verify") {
			t.Errorf("import of %s says: %s", name, stderr)
		}
	}
	there.run(0, "import", dir+"/signed.tar", "--verify", dir+"/key.pub")
	there.holds("library/app", "1", app)
}

func TestImportRefusesNamesBeforeItTakesAnythingIn(t *testing.T) {
	here := offline(t, t.TempDir())
	dir := t.TempDir()
	file := dir + "/x.tar"
	raw := []byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`)
	writeLayout(t, file, "unknown.example.com/app:1", raw)
	if _, stderr := here.run(1, "import", file); !strings.Contains(stderr, `registry "unknown.example.com" is not configured here`) || !strings.Contains(stderr, "--as or --registry") {
		t.Errorf("import says: %s", stderr)
	}
	if _, stderr := here.run(2, "import", file, "--as", "other.example.com/x"); !strings.Contains(stderr, "--as: ") {
		t.Errorf("import --as of a registry that is not configured says: %s", stderr)
	}
	// What podman calls an image of no registry is none of Docker Hub's.
	for _, name := range []string{"localhost/nginx:1", "localhost:5000/nginx:1"} {
		writeLayout(t, file, name, raw)
		if _, stderr := here.run(1, "import", file); !strings.Contains(stderr, "is not configured here") || !strings.Contains(stderr, "--as or --registry") {
			t.Errorf("import of %s says: %s", name, stderr)
		}
	}
	if status, _ := get(t, here.registry+"/v2/library/nginx/manifests/1"); status != 404 {
		t.Errorf("nginx of Docker Hub = %d after the import of a local one", status)
	}
	writeLayout(t, file, "localhost/team/app:1", raw)
	if out, _ := here.run(0, "import", file, "--registry", "docker.io"); !strings.Contains(out, "docker.io/team/app:1") {
		t.Errorf("import with --registry says: %s", out)
	}
	writeLayout(t, file, "unknown.example.com/app:1", raw)
	out, _ := here.run(0, "import", file, "--as", "renamed/app", "--json")
	var done struct{ Images []admin.AdmitAnswer }
	if err := json.Unmarshal([]byte(out), &done); err != nil || len(done.Images) != 1 || done.Images[0].Ref != "docker.io/renamed/app:1" {
		t.Errorf("import --as = %s, %v", out, err)
	}
	writeLayout(t, file, "latest", raw)
	if _, stderr := here.run(1, "import", file); !strings.Contains(stderr, "--as NAME") {
		t.Errorf("import of what has no name says: %s", stderr)
	}
	here.run(0, "import", file, "--as", "other/app")
	if status, body := get(t, here.registry+"/v2/other/app/manifests/latest"); status != 200 || body != string(raw) {
		t.Errorf("the renamed image = %d %s", status, body)
	}
}

// An archive of docker save is unpacked where its layers will be: within the bounds of the storage
// folder, and nowhere else.
func TestArchiveOfDockerSaveStaysWithinTheFolder(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", "/nonexistent")
	const index = `[{"Config":"c.json","RepoTags":["app:1"],"Layers":["a/layer.tar"]}]`
	// save writes an archive whose layer of size bytes is compressed away.
	save := func(name string, size int64) string {
		t.Helper()
		f, err := os.Create(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.CopyN(sum, zeros{}, size); err != nil {
			t.Fatal(err)
		}
		config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sum.Sum(nil))
		z := gzip.NewWriter(f)
		w := tar.NewWriter(z)
		for _, e := range []struct {
			name string
			size int64
			r    io.Reader
		}{
			{"a/layer.tar", size, zeros{}}, {"c.json", int64(len(config)), strings.NewReader(config)},
			{"manifest.json", int64(len(index)), strings.NewReader(index)},
		} {
			if err := w.WriteHeader(&tar.Header{Name: e.name, Size: e.size, Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(w, e.r, e.size); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Close(), z.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
		return f.Name()
	}
	small, bomb := save("small.tgz", 6<<20), save("bomb.tgz", 80<<20)
	there := &operated{t: t, dir: t.TempDir()}
	there.started = start(t, fmt.Sprintf("storage: {dir: %q, max_size: 32MiB, min_free: 1MiB}\nupstreams: {docker.io: {endpoints: [\"http://127.0.0.1:1\"], offline: true}}\n", there.dir))
	there.run(0, "import", small)
	if status, _ := get(t, there.registry+"/v2/library/app/manifests/1"); status != 200 {
		t.Errorf("GET after the import = %d", status)
	}
	refused := func(stderr string) {
		t.Helper()
		if !strings.Contains(stderr, "no room in the store") || !strings.Contains(stderr, "it has 80 MiB") {
			t.Errorf("import of a bomb says: %s", stderr)
		}
		if left, err := os.ReadDir(there.dir + "/partial"); err != nil || len(left) > 0 {
			t.Errorf("partial files: %v, %v", left, err)
		}
	}
	_, stderr := there.run(1, "import", bomb)
	refused(stderr)
	if status, _ := get(t, there.registry+"/v2/library/app/manifests/1"); status != 200 {
		t.Errorf("GET after the bomb = %d", status)
	}
	there.stop()
	file := write(t, "folder.yaml", fmt.Sprintf("storage: {dir: %q, max_size: 32MiB, min_free: 1MiB}\n", there.dir))
	_, stderr = there.runs(1, "import", bomb, "--config", file, "--storage-dir", there.dir)
	refused(stderr)
}

// zeros is a reader of zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// writeLayout writes an OCI image layout with one manifest, as other tools do.
func writeLayout(t *testing.T, file, refName string, manifest []byte) {
	t.Helper()
	dir := t.TempDir()
	d := strings.TrimPrefix(hubtest.Digest(manifest), "sha256:")
	for name, text := range map[string]string{
		"oci-layout": `{"imageLayoutVersion": "1.0.0"}`,
		"index.json": fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%d,`+
			`"annotations":{"org.opencontainers.image.ref.name":%q}}]}`, d, len(manifest), refName),
		"blobs/sha256/" + d: string(manifest),
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := exec.Command("tar", "-C", dir, "-cf", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v %s", err, b)
	}
}
