package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestATokenIsMadeOnceAndForItsOwnerOnly(t *testing.T) {
	name := filepath.Join(t.TempDir(), "admin.token")
	if token, err := ReadToken(name); token != "" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadToken before there is one = %q, %v", token, err)
	}
	first, err := MakeToken(name)
	if err != nil || len(first) < 26 { // 128 bits, 5 in each letter
		t.Fatalf("MakeToken = %q, %v", first, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file has mode %v, %v; want 0600", info.Mode(), err)
	}
	if again, err := MakeToken(name); again != first || err != nil {
		t.Errorf("MakeToken again = %q, %v; want %q", again, err, first)
	}
	if read, err := ReadToken(name); read != first || err != nil {
		t.Errorf("ReadToken = %q, %v; want %q", read, err, first)
	}
	if err := os.WriteFile(name, []byte("\ufeffas-notepad-saves-it\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if read, err := ReadToken(name); read != "as-notepad-saves-it" || err != nil {
		t.Errorf("ReadToken of a file with a byte order mark = %q, %v", read, err)
	}
	// A file that somebody emptied, or put something else into, is no token that anybody has.
	for _, text := range []string{"", "\n", "a b\n", "a\nb\n", strings.Repeat("x", tokenMost+1)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if read, err := ReadToken(name); read != "" || err == nil {
			t.Errorf("ReadToken of %.10q = %q, %v", text, read, err)
		}
		if again, err := MakeToken(name); again == first || len(again) < 26 || err != nil {
			t.Errorf("MakeToken over %.10q = %q, %v; want a new one", text, again, err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o644} {
		before, err := MakeToken(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		after, err := MakeToken(name)
		if info, serr := os.Stat(name); err != nil || serr != nil || after == before || info.Mode() != 0o600 {
			t.Errorf("MakeToken of a file of mode %04o keeps it, %v %v", mode, err, serr)
		}
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(name), "*")); len(left) != 1 || err != nil {
		t.Errorf("the folder holds %q, %v; want the token", left, err)
	}
}

func TestATokenThatCannotBeKeptIsKnownToNobody(t *testing.T) {
	one, err := MakeToken(filepath.Join(t.TempDir(), "none", "admin.token"))
	if err == nil || len(one) < 26 {
		t.Errorf("MakeToken in no folder = %q, %v; want a token and an error", one, err)
	}
	dir := t.TempDir() // which cannot be read as a file
	two, err := MakeToken(dir)
	if err == nil || len(two) < 26 || two == one {
		t.Errorf("MakeToken of a folder = %q, %v; want a token and an error", two, err)
	}
}
