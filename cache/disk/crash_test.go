package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/test/storetest"
)

const (
	childDir = "FOREBAY_TEST_DIR" // makes the test binary a child that uses this folder
	childJob = "FOREBAY_TEST_JOB" // what the child does: "hold", or "work"
	childCut = "FOREBAY_TEST_CUT" // before which step it kills itself, counted from 0
	manifest = "a small manifest"
	settled  = "a blob that was there before"
)

var (
	layer  = bytes.Repeat([]byte("0123456789abcdef"), 1000)
	parked = bytes.Repeat([]byte("parked"), 1000)
	layer5 = bytes.Repeat([]byte("fill of a sha512 blob"), 500)
	sealed = bytes.Repeat([]byte("sealed"), 1000)
)

// child is the process that gets killed.
func child(dir string) int {
	s, err := disk.Open(dir, nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if os.Getenv(childJob) == "hold" {
		fmt.Println("open")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return 0
	}
	var cut, n int
	if _, err := fmt.Sscan(os.Getenv(childCut), &cut); err != nil {
		fmt.Println(err)
		return 1
	}
	s.SetFault(func(disk.Step, string) error {
		if n == cut {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal may take a moment
		}
		n++
		return nil
	})
	if err := work(s, func(done string) { fmt.Println(done) }); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// work does everything that changes the disk, saying what it has done.
func work(s *disk.Store, say func(string)) error {
	for _, text := range smalls() { // so many that they settle by one sync
		if err := s.Put(storetest.SHA256([]byte(text)), []byte(text)); err != nil {
			return err
		}
	}
	say("put")
	if err := fill(s, storetest.SHA256(layer), layer, "commit", say); err != nil {
		return err
	}
	if err := fill(s, storetest.SHA512(layer5), layer5, "commit512", say); err != nil {
		return err
	}
	if err := fill(s, storetest.SHA256(layer), layer, "again", say); err != nil {
		return err
	}
	if err := seal(s, sealed); err != nil {
		return err
	}
	say("sealed")
	if err := settle(s); err != nil {
		return err
	}
	say("settled")
	p, err := s.Partial(storetest.SHA256(parked))
	if err != nil {
		return err
	}
	if _, err := p.WriteAt(parked[:100], 0); err != nil {
		return errors.Join(err, p.Discard())
	}
	if err := p.SaveMeta(disk.State{Size: int64(len(parked)), Have: [][2]int64{{0, 100}}}); err != nil {
		return errors.Join(err, p.Discard())
	}
	if err := p.Release(); err != nil {
		return err
	}
	say("parked")
	if _, err := s.SweepPartials(time.Now().Add(time.Hour)); err != nil {
		return err
	}
	say("swept")
	if err := s.Remove(storetest.SHA256([]byte(settled))); err != nil {
		return err
	}
	say("removed")
	return nil
}

// fill fills a blob in two halves, the second first.
func fill(s *disk.Store, d v1.Hash, b []byte, name string, say func(string)) error {
	p, err := s.Partial(d)
	if err != nil {
		return err
	}
	half := int64(len(b) / 2)
	for _, part := range [][2]int64{{half, int64(len(b))}, {0, half}} {
		if _, err := p.WriteAt(b[part[0]:part[1]], part[0]); err != nil {
			return errors.Join(err, p.Discard())
		}
		if err := p.SaveMeta(disk.State{Size: int64(len(b)), Have: [][2]int64{part}}); err != nil {
			return errors.Join(err, p.Discard())
		}
	}
	if err := p.Commit(int64(len(b))); err != nil {
		return errors.Join(err, p.Discard())
	}
	say(name)
	return nil
}

// seal fills a blob and seals it.
func seal(s *disk.Store, b []byte) error {
	p, err := s.Partial(storetest.SHA256(b))
	if err != nil {
		return err
	}
	if _, err = p.WriteAt(b, 0); err == nil {
		err = p.Seal(int64(len(b)))
	}
	if err != nil {
		return errors.Join(err, p.Discard())
	}
	return nil
}

// smalls are the contents that are put.
func smalls() (all []string) {
	for n := range 9 {
		all = append(all, strings.Repeat(manifest, n+1))
	}
	return all
}

// whole are the blobs that may be there, with all their bytes.
func whole() map[v1.Hash][]byte {
	all := map[v1.Hash][]byte{
		storetest.SHA256([]byte(settled)): []byte(settled),
		storetest.SHA256(layer):           layer,
		storetest.SHA512(layer5):          layer5,
		storetest.SHA256(sealed):          sealed,
	}
	for _, text := range smalls() {
		all[storetest.SHA256([]byte(text))] = []byte(text)
	}
	return all
}

func TestKilledAtAnyStepNothingPartialLooksWhole(t *testing.T) {
	for cut := 0; ; cut++ {
		dir := t.TempDir()
		s := open(t, dir)
		put(t, s, settled)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), childDir+"="+dir, childJob+"=work", fmt.Sprintf("%s=%d", childCut, cut))
		out, err := c.Output()
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if err != nil && !killed {
			t.Fatalf("cut %d: child: %v: %s", cut, err, out)
		}
		said := strings.Fields(string(out))
		checkAfterCrash(t, fmt.Sprintf("cut %d after %v", cut, said), dir, said)
		if !killed {
			if cut < 40 {
				t.Errorf("work took %d steps, want some 60: the seam misses some", cut)
			}
			return
		}
	}
}

