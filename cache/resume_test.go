package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/pull"
	"forebay/test/cachetest"
)

// TestFillSurvivesRestart stops the cache in the middle of a fill; the next one goes on
// where it stopped, once somebody asks, also through another repository that proves itself.
func TestFillSurvivesRestart(t *testing.T) {
	for _, through := range []Repo{hub, other} {
		t.Run(through.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := cachetest.NewRegistry()
				s := &cachetest.Script{Pace: time.Millisecond}
				s.Data, _ = cachetest.BlobOf(24<<20, 1)
				d := r.Put(hub.Name, s)
				r.Put(other.Name, s)
				dir := t.TempDir()
				c := openCache(t, r, dir)
				b, err := c.Blob(t.Context(), hub, d)
				if err != nil {
					t.Fatal(err)
				}
				var got bytes.Buffer
				if _, err := b.Send(t.Context(), &got, 0, 4<<20); err != nil {
					t.Fatal(err)
				}
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				closeCache(t, c)
				before := s.Sent
				if before == 0 || before >= int64(len(s.Data)) {
					t.Fatalf("upstream sent %d bytes before the restart, want a part", before)
				}
				c = openCache(t, r, dir)
				defer closeCache(t, c)
				all, err := readBlob(t.Context(), c, through, d)
				if err != nil || !bytes.Equal(all, s.Data) {
					t.Fatalf("Blob = %d bytes, %v", len(all), err)
				}
				if most := int64(len(s.Data)) + 4*(256<<10); s.Sent > most {
					t.Errorf("upstream sent %d bytes in all, want at most %d", s.Sent, most)
				}
				if n := r.Count("StatBlob"); n != 2 {
					// Before each fill of what no manifest named. What is on disk goes out only after the upstream said that the repository holds it.
					t.Errorf("upstream saw %d HEADs, want 2", n)
				}
			})
		})
	}
}

// TestPartialOfAnotherRepositoryIsNotGivenAway: bytes of a fill through one repository are
// not for another that does not hold the blob.
func TestPartialOfAnotherRepositoryIsNotGivenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		s := &cachetest.Script{Pace: time.Millisecond}
		s.Data, _ = cachetest.BlobOf(24<<20, 1)
		d := r.Put(hub.Name, s)
		dir := t.TempDir()
		c := openCache(t, r, dir)
		b, err := c.Blob(t.Context(), hub, d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readBlob(t.Context(), c, other, d); pull.KindOf(err) != pull.NotFound {
			t.Errorf("Blob while it is filled = %v, want not found", err)
		}
		b.Close()
		closeCache(t, c)
		c = openCache(t, r, dir)
		defer closeCache(t, c)
		if _, err := readBlob(t.Context(), c, other, d); pull.KindOf(err) != pull.NotFound {
			t.Errorf("Blob after a restart = %v, want not found", err)
		}
	})
}

func TestOldPartialIsSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		s := &cachetest.Script{Pace: time.Millisecond}
		s.Data, _ = cachetest.BlobOf(24<<20, 1)
		d := r.Put(hub.Name, s)
		dir := t.TempDir()
		c := openCache(t, r, dir)
		b, err := c.Blob(t.Context(), hub, d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Send(t.Context(), io.Discard, 0, 1<<20); err != nil {
			t.Fatal(err)
		}
		b.Close()
		closeCache(t, c)
		partial := filepath.Join(dir, "partial", "sha256-"+d.Hex+"@docker.io")
		for _, age := range []time.Duration{23 * time.Hour, 25 * time.Hour} {
			for _, name := range []string{partial, partial + ".json"} {
				if err := os.Chtimes(name, time.Time{}, time.Now().Add(-age)); err != nil {
					t.Fatal(err)
				}
			}
			c = openCache(t, r, dir)
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- c.Run(ctx) }()
			synctest.Wait()
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			closeCache(t, c)
			_, err := os.Stat(partial)
			if gone := os.IsNotExist(err); gone != (age > 24*time.Hour) {
				t.Errorf("partial fill of %v ago is gone: %t", age, gone)
			}
		}
	})
}

// TestCacheModel plays random readers, faults, restarts and rot against the plain bytes:
// whoever gets a whole body gets the right one, and the upstream is never asked for what
// is kept.
func TestCacheModel(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playCache(t, seed) })
		})
	}
}

func playCache(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 5))
	r := cachetest.NewRegistry()
	s := &cachetest.Script{Pace: time.Duration(rnd.IntN(1000)) * time.Microsecond, NoRanges: rnd.IntN(4) == 0, Chunk: 1 + rnd.IntN(64<<10)}
	size := 1 + rnd.IntN(3<<20)
	s.Data, _ = cachetest.BlobOf(size, seed)
	d := r.Put(hub.Name, s)
	dir := t.TempDir()
	c := openCache(t, r, dir)
	path := filepath.Join(dir, "blobs", "sha256", d.Hex[:2], d.Hex)
	for range 6 {
		switch rnd.IntN(5) {
		case 0:
			closeCache(t, c)
			c = openCache(t, r, dir)
		case 1:
			s.Lock()
			s.Faults = append(s.Faults, cachetest.Fault{Cut: 1 + rnd.Int64N(int64(size))}, cachetest.Fault{Flip: rnd.IntN(2) == 0})
			s.Unlock()
		case 2: // rot, noticed at the next start
			closeCache(t, c)
			if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
				_, err = f.WriteAt([]byte{^s.Data[size/2]}, int64(size/2))
				if err != nil {
					t.Error(err)
				}
				f.Close()
			}
			c = openCache(t, r, dir)
		}
		var readers sync.WaitGroup
		for range 1 + rnd.IntN(5) {
			off := rnd.Int64N(int64(size))
			whole := rnd.IntN(2) == 0
			readers.Go(func() {
				b, err := c.Blob(t.Context(), hub, d)
				if err != nil {
					return
				}
				defer b.Close()
				var got bytes.Buffer
				from := off
				if whole {
					from = 0
				}
				if f := b.File(); f != nil {
					_, err = io.Copy(&got, io.NewSectionReader(f, from, b.Size-from))
				} else {
					_, err = b.Send(t.Context(), &got, from, -1)
				}
				if err == nil && !bytes.Equal(got.Bytes(), s.Data[from:]) {
					t.Errorf("seed %d: a reader from %d got %d wrong bytes and no error", seed, from, got.Len())
				}
			})
		}
		readers.Wait()
	}
	// In the end, with an upstream that works, the blob is served right.
	s.Lock()
	s.Faults = nil
	s.Unlock()
	time.Sleep(wrongFor + time.Second)
	var got []byte
	var err error
	for range 3 {
		if got, err = readBlob(t.Context(), c, hub, d); err == nil {
			break
		}
	}
	if err != nil || !bytes.Equal(got, s.Data) {
		t.Errorf("Blob = %d bytes, %v", len(got), err)
	}
	closeCache(t, c)
}
