package cache

import (
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/store"
	"forebay/test/cachetest"
)

func causes(c *Cache) (all []string) {
	for _, a := range c.store.Troubles() {
		all = append(all, a.What[len("writing to the "):]+" "+a.Cause)
	}
	return all
}

func TestClientsAreServedWhileTheDiskFails(t *testing.T) {
	for _, tt := range []struct {
		name, what string
		cause      syscall.Errno
		want       []string
	}{
		{"full disk", "*", syscall.ENOSPC, []string{"store full", "index full"}},
		{"read-only", "*", syscall.EROFS, []string{"store read-only", "index read-only"}},
		{"broken", "*", syscall.EIO, []string{"store broken", "index broken"}},
		{"no descriptors", "create", syscall.EMFILE, []string{"store descriptors"}},
		{"index full", "index", syscall.ENOSPC, []string{"index full"}},
		{"sync fails", "sync", syscall.EIO, []string{"store broken"}},
		{"rename fails", "rename", syscall.EIO, []string{"store broken"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f cachetest.Disk
				r := cachetest.NewRegistry()
				before := r.Image(t, hub.Name, "before", "kept", "well")
				c := openBounded(t, r, t.TempDir(), store.Options{Fault: f.Fault})
				defer closeCache(t, c)
				read(t, c, hub, "before", before.Blobs...)

				f.Fail(tt.what, tt.cause)
				after := r.Image(t, hub.Name, "after", "not kept", strings.Repeat("large", 1<<20))
				r.Copy(hub.Name, other.Name, "before", before)
				for range 2 {
					read(t, c, hub, "before", before.Blobs...)
					read(t, c, hub, "after", after.Blobs...)
					read(t, c, other, "before", before.Blobs...) // proven, though no link can be made
					time.Sleep(2 * ttl)                          // the tags must be confirmed, and cannot be recorded
				}
				if got := causes(c); !slices.Equal(got, tt.want) {
					t.Errorf("Troubles = %v, want %v", got, tt.want)
				}
				if err := c.store.Ailing(); err == nil {
					t.Error("Ailing = nil")
				}
				c.store.Probe()
				if got := causes(c); len(got) == 0 && tt.what != "rename" && tt.what != "sync" {
					t.Error("a probe finds the disk well while it fails")
				}

				f.Fail("", 0)
				c.store.Probe()
				if got := causes(c); len(got) > 0 {
					t.Errorf("Troubles after the cause has gone = %v", got)
				}
				read(t, c, hub, "after", after.Blobs...)
				r.Fail(errors.New("off"))
				read(t, c, hub, "after", after.Blobs...)
				checkCounts(t, c)
			})
		})
	}
}

// checkCounts compares what the index counts with the files.
func checkCounts(t *testing.T, c *Cache) {
	t.Helper()
	settle(t, c)
	u, err := c.store.Disk.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if n := c.store.Index.Totals(); n.Blobs != u.Blobs || n.Bytes != u.BlobBytes {
		t.Errorf("the index counts %d blobs of %d bytes, the disk has %d of %d", n.Blobs, n.Bytes, u.Blobs, u.BlobBytes)
	}
	if n, _ := c.store.Room.Counted(); int64(n) != u.Blobs {
		t.Errorf("%d blobs are counted, the disk has %d", n, u.Blobs)
	}
}

// read pulls what ref names, and with it the given blobs.
func read(t *testing.T, c *Cache, repo Repo, ref string, blobs ...v1.Hash) {
	t.Helper()
	if _, err := c.Manifest(t.Context(), repo, ref, false); err != nil {
		t.Fatalf("manifest %s of %s: %v", ref, repo, err)
	}
	for _, d := range blobs {
		b, err := c.Blob(t.Context(), repo, d)
		if err != nil {
			t.Fatalf("blob %s of %s: %v", d, repo, err)
		}
		if _, err := b.Send(t.Context(), io.Discard, 0, -1); err != nil {
			t.Errorf("send %s: %v", d, err)
		}
		b.Close()
	}
	synctest.Wait()
}
