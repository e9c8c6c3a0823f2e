package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/disk"
	"forebay/internal/pull"
)

// script is an upstream of one blob, in memory so that tests run in virtual time. What
// real HTTP does is tested against the test hub.
type script struct {
	Upstream // the methods that fills do not use
	data     []byte
	chunk    int           // bytes per Read
	pace     time.Duration // before every Read
	noRanges bool
	unsized  bool

	mu     sync.Mutex
	opens  [][2]int64
	sent   int64
	faults []fault // taken one per open, in order
}

// fault is what one answer does wrong.
type fault struct {
	err     error // instead of an answer
	cut     int64 // break off after so many bytes; 0 means never
	cleanly bool  // the cut looks like an end
	flip    bool  // one bit of the first byte is wrong
}

func (s *script) OpenBlob(ctx context.Context, _ string, _ v1.Hash, off, end int64) (*pull.Body, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opens = append(s.opens, [2]int64{off, end})
	var f fault
	if len(s.faults) > 0 {
		f, s.faults = s.faults[0], s.faults[1:]
	}
	if f.err != nil {
		return nil, f.err
	}
	size := int64(len(s.data))
	b := &pull.Body{Offset: off, End: size, Size: size, Ranged: off > 0 || end >= 0}
	if end >= 0 {
		b.End = min(end, size)
	}
	if s.noRanges && b.Ranged {
		b.Offset, b.End, b.Ranged = 0, size, false
	}
	data := bytes.Clone(s.data[b.Offset:b.End])
	if f.flip && len(data) > 0 {
		data[0] ^= 1
	}
	if s.unsized {
		b.End, b.Size = -1, -1
	}
	b.ReadCloser = &answer{s: s, ctx: ctx, data: data, fault: f}
	return b, nil
}

type answer struct {
	s     *script
	ctx   context.Context
	data  []byte
	sent  int64
	fault fault
}

func (a *answer) Read(p []byte) (int, error) {
	if a.s.pace > 0 {
		select {
		case <-time.After(a.s.pace):
		case <-a.ctx.Done():
			return 0, a.ctx.Err()
		}
	}
	if a.ctx.Err() != nil {
		return 0, a.ctx.Err()
	}
	if a.fault.cut > 0 && a.sent >= a.fault.cut {
		if a.fault.cleanly {
			return 0, io.EOF
		}
		return 0, io.ErrUnexpectedEOF
	}
	if len(a.data) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(a.data), a.s.chunk)
	if a.fault.cut > 0 {
		n = min(n, int(a.fault.cut-a.sent))
	}
	copy(p, a.data[:n])
	a.data = a.data[n:]
	a.sent += int64(n)
	a.s.mu.Lock()
	a.s.sent += int64(n)
	a.s.mu.Unlock()
	return n, nil
}

func (a *answer) Close() error { return nil }

