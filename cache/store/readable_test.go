package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStoreThatCannotBeReadIsFound(t *testing.T) {
	move := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	// Each ruins the folder and returns what makes it whole again, so that it can be closed.
	rows := map[string]func(t *testing.T, dir string) (mend func()){
		"gone": func(t *testing.T, dir string) func() {
			move(t, dir, dir+".gone")
			return func() { move(t, dir+".gone", dir) }
		},
		"replaced": func(t *testing.T, dir string) func() {
			move(t, dir, dir+".old")
			if err := os.MkdirAll(filepath.Join(dir, "blobs"), 0o755); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				move(t, dir+".old", dir)
			}
		},
		"blobs gone": func(t *testing.T, dir string) func() {
			move(t, filepath.Join(dir, "blobs"), dir+".blobs")
			return func() { move(t, dir+".blobs", filepath.Join(dir, "blobs")) }
		},
	}
	for name, ruin := range rows {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			c, err := Open(Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Readable(); err != nil {
				t.Fatalf("Readable = %v before", err)
			}
			mend := ruin(t, dir)
			if err := c.Readable(); err != nil {
				t.Fatalf("Readable = %v within the second, want what was found", err)
			}
			c.health.look.mu.Lock()
			c.health.look.at = c.health.look.at.Add(-readableFor)
			c.health.look.mu.Unlock()
			if err := c.Readable(); err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("Readable = %v, want an error about %q", err, dir)
			}
			mend()
			c.health.look.mu.Lock()
			c.health.look.at = time.Time{}
			c.health.look.mu.Unlock()
			if err := c.Readable(); err != nil {
				t.Errorf("Readable = %v of a folder that is back", err)
			}
			if err := c.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
			if err := c.Readable(); err == nil {
				t.Error("Readable = nil after Close")
			}
		})
	}
}
