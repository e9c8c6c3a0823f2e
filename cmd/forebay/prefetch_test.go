package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forebay/internal/admin"
	"forebay/test/hubtest"
)

// charged returns how many requests the hub has counted as pulls.
func (o *operated) charged() int {
	n := 0
	for _, c := range o.hub.Counters().Charged {
		n += c
	}
	return n
}

func TestPrefetchThenPullsNeedNoRegistry(t *testing.T) {
	o := newOperated(t, "")
	one := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	two := o.hub.PushImage("library/busybox", "2", hubtest.ImageSpec{Seed: 5, Layers: 2})
	list := write(t, "images.txt", "alpine:1\nbusybox:2 # and this\n")

	out, _ := o.run(0, "prefetch", "-f", list, "--platform", "linux/amd64", "--dry-run", "--json")
	var dry admin.PrefetchReport
	if err := json.Unmarshal([]byte(out), &dry); err != nil {
		t.Fatal(err)
	}
	if n := o.charged(); n != 0 {
		t.Errorf("the dry run cost %d pulls", n)
	}
	out, stderr := o.run(0, "prefetch", "-f", list, "--platform", "linux/amd64", "--json")
	var done admin.PrefetchReport
	if err := json.Unmarshal([]byte(out), &done); err != nil {
		t.Fatal(err)
	}
	if dry.Pulls != done.Pulls || int64(o.charged()) != done.Pulls {
		t.Errorf("pulls: the dry run says %d, the run says %d, the hub counted %d", dry.Pulls, done.Pulls, o.charged())
	}
	if !strings.Contains(stderr, "fetched docker.io/library/alpine:1") || !strings.Contains(stderr, "fetched docker.io/library/busybox:2") {
		t.Errorf("progress lines: %s", stderr)
	}
	var sent int64
	for digest := range o.hub.Counters().BlobBytes {
		sent += o.hub.BlobBytes(digest)
	}
	if sent == 0 || done.Bytes < sent {
		t.Errorf("the run says %d bytes, the hub sent %d of blobs alone", done.Bytes, sent)
	}
	o.shows("prefetch -f "+list+" --platform linux/amd64 --dry-run", "kept", "2 images")

	o.hub.SwitchOff()
	o.hub.ResetCounters()
	o.pull("library/alpine", "1")
	o.pull("library/alpine", one.Children[0].Digest, append(one.Children[0].Layers, one.Children[0].Config)...)
	o.pull("library/busybox", "2", two.Blobs()...)
	if n := o.hub.Requests(); n != 0 {
		t.Errorf("pulls after a prefetch made %d requests", n)
	}
	o.shows("prefetch -f "+list+" --platform linux/amd64", "kept")
}

func TestDryRunOfAKnownIndexTellsAllOfIt(t *testing.T) {
	o := newOperated(t, "")
	image := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{Index: true})
	o.pull("library/alpine", "1")
	o.pull("library/alpine", image.Children[0].Digest)
	before := o.charged()
	var dry, done admin.PrefetchReport
	for _, r := range []struct {
		report *admin.PrefetchReport
		more   []string
	}{{&dry, []string{"--dry-run"}}, {&done, nil}} {
		out, _ := o.run(0, append([]string{"prefetch", "alpine:1", "--platform", "linux/amd64", "--json"}, r.more...)...)
		if err := json.Unmarshal([]byte(out), r.report); err != nil {
			t.Fatal(err)
		}
	}
	if dry.Pulls != 0 || o.charged() != before || dry.More || dry.Bytes != done.Bytes || dry.Fetched != done.Fetched || done.Bytes == 0 {
		t.Errorf("dry run: %d pulls, %d things, %d bytes; run: %d things, %d bytes; charged %d", dry.Pulls, dry.Fetched, dry.Bytes, done.Fetched, done.Bytes, o.charged()-before)
	}
}

// Names of the mirror itself mean in commands what they mean in requests.
func TestCommandsKnowTheNamesOfTheMirror(t *testing.T) {
	o := newOperated(t, "hosts: {mirror.lan: docker.io}\n")
	o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	for _, name := range []string{"mirror.lan/alpine:1", "mirror.lan:5000/docker.io/library/alpine:1", "docker://alpine:1"} {
		for _, command := range []string{"prefetch", "lock", "pin"} {
			if out, stderr := o.run(0, command, name); !strings.Contains(out+stderr, "docker.io/library/alpine:1") {
				t.Errorf("forebay %s %s tells nothing of docker.io/library/alpine:1:\n%s%s", command, name, out, stderr)
			}
		}
		o.run(0, "export", name, "-o", t.TempDir()+"/b.tar")
	}
}