func blobOf(size int, seed uint64) ([]byte, v1.Hash) {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i+8 <= size; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	sum := sha256.Sum256(b)
	return b, v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// rig is one fill with its store.
type rig struct {
	t     *testing.T
	store *disk.Store
	fill  *fill
	done  chan struct{}
	stop  context.CancelFunc
}

type rigOptions struct {
	parallel int
	hint     int64
	maxBytes int64
	cancel   bool
	dir      string
	sizing   sizing
	fault    disk.Fault
}

// keeper commits and remembers nothing.
type keeper struct{}

func (keeper) commit(f *fill) error { return f.part.Commit(f.size) }
func (keeper) failed(*fill, error)  {}

func startRig(t *testing.T, s *script, d v1.Hash, o rigOptions) *rig {
	t.Helper()
	if s.chunk == 0 {
		s.chunk = 64 << 10
	}
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	if o.parallel == 0 {
		o.parallel = 4
	}
	if o.sizing == (sizing{}) {
		o.sizing = usual
	}
	if o.hint == 0 {
		o.hint = -1
	}
	store, err := disk.Open(o.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	store.SetFault(o.fault)
	f, err := newFill(d, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	from, err := newOrigin(UpstreamOptions{Upstream: s})
	if err != nil {
		t.Fatal(err)
	}
	f.source = source{repo: Repo{Upstream: "docker.io", Name: "library/app"}, origin: from}
	f.maxBytes = o.maxBytes
	ctx, stop := context.WithCancel(context.Background())
	r := &rig{t: t, store: store, fill: f, done: make(chan struct{}), stop: stop}
	f.near = o.sizing.near
	tr := &fetcher{fill: f, sizing: o.sizing, parallel: o.parallel, hint: o.hint, lanes: newLanes(32), exits: make(chan exit), cancel: o.cancel,
		resumes: store.HasPartial(d), open: func() (*disk.Partial, error) { return store.Partial(d) }}
	f.reopen = tr.reader
	if o.cancel {
		f.hold() // before it runs, as the cache does; the test lets go
	}
	go func() {
		defer close(r.done)
		tr.run(ctx, keeper{})
	}()
	return r
}

func (r *rig) close() {
	r.stop()
	<-r.done
	if err := r.store.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) read(off, end int64) ([]byte, error) {
	var b bytes.Buffer
	_, err := r.fill.send(context.Background(), &b, off, end)
	return b.Bytes(), err
}

func TestFillDeliversAndCommits(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 8<<20 - 1, 8 << 20, 8<<20 + 1, 24<<20 + 17} {
		for _, s := range []*script{{}, {noRanges: true}, {unsized: true, noRanges: true}} {
			t.Run(fmt.Sprintf("%d bytes, ranges %t, sized %t", size, !s.noRanges, !s.unsized), func(t *testing.T) {
				data, d := blobOf(size, 1)
				s.data = data
				r := startRig(t, s, d, rigOptions{})
				defer r.close()
				got, err := r.read(0, unknown)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("read = %d bytes, %v, want %d bytes", len(got), err, len(data))
				}
				<-r.done
				f, n, err := r.store.Blob(d)
				if err != nil || n != int64(size) {
					t.Fatalf("store.Blob = %d bytes, %v, want %d", n, err, size)
				}
				f.Close()
				if s.sent > int64(size) {
					t.Errorf("upstream sent %d bytes, want %d", s.sent, size)
				}
			})
		}
	}
}

func TestFillHoldsLastByteUntilVerified(t *testing.T) {
	data, d := blobOf(1<<20, 2)
	wrong := bytes.Clone(data)
	wrong[0] ^= 1
	s := &script{data: wrong}
	r := startRig(t, s, d, rigOptions{})
	defer r.close()
	got, err := r.read(0, unknown)
	if !errors.Is(err, errMismatch) {
		t.Errorf("read = %v, want a mismatch", err)
	}
	if len(got) >= len(data) {
		t.Errorf("reader got %d bytes, want fewer than %d", len(got), len(data))
	}
	<-r.done
	if _, err := r.read(0, unknown); !errors.Is(err, errMismatch) {
		t.Errorf("read by one who joined in time and was slow = %v, want a mismatch", err)
	}
	if _, _, err := r.store.Blob(d); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("store.Blob = %v, want absent", err)
	}
}

func TestFillResumesWhereItStopped(t *testing.T) {
	data, d := blobOf(3<<20, 3)
	s := &script{data: data, faults: []fault{{cut: 1 << 20}, {cut: 1 << 20}, {err: &pull.Error{Kind: pull.Unavailable}}}}
	r := startRig(t, s, d, rigOptions{})
	defer r.close()
	got, err := r.read(0, unknown)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read = %d bytes, %v", len(got), err)
	}
	if s.sent != int64(len(data)) {
		t.Errorf("upstream sent %d bytes, want %d: resumes must not repeat", s.sent, len(data))
	}
}

func TestFillGivesUpWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := blobOf(3<<20, 4)
		s := &script{data: data, faults: []fault{{cut: 1 << 20}}}
		down := &pull.Error{Kind: pull.Unavailable, Message: "gone"}
		for range 20 {
			s.faults = append(s.faults, fault{err: down})
		}
		r := startRig(t, s, d, rigOptions{})
		defer r.close()
		got, err := r.read(0, unknown)
		if !errors.Is(err, down) || len(got) != 1<<20 {
			t.Errorf("read = %d bytes, %v, want %d bytes, %v", len(got), err, 1<<20, down)
		}
		if n := len(s.opens); n != 1+barrenMost {
			t.Errorf("upstream was asked %d times, want %d", n, 1+barrenMost)
		}
	})
}