// checkAfterCrash opens the folder as the next process does and looks at everything.
func checkAfterCrash(t *testing.T, when, dir string, said []string) {
	t.Helper()
	s, err := disk.Open(dir, nil)
	if err != nil {
		t.Errorf("%s: Open: %v", when, err)
		return
	}
	defer s.Close()
	err = s.Walk(func(d v1.Hash, size int64, _ time.Time) error {
		b, err := s.Get(d, 1<<20)
		if err != nil {
			return err
		}
		if want, ok := whole()[d]; !ok || !bytes.Equal(b, want) {
			t.Errorf("%s: blob %s has %d bytes, want %d", when, d, len(b), len(want))
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s: Walk: %v", when, err)
	}
	must := map[v1.Hash]string{storetest.SHA256(layer): "commit", storetest.SHA512(layer5): "commit512", storetest.SHA256(sealed): "settled"}
	for _, text := range smalls() {
		must[storetest.SHA256([]byte(text))] = "put"
	}
	for d, word := range must {
		if _, err := s.Stat(d); err != nil && slices.Contains(said, word) {
			t.Errorf("%s: what was committed is lost: %v", when, err)
		}
	}
	if slices.Contains(said, "sealed") {
		checkSealed(t, when, s)
	}
	if _, err := s.Stat(storetest.SHA256([]byte(settled))); err == nil == slices.Contains(said, "removed") {
		t.Errorf("%s: Stat of the settled blob: %v", when, err)
	}
	checkPartials(t, when, s)
	if err := work(s, func(string) {}); err != nil {
		t.Errorf("%s: the work again: %v", when, err)
	}
	checkClean(t, when, dir)
}

// checkSealed looks for content that was sealed: if it has not settled, a fill finds all of it.
func checkSealed(t *testing.T, when string, s *disk.Store) {
	t.Helper()
	d := storetest.SHA256(sealed)
	if _, err := s.Stat(d); err == nil {
		return
	}
	p, err := s.Partial(d)
	if err != nil {
		t.Errorf("%s: Partial: %v", when, err)
		return
	}
	if state, ok := p.Meta(); !ok || !slices.Equal(state.Have, [][2]int64{{0, int64(len(sealed))}}) {
		t.Errorf("%s: what was sealed is lost: there is %v", when, state)
	}
	if err := p.Release(); err != nil {
		t.Errorf("%s: Release: %v", when, err)
	}
}

// checkPartials resumes what was left, as fills do.
func checkPartials(t *testing.T, when string, s *disk.Store) {
	t.Helper()
	for _, b := range [][]byte{layer, parked, sealed} {
		p, err := s.Partial(storetest.SHA256(b))
		if err != nil {
			t.Errorf("%s: Partial: %v", when, err)
			continue
		}
		st, ok := p.Meta()
		for _, r := range st.Have {
			got := make([]byte, r[1]-r[0])
			if _, err := p.File().ReadAt(got, r[0]); err != nil || !bytes.Equal(got, b[r[0]:r[1]]) {
				t.Errorf("%s: range %v of a partial file is not what was written: %v", when, r, err)
			}
		}
		if info, err := p.File().Stat(); err != nil || !ok && info.Size() > 0 {
			t.Errorf("%s: partial file without state has %d bytes, %v; want 0", when, info.Size(), err)
		}
		if err := p.Release(); err != nil {
			t.Errorf("%s: Release: %v", when, err)
		}
	}
}

// checkClean fails the test if anything but blobs is left after a sweep.
func checkClean(t *testing.T, when, dir string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(dir, "partial"))
	if err != nil || len(left) > 0 {
		t.Errorf("%s: partial has %v, %v; want nothing", when, left, err)
	}
}

func TestFullDiskAtAnyStep(t *testing.T) {
	causes := []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EDQUOT}
	for cut := 0; ; cut++ {
		dir := t.TempDir()
		s, err := disk.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, settled)
		want, n, at := causes[cut%len(causes)], 0, ""
		s.SetFault(func(step disk.Step, name string) error {
			if n++; n-1 == cut {
				at = fmt.Sprintf("%s of %s", step, filepath.Base(name))
				return want
			}
			return nil
		})
		err = work(s, func(string) {})
		if err != nil && !errors.Is(err, want) {
			t.Errorf("%s: error %q is not %q", at, err, want)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: Close: %v", at, err)
		}
		if at == "" {
			return // there are no more steps
		}
		checkAfterCrash(t, fmt.Sprintf("%v at %s", want, at), dir, allSaid(err))
	}
}

