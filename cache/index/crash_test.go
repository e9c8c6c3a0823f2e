package index

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"

	"forebay/cache/index/journal"
	"forebay/cache/index/row"
)

// childDir makes the test binary a process that uses the index there and gets killed.
const childDir = "FOREBAY_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(folder{dir: filepath.Join(dir, "index"), journal: filepath.Join(dir, "refs.journal")}))
	}
	goleak.VerifyTestMain(m)
}

// The small world of random operations: few names, so that they meet.
var (
	someRepos   = []Repo{{Upstream: "docker.io", Name: "a"}, {Upstream: "docker.io", Name: "a/b"}, {Upstream: "ghcr.io", Name: "a"}}
	someKinds   = []Kind{Manifest, Blob}
	someTags    = []string{"latest", "1", "1.0"}
	someDigests = []v1.Hash{digest("0"), digest("1"), digest("2"), digest("3"), digest("4"), sha512Digest("5"), sha512Digest("6")}
)

func sha512Digest(s string) v1.Hash {
	return v1.Hash{Algorithm: "sha512", Hex: digest(s).Hex + digest(s+"'").Hex}
}

func slice(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func linkName(r Repo, k Kind, d v1.Hash) string { return fmt.Sprint(r, " ", k, " ", d) }

// snapshot copies an open index as a kill at this moment would leave it.
func snapshot(t *testing.T, f folder) folder {
	t.Helper()
	to := newFolder(t)
	if err := os.CopyFS(to.dir, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.journal)
	if err == nil {
		err = os.WriteFile(to.journal, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func TestChangesThatOnlyTheJournalHasAreMadeAtStart(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	d := digest("a")
	update(t, ix, putBlob(d, 1), putLink(nginx, Blob, d, 1), putTag(nginx, "old", d, 1))
	crash := snapshot(t, f)
	// As if killed between the journal and the database, with the last line torn.
	lines := slice(journal.UnlinkLine(nginx, Blob, d, at(2)), journal.LinkLine(nginx, Manifest, d, Link{Size: 1, At: at(1)}),
		journal.UntagLine(nginx, "old", at(2)), journal.TagLine(nginx, "new", Tag{Desc: v1.Descriptor{Digest: d}, ChangedAt: at(2)}))
	appendTo(t, crash.journal, append(lines, journal.UntagLine(nginx, "new", at(2))[:20]...))
	for range 2 { // the second start finds nothing more to do
		ix := crash.open(t)
		want := newModel()
		want.links[linkName(nginx, Manifest, d)] = 1
		if _, ok, err := ix.Link(nginx, Blob, d); ok || err != nil {
			t.Errorf("Link that was taken away: %t, %v; want none", ok, err)
		}
		if _, ok, err := ix.Link(nginx, Manifest, d); !ok || err != nil {
			t.Errorf("Link of the journal: %t, %v; want it", ok, err)
		}
		if _, ok, err := ix.Tag(nginx, "old"); ok || err != nil {
			t.Errorf("Tag that was deleted: %t, %v; want none", ok, err)
		}
		if tag, ok, err := ix.Tag(nginx, "new"); !ok || err != nil || !tag.ChangedAt.Equal(at(2)) {
			t.Errorf("Tag of the journal = %+v, %t, %v; want it", tag, ok, err)
		}
		update(t, ix, putTag(nginx, "after", d, 3)) // not glued to the torn line
		if err := ix.Close(); err != nil {
			t.Fatal(err)
		}
	}
	done, err := Rebuild(context.Background(), crash.options(), one(d), nil)
	if err != nil || done.Bad != 1 {
		t.Errorf("Rebuild = %+v, %v; want 1 bad line", done, err)
	}
	ix = crash.open(t)
	if want := (Totals{Blobs: 1, Bytes: 1, Links: 1, Tags: 2, Repositories: 1}); ix.Totals() != want {
		t.Errorf("Totals after Rebuild = %+v, want %+v", ix.Totals(), want)
	}
}

// one is a store of one blob.
func one(d v1.Hash) WalkFunc {
	return func(fn func(v1.Hash, int64, time.Time) error) error { return fn(d, 1, at(0)) }
}

func appendTo(t *testing.T, name string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestLostJournalIsWrittenAnew(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, journal string){
		"removed": func(t *testing.T, j string) {
			if err := os.Remove(j); err != nil {
				t.Fatal(err)
			}
		},
		"emptied": func(t *testing.T, j string) {
			if err := os.Truncate(j, 0); err != nil {
				t.Fatal(err)
			}
		},
		"cut": func(t *testing.T, j string) { // a loss of power: the database was ahead
			if err := os.Truncate(j, journal.HeaderSize+100); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFolder(t)
			ix := f.open(t)
			d := digest("a")
			update(t, ix, putBlob(d, 1), putLink(nginx, Manifest, d, 1), putTag(nginx, "x", d, 1))
			if err := ix.Close(); err != nil {
				t.Fatal(err)
			}
			harm(t, f.journal)
			ix = f.open(t)
			update(t, ix, putTag(nginx, "y", d, 1))
			if err := ix.compactJournal(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := ix.Close(); err != nil {
				t.Fatal(err)
			}
			if done, err := Rebuild(context.Background(), f.options(), one(d), nil); err != nil || done.Bad != 0 {
				t.Errorf("Rebuild = %+v, %v", done, err)
			}
			ix = f.open(t)
			if want := (Totals{Blobs: 1, Bytes: 1, Links: 1, Tags: 2, Repositories: 1}); ix.Totals() != want {
				t.Errorf("Totals = %+v, want %+v", ix.Totals(), want)
			}
		})
	}
}

func TestForeignJournalMeansDamage(t *testing.T) {
	a, b := newFolder(t), newFolder(t)
	d := digest("a")
	for _, f := range []folder{a, b} {
		ix := f.open(t)
		update(t, ix, putLink(nginx, Manifest, d, 1))
		if err := ix.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(b.journal, a.journal); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(a.options()); !errors.Is(err, ErrDamaged) {
		t.Errorf("Open = %v, want %v", err, ErrDamaged)
	}
	ix, err := OpenOrRebuild(context.Background(), a.options(), one(d))
	if err != nil {
		t.Fatal(err)
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestUpdatesDuringCompactionAreKept(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	d := digest("a")
	update(t, ix, putBlob(d, 1))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				r := Repo{Upstream: "docker.io", Name: fmt.Sprint("w", worker)}
				err := ix.Update(func(b *Batch) error {
					return errors.Join(putTag(r, fmt.Sprint(i), d, i)(b), putLink(r, Manifest, d, 1)(b))
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 15 {
		ix.journal.Spoil()
		if err := ix.compactJournal(context.Background()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	want := ix.Totals()
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	if done, err := Rebuild(context.Background(), f.options(), one(d), nil); err != nil || done.Bad+done.Gone > 0 {
		t.Errorf("Rebuild = %+v, %v", done, err)
	}
	if got := f.open(t).Totals(); got != want {
		t.Errorf("Totals after Rebuild = %+v, want %+v", got, want)
	}
}

func TestJournalStaysBounded(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	for i := range 20_000 {
		update(t, ix, putTag(nginx, "moving", digest(fmt.Sprint(i)), i))
		if i%1000 == 0 {
			if err := ix.compactJournal(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if info, err := os.Stat(f.journal); err != nil || info.Size() > 2*journal.Slack {
		t.Errorf("journal of one tag has %d bytes, %v; want at most %d", info.Size(), err, 2*journal.Slack)
	}
}

func TestDamagedIndexDoesNotReplaceTheJournal(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	d := digest("a")
	update(t, ix, putLink(nginx, Manifest, d, 1), putTag(nginx, "x", d, 1))
	key, err := row.LinkKey(nginx, Manifest, d)
	if err != nil {
		t.Fatal(err)
	}
	// As when the database passes over a damaged block.
	if err := ix.db.Update(func(txn *badger.Txn) error { return txn.Delete(key) }); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(f.journal)
	if err != nil {
		t.Fatal(err)
	}
	ix.journal.Spoil()
	if err := ix.compactJournal(context.Background()); !errors.Is(err, ErrDamaged) {
		t.Errorf("compactJournal = %v, want %v", err, ErrDamaged)
	}
	if after, err := os.ReadFile(f.journal); err != nil || !bytes.Equal(before, after) {
		t.Errorf("journal has %d bytes, %v; want the %d from before", len(after), err, len(before))
	}
}

func TestReconcile(t *testing.T) {
	f := newFolder(t)
	m := newModel()
	func() {
		ix := f.open(t)
		for i := range 700 { // several batches
			m.blobs[digest(fmt.Sprint(i))] = int64(i)
		}
		for i := range 300 {
			update(t, ix, putBlob(digest(fmt.Sprint(i)), int64(i)))
		}
		for i := range 300 {
			update(t, ix, putBlob(digest(fmt.Sprint("gone", i)), 5))
		}
		update(t, ix, putBlob(digest("7"), 70)) // of another size
	}()
	crash := snapshot(t, f)
	ix := crash.open(t)
	if !ix.Unclean() {
		t.Error("Unclean after a crash is false")
	}
	added, dropped, err := ix.Reconcile(context.Background(), m)
	if added != 401 || dropped != 300 || err != nil {
		t.Errorf("Reconcile = %d added, %d dropped, %v; want 401 and 300", added, dropped, err)
	}
	m.check(t, "after Reconcile", ix)
	if added, dropped, err := ix.Reconcile(context.Background(), m); added+dropped > 0 || err != nil {
		t.Errorf("second Reconcile = %d added, %d dropped, %v; want nothing", added, dropped, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := ix.Reconcile(ctx, m); !errors.Is(err, context.Canceled) {
		t.Errorf("Reconcile when cancelled = %v, want %v", err, context.Canceled)
	}
}

func TestRebuildThatIsCutLeavesTheIndex(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	d := digest("a")
	update(t, ix, putBlob(d, 1), putTag(nginx, "x", d, 1))
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Rebuild(ctx, f.options(), one(d), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Rebuild = %v, want %v", err, context.Canceled)
	}
	broken := errors.New("broken disk")
	walk := func(func(v1.Hash, int64, time.Time) error) error { return broken }
	if _, err := Rebuild(context.Background(), f.options(), walk, nil); !errors.Is(err, broken) {
		t.Errorf("Rebuild = %v, want %v", err, broken)
	}
	if left, err := filepath.Glob(f.dir + ".*"); err != nil || len(left) > 0 {
		t.Errorf("Rebuild left %v, %v", left, err)
	}
	if _, ok, err := f.open(t).Tag(nginx, "x"); !ok || err != nil {
		t.Errorf("Tag: %t, %v; want it", ok, err)
	}
}

func TestIndexAndJournalLostIsRebuiltFromTheStore(t *testing.T) {
	f := newFolder(t)
	d := digest("a")
	ix, err := OpenOrRebuild(context.Background(), f.options(), one(d))
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	if want := (Totals{Blobs: 1, Bytes: 1}); ix.Totals() != want {
		t.Errorf("Totals = %+v, want %+v", ix.Totals(), want)
	}
}

// child updates the index for ever, saying what is done, or opens it once.
func child(f folder) int {
	ix, err := Open(f.options())
	if err != nil {
		fmt.Println("refused:", errors.Is(err, ErrDamaged), err)
		return 0
	}
	if os.Getenv("FOREBAY_TEST_JOB") == "look" {
		n := 0
		err := ix.Blobs(func(v1.Hash, BlobInfo, time.Time) error { n++; return nil })
		err = errors.Join(err, ix.Update(putBlob(digest("new"), 1)), ix.Close())
		fmt.Println("opened:", n, err)
		return 0
	}
	for i := 0; ; i++ {
		d := digest(fmt.Sprint(i))
		err := ix.Update(func(b *Batch) error {
			return errors.Join(putBlob(d, 1)(b), putLink(nginx, Blob, d, 1)(b), putTag(nginx, "last", d, i)(b))
		})
		if i%50 == 49 {
			ix.journal.Spoil()
			err = errors.Join(err, ix.compactJournal(context.Background()))
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println(i)
	}
}

func TestKilledProcessLosesNothing(t *testing.T) {
	f := newFolder(t)
	var done, most int
	for round := range 8 {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), childDir+"="+filepath.Dir(f.dir))
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewScanner(out)
		for n := 0; in.Scan(); n++ {
			if _, err := fmt.Sscan(in.Text(), &done); err != nil {
				t.Fatalf("round %d: child said %q", round, in.Text())
			}
			if n == 40+round*23 { // at, before and after compactions
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = c.Wait() // killed
		most = max(most, done)
		checkKilled(t, round, f, done, most)
	}
}

// checkKilled opens the index after a kill: every update that was said to be done, most of
// them in any round, is there, and the tag is that of the last one done.
func checkKilled(t *testing.T, round int, f folder, done, most int) {
	t.Helper()
	m := newModel() // the blobs are in the store before they are in the index
	for i := range most + 2 {
		m.blobs[digest(fmt.Sprint(i))] = 1
	}
	// A kill between the rename of a compacted journal and the next commit means a rebuild.
	ix, err := OpenOrRebuild(context.Background(), f.options(), m.walk)
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	defer ix.Close()
	for i := range most + 1 {
		d := digest(fmt.Sprint(i))
		_, blob, err1 := ix.Blob(d)
		_, link, err2 := ix.Link(nginx, Blob, d)
		if !blob || !link || err1 != nil || err2 != nil {
			t.Errorf("round %d: update %d of %d: blob %t, link %t, %v, %v", round, i, most, blob, link, err1, err2)
		}
	}
	if tag, ok, err := ix.Tag(nginx, "last"); !ok || err != nil || tag.Desc.Digest != digest(fmt.Sprint(done)) && tag.Desc.Digest != digest(fmt.Sprint(done+1)) {
		t.Errorf("round %d: tag = %v, %t, %v; want that of update %d", round, tag.Desc.Digest, ok, err, done)
	}
	// Of the update that was cut, the journal may have the link and nobody the blob.
	if got := ix.Totals(); got.Links < int64(most+1) || got.Links > int64(most+2) {
		t.Errorf("round %d: Totals = %+v after update %d", round, got, most)
	}
	if _, _, err := ix.Reconcile(context.Background(), m); err != nil {
		t.Error(err)
	}
	if got := ix.Totals().Blobs; got != int64(len(m.blobs)) {
		t.Errorf("round %d: %d blobs after Reconcile, want %d", round, got, len(m.blobs))
	}
}

func TestDamagedFilesNeverEndTheProcess(t *testing.T) {
	f := newFolder(t)
	ix := f.open(t)
	const blobs = 20_000
	for i := 0; i < blobs; {
		update(t, ix, func(b *Batch) error {
			for range 2000 {
				if err := putBlob(digest(fmt.Sprint(i)), 1)(b); err != nil {
					return err
				}
				i++
			}
			return nil
		})
	}
	if err := ix.Close(); err != nil { // makes tables
		t.Fatal(err)
	}
	ix = f.open(t)
	update(t, ix, putTag(nginx, "x", digest("0"), 1)) // into the log of the memtable
	crashed := snapshot(t, f)
	noise := bytes.Repeat([]byte{0xa7, 0x13}, 64)
	for _, file := range []string{"*.sst", "*.mem", "MANIFEST", "KEYREGISTRY"} {
		for how, harm := range map[string]func(b []byte) []byte{
			"missing":        nil,
			"empty":          func([]byte) []byte { return nil },
			"half":           func(b []byte) []byte { return b[:len(b)/2] },
			"zeros":          func(b []byte) []byte { return make([]byte, len(b)) },
			"noise at start": func(b []byte) []byte { copy(b, noise); return b },
			"noise inside":   func(b []byte) []byte { copy(b[len(b)/3:], noise); return b },
			"noise at end":   func(b []byte) []byte { copy(b[max(0, len(b)-len(noise)):], noise); return b },
			"one bit":        func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		} {
			t.Run(file+" "+how, func(t *testing.T) {
				said := damagedOpen(t, crashed, file, harm)
				refused := strings.HasPrefix(said, "refused: true")
				if !refused && !strings.HasPrefix(said, "opened:") {
					t.Errorf("process said %q, want it opened or refused as damaged", said)
				}
				if file == "*.sst" && !refused {
					t.Errorf("process said %q, want damage in a table noticed", said)
				}
			})
		}
	}
}

// damagedOpen harms a copy of an index and returns what a process says that opens it.
func damagedOpen(t *testing.T, crashed folder, file string, harm func([]byte) []byte) string {
	t.Helper()
	f := snapshot(t, crashed)
	names, err := filepath.Glob(filepath.Join(f.dir, file))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s: %v", file, err)
	}
	if harm == nil {
		err = os.Remove(names[0])
	} else {
		var b []byte
		if b, err = os.ReadFile(names[0]); err == nil {
			err = os.WriteFile(names[0], harm(b), 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+filepath.Dir(f.dir), "FOREBAY_TEST_JOB=look")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("process ended with %v: %.500s", err, out)
	}
	return string(out)
}
