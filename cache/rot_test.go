package cache

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/test/cachetest"
)

// TestFilesChangedUnderOurFeet harms a kept blob after it was verified and served, and
// asks for it again.
func TestFilesChangedUnderOurFeet(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	large := bytes.Repeat([]byte("not ours"), 300_000)
	if err := os.MkdirAll(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "file"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	write := func(name string, fn func(*os.File) error) error {
		if err := os.Chmod(name, 0o600); err != nil {
			return err
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return fn(f)
	}
	for name, harm := range map[string]func(name string) error{
		"a byte changed": func(name string) error {
			return write(name, func(f *os.File) error { _, err := f.WriteAt([]byte{'X'}, 1_000_000); return err })
		},
		"cut":      func(name string) error { return write(name, func(f *os.File) error { return f.Truncate(1_000_000) }) },
		"emptied":  func(name string) error { return write(name, func(f *os.File) error { return f.Truncate(0) }) },
		"appended": func(name string) error { return write(name, func(f *os.File) error { return f.Truncate(9_000_000) }) },
		"removed":  os.Remove,
		"replaced by a file": func(name string) error {
			if err := os.Remove(name); err != nil {
				return err
			}
			return os.WriteFile(name, large, 0o444)
		},
		"replaced by a link": func(name string) error {
			if err := os.Remove(name); err != nil {
				return err
			}
			return os.Symlink(filepath.Join(outside, "file"), name)
		},
		"replaced by a folder": func(name string) error {
			if err := os.Remove(name); err != nil {
				return err
			}
			return os.Mkdir(name, 0o755)
		},
		"its folder replaced by a link": func(name string) error {
			if err := os.RemoveAll(filepath.Dir(name)); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(outside, filepath.Base(name)), large, 0o644); err != nil {
				return err
			}
			return os.Symlink(outside, filepath.Dir(name))
		},
		"its folder removed": func(name string) error { return os.RemoveAll(filepath.Dir(name)) },
		"all blobs removed":  func(name string) error { return os.RemoveAll(filepath.Dir(filepath.Dir(name))) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, dir := cachetest.NewRegistry(), t.TempDir()
				content := bytes.Repeat([]byte("content "), 300_000)
				d := r.Put(hub.Name, &cachetest.Script{Data: content})
				c := openCache(t, r, dir)
				get := func() ([]byte, error) { return getBlob(t, c, d) }
				if b, err := get(); err != nil || !bytes.Equal(b, content) {
					t.Fatalf("at first: %d bytes, %v", len(b), err)
				}
				time.Sleep(time.Second)
				if err := harm(filepath.Join(dir, "blobs", d.Algorithm, d.Hex[:2], d.Hex)); err != nil {
					t.Fatal(err)
				}
				// The harm may show in the middle of the first body, which then ends short.
				if b, err := get(); err == nil && !bytes.Equal(b, content) {
					t.Errorf("%d wrong bytes are served as a whole", len(b))
				}
				synctest.Wait()
				if name == "its folder replaced by a link" {
					return // nothing can be kept there until somebody removes the link
				}
				if b, err := get(); err != nil || !bytes.Equal(b, content) {
					t.Errorf("afterwards: %d bytes, %v", len(b), err)
				}
				synctest.Wait()
				if b, err := c.store.Disk.Get(d, 1<<30); err != nil || !bytes.Equal(b, content) {
					t.Errorf("it is not kept again: %d bytes, %v", len(b), err)
				}
			})
		})
	}
}

func getBlob(t *testing.T, c *Cache, d v1.Hash) ([]byte, error) {
	t.Helper()
	b, err := c.Blob(t.Context(), hub, d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	var got bytes.Buffer
	if f := b.File(); f != nil {
		_, err := io.Copy(&got, f)
		return got.Bytes(), err
	}
	_, err = b.Send(t.Context(), &got, 0, -1)
	return got.Bytes(), err
}
