package store

import (
	"context"
	"errors"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/event"
	"forebay/cache/index"
	"forebay/internal/logkey"
)

// quarantineMost bounds what is kept of damaged blobs, for somebody to look at.
const quarantineMost = 1 << 30

// drop makes room: it removes content from the disk that is worth least. What is known of
// its use stays, for when it comes back, and so do links: they are still true.
//
// Files that are being read stay readable. The file goes first: a record without its file
// is harmless, a file without record stays for ever.
func (s *Store) drop(all []v1.Hash) error {
	var errs []error
	gone := all[:0:0]
	for _, d := range all {
		if err := s.Disk.Remove(d); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, d)
	}
	return errors.Join(errors.Join(errs...), s.forget(gone, s.noteUse))
}

// Remove removes content from the disk that is not wanted any more, as if it had never been
// used. Links stay.
func (s *Store) Remove(d v1.Hash) error {
	return errors.Join(s.Disk.Remove(d), s.Gone(d))
}

// Gone takes in that the file of d is not on the disk any more.
func (s *Store) Gone(d v1.Hash) error {
	s.Room.policy.Remove(d)
	return s.forget([]v1.Hash{d}, nil)
}

// forget takes out what is known of content whose files are gone; last, if not nil, writes
// what is to stay of it.
func (s *Store) forget(all []v1.Hash, last func(*index.Batch, v1.Hash) error) error {
	for _, d := range all {
		s.dropFromMemory(d)
		s.forgetVerified(d)
	}
	return s.Update(func(b *index.Batch) error {
		var errs []error
		for _, d := range all {
			if last != nil {
				errs = append(errs, last(b, d))
			}
			errs = append(errs, b.DeleteBlobIfGone(d, s.Disk))
		}
		return errors.Join(errs...)
	})
}

// dropFromMemory takes a manifest out of memory.
func (s *Store) dropFromMemory(d v1.Hash) {
	s.taken.Add(1)
	err := s.Index.Holders(d, func(r Repo, k index.Kind) error {
		if k == index.Manifest {
			s.manifests.Remove(linkKey{r, d})
		}
		return nil
	})
	if err != nil {
		s.Log.Warn("holders not listed", logkey.Digest(d), logkey.Err(err))
	}
}

// Unlink takes links from a repository. The content stays: see [Store.Remove].
func (s *Store) Unlink(repo Repo, links []Link) error {
	err := s.Update(func(b *index.Batch) error {
		for _, l := range links {
			if err := b.DeleteLink(repo, l.Kind, l.Digest); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.taken.Add(1)
	for _, l := range links {
		s.manifests.Remove(linkKey{repo, l.Digest})
	}
	return nil
}

// DropRepo takes all that is known of a repository out of the index and memory.
func (s *Store) DropRepo(ctx context.Context, repo Repo) error {
	err := s.Index.DropRepo(ctx, repo)
	s.taken.Add(1)
	for _, k := range s.manifests.Keys() {
		if k.repo == repo {
			s.manifests.Remove(k)
		}
	}
	return err
}

// Condemn takes a damaged blob out of the store, so that it is fetched anew by whoever
// wants it next. f is the file that was read, and nil for who has none open. It returns the
// file below the storage folder where the blob was kept for somebody to look at, if it was.
func (s *Store) Condemn(d v1.Hash, f *os.File, why error) (quarantine string) {
	if f == nil {
		file, _, err := s.Disk.Blob(d)
		if err != nil {
			s.Unreadable(d, err)
			return ""
		}
		defer file.Close()
		f = file
	}
	s.damaged.Add(1)
	_ = s.settle() // so that the file has the name that it is taken from
	taken, kept, err := s.Disk.Quarantine(d, f, s.quarantineLimit())
	if taken {
		err = errors.Join(err, s.Gone(d))
	}
	s.Log.Error("kept blob is damaged: taken out", logkey.Digest(d), logkey.Path(kept), zap.NamedError("found", why), logkey.Err(err))
	kind := event.VerificationFailed
	if kept != "" {
		kind = event.Quarantined
	}
	s.Tell(event.Event{Kind: kind, Digest: d}.Because(why))
	return kept
}

// quarantineLimit is how many bytes of damaged blobs are kept: no more than a twentieth
// of what the folder may hold.
func (s *Store) quarantineLimit() int64 {
	if s.opts.MaxBytes > 0 {
		return min(quarantineMost, s.opts.MaxBytes/20)
	}
	return quarantineMost
}

// dropOld removes what was not used for longer than the maximum age.
func (s *Store) dropOld(ctx context.Context) {
	if s.opts.MaxAge <= 0 || s.Room.wait(ctx) != nil {
		return
	}
	var old []v1.Hash
	for _, v := range s.Room.policy.Unused(time.Now().Add(-s.opts.MaxAge), s.Room.shouldStay) {
		old = append(old, v.Digest)
	}
	for len(old) > 0 {
		batch := old[:min(len(old), dropBatch)]
		old = old[len(batch):]
		if err := s.drop(batch); err != nil {
			s.Log.Error("old content not dropped", logkey.Err(err))
		}
		s.Log.Info("old content dropped", logkey.Count(len(batch)))
		s.Tell(event.Event{Kind: event.Evicted, Count: int64(len(batch)), Detail: "unused for longer than the maximum age"})
	}
}
