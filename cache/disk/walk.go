package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/wire"
)

// dirBatch bounds the memory of listing a folder.
const dirBatch = 1024

// Walk calls fn for every committed blob and stops at its first error. Blobs that are
// added or removed meanwhile may be missed. What is not a blob is passed over.
func (s *Store) Walk(fn func(d v1.Hash, size int64, modTime time.Time) error) error {
	for _, algorithm := range wire.Algorithms {
		top := path.Join(blobsDir, algorithm)
		shards, err := s.shardNames(top)
		if err != nil {
			return fmt.Errorf("list blobs: %w", err)
		}
		for _, shard := range shards {
			if err := s.walkShard(algorithm, path.Join(top, shard), fn); err != nil {
				return fmt.Errorf("list blobs: %w", err)
			}
		}
	}
	return nil
}

func (s *Store) shardNames(top string) (names []string, err error) {
	err = s.entries(top, func(e fs.DirEntry) error {
		if e.IsDir() && len(e.Name()) == 2 {
			names = append(names, e.Name())
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

func (s *Store) walkShard(algorithm, shard string, fn func(v1.Hash, int64, time.Time) error) error {
	return s.entries(shard, func(e fs.DirEntry) error {
		d, err := wire.ParseDigest(algorithm + ":" + e.Name())
		if err != nil || d.Hex[:2] != path.Base(shard) || !e.Type().IsRegular() {
			return nil //nolint:nilerr // not one of ours
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return fn(d, info.Size(), info.ModTime())
	})
}

// entries calls fn for each entry of a folder. A folder that is not there is empty.
func (s *Store) entries(name string, fn func(fs.DirEntry) error) error {
	f, err := s.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		batch, err := f.ReadDir(dirBatch)
		for _, e := range batch {
			if err := fn(e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// SweepPartials removes the partial files that nobody uses and nobody wrote to since
// olderThan, and returns how many.
func (s *Store) SweepPartials(olderThan time.Time) (n int, err error) {
	parts, err := s.partials()
	if err != nil {
		return 0, fmt.Errorf("sweep partial blobs: %w", err)
	}
	var errs []error
	for p, last := range parts {
		if !last.Before(olderThan) {
			continue
		}
		swept, err := s.sweep(p)
		if swept {
			n++
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return n, fmt.Errorf("sweep partial blobs: %w", err)
	}
	return n, nil
}

// partials returns what has a partial file or metadata, with the time of the last write.
func (s *Store) partials() (map[part]time.Time, error) {
	last := map[part]time.Time{}
	err := s.entries(partialDir, func(e fs.DirEntry) error {
		p, ok := partOf(e.Name())
		if !ok {
			return nil
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && info.ModTime().After(last[p]) {
			last[p] = info.ModTime()
		}
		return err
	})
	return last, err
}

// partOf tells what the name of a partial file, or of its metadata, belongs to.
func partOf(name string) (part, bool) {
	digest, owner, _ := strings.Cut(strings.TrimSuffix(name, ".json"), "@")
	algorithm, hex, ok := strings.Cut(digest, "-")
	if !ok {
		return part{}, false
	}
	d, err := wire.ParseDigest(algorithm + ":" + hex)
	if err != nil {
		return part{}, false
	}
	owner, err = url.PathUnescape(owner)
	return part{d, owner}, err == nil
}

// sweep removes what is left of one fill, unless it is in use. Holding the claim keeps a
// new Partial away; it would be told [ErrInUse], so that the slow part, freeing the
// space of a large file, is done after the claim is given back.
func (s *Store) sweep(p part) (bool, error) {
	if !s.claim(p) {
		return false, nil
	}
	name := p.name()
	gone := name + goneSuffix
	err := s.removeIfThere(name + ".json")
	if err == nil {
		err = s.rename(name, gone)
	}
	s.unclaim(p)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // there was only metadata
	}
	if err != nil {
		return false, err
	}
	return true, s.removeIfThere(gone)
}

// Usage is what the store holds.
type Usage struct {
	Blobs        int64 // number of committed blobs
	BlobBytes    int64 // their sizes
	Partials     int64 // number of partial files
	PartialBytes int64 // space that the disk has given them, gaps not counted
}

// Usage counts what is on the disk. It looks at every file: for checks, not for requests.
func (s *Store) Usage() (Usage, error) {
	var u Usage
	err := s.Walk(func(_ v1.Hash, size int64, _ time.Time) error {
		u.Blobs++
		u.BlobBytes += size
		return nil
	})
	if err != nil {
		return Usage{}, err
	}
	err = s.entries(partialDir, func(e fs.DirEntry) error {
		if _, ok := partOf(e.Name()); !ok || strings.HasSuffix(e.Name(), ".json") {
			return nil
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			u.Partials++
			u.PartialBytes += allocated(info)
		}
		return err
	})
	if err != nil {
		return Usage{}, fmt.Errorf("list partial blobs: %w", err)
	}
	return u, nil
}

// Free returns the bytes that we may still use on the file system of the folder, and how
// many it has.
func (s *Store) Free() (free, total uint64, err error) {
	f, err := s.root.Open(".")
	if err != nil {
		return 0, 0, fmt.Errorf("free space of %q: %w", s.dir, err)
	}
	defer f.Close()
	if free, total, err = room(f); err != nil {
		return 0, 0, fmt.Errorf("free space of %q: %w", s.dir, err)
	}
	return free, total, nil
}

// OtherBytes returns the space that the disk has given to all below the folder that is
// neither a blob nor a partial file in use: index, journal, parked fills. What cannot be
// read, such as the lost+found of a file system, is not counted; the error names it.
func (s *Store) OtherBytes() (int64, error) {
	var n int64
	var unread []error
	err := fs.WalkDir(s.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && name == blobsDir {
			return fs.SkipDir
		}
		if err == nil && e.Type().IsRegular() && !s.usedPartial(name) && !(path.Dir(name) == partialDir && strings.HasSuffix(name, wholeSuffix)) {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				n += allocated(info)
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // else gone since it was listed
			unread = append(unread, err)
		}
		return nil
	})
	if err = errors.Join(append(unread, err)...); err != nil {
		return n, fmt.Errorf("measure %q: %w", s.dir, err)
	}
	return n, nil
}

// usedPartial reports whether name, below the folder, is the partial file of a Partial that lives.
func (s *Store) usedPartial(name string) bool {
	p, ok := partOf(path.Base(name))
	return ok && path.Dir(name) == partialDir && s.used(p)
}

// used reports whether a Partial of p lives.
func (s *Store) used(p part) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inUse[p]
}
