package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// forebayRun runs a command of the binary.
func forebayRun(ctx context.Context, args ...string) (string, error) {
	return run(ctx, nil, forebay(), args...)
}

// must runs a command of the binary that has to work.
func must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := forebayRun(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// startIsland starts a mirror that has no line to anywhere: what it serves was carried there.
func startIsland(t testing.TB) *mirror {
	t.Helper()
	m := newMirror(t)
	m.file = writeFile(t, stateDir(t), "forebay.yaml", fmt.Sprintf(`listen: %s
admin_listen: %s
storage: {dir: %q}
log: {level: debug, format: json}
offline: true
upstreams:
  docker.io: {endpoints: ["http://127.0.0.1:1"]}
  localhost.example: {endpoints: ["http://127.0.0.1:1"]}
`, m.addr, strings.TrimPrefix(m.admin, "http://"), m.dir))
	m.start(t)
	return m
}

// pullAll has every client pull and run every image from a mirror.
func pullAll(t *testing.T, w *world, m *mirror) {
	t.Helper()
	var running sync.WaitGroup
	for _, c := range clients() {
		s := c.open(t, m.addr)
		running.Go(func() {
			for _, repo := range w.repos(c) {
				pull(t, s, repo+":"+catalogueTag, w.images[repo])
			}
		})
	}
	running.Wait()
}

// The whole loop: what a list names is fetched on the connected side, carried over in a
// signed bundle of volumes, and pulled and run by every client where there is no line.
func TestImagesAreCarriedOverTheGap(t *testing.T) {
	w := newWorld(t, worldOptions{})
	dir := stateDir(t)
	var list strings.Builder
	for repo := range w.images {
		fmt.Fprintf(&list, "%s:%s\n", repo, catalogueTag)
	}
	images := writeFile(t, dir, "images.txt", list.String())
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "key")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s: install openssh-client", err, out)
	}
	locked := filepath.Join(dir, "images.lock")
	must(t, "lock", "-f", images, "-o", locked, "--config", w.mirror.file)
	must(t, "prefetch", "-f", locked, "--platform", "all", "--referrers", "--config", w.mirror.file)
	must(t, "lock", "--check", "-f", locked, "--config", w.mirror.file)
	w.hub.SwitchOff()
	site := filepath.Join(dir, "site.tar")
	must(t, "export", "-o", site, "-f", locked, "--platform", "all", "--referrers", "--split", "16MiB", "--sign", filepath.Join(dir, "key"), "--config", w.mirror.file)

	island := startIsland(t)
	out := must(t, "import", site, "--pin", "--verify", filepath.Join(dir, "key.pub"), "--config", island.file)
	if n := strings.Count(out, "complete, pinned"); n < len(w.images) {
		t.Errorf("%d images came whole, want %d:\n%s", n, len(w.images), out)
	}
	pullAll(t, w, island)
	island.assertStoreClean(t)
	w.assertFetchedOnce(t)
}

// carried makes a bundle of the whole catalogue.
func carried(t *testing.T, w *world, file string, args ...string) {
	t.Helper()
	args = append([]string{"export", "-o", file, "--platform", "all", "--referrers", "--fetch", "--config", w.mirror.file}, args...)
	for repo := range w.images {
		args = append(args, repo+":"+catalogueTag)
	}
	must(t, args...)
}

// A delta has what changed and little else, and completes what was carried before.
func TestDeltaOverTheGap(t *testing.T) {
	w := newWorld(t, worldOptions{mirror: mirrorOptions{}})
	dir := stateDir(t)
	// What another repository has here is linked by the word of a signature only.
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "key")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s: install openssh-client", err, out)
	}
	first, second, inventory := filepath.Join(dir, "first.tar"), filepath.Join(dir, "second.tar"), filepath.Join(dir, "inv")
	must(t, "export", "-o", first, plainOCI+":"+catalogueTag, "--fetch", "--config", w.mirror.file)
	island := startIsland(t)
	must(t, "import", first, "--config", island.file)
	must(t, "inventory", "-o", inventory, "--config", island.file)
	// Both have the layer of busybox in common.
	must(t, "export", "-o", second, plainOCI+":"+catalogueTag, bigDocker+":"+catalogueTag, "--fetch", "--lacking", inventory, "--sign", filepath.Join(dir, "key"), "--config", w.mirror.file)
	big := w.images[bigDocker]
	changed := int64(len(big.bytes)) + int64(len(big.blobs[1].bytes)) + int64(len(big.blobs[2].bytes))
	info, err := os.Stat(second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the delta has %d bytes for %d that changed: %.4f", info.Size(), changed, float64(info.Size())/float64(changed))
	if float64(info.Size()) > 1.05*float64(changed) {
		t.Errorf("the delta has %d bytes for %d that changed", info.Size(), changed)
	}
	must(t, "import", second, "--verify", filepath.Join(dir, "key.pub"), "--config", island.file)
	for _, open := range []func(testing.TB, string) store{openDocker, openContainerd24, openPodman} {
		s := open(t, island.addr)
		pull(t, s, bigDocker+":"+catalogueTag, big)
		pull(t, s, plainOCI+":"+catalogueTag, w.images[plainOCI])
	}
	island.assertStoreClean(t)
}