// allSaid says that everything was done when there was no error: the one that could
// not be removed is metadata of a committed blob, which is swept later.
func allSaid(err error) []string {
	if err != nil {
		return nil
	}
	return []string{"put", "commit", "commit512", "settled", "removed"}
}

// event is a step as the store took it.
type event struct {
	step disk.Step
	name string
}

func TestNamesAppearOnlyAfterTheirBytesAreSynced(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var log []event
	s.SetFault(func(step disk.Step, name string) error {
		log = append(log, event{step, name})
		return nil
	})
	if err := work(s, func(string) { log = append(log, event{"done", ""}) }); err != nil {
		t.Fatal(err)
	}
	var renames, together int
	for i, e := range log {
		if e.step != disk.StepRename || !strings.HasPrefix(e.name, "blobs/") {
			continue
		}
		renames++
		if i < 2 || lastBefore(log[:i], disk.StepSync) < lastBefore(log[:i], disk.StepWrite) {
			t.Errorf("rename to %s comes after a write that was not synced", e.name)
		}
		after := log[i+1:]
		alone := slices.Index(after, event{disk.StepSyncDir, filepath.Dir(e.name)})
		all := slices.Index(after, event{disk.StepSyncAll, "."})
		done := slices.Index(after, event{"done", ""})
		if all >= 0 && all < done {
			together++
		} else if alone < 0 || done < alone {
			t.Errorf("commit of %s returned before its folder was synced", e.name)
		}
	}
	if renames != len(smalls())+4 || together != len(smalls())+1 {
		t.Errorf("saw %d renames to blobs, %d of them synced by one call; want %d, and all that settles", renames, together, len(smalls())+4)
	}
}

func lastBefore(log []event, step disk.Step) int {
	for i, e := range slices.Backward(log) {
		if e.step == step && !strings.HasSuffix(e.name, ".json.tmp") {
			return i
		}
	}
	return -1
}

