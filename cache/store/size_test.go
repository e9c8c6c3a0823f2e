package store

import (
	"path/filepath"
	"testing"
)

func TestAutoSizesLeaveRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	total, err := fileSystemSize(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := AutoMaxBytes(dir); err != nil || got <= 0 || got > 100<<30 || got > total*8/10 {
		t.Errorf("AutoMaxBytes of a file system of %d bytes = %d, %v, want at most 100 GiB and 80 %%", total, got, err)
	}
	if got, err := AutoMinFree(dir); err != nil || got < total/20 {
		t.Errorf("AutoMinFree of a file system of %d bytes = %d, %v, want at least 5 %%", total, got, err)
	}
}
