package disk

import (
	"errors"
	"io"
	"io/fs"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func digestOf(t *testing.T, algorithm string, b []byte) v1.Hash {
	t.Helper()
	return v1.Hash{Algorithm: algorithm, Hex: sum(algorithm, b)}
}

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestCommittedPartialIsABlob(t *testing.T) {
	s := openStore(t, t.TempDir())
	d := digestOf(t, "sha256", []byte("hello"))
	if _, _, err := s.Blob(d); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Blob before the fill: %v, want not exist", err)
	}
	p, err := s.Partial(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt([]byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(5); err != nil {
		t.Fatal(err)
	}
	f, n, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil || n != 5 || string(b) != "hello" {
		t.Errorf("Blob = %q, %d, %v; want hello, 5, nil", b, n, err)
	}
}
