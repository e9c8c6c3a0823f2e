package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/disk"
	"forebay/cache/event"
	"forebay/cache/evict"
	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/manifest"
	"forebay/internal/sums"
)

// Link is the right of a repository to a digest, with what its registry said of it.
type Link struct {
	Kind      index.Kind
	Digest    v1.Hash
	MediaType types.MediaType // empty for blobs, and while unknown
	Size      int64           // bytes; -1 while unknown
}

// ManifestLink is the link to a manifest.
func ManifestLink(desc v1.Descriptor) Link {
	return Link{Kind: index.Manifest, Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size}
}

// BlobLink is the link to a blob.
func BlobLink(d v1.Hash, size int64) Link { return Link{Kind: index.Blob, Digest: d, Size: size} }

// PutLinks records in b that repo holds digests, as of now.
func PutLinks(b *index.Batch, repo Repo, links ...Link) error {
	var errs []error
	for _, l := range links {
		errs = append(errs, b.PutLink(repo, l.Kind, l.Digest, index.Link{MediaType: string(l.MediaType), Size: l.Size, At: time.Now()}))
	}
	return errors.Join(errs...)
}

// Link records that repo holds digests, on the word of its upstream. That it cannot be
// recorded for the fault of the disk is no error.
func (s *Store) Link(repo Repo, links ...Link) error {
	return s.Record(func(b *index.Batch) error { return PutLinks(b, repo, links...) })
}

// Linked reports whether repo holds d.
func (s *Store) Linked(repo Repo, k index.Kind, d v1.Hash) bool {
	_, ok, err := s.Index.Link(repo, k, d)
	return ok && err == nil
}

// LinkOf is Linked with what is known of d. An index that cannot be read knows of none.
func (s *Store) LinkOf(repo Repo, k index.Kind, d v1.Hash) (index.Link, bool) {
	link, ok, err := s.Index.Link(repo, k, d)
	if err != nil {
		s.Unknown(err)
		return index.Link{}, false
	}
	return link, ok
}

// KeepFile makes a verified partial file part of the store, and links it to repos. file is the
// partial file that was verified; it is closed when it has settled. What was reserved is
// released when the file counts.
func (s *Store) KeepFile(part *disk.Partial, file *os.File, size int64, reserved *Reservation, repos ...Repo) error {
	written := StampOf(file)
	if err := part.Seal(size); err != nil {
		return err
	}
	return s.kept(part.Digest(), size, written, reserved, repos)
}

// KeepBytes is KeepFile of bytes in memory.
func (s *Store) KeepBytes(d v1.Hash, b []byte, reserved *Reservation, repos ...Repo) error {
	written, err := s.put(d, b)
	if err != nil {
		return err
	}
	return s.kept(d, int64(len(b)), written, reserved, repos)
}

func (s *Store) put(d v1.Hash, b []byte) (Stamp, error) {
	if err := s.Disk.Put(d, b); err != nil {
		return 0, err
	}
	f, _, err := s.Disk.Blob(d)
	if err != nil { // there is no descriptor for it, but the blob is there, and must be recorded
		return 0, nil // it is verified when it is used
	}
	defer f.Close()
	return StampOf(f), nil
}

// kept takes in a blob that is to settle.
func (s *Store) kept(d v1.Hash, size int64, written Stamp, reserved *Reservation, repos []Repo) error {
	s.settleSoon()
	s.SetVerified(d, written)
	return s.recordFile(d, size, evict.Blob, time.Now(), reserved, func(b *index.Batch) error {
		var errs []error
		for _, repo := range repos {
			errs = append(errs, PutLinks(b, repo, BlobLink(d, size)))
		}
		return errors.Join(errs...)
	})
}

// Take makes a partial file part of the store, which commit publishes once it is verified.
// No repository gets it by that. What was reserved is released when the file counts.
func (s *Store) Take(d v1.Hash, size int64, reserved *Reservation, commit func() error) error {
	if err := commit(); err != nil {
		return err
	}
	return s.recordFile(d, size, evict.Blob, time.Now(), reserved, nil)
}

// Adopt records a file that is on the disk, and that the index does not know.
func (s *Store) Adopt(d v1.Hash, size int64, added time.Time) error {
	return s.recordFile(d, size, evict.Blob, added, nil, nil)
}

// recordFile takes in that the file of d is on the disk: it is counted, recorded with what else
// record says, and uploaded. With record somebody waits, so that a failing disk is no error.
func (s *Store) recordFile(d v1.Hash, size int64, kind evict.Kind, at time.Time, reserved *Reservation, record func(*index.Batch) error) error {
	s.Room.add(d, size, kind, reserved)
	if s.Bucket != nil {
		defer s.Bucket.Added(d, size)
	}
	put := func(b *index.Batch) error { return b.PutBlob(d, index.BlobInfo{Size: size, Added: at}) }
	if record == nil {
		return s.Update(put)
	}
	return s.Record(func(b *index.Batch) error { return errors.Join(put(b), record(b)) })
}

