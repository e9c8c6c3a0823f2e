package fill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/store"
	"forebay/internal/lane"
	"forebay/internal/pull"
	"forebay/internal/sums"
	"forebay/test/cachetest"
)

// rig is one fill with its store.
type rig struct {
	t     *testing.T
	store *disk.Store
	fill  *Holder
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
	memory   *Memory
	piece    [2]int64 // what the first reader wants, if only pieces are to be fetched
	owner    func(keeper, *Fill) Owner
}

// keeper commits and remembers nothing.
type keeper struct {
	files *disk.Store
	d     v1.Hash
}

func (keeper) Admit() {}

func (k keeper) Keep(_ []store.Repo, c Content) error {
	if c.Part == nil {
		return k.files.Put(k.d, c.Bytes)
	}
	return c.Part.Commit(c.Size)
}

func (keeper) Link(store.Repo, int64) error { return nil }

func (keeper) Failed(store.Repo, bool, error) {}
func (keeper) Mismatched(store.Repo, error)   {}

func startRig(t *testing.T, s *cachetest.Script, d v1.Hash, o rigOptions) *rig {
	t.Helper()
	if s.Chunk == 0 {
		s.Chunk = 64 << 10
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
	files, err := disk.Open(o.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	files.SetFault(o.fault)
	from := Source{Repo: store.Repo{Upstream: "docker.io", Name: "library/app"}, Open: func(ctx context.Context, off, end int64) (*pull.Body, error) {
		return s.OpenBlob(ctx, "library/app", d, off, end)
	}, Lane: lane.New(32)}
	only := o.piece != [2]int64{}
	from.Piece, from.At, from.End, from.Size = only, o.piece[0], o.piece[1], int64(len(s.Data))
	down, err := newDownload(Options{
		Digest: d, Source: from, SizeGuess: o.hint, Parallel: o.parallel, MaxBytes: o.maxBytes, CancelAbandoned: o.cancel, Owner: keeper{files, d}, Memory: o.memory, OnlyPieces: only,
		Resumes: files.HasPartial(d), Partial: func() (*disk.Partial, error) { return files.Partial(d) },
	}, o.sizing)
	if err != nil {
		t.Fatal(err)
	}
	if o.owner != nil {
		down.opts.Owner = o.owner(keeper{files, d}, down.Fill)
	}
	ctx, stop := context.WithCancel(context.Background())
	held, err := down.hold(from, false) // before it runs, as the cache does; the test may let go
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, store: files, fill: held, done: make(chan struct{}), stop: stop}
	go func() {
		defer close(r.done)
		_ = down.run(ctx) // the test looks at the fill
	}()
	return r
}

// ready waits for the first answer.
func (r *rig) ready() {
	r.t.Helper()
	if _, err := r.fill.Ready(context.Background(), 0); err != nil {
		r.t.Fatal(err)
	}
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
	_, err := r.fill.Send(context.Background(), &b, off, end)
	return b.Bytes(), err
}

func TestFillDeliversAndCommits(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 8<<20 - 1, 8 << 20, 8<<20 + 1, 24<<20 + 17} {
		for _, s := range []*cachetest.Script{{}, {NoRanges: true}, {Unsized: true, NoRanges: true}} {
			t.Run(fmt.Sprintf("%d bytes, ranges %t, sized %t", size, !s.NoRanges, !s.Unsized), func(t *testing.T) {
				data, d := cachetest.BlobOf(size, 1)
				s.Data = data
				r := startRig(t, s, d, rigOptions{})
				defer r.close()
				got, err := r.read(0, ToEnd)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("read = %d bytes, %v, want %d bytes", len(got), err, len(data))
				}
				<-r.done
				f, n, err := r.store.Blob(d)
				if err != nil || n != int64(size) {
					t.Fatalf("store.Blob = %d bytes, %v, want %d", n, err, size)
				}
				f.Close()
				if s.Sent > int64(size) {
					t.Errorf("upstream sent %d bytes, want %d", s.Sent, size)
				}
			})
		}
	}
}

// visited is a keeper to whose fill others come while it keeps the blob.
type visited struct {
	keeper
	fill   *Fill
	kept   []store.Repo
	linked []store.Repo
}

func (v *visited) visit(name string) {
	_, _ = v.fill.hold(Source{Repo: store.Repo{Upstream: "docker.io", Name: name}}, true) // nobody comes to what has ended
}

func (v *visited) Keep(repos []store.Repo, c Content) error {
	v.kept = repos
	v.visit("team/during")
	return v.keeper.Keep(repos, c)
}

func (v *visited) Link(repo store.Repo, size int64) error {
	if size == 1<<20 {
		v.linked = append(v.linked, repo)
	}
	if len(v.linked) == 1 {
		v.visit("team/after")
	}
	return nil
}