// Killed at any moment, an export and an import are run again and come out whole.
func TestKilledExportAndImportGoOn(t *testing.T) {
	w := newWorld(t, worldOptions{})
	dir := stateDir(t)
	site, whole := filepath.Join(dir, "site.tar"), filepath.Join(dir, "whole.tar")
	carried(t, w, whole)
	args := []string{"export", "-o", site, "--platform", "all", "--referrers", "--split", "1MiB", "--config", w.mirror.file}
	for repo := range w.images {
		args = append(args, repo+":"+catalogueTag)
	}
	for volumes := 0; volumes < 60; {
		more := volumes + 1 + rand.IntN(20)
		volumes = killedWhen(t, args, func() bool { return fileCount(site+".0*") > more })
	}
	var said struct{ Resumed int }
	if err := json.Unmarshal([]byte(must(t, append(args, "--json")...)), &said); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d volumes of killed runs were kept", said.Resumed)
	if said.Resumed == 0 {
		t.Error("the last export began anew")
	}
	if err := sameBytes(whole, site+".0*"); err != nil {
		t.Error(err)
	}

	island := startIsland(t)
	for range 5 {
		n := fileCount(filepath.Join(island.dir, "blobs/sha256/*/*"))
		killedWhen(t, []string{"import", site, "--config", island.file}, func() bool {
			return fileCount(filepath.Join(island.dir, "blobs/sha256/*/*")) > n+rand.IntN(8)
		})
		if out := must(t, "ls", "--json", "--config", island.file); strings.Contains(out, catalogueTag) && strings.Contains(out, "library/") {
			break // the last one was too quick
		}
	}
	var came struct{ Had, Taken int }
	if err := json.Unmarshal([]byte(must(t, "import", site, "--json", "--config", island.file)), &came); err != nil {
		t.Fatal(err)
	}
	t.Logf("of killed imports %d things were kept, %d came at last", came.Had, came.Taken)
	if came.Had == 0 {
		t.Error("the last import began anew")
	}
	pull(t, openDocker(t, island.addr), bigDocker+":"+catalogueTag, w.images[bigDocker])
	island.kill() // the mirror itself is killed, too, and has all of it
	island.start(t)
	pull(t, openPodman(t, island.addr), manyOCI+":"+catalogueTag, w.images[manyOCI])
	island.assertStoreClean(t)
}

// killedWhen runs a command of the binary and kills it as soon as something holds, and
// returns how many volumes there are then. A command that ends before is all right.
func killedWhen(t *testing.T, args []string, holds func() bool) int {
	t.Helper()
	cmd := exec.Command(forebay(), args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err := eventually(startWithin, func() error {
		select {
		case <-ended:
			ended <- nil
			return nil
		default:
		}
		if holds() {
			return nil
		}
		return errors.New("not yet")
	})
	if err != nil {
		t.Errorf("%s: %v", strings.Join(args[:1], " "), err)
	}
	_ = cmd.Process.Kill() // it may have ended
	<-ended
	return fileCount(args[2] + ".0*")
}

func fileCount(pattern string) int {
	names, err := filepath.Glob(pattern)
	if err != nil {
		panic(err) // the pattern is ours
	}
	return len(names)
}

// sameBytes compares a file with volumes in order.
func sameBytes(whole, volumes string) error {
	out, err := exec.Command("sh", "-c", fmt.Sprintf("cat %s | cmp - %s", volumes, whole)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the volumes are not the bundle: %w: %s", err, out)
	}
	return nil
}