// Manifest is a manifest as it is kept.
type Manifest struct {
	Desc v1.Descriptor // media type, digest, size
	// Bytes are shared and must not be changed. They are nil when only a HEAD was
	// asked for and the content is not kept.
	Bytes []byte

	refs []v1.Hash     // what it refers to, for counting use
	used *atomic.Int64 // Unix seconds of the last use that was noted; shared by copies
}

// manifest returns a manifest that was verified, and notes how large it says its blobs are,
// which shapes requests only.
func (s *Store) manifest(repo Repo, desc v1.Descriptor, b []byte) *Manifest {
	m := &Manifest{Desc: desc, Bytes: b, used: new(atomic.Int64)}
	doc, ok := manifest.Parse(b)
	if !ok {
		return m
	}
	m.refs = doc.Refs()
	for _, blob := range doc.Blobs() {
		switch {
		case len(blob.URLs) > 0: // of which the registry may have nothing
			s.urls.Add(linkKey{repo, blob.Digest}, blob.URLs)
		case blob.Size > 0:
			s.sizes.Add(linkKey{repo, blob.Digest}, blob.Size)
		}
	}
	return m
}

// SizeGuess returns how large a manifest of repo says that a blob is; false when none that was
// read lately names it. It proves nothing.
func (s *Store) SizeGuess(repo Repo, d v1.Hash) (int64, bool) { return s.sizes.Get(linkKey{repo, d}) }

// URLs returns where else a manifest of repo that was read lately says that a foreign layer is;
// nil when none does. What it gives is true by its digest only.
func (s *Store) URLs(repo Repo, d v1.Hash) []string {
	urls, _ := s.urls.Get(linkKey{repo, d})
	return urls
}

// rereadMost bounds the manifests of a repository that are read for FindURLs: some 20 ms from a cold disk.
const rereadMost = 1000

// FindURLs reports whether a manifest that is kept of repo says where else the foreign layer d is,
// which [Store.URLs] returns then. Manifests that nobody asked for since the start are read once.
func (s *Store) FindURLs(repo Repo, d v1.Hash) bool {
	s.rereading.Lock()
	defer s.rereading.Unlock()
	if !s.reread.Contains(repo) {
		s.reread.Add(repo, struct{}{})
		var kept []v1.Hash
		err := s.Index.Links(repo, index.Manifest, func(d v1.Hash, _ index.Link) error {
			if kept = append(kept, d); len(kept) == rereadMost {
				return io.EOF // enough
			}
			return nil
		})
		if err != nil && !errors.Is(err, io.EOF) {
			s.Log.Warn("manifests not looked through for foreign layers", logkey.Repository(repo.String()), logkey.Err(err))
		}
		for _, d := range kept {
			if b, err := s.Read(d, manifest.MaxBytes); err == nil {
				s.manifest(repo, v1.Descriptor{Digest: d}, b)
			}
		}
	}
	return len(s.URLs(repo, d)) > 0
}

// PutManifest keeps a verified manifest, and links it to repo. Where the disk refuses it the
// error says so, and the manifest is kept in memory: that is no worse a place while the disk
// fails.
func (s *Store) PutManifest(repo Repo, desc v1.Descriptor, b []byte) (*Manifest, error) {
	desc.Size = int64(len(b))
	m := s.manifest(repo, desc, b)
	s.Admit()
	before := s.taken.Load()
	err := s.Disk.Put(desc.Digest, b)
	if err != nil {
		s.Wrote(err)
	} else {
		s.settleSoon()
		err = s.recordFile(desc.Digest, desc.Size, evict.Manifest, time.Now(), nil, func(b *index.Batch) error { return PutLinks(b, repo, ManifestLink(desc)) })
	}
	s.keepInMemory(repo, m, before)
	return m, err
}

// keepInMemory keeps a small manifest in memory, unless any was taken out since before, which may
// be this one: nothing would take it out again.
func (s *Store) keepInMemory(repo Repo, m *Manifest, before int64) {
	if len(m.Bytes) <= hotManifest {
		s.manifests.Add(linkKey{repo, m.Desc.Digest}, m)
	}
	if s.taken.Load() != before {
		s.manifests.Remove(linkKey{repo, m.Desc.Digest})
	}
}

