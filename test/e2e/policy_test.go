package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// A moved tag reaches no client before its time, under a freeze, nor in the past, and none of them
// asks the hub for it: what must not answer is replaced, so that nobody falls back.
func TestMovedTagReachesNoClient(t *testing.T) {
	frozenAddr := freeAddr(t)
	w := newWorld(t, worldOptions{mirror: mirrorOptions{tagTTL: time.Second, more: fmt.Sprintf(`policies:
- {name: aged, match: ["docker.io/*"], age: 7d}
listeners:
- {address: %q, as_of: before}
`, frozenAddr)}})
	moved, err := movedImage()
	if err != nil {
		t.Fatal(err)
	}
	before, name := w.images[movingOCI], movingOCI+":moving"
	w.registry.push(t, movingOCI, before, "moving")
	for _, c := range clients() {
		pull(t, c.open(t, w.mirror.addr), name, before)
	}
	operate := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), forebay(), append(args, "--config", w.mirror.file)...).CombinedOutput()
		if err != nil {
			t.Fatalf("forebay %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	operate("snapshot", "create", "before")
	w.registry.push(t, movingOCI, moved, "moving")
	waits := func() bool { return strings.Contains(operate("tag", "waiting"), movingOCI+":moving") }
	for _, c := range clients() {
		pull(t, c.open(t, w.mirror.addr), name, before)
	}
	deadline := time.Now().Add(pullWithin)
	for !waits() {
		if time.Now().After(deadline) {
			t.Fatal("the moved tag does not wait")
		}
		pull(t, clients()[0].open(t, w.mirror.addr), name, before)
	}
	for _, c := range clients() {
		pull(t, c.open(t, w.mirror.addr), name, before)
	}
	if n := w.hub.ManifestGets(moved.digest.String()); n != 0 {
		t.Errorf("hub sent what waits %d times, want never", n)
	}
	operate("freeze", movingOCI)
	for _, c := range clients() {
		pull(t, c.open(t, w.mirror.addr), name, before)
	}
	operate("tag", "promote", name, "--reason", "a test")
	for _, c := range clients() {
		pull(t, c.open(t, w.mirror.addr), name, moved)
	}
	w.hub.SwitchOff() // what a snapshot names is asked of nobody
	for _, c := range clients() {
		pull(t, c.open(t, frozenAddr), name, before)
	}
	w.assertFetchedOnce(t)
}

// At first sight a tag is as old as Docker Hub says, whatever its image says of itself; where Docker Hub says
// nothing, what the image says counts. No pull is counted for what waits.
func TestFirstSightGoesByWhatDockerHubSays(t *testing.T) {
	const long = 40 * 24 * time.Hour
	hub := hubtest.New(t, hubtest.Options{Named: true, Anonymous: hubtest.Unlimited(), Now: func() time.Time { return time.Now().Add(-long) }})
	openFront(t, hub)
	t.Setenv("SSL_CERT_FILE", writeFile(t, stateDir(t), "ca.pem", string(hub.CAPEM())))
	old := hub.PushImage("acme/old", "1", hubtest.ImageSpec{})
	hub.Advance(long)
	young := hub.PushImage("acme/young", "1", hubtest.ImageSpec{})
	first := func() *craneStore {
		m := startMirror(t, mirrorOptions{endpoint: "https://registry-1.docker.io", more: "policies: [{name: cooling, age: 7d, first_sight: created}]\n"})
		return openCrane(t, m.addr).(*craneStore)
	}
	s := first()
	if got, err := s.crane(t.Context(), "digest", s.ref("acme/old:1")); err != nil || strings.TrimSpace(got) != old.Digest {
		t.Errorf("what Docker Hub has for long = %s, %v; want %s", got, err, old.Digest)
	}
	if _, err := s.crane(t.Context(), "manifest", s.ref("acme/young:1")); err == nil || !strings.Contains(err.Error(), "its registry has it there for") {
		t.Errorf("what Docker Hub got just now: %v, want that it waits", err)
	}
	if n := hub.ManifestGets(young.Digest); n != 0 {
		t.Errorf("Docker Hub sent what waits %d times, want never", n)
	}
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleHubAPI, Do: hubtest.Status(http.StatusInternalServerError)})
	s = first() // without the API the image is believed: it says that it was made years ago
	if got, err := s.crane(t.Context(), "digest", s.ref("acme/young:1")); err != nil || strings.TrimSpace(got) != young.Digest {
		t.Errorf("without Docker Hub's word = %s, %v; want %s", got, err, young.Digest)
	}
	hub.AssertClean(t)
}
