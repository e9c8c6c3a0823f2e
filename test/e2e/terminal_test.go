package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal returns the two ends of one.
func terminal(t testing.TB) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	n, err := unix.IoctlGetUint32(int(ours.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// On a terminal a purge waits, and Ctrl-C takes it back: it says so, and everything is there.
func TestPurgeIsTakenBackByCtrlC(t *testing.T) {
	w := newWorld(t, worldOptions{})
	pull(t, openSkopeo(t, w.mirror.addr), plainDocker+":"+catalogueTag, w.images[plainDocker])
	before := must(t, "inspect", plainDocker+":"+catalogueTag, "--config", w.mirror.file)
	ours, theirs := terminal(t)
	cmd := exec.Command(forebay(), "purge", plainDocker+":"+catalogueTag, "--config", w.mirror.file)
	cmd.Stderr = theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	lines := bufio.NewScanner(ours)
	if !lines.Scan() || !strings.Contains(lines.Text(), "in 10 s. Ctrl-C takes it back.") {
		t.Errorf("the command says %q", lines.Text())
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var said string
	for lines.Scan() { // until its end is closed
		said += lines.Text() + "\n"
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(said, "taken back: nothing was purged") {
		t.Errorf("after Ctrl-C: %v, %q", err, said)
	}
	if after := must(t, "inspect", plainDocker+":"+catalogueTag, "--config", w.mirror.file); after != before {
		t.Errorf("before\n%safter\n%s", before, after)
	}
	w.assertClean(t)
}