// Manifest returns the manifest d when repo holds it and it is on the disk, and notes that it
// is used. linked tells whether repo holds it, kept or not.
func (s *Store) Manifest(repo Repo, d v1.Hash) (m *Manifest, linked bool) {
	if m, ok := s.manifests.Get(linkKey{repo, d}); ok {
		s.usedManifest(m)
		return m, true
	}
	before := s.taken.Load()
	link, linked := s.LinkOf(repo, index.Manifest, d)
	if !linked {
		return nil, false
	}
	b, err := s.Read(d, manifest.MaxBytes)
	if err != nil {
		s.Unreadable(d, err)
		return nil, true
	}
	s.note(&s.health.reads, nil)
	if err := sums.Check(d, b); err != nil {
		s.Tell(event.Of(event.VerificationFailed, repo, d).Because(err))
		s.Condemn(d, nil, err)
		return nil, true
	}
	m = s.manifest(repo, v1.Descriptor{MediaType: types.MediaType(link.MediaType), Digest: d, Size: int64(len(b))}, b)
	s.usedManifest(m)
	s.keepInMemory(repo, m, before)
	return m, true
}

// Document reads what a kept manifest refers to, which counts as no use. known is false when
// the manifest is not on the disk, or is no document. Who may know it is for the caller.
func (s *Store) Document(repo Repo, d v1.Hash) (m *manifest.Document, known bool) {
	if hot, ok := s.manifests.Peek(linkKey{repo, d}); ok {
		return manifest.Parse(hot.Bytes)
	}
	b, err := s.Read(d, manifest.MaxBytes)
	if err != nil {
		return nil, false
	}
	return manifest.Parse(b)
}

// Serves reports whether the manifest d can be served for repo without the upstream.
func (s *Store) Serves(repo Repo, d v1.Hash) bool {
	if s.manifests.Contains(linkKey{repo, d}) {
		return true
	}
	_, ok := s.Size(d)
	return ok && s.Linked(repo, index.Manifest, d)
}

// DiskSize returns the size of content that is on the disk, in bytes.
func (s *Store) DiskSize(d v1.Hash) (int64, bool) {
	size, err := s.Disk.Stat(d)
	return size, err == nil
}

// BucketSize returns the size of content that the bucket has. No request is made.
func (s *Store) BucketSize(d v1.Hash) (int64, bool) {
	if s.Bucket == nil {
		return 0, false
	}
	return s.Bucket.Has(d)
}

// Size returns the size of content that is on the disk or in the bucket: it can be served
// without its registry.
func (s *Store) Size(d v1.Hash) (int64, bool) {
	if size, ok := s.DiskSize(d); ok {
		return size, true
	}
	return s.BucketSize(d)
}

// Blob opens a blob on the disk to be served: nil when there is none, or when it cannot be
// read, which is noted. The caller closes it.
func (s *Store) Blob(d v1.Hash) (*os.File, int64) {
	file, size, err := s.Disk.Blob(d)
	if err != nil {
		s.Unreadable(d, err)
		return nil, 0
	}
	s.note(&s.health.reads, nil)
	s.use(d)
	return file, size
}

// Read returns the bytes of content on the disk, of at most most bytes.
func (s *Store) Read(d v1.Hash, most int64) ([]byte, error) {
	f, size, err := s.Disk.Blob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > most {
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", d, size, most)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", d, err)
	}
	return b, nil
}

// useEvery bounds how often the use of a manifest is noted: eviction looks at days.
const useEvery = time.Minute

// usedManifest notes that a manifest is used, and with it all that it refers to: clients
// skip the layers that they have, and shared ones would look idle.
func (s *Store) usedManifest(m *Manifest) {
	now, last := time.Now().Unix(), m.used.Load()
	if now-last < int64(useEvery/time.Second) || !m.used.CompareAndSwap(last, now) {
		return
	}
	s.use(m.Desc.Digest)
	s.Room.policy.TouchRefs(m.refs...)
	for _, d := range m.refs {
		s.Index.Touch(d)
	}
}

// use notes that content is used.
func (s *Store) use(d v1.Hash) {
	s.Index.Touch(d)
	s.Room.policy.Touch(d)
}

// tierOwner answers the bucket.
type tierOwner struct{ s *Store }

func (o tierOwner) Pinned(d v1.Hash) bool { return o.s.hooks.Pinned(d) }

func (o tierOwner) Busy() bool { return o.s.hooks.Busy() }

// Changed makes an event of how the bucket does.
func (o tierOwner) Changed(what string, err error) {
	if err != nil {
		o.s.Tell(event.Event{Kind: event.Degraded, Detail: what + ": " + err.Error()})
		return
	}
	o.s.Tell(event.Event{Kind: event.Recovered, Detail: what})
}

func (o tierOwner) Damaged(d v1.Hash) {
	if o.s.onDamaged != nil {
		o.s.onDamaged(d)
	}
}

// noteUse writes the last use of what is evicted down beside its object.
func (s *Store) noteUse(b *index.Batch, d v1.Hash) error {
	if s.Bucket == nil {
		return nil
	}
	used, err := s.Bucket.LastUse(d)
	if err != nil {
		return err
	}
	return b.NoteUse(d, used)
}
