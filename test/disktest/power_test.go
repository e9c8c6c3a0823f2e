package disktest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPowerLossAtAnyStep takes what is on the block device of a mounted ext4 file system
// before a change of the disk: that is what a loss of power at this moment leaves. What
// was written and not synced is in the kernel's memory only, files that the database has
// mapped included, and so are names whose folder was not synced.
func TestPowerLossAtAnyStep(t *testing.T) {
	first, stride := strideOf(16)
	stride = max(stride, 3)
	image := ext4(t, 96)
	dir := mountImage(t, image)
	w := newWorld()
	if err := w.plantOrphan(dir); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
	var mu sync.Mutex
	var words said
	n, points := 0, 0
	fault := func(step, name string) error {
		mu.Lock() // the others wait, as their power is off, too
		defer mu.Unlock()
		if n++; n%stride != first || points > 0 && t.Failed() {
			return nil
		}
		points++
		when := fmt.Sprintf("step %d, %s of %s", n, step, strings.TrimPrefix(name, dir))
		if len(words) > 0 {
			when += " after " + words[len(words)-1]
		}
		w.checkDevice(t, when, image, slices.Clone(words))
		return nil
	}
	say := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		words = append(words, s)
	}
	if err := w.life(dir, fault, say); err != nil {
		t.Fatal(err)
	}
	w.checkDevice(t, "at the end", image, words)
	t.Logf("%d points of %d steps", points, n)
	if points < 15 {
		t.Errorf("power was lost at %d points, want more", points)
	}
}

// checkDevice copies the device, mounts the copy as a machine that comes up does, and
// looks at what a cache finds there.
func (w *world) checkDevice(t *testing.T, when, image string, words said) {
	t.Helper()
	copied := filepath.Join(filepath.Dir(image), "copy.img")
	if err := copySparse(image, copied); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(copied)
	at := filepath.Join(filepath.Dir(image), "copy")
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := try("mount", "-o", "loop,noatime", copied, at); err != nil {
		t.Errorf("%s: %v", when, err)
		return
	}
	defer func() {
		if err := try("umount", at); err != nil {
			t.Error(err)
		}
	}()
	w.check(t, when, at, words, words.durable())
}

// copySparse copies a file without its holes.
func copySparse(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		data, err := in.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		end, err := in.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := in.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, end-data); err != nil {
			return err
		}
		at = end
	}
	return nil
}
