package disktest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/store"
)

// said is what a process had done before it ended, as it said itself.
type said []string

func (s said) has(word string) bool { return slices.Contains(s, word) }

// durable returns what no loss of power takes back: acts of an operator, who is told that they
// are done when they are on the disk, and what was done before something was reported kept.
func (s said) durable() (sure said) {
	for i, word := range slices.Backward(s) {
		switch word {
		case "pin", "prefetch", "closed":
			return append(sure, s[:i+1]...)
		case "unpin", "purge b", "purge digest", "purge repository":
			sure = append(sure, word)
		}
	}
	return sure
}

// expect is what must be found of an image.
type expect int

const (
	either expect = iota
	servable
	gone
)

// expected says what must be found after a process ended that had begun and done what it
// said; sure is the part of it that cannot be lost.
func (w *world) expected(all, sure said) map[*image]expect {
	e := map[*image]expect{}
	need := func(i *image, done string, until ...string) {
		if !sure.has(done) {
			return
		}
		for _, u := range until {
			if all.has("begin " + u) {
				return
			}
		}
		e[i] = servable
	}
	need(&w.a, "a", "unpin") // pinned while the bulk comes
	need(&w.b, "b", "purge b")
	need(&w.multi, "multi", "corrupt", "purge repository")
	need(&w.multi, "multi again", "bulk", "purge repository")
	need(&w.moved, "moved", "bulk", "purge digest")
	need(&w.half, "resumed", "bulk")
	need(&w.late, "late")
	if sure.has("purge b") {
		e[&w.b] = gone
	}
	if sure.has("purge repository") {
		e[&w.multi] = gone
	}
	return e
}

// check opens the folder that a process left, as the next one does, and looks at everything.
func (w *world) check(t *testing.T, when, dir string, all, sure said) {
	t.Helper()
	w.checkFiles(t, when, dir, all)
	c, err := cache.Open(w.options(dir, true))
	if err != nil {
		t.Errorf("%s: Open: %v", when, err)
		return
	}
	<-c.Store().Room.Loaded()
	checkLeftovers(t, when, dir)
	w.checkImages(t, when, c, all, sure)
	checkCounters(t, when, dir, c)
	if pins := c.Images().Pins.List(); sure.has("pin") && !all.has("begin unpin") && len(pins) != 1 || sure.has("unpin") && len(pins) > 0 {
		t.Errorf("%s: there are %d pins", when, len(pins))
	}
	if err := c.Close(); err != nil {
		t.Errorf("%s: Close: %v", when, err)
	}
	// The journal must know as much as the database did.
	if _, err := store.RebuildIndex(context.Background(), w.options(dir, true).Store, nil); err != nil {
		t.Errorf("%s: RebuildIndex: %v", when, err)
	}
	if c, err = cache.Open(w.options(dir, false)); err != nil {
		t.Errorf("%s: Open after the rebuild: %v", when, err)
		return
	}
	w.checkImages(t, when+", rebuilt", c, all, nil) // with the upstream: wrong bytes only
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	for _, i := range []image{w.a, w.half, w.late} {
		if err := pullImage(ctx, c, i); err != nil {
			t.Errorf("%s: pull with the upstream: %v", when, err)
		}
	}
	if _, err := keeperOf(c).Collect(ctx, false, nil); err != nil {
		t.Errorf("%s: Collect: %v", when, err)
	}
	checkCounters(t, when+", collected", dir, c)
	if err := c.Close(); err != nil {
		t.Errorf("%s: second Close: %v", when, err)
	}
}

// checkFiles looks whether every blob has the digest of its name.
func (w *world) checkFiles(t *testing.T, when, dir string, all said) {
	t.Helper()
	walkBlobs(t, dir, func(name string, d v1.Hash, _ int64) {
		got, err := digestOfFile(name)
		rotten := d == w.multi.blobs[1] && all.has("begin corrupt")
		if err != nil || got != d && !rotten {
			t.Errorf("%s: file %s has the digest %s, %v", when, d, got, err)
		}
	})
}

func walkBlobs(t *testing.T, dir string, fn func(name string, d v1.Hash, size int64)) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fn(name, v1.Hash{Algorithm: "sha256", Hex: e.Name()}, info.Size())
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// checkLeftovers fails the test for any file that nothing would ever remove.
func checkLeftovers(t *testing.T, when, dir string) {
	t.Helper()
	known := []string{"blobs", "partial", "quarantine", "index", "refs.journal", "forebay.lock", "lost+found"}
	for _, e := range list(t, dir) {
		if !slices.Contains(known, e) {
			t.Errorf("%s: %q is left", when, e)
		}
	}
	for _, e := range list(t, filepath.Join(dir, "partial")) {
		if strings.HasSuffix(e, ".tmp") || strings.HasSuffix(e, ".gone") {
			t.Errorf("%s: partial/%s is left", when, e)
		}
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// checkImages serves every image. Nothing wrong may come out, whatever happened.
func (w *world) checkImages(t *testing.T, when string, c *cache.Cache, all, sure said) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	want := w.expected(all, sure)
	for _, i := range []*image{&w.a, &w.b, &w.multi, &w.moved, &w.half, &w.late} {
		err := pullImage(ctx, c, *i)
		var wrong wrongBytes
		switch {
		case errors.As(err, &wrong):
			t.Errorf("%s: %v", when, err)
		case want[i] == servable && err != nil:
			t.Errorf("%s: what was whole is lost: %v", when, err)
		case want[i] == gone && err == nil:
			t.Errorf("%s: %s:%s is served, and was purged", when, i.repo, i.tag)
		}
	}
}

// checkCounters compares what the cache counts with what is on the disk.
func checkCounters(t *testing.T, when, dir string, c *cache.Cache) {
	t.Helper()
	keptForAKill(t.Context(), c)
	if err := c.Store().Settle(); err != nil {
		t.Errorf("%s: Settle: %v", when, err)
	}
	var files, bytes int64
	walkBlobs(t, dir, func(_ string, _ v1.Hash, size int64) {
		files++
		bytes += size
	})
	s, err := keeperOf(c).Stats()
	if err != nil || s.Blobs != files || s.BlobBytes != bytes {
		t.Errorf("%s: counts %d blobs of %d bytes, %v; the disk has %d of %d", when, s.Blobs, s.BlobBytes, err, files, bytes)
	}
}