func TestPrefetchTellsByItsExitCode(t *testing.T) {
	o := newOperated(t, "")
	o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	if _, stderr := o.run(3, "prefetch", "alpine:1", "nothing:1"); !strings.Contains(stderr, "of 2 images, 1 not all there: docker.io/library/nothing:1") || !strings.Contains(stderr, "docker.io/library/nothing:1: ") {
		t.Errorf("partial: %s", stderr)
	}
	o.shows("jobs", "partial")
	if _, stderr := o.run(1, "prefetch", "nothing:1"); !strings.Contains(stderr, "denied") {
		t.Errorf("nothing there: %s", stderr)
	}
	o.hub.PushImage("library/multi", "1", hubtest.ImageSpec{Index: true})
	if _, stderr := o.run(3, "prefetch", "multi:1", "--platform", "linux/riscv64"); !strings.Contains(stderr, "it has no platform linux/riscv64, but linux/amd64") {
		t.Errorf("no such platform: %s", stderr)
	}
	bad := write(t, "bad.txt", "alpine:1\n\nnowhere.example.com/x\nno good\n")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"prefetch"}, "no image is named"},
		{[]string{"prefetch", "-f", bad}, bad + `:3: registry "nowhere.example.com" is not configured here`},
		{[]string{"prefetch", "-f", bad}, bad + ":4: "},
		{[]string{"prefetch", "-f", "/none"}, "no such file"},
		{[]string{"prefetch", "alpine", "--platform", "amd65"}, "is not a platform"},
		{[]string{"prefetch", "alpine", "--format", "xml"}, "is no format"},
		{[]string{"prefetch", "alpine", "--set", "base"}, "--set is run by the server"},
		{[]string{"prefetch", "alpine", "--at-once", "99"}, "use 1 to 16"},
		{[]string{"prefetch", "--from-usage", "soon"}, "is no length of time"},
	} {
		if _, stderr := o.run(2, tt.args...); !strings.Contains(stderr, tt.want) {
			t.Errorf("forebay %v: %s, want %q", tt.args, stderr, tt.want)
		}
	}
	if _, stderr := o.run(1, "prefetch", "--set", "none"); !strings.Contains(stderr, `no prefetch set "none"`) {
		t.Errorf("no such set: %s", stderr)
	}
}

func TestPrefetchIntoAFolder(t *testing.T) {
	o := newOperated(t, "")
	image := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	o.pull("library/alpine", "1")
	config := write(t, "direct.yaml", fmt.Sprintf("upstreams: {docker.io: {endpoints: [%q]}}\n", o.hub.RegistryURL()))
	if code, _, stderr := execute(t, nil, "prefetch", "alpine:1", "--config", config, "--storage-dir", o.dir); code != 1 || !strings.Contains(stderr, "Another forebay uses the folder") {
		t.Errorf("into the folder of a running server: %d, %s", code, stderr)
	}
	dir := filepath.Join(t.TempDir(), "disk")
	for _, want := range []string{"fetched", "kept"} {
		code, stdout, stderr := execute(t, o.asked(), "prefetch", "--from-usage", "30d", "--config", config, "--storage-dir", dir)
		if code != 0 || !strings.Contains(stdout, "docker.io/library/alpine:1") || !strings.Contains(stdout, want) {
			t.Errorf("into a folder = %d, want 0 and %q\n%s%s", code, want, stdout, stderr)
		}
	}
	o.hub.SwitchOff()
	other := start(t, fmt.Sprintf("storage: {dir: %q}\noffline: true\n", dir))
	carried := &operated{started: other, t: t, hub: o.hub, dir: dir}
	carried.pull("library/alpine", "1", image.Blobs()...)
}

