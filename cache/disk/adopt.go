package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// ErrNoLink means that a file cannot be linked into the store: it is on another file
// system, or links are not allowed.
var ErrNoLink = errors.New("file cannot be linked")

// CommitLink makes a foreign file the blob, by a hard link, instead of the partial file. The
// caller has compared the whole file with the digest. It must not trust the blob as long as
// others can write to the file, see [Shared]; its mode forbids writing from then on. The
// error is [ErrNoLink] when the caller has to copy the file. All else is as with Commit.
func (p *Partial) CommitLink(src *os.File) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != filling {
		return fmt.Errorf("adopt blob %s: %w", p.digest, fs.ErrClosed)
	}
	if err := p.link(src); err != nil {
		return fmt.Errorf("adopt blob %s: %w", p.digest, err)
	}
	p.phase = committed
	p.s.unclaim(p.part)
	// No failure here can harm the blob; files that are left are swept.
	_ = p.file.Close()
	_ = p.s.removeIfThere(p.metaName())
	_ = p.s.removeIfThere(p.name)
	return nil
}

func (p *Partial) link(src *os.File) error {
	s, tmp, folders := p.s, p.name+".link"+tmpSuffix, map[string]bool{}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := s.removeIfThere(tmp); err != nil {
		return err
	}
	if err := s.linkFile(src, tmp); err != nil {
		return err
	}
	err = s.sync(src, tmp)
	if mode := info.Mode().Perm() &^ 0o222; err == nil && mode != info.Mode().Perm() {
		err = s.chmod(tmp, mode)
	}
	blob, nerr := blobName(p.as)
	if err = errors.Join(err, nerr); err == nil {
		err = s.renameToBlob(tmp, blob, folders)
	}
	if err != nil {
		return errors.Join(err, s.removeIfThere(tmp))
	}
	// A rename onto another link of the same file does nothing and leaves both names.
	if err := s.removeIfThere(tmp); err != nil {
		return err
	}
	folders[path.Dir(blob)] = true
	for folder := range folders {
		if err := s.syncDir(folder); err != nil {
			return errors.Join(err, s.removeIfThere(blob))
		}
	}
	return nil
}

// linkFile gives an open file a name in the store, whatever names it has.
func (s *Store) linkFile(src *os.File, name string) error {
	if err := s.before(StepCreate, name); err != nil {
		return err
	}
	return linkInto(s.top, src, name)
}

// Shared reports whether an open file has other names than that in the store, by which
// others may change it.
func Shared(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return true
	}
	return linked(info)
}
