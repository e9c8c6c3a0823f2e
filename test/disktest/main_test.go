package disktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// stageEnv says that the process is in its own mount namespace.
	stageEnv = "DISKTEST_INSIDE"
	// jobEnv makes the test binary do one of the jobs in place of tests.
	jobEnv = "DISKTEST_JOB"
)

// jobs are what a child process may do. It returns its exit status.
var jobs = map[string]func() int{
	"work":   workUntilKilled,
	"moment": pullUntilKilled,
	"crowd":  serveWithFewFiles,
	"fill":   fillTheDisk,
	"bad":    readBadDisk,
	"large":  measureLarge,
	"index":  changeIndex,
}

func TestMain(m *testing.M) {
	if job := os.Getenv(jobEnv); job != "" {
		os.Exit(jobs[job]())
	}
	if err := takeSample(); err != nil {
		fmt.Fprintln(os.Stderr, "disktest:", err)
		os.Exit(1)
	}
	if os.Getenv(stageEnv) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	status, err := runInside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "disktest:", err)
		status = 1
	}
	os.Exit(status)
}

// runInside runs the tests in a mount namespace, so that no mount outlives them.
func runInside() (int, error) {
	var args []string
	for _, a := range os.Args[1:] {
		if !strings.HasPrefix(strings.TrimLeft(a, "-"), "test.testlogfile") { // the outer process writes it
			args = append(args, a)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// child returns the test binary as a process that does a job.
func child(job string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), jobEnv+"="+job), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// needRoot fails the test for who cannot mount.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts file systems: run it as root")
	}
}

// run runs a program of Debian's e2fsprogs or util-linux.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if err := try(name, args...); err != nil {
		t.Fatal(err)
	}
}

func try(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install it: apt-get install e2fsprogs mount", err)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// smallDisk mounts a file system of a kind with so many MiB.
func smallDisk(t *testing.T, kind string, mib int64) string {
	t.Helper()
	if kind == "tmpfs" {
		return tmpfs(t, mib)
	}
	return mountImage(t, ext4(t, mib))
}

// ext4 makes a file with an ext4 file system of so many MiB and returns its name.
func ext4(t *testing.T, mib int64) string {
	t.Helper()
	needRoot(t)
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, mib<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
	return image
}

// mountImage mounts a file system in a file, to be unmounted at the end of the test.
func mountImage(t *testing.T, image string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", "-o", "loop,noatime", image, dir)
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// tmpfs mounts a file system in memory of so many MiB.
func tmpfs(t *testing.T, mib int64) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}
