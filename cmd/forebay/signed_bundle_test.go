package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"forebay/internal/bundle"
	"forebay/test/hubtest"
)

func TestSignedBundles(t *testing.T) {
	dir := t.TempDir()
	keygen := func(name, passphrase string) {
		t.Helper()
		if b, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", dir+"/"+name).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v %s (install openssh-client)", err, b)
		}
	}
	keygen("right", "")
	keygen("wrong", "")
	keygen("locked", "secret")
	o := newOperated(t, "")
	o.hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	o.run(0, "export", "-o", dir+"/plain.tar", "app:1", "--fetch")
	o.run(0, "export", "-o", dir+"/signed.tar", "app:1", "--sign", dir+"/right")

	verify := exec.Command("ssh-keygen", "-Y", "verify", "-f", dir+"/allowed", "-I", "us", "-n", "forebay-bundle", "-s", dir+"/signed.tar.manifest.sig")
	if err := os.WriteFile(dir+"/allowed", append([]byte("us "), read(t, dir+"/right.pub")...), 0o600); err != nil {
		t.Fatal(err)
	}
	verify.Stdin = bytes.NewReader(read(t, dir+"/signed.tar.manifest"))
	if b, err := verify.CombinedOutput(); err != nil {
		t.Errorf("ssh-keygen does not verify: %v %s", err, b)
	}
	there := offline(t, t.TempDir())
	for args, want := range map[string]string{
		"plain.tar --verify " + dir + "/right.pub":  "signature is not right: it has none",
		"signed.tar --verify " + dir + "/wrong.pub": "is not among those to verify with",
		"signed.tar --verify " + dir + "/right":     "",
	} {
		code, _, stderr := execute(t, there.asked(), append([]string{"import", dir + "/" + strings.Fields(args)[0]}, strings.Fields(args)[1:]...)...)
		if code == 0 || !strings.Contains(stderr, want) || strings.Contains(stderr, "PRIVATE KEY") {
			t.Errorf("import %s = %d %s, want %q", args, code, stderr, want)
		}
	}
	if out, _ := there.run(0, "ls", "--json"); strings.Contains(out, "library/app") {
		t.Errorf("something was taken in: %s", out)
	}
	out, _ := there.run(0, "import", dir+"/signed.tar", "--verify", dir+"/wrong.pub", "--verify", dir+"/allowed")
	if !strings.Contains(out, "signed by a key that was given") {
		t.Errorf("import says: %s", out)
	}
	if _, stderr := o.run(2, "export", "-o", dir+"/x.tar", "app:1", "--sign", dir+"/locked"); !strings.Contains(stderr, "protected by a passphrase") || !strings.Contains(stderr, "--passphrase-file") {
		t.Errorf("a locked key: %s", stderr)
	}
	secret := write(t, "secret", "secret\n")
	o.run(0, "export", "-o", dir+"/x.tar", "app:1", "--sign", dir+"/locked", "--passphrase-file", secret)
	there.run(0, "import", dir+"/x.tar", "--verify", dir+"/locked.pub")

	// A bundle that comes through a pipe, signed by ssh-keygen, has its signature in a file.
	if b, err := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-f", dir+"/right", "-n", "forebay-bundle", dir+"/plain.tar.manifest").CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s", err, b)
	}
	if err := syscall.Mkfifo(dir+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	text := read(t, dir+"/plain.tar")
	written := make(chan error)
	go func() { written <- os.WriteFile(dir+"/pipe", text, 0) }()
	out, _ = there.run(0, "import", dir+"/pipe", "--verify", dir+"/right.pub", "--signature", dir+"/plain.tar.manifest.sig", "--allow-older")
	if err := <-written; err != nil || !strings.Contains(out, "signed by a key that was given") {
		t.Errorf("import of a pipe says: %s, its writer %v", out, err)
	}
}