func TestFillRangeDoesNotWaitForWhatLiesBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := blobOf(64<<20, 5)
		// 64 KiB every 4 ms are 16 MiB/s a connection.
		s := &script{data: data, pace: 4 * time.Millisecond}
		r := startRig(t, s, d, rigOptions{})
		defer r.close()
		<-r.fill.opened
		start := time.Now()
		got, err := r.read(50<<20, 50<<20+4096)
		if err != nil || !bytes.Equal(got, data[50<<20:50<<20+4096]) {
			t.Fatalf("read = %d bytes, %v", len(got), err)
		}
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("far range took %v, want under 50 ms", took)
		}
		all, err := r.read(0, unknown)
		if err != nil || !bytes.Equal(all, data) {
			t.Fatalf("whole read = %d bytes, %v", len(all), err)
		}
		if limit := int64(len(data)) * 102 / 100; s.sent > limit {
			t.Errorf("upstream sent %d bytes, want at most %d", s.sent, limit)
		}
	})
}

func TestFillParallelIsFasterThanOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := blobOf(128<<20, 6)
		s := &script{data: data, pace: 4 * time.Millisecond}
		start := time.Now()
		r := startRig(t, s, d, rigOptions{hint: 128 << 20})
		defer r.close()
		if _, err := r.read(0, unknown); err != nil {
			t.Fatal(err)
		}
		one := 8 * time.Second // at 16 MiB/s
		if took := time.Since(start); took > one/3 {
			t.Errorf("128 MiB took %v over 4 connections of 16 MiB/s, want under %v", took, one/3)
		}
	})
}

func TestFillUsesOneConnectionWhenMoreAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := blobOf(40<<20, 7)
		s := &script{data: data, pace: time.Millisecond}
		limited := &pull.Error{Kind: pull.Limited}
		s.faults = []fault{{}, {err: limited}, {err: limited}, {err: limited}}
		r := startRig(t, s, d, rigOptions{})
		defer r.close()
		got, err := r.read(0, unknown)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read = %d bytes, %v", len(got), err)
		}
		if n := len(s.opens); n > 8 {
			t.Errorf("upstream was asked %d times, want at most 8", n)
		}
	})
}

func TestFillOutlivesReadersUnlessTold(t *testing.T) {
	for _, cancel := range []bool{false, true} {
		t.Run(fmt.Sprintf("cancel %t", cancel), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				data, d := blobOf(8<<20, 8)
				dir := t.TempDir()
				s := &script{data: data, pace: time.Millisecond}
				r := startRig(t, s, d, rigOptions{cancel: cancel, dir: dir})
				ctx, leave := context.WithTimeout(context.Background(), 20*time.Millisecond)
				defer leave()
				if _, err := r.fill.send(ctx, io.Discard, 0, unknown); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("send = %v, want out of time", err)
				}
				if cancel {
					r.fill.letGo()
				}
				<-r.done
				_, _, err := r.fill.state()
				if finished := err == nil; finished == cancel {
					t.Errorf("fill ended with %v, want finished %t", err, !cancel)
				}
				r.close()
				if !cancel {
					return
				}
				// What was fetched is kept, and the next fill goes on from there.
				before := s.sent
				r = startRig(t, s, d, rigOptions{dir: dir})
				defer r.close()
				got, err := r.read(0, unknown)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("read after resume = %d bytes, %v", len(got), err)
				}
				if before == 0 || s.sent > int64(len(data))+readBlock {
					t.Errorf("upstream sent %d bytes, %d of them before the resume, want %d in all", s.sent, before, len(data))
				}
			})
		})
	}
}

func TestFillTooLargeToKeepIsPassedThrough(t *testing.T) {
	data, d := blobOf(3<<20, 9)
	s := &script{data: data}
	r := startRig(t, s, d, rigOptions{maxBytes: 1 << 20})
	defer r.close()
	got, err := r.read(0, unknown)
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
	data, d := blobOf(3<<20, 10)
	s := &script{data: data, faults: []fault{{}, {flip: true}}}
	r := startRig(t, s, d, rigOptions{maxBytes: 1 << 20})
	defer r.close()
	got, err := r.read(0, unknown)
	if !errors.Is(err, errMismatch) || len(got) >= len(data) {
		t.Errorf("read = %d bytes, %v, want fewer than %d and a mismatch", len(got), err, len(data))
	}
}

