package fill

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"forebay/cache/disk"
	"forebay/internal/sums"
	"forebay/test/cachetest"
)

func TestFillTooLargeToKeepIsPassedThrough(t *testing.T) {
	data, d := cachetest.BlobOf(3<<20, 9)
	s := &cachetest.Script{Data: data}
	r := startRig(t, s, d, rigOptions{maxBytes: 1 << 20})
	defer r.close()
	got, err := r.read(0, ToEnd)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read = %d bytes, %v", len(got), err)
	}
	got, err = r.read(2<<20, 2<<20+5)
	if err != nil || !bytes.Equal(got, data[2<<20:2<<20+5]) {
		t.Fatalf("range = %d bytes, %v", len(got), err)
	}
	if _, _, err := r.store.Blob(d); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("store.Blob = %v, want absent", err)
	}
}

func TestPassedThroughIsStillVerified(t *testing.T) {
	data, d := cachetest.BlobOf(3<<20, 10)
	s := &cachetest.Script{Data: data, Faults: []cachetest.Fault{{}, {Flip: true}}}
	r := startRig(t, s, d, rigOptions{maxBytes: 1 << 20})
	defer r.close()
	got, err := r.read(0, ToEnd)
	if !errors.Is(err, sums.ErrMismatch) || len(got) >= len(data) {
		t.Errorf("read = %d bytes, %v, want fewer than %d and a mismatch", len(got), err, len(data))
	}
}

// What is small is verified before any of it is believed, also past the disk, and whatever part of it is
// asked for.
func TestPiecesOfWhatIsSmallAreVerifiedPastTheDisk(t *testing.T) {
	data, d := cachetest.BlobOf(Small, 12)
	spans := [][2]int64{{0, 10}, {1000, Small}, {1000, 2000}, {1000, ToEnd}}
	t.Run("none of it written", func(t *testing.T) {
		s := &cachetest.Script{Data: data, Faults: []cachetest.Fault{{}}}
		for range spans {
			s.Faults = append(s.Faults, cachetest.Fault{Flip: true})
		}
		r := startRig(t, s, d, rigOptions{maxBytes: 64 << 10})
		defer r.close()
		wantMismatches(t, r, spans)
		for _, span := range spans {
			got, err := r.read(span[0], span[1])
			if want := data[span[0]:min(span[1], Small)]; err != nil || !bytes.Equal(got, want) {
				t.Errorf("[%d, %d) = %d bytes, %v, want %d right ones", span[0], span[1], len(got), err, len(want))
			}
		}
	})
	t.Run("part of it written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var writes atomic.Int64
			full := make(chan struct{})
			s := &cachetest.Script{Data: data, NoRanges: true, Faults: []cachetest.Fault{{Flip: true}}}
			r := startRig(t, s, d, rigOptions{fault: func(at disk.Step, _ string) error {
				if at != disk.StepWrite || writes.Add(1) <= 2 {
					return nil
				}
				<-full
				return syscall.ENOSPC
			}})
			defer r.close()
			go func() {
				synctest.Wait() // all of them have the file open
				close(full)
			}()
			wantMismatches(t, r, spans)
		})
	})
}

// wantMismatches reads all spans at the same time.
func wantMismatches(t *testing.T, r *rig, spans [][2]int64) {
	t.Helper()
	var readers sync.WaitGroup
	for _, span := range spans {
		readers.Go(func() {
			got, err := r.read(span[0], span[1])
			if !errors.Is(err, sums.ErrMismatch) || int64(len(got)) >= min(span[1], Small)-span[0] {
				t.Errorf("[%d, %d) of what the registry has wrong = %d bytes, %v, want fewer and a mismatch", span[0], span[1], len(got), err)
			}
		})
	}
	readers.Wait()
}

func TestFullDiskIsNoErrorForReaders(t *testing.T) {
	for _, step := range []disk.Step{disk.StepCreate, disk.StepWrite, disk.StepSync, disk.StepRename, disk.StepSyncDir} {
		t.Run(string(step), func(t *testing.T) {
			data, d := cachetest.BlobOf(6<<20, 11)
			s := &cachetest.Script{Data: data}
			var armed atomic.Int64
			r := startRig(t, s, d, rigOptions{fault: func(at disk.Step, name string) error {
				// The twentieth write is in the middle of the blob.
				if at == step && !strings.HasSuffix(name, ".json") && (step != disk.StepWrite || armed.Add(1) >= 20) {
					return syscall.ENOSPC
				}
				return nil
			}})
			defer r.close()
			got, err := r.read(0, ToEnd)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("read = %d bytes, %v", len(got), err)
			}
			<-r.done
			if _, _, err := r.store.Blob(d); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("store.Blob = %v, want absent", err)
			}
			if limit := int64(len(data)) * 2; s.Sent > limit {
				t.Errorf("upstream sent %d bytes, want at most %d", s.Sent, limit)
			}
			// One that came in time, and comes to its file when that is gone.
			if got, err = r.read(0, ToEnd); err != nil || !bytes.Equal(got, data) {
				t.Errorf("a late read = %d bytes, %v", len(got), err)
			}
		})
	}
}
