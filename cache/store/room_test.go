package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"forebay/cache/evict"
	"forebay/test/cachetest"
)

func TestEvictionKnowsAfterARestartWhatItKnewBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := cachetest.NewRegistry(), t.TempDir()
		img := r.Image(t, hub.Name, "1", "often", "once")
		s := open(t, Options{Dir: dir})
		putImage(t, s, r, "1", img)
		for range 3 {
			time.Sleep(time.Hour)
			s.Manifest(hub, img.Digest)
			if f, _ := s.Blob(img.Blobs[1]); f == nil {
				t.Fatal("the layer is not kept")
			} else {
				f.Close()
			}
		}
		before, _ := s.Room.policy.State(img.Blobs[1])
		shut(t, s)
		s = open(t, Options{Dir: dir})
		<-s.Room.Loaded()
		if got, ok := s.Room.policy.State(img.Digest); !ok || got.Kind != evict.Manifest {
			t.Errorf("the manifest is %+v, %t after a restart, want its kind", got, ok)
		}
		if got, ok := s.Room.policy.State(img.Blobs[1]); !ok || got.Kind != evict.Blob || got.Hint != before.Hint || before.Hint == 0 {
			t.Errorf("the layer is %+v, %t after a restart, was %+v", got, ok, before)
		}
	})
}

func TestSharesFollowWhatTheDiskLeaves(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxBytes: 1 << 50, MinFree: 1})
	<-s.Room.Loaded()
	free, _, err := s.Disk.Free()
	if err != nil {
		t.Fatal(err)
	}
	s.Room.minFree = int64(free) - 1<<30
	s.Room.fit()
	if got := s.Room.fitted; got < 1<<28 || got > 1<<32 {
		t.Errorf("the policy was told %d bytes, want about a GiB: less is left than storage.max_size", got)
	}
}

func TestNothingIsEvictedForWhatCannotFit(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MinFree: 1})
	<-s.Room.Loaded()
	put(t, s, []byte("kept"))
	if err := (&Reservation{Room: s.Room}).Grow(t.Context(), 1<<60, 0); !errors.Is(err, ErrNoRoom) {
		t.Errorf("Reserve of more than the disk has = %v, want ErrNoRoom", err)
	}
	if n, _ := s.Room.Counted(); n != 1 {
		t.Errorf("%d files are kept, want the one that was", n)
	}
}

// What is kept is no longer reserved: a large layer counted twice would push out others.
func TestWhatIsKeptCountsOnce(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxBytes: 30 << 20})
	<-s.Room.Loaded()
	put(t, s, make([]byte, 8<<20))
	large := bytes.Repeat([]byte("x"), 10<<20)
	one, other := &Reservation{Room: s.Room}, &Reservation{Room: s.Room}
	if err := one.Grow(t.Context(), int64(len(large)), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.KeepBytes(cachetest.DigestOf(large), large, one); err != nil {
		t.Fatal(err)
	}
	if err := other.Grow(t.Context(), 8<<20, 0); err != nil {
		t.Fatal(err)
	}
	if n, _ := s.Room.Counted(); n != 2 {
		t.Errorf("%d files are kept with 18 of 30 MiB used and 8 reserved, want both", n)
	}
	one.Release()
	if used := s.Figures().UsedBytes; used < 26<<20 || used > 28<<20 {
		t.Errorf("%d bytes are used, want 26 MiB and an index", used)
	}
	if other.Release(); s.Figures().UsedBytes > 20<<20 {
		t.Errorf("%d bytes are used after the reservation was given back, want 18 MiB and an index", s.Figures().UsedBytes)
	}
}

func TestEvictionOnFullDiskIsRecordedLater(t *testing.T) {
	var f cachetest.Disk
	r := cachetest.NewRegistry()
	img := r.Image(t, hub.Name, "1", "a", "b")
	s := open(t, Options{Dir: t.TempDir(), Fault: f.Fault, MaxBytes: 1 << 30})
	putImage(t, s, r, "1", img)
	f.Fail("index", syscall.ENOSPC)
	<-s.Room.Loaded()
	if freed := s.Room.Evict(1); freed == 0 {
		t.Error("nothing was evicted")
	}
	if got := causes(s); !slices.Equal(got, []string{"index full"}) {
		t.Errorf("Troubles = %v", got)
	}
	f.Fail("", 0)
	s.Probe()
	if got := causes(s); len(got) > 0 {
		t.Errorf("Troubles after the cause has gone = %v", got)
	}
	checkCounts(t, s)
}

// A record that the disk refuses while others are taken before and after is made up for: by the
// next look, or at the next start where none comes before.
func TestRecordLostBetweenOthersIsMadeUpFor(t *testing.T) {
	for name, restart := range map[string]bool{"by the next look": false, "at the next start": true} {
		t.Run(name, func(t *testing.T) {
			var f cachetest.Disk
			o := Options{Dir: t.TempDir(), Fault: f.Fault, MaxBytes: 64 << 20}
			s := open(t, o)
			<-s.Room.Loaded()
			f.Fail("index", syscall.ENOSPC)
			put(t, s, []byte("lost"))
			f.Fail("", 0)
			put(t, s, []byte("recorded after it"))
			if restart {
				shut(t, s)
				s = open(t, o)
			} else {
				s.Probe()
			}
			<-s.Room.Loaded()
			if n, _ := s.Room.Counted(); n != 2 || s.Index.Totals().Blobs != 2 {
				t.Errorf("%d files may be evicted and %d are recorded, want 2 and 2", n, s.Index.Totals().Blobs)
			}
			if s.Index.Lags() {
				t.Error("the index lags still")
			}
		})
	}
}

// A process killed between the rename of a blob and its record leaves a file that must
// become known, or it would stay for ever.
func TestFileWithoutRecordIsKnownAfterACrash(t *testing.T) {
	dir, crashed := t.TempDir(), filepath.Join(t.TempDir(), "crashed")
	s := open(t, Options{Dir: dir, MaxBytes: 64 << 20})
	put(t, s, []byte("recorded"))
	left := []byte("left behind")
	if err := errors.Join(s.Disk.Put(cachetest.DigestOf(left), left), s.Settle()); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, Options{Dir: crashed, MaxBytes: 64 << 20})
	<-s.Room.Loaded()
	if n, _ := s.Room.Counted(); n != 2 || s.Index.Totals().Blobs != 2 {
		t.Errorf("%d files may be evicted and %d are recorded, want 2 and 2", n, s.Index.Totals().Blobs)
	}
}
