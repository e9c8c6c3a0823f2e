package cache

import (
	"os"
	"path/filepath"
	"testing"
)

// A disk that refuses the list once does not lose what is wanted.
func TestWantedListIsWrittenOnceTheDiskTakesIt(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "later")
	w := &wantedList{file: filepath.Join(folder, wantedName), list: map[string]*Wanted{"x": {Ref: "x"}}, dirty: true}
	if err := w.write(); err == nil {
		t.Fatal("a list was written into a folder that is not there")
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := w.write(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(w.file); err != nil || len(text) == 0 {
		t.Errorf("list holds %q, %v, want what was refused before", text, err)
	}
}