// A repository that comes while the blob is being kept is linked like those before it: nobody asks
// its registry again, and it has the blob in an outage.
func TestWhoComesWhileABlobIsKeptIsLinked(t *testing.T) {
	data, d := cachetest.BlobOf(1<<20, 1)
	v := &visited{}
	r := startRig(t, &cachetest.Script{Data: data}, d, rigOptions{owner: func(k keeper, f *Fill) Owner {
		v.keeper, v.fill = k, f
		return v
	}})
	defer r.close()
	<-r.fill.Done()
	if want := []store.Repo{{Upstream: "docker.io", Name: "team/during"}, {Upstream: "docker.io", Name: "team/after"}}; !slices.Equal(v.linked, want) {
		t.Errorf("linked: %v, want %v (kept for %v)", v.linked, want, v.kept)
	}
}

func TestFillHoldsLastByteUntilVerified(t *testing.T) {
	data, d := cachetest.BlobOf(1<<20, 2)
	wrong := bytes.Clone(data)
	wrong[0] ^= 1
	s := &cachetest.Script{Data: wrong}
	r := startRig(t, s, d, rigOptions{})
	defer r.close()
	got, err := r.read(0, ToEnd)
	if !errors.Is(err, sums.ErrMismatch) {
		t.Errorf("read = %v, want a mismatch", err)
	}
	if len(got) >= len(data) {
		t.Errorf("reader got %d bytes, want fewer than %d", len(got), len(data))
	}
	<-r.done
	if _, err := r.read(0, ToEnd); !errors.Is(err, sums.ErrMismatch) {
		t.Errorf("read by one who joined in time and was slow = %v, want a mismatch", err)
	}
	if _, _, err := r.store.Blob(d); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("store.Blob = %v, want absent", err)
	}
}

// Who asks for a piece verifies it: it comes as it arrives, while the last byte of the whole, and
// of all from a position on, waits for the digest.
func TestPiecesAreNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := cachetest.BlobOf(64<<20, 5)
		size := int64(len(data))
		s := &cachetest.Script{Data: data, Pace: 4 * time.Millisecond} // 16 MiB/s a connection
		r := startRig(t, s, d, rigOptions{})
		defer r.close()
		r.ready()
		start := time.Now()
		for _, span := range [][2]int64{{size - 64<<10, size}, {size - 1, size}, {1, 2}} {
			got, err := r.read(span[0], span[1])
			if err != nil || !bytes.Equal(got, data[span[0]:span[1]]) {
				t.Errorf("piece %v = %d bytes, %v", span, len(got), err)
			}
			if took := time.Since(start); took > 100*time.Millisecond {
				t.Errorf("piece %v came after %v", span, took)
			}
		}
		for _, span := range [][2]int64{{0, size}, {size - 5, ToEnd}} {
			short, giveUp := context.WithTimeout(t.Context(), 200*time.Millisecond)
			var got bytes.Buffer
			_, err := r.fill.Send(short, &got, span[0], span[1])
			giveUp()
			if !errors.Is(err, context.DeadlineExceeded) || span[0] > 0 && got.Len() != 4 {
				t.Errorf("[%d, %d) = %d bytes, %v while the blob arrives, want all but the last byte", span[0], span[1], got.Len(), err)
			}
		}
	})
}

// With OnlyPieces the upstream sends what is read and nothing else, also over a restart, until
// somebody wants the whole.
func TestOnlyPiecesAreFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := cachetest.BlobOf(32<<20, 6)
		size := int64(len(data))
		dir := t.TempDir()
		s := &cachetest.Script{Data: data, Pace: time.Millisecond}
		spans := [][2]int64{{size - 1000, size}, {5 << 20, 5<<20 + 77_777}, {size - 1000, size - 500}, {1, 2}}
		sent := int64(1000 + 77_777)
		for _, hint := range []int64{size, -1} { // the second has all of it from before, but for a byte that proves a right to it
			sent++
			r := startRig(t, s, d, rigOptions{dir: dir, hint: hint, piece: spans[0]})
			for _, span := range spans {
				got, err := r.read(span[0], span[1])
				if err != nil || !bytes.Equal(got, data[span[0]:span[1]]) {
					t.Errorf("piece %v = %d bytes, %v", span, len(got), err)
				}
			}
			r.ready() // what is there already is read before the proof of it comes
			r.fill.LetGo()
			<-r.done // it lingers, and ends
			if s.Sent != sent {
				t.Errorf("the upstream sent %d bytes, want the %d that were read", s.Sent, sent)
			}
			r.close()
		}
		r := startRig(t, s, d, rigOptions{dir: dir})
		defer r.close()
		if got, err := r.read(0, ToEnd); err != nil || !bytes.Equal(got, data) {
			t.Errorf("the whole after pieces = %d bytes, %v", len(got), err)
		}
		<-r.done
		if _, n, err := r.store.Blob(d); err != nil || n != size || s.Sent > size*102/100 {
			t.Errorf("kept %d bytes, %v, for which the upstream sent %d", n, err, s.Sent)
		}
	})
}

