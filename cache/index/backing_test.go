package index

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// blocksOf returns the size of a file and what it has of the disk.
func blocksOf(t *testing.T, name string) (size, given int64) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Size, st.Blocks * 512
}

func matches(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return names
}

// TestNoFileIsMappedWithoutBlocks would fail if the database mapped its files in a way that
// the backing does not see.
func TestNoFileIsMappedWithoutBlocks(t *testing.T) {
	dir := t.TempDir()
	ix, err := Open(Options{Dir: filepath.Join(dir, "index"), Journal: filepath.Join(dir, "refs.journal")})
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	begun := map[string]bool{}
	for n := 0; len(begun) < 2; n += 500 { // so that a table is written
		err := ix.Update(func(b *Batch) error {
			for i := range 500 {
				if err := b.PutLink(Repo{Upstream: "docker.io", Name: "a"}, Blob, digest(strconv.Itoa(n+i)), Link{MediaType: "m/t", At: at(1)}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		name, used, given := ix.backing.Log()
		begun[name] = true
		if used > given {
			t.Fatalf("%d bytes of a log may be written, and %d are given", used, given)
		}
	}
	name, used, given := ix.backing.Log()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if n := int64(len(bytes.TrimRight(text, "\x00"))); n > used || n < used/2 {
		t.Errorf("%d bytes of the log are written, %d were counted and %d given", n, used, given)
	}
	for pattern, least := range map[string]int64{"*.mem": 256 << 10, "*.vlog": 64 << 10, "DISCARD": 64 << 10, "spare-log": 256 << 10, "spare-page": 64 << 10} {
		for _, name := range matches(t, ix.dir, pattern) {
			if _, given := blocksOf(t, name); given < least {
				t.Errorf("%s has %d bytes of the disk, want %d", name, given, least)
			}
		}
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range matches(t, ix.dir, "*.sst") {
		if size, given := blocksOf(t, name); given < size {
			t.Errorf("%s has %d bytes of the disk, want %d", name, given, size)
		}
	}
}
