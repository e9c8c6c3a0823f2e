package disktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

const (
	dirEnv = "DISKTEST_DIR"
	cutEnv = "DISKTEST_CUT" // before which step the child kills itself
)

// workUntilKilled is the child: it lives its life and says what it does, line by line.
func workUntilKilled() int {
	cut, err := strconv.ParseInt(os.Getenv(cutEnv), 10, 64)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var n atomic.Int64
	fault := func(step, name string) error {
		if n.Add(1)-1 == cut {
			fmt.Fprintf(os.Stderr, "%s of %s", step, name)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal may take a moment
		}
		return nil
	}
	if err := newWorld().life(os.Getenv(dirEnv), fault, func(s string) { fmt.Println(s) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestKilledAtAnyStepNothingIsLost(t *testing.T) {
	first, stride := strideOf(8)
	// In memory, where a sync costs nothing: what a kill leaves is the same.
	top := t.TempDir()
	if os.Geteuid() == 0 {
		top = tmpfs(t, 256)
	}
	w, points := newWorld(), 0
	for cut := first; ; cut += stride {
		dir, err := os.MkdirTemp(top, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.plantOrphan(dir); err != nil {
			t.Fatal(err)
		}
		cmd := child("work", dirEnv+"="+dir, fmt.Sprintf("%s=%d", cutEnv, cut))
		var where strings.Builder
		cmd.Stderr = &where
		out, err := cmd.Output()
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if err != nil && !killed {
			t.Fatalf("cut %d: child: %v: %s", cut, err, where.String())
		}
		words := said(strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' }))
		when := "complete"
		if killed {
			points++
			last := "nothing"
			if len(words) > 0 {
				last = words[len(words)-1]
			}
			when = fmt.Sprintf("cut %d after %q before %s", cut, last, strings.ReplaceAll(where.String(), dir, ""))
		}
		w.check(t, when, dir, words, words)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if !killed {
			break
		}
		if t.Failed() && points > 20 {
			t.Fatalf("gave up after %d points", points)
		}
	}
	t.Logf("%d points", points)
	if points < 20 {
		t.Errorf("the work took %d steps, want some hundreds: the seam misses some", points)
	}
}
