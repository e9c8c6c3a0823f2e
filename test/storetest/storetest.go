// Package storetest says what a blob store must do, as tests that every store runs.
package storetest

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/zeebo/blake3"

	"forebay/cache/disk"
)

// Store is a blob store as the cache uses it. A store's own test adapts its type to it
// where return types differ.
type Store interface {
	Blob(d v1.Hash) (io.ReadSeekCloser, int64, error)
	Stat(d v1.Hash) (int64, error)
	Get(d v1.Hash, limit int64) ([]byte, error)
	Put(d v1.Hash, b []byte) error
	Remove(d v1.Hash) error
	Walk(fn func(d v1.Hash, size int64, modTime time.Time) error) error
	Partial(d v1.Hash) (Partial, error)
	HasPartial(d v1.Hash) bool
	SweepPartials(olderThan time.Time) (int, error)
	Close() error
}

// Partial is a blob being filled.
type Partial interface {
	WriteAt(b []byte, off int64) (int, error)
	Flush(off, n int64) error
	Meta() (disk.State, bool)
	SaveMeta(st disk.State) error
	OpenReader() (io.ReadSeekCloser, error)
	Commit(size int64) error
	Discard() error
	Release() error
}

// Open opens the store whose content is kept under dir. It is called again with the same
// dir after a Close, as a program that is started again.
type Open func(t *testing.T, dir string) Store

// TestStore runs every test against stores that open makes.
func TestStore(t *testing.T, open Open) {
	tests := []struct {
		name string
		test func(t *testing.T, s *subject)
	}{
		{"what is put is there", testPut},
		{"put refuses other content", testPutMismatch},
		{"get reads no more than its limit", testGetLimit},
		{"names are checked", testNames},
		{"remove", testRemove},
		{"removed blob stays readable", testRemoveWhileReading},
		{"walk names every blob once", testWalk},
		{"walk stops at an error", testWalkStops},
		{"commit makes a blob", testCommit},
		{"commit of an empty blob", testCommitEmpty},
		{"commit refuses another length", testCommitLength},
		{"commit over a blob", testCommitTwice},
		{"partial is not a blob", testPartialIsNoBlob},
		{"partial has one owner", testPartialExclusive},
		{"discard leaves nothing", testDiscard},
		{"release and resume", testResume},
		{"resume after restart", testResumeAfterRestart},
		{"release without state leaves nothing", testReleaseWithoutState},
		{"nonsense state is not resumed", testNonsenseState},
		{"ended partial refuses", testEnded},
		{"readers go on during commit", testReadersDuringCommit},
		{"reader opens after commit", testReaderAfterCommit},
		{"sweep spares what is in use", testSweep},
		{"many at once", testConcurrent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &subject{t: t, open: open, dir: t.TempDir()}
			s.Store = open(t, s.dir)
			t.Cleanup(func() {
				if err := s.Store.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			tt.test(t, s)
		})
	}
}

// subject is the store under test.
type subject struct {
	Store
	t    *testing.T
	open Open
	dir  string
}

func (s *subject) restart() {
	s.t.Helper()
	if err := s.Close(); err != nil {
		s.t.Fatalf("Close: %v", err)
	}
	s.Store = s.open(s.t, s.dir)
}

// SHA256 and SHA512 return the digest of b.
func SHA256(b []byte) v1.Hash {
	h := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h[:])}
}

// SHA512 returns the digest of b.
func SHA512(b []byte) v1.Hash {
	h := sha512.Sum512(b)
	return v1.Hash{Algorithm: "sha512", Hex: hex.EncodeToString(h[:])}
}

// BLAKE3 returns the digest of b.
func BLAKE3(b []byte) v1.Hash {
	h := blake3.Sum256(b)
	return v1.Hash{Algorithm: "blake3", Hex: hex.EncodeToString(h[:])}
}

// digests are those that a store must know.
var digests = []func([]byte) v1.Hash{SHA256, SHA512, BLAKE3}

func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (s *subject) partial(d v1.Hash) Partial {
	s.t.Helper()
	p, err := s.Partial(d)
	if err != nil {
		s.t.Fatalf("Partial(%s): %v", d, err)
	}
	s.t.Cleanup(func() { _ = p.Discard() })
	return p
}

