package disktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"forebay/cache/index"
)

// grab takes all that is free on a file system, in one step where it can, until it is stopped.
func grab(dir string) (stop func(), err error) {
	f, err := os.Create(filepath.Join(dir, "grab"))
	if err != nil {
		return nil, err
	}
	var size int64
	more := func() {
		for {
			var st unix.Statfs_t
			if unix.Fstatfs(int(f.Fd()), &st) != nil || st.Bavail == 0 {
				return
			}
			n := int64(st.Bavail) * st.Bsize
			for n >= st.Bsize && unix.Fallocate(int(f.Fd()), 0, size, n) != nil {
				n /= 2
			}
			if n < st.Bsize {
				return
			}
			size += n
		}
	}
	more()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				more()
			}
		}
	}()
	return func() {
		close(done)
		<-ended
		_ = os.Remove(f.Name())
		_ = f.Close()
	}, nil
}

// comeAndGo has a neighbour take the space of a disk and give it back until ctx is done.
func comeAndGo(ctx context.Context, disk string, r *rand.Rand) error {
	for ctx.Err() == nil {
		pause(ctx, r)
		stop, err := grab(disk)
		if err != nil {
			return err
		}
		pause(ctx, r)
		stop()
	}
	return nil
}

func pause(ctx context.Context, r *rand.Rand) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(r.IntN(400)) * time.Millisecond):
	}
}

// indexBatch is how many records are put at once.
const indexBatch = 400

// changeIndex is the child: it changes an index as fast as it can, from a record on, and
// says which it has put, until its input ends.
func changeIndex() int {
	first, err := strconv.Atoi(os.Getenv(countEnv))
	if err == nil {
		err = changed(indexOf(os.Getenv(dirEnv), os.Getenv(indexEnv)), first)
	}
	if errors.Is(err, index.ErrUnwritable) { // to open or to close it
		fmt.Println("full")
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func indexOf(journals, disk string) index.Options {
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(os.Stdout), zap.WarnLevel)
	return index.Options{Dir: filepath.Join(disk, "index"), Journal: filepath.Join(journals, "refs.journal"), Log: zap.New(core)}
}

func changed(o index.Options, n int) error {
	ix, err := index.Open(o)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	var kept []int
	r := rand.New(rand.NewPCG(uint64(n), 3))
	for {
		select {
		case <-ended:
			return ix.Close()
		default:
		}
		begun := time.Now()
		err := ix.Update(func(b *index.Batch) error { return putMany(b, n) })
		if took := time.Since(begun); took > 30*time.Second {
			return fmt.Errorf("a change took %s", took)
		}
		switch {
		case err == nil:
			fmt.Println("put", n)
			kept = append(kept, n)
		case errors.Is(err, index.ErrUnwritable):
			<-time.After(5 * time.Millisecond)
		default:
			return err
		}
		n += indexBatch // never the same again: what was refused must not be there
		for range 20 {
			if len(kept) > 0 {
				i := kept[r.IntN(len(kept))] + r.IntN(indexBatch)
				if _, known, err := ix.Blob(nth(i)); err != nil || !known {
					return fmt.Errorf("record %d: known %t, %w", i, known, err)
				}
			}
		}
	}
}

func putMany(b *index.Batch, from int) error {
	var errs []error
	for n := from; n < from+indexBatch; n++ {
		errs = append(errs, b.PutBlob(nth(n), index.BlobInfo{Size: int64(n), Added: time.Now()}),
			b.PutLink(nthRepo(n/perRepo), index.Blob, nth(n), index.Link{Size: int64(n), At: time.Now()}))
	}
	return errors.Join(errs...)
}

// TestNeighbourTakesTheLastSpace has another program take and give back the last space of
// an index's disk at random moments, of which many are in starts, in the writing of tables
// and in compactions. Processes that use the index are killed or ended meanwhile, and others
// started. None may end for another reason, and nothing that was put may be lost.
func TestNeighbourTakesTheLastSpace(t *testing.T) {
	waited := 0
	for _, name := range []string{"tmpfs", "ext4"} {
		t.Run(name, func(t *testing.T) {
			sample(t, 6, 6, func(seed int) {
				dir := smallDisk(t, name, 400)
				waited += besideNeighbour(t, seed, dir, t.TempDir())
			})
		})
	}
	if waited == 0 {
		t.Error("the index never had to wait for its disk: the neighbour came at no bad moment")
	}
}

// besideNeighbour returns how often the index waited for its disk.
func besideNeighbour(t *testing.T, seed int, disk, journals string) (waited int) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	away := make(chan error, 1)
	go func() { away <- comeAndGo(ctx, disk, rand.New(rand.NewPCG(uint64(seed), 2))) }()
	var kept []int
	refused, killed := 0, 0
	for process := range 8 {
		cmd := child("index", dirEnv+"="+journals, indexEnv+"="+disk, fmt.Sprintf("%s=%d", countEnv, process*1_000_000))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(200+r.IntN(4000)) * time.Millisecond)
		kill := r.IntN(2) == 0
		if kill {
			killed++
			_ = cmd.Process.Kill()
		}
		_ = in.Close()
		if err := cmd.Wait(); err != nil && !(kill && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL) {
			t.Fatalf("seed %d, process %d: %v: %.3000s", seed, process, err, errs.String())
		}
		for line := range strings.Lines(out.String()) {
			var n int
			switch {
			case strings.Contains(line, "waits for room"):
				waited++
			case line == "full\n":
				refused++
			case strings.HasSuffix(line, "\n"): // a kill may have cut it
				if _, err := fmt.Sscanf(line, "put %d", &n); err == nil {
					kept = append(kept, n)
				}
			}
		}
	}
	stop()
	if err := <-away; err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d: %d records put; %d waits; %d processes killed, %d not opened or closed", seed, len(kept)*indexBatch, waited, killed, refused)
	if err := holds(indexOf(journals, disk), kept); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	return waited
}

// holds looks whether an index has the records that were put, and counts all that it has.
func holds(o index.Options, kept []int) error {
	ix, err := index.Open(o)
	if err != nil {
		return err
	}
	for _, from := range kept {
		for n := from; n < from+indexBatch; n++ {
			if info, known, err := ix.Blob(nth(n)); err != nil || !known || info.Size != int64(n) {
				return errors.Join(fmt.Errorf("record %d: %+v, known %t, %w", n, info, known, err), ix.Close())
			}
		}
	}
	count := int64(0)
	err = ix.Blobs(func(v1.Hash, index.BlobInfo, time.Time) error { count++; return nil })
	if err == nil && ix.Totals().Blobs != count {
		err = fmt.Errorf("it counts %d blobs and has %d", ix.Totals().Blobs, count)
	}
	return errors.Join(err, ix.Probe(), ix.Close())
}
