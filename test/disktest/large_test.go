package disktest

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache"
	"forebay/cache/index"
)

// What an index of a large mirror holds: every blob is linked, and every tenth is a
// manifest with a tag.
const (
	manyBlobs = 1_000_000
	manyTags  = 100_000
	perRepo   = 100 // tags
)

const countEnv = "DISKTEST_COUNT"

// nth is the digest of the n-th blob, spread as digests are.
func nth(n int) v1.Hash {
	var b [32]byte
	r := rand.NewPCG(uint64(n), 7)
	for i := 0; i < len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], r.Uint64())
	}
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(b[:])}
}

func nthRepo(n int) index.Repo {
	return index.Repo{Upstream: upstream, Name: fmt.Sprintf("team%d/app%d", n%97, n)}
}

// fillIndex makes the index of count blobs and a tenth as many tags.
func fillIndex(dir string, count int) error {
	ix, err := index.Open(index.Options{Dir: filepath.Join(dir, "index"), Journal: filepath.Join(dir, "refs.journal")})
	if err != nil {
		return err
	}
	at := time.Now().Add(-time.Hour)
	const batch = 1000
	for from := 0; from < count; from += batch {
		err := ix.Update(func(b *index.Batch) error {
			var errs []error
			for n := from; n < min(from+batch, count); n++ {
				d, size, repo := nth(n), int64(1000+n%5_000_000), nthRepo(n/(perRepo*10))
				errs = append(errs, b.PutBlob(d, index.BlobInfo{Size: size, Added: at}))
				if n%10 > 0 {
					errs = append(errs, b.PutLink(repo, index.Blob, d, index.Link{Size: size, At: at}))
					continue
				}
				desc := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: d, Size: size}
				errs = append(errs, b.PutLink(repo, index.Manifest, d, index.Link{MediaType: string(desc.MediaType), Size: size, At: at}),
					b.PutTag(repo, "v"+strconv.Itoa(n/10%perRepo), index.Tag{Desc: desc, CheckedAt: at}))
			}
			return errors.Join(errs...)
		})
		if err != nil {
			return errors.Join(err, ix.Close())
		}
	}
	return ix.Close()
}

// sizes is what a process takes, in MiB.
type sizes struct{ Anon, File, Peak int64 }

func memoryNow() (s sizes) {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "RssAnon:":
			s.Anon = n >> 10
		case "RssFile:":
			s.File = n >> 10
		case "VmHWM:":
			s.Peak = n >> 10
		}
	}
	return s
}

// largeFigures is what a child measured.
type largeFigures struct {
	Open, Loaded time.Duration
	Memory       sizes
	Hit          time.Duration // of a lookup of a link and a blob
	Page         time.Duration // the slowest page of a listing
	Disk         int64         // MiB of the index
}

// measureLarge is the child: a fresh process, so that its memory is its own.
func measureLarge() int {
	count, err := strconv.Atoi(os.Getenv(countEnv))
	if err == nil {
		var f largeFigures
		if f, err = measured(os.Getenv(dirEnv), count); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(f)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func measured(dir string, count int) (f largeFigures, err error) {
	w := newWorld()
	o := w.options(dir, true)
	o.Store.MaxBytes = 1 << 50
	if os.Getenv(modeEnv) == "rebuild" {
		if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
			return f, err
		}
		// The files are not there: what is walked is made up.
		ix, err := index.OpenOrRebuild(context.Background(), index.Options{Dir: filepath.Join(dir, "index"), Journal: filepath.Join(dir, "refs.journal")},
			func(fn func(v1.Hash, int64, time.Time) error) error {
				for n := range count {
					if err := fn(nth(n), int64(1000+n%5_000_000), time.Now()); err != nil {
						return err
					}
				}
				return nil
			})
		if err != nil {
			return f, err
		}
		if err := ix.Close(); err != nil {
			return f, err
		}
	}
	start := time.Now()
	c, err := cache.Open(o)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	f.Open = time.Since(start)
	<-c.Store().Room.Loaded()
	f.Loaded = time.Since(start)
	f.Memory = memoryNow()
	ctx := context.Background()
	r := rand.New(rand.NewPCG(1, 1))
	start = time.Now()
	const lookups = 20_000
	for range lookups {
		n := r.IntN(count/10)*10 + 1
		repo := cache.Repo(nthRepo(n / (perRepo * 10)))
		if _, _, err := c.StatBlob(ctx, repo, nth(n)); err == nil {
			return f, errors.New("a blob without a file is served")
		}
	}
	f.Hit = time.Since(start) / lookups
	f.Page = slowest(func(after string) (string, error) {
		page, err := c.Images().Repositories(after, 500)
		if err != nil {
			return "", err
		}
		return page.Next, nil
	})
	if text, err := filepath.Glob(filepath.Join(dir, "index", "*")); err == nil {
		for _, name := range text {
			if info, err := os.Stat(name); err == nil && (strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, "MANIFEST")) {
				f.Disk += info.Size() >> 10
			}
		}
		f.Disk >>= 10
	}
	runtime.KeepAlive(w)
	return f, nil
}

// slowest pages through a listing and returns how long the slowest page took.
func slowest(next func(after string) (string, error)) (worst time.Duration) {
	for after := ""; ; {
		start := time.Now()
		last, err := next(after)
		worst = max(worst, time.Since(start))
		if err != nil || last == "" {
			return worst
		}
		after = last
	}
}

func TestAMillionBlobs(t *testing.T) {
	figures := map[string]largeFigures{}
	many := manyBlobs
	if !full() {
		many /= 10
	}
	for _, one := range []struct {
		kind  string
		count int
	}{{"small", 1000}, {"tenth", many / 10}, {"large", many}, {"rebuild", many}} {
		kind, count := one.kind, one.count
		dir := t.TempDir()
		start := time.Now()
		if err := fillIndex(dir, count); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d blobs recorded in %s", kind, count, time.Since(start).Round(time.Millisecond))
		cmd := child("large", dirEnv+"="+dir, countEnv+"="+strconv.Itoa(count), modeEnv+"="+kind)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		var f largeFigures
		if err == nil {
			err = json.Unmarshal(out, &f)
		}
		if err != nil {
			t.Fatalf("child: %v", err)
		}
		figures[kind] = f
		t.Logf("%s: open %s, loaded after %s, memory %d MiB and %d MiB of files mapped (peak %d), lookup %s, page of 500 repositories %s, index %d MiB",
			kind, f.Open, f.Loaded, f.Memory.Anon, f.Memory.File, f.Memory.Peak, f.Hit, f.Page, f.Disk)
	}
	for _, kind := range []string{"large", "rebuild"} {
		f := figures[kind]
		if f.Memory.Anon > 300 {
			t.Errorf("%s: memory is %d MiB, want under 300", kind, f.Memory.Anon)
		}
	}
}