// written returns a partial file that has all of layer.
func written(t *testing.T, s *disk.Store) (v1.Hash, *disk.Partial) {
	t.Helper()
	d := storetest.SHA256(layer)
	p, err := s.Partial(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt(layer, 0); err != nil {
		t.Fatal(err)
	}
	return d, p
}

func TestFailedSyncIsFinal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fail := true
	s.SetFault(func(step disk.Step, _ string) error {
		if step == disk.StepSync && fail {
			return syscall.EIO
		}
		return nil
	})
	d, p := written(t, s)
	if err := p.SaveMeta(disk.State{Size: int64(len(layer)), Have: [][2]int64{{0, int64(len(layer))}}}); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(int64(len(layer))); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Commit: %v, want %v", err, syscall.EIO)
	}
	fail = false // the kernel reports a lost write once; the bytes are lost all the same
	if err := p.Commit(int64(len(layer))); !errors.Is(err, syscall.EIO) {
		t.Errorf("second Commit: %v, want %v again", err, syscall.EIO)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if s.HasPartial(d) {
		t.Error("bytes that the disk lost are kept for a resume")
	}
}

func TestUnsyncedNameIsTakenBack(t *testing.T) {
	s := open(t, t.TempDir())
	d := storetest.SHA256(layer)
	s.SetFault(func(step disk.Step, name string) error {
		if step == disk.StepSyncDir && filepath.Base(name) == d.Hex[:2] {
			return syscall.EIO
		}
		return nil
	})
	p, err := s.Partial(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt(layer, 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(int64(len(layer))); !errors.Is(err, syscall.EIO) {
		t.Errorf("Commit: %v, want %v", err, syscall.EIO)
	}
	if err := p.Discard(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Put(d, layer), settle(s)); !errors.Is(err, syscall.EIO) {
		t.Errorf("Put: %v, want %v", err, syscall.EIO)
	}
	// Nobody would index the blob, so that it would never be evicted.
	if _, err := s.Stat(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat after both: %v, want not exist", err)
	}
}

// A folder that cannot be opened for want of a descriptor costs the blob nothing: its name stays, and
// is synced when there is one.
func TestNameThatLacksADescriptorIsSyncedLater(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := storetest.SHA256(layer)
	without := true
	s.SetFault(func(step disk.Step, _ string) error {
		if without && (step == disk.StepSyncDir || step == disk.StepSyncAll) {
			return syscall.EMFILE
		}
		return nil
	})
	if err := s.Put(d, layer); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if lost, err := s.Settle(); !errors.Is(err, syscall.EMFILE) || len(lost) > 0 {
			t.Errorf("without descriptors Settle lost %v, %v", lost, err)
		}
		if size, err := s.Stat(d); err != nil || size != int64(len(layer)) {
			t.Errorf("without descriptors Stat = %d, %v", size, err)
		}
	}
	without = false
	if lost, err := s.Settle(); err != nil || len(lost) > 0 {
		t.Errorf("with descriptors Settle lost %v, %v", lost, err)
	}
	if files, _ := s.Unsettled(); files != 0 {
		t.Errorf("%d files have not settled", files)
	}
	if got, err := os.ReadFile(blobPath(dir, d)); err != nil || !bytes.Equal(got, layer) {
		t.Errorf("the blob has %d bytes, %v", len(got), err)
	}
}

// Who commits a fill and is told that there was no descriptor for it can do so again.
func TestCommitThatLacksADescriptorIsDoneAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d, p := written(t, s)
	without := true
	s.SetFault(func(step disk.Step, _ string) error {
		if without && (step == disk.StepSyncDir || step == disk.StepSyncAll) {
			return syscall.EMFILE
		}
		return nil
	})
	if err := p.Commit(int64(len(layer))); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("without descriptors Commit = %v", err)
	}
	without = false
	if err := p.Commit(int64(len(layer))); err != nil {
		t.Errorf("with descriptors Commit = %v", err)
	}
	if got, err := os.ReadFile(blobPath(dir, d)); err != nil || !bytes.Equal(got, layer) {
		t.Errorf("the blob has %d bytes, %v", len(got), err)
	}
}
