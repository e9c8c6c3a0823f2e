package disktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/cache/upkeep"
)

const upstream = "docker.io"

// world is what the registry of the work has.
type world struct {
	*source
	a, b, multi, moved, half, late image
	arm                            image // of the index multi, never pulled
	bulk                           []image
	orphan                         []byte // a file that nobody holds
}

const (
	small = 20 << 10
	large = 1200 << 10 // above what the eviction policy counts as small
)

func newWorld() *world {
	w := &world{source: newSource(), orphan: noise("orphan", small)}
	layers := map[string]int{"base": large, "a": small, "b": small, "amd64": small, "arm64": small, "new": small, "half": 3 << 20, "late": small}
	w.a, _ = w.single("library/a", "1", "amd64", layers, "base", "a")
	w.b, _ = w.single("library/b", "1", "amd64", layers, "base", "b")
	amd64, one := w.single("library/m", "amd64", "amd64", layers, "amd64")
	arm64, two := w.single("library/m", "arm64", "arm64", layers, "arm64")
	one.Platform, two.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}, &v1.Platform{OS: "linux", Architecture: "arm64"}
	root := w.index("library/m", "1", one, two)
	w.multi = image{repo: "library/m", tag: "1", root: root, manifests: []v1.Hash{root, amd64.root}, blobs: amd64.blobs}
	w.arm = arm64
	w.moved, _ = w.single("library/a", "moved", "amd64", layers, "new")
	w.half, _ = w.single("library/h", "1", "amd64", layers, "half")
	w.late, _ = w.single("library/l", "1", "amd64", layers, "late")
	for n := range 8 {
		name := fmt.Sprintf("bulk%d", n)
		layers[name] = large
		i, _ := w.single("library/bulk", name, "amd64", layers, name)
		w.bulk = append(w.bulk, i)
	}
	return w
}

// maxBytes is so little that the bulk does not fit beside the rest.
const maxBytes = 10 << 20

func (w *world) options(dir string, offline bool) cache.Options {
	return cache.Options{
		Store:       store.Options{Dir: dir, MaxBytes: maxBytes, Log: zap.NewNop()},
		NegativeTTL: -1, CancelAbandoned: true,
		Upstreams: map[string]cache.UpstreamOptions{upstream: {Upstream: w.source, Offline: offline}},
	}
}

// keeperOf is what works on what c keeps. It has nothing of its own that is running.
func keeperOf(c *cache.Cache) *upkeep.Keeper { return upkeep.New(c, upkeep.Options{}) }

// repoOf is the repository of an image.
func (i image) repoOf() cache.Repo { return cache.Repo{Upstream: upstream, Name: i.repo} }

// pullImage gets all of an image as a client does. Bytes that are wrong are an error.
func pullImage(ctx context.Context, c *cache.Cache, i image) error {
	if _, err := c.Manifest(ctx, i.repoOf(), i.tag, false); err != nil {
		return fmt.Errorf("%s:%s: %w", i.repo, i.tag, err)
	}
	for _, d := range i.manifests {
		m, err := c.Manifest(ctx, i.repoOf(), d.String(), false)
		if err != nil {
			return fmt.Errorf("%s@%s: %w", i.repo, d, err)
		}
		if digestOf(m.Bytes) != d {
			return wrongBytes{d}
		}
	}
	for _, d := range i.blobs {
		if err := pullBlob(ctx, c, i.repoOf(), d); err != nil {
			return fmt.Errorf("%s@%s: %w", i.repo, d, err)
		}
	}
	return nil
}

// wrongBytes is the one thing that must never happen.
type wrongBytes struct{ digest v1.Hash }

func (w wrongBytes) Error() string { return "WRONG BYTES served as " + w.digest.String() }

func pullBlob(ctx context.Context, c *cache.Cache, repo cache.Repo, d v1.Hash) error {
	b, err := c.Blob(ctx, repo, d)
	if err != nil {
		return err
	}
	defer b.Close()
	got := newDigester()
	if _, err := b.Send(ctx, got, 0, -1); err != nil {
		return err
	}
	if got.digest() != d {
		return wrongBytes{d}
	}
	return nil
}