func TestFillResumesWhereItStopped(t *testing.T) {
	data, d := cachetest.BlobOf(3<<20, 3)
	s := &cachetest.Script{Data: data, Faults: []cachetest.Fault{{Cut: 1 << 20}, {Cut: 1 << 20}, {Err: &pull.Error{Kind: pull.Unavailable}}}}
	r := startRig(t, s, d, rigOptions{})
	defer r.close()
	got, err := r.read(0, ToEnd)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read = %d bytes, %v", len(got), err)
	}
	if s.Sent != int64(len(data)) {
		t.Errorf("upstream sent %d bytes, want %d: resumes must not repeat", s.Sent, len(data))
	}
}

func TestFillGivesUpWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := cachetest.BlobOf(3<<20, 4)
		s := &cachetest.Script{Data: data, Faults: []cachetest.Fault{{Cut: 1 << 20}}}
		down := &pull.Error{Kind: pull.Unavailable, Message: "gone"}
		for range 20 {
			s.Faults = append(s.Faults, cachetest.Fault{Err: down})
		}
		r := startRig(t, s, d, rigOptions{})
		defer r.close()
		got, err := r.read(0, ToEnd)
		if !errors.Is(err, down) || len(got) != 1<<20 {
			t.Errorf("read = %d bytes, %v, want %d bytes, %v", len(got), err, 1<<20, down)
		}
		if n := len(s.Opens); n != 1+fruitlessMost {
			t.Errorf("upstream was asked %d times, want %d", n, 1+fruitlessMost)
		}
	})
}

func TestFillRangeDoesNotWaitForWhatLiesBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := cachetest.BlobOf(64<<20, 5)
		// 64 KiB every 4 ms are 16 MiB/s a connection.
		s := &cachetest.Script{Data: data, Pace: 4 * time.Millisecond}
		r := startRig(t, s, d, rigOptions{})
		defer r.close()
		r.ready()
		start := time.Now()
		got, err := r.read(50<<20, 50<<20+4096)
		if err != nil || !bytes.Equal(got, data[50<<20:50<<20+4096]) {
			t.Fatalf("read = %d bytes, %v", len(got), err)
		}
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("far range took %v, want under 50 ms", took)
		}
		all, err := r.read(0, ToEnd)
		if err != nil || !bytes.Equal(all, data) {
			t.Fatalf("whole read = %d bytes, %v", len(all), err)
		}
		if limit := int64(len(data)) * 102 / 100; s.Sent > limit {
			t.Errorf("upstream sent %d bytes, want at most %d", s.Sent, limit)
		}
	})
}

func TestFillParallelIsFasterThanOneConnection(t *testing.T) {
	for _, latency := range []time.Duration{0, 15 * time.Millisecond} { // the latter is not over when it is first looked at how fast it is
		t.Run(latency.String(), func(t *testing.T) { testParallelFill(t, latency) })
	}
}

func testParallelFill(t *testing.T, latency time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		data, d := cachetest.BlobOf(128<<20, 6)
		s := &cachetest.Script{Data: data, Pace: 4 * time.Millisecond, Latency: latency}
		start := time.Now()
		r := startRig(t, s, d, rigOptions{hint: 128 << 20})
		defer r.close()
		if _, err := r.read(0, ToEnd); err != nil {
			t.Fatal(err)
		}
		one := 8 * time.Second // at 16 MiB/s
		if took := time.Since(start); took > one/3 {
			t.Errorf("128 MiB took %v over 4 connections of 16 MiB/s, want under %v", took, one/3)
		}
	})
}

// Of a line that is faster than the disk one connection is enough, whose bytes come in order.
func TestFillUsesOneConnectionOfAFastLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := cachetest.BlobOf(64<<20, 8)
		s := &cachetest.Script{Data: data, Pace: 10 * time.Microsecond}
		r := startRig(t, s, d, rigOptions{hint: 64 << 20, fault: func(at disk.Step, _ string) error {
			if at == disk.StepWrite {
				time.Sleep(time.Millisecond)
			}
			return nil
		}})
		defer r.close()
		if got, err := r.read(0, ToEnd); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read = %d bytes, %v", len(got), err)
		}
		for i, open := range s.Opens[1:] {
			if open[0] != s.Opens[i][1] {
				t.Errorf("asked for %v after %v: not in order", open, s.Opens[i])
			}
		}
	})
}

func TestFillUsesOneConnectionWhenMoreAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := cachetest.BlobOf(40<<20, 7)
		s := &cachetest.Script{Data: data, Pace: time.Millisecond}
		limited := &pull.Error{Kind: pull.Limited}
		s.Faults = []cachetest.Fault{{}, {Err: limited}, {Err: limited}, {Err: limited}}
		r := startRig(t, s, d, rigOptions{})
		defer r.close()
		got, err := r.read(0, ToEnd)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read = %d bytes, %v", len(got), err)
		}
		if n := len(s.Opens); n > 8 {
			t.Errorf("upstream was asked %d times, want at most 8", n)
		}
	})
}

func TestFillOutlivesReadersUnlessTold(t *testing.T) {
	for _, cancel := range []bool{false, true} {
		t.Run(fmt.Sprintf("cancel %t", cancel), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				data, d := cachetest.BlobOf(8<<20, 8)
				dir := t.TempDir()
				s := &cachetest.Script{Data: data, Pace: time.Millisecond}
				r := startRig(t, s, d, rigOptions{cancel: cancel, dir: dir})
				ctx, leave := context.WithTimeout(context.Background(), 20*time.Millisecond)
				defer leave()
				if _, err := r.fill.Send(ctx, io.Discard, 0, ToEnd); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("send = %v, want out of time", err)
				}
				if cancel {
					r.fill.LetGo()
				}
				<-r.done
				_, _, err := r.fill.State()
				if finished := err == nil; finished == cancel {
					t.Errorf("fill ended with %v, want finished %t", err, !cancel)
				}
				r.close()
				if !cancel {
					return
				}
				// What was fetched is kept, and the next fill goes on from there.
				before := s.Sent
				r = startRig(t, s, d, rigOptions{dir: dir})
				defer r.close()
				got, err := r.read(0, ToEnd)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("read after resume = %d bytes, %v", len(got), err)
				}
				if before == 0 || s.Sent > int64(len(data))+readBlock {
					t.Errorf("upstream sent %d bytes, %d of them before the resume, want %d in all", s.Sent, before, len(data))
				}
			})
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
	data, d := cachetest.BlobOf(size, seed)
	s := &cachetest.Script{Data: data, Chunk: 1 + rnd.IntN(8<<10), Pace: time.Duration(rnd.IntN(2000)) * time.Microsecond,
		NoRanges: rnd.IntN(4) == 0}
	s.Unsized = s.NoRanges && rnd.IntN(2) == 0
	for range rnd.IntN(6) {
		f := cachetest.Fault{Cut: 1 + rnd.Int64N(int64(size))}
		if rnd.IntN(4) == 0 {
			f = cachetest.Fault{Err: &pull.Error{Kind: pull.Unavailable}}
		}
		if len(s.Faults) == 0 {
			f.Err = nil // the first answer must come for the fill to begin
		}
		s.Faults = append(s.Faults, f)
	}
	// Wrong bytes may reach those who read a piece, who verify it, and never somebody else whole.
	wrong := rnd.IntN(4) == 0
	if wrong {
		s.Faults = append([]cachetest.Fault{{Flip: true, Cut: int64(size)/2 + 1}}, s.Faults...)
	}
	var memory *Memory
	if rnd.IntN(2) == 0 {
		memory = NewMemory(Small)
	}
	r := startRig(t, s, d, rigOptions{memory: memory, hint: []int64{-1, int64(size), 1 + rnd.Int64N(int64(2*size))}[rnd.IntN(3)], parallel: 1 + rnd.IntN(6),
		sizing: sizing{first: 128 << 10, whole: 256 << 10, segment: 512 << 10, near: 16 << 10, block: 8 << 10}})
	defer r.close()
	r.ready()
	known, _, _ := r.fill.State()
	var readers sync.WaitGroup
	for range 1 + rnd.IntN(12) {
		off, end := int64(0), int64(ToEnd)
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
			_, err := r.fill.Send(ctx, &b, off, end)
			want := data[off:min(end, int64(size))]
			piece := end < int64(size) || off > 0 && end != ToEnd
			if !bytes.HasPrefix(want, b.Bytes()) && !(wrong && (piece || err != nil)) {
				t.Errorf("reader [%d, %d) got wrong bytes and %v", off, end, err)
			}
			if err == nil && b.Len() != len(want) {
				t.Errorf("reader [%d, %d) got %d bytes and no error, want %d", off, end, b.Len(), len(want))
			}
			if err != nil && !leaves && !errors.Is(err, io.ErrUnexpectedEOF) && pull.KindOf(err) != pull.Unavailable && !errors.Is(err, sums.ErrMismatch) {
				t.Errorf("reader [%d, %d) = %v", off, end, err)
			}
		})
	}
	readers.Wait()
	<-r.done
	_, _, err := r.fill.State()
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
