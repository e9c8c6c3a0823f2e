package disktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"forebay/cache"
)

const (
	modeEnv  = "DISKTEST_MODE"
	imageEnv = "DISKTEST_IMAGE" // file below the loop device
	indexEnv = "DISKTEST_INDEX" // folder of the index, if it is not with the rest
)

// session is a cache on a disk that is about to fail, in a process of its own: what the
// disk does to mapped memory must not end it.
type session struct {
	w    *world
	c    *cache.Cache
	dir  string
	stop context.CancelFunc
	done chan error
}

func startSession(dir, indexDir string) (*session, error) {
	s := &session{w: newWorld(), dir: dir, done: make(chan error, 1)}
	o := s.w.options(filepath.Join(dir, "forebay"), false)
	o.Store.MaxBytes, o.Store.IndexDir = 0, indexDir
	var err error
	if s.c, err = cache.Open(o); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.done <- s.c.Run(ctx) }()
	<-s.c.Store().Room.Loaded()
	return s, nil
}

func (s *session) end() error {
	s.stop()
	return errors.Join(<-s.done, s.c.Close())
}

// serve pulls images, some that are kept and some that are new.
func (s *session) serve(from, to int) error {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	for n := from; n < to; n++ {
		name := fmt.Sprintf("new%d", n)
		i, _ := s.w.single("library/"+name, "1", "amd64", map[string]int{name: small, name + "large": large}, name, name+"large")
		for range 2 {
			if err := errors.Join(pullImage(ctx, s.c, i), pullImage(ctx, s.c, s.w.a)); err != nil {
				return err
			}
		}
	}
	return nil
}

// await waits until a condition holds.
func await(what string, fn func() bool) error {
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); {
		if fn() {
			return nil
		}
		<-time.After(50 * time.Millisecond)
	}
	return fmt.Errorf("waited in vain for %s", what)
}

const hogName = "hog"

// hog takes all space of a file system, and what becomes free, until it is stopped.
func hog(dir string) (stop func(), full <-chan struct{}) {
	name := filepath.Join(dir, hogName)
	var stopped atomic.Bool
	first := make(chan struct{})
	var once sync.Once
	var work sync.WaitGroup
	work.Go(func() {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			once.Do(func() { close(first) })
			return
		}
		defer f.Close()
		block := make([]byte, 1<<20)
		for !stopped.Load() {
			if _, err := f.Write(block); err == nil {
				continue
			}
			if len(block) > 4096 {
				block = block[:len(block)/2]
				continue
			}
			once.Do(func() { close(first) })
			<-time.After(5 * time.Millisecond)
		}
	})
	return func() { stopped.Store(true); work.Wait(); _ = os.Remove(name) }, first
}

// fillTheDisk is the child: it goes on serving while others fill the disk.
func fillTheDisk() int {
	if err := filled(os.Getenv(dirEnv), os.Getenv(indexEnv), os.Getenv(modeEnv)); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ok")
	return 0
}

// filled serves while the disk fails, or the disk of the index if that has one of its own.
//
//	full       it becomes full, and has room again in the end
//	die        it becomes full, and the process dies
//	found      it is full from the start on, and the process dies
//	relieved   it is full from the start on, and has room again in the end
//	abort      it becomes read-only
func filled(dir, indexDir, mode string) error {
	failing := dir
	if indexDir != "" {
		failing = indexDir
	}
	s, err := startSession(dir, indexDir)
	if err != nil {
		return err
	}
	relieve := func() { _ = os.Remove(filepath.Join(failing, hogName)) }
	if mode != "found" && mode != "relieved" {
		if err := s.serve(0, 3); err != nil {
			return fmt.Errorf("before: %w", err)
		}
		// What an operator did is on the disk when it is done, and all that was done before.
		if _, err := keeperOf(s.c).Pin(context.Background(), s.w.a.repoOf(), "1", v1.Hash{}, nil); err != nil {
			return err
		}
	}
	switch mode {
	case "full", "die":
		stop, full := hog(failing)
		<-full
		relieve = stop
	case "abort":
		if err := try("mount", "-o", "remount,abort", dir); err != nil {
			return err
		}
	}
	if err := s.serve(3, 60); err != nil {
		return fmt.Errorf("while it fails: %w", err)
	}
	if err := s.c.Store().Ailing(); err == nil {
		return errors.New("the cache says that all is well")
	}
	for _, t := range s.c.Store().Troubles() {
		fmt.Println("said:", t.What, t.Cause)
	}
	switch mode {
	case "die", "found":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "abort":
		s.stop() // it cannot be closed, since nothing can be written
		return nil
	}
	relieve()
	if err := await("the cache to heal", func() bool { return s.c.Store().Ailing() == nil }); err != nil {
		return fmt.Errorf("%w: %w", err, s.c.Store().Ailing())
	}
	if err := pullImage(context.Background(), s.c, s.w.late); err != nil {
		return err
	}
	return s.end()
}

