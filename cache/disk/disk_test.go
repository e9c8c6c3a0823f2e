package disk_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"

	"forebay/cache/disk"
	"forebay/internal/sums"
	"forebay/test/storetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	goleak.VerifyTestMain(m)
}

// adapter gives a Store the types of the conformance suite. With seals fills are sealed.
type adapter struct {
	*disk.Store
	seals bool
}

func (a adapter) Put(d v1.Hash, b []byte) error {
	return errors.Join(a.Store.Put(d, b), settle(a.Store))
}

func settle(s *disk.Store) error {
	_, err := s.Settle()
	return err
}

func (a adapter) Blob(d v1.Hash) (io.ReadSeekCloser, int64, error) {
	f, n, err := a.Store.Blob(d)
	if err != nil {
		return nil, 0, err
	}
	return f, n, nil
}

func (a adapter) Partial(d v1.Hash) (storetest.Partial, error) {
	p, err := a.Store.Partial(d)
	if err != nil {
		return nil, err
	}
	return partialAdapter{p, a}, nil
}

type partialAdapter struct {
	*disk.Partial
	of adapter
}

func (a partialAdapter) Commit(size int64) error {
	if !a.of.seals {
		return a.Partial.Commit(size)
	}
	return errors.Join(a.Seal(size), settle(a.of.Store))
}

func (a partialAdapter) OpenReader() (io.ReadSeekCloser, error) {
	f, err := a.Partial.OpenReader()
	if err != nil {
		return nil, err
	}
	return f, nil
}

func TestConformance(t *testing.T) {
	for name, seals := range map[string]bool{"committed": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			storetest.TestStore(t, func(t *testing.T, dir string) storetest.Store {
				s, err := disk.Open(dir, nil)
				if err != nil {
					t.Fatalf("Open: %v", err)
				}
				return adapter{s, seals}
			})
		})
	}
}

func open(t testing.TB, dir string) *disk.Store {
	t.Helper()
	s, err := disk.Open(dir, nil)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func blobPath(dir string, d v1.Hash) string {
	return filepath.Join(dir, "blobs", d.Algorithm, d.Hex[:2], d.Hex)
}

func partialPath(dir string, d v1.Hash) string {
	return filepath.Join(dir, "partial", d.Algorithm+"-"+d.Hex)
}

func put(t testing.TB, s *disk.Store, content string) v1.Hash {
	t.Helper()
	d := storetest.SHA256([]byte(content))
	if err := errors.Join(s.Put(d, []byte(content)), settle(s)); err != nil {
		t.Fatalf("Put: %v", err)
	}
	return d
}

func TestFolderHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, err := disk.Open(dir, nil)
	if !errors.Is(err, disk.ErrLocked) {
		t.Fatalf("second Open: %v, want %v", err, disk.ErrLocked)
	}
	for _, want := range []string{dir, fmt.Sprintf("process %d ", os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("second Open: %q, want it to name %q", err, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestFolderOfAnotherProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+dir, childJob+"=hold")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "open\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	_, err = disk.Open(dir, nil)
	want := fmt.Sprintf("process %d ", c.Process.Pid)
	if !errors.Is(err, disk.ErrLocked) || !strings.Contains(err.Error(), want) {
		t.Errorf("Open: %v, want it refused for %s", err, want)
	}
	if err := c.Process.Kill(); err != nil { // leaves the lock file
		t.Fatal(err)
	}
	_, _ = stdin.Close(), c.Wait()
	if _, err := os.Stat(filepath.Join(dir, "forebay.lock")); err != nil {
		t.Errorf("lock file of the killed child: %v, want it left", err)
	}
	open(t, dir)
}

func TestOpenNeedsAFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Open(file, nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Open of a file: %v, want an error that names it", err)
	}
}

func TestOpenRemovesLeftovers(t *testing.T) {
	dir := t.TempDir()
	d := storetest.SHA256([]byte("x"))
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".abc.tmp", ".json.tmp", ".gone"} {
		if err := os.WriteFile(partialPath(dir, d)+name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
	left, err := os.ReadDir(filepath.Join(dir, "partial"))
	if err != nil || len(left) != 0 {
		t.Errorf("partial has %v, %v after Open; want nothing", left, err)
	}
}

func TestBlobsAreReadOnlyAndPrivate(t *testing.T) {
	dir := t.TempDir()
	d := put(t, open(t, dir), "x")
	for name, want := range map[string]fs.FileMode{
		blobPath(dir, d):            0o444,
		filepath.Join(dir, "blobs"): fs.ModeDir | 0o700,
	} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

// secret is a file outside the store that no name may lead to.
func secret(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestForeignThingsAreNoBlobs(t *testing.T) {
	outside := secret(t)
	plant := map[string]func(name, other string) error{
		"link out":  func(name, _ string) error { return os.Symlink(outside, name) },
		"link in":   func(name, other string) error { return os.Symlink(other, name) },
		"dead link": func(name, _ string) error { return os.Symlink("nowhere", name) },
		"pipe":      func(name, _ string) error { return syscall.Mkfifo(name, 0o600) },
	}
	for name, plant := range plant {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			d, other := put(t, s, "x"), put(t, s, "other")
			if err := os.Remove(blobPath(dir, d)); err != nil {
				t.Fatal(err)
			}
			if err := plant(blobPath(dir, d), blobPath(dir, other)); err != nil {
				t.Fatal(err)
			}
			f, _, err := s.Blob(d)
			if !errors.Is(err, disk.ErrForeign) || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Blob: %v, want %v and not exist", err, disk.ErrForeign)
			}
			if err == nil {
				_ = f.Close()
			}
			if _, err := s.Stat(d); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Stat: %v, want not exist", err)
			}
			if u, err := s.Usage(); err != nil || u.Blobs != 1 {
				t.Errorf("Usage = %+v, %v; want the other blob alone", u, err)
			}
			put(t, s, "x") // heals
			if b, err := s.Get(d, 10); err != nil || string(b) != "x" {
				t.Errorf("Get after Put = %q, %v; want x", b, err)
			}
		})
	}
}

