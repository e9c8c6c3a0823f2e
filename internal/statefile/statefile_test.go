package statefile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "state.json")
	got := []string{"as it was"}
	if err := Read(name, 100, &got); err != nil || len(got) != 1 {
		t.Errorf("Read of no file = %q, %v, want it untouched", got, err)
	}
	// What a kill left is in nobody's way.
	if err := os.WriteFile(name+".tmp", []byte(`["half of so`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if err := Read(name, 100, &got); err != nil || strings.Join(got, " ") != "a b" {
		t.Errorf("Read = %q, %v, want a b", got, err)
	}
	if files, err := os.ReadDir(filepath.Dir(name)); err != nil || len(files) != 1 {
		t.Errorf("folder holds %v, %v, want the file alone", files, err)
	}
	if err := Read(name, 3, &got); err == nil {
		t.Error("a file that is too large was read")
	}
}

func TestFailedWriteKeepsWhatWasThere(t *testing.T) {
	name := filepath.Join(t.TempDir(), "state.json")
	if err := Write(name, 1); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, func() {}); err == nil {
		t.Error("a function was written")
	}
	var got int
	if err := Read(name, 100, &got); err != nil || got != 1 {
		t.Errorf("Read = %d, %v, want 1", got, err)
	}
	if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Read(name, 100, &got); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("Read of a damaged file = %v, want its name", err)
	}
}