func runChild(t *testing.T, job string, env ...string) string {
	t.Helper()
	out, err := child(job, env...).CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v: %.3000s", err, out)
	}
	return string(out)
}

// checkOffline looks whether what was pulled while all was well is served with no upstream.
func checkOffline(t *testing.T, dir string, images ...string) {
	t.Helper()
	w := newWorld()
	c, err := cache.Open(w.options(filepath.Join(dir, "forebay"), true))
	if err != nil {
		t.Fatalf("Open afterwards: %v", err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	<-c.Store().Room.Loaded()
	for _, i := range []image{w.a, w.late} {
		for _, name := range images {
			if i.repo == name {
				if err := pullImage(t.Context(), c, i); err != nil {
					t.Errorf("without the upstream: %v", err)
				}
			}
		}
	}
	checkCounters(t, "afterwards", filepath.Join(dir, "forebay"), c)
}

// smallDisks are real file systems that are soon full.
func smallDisks(t *testing.T, fn func(t *testing.T, dir string)) {
	t.Run("tmpfs", func(t *testing.T) { fn(t, tmpfs(t, 96)) })
	t.Run("ext4", func(t *testing.T) { fn(t, mountImage(t, ext4(t, 128))) })
	t.Run("larger ext4", func(t *testing.T) { fn(t, mountImage(t, ext4(t, 640))) })
}

func TestServesOnWhileTheDiskIsFull(t *testing.T) {
	smallDisks(t, func(t *testing.T, dir string) {
		out := runChild(t, "fill", dirEnv+"="+dir, modeEnv+"=full")
		mustSay(t, out, "writing to the store full", "writing to the index full", "ok")
		checkOffline(t, dir, "library/a", "library/l")
	})
}

func TestServesOnWhileTheDiskOfTheIndexIsFull(t *testing.T) {
	smallDisks(t, func(t *testing.T, fast string) {
		dir := t.TempDir()
		out := runChild(t, "fill", dirEnv+"="+dir, indexEnv+"="+fast, modeEnv+"=full")
		mustSay(t, out, "writing to the index full", "ok")
		runToDeath(t, dirEnv+"="+dir, indexEnv+"="+fast, modeEnv+"=die")
		runToDeath(t, dirEnv+"="+dir, indexEnv+"="+fast, modeEnv+"=found")
		out = runChild(t, "fill", dirEnv+"="+dir, indexEnv+"="+fast, modeEnv+"=relieved")
		mustSay(t, out, "writing to the index full", "ok")
	})
}

// TestStartsAgainAfterDeathOnFullDisk has processes die on a full disk, and others start
// there, which find it as full as it was left.
func TestStartsAgainAfterDeathOnFullDisk(t *testing.T) {
	smallDisks(t, func(t *testing.T, dir string) {
		out := runToDeath(t, dirEnv+"="+dir, modeEnv+"=die")
		for range 3 {
			out += runToDeath(t, dirEnv+"="+dir, modeEnv+"=found")
		}
		if n := strings.Count(out, "said: writing to the index full"); n != 4 {
			t.Errorf("%d of 4 processes said that their disk is full: %s", n, out)
		}
		out = runChild(t, "fill", dirEnv+"="+dir, modeEnv+"=relieved")
		mustSay(t, out, "writing to the store full", "writing to the index full", "ok")
		checkOffline(t, dir, "library/a", "library/l")
	})
}

// mustSay fails the test unless a child said all of it.
func mustSay(t *testing.T, out string, words ...string) {
	t.Helper()
	for _, want := range words {
		if !strings.Contains(out, want) {
			t.Errorf("child did not say %q: %s", want, out)
		}
	}
}

// runToDeath runs a child that serves on a full disk and is killed in the end.
func runToDeath(t *testing.T, env ...string) string {
	t.Helper()
	out, err := child("fill", env...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child: %v: %.3000s", err, out)
	}
	return string(out)
}

func TestServesOnWhenTheDiskBecomesReadOnly(t *testing.T) {
	image := ext4(t, 128)
	dir := mountImage(t, image)
	out := runChild(t, "fill", dirEnv+"="+dir, modeEnv+"=abort")
	mustSay(t, out, "writing to the store read-only", "ok")
	if err := try("umount", dir); err != nil {
		t.Fatal(err)
	}
	_ = try("fsck.ext4", "-y", image) // 1 is "errors were corrected"
	run(t, "mount", "-o", "loop,noatime", image, dir)
	checkOffline(t, dir, "library/a")
}

// readBadDisk is the child: the second half of its disk goes bad while it serves.
func readBadDisk() int {
	if err := bad(os.Getenv(dirEnv), os.Getenv(imageEnv), os.Getenv(modeEnv)); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ok")
	return 0
}

func bad(dir, image, indexDir string) error {
	s, err := startSession(dir, indexDir)
	if err != nil {
		return err
	}
	if err := os.Truncate(image, 6<<20); err != nil {
		return err
	}
	if err := s.serve(0, 5); err != nil {
		return fmt.Errorf("while it fails: %w", err)
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	for _, i := range append(s.w.bulk, s.w.multi, s.w.moved, s.w.half) {
		if err := pullImage(ctx, s.c, i); err != nil {
			return fmt.Errorf("while it fails: %w", err)
		}
	}
	for _, t := range s.c.Store().Troubles() {
		fmt.Println("said:", t.What, t.Cause, t.Why)
	}
	s.stop()
	return <-s.done
}

func TestServesOnWhenTheDiskGoesBad(t *testing.T) {
	image := ext4(t, 96)
	dir := mountImage(t, image)
	w := newWorld()
	fast := t.TempDir()
	o := w.options(filepath.Join(dir, "forebay"), false)
	o.Store.MaxBytes, o.Store.IndexDir = 0, fast
	c, err := cache.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range append(w.bulk, w.a, w.multi, w.moved, w.half) {
		if err := pullImage(t.Context(), c, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	// So that nothing is in the page cache.
	run(t, "umount", dir)
	run(t, "mount", "-o", "loop,noatime", image, dir)
	out := runChild(t, "bad", dirEnv+"="+dir, imageEnv+"="+image, modeEnv+"="+fast)
	if !strings.Contains(out, "said: reading from the store broken") || !strings.Contains(out, "ok") {
		t.Errorf("child did not say that the disk is broken: %s", out)
	}
}

// serveWithFewFiles is the child: it has no descriptors to spare.
func serveWithFewFiles() int {
	if err := crowded(os.Getenv(dirEnv)); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ok")
	return 0
}

func crowded(dir string) error {
	s, err := startSession(dir, "")
	if err != nil {
		return err
	}
	if err := s.serve(0, 2); err != nil {
		return err
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		return err
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	few := before
	few.Cur = uint64(len(open)) // one less is open now: the folder that was read
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		return err
	}
	var crowd sync.WaitGroup
	errs := make(chan error, 8)
	for n := range 8 {
		crowd.Go(func() { errs <- s.serve(10+10*n, 15+10*n) })
	}
	crowd.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return fmt.Errorf("without descriptors: %w", err)
		}
	}
	for _, t := range s.c.Store().Troubles() {
		fmt.Println("said:", t.What, t.Cause)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		return err
	}
	if err := s.serve(2, 3); err != nil {
		return err
	}
	if err := await("the cache to heal", func() bool { return s.c.Store().Ailing() == nil }); err != nil {
		return err
	}
	return s.end()
}

func TestServesOnWithoutDescriptors(t *testing.T) {
	dir := t.TempDir()
	out := runChild(t, "crowd", dirEnv+"="+dir)
	if !strings.Contains(out, "descriptors") || !strings.Contains(out, "ok") {
		t.Errorf("child did not say that it has no descriptors: %s", out)
	}
	checkOffline(t, dir, "library/a")
}
