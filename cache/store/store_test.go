package store

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/index"
	"forebay/internal/manifest"
	"forebay/test/cachetest"
)

// hub is the repository that holds what tests put.
var hub = Repo{Upstream: "docker.io", Name: "library/app"}

// open opens a store, which is closed at the end of the test unless the test has closed it.
func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.ctx.Err() == nil {
			shut(t, s)
		}
	})
	return s
}

func shut(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

// put keeps a blob, as a fill that ends well does.
func put(t *testing.T, s *Store, content []byte) v1.Hash {
	t.Helper()
	d := cachetest.DigestOf(content)
	part, err := s.Disk.Partial(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.KeepFile(part, part.File(), int64(len(content)), nil, hub); err != nil {
		t.Fatal(err)
	}
	return d
}

// putImage keeps an image of a registry whole, as its clients do who pull it.
func putImage(t *testing.T, s *Store, r *cachetest.Registry, tag string, img cachetest.Built) {
	t.Helper()
	desc, content, err := r.Manifest(t.Context(), hub.Name, tag)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutManifest(hub, desc, content); err != nil {
		t.Fatal(err)
	}
	err = s.Update(func(b *index.Batch) error {
		return b.PutTag(hub, tag, index.Tag{Desc: desc, CheckedAt: time.Now(), ChangedAt: time.Now()})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range img.Blobs {
		script, err := r.Blob(hub.Name, d)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, script.Data)
	}
}

// wantImage checks that an image can be served whole without its registry.
func wantImage(t *testing.T, s *Store, tag string, img cachetest.Built) {
	t.Helper()
	if bound, ok, err := s.Index.Tag(hub, tag); !ok || err != nil || bound.Desc.Digest != img.Digest {
		t.Errorf("tag %s = %+v, %t, %v, want %s", tag, bound, ok, err, img.Digest)
	}
	if m, _ := s.Manifest(hub, img.Digest); m == nil || cachetest.DigestOf(m.Bytes) != img.Digest {
		t.Errorf("Manifest(%s) of tag %s = %+v", img.Digest, tag, m)
	}
	for _, d := range img.Blobs {
		content, err := s.Read(d, manifest.MaxBytes)
		if err != nil || cachetest.DigestOf(content) != d || !s.Linked(hub, index.Blob, d) {
			t.Errorf("blob %s of tag %s: %d bytes, %v, want it kept and linked", d, tag, len(content), err)
		}
	}
}

func causes(s *Store) (all []string) {
	for _, a := range s.Troubles() {
		all = append(all, strings.TrimPrefix(a.What, "writing to the ")+" "+a.Cause)
	}
	return all
}

// checkCounts compares what the index counts, and what the bounds are kept by, with the files.
func checkCounts(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Settle(); err != nil {
		t.Errorf("Settle: %v", err)
	}
	u, err := s.Disk.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Index.Totals(); n.Blobs != u.Blobs || n.Bytes != u.BlobBytes {
		t.Errorf("the index counts %d blobs of %d bytes, the disk has %d of %d", n.Blobs, n.Bytes, u.Blobs, u.BlobBytes)
	}
	if n, _ := s.Room.Counted(); int64(n) != u.Blobs {
		t.Errorf("%d blobs are counted, the disk has %d", n, u.Blobs)
	}
}

// Of many who wait for the same settling the first sees to it: those behind him do not sync what
// little has come since, one after the other.
func TestThoseWhoWaitSettleOnce(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	var syncs atomic.Int64
	begun, on := make(chan struct{}), make(chan struct{})
	s.Disk.SetFault(func(step disk.Step, _ string) error {
		if step == disk.StepSyncAll && syncs.Add(1) == 1 {
			close(begun)
			<-on
		}
		return nil
	})
	fill := func(kind string, n int) {
		for i := range n {
			b := fmt.Appendf(nil, "%s %d", kind, i)
			if err := s.Disk.Put(cachetest.DigestOf(b), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill("before", unsettledFiles)
	var all, here sync.WaitGroup
	all.Go(s.Admit)
	<-begun
	fill("since", 20)
	for range 8 {
		here.Add(1)
		all.Go(func() {
			here.Done()
			s.Admit()
		})
	}
	here.Wait()
	close(on)
	all.Wait()
	if files, _ := s.Disk.Unsettled(); syncs.Load() != 2 || files != 20 {
		t.Errorf("%d syncs and %d files left, want 2, of files and of names, and 20", syncs.Load(), files)
	}
}

// What is purged as it is read must not go on being served from memory.
func TestManifestTakenOutAsItIsRead(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	for range 20 { // the moment is short
		var all []v1.Descriptor
		for i := range 24 {
			b := cachetest.ManifestOf(fmt.Sprint(i))
			desc := v1.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: cachetest.DigestOf(b), Size: int64(len(b))}
			if _, err := s.PutManifest(hub, desc, b); err != nil {
				t.Fatal(err)
			}
			all = append(all, desc)
		}
		s.manifests.Purge()
		var busy sync.WaitGroup
		for _, desc := range all {
			busy.Go(func() { s.Manifest(hub, desc.Digest) })
			busy.Go(func() {
				if err := s.Unlink(hub, []Link{ManifestLink(desc)}); err != nil {
					t.Error(err)
				}
			})
		}
		busy.Wait()
		for _, k := range s.manifests.Keys() {
			if !s.Linked(hub, index.Manifest, k.digest) {
				t.Fatalf("%s is in memory, and the repository does not hold it", k.digest)
			}
		}
	}
}
