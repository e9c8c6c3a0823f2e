package store

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
)

// The root of an ext4 volume has a lost+found that only root can read, and a mirror need not be root.
func TestWhatCannotBeReadIsToldOnceAndTheRestCounts(t *testing.T) {
	dir := t.TempDir()
	lost, parked := filepath.Join(dir, "lost+found"), filepath.Join(dir, "zz", "parked")
	for _, folder := range []string{lost, filepath.Dir(parked)} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(parked, []byte(strings.Repeat("x", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	core, logged := observer.New(zap.WarnLevel)
	s := open(t, Options{Dir: dir, MaxBytes: 1 << 30, Log: zap.New(core)})
	<-s.Room.Loaded()
	if err := os.Chmod(lost, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(lost, 0o700)
	asNobody(t, func() {
		for range 3 {
			s.Room.keepAhead()
		}
	})
	told := logged.FilterMessage("part of the storage folder not measured").All()
	if len(told) != 1 || !strings.Contains(told[0].ContextMap()["error"].(string), "lost+found: permission denied") {
		t.Errorf("told %v, want once, with the folder", told)
	}
	if got := s.Room.other.Load(); got < 1<<20 {
		t.Errorf("%d bytes count beside the blobs, want at least those of the file behind what cannot be read", got)
	}
}

// asNobody runs fn with the rights to files of a user who is not root. They are those of a thread.
func asNobody(t *testing.T, fn func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		fn()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const nobody = 65534
	if err := unix.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setfsuid(0) }()
	fn()
}
