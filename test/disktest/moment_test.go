package disktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"forebay/cache"
)

// moment is what a kill may cost: what was given out so shortly before is fetched again.
const moment = 50 * time.Millisecond

// burst is many images of a small and a large layer, and a store for all of them.
func (w *world) burst() (all []image) {
	for n := range 120 {
		name := fmt.Sprintf("burst%d", n)
		i, _ := w.single("library/burst", name, "amd64", map[string]int{name: small, name + "large": large}, name, name+"large")
		all = append(all, i)
	}
	return all
}

func (w *world) roomy(dir string, offline bool) cache.Options {
	o := w.options(dir, offline)
	o.Store.MaxBytes = 1 << 30
	return o
}

// pullUntilKilled is the child: it pulls images, several at a time, says when it had each, and
// kills itself in the middle.
func pullUntilKilled() int {
	w := newWorld()
	all := w.burst()
	c, err := cache.Open(w.roomy(os.Getenv(dirEnv), false))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	start := time.Now()
	say := func(word string) { fmt.Println(time.Since(start).Microseconds(), word) }
	var pullers sync.WaitGroup
	next := make(chan image)
	for range 4 {
		pullers.Go(func() {
			for i := range next {
				if err := pullImage(context.Background(), c, i); err != nil {
					say("failed")
				}
				say(i.tag)
			}
		})
	}
	for _, i := range all[:len(all)-1] {
		next <- i
	}
	say("killed")
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal may take a moment
}

func TestKillCostsTheLastMoment(t *testing.T) {
	top := t.TempDir()
	if os.Geteuid() == 0 {
		top = tmpfs(t, 512)
	}
	w := newWorld()
	all := w.burst()
	cmd := child("moment", dirEnv+"="+top)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child: %v: %s", err, out)
	}
	when := map[string]time.Duration{}
	for line := range strings.Lines(string(out)) {
		var at int64
		var word string
		if _, err := fmt.Sscan(line, &at, &word); err != nil {
			t.Fatalf("child said %q: %v", line, err)
		}
		when[word] = time.Duration(at) * time.Microsecond
	}
	if _, failed := when["failed"]; failed {
		t.Fatalf("child: %s", out)
	}
	c, err := cache.Open(w.roomy(top, true))
	if err != nil {
		t.Fatal(err)
	}
	sure := 0
	for _, i := range all {
		at, had := when[i.tag]
		if !had || when["killed"]-at < moment {
			continue
		}
		sure++
		if err := pullImage(t.Context(), c, i); err != nil {
			t.Errorf("%s, which was given out %s before the kill: %v", i.tag, when["killed"]-at, err)
		}
	}
	if sure < len(all)/2 {
		t.Errorf("%d images were pulled in time, want most of %d", sure, len(all))
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
