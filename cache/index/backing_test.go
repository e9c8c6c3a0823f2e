package index

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"go.uber.org/zap"
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

// newestLog returns the log that is written, how much of it may be, and what it has.
func (b *backing) newestLog() (name string, used, given int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.newest.Name(), b.used, b.given
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
		name, used, given := ix.backing.newestLog()
		begun[name] = true
		if used > given {
			t.Fatalf("%d bytes of a log may be written, and %d are given", used, given)
		}
	}
	name, used, given := ix.backing.newestLog()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if n := int64(len(bytes.TrimRight(text, "\x00"))); n > used || n < used/2 {
		t.Errorf("%d bytes of the log are written, %d were counted and %d given", n, used, given)
	}
	for pattern, least := range map[string]int64{"*.mem": logAhead, "*.vlog": firstPage, "DISCARD": firstPage, "spare-log": logAhead, "spare-page": firstPage} {
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

func TestLogWithoutEntriesBecomesSpare(t *testing.T) {
	b := &backing{dir: t.TempDir(), log: zap.NewNop(), sizes: [2]int64{sparePage: firstPage, spareLog: logAhead}}
	write := func(name string, size int, text string) string {
		t.Helper()
		name = filepath.Join(b.dir, name)
		if err := os.WriteFile(name, append([]byte(text), make([]byte, size)...), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	header := "00000000 and a nonce"
	written := write("00001.mem", 2*logAhead, header+"entries")
	write("00002.mem", 2*logAhead, header)
	write("00003.mem", 0, "")
	write("000001.vlog", 2*firstPage, header)
	if err := b.recycle(); err != nil {
		t.Fatal(err)
	}
	if got := matches(t, b.dir, "*.mem"); len(got) != 1 || got[0] != written {
		t.Errorf("logs left: %q, want %q", got, written)
	}
	for n, size := range b.sizes {
		text, err := os.ReadFile(b.spare(n))
		if err != nil || int64(len(text)) != size || len(bytes.Trim(text, "\x00")) > 0 {
			t.Errorf("%s: %d bytes, %v; want %d without content", b.spare(n), len(text), err, size)
		}
	}
	if _, err := os.Stat(filepath.Join(b.dir, "000001.vlog")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the value log is there: %v", err)
	}
}
