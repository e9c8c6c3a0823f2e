package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
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
