package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"forebay/cache/disk"
	"forebay/test/cachetest"
)

func TestIndexMovesWithItsSetting(t *testing.T) {
	dir, fast := t.TempDir(), filepath.Join(t.TempDir(), "fast")
	r := cachetest.NewRegistry()
	var all []cachetest.Built
	for i, indexDir := range []string{"", fast, fast, "", fast} {
		s := open(t, Options{Dir: dir, IndexDir: indexDir})
		tag := string(rune('a' + i))
		img := r.Image(t, hub.Name, tag, "layer "+tag)
		all = append(all, img)
		putImage(t, s, r, tag, img)
		<-s.Room.Loaded()
		checkCounts(t, s)
		wantImage(t, s, "a", all[0])
		home, other := dir, fast
		if indexDir != "" {
			home, other = fast, dir
		}
		if _, err := os.Stat(filepath.Join(home, indexDirName, "MANIFEST")); err != nil {
			t.Errorf("start %d: no index where it belongs: %v", i, err)
		}
		if _, err := os.Stat(filepath.Join(other, indexDirName)); err == nil {
			t.Errorf("start %d: an index is left at its former place", i)
		}
		shut(t, s)
	}
	s := open(t, Options{Dir: dir, IndexDir: fast})
	for i, img := range all {
		wantImage(t, s, string(rune('a'+i)), img)
	}
}

// Two mirrors with one folder for their indexes would ruin both.
func TestIndexDirIsOfOneStore(t *testing.T) {
	fast := t.TempDir()
	s := open(t, Options{Dir: t.TempDir(), IndexDir: fast})
	other := Options{Dir: t.TempDir(), IndexDir: fast}
	if _, err := Open(other); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("Open with the index_dir of another = %v, want ErrLocked", err)
	}
	if _, err := RebuildIndex(t.Context(), other, nil); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("RebuildIndex with the index_dir of another = %v, want ErrLocked", err)
	}
	shut(t, s)
	shut(t, open(t, other))
	dir := t.TempDir()
	shut(t, open(t, Options{Dir: dir, IndexDir: dir}))
}