func (s *subject) write(p Partial, b []byte, off int64) {
	s.t.Helper()
	if n, err := p.WriteAt(b, off); err != nil || n != len(b) {
		s.t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(b), off, n, err)
	}
}

func (s *subject) fill(b []byte) v1.Hash {
	s.t.Helper()
	d := SHA256(b)
	p := s.partial(d)
	s.write(p, b, 0)
	if err := p.Commit(int64(len(b))); err != nil {
		s.t.Fatalf("Commit: %v", err)
	}
	return d
}

// has fails the test unless d can be read in every way and has the bytes want.
func (s *subject) has(d v1.Hash, want []byte) {
	s.t.Helper()
	f, size, err := s.Blob(d)
	if err != nil {
		s.t.Errorf("Blob(%s): %v, want it", d, err)
		return
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || size != int64(len(want)) || !bytes.Equal(got, want) {
		s.t.Errorf("Blob(%s) has %d bytes, size %d, %v; want the %d that were put", d, len(got), size, err, len(want))
	}
	if size, err := s.Stat(d); err != nil || size != int64(len(want)) {
		s.t.Errorf("Stat(%s) = %d, %v; want %d", d, size, err, len(want))
	}
	if b, err := s.Get(d, int64(len(want))); err != nil || !bytes.Equal(b, want) {
		s.t.Errorf("Get(%s) has %d bytes, %v; want the %d that were put", d, len(b), err, len(want))
	}
}

// lacks fails the test unless d is absent in every way.
func (s *subject) lacks(d v1.Hash) {
	s.t.Helper()
	if f, _, err := s.Blob(d); !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("Blob(%s): %v, want not exist", d, err)
		if err == nil {
			_ = f.Close()
		}
	}
	if _, err := s.Stat(d); !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("Stat(%s): %v, want not exist", d, err)
	}
	if _, err := s.Get(d, 1<<20); !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("Get(%s): %v, want not exist", d, err)
	}
	for name := range s.walk() {
		if name == d {
			s.t.Errorf("Walk names %s, want it absent", d)
		}
	}
}

func (s *subject) walk() map[v1.Hash]int64 {
	s.t.Helper()
	found := map[v1.Hash]int64{}
	err := s.Walk(func(d v1.Hash, size int64, modTime time.Time) error {
		if _, ok := found[d]; ok {
			s.t.Errorf("Walk names %s twice", d)
		}
		if age := time.Since(modTime); age < -time.Minute || age > time.Hour {
			s.t.Errorf("Walk says that %s was made %v ago, want a moment", d, age)
		}
		found[d] = size
		return nil
	})
	if err != nil {
		s.t.Fatalf("Walk: %v", err)
	}
	return found
}

func testPut(t *testing.T, s *subject) {
	for _, digest := range digests {
		for _, n := range []int{0, 1, 70_000} {
			b := content(1, n)
			d := digest(b)
			s.lacks(d)
			for range 2 { // the second does nothing
				if err := s.Put(d, b); err != nil {
					t.Fatalf("Put(%s): %v", d, err)
				}
				s.has(d, b)
			}
		}
	}
	s.restart()
	s.has(SHA512(content(1, 70_000)), content(1, 70_000))
}

func testPutMismatch(t *testing.T, s *subject) {
	for _, digest := range digests {
		d := digest([]byte("right"))
		if err := s.Put(d, []byte("wrong")); !errors.Is(err, disk.ErrMismatch) {
			t.Errorf("Put of other content: %v, want %v", err, disk.ErrMismatch)
		}
		s.lacks(d)
	}
}

func testGetLimit(t *testing.T, s *subject) {
	b := content(1, 100)
	if err := s.Put(SHA256(b), b); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(SHA256(b), 99); err == nil {
		t.Errorf("Get of 100 bytes with limit 99 = %d bytes, want an error", len(got))
	}
}