// Who carries signed bundles cannot bring back what was before.
func TestOlderBundleIsRefused(t *testing.T) {
	o := newOperated(t, "")
	dir := t.TempDir()
	if b, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/key").CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s (install openssh-client)", err, b)
	}
	export := func(name string, args ...string) {
		t.Helper()
		o.run(0, append([]string{"export", "-o", dir + "/" + name, "app:prod", "--platform", "linux/amd64", "--fetch", "--sign", dir + "/key"}, args...)...)
	}
	old := o.hub.PushImage("library/app", "prod", hubtest.ImageSpec{LayerSize: 1 << 20, Seed: 1})
	export("old.tar")
	export("volumes.tar", "--split", "1MiB")
	first := manifestOf(t, dir+"/old.tar")
	if first.Made.IsZero() || first.Images[0].Confirmed.IsZero() || first.Images[0].Confirmed.After(first.Made) {
		t.Errorf("a signed manifest was made %s and its tag confirmed %s", first.Made, first.Images[0].Confirmed)
	}
	newest := o.hub.PushImage("library/app", "prod", hubtest.ImageSpec{LayerSize: 1 << 20, Seed: 2})
	o.run(0, "refresh", "app:prod")
	export("delta.tar", "--since", dir+"/old.tar.manifest")
	export("new.tar")
	there := offline(t, t.TempDir())
	verify := []string{"--verify", dir + "/key.pub"}
	take := func(code int, name string, args ...string) (string, string) {
		t.Helper()
		return there.run(code, append(append([]string{"import", dir + "/" + name}, verify...), args...)...)
	}
	take(0, "old.tar")
	there.holds("library/app", "prod", old)
	take(0, "new.tar")
	there.holds("library/app", "prod", newest)
	for _, name := range []string{"old.tar", "volumes.tar", "volumes.tar.001", "delta.tar"} {
		if _, stderr := take(1, name); !strings.Contains(stderr, "older than one by the same key") || !strings.Contains(stderr, "--allow-older") {
			t.Errorf("import of %s says: %s", name, stderr)
		}
		there.holds("library/app", "prod", newest)
	}
	there.run(0, "import", dir+"/old.tar") // nobody asked whether it is older
	there.holds("library/app", "prod", newest)
	take(0, "new.tar")
	if out, _ := take(0, "volumes.tar", "--allow-older"); !strings.Contains(out, "complete, moved") {
		t.Errorf("import that may be older says: %s", out)
	}
	there.holds("library/app", "prod", old)
	if _, stderr := take(1, "delta.tar"); !strings.Contains(stderr, "older than one by the same key") {
		t.Errorf("import after one that might be older says: %s", stderr)
	}
	take(0, "new.tar")
	there.holds("library/app", "prod", newest)

	// Tags of another key: what was confirmed later stays.
	if b, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/other").CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s", err, b)
	}
	out, stderr := there.run(0, "import", dir+"/old.tar")
	if !strings.Contains(out, "complete, tag not moved") || !strings.Contains(stderr, "docker.io/library/app:prod stays at "+hubtest.Digest(newest.Raw)) {
		t.Errorf("import of a tag that was confirmed before says: %s%s", out, stderr)
	}

	// What an earlier version has signed does not say when.
	m := manifestOf(t, dir+"/new.tar")
	if strings.Contains(string(read(t, dir+"/new.tar.manifest")), "0001-01-01") {
		t.Error("the manifest has a time of nothing")
	}
	key, err := bundle.ParsePrivateKey(read(t, dir+"/other"), nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Images[0].Confirmed = time.Time{}
	archive, err := bundle.New(bundle.Packing{Images: m.Images, Assumed: m.Blobs, Sign: func(text []byte) ([]byte, error) { return bundle.Sign(key, text) }})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(dir + "/early.tar")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(archive.WriteTo(t.Context(), f, nil, 0, nil), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, stderr := there.run(0, "import", dir+"/early.tar", "--verify", dir+"/other.pub"); !strings.Contains(stderr, "an earlier version signed it without the time") {
		t.Errorf("import of a bundle without a time says: %s", stderr)
	}
	if strings.Contains(string(archive.Manifest), "made") {
		t.Errorf("a bundle without a time says one: %s", archive.Manifest)
	}
	o.run(0, "export", "-o", dir+"/x.tar", "app:prod", "--sign", dir+"/other")
	there.run(0, "import", dir+"/x.tar", "--verify", dir+"/other.pub")
	if _, stderr := there.run(1, "import", dir+"/early.tar", "--verify", dir+"/other.pub"); !strings.Contains(stderr, "it does not say when it was made") {
		t.Errorf("import of a bundle without a time after one with it says: %s", stderr)
	}
}

// The times in a signed bundle do not keep an export from going on where it was cut.
func TestSignedVolumesGoOnWhereTheyWereCut(t *testing.T) {
	o := newOperated(t, "")
	dir := t.TempDir()
	for _, name := range []string{"key", "other"} {
		if b, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/"+name).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v %s (install openssh-client)", err, b)
		}
	}
	o.hub.PushImage("library/app", "1", hubtest.ImageSpec{LayerSize: 2 << 20})
	export := func(key string) string {
		t.Helper()
		out, _ := o.run(0, "export", "-o", dir+"/site.tar", "app:1", "--fetch", "--split", "1MiB", "--sign", dir+"/"+key)
		return out
	}
	export("key")
	whole := read(t, dir+"/site.tar.001")
	var record bundle.Volumes
	if err := json.Unmarshal(read(t, dir+"/site.tar.volumes"), &record); err != nil || len(record.Volumes) < 3 {
		t.Fatalf("%d volumes, %v", len(record.Volumes), err)
	}
	record.Complete, record.Volumes = false, record.Volumes[:2]
	text, err := json.Marshal(record)
	if err := errors.Join(err, os.WriteFile(dir+"/site.tar.volumes", text, 0o600)); err != nil {
		t.Fatal(err)
	}
	o.run(0, "refresh", "app:1") // the tag is confirmed anew
	if out := export("key"); !strings.Contains(out, "of which 2 were there") || !bytes.Equal(whole, read(t, dir+"/site.tar.001")) {
		t.Errorf("export that goes on says: %s", out)
	}
	if out := export("other"); strings.Contains(out, "were there") {
		t.Errorf("export with another key says: %s", out)
	}
	there := offline(t, t.TempDir())
	there.run(0, "import", dir+"/site.tar", "--verify", dir+"/other.pub")
}