func TestFolderInPlaceOfABlob(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := storetest.SHA256([]byte("x"))
	inside := filepath.Join(blobPath(dir, d), "something of somebody")
	if err := os.MkdirAll(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Blob(d); !errors.Is(err, disk.ErrForeign) {
		t.Errorf("Blob: %v, want %v", err, disk.ErrForeign)
	}
	if err := errors.Join(s.Put(d, []byte("x")), settle(s)); err == nil {
		t.Error("Put over a folder works, want an error")
	}
	if left, err := os.ReadDir(filepath.Join(dir, "partial")); err != nil || len(left) > 0 {
		t.Errorf("partial has %v, %v; want nothing", left, err)
	}
	if err := os.Remove(inside); err != nil {
		t.Fatal(err)
	}
	put(t, s, "x") // an empty one is nobody's
}

func TestFoldersNeverLeadOut(t *testing.T) {
	outside := t.TempDir()
	dir := t.TempDir()
	s := open(t, dir)
	d := storetest.SHA256([]byte("x"))
	shard := filepath.Dir(blobPath(dir, d))
	if err := os.Symlink(outside, shard); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, d.Hex), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, _, err := s.Blob(d); err == nil {
		_ = f.Close()
		t.Error("Blob behind a link out of the folder works, want an error")
	}
	if err := s.Remove(d); err == nil {
		t.Error("Remove behind a link out of the folder works, want an error")
	}
	p, err := s.Partial(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt([]byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(1); err == nil {
		t.Error("Commit behind a link out of the folder works, want an error")
	}
	if err := p.Discard(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(outside, d.Hex)); err != nil || string(b) != "x" {
		t.Errorf("file outside = %q, %v; want it untouched", b, err)
	}
}

func TestForeignPartialIsReplaced(t *testing.T) {
	outside := secret(t)
	dir := t.TempDir()
	s := open(t, dir)
	d := storetest.SHA256([]byte("x"))
	for _, name := range []string{partialPath(dir, d), partialPath(dir, d) + ".json"} {
		if err := os.Symlink(outside, name); err != nil {
			t.Fatal(err)
		}
	}
	p, err := s.Partial(d)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Discard()
	if _, err := p.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.SaveMeta(disk.State{Size: 1}); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(1); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "secret" {
		t.Errorf("file outside = %q, %v; want it untouched", b, err)
	}
}

func TestDamagedMetadataStartsAfresh(t *testing.T) {
	for _, meta := range []string{"", "{", "null", `{"size":"x"}`, `{"size":3,"have":[[0,9]]}`, `{"size":1,"have":[]}`, strings.Repeat(" ", 2<<20)} {
		t.Run(fmt.Sprintf("%.20q", meta), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			d := storetest.SHA256([]byte("new"))
			if err := os.WriteFile(partialPath(dir, d), []byte("stale"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(partialPath(dir, d)+".json", []byte(meta), 0o600); err != nil {
				t.Fatal(err)
			}
			p, err := s.Partial(d)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Discard()
			if st, ok := p.Meta(); ok {
				t.Errorf("Meta = %+v, want none", st)
			}
			if info, err := p.File().Stat(); err != nil || info.Size() != 0 {
				t.Errorf("file has %d bytes, %v; want 0", info.Size(), err)
			}
		})
	}
}

func TestUnnamedContentGetsItsNameAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	s, err := disk.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := storetest.SHA256([]byte("x"))
	for range 2 { // the second replaces the first, and one more stays as a kill leaves it
		p, err := s.Unnamed()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		if err := p.CommitAs(v1.Hash{Algorithm: "sha256", Hex: "../../x"}, 1); err == nil {
			t.Error("CommitAs of what is no digest works")
		}
		if err := p.CommitAs(d, 1); err != nil {
			t.Fatal(err)
		}
		if b, err := s.Get(d, 10); err != nil || string(b) != "x" {
			t.Errorf("Get = %q, %v", b, err)
		}
	}
	if _, err := s.Unnamed(); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Usage(); err != nil || u.Partials != 1 {
		t.Errorf("Usage = %+v, %v, want the file that is on its way", u, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if u, err := open(t, dir).Usage(); err != nil || u.Partials != 0 || u.Blobs != 1 {
		t.Errorf("Usage after a kill = %+v, %v, want the one blob", u, err)
	}
}

func TestPartialKilledInCommitIsResumed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := storetest.SHA256([]byte("x"))
	if err := os.WriteFile(partialPath(dir, d), []byte("x"), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(partialPath(dir, d)+".json", []byte(`{"size":1,"have":[[0,1]]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := s.Partial(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := p.Meta(); !ok {
		t.Error("Meta has nothing, want the state of the killed fill")
	}
	if _, err := p.WriteAt([]byte("x"), 0); err != nil {
		t.Errorf("WriteAt: %v", err)
	}
	if err := p.Commit(1); err != nil {
		t.Errorf("Commit: %v", err)
	}
}

func TestPutReplacesRottenBlob(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := put(t, s, "good")
	for _, rotten := range []string{"rott", "", "good and more"} {
		if err := os.Remove(blobPath(dir, d)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blobPath(dir, d), []byte(rotten), 0o444); err != nil {
			t.Fatal(err)
		}
		put(t, s, "good")
		if b, err := s.Get(d, 10); err != nil || string(b) != "good" {
			t.Errorf("Get after Put over %q = %q, %v; want good", rotten, b, err)
		}
	}
}

func TestShardRemovedUnderOurFeetIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := put(t, s, "x")
	if err := os.RemoveAll(filepath.Dir(blobPath(dir, d))); err != nil {
		t.Fatal(err)
	}
	put(t, s, "x")
	if _, err := s.Stat(d); err != nil {
		t.Errorf("Stat: %v, want it back", err)
	}
}

func TestPartialFolderRemovedUnderOurFeetIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for what, do := range map[string]func() error{
		"Put":   func() error { put(t, s, "x"); return nil },
		"Probe": s.Probe,
		"Partial": func() error {
			p, err := s.Partial(storetest.SHA256([]byte("y")))
			if err != nil {
				return err
			}
			if _, err := p.WriteAt([]byte("y"), 0); err != nil {
				return err
			}
			return p.Commit(1)
		},
	} {
		if err := os.RemoveAll(filepath.Join(dir, "partial")); err != nil {
			t.Fatal(err)
		}
		if err := do(); err != nil {
			t.Errorf("%s without the folder of partial files: %v, want it made again", what, err)
		}
	}
}

func TestUsageCountsSpaceNotGaps(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "12345")
	p, err := s.Partial(storetest.SHA256([]byte("sparse")))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Discard()
	if _, err := p.WriteAt([]byte("end"), 1<<30); err != nil {
		t.Fatal(err)
	}
	u, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if u.Blobs != 1 || u.BlobBytes != 5 || u.Partials != 1 || u.PartialBytes > 1<<20 {
		t.Errorf("Usage = %+v, want 1 blob of 5 bytes and 1 partial of a few KiB", u)
	}
	free, total, err := s.Free()
	if err != nil || free == 0 || free > total {
		t.Errorf("Free = %d of %d, %v", free, total, err)
	}
}

func TestWalkPassesOverStrangers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := put(t, s, "x")
	shard := filepath.Dir(blobPath(dir, d))
	misplaced := storetest.SHA256([]byte("misplaced"))
	for _, name := range []string{"README", d.Hex + ".bak", misplaced.Hex} {
		if err := os.WriteFile(filepath.Join(shard, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []v1.Hash
	err := s.Walk(func(d v1.Hash, _ int64, _ time.Time) error { got = append(got, d); return nil })
	if err != nil || len(got) != 1 || got[0] != d {
		t.Errorf("Walk = %v, %v; want %s alone", got, err, d)
	}
}

func BenchmarkBlob(b *testing.B) {
	s := open(b, b.TempDir())
	d := put(b, s, "x")
	for b.Loop() {
		f, _, err := s.Blob(d)
		if err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
}

func BenchmarkPut(b *testing.B) {
	s := open(b, b.TempDir())
	n := 0
	for b.Loop() {
		n++
		put(b, s, fmt.Sprint(n))
	}
}

// What was put before a kill and cannot be given its name, as on a full disk, is lost, and no
// reason not to start.
func TestStartsWithWhatItCannotTakeIn(t *testing.T) {
	dir, killed := t.TempDir(), filepath.Join(t.TempDir(), "killed")
	s := open(t, dir)
	content := []byte("put before the kill")
	d, err := sums.Of("sha256", content)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(d, content); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed, "blobs", "sha256", d.Hex[:2]), nil, 0o600); err != nil { // where its folder belongs
		t.Fatal(err)
	}
	again, err := disk.Open(killed, nil)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	defer again.Close()
	if _, _, err := again.Blob(d); err == nil {
		t.Error("the blob is there, though its folder is a file")
	}
	left, err := filepath.Glob(filepath.Join(killed, "partial", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}
