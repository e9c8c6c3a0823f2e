package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"forebay/internal/sums"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func digestOf(b []byte) v1.Hash {
	d, err := sums.Of("sha256", b)
	if err != nil {
		panic(err)
	}
	return d
}

func TestPartialsAreDroppedUnlessInUse(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d := digestOf([]byte("whole"))
	if gone, err := s.DropPartial(d); !gone || err != nil {
		t.Errorf("DropPartial of nothing = %t, %v", gone, err)
	}
	p, err := s.Partial(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt([]byte("who"), 0); err != nil {
		t.Fatal(err)
	}
	future := time.Now().Add(time.Hour)
	if gone, err := s.DropPartial(d); gone || err != nil || !s.HasPartial(d) {
		t.Errorf("DropPartial of a fill in progress = %t, %v", gone, err)
	}
	if n, _, err := s.OldPartials(future); n != 0 || err != nil {
		t.Errorf("OldPartials with a fill in progress = %d, %v", n, err)
	}
	if err := p.SaveMeta(State{Size: 5, Have: [][2]int64{{0, 3}}}); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if n, bytes, err := s.OldPartials(future); n != 1 || bytes == 0 || err != nil {
		t.Errorf("OldPartials = %d, %d, %v, want 1 that takes space", n, bytes, err)
	}
	if n, _, err := s.OldPartials(time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("OldPartials of long ago = %d, %v", n, err)
	}
	if gone, err := s.DropPartial(d); !gone || err != nil || s.HasPartial(d) {
		t.Errorf("DropPartial = %t, %v, want it gone", gone, err)
	}
}

func TestQuarantineTakesOnlyTheFileThatWasRead(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d := digestOf([]byte("content"))
	put := func() *os.File {
		t.Helper()
		if err := s.Put(d, []byte("content")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Settle(); err != nil {
			t.Fatal(err)
		}
		f, _, err := s.Blob(d)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	old := put()
	defer old.Close()
	if err := s.Remove(d); err != nil {
		t.Fatal(err)
	}
	if taken, _, err := s.Quarantine(d, old, 100); taken || err != nil {
		t.Errorf("Quarantine of what is gone = %t, %v", taken, err)
	}
	f := put()
	defer f.Close()
	if taken, _, err := s.Quarantine(d, old, 100); taken || err != nil {
		t.Errorf("Quarantine of what was replaced = %t, %v, want the new file left alone", taken, err)
	}
	taken, kept, err := s.Quarantine(d, f, 100)
	if !taken || err != nil {
		t.Errorf("Quarantine = %t, %v", taken, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, kept)); err != nil || string(b) != "content" {
		t.Errorf("kept as %q: %q, %v", kept, b, err)
	}
	f = put()
	defer f.Close()
	if taken, kept, err := s.Quarantine(d, f, 10); !taken || kept != "" || err != nil {
		t.Errorf("Quarantine without room = %t, %q, %v, want it removed", taken, kept, err)
	}
	if _, err := s.Stat(d); err == nil {
		t.Error("the blob is still there")
	}
	if held, err := s.Quarantined(); held != (Held{1, 7}) || err != nil {
		t.Errorf("Quarantined = %+v, %v, want one file of 7 bytes", held, err)
	}
	if u, err := s.Usage(); u.Blobs != 0 || err != nil {
		t.Errorf("Usage = %+v, %v, want nothing kept", u, err)
	}
}

func TestOwnersDoNotSeeEachOthersBytes(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d := digestOf([]byte("hello"))
	theirs, err := s.PartialOf(d, "registry.example:5000/a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.WriteAt([]byte("hel"), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(theirs.SaveMeta(State{Size: 5, Have: [][2]int64{{0, 3}}}), theirs.Release()); err != nil {
		t.Fatal(err)
	}
	ours, err := s.PartialOf(d, "docker.io")
	if err != nil {
		t.Fatal(err)
	}
	if _, known := ours.Meta(); known || s.HasPartial(d) {
		t.Error("an owner goes on with what another one left")
	}
	again, err := s.PartialOf(d, "registry.example:5000/a")
	if err != nil {
		t.Fatal(err)
	}
	if st, known := again.Meta(); !known || len(st.Have) != 1 {
		t.Errorf("Meta = %v, %t, want what the owner left", st, known)
	}
	if parts, err := s.Partials(); err != nil || !parts[d] || len(parts) != 1 {
		t.Errorf("Partials = %v, %v, want the one digest", parts, err)
	}
	if err := errors.Join(ours.Discard(), again.Release()); err != nil {
		t.Fatal(err)
	}
	if gone, err := s.DropPartial(d); !gone || err != nil || s.HasPartialOf(d, "registry.example:5000/a") {
		t.Errorf("DropPartial = %t, %v, want it gone", gone, err)
	}
}