// badNames must never become file names.
func badNames() []v1.Hash {
	hex64 := SHA256(nil).Hex
	return []v1.Hash{
		{},
		{Algorithm: "sha256"},
		{Hex: hex64},
		{Algorithm: "sha256", Hex: "../../../../etc/passwd"},
		{Algorithm: "sha256", Hex: "../" + hex64[3:]},
		{Algorithm: "sha256", Hex: hex64[:63]},
		{Algorithm: "sha256", Hex: hex64 + "0"},
		{Algorithm: "sha256", Hex: "E" + hex64[1:]},
		{Algorithm: "sha256", Hex: hex64[:63] + "/"},
		{Algorithm: "sha256", Hex: hex64[:63] + "\x00"},
		{Algorithm: "sha256", Hex: hex64[:63] + "."},
		{Algorithm: "sha512", Hex: hex64},
		{Algorithm: "blake3", Hex: hex64[:62]},
		{Algorithm: "..", Hex: hex64},
		{Algorithm: "sha256/..", Hex: hex64},
		{Algorithm: "md5", Hex: hex64[:32]},
	}
}

func testNames(t *testing.T, s *subject) {
	for _, d := range badNames() {
		if f, _, err := s.Blob(d); err == nil {
			_ = f.Close()
			t.Errorf("Blob(%q) works, want an error", d)
		}
		if _, err := s.Stat(d); err == nil {
			t.Errorf("Stat(%q) works, want an error", d)
		}
		if _, err := s.Get(d, 1); err == nil {
			t.Errorf("Get(%q) works, want an error", d)
		}
		if err := s.Put(d, nil); err == nil {
			t.Errorf("Put(%q) works, want an error", d)
		}
		if err := s.Remove(d); err == nil {
			t.Errorf("Remove(%q) works, want an error", d)
		}
		if s.HasPartial(d) {
			t.Errorf("HasPartial(%q) is true", d)
		}
		if p, err := s.Partial(d); err == nil {
			_ = p.Discard()
			t.Errorf("Partial(%q) works, want an error", d)
		}
	}
}

func testRemove(t *testing.T, s *subject) {
	d := s.fill(content(1, 10))
	for range 2 { // removing what is gone is no error
		if err := s.Remove(d); err != nil {
			t.Errorf("Remove: %v", err)
		}
		s.lacks(d)
	}
	s.fill(content(1, 10))
	s.has(d, content(1, 10))
}

func testRemoveWhileReading(t *testing.T, s *subject) {
	want := content(1, 100_000)
	d := s.fill(want)
	f, _, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Remove(d); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("open blob has %d bytes, %v after Remove; want all %d", len(got), err, len(want))
	}
}

func testWalk(t *testing.T, s *subject) {
	want := map[v1.Hash]int64{}
	for i := range 40 {
		b := content(uint64(i), i)
		d := digests[i%2](b)
		if err := s.Put(d, b); err != nil {
			t.Fatal(err)
		}
		want[d] = int64(i)
	}
	s.write(s.partial(SHA256([]byte("filling"))), []byte("fil"), 0)
	if diff := cmp.Diff(want, s.walk()); diff != "" {
		t.Errorf("Walk (-want +got)\n%s", diff)
	}
}

func testWalkStops(t *testing.T, s *subject) {
	for i := range 5 {
		s.fill(content(uint64(i), 5))
	}
	stop, n := errors.New("stop"), 0
	err := s.Walk(func(v1.Hash, int64, time.Time) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("Walk = %v after %d blobs, want the error of the first", err, n)
	}
}

func testConcurrent(t *testing.T, s *subject) {
	var all [][]byte
	for i := range 20 {
		all = append(all, content(uint64(i), 1000+i))
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			order := slices.Clone(all)
			rand.New(rand.NewPCG(uint64(worker), 2)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, b := range order {
				if err := s.keep(b, worker%2 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, b := range all {
		s.has(SHA256(b), b)
	}
	if got := s.walk(); len(got) != len(all) {
		t.Errorf("Walk finds %d blobs, want %d", len(got), len(all))
	}
}

// keep puts or fills b; somebody else may be filling it.
func (s *subject) keep(b []byte, put bool) error {
	d := SHA256(b)
	if put {
		return s.Put(d, b)
	}
	p, err := s.Partial(d)
	if errors.Is(err, disk.ErrInUse) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = p.WriteAt(b, 0)
	if err == nil {
		err = p.Commit(int64(len(b)))
	}
	return errors.Join(err, p.Discard())
}