func TestLockFilesFixWhatTagsMean(t *testing.T) {
	o := newOperated(t, "")
	first := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{Index: true})
	o.hub.PushImage("library/busybox", "2", hubtest.ImageSpec{Seed: 5})
	dir := t.TempDir()
	lock := filepath.Join(dir, "images.lock")
	o.shows("lock alpine:1 busybox:2 -o "+lock, "locked 2 images, 0 pulls spent")
	if n := o.charged(); n != 0 {
		t.Errorf("lock cost %d pulls", n)
	}
	text, err := os.ReadFile(lock)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := o.run(0, "lock", "busybox:2", "alpine:1"); again != string(text) {
		t.Errorf("two locks differ:\n%s\n%s", text, again)
	}
	if !strings.Contains(string(text), first.Digest) || strings.Contains(string(text), "platforms") {
		t.Errorf("lock file: %s", text)
	}
	if full, _ := o.run(0, "lock", "alpine:1", "--children"); !strings.Contains(full, first.Children[0].Digest) || o.charged() != 1 {
		t.Errorf("with children, after %d pulls: %s", o.charged(), full)
	}
	o.run(0, "lock", "--check", "-f", lock)

	moved := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{Seed: 9})
	out, stderr := o.run(5, "lock", "--check", "-f", lock)
	if !strings.Contains(out, "docker.io/library/alpine:1") || !strings.Contains(out, moved.Digest[:19]) || strings.Contains(out, "busybox") || !strings.Contains(stderr, "1 tag has moved") {
		t.Errorf("check: %s%s", out, stderr)
	}
	o.shows("prefetch -f "+lock+" --platform linux/amd64", "the tag has moved to "+moved.Digest[:19])
	o.hub.SwitchOff()
	o.pull("library/alpine", first.Digest)
	o.pull("library/busybox", "2")
	if _, stderr := o.run(2, "lock", "--check", "alpine:1"); !strings.Contains(stderr, "has no digest to compare with") {
		t.Errorf("check of what is not locked: %s", stderr)
	}
	if _, stderr := o.run(1, "lock", "nothing:1", "-o", filepath.Join(dir, "never")); !strings.Contains(stderr, "nothing is written") {
		t.Errorf("lock of what is not there: %s", stderr)
	}
}

func TestWantedListClosesTheLoop(t *testing.T) {
	o := newOperated(t, "offline: true\n")
	whole := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	for range 3 {
		status, body := get(t, o.registry+"/v2/library/alpine/manifests/1")
		if status != 404 || !strings.Contains(body, "this mirror is offline and does not have it") {
			t.Fatalf("offline: %d %s", status, body)
		}
	}
	get(t, o.registry+"/v2/library/alpine/blobs/"+whole.Blobs()[0].Digest)
	plain, _ := o.run(0, "wanted")
	if !strings.Contains(plain, "docker.io/library/alpine:1  # 3 times, last ") || !strings.Contains(plain, "# blob: docker.io/library/alpine@"+whole.Blobs()[0].Digest) {
		t.Errorf("wanted:\n%s", plain)
	}
	asJSON, _ := o.run(0, "wanted", "--json")
	if n := o.hub.Requests(); n != 0 {
		t.Fatalf("offline, and %d requests", n)
	}

	connected := newOperated(t, "")
	connected.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	connected.shows("prefetch --platform linux/amd64 -f "+write(t, "wanted.txt", plain), "docker.io/library/alpine:1", "fetched")
	connected.shows("prefetch --platform linux/amd64 -f "+write(t, "wanted.json", asJSON), "docker.io/library/alpine:1", "kept")
	connected.hub.SwitchOff()
	connected.pull("library/alpine", "1", whole.Blobs()...)

	o.run(0, "wanted", "--clear")
	if _, stderr := o.run(0, "wanted"); !strings.Contains(stderr, "Nothing is wanted") {
		t.Errorf("after a clear: %s", stderr)
	}
}

func TestPrefetchSetsOfTheConfiguration(t *testing.T) {
	o := newOperated(t, `negative_ttl: 0
prefetch:
  - name: base
    images: [alpine:1, busybox:2]
    platforms: [linux/amd64]
    schedule: "0 3 * * *"
    time_zone: Europe/Berlin
    pin: true
`)
	one := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	o.hub.PushImage("library/busybox", "1", hubtest.ImageSpec{})
	if _, stderr := o.run(3, "prefetch", "--set", "base"); !strings.Contains(stderr, "docker.io/library/busybox:2: ") {
		t.Errorf("a set that is not all there: %s", stderr)
	}
	o.hub.PushImage("library/busybox", "2", hubtest.ImageSpec{Seed: 5})
	o.shows("prefetch --set base", "set base: done")
	o.shows("pins", "docker.io/library/alpine:1", "docker.io/library/busybox:2", "linux/amd64")
	_, body := o.asks("/api/v1/prefetch")
	var sets admin.PrefetchSets
	if err := json.Unmarshal([]byte(body), &sets); err != nil {
		t.Fatal(err)
	}
	if len(sets.Sets) != 1 || sets.Sets[0].Last == nil || sets.Sets[0].Last.Outcome != "done" || sets.Sets[0].Next.IsZero() || len(sets.Sets[0].Runs) < 2 {
		t.Errorf("sets: %s", body)
	}
	o.hub.SwitchOff()
	o.pull("library/alpine", "1", one.Blobs()...)
}
