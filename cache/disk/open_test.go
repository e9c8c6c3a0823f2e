package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Where the kernel does not offer openat2, the stepwise way must refuse the same.
func TestStepwiseOpenRefusesLinks(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"in": "file", "out": "/etc/passwd", "dead": "nowhere", "dir": "blobs"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, open := range []func(string, int) (*os.File, os.FileInfo, error){s.openRegular, s.openStepwise} {
		for _, name := range []string{"in", "out", "dead", "dir", "blobs"} {
			f, _, err := open(name, os.O_RDONLY)
			if !errors.Is(err, ErrForeign) {
				t.Errorf("open %q: %v, want %v", name, err, ErrForeign)
			}
			if err == nil {
				_ = f.Close()
			}
		}
		f, info, err := open("file", os.O_RDONLY)
		if err != nil {
			t.Fatalf("open of a file: %v", err)
		}
		if info.Size() != 1 {
			t.Errorf("file has %d bytes, want 1", info.Size())
		}
		_ = f.Close()
		if _, _, err := open("nothing", os.O_RDONLY); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("open of nothing: %v, want not exist", err)
		}
	}
}
