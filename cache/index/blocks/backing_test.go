//go:build linux

package blocks

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
)

func matches(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return names
}

func TestLogWithoutEntriesBecomesSpare(t *testing.T) {
	b := &Backing{dir: t.TempDir(), log: zap.NewNop(), sizes: [2]int64{sparePage: firstPage, spareLog: logAhead}}
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
