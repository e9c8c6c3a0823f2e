package fill

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

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
