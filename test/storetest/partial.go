package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
)

func testCommit(t *testing.T, s *subject) {
	for _, digest := range digests {
		b := content(3, 300_000)
		d := digest(b)
		p := s.partial(d)
		s.write(p, b[200_000:], 200_000) // out of order, as several connections do
		s.write(p, b[:200_000], 0)
		if err := p.Flush(0, int64(len(b))); err != nil {
			t.Errorf("Flush: %v", err)
		}
		if err := p.Commit(int64(len(b))); err != nil {
			t.Fatalf("Commit: %v", err)
		}
		s.has(d, b)
		if s.HasPartial(d) {
			t.Error("HasPartial after Commit is true")
		}
		for name, end := range map[string]func() error{"Discard": p.Discard, "Release": p.Release} {
			if err := end(); err != nil {
				t.Errorf("%s after Commit: %v, want nil", name, err)
			}
		}
		s.has(d, b)
	}
}

func testCommitEmpty(t *testing.T, s *subject) { s.has(s.fill(nil), nil) }

func testCommitLength(t *testing.T, s *subject) {
	b := content(1, 100)
	d := SHA256(b)
	for _, verified := range []int64{99, 101, 0} {
		p := s.partial(d)
		s.write(p, b, 0)
		if err := p.Commit(verified); !errors.Is(err, disk.ErrMismatch) {
			t.Errorf("Commit(%d) of 100 bytes: %v, want %v", verified, err, disk.ErrMismatch)
		}
		s.lacks(d)
		if err := p.Discard(); err != nil {
			t.Error(err)
		}
	}
}

func testCommitTwice(t *testing.T, s *subject) {
	b := content(1, 100)
	d := s.fill(b)
	s.fill(b)
	s.has(d, b)
	if got := s.walk(); len(got) != 1 {
		t.Errorf("Walk finds %d blobs, want 1", len(got))
	}
}

