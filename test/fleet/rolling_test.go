//go:build linux

package fleet

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// older returns a program of another version of what mirrors ask each other, which is FOREBAY_FLEET_OLD if that is
// set: one of an earlier release.
func (w *world) older() string {
	w.t.Helper()
	if old := os.Getenv("FOREBAY_FLEET_OLD"); old != "" {
		return old
	}
	source, err := filepath.Abs("../../internal/fleet/members.go")
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		w.t.Fatal(err)
	}
	changed := bytes.Replace(text, []byte("protocol = 1\n"), []byte("protocol = 0\n"), 1)
	if bytes.Equal(text, changed) {
		w.t.Fatalf("%s does not give the version of the protocol", source)
	}
	dir := w.t.TempDir()
	other, overlay, old := filepath.Join(dir, "members.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "older")
	replaced, err := json.Marshal(map[string]any{"Replace": map[string]string{source: other}})
	if err != nil {
		w.t.Fatal(err)
	}
	for name, text := range map[string][]byte{other: changed, overlay: replaced} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", old, "forebay/cmd/forebay").CombinedOutput(); err != nil {
		w.t.Fatalf("build: %v\n%s", err, out)
	}
	return old
}

// exchange ends a mirror with its leave, and starts it as another program.
func (w *world) exchange(m *mirror, program string) {
	w.t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	if err := m.cmd.Wait(); err != nil {
		w.t.Errorf("%s ended: %v", m.url, err)
	}
	w.program = program
	w.start(m)
}

// Three mirrors of an older version are exchanged for newer ones, one after the other, behind HAProxy, while clients
// pull what is new and what is not: no pull fails. Versions that do not understand each other share nothing
// meanwhile, so that each has a copy of what is new.
func TestRollingExchangeUnderLoad(t *testing.T) {
	w := newWorld(t)
	newer, older := w.program, w.older()
	for _, m := range w.mirrors {
		w.exchange(m, older)
	}
	w.gather()
	b := w.balance()
	const size = 1<<20 + 3
	type content struct{ tag, digest string }
	var mu sync.Mutex
	var all []content
	pick := func(chance *rand.Rand) content {
		mu.Lock()
		defer mu.Unlock()
		if len(all) == 0 || chance.IntN(4) == 0 {
			tag, digest := w.layer(size, uint64(5000+len(all)))
			all = append(all, content{tag, digest})
		}
		return all[chance.IntN(len(all))]
	}
	var clients sync.WaitGroup
	var pulls, come atomic.Int64
	end := make(chan struct{})
	for i := range 6 {
		clients.Go(func() {
			chance := rand.New(rand.NewPCG(12, uint64(i)))
			for {
				select {
				case <-end:
					return
				default:
				}
				one := pick(chance)
				w.touch(b, one.tag)
				w.pull(b, one.digest, &come)
				pulls.Add(1)
			}
		})
	}
	more := func() {
		before := pulls.Load()
		w.await("more pulls", func() bool { return pulls.Load() >= before+50 })
	}
	more()
	for _, m := range w.mirrors {
		w.exchange(m, newer)
		more()
	}
	w.gather()
	more()
	close(end)
	clients.Wait()
	times := 0.0
	for _, one := range all {
		times += float64(w.hub.BlobBytes(one.digest)) / size / float64(len(all))
	}
	t.Logf("%d pulls of %d blobs, %.2f copies of each from the registry", pulls.Load(), len(all), times)
	if times > 3 {
		t.Errorf("the registry sent %.2f copies of each blob, want one for each mirror at most", times)
	}
}
