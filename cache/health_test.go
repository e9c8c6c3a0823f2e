package cache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// refusing fails changes of the disk on demand.
type refusing struct {
	what  atomic.Value // string: steps that begin so fail
	cause atomic.Value // syscall.Errno
}

func (f *refusing) fail(what string, cause syscall.Errno) {
	f.cause.Store(cause)
	f.what.Store(what)
}

func (f *refusing) fault(step, _ string) error {
	what, _ := f.what.Load().(string)
	if what == "" || what != "*" && !strings.HasPrefix(step, what) {
		return nil
	}
	return f.cause.Load().(syscall.Errno)
}

func causes(c *Cache) (all []string) {
	for _, a := range c.Troubles() {
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
				var f refusing
				r := newRegistry()
				before := r.image(t, hub.Name, "before", "kept", "well")
				c, err := Open(Options{Dir: t.TempDir(), Fault: f.fault, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
				if err != nil {
					t.Fatal(err)
				}
				defer closeCache(t, c)
				read(t, c, hub, "before", before.blobs...)

				f.fail(tt.what, tt.cause)
				after := r.image(t, hub.Name, "after", "not kept", strings.Repeat("large", 1<<20))
				r.manifests[other.Name+"@"+before.digest.String()] = r.manifests[hub.Name+"@"+before.digest.String()]
				r.tags[other.Name+":before"] = before.digest
				for _, d := range before.blobs {
					r.blobs[other.Name+"@"+d.String()] = r.blobs[hub.Name+"@"+d.String()]
				}
				for range 2 {
					read(t, c, hub, "before", before.blobs...)
					read(t, c, hub, "after", after.blobs...)
					read(t, c, other, "before", before.blobs...) // proven, though no link can be made
					time.Sleep(2 * ttl)                          // the tags must be confirmed, and cannot be recorded
				}
				if got := causes(c); !slices.Equal(got, tt.want) {
					t.Errorf("Troubles = %v, want %v", got, tt.want)
				}
				if err := c.Ailing(); err == nil {
					t.Error("Ailing = nil")
				}
				c.probe()
				if got := causes(c); len(got) == 0 && tt.what != "rename" && tt.what != "sync" {
					t.Error("a probe finds the disk well while it fails")
				}

				f.fail("", 0)
				c.probe()
				if got := causes(c); len(got) > 0 {
					t.Errorf("Troubles after the cause has gone = %v", got)
				}
				read(t, c, hub, "after", after.blobs...)
				r.fail(errors.New("off"))
				read(t, c, hub, "after", after.blobs...)
				checkCounts(t, c)
			})
		})
	}
}

// checkCounts compares what the index counts with the files.
func checkCounts(t *testing.T, c *Cache) {
	t.Helper()
	u, err := c.disk.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if n := c.index.Totals(); n.Blobs != u.Blobs || n.Bytes != u.BlobBytes {
		t.Errorf("the index counts %d blobs of %d bytes, the disk has %d of %d", n.Blobs, n.Bytes, u.Blobs, u.BlobBytes)
	}
	if n := c.space.policy.Len(); int64(n) != u.Blobs {
		t.Errorf("the policy knows %d blobs, the disk has %d", n, u.Blobs)
	}
}

func TestEvictionOnFullDiskIsRecordedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f refusing
		r := newRegistry()
		img := r.image(t, hub.Name, "1", "a", "b")
		c, err := Open(Options{Dir: t.TempDir(), Fault: f.fault, MaxBytes: 1 << 30, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
		if err != nil {
			t.Fatal(err)
		}
		defer closeCache(t, c)
		read(t, c, hub, "1", img.blobs...)
		f.fail("index", syscall.ENOSPC)
		<-c.space.loaded
		c.space.evicting.Lock()
		freed := c.space.evict(1)
		c.space.evicting.Unlock()
		if freed.bytes == 0 {
			t.Error("nothing was evicted")
		}
		if got := causes(c); !slices.Equal(got, []string{"index full"}) {
			t.Errorf("Troubles = %v", got)
		}
		f.fail("", 0)
		c.probe()
		checkCounts(t, c)
	})
}

func TestIndexMovesWithItsSetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, fast := t.TempDir(), filepath.Join(t.TempDir(), "fast")
		r := newRegistry()
		open := func(indexDir string) *Cache {
			c, err := Open(Options{Dir: dir, IndexDir: indexDir, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		var all []built
		for i, indexDir := range []string{"", fast, fast, "", fast} {
			c := open(indexDir)
			tag := string(rune('a' + i))
			img := r.image(t, hub.Name, tag, "layer "+tag)
			all = append(all, img)
			read(t, c, hub, tag, img.blobs...)
			<-c.space.loaded
			checkCounts(t, c)
			if h, ok, err := c.TagHistory(hub, "a"); !ok || err != nil {
				t.Errorf("start %d: history %+v, %t, %v", i, h, ok, err)
			}
			home := dir
			other := fast
			if indexDir != "" {
				home, other = fast, dir
			}
			if _, err := os.Stat(filepath.Join(home, indexDirName, "MANIFEST")); err != nil {
				t.Errorf("start %d: no index where it belongs: %v", i, err)
			}
			if _, err := os.Stat(filepath.Join(other, indexDirName)); err == nil {
				t.Errorf("start %d: an index is left at its former place", i)
			}
			closeCache(t, c)
		}
		r.fail(errors.New("off"))
		c := open(fast)
		defer closeCache(t, c)
		for i, img := range all {
			read(t, c, hub, string(rune('a'+i)), img.blobs...)
		}
	})
}