func testPartialIsNoBlob(t *testing.T, s *subject) {
	b := content(1, 100)
	d := SHA256(b)
	p := s.partial(d)
	s.write(p, b, 0) // all of it, but not committed
	if err := p.SaveMeta(disk.State{Size: 100, Have: [][2]int64{{0, 100}}}); err != nil {
		t.Fatal(err)
	}
	s.lacks(d)
	if !s.HasPartial(d) {
		t.Error("HasPartial during the fill is false")
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	s.lacks(d)
	s.restart()
	s.lacks(d)
}

func testPartialExclusive(t *testing.T, s *subject) {
	d := SHA256([]byte("x"))
	p := s.partial(d)
	if _, err := s.Partial(d); !errors.Is(err, disk.ErrInUse) {
		t.Errorf("second Partial: %v, want %v", err, disk.ErrInUse)
	}
	s.partial(SHA256([]byte("y"))) // another is not in the way
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	s.partial(d)
}

func testDiscard(t *testing.T, s *subject) {
	d := SHA256([]byte("x"))
	p := s.partial(d)
	s.write(p, []byte("x"), 0)
	if err := p.SaveMeta(disk.State{Size: 1, Have: [][2]int64{{0, 1}}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Discard(); err != nil {
			t.Errorf("Discard: %v", err)
		}
	}
	s.lacks(d)
	if s.HasPartial(d) {
		t.Error("HasPartial after Discard is true")
	}
	if st, ok := s.partial(d).Meta(); ok {
		t.Errorf("Meta after Discard = %v, want none", st)
	}
}

// begin fills the two ends of b and returns what was saved.
func (s *subject) begin(d v1.Hash, b []byte) disk.State {
	s.t.Helper()
	p := s.partial(d)
	n := int64(len(b))
	s.write(p, b[:10], 0)
	s.write(p, b[n-10:], n-10)
	st := disk.State{Size: n, Have: [][2]int64{{0, 10}, {n - 10, n}}}
	if err := p.SaveMeta(st); err != nil {
		s.t.Fatalf("SaveMeta: %v", err)
	}
	if err := p.Release(); err != nil {
		s.t.Fatalf("Release: %v", err)
	}
	return st
}

func (s *subject) resume(d v1.Hash, b []byte, want disk.State) {
	s.t.Helper()
	p := s.partial(d)
	if st, ok := p.Meta(); !ok || !cmp.Equal(st, want) {
		s.t.Fatalf("Meta = %+v, %t; want %+v", st, ok, want)
	}
	s.write(p, b[10:len(b)-10], 10)
	if err := p.Commit(int64(len(b))); err != nil {
		s.t.Fatalf("Commit: %v", err)
	}
	s.has(d, b)
}

func testResume(_ *testing.T, s *subject) {
	b := content(1, 100_000)
	s.resume(SHA256(b), b, s.begin(SHA256(b), b))
}

func testResumeAfterRestart(_ *testing.T, s *subject) {
	b := content(1, 100_000)
	st := s.begin(SHA512(b), b)
	s.restart()
	s.resume(SHA512(b), b, st)
}

func testReleaseWithoutState(t *testing.T, s *subject) {
	d := SHA256([]byte("x"))
	p := s.partial(d)
	s.write(p, []byte("x"), 0)
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if s.HasPartial(d) {
		t.Error("HasPartial is true, though nobody could resume it")
	}
}

func testNonsenseState(t *testing.T, s *subject) {
	d := SHA256([]byte("x"))
	for _, st := range []disk.State{
		{Size: -2},
		{Size: 5}, // the file has 10
		{Size: 20, Have: [][2]int64{{0, 11}}},
		{Size: 20, Have: [][2]int64{{-1, 4}}},
		{Size: 20, Have: [][2]int64{{4, 4}}},
		{Size: 20, Have: [][2]int64{{5, 4}}},
		{Size: 20, Have: [][2]int64{{5, 8}, {0, 2}}},
		{Size: 20, Have: [][2]int64{{0, 5}, {4, 8}}},
	} {
		p := s.partial(d)
		s.write(p, content(1, 10), 0)
		if err := p.SaveMeta(st); err != nil {
			t.Fatal(err)
		}
		if err := p.Release(); err != nil {
			t.Fatal(err)
		}
		p = s.partial(d)
		if got, ok := p.Meta(); ok {
			t.Errorf("Meta after saving %+v = %+v, want none", st, got)
		}
		if err := p.Commit(0); err != nil {
			t.Errorf("Commit(0) of a fresh partial: %v, want an empty file", err)
		}
		if err := s.Remove(d); err != nil {
			t.Fatal(err)
		}
	}
}

func testEnded(t *testing.T, s *subject) {
	p := s.partial(SHA256([]byte("x")))
	if err := p.Discard(); err != nil {
		t.Fatal(err)
	}
	if err := p.SaveMeta(disk.State{}); err == nil {
		t.Error("SaveMeta after Discard works, want an error")
	}
	if err := p.Commit(0); err == nil {
		t.Error("Commit after Discard works, want an error")
	}
	if f, err := p.OpenReader(); err == nil {
		_ = f.Close()
		t.Error("OpenReader after Discard works, want an error")
	}
	if _, err := p.WriteAt([]byte("x"), 0); err == nil {
		t.Error("WriteAt after Discard works, want an error")
	}
}

func testReadersDuringCommit(t *testing.T, s *subject) {
	b := content(1, 1<<20)
	d := SHA256(b)
	p := s.partial(d)
	s.write(p, b, 0)
	first, err := p.OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if err := readAll(p, b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := p.Commit(int64(len(b))); err != nil {
		t.Errorf("Commit: %v", err)
	}
	wg.Wait()
	if got, err := io.ReadAll(first); err != nil || !bytes.Equal(got, b) {
		t.Errorf("reader from before the commit has %d bytes, %v; want all %d", len(got), err, len(b))
	}
}

func readAll(p Partial, want []byte) error {
	f, err := p.OpenReader()
	if err != nil {
		return fmt.Errorf("OpenReader: %w", err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("reader has %d bytes, want all %d", len(got), len(want))
	}
	return nil
}

func testReaderAfterCommit(t *testing.T, s *subject) {
	b := content(1, 1000)
	d := SHA256(b)
	p := s.partial(d)
	s.write(p, b, 0)
	if err := p.Commit(1000); err != nil {
		t.Fatal(err)
	}
	if err := readAll(p, b); err != nil {
		t.Error(err)
	}
	if err := s.Remove(d); err != nil {
		t.Fatal(err)
	}
	if f, err := p.OpenReader(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenReader after Remove: %v, want not exist", err)
		if err == nil {
			_ = f.Close()
		}
	}
}

func testSweep(t *testing.T, s *subject) {
	b := content(1, 100)
	old, used := SHA256(b), SHA256([]byte("used"))
	s.begin(old, b)
	p := s.partial(used)
	s.write(p, []byte("used"), 0)
	if n, err := s.SweepPartials(time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("SweepPartials of older ones = %d, %v; want 0", n, err)
	}
	if n, err := s.SweepPartials(time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Errorf("SweepPartials of all = %d, %v; want 1", n, err)
	}
	if s.HasPartial(old) || !s.HasPartial(used) {
		t.Errorf("HasPartial = %t of the old one, %t of the one in use; want false, true", s.HasPartial(old), s.HasPartial(used))
	}
	if err := p.Commit(4); err != nil {
		t.Errorf("Commit after the sweep: %v", err)
	}
}
