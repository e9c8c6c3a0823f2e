package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/test/hubtest"
)

// A bundle carries what answers where it is made, which is what was decided there, with since when; whoever takes
// it in goes by those times, and by rules and decisions of its own. Times that nobody signed are not believed.
func TestAnImportIsJudgedByTheRulesOfItsSide(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/key").CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s (install openssh-client)", err, out)
	}
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
	images := map[string]*hubtest.Image{}
	c, err := cache.Open(cache.Options{Store: store.Options{Dir: dir + "/here"}, Upstreams: map[string]cache.UpstreamOptions{}})
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-10 * 24 * time.Hour).Truncate(time.Second)
	for i, name := range []string{"old", "denied", "moved", "promoted", "young"} {
		img := hub.PushImage("library/"+name, "1", hubtest.ImageSpec{Seed: uint64(i + 1)})
		images[name] = img
		if name == "young" {
			continue
		}
		d, err := v1.NewHash(img.Digest)
		if err != nil {
			t.Fatal(err)
		}
		// As this mirror had seen it for ten days.
		if err := c.BindAt(cache.Repo{Upstream: "docker.io", Name: img.Repo}, "1", v1.Descriptor{MediaType: types.MediaType(img.MediaType), Digest: d, Size: int64(len(img.Raw))}, time.Now(), long); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	here := &operated{t: t, hub: hub, dir: dir + "/here", started: start(t, fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q], tag_ttl: 0s}}\npolicies: [{name: cooling, age: 7d}]\n", dir+"/here", hub.RegistryURL()))}
	refs := []string{"old:1", "denied:1", "moved:1", "promoted:1", "young:1"}
	for name, img := range images {
		here.pull("library/"+name, "1", img.Blobs()...)
	}
	next := map[string]*hubtest.Image{}
	for i, name := range []string{"moved", "promoted"} {
		next[name] = hub.PushImage("library/"+name, "1", hubtest.ImageSpec{Seed: uint64(20 + i)})
		here.pull("library/"+name, "1")
	}
	here.run(0, "tag", "promote", "promoted:1", "--reason", "CVE-2026-3")
	here.pull("library/promoted", "1", next["promoted"].Blobs()...)
	here.run(0, append([]string{"export", "-o", dir + "/signed.tar", "--sign", dir + "/key"}, refs...)...)
	here.run(0, append([]string{"export", "-o", dir + "/plain.tar"}, refs...)...)
	here.run(0, append([]string{"lock", "-o", dir + "/lock"}, refs...)...)
	here.run(0, "export", "-o", dir+"/locked.tar", "--sign", dir+"/key", "-f", dir+"/lock")

	want := map[string]string{}
	for name, img := range images {
		want[name] = img.Digest
	}
	want["promoted"] = next["promoted"].Digest
	for file, signed := range map[string]bool{"signed.tar": true, "plain.tar": false, "locked.tar": true} {
		for _, img := range manifestOf(t, dir+"/"+file).Images {
			name := strings.TrimSuffix(strings.TrimPrefix(img.Name, "docker.io/library/"), ":1")
			lately := name == "promoted" || name == "young"
			switch age := time.Since(img.Since); {
			case img.Digest.String() != want[name]:
				t.Errorf("%s has %s of %s, want what answered: %s", file, img.Digest, name, want[name])
			case (img.Decided != nil) != (signed && name == "promoted") || img.Decided != nil && (img.Decided.Reason != "CVE-2026-3" || img.Decided.By == "" || time.Since(img.Decided.At) > time.Hour):
				t.Errorf("%s says of %s that it was decided so: %v", file, name, img.Decided)
			case !signed && !img.Since.IsZero():
				t.Errorf("%s says of %s that it is so since %s, and nobody signed that", file, name, img.Since)
			case signed && (lately && age > time.Hour || !lately && !img.Since.Equal(long)):
				t.Errorf("%s says of %s that it is so since %s", file, name, img.Since)
			}
		}
	}
	var told string
	there := func(folder, file string, more ...string) *operated {
		o := &operated{t: t, dir: dir + "/" + folder}
		yaml := offlineYAML(o.dir) + "policies: [{name: ours, age: 7d, first_sight: hold}, {name: listed, deny: [docker.io/library/denied]}]\n"
		o.started = start(t, yaml)
		_, told = o.run(0, append([]string{"import", dir + "/" + file}, more...)...)
		o.stop()
		o.started = start(t, yaml) // what it knows is on its disk
		return o
	}
	refused := func(o *operated, name, rule string) {
		t.Helper()
		if _, body := get(t, o.registry+"/v2/library/"+name+"/manifests/1"); !strings.Contains(body, "DENIED") || !strings.Contains(body, "policy "+rule+": ") {
			t.Errorf("%s there = %s, want that rule %s refuses it", name, body, rule)
		}
	}
	const elsewhere = "promoted elsewhere by admin_token on 2"
	o := there("locked", "locked.tar", "--verify", dir+"/key.pub")
	o.holds("library/moved", "1", images["moved"])
	refused(o, "young", "ours")
	refused(o, "promoted", "ours")
	o.stop()
	o = there("signed", "signed.tar", "--verify", dir+"/key.pub")
	if !strings.Contains(told, "promoted:1 was "+elsewhere) || strings.Count(told, elsewhere) != 1 {
		t.Errorf("the import does not say what was decided on the other side:\n%s", told)
	}
	o.holds("library/old", "1", images["old"])
	o.holds("library/moved", "1", images["moved"])
	refused(o, "denied", "listed")
	refused(o, "young", "ours")
	refused(o, "promoted", "ours") // which was decided elsewhere
	if out, _ := o.run(0, "tag", "waiting"); !strings.Contains(out, "promoted:1") || !strings.Contains(out, "young:1") || strings.Contains(out, "moved:1") {
		t.Errorf("what waits there:\n%s", out)
	}
	for _, args := range [][]string{{"tag", "waiting"}, {"policy", "test", "promoted:1"}} {
		if out, _ := o.run(0, args...); !strings.Contains(out, elsewhere) || !strings.Contains(out, ": CVE-2026-3") {
			t.Errorf("%v does not say what was decided on the other side:\n%s", args, out)
		}
	}
	o.run(0, "tag", "promote", "promoted:1", "--reason", "and here")
	o.holds("library/promoted", "1", next["promoted"])
	if out, _ := o.run(0, "policy", "test", "promoted:1"); !strings.Contains(out, ": and here") || strings.Contains(out, elsewhere) {
		t.Errorf("policy test does not say what was decided here:\n%s", out)
	}
	o.stop()
	there("unverified", "signed.tar").stop()
	if strings.Contains(told, elsewhere) {
		t.Errorf("the import tells what nobody has verified:\n%s", told)
	}
	o = there("plain", "plain.tar")
	for _, name := range []string{"old", "moved", "promoted", "young"} {
		refused(o, name, "ours")
	}
}