func TestFullDiskIsNoErrorForReaders(t *testing.T) {
	for _, step := range []disk.Step{disk.StepCreate, disk.StepWrite, disk.StepSync, disk.StepRename, disk.StepSyncDir} {
		t.Run(string(step), func(t *testing.T) {
			data, d := blobOf(6<<20, 11)
			s := &script{data: data}
			var armed atomic.Int64
			r := startRig(t, s, d, rigOptions{fault: func(at disk.Step, name string) error {
				// The twentieth write is in the middle of the blob.
				if at == step && !strings.HasSuffix(name, ".json") && (step != disk.StepWrite || armed.Add(1) >= 20) {
					return syscall.ENOSPC
				}
				return nil
			}})
			defer r.close()
			got, err := r.read(0, unknown)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("read = %d bytes, %v", len(got), err)
			}
			<-r.done
			if _, _, err := r.store.Blob(d); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("store.Blob = %v, want absent", err)
			}
			if limit := int64(len(data)) * 2; s.sent > limit {
				t.Errorf("upstream sent %d bytes, want at most %d", s.sent, limit)
			}
		})
	}
}

// TestFillModel plays random joins, ranges, drops and cuts against the plain bytes.
func TestFillModel(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playFill(t, seed) })
		})
	}
}

func playFill(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 99))
	size := 1 + rnd.IntN(1<<20)
	data, d := blobOf(size, seed)
	s := &script{data: data, chunk: 1 + rnd.IntN(8<<10), pace: time.Duration(rnd.IntN(2000)) * time.Microsecond,
		noRanges: rnd.IntN(4) == 0}
	s.unsized = s.noRanges && rnd.IntN(2) == 0
	for range rnd.IntN(6) {
		f := fault{cut: 1 + rnd.Int64N(int64(size))}
		if rnd.IntN(4) == 0 {
			f = fault{err: &pull.Error{Kind: pull.Unavailable}}
		}
		if len(s.faults) == 0 {
			f.err = nil // the first answer must come for the fill to begin
		}
		s.faults = append(s.faults, f)
	}
	r := startRig(t, s, d, rigOptions{hint: []int64{-1, int64(size), 1 + rnd.Int64N(int64(2*size))}[rnd.IntN(3)], parallel: 1 + rnd.IntN(6),
		sizing: sizing{first: 128 << 10, whole: 256 << 10, segment: 512 << 10, near: 16 << 10, block: 8 << 10}})
	defer r.close()
	<-r.fill.opened
	known, _, _ := r.fill.state()
	var readers sync.WaitGroup
	for range 1 + rnd.IntN(12) {
		off, end := int64(0), int64(unknown)
		if known >= 0 && rnd.IntN(3) > 0 {
			off = rnd.Int64N(known)
			if rnd.IntN(2) == 0 {
				end = off + 1 + rnd.Int64N(known-off)
			}
		}
		delay := time.Duration(rnd.IntN(300)) * time.Millisecond
		leaves := rnd.IntN(5) == 0
		readers.Go(func() {
			time.Sleep(delay)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if leaves {
				time.AfterFunc(20*time.Millisecond, cancel)
			}
			var b bytes.Buffer
			_, err := r.fill.send(ctx, &b, off, end)
			want := data[off:min(end, int64(size))]
			if !bytes.HasPrefix(want, b.Bytes()) {
				t.Errorf("reader [%d, %d) got wrong bytes", off, end)
			}
			if err == nil && b.Len() != len(want) {
				t.Errorf("reader [%d, %d) got %d bytes and no error, want %d", off, end, b.Len(), len(want))
			}
			if err != nil && !leaves && !errors.Is(err, io.ErrUnexpectedEOF) && pull.KindOf(err) != pull.Unavailable && !errors.Is(err, errMismatch) {
				t.Errorf("reader [%d, %d) = %v", off, end, err)
			}
		})
	}
	readers.Wait()
	<-r.done
	_, _, err := r.fill.state()
	f, n, serr := r.store.Blob(d)
	if kept := serr == nil; kept != (err == nil) {
		t.Errorf("fill ended with %v, kept %t", err, kept)
	}
	if serr == nil {
		f.Close()
		if n != int64(size) {
			t.Errorf("store keeps %d bytes, want %d", n, size)
		}
	}
}