// work does everything that changes the disk. It says "begin x" before and "x" after.
func (w *world) work(c *cache.Cache, dir string, say func(string)) error {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Minute) // tests halt it at its steps
	defer stop()
	<-c.Store().Room.Loaded()
	do := func(name string, fn func() error) error {
		say("begin " + name)
		if err := fn(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		keptForAKill(ctx, c)
		say(name)
		return nil
	}
	pulls := func(i image) func() error { return func() error { return pullImage(ctx, c, i) } }
	steps := []struct {
		name string
		fn   func() error
	}{
		{"a", pulls(w.a)},
		{"multi", pulls(w.multi)},
		{"b", pulls(w.b)},
		{"pin", func() error {
			_, err := keeperOf(c).Pin(ctx, w.a.repoOf(), "1", v1.Hash{}, nil)
			return err
		}},
		{"moved", pulls(w.moved)},
		{"purge b", func() error {
			_, err := keeperOf(c).PurgeImage(ctx, w.b.repoOf(), "1", v1.Hash{}, upkeep.PurgeOptions{})
			return err
		}},
		{"corrupt", func() error { return errors.Join(c.Store().Settle(), corrupt(dir, w.multi.blobs[1])) }},
		{"quarantined", func() error {
			done, err := keeperOf(c).Verify(ctx, false, nil)
			if err == nil && done.Faults != 1 {
				err = fmt.Errorf("found %d faults, want 1", done.Faults)
			}
			return err
		}},
		{"multi again", pulls(w.multi)},
		{"half", func() error {
			w.setCut(w.half.blobs[1], true)
			defer w.setCut(w.half.blobs[1], false)
			short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
			defer stop()
			if err := pullImage(short, c, w.half); err == nil {
				return errors.New("half a blob was taken for a whole")
			}
			keptForAKill(ctx, c) // nobody wants it any more: it ends, and is kept
			return ctx.Err()
		}},
		{"resumed", pulls(w.half)},
		{"prefetch", func() error {
			got, err := keeperOf(c).Prefetch(ctx, upkeep.Request{Repo: w.half.repoOf(), Tag: w.half.tag, Platforms: []string{"all"}}, nil)
			if err == nil && len(got.Failed) > 0 {
				err = fmt.Errorf("failed: %+v", got.Failed)
			}
			return err
		}},
		{"gc", func() error {
			_, err := keeperOf(c).Collect(ctx, false, nil)
			return err
		}},
		{"bulk", func() error {
			for _, i := range w.bulk {
				if err := pullImage(ctx, c, i); err != nil {
					return err
				}
			}
			if s, err := keeperOf(c).Stats(); err != nil || s.EvictedBlobs == 0 {
				return fmt.Errorf("nothing was evicted: %+v, %w", s, err)
			}
			return nil
		}},
		{"purge digest", func() error {
			_, err := keeperOf(c).PurgeDigest(ctx, w.moved.root, upkeep.PurgeOptions{Force: true})
			return err
		}},
		{"purge repository", func() error {
			_, err := keeperOf(c).PurgeRepository(ctx, w.multi.repoOf(), upkeep.PurgeOptions{Force: true})
			return err
		}},
		{"unpin", func() error { return c.Images().Pins.Remove(context.Background(), w.a.repoOf(), "1", v1.Hash{}) }},
		{"late", pulls(w.late)},
	}
	for _, s := range steps {
		if err := do(s.name, s.fn); err != nil {
			return err
		}
	}
	return nil
}

// keptForAKill waits until what was given out is kept, which follows at once: what comes after
// that is lost only with the power. That it does follow at once is TestKillCostsTheLastMoment.
func keptForAKill(ctx context.Context, c *cache.Cache) {
	for len(c.Fills().List()) > 0 && ctx.Err() == nil {
		runtime.Gosched()
	}
}

func (s *source) setCut(d v1.Hash, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut[d] = cut
}

func blobFile(dir string, d v1.Hash) string {
	return filepath.Join(dir, "blobs", d.Algorithm, d.Hex[:2], d.Hex)
}

// corrupt changes a byte of a kept blob, as a disk does.
func corrupt(dir string, d v1.Hash) error {
	f, err := os.OpenFile(blobFile(dir, d), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("rot"), 100)
	return errors.Join(err, f.Close())
}

// plantOrphan puts a file among the blobs that no repository holds.
func (w *world) plantOrphan(dir string) error {
	name := blobFile(dir, digestOf(w.orphan))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(name, w.orphan, 0o444); err != nil {
		return err
	}
	old := time.Now().Add(-time.Hour)
	return os.Chtimes(name, old, old)
}

// whole is one life of a process: it works, closes, rebuilds the index, and works a little.
func (w *world) life(dir string, fault func(step, name string) error, say func(string)) error {
	o := w.options(dir, false)
	o.Store.Fault = fault
	c, err := cache.Open(o)
	if err != nil {
		return err
	}
	if err := w.work(c, dir, say); err != nil {
		return errors.Join(err, c.Close())
	}
	if err := c.Close(); err != nil {
		return err
	}
	say("closed")
	if _, err := store.RebuildIndex(context.Background(), o.Store, nil); err != nil {
		return err
	}
	say("rebuilt")
	if c, err = cache.Open(o); err != nil {
		return err
	}
	if err := pullImage(context.Background(), c, w.late); err != nil {
		return errors.Join(err, c.Close())
	}
	return c.Close()
}
