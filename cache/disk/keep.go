package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/wire"
)

// quarantineDir is where damaged blobs are kept for people to look at. Nothing in it is
// ever served or counted.
const quarantineDir = "quarantine"

// DropPartial removes what earlier fills of d left, unless that is in use. It reports
// whether nothing is left.
func (s *Store) DropPartial(d v1.Hash) (bool, error) {
	if _, err := blobName(d); err != nil {
		return false, fmt.Errorf("remove partial blob: %w", err)
	}
	parts, err := s.partials()
	gone := err == nil
	for p := range parts {
		if p.digest != d {
			continue
		}
		swept, serr := s.sweep(p)
		gone, err = gone && swept, errors.Join(err, serr)
	}
	if err != nil {
		return gone, fmt.Errorf("remove partial blob %s: %w", d, err)
	}
	return gone, nil
}

// Partials returns the digests of which a fill left a file, or is running.
func (s *Store) Partials() (map[v1.Hash]bool, error) {
	parts, err := s.partials()
	if err != nil {
		return nil, fmt.Errorf("list partial blobs: %w", err)
	}
	digests := make(map[v1.Hash]bool, len(parts))
	for p := range parts {
		digests[p.digest] = true
	}
	return digests, nil
}

// OldPartials returns the number and the space of the partial files that were not written to
// since olderThan: those that [Store.SweepPartials] would remove.
func (s *Store) OldPartials(olderThan time.Time) (n int, bytes int64, err error) {
	parts, err := s.partials()
	if err != nil {
		return 0, 0, fmt.Errorf("list partial blobs: %w", err)
	}
	for p, last := range parts {
		if s.used(p) || !last.Before(olderThan) {
			continue
		}
		n++
		if info, err := s.root.Lstat(p.name()); err == nil {
			bytes += allocated(info)
		}
	}
	return n, bytes, nil
}

// Quarantine takes a blob out of the store whose open file f was found to be damaged, unless
// a fill has replaced the file meanwhile. The file is kept in quarantine if all that is
// there then has at most most bytes, else it is removed. Quarantine reports whether a file
// was taken out, and its name below the folder if it is kept.
func (s *Store) Quarantine(d v1.Hash, f *os.File, most int64) (taken bool, kept string, err error) {
	name, err := blobName(d)
	if err != nil {
		return false, "", fmt.Errorf("quarantine blob: %w", err)
	}
	taken, kept, err = s.quarantine(d, name, f, most)
	if err != nil {
		return taken, "", fmt.Errorf("quarantine blob %s: %w", d, err)
	}
	return taken, kept, nil
}

func (s *Store) quarantine(d v1.Hash, name string, f *os.File, most int64) (bool, string, error) {
	named, err := s.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	}
	if err != nil {
		return false, "", err
	}
	info, err := f.Stat()
	if err != nil {
		return false, "", err
	}
	if !os.SameFile(named, info) {
		return false, "", nil
	}
	held, err := s.Quarantined()
	if err != nil || held.Bytes+info.Size() > most {
		return true, "", errors.Join(err, s.removeIfThere(name))
	}
	if err := s.root.MkdirAll(quarantineDir, dirMode); err != nil {
		return true, "", errors.Join(err, s.removeIfThere(name))
	}
	to := path.Join(quarantineDir, d.Algorithm+"-"+d.Hex)
	if err := s.rename(name, to); err != nil {
		return true, "", errors.Join(err, s.removeIfThere(name))
	}
	// From now on the file's age is its time in quarantine.
	now := time.Now()
	return true, to, s.root.Chtimes(to, now, now)
}

// Held is a number of files and their size.
type Held struct {
	Files int
	Bytes int64
}

// Quarantined returns what is in quarantine.
func (s *Store) Quarantined() (Held, error) {
	var h Held
	err := s.entries(quarantineDir, func(e fs.DirEntry) error {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() {
			h.Files++
			h.Bytes += info.Size()
		}
		return nil
	})
	if err != nil {
		return Held{}, fmt.Errorf("list quarantine: %w", err)
	}
	return h, nil
}

// SweepQuarantine removes the files that have been in quarantine since before olderThan.
func (s *Store) SweepQuarantine(olderThan time.Time) (n int, err error) {
	var names []string
	err = s.entries(quarantineDir, func(e fs.DirEntry) error {
		algorithm, hex, _ := strings.Cut(e.Name(), "-")
		if _, err := wire.ParseDigest(algorithm + ":" + hex); err != nil {
			return nil //nolint:nilerr // not one of ours
		}
		if info, err := e.Info(); err == nil && info.ModTime().Before(olderThan) {
			names = append(names, e.Name())
		}
		return nil
	})
	slices.Sort(names)
	for _, name := range names {
		if rerr := s.removeIfThere(path.Join(quarantineDir, name)); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		n++
	}
	if err != nil {
		return n, fmt.Errorf("sweep quarantine: %w", err)
	}
	return n, nil
}

// Probe reports whether the disk takes changes now, by making a file and removing it.
func (s *Store) Probe() error {
	name := path.Join(partialDir, "probe"+tmpSuffix)
	err := s.removeIfThere(name)
	if err == nil {
		err = errors.Join(s.writeFile(name, make([]byte, 4096), true), s.removeIfThere(name))
	}
	if err != nil {
		return fmt.Errorf("probe %q: %w", s.dir, err)
	}
	return nil
}
