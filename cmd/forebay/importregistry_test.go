package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// oldRegistry is the storage folder of a distribution registry.
type oldRegistry struct {
	t   *testing.T
	dir string
}

func (r oldRegistry) write(name, text string) {
	r.t.Helper()
	name = filepath.Join(r.dir, "docker/registry/v2", name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func dataOf(digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return fmt.Sprintf("blobs/%s/%s/%s/data", algorithm, hex[:2], hex)
}

func (r oldRegistry) path(name string) string {
	return filepath.Join(r.dir, "docker/registry/v2", name)
}

// image stores an image as a registry does, with the bytes that a mirror has.
func (r oldRegistry) image(o *operated, repo, tag string, img *hubtest.Image) {
	r.t.Helper()
	link := func(name, digest string) {
		r.write(filepath.Join("repositories", repo, name, "link"), digest)
	}
	under := func(digest string) string { return strings.Replace(digest, ":", "/", 1) }
	_, raw := get(r.t, o.registry+"/v2/"+repo+"/manifests/"+tag)
	digest := hubtest.Digest([]byte(raw))
	r.write(dataOf(digest), raw)
	link("_manifests/revisions/"+under(digest), digest)
	link("_manifests/tags/"+tag+"/current", digest)
	link("_manifests/tags/"+tag+"/index/"+under(digest), digest)
	for _, m := range img.Manifests() {
		_, raw := get(r.t, o.registry+"/v2/"+repo+"/manifests/"+m.Digest)
		r.write(dataOf(m.Digest), raw)
		link("_manifests/revisions/"+under(m.Digest), m.Digest)
	}
	for _, b := range img.Blobs() {
		_, raw := get(r.t, o.registry+"/v2/"+repo+"/blobs/"+b.Digest)
		r.write(dataOf(b.Digest), raw)
		link("_layers/"+under(b.Digest), b.Digest)
	}
}

func TestImportTakesOverARegistrysFolder(t *testing.T) {
	o := newOperated(t, "")
	app := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	multi := o.hub.PushImage("team/tool", "v2", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	old := oldRegistry{t, filepath.Join(t.TempDir(), "registry")}
	old.image(o, "library/app", "1", app)
	old.image(o, "team/tool", "v2", multi)
	old.write("../../../scheduler-state.json", "{}")
	dir := filepath.Join(t.TempDir(), "new")
	count := len(app.Blobs()) + len(app.Manifests()) + len(multi.Blobs()) + len(multi.Manifests())

	out, _ := o.runs(0, "import", "registry", old.dir, "--dry-run", "--json", "--storage-dir", dir)
	var done struct {
		DryRun                    bool `json:"dry_run"`
		Repositories, Tags, Blobs int64
		Linked, Copied, Had       int64
	}
	if err := json.Unmarshal([]byte(out), &done); err != nil || !done.DryRun || done.Repositories != 2 || done.Tags != 2 || done.Blobs != int64(count) || done.Linked+done.Copied+done.Had > 0 {
		t.Errorf("dry run: %v: %s, want %d blobs", err, out, count)
	}
	out, _ = o.runs(0, "import", "registry", old.dir, "--storage-dir", dir)
	if !strings.Contains(out, fmt.Sprintf("2 repositories taken over of docker.io: 2 tags, 0 images by digest only; %d files, ", count)) || !strings.Contains(out, fmt.Sprintf("%d linked, 0 copied", count)) {
		t.Errorf("import says: %s", out)
	}
	if out, _ = o.runs(0, "import", "registry", old.path(""), "--storage-dir", dir); !strings.Contains(out, fmt.Sprintf("0 linked, 0 copied, %d were here", count)) {
		t.Errorf("import once more says: %s", out)
	}
	there := offline(t, dir)
	there.holds("library/app", "1", app)
	there.holds("team/tool", "v2", multi)

	// Its former owner changes a linked file under our feet, after it was verified.
	d := app.Blobs()[0].Digest
	if err := os.Chmod(old.path(dataOf(d)), 0o600); err != nil {
		t.Fatal(err)
	}
	text := read(t, old.path(dataOf(d)))
	text[0] ^= 1
	f, err := os.OpenFile(old.path(dataOf(d)), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(text[:1], 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if status, body := get(t, there.registry+"/v2/library/app/blobs/"+d); status == 200 && len(body) == len(text) {
		t.Error("a file that was changed is served whole")
	}
	// Without the old folder it is like any other.
	if err := os.RemoveAll(old.dir); err != nil {
		t.Fatal(err)
	}
	there.holds("team/tool", "v2", multi)
}

func TestImportOfARegistryCopiesToARunningServer(t *testing.T) {
	o := newOperated(t, "")
	app := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	old := oldRegistry{t, filepath.Join(t.TempDir(), "registry")}
	old.image(o, "library/app", "1", app)
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(old.path("repositories/library/app/_manifests/tags/1/current/link"), past, past); err != nil {
		t.Fatal(err)
	}
	there := newOperated(t, "")
	newer := there.hub.PushImage("library/app", "1", hubtest.ImageSpec{Seed: 99})
	out, _ := there.run(0, "import", "registry", old.dir)
	if !strings.Contains(out, "1 repository taken over of docker.io") || !strings.Contains(out, "0 linked, ") {
		t.Errorf("import says: %s", out)
	}
	// The tag is known, and old: its registry has the last word.
	if _, body := get(t, there.registry+"/v2/library/app/manifests/1"); body != string(newer.Raw) {
		t.Errorf("an old tag is served without asking its registry: %.200s", body)
	}
	if _, stderr := there.run(2, "import", "registry", old.dir, "--upstream", "none.example"); !strings.Contains(stderr, "not configured") {
		t.Errorf("unknown upstream: %s", stderr)
	}
	elsewhere := t.TempDir()
	if err := os.Symlink(old.path("../.."), filepath.Join(elsewhere, "docker")); err != nil {
		t.Fatal(err)
	}
	if _, stderr := there.run(1, "import", "registry", elsewhere); !strings.Contains(stderr, "links out of the folder are not followed") {
		t.Errorf("a folder on another disk: %s", stderr)
	}
	if _, stderr := there.run(1, "import", "registry", t.TempDir()); !strings.Contains(stderr, "no storage folder of a registry") {
		t.Errorf("another folder: %s", stderr)
	}
}

func TestImportOfARegistryInRuins(t *testing.T) {
	o := newOperated(t, "")
	app := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	bad := o.hub.PushImage("library/bad", "1", hubtest.ImageSpec{Seed: 7})
	old := oldRegistry{t, filepath.Join(t.TempDir(), "registry")}
	old.image(o, "library/app", "1", app)
	old.image(o, "library/bad", "1", bad)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	blobs := bad.Blobs()
	old.write(dataOf(blobs[0].Digest), "rotten")
	for _, link := range [][2]string{
		{secret, dataOf(blobs[1].Digest)},
		{filepath.Dir(secret), "repositories/escape"},
		{secret, "repositories/library/app/_manifests/tags/stolen/current/link"},
	} {
		name := old.path(link[1])
		_ = os.Remove(name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(link[0], name); err != nil {
			t.Fatal(err)
		}
	}
	pipe := old.path("repositories/library/app/_manifests/tags/pipe/current/link")
	if err := os.MkdirAll(filepath.Dir(pipe), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	old.write("repositories/library/app/_manifests/tags/torn/current/link", "sha256:12")
	old.write("repositories/library/app/_manifests/tags/-x\x01/current/link", "sha256:12")
	old.write("repositories/library/app/_manifests/tags/gone/current/link", "sha256:"+strings.Repeat("ab", 32))
	old.write("repositories/UPPER/_manifests/tags/1/current/link", "sha256:12")
	dir := filepath.Join(t.TempDir(), "new")
	_, stderr := o.runs(1, "import", "registry", old.dir, "--storage-dir", dir)
	for _, want := range []string{
		blobs[0].Digest + " of library/bad: ", "it has the digest", blobs[1].Digest + " is not a regular file", "escape: not the name of a repository",
		"tag stolen cannot be read", "tag pipe cannot be read", "tag torn cannot be read", "is not the name of a tag", "manifest sha256:abab", "UPPER: not the name",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("import lacks %q: %s", want, stderr)
		}
	}
	there := offline(t, dir)
	there.holds("library/app", "1", app)
	for _, b := range blobs[:2] {
		if status, body := get(t, there.registry+"/v2/library/bad/blobs/"+b.Digest); status == 200 {
			t.Errorf("damaged blob %s is served: %.100s", b.Digest, body)
		}
	}
}

func TestStrayFilesAreNoFaultOfARegistry(t *testing.T) {
	o := newOperated(t, "")
	app := o.hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	old := oldRegistry{t, filepath.Join(t.TempDir(), "registry")}
	old.image(o, "library/app", "1", app)
	strays := []string{".DS_Store", "library/notes.txt", "library/app/_manifests/tags/.DS_Store", "library/app/_manifests/revisions/.DS_Store",
		"library/app/_manifests/revisions/sha256/._x", "library/app/_layers/.DS_Store"}
	for _, name := range strays {
		old.write("repositories/"+name, "x")
	}
	if err := os.Mkdir(old.path("repositories/lost+found"), 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".snapshot", "library/@eaDir", "library/app/_manifests/tags/@eaDir", "library/app/_manifests/revisions/@eaDir"} {
		old.write("repositories/"+name+"/x", "x")
		strays = append(strays, name)
	}
	dir := filepath.Join(t.TempDir(), "new")
	_, stderr := o.runs(0, "import", "registry", old.dir, "--storage-dir", dir)
	for _, name := range slices.Delete(strays, 5, 6) { // nobody looks among the layers
		if !strings.Contains(stderr, "Note: "+name+": not of a registry, and passed over.") {
			t.Errorf("import does not tell of %s: %s", name, stderr)
		}
	}
	offline(t, dir).holds("library/app", "1", app)
	// Of a manifest that was deleted, and of each that is over in a cache, the folder stays without its link.
	gone := old.path("repositories/library/app/_manifests/revisions/sha256/" + strings.Repeat("ab", 32))
	if err := os.Mkdir(gone, 0o755); err != nil {
		t.Fatal(err)
	}
	o.runs(0, "import", "registry", old.dir, "--storage-dir", filepath.Join(t.TempDir(), "third"))
	old.write("repositories/UPPER/_manifests/tags/1/current/link", "sha256:12")
	if _, stderr := o.runs(1, "import", "registry", old.dir, "--storage-dir", filepath.Join(t.TempDir(), "other")); !strings.Contains(stderr, "UPPER: not the name") {
		t.Errorf("import of a folder that can be no name says: %s", stderr)
	}
}

// What the folder names, and does not have as it should be, is not taken from another repository.
func TestRegistryGetsOnlyWhatItsFolderHas(t *testing.T) {
	o := newOperated(t, "")
	app := o.hub.PushImage("team/private", "1", hubtest.ImageSpec{})
	o.pull("team/private", "1", app.Blobs()...)
	old := oldRegistry{t, filepath.Join(t.TempDir(), "registry")}
	old.image(o, "team/private", "1", app)
	if err := os.Rename(old.path("repositories/team/private"), old.path("repositories/team/other")); err != nil {
		t.Fatal(err)
	}
	blobs := app.Blobs()
	old.write(dataOf(blobs[0].Digest), "rotten")
	if err := os.Remove(old.path(dataOf(blobs[1].Digest))); err != nil {
		t.Fatal(err)
	}
	get200 := func(base string, want ...bool) {
		t.Helper()
		for i, b := range blobs {
			if status, _ := get(t, base+"/v2/team/other/blobs/"+b.Digest); (status == 200) != want[i] {
				t.Errorf("GET of blob %d = %d", i, status)
			}
		}
	}
	if out, _ := o.run(1, "import", "registry", old.dir); !strings.Contains(out, "The images name 2 blobs more") {
		t.Errorf("import into a server says: %s", out)
	}
	get200(o.registry, false, false, true)
	o.stop()
	if out, _ := o.runs(1, "import", "registry", old.dir, "--storage-dir", o.dir); !strings.Contains(out, "The images name 2 blobs more") {
		t.Errorf("import into a folder says: %s", out)
	}
}
