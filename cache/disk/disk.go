// Package disk keeps blobs as files named by their digest.
//
// It promises that a name below blobs/ only ever leads to the whole content that was
// committed under it, at whatever moment the process dies: bytes are written and synced
// under another name, and renamed into place last. It does not promise that the content
// still has its digest: disks lose bits, so that whoever serves content checks it.
//
// Layout below the folder of [Open]:
//
//	blobs/<algorithm>/<2 hex>/<hex>     committed, mode 0444
//	partial/<algorithm>-<hex>           a fill in progress or to be resumed
//	partial/sha256-<random>@unnamed     content whose digest is not known yet; removed at Open
//	partial/<algorithm>-<hex>.json      what that partial file holds, see [State]
//	partial/<algorithm>-<hex>.<n>.whole content that is to be synced and named; see settle.go
//	partial/*.tmp, partial/*.gone       on their way in and out; removed at Open
//	forebay.lock                        held by the one process that uses the folder
//
// Every access goes through an [os.Root], so that a link in the folder never leads out of it.
//
// Lock order: Store.settling, then Partial.mu, then Store.mu.
package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/internal/logkey"
	"forebay/internal/wire"
)

const (
	blobsDir   = "blobs"
	partialDir = "partial"
	tmpSuffix  = ".tmp"
	goneSuffix = ".gone"

	// Content may be private, so that the folders keep other users of the machine out.
	dirMode     = 0o700
	partialMode = 0o600
	blobMode    = 0o444
)

var (
	// ErrMismatch means that bytes do not have the digest or the size that was claimed for them.
	ErrMismatch = errors.New("content does not match its digest")
	// ErrInUse means that another fill holds the partial file.
	ErrInUse = errors.New("partial file is in use")
	// ErrLocked means that another process uses the folder.
	ErrLocked = errors.New("in use by another process")
	// ErrForeign means that a name of the store is taken by something that the store
	// never makes: a link, a folder, a device. It goes with [fs.ErrNotExist], because
	// the blob is not there.
	ErrForeign = errors.New("not a regular file")
)

// Store is a folder of blobs. Its methods may be called concurrently.
type Store struct {
	dir   string
	root  *os.Root
	top   *os.File // the folder itself
	lock  *os.File
	also  *os.File // the lock of another folder; nil without one
	log   *zap.Logger
	fault Fault
	puts  atomic.Int64 // so that no two files that are put have the same name

	settling sync.Mutex // one group at a time

	mu             sync.Mutex
	inUse          map[part]bool          // guarded by mu; partial files that a Partial owns
	shards         map[string]bool        // guarded by mu; folders below blobs/ known to exist and to be synced
	unsettled      map[v1.Hash]*unsettled // guarded by mu
	unsettledBytes int64                  // guarded by mu
}

// Open makes the folder dir ready and locks it for this process. A folder that another
// process holds is refused with [ErrLocked]; a lock file that a dead process left is not
// in the way. log may be nil. The caller must call Close.
func Open(dir string, log *zap.Logger) (*Store, error) {
	if log == nil {
		log = zap.NewNop()
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("open store %q: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", dir, err)
	}
	s := &Store{dir: dir, root: root, log: log, inUse: map[part]bool{}, shards: map[string]bool{}, unsettled: map[v1.Hash]*unsettled{}}
	if err := s.prepare(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("open store %q: %w", dir, err)
	}
	return s, nil
}

// prepare locks the folder, makes the fixed folders and removes what a killed process
// left half done.
func (s *Store) prepare() (err error) {
	if s.lock, err = lockFolder(s.root); err != nil {
		return err
	}
	if s.top, err = s.root.Open("."); err != nil {
		return err
	}
	folders := []string{blobsDir}
	for _, algorithm := range wire.Algorithms {
		folders = append(folders, path.Join(blobsDir, algorithm))
	}
	for _, name := range append([]string{partialDir}, folders...) {
		if err := s.root.MkdirAll(name, dirMode); err != nil {
			return err
		}
	}
	// A process that died after it made a shard folder may not have synced the entry.
	for _, name := range append([]string{"."}, folders...) {
		if err := s.syncDir(name); err != nil {
			return err
		}
	}
	n, err := s.removeLeftovers()
	if n > 0 {
		s.log.Info("leftovers removed", logkey.Path(s.dir), logkey.Count(n))
	}
	if err != nil {
		return err
	}
	return s.takeUnsettled()
}

// removeLeftovers removes temporary files. Nobody else writes here while we hold the lock.
func (s *Store) removeLeftovers() (n int, err error) {
	err = s.entries(partialDir, func(e fs.DirEntry) error {
		left := func(suffix string) bool { return strings.HasSuffix(e.Name(), suffix) }
		if !left(tmpSuffix) && !left(goneSuffix) && !left("@"+unnamedOwner) {
			return nil
		}
		n++
		return s.removeIfThere(path.Join(partialDir, e.Name()))
	})
	return n, err
}

// Close settles and unlocks the folder. Files that were handed out stay open; every Partial
// should have ended before.
func (s *Store) Close() error {
	_, err := s.Settle()
	err = errors.Join(err, s.root.Close())
	for _, f := range []*os.File{s.top, s.lock, s.also} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Blob opens a committed blob for reading and returns its size. The caller closes the
// file, which is a plain one so that the kernel can copy it to a connection. Removing
// the blob does not disturb files already open.
//
// The error is [fs.ErrNotExist] when there is no such blob, also when something that is
// not a file has its name: a Commit puts the blob back in its place.
func (s *Store) Blob(d v1.Hash) (*os.File, int64, error) {
	f, info, err := s.openBlob(d)
	if err != nil {
		return nil, 0, fmt.Errorf("open blob %s: %w", d, err)
	}
	return f, info.Size(), nil
}

// openBlob opens content, which may not have settled.
func (s *Store) openBlob(d v1.Hash) (*os.File, fs.FileInfo, error) {
	name, err := blobName(d)
	if err != nil {
		return nil, nil, err
	}
	if u := s.unsettledOf(d); u != nil {
		f, info, err := s.openRegular(u.name, os.O_RDONLY)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, info, err
		}
	}
	return s.openRegular(name, os.O_RDONLY)
}

// Stat returns the size of a committed blob, with the errors of Blob.
func (s *Store) Stat(d v1.Hash) (int64, error) {
	name, err := blobName(d)
	if err != nil {
		return 0, fmt.Errorf("stat blob: %w", err)
	}
	var size int64
	err = fs.ErrNotExist
	if u := s.unsettledOf(d); u != nil {
		size, err = s.sizeOf(u.name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		size, err = s.sizeOf(name)
	}
	if err != nil {
		return 0, fmt.Errorf("stat blob %s: %w", d, err)
	}
	return size, nil
}

// sizeOf returns the size of name if it is a regular file itself.
func (s *Store) sizeOf(name string) (int64, error) {
	size, regular, err := statBeneath(s.top, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		var info fs.FileInfo
		if info, err = s.root.Lstat(name); err == nil {
			size, regular = info.Size(), info.Mode().IsRegular()
		}
	}
	if err == nil && !regular {
		err = foreign(name)
	}
	return size, err
}

// Get returns the bytes of a committed blob of at most limit bytes, with the errors of Blob.
// They are not checked against the digest.
func (s *Store) Get(d v1.Hash, limit int64) ([]byte, error) {
	f, info, err := s.openBlob(d)
	if err == nil {
		defer f.Close()
		var b []byte
		if b, err = readLimited(f, info, limit); err == nil {
			return b, nil
		}
	}
	return nil, fmt.Errorf("read blob %s: %w", d, err)
}

// Remove removes a committed blob. Removing what is not there is no error.
func (s *Store) Remove(d v1.Hash) error {
	name, err := blobName(d)
	if err != nil {
		return fmt.Errorf("remove blob: %w", err)
	}
	fills, err := s.removeUnsettled(d)
	if err = errors.Join(err, s.removeIfThere(name)); fills {
		_, _ = s.Settle() // gives its partial file back; what is lost of others is told of at their next use
	}
	if err != nil {
		return fmt.Errorf("remove blob %s: %w", d, err)
	}
	return nil
}

// holds reports whether the committed file has exactly the bytes b. A rotten file
// does not, so that Put replaces it.
func (s *Store) holds(name string, b []byte) bool {
	f, info, err := s.openRegular(name, os.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	if info.Size() != int64(len(b)) {
		return false
	}
	have, err := io.ReadAll(io.LimitReader(f, info.Size()+1))
	return err == nil && bytes.Equal(have, b)
}

// openRegular opens name if it is a regular file itself, not by way of a link.
func (s *Store) openRegular(name string, flag int) (*os.File, fs.FileInfo, error) {
	f, err := openBeneath(s.top, name, flag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if err != nil {
		return s.openStepwise(name, flag)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = foreign(name)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// openStepwise is openRegular where the kernel does not help.
func (s *Store) openStepwise(name string, flag int) (*os.File, fs.FileInfo, error) {
	before, err := s.root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	// It is checked before opening, since opening a pipe waits for its other end.
	if !before.Mode().IsRegular() {
		return nil, nil, foreign(name)
	}
	return s.openSame(name, flag, 2)
}

// openSame opens a file and makes sure that it is the one that has the name. A Put of the
// same digest may replace it between the two looks, so that it is tried again.
func (s *Store) openSame(name string, flag, tries int) (*os.File, fs.FileInfo, error) {
	f, err := s.root.OpenFile(name, flag, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil {
		var named fs.FileInfo
		if named, err = s.root.Lstat(name); err == nil && os.SameFile(named, info) {
			return f, info, nil
		}
	}
	_ = f.Close()
	if err != nil {
		return nil, nil, err
	}
	if tries--; tries == 0 {
		return nil, nil, foreign(name)
	}
	return s.openSame(name, flag, tries)
}

func foreign(name string) error {
	return fmt.Errorf("%q: %w (%w)", name, ErrForeign, fs.ErrNotExist)
}

// blobName returns the file name of a committed blob. The digest is checked first, since
// it may come from a client.
func blobName(d v1.Hash) (string, error) {
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return "", err
	}
	return path.Join(blobsDir, d.Algorithm, d.Hex[:2], d.Hex), nil
}

// part tells partial files apart: by their digest, and by who fills them.
type part struct {
	digest v1.Hash // checked
	owner  string  // see [Store.PartialOf]
}

// name returns the name of the file.
func (p part) name() string {
	name := path.Join(partialDir, p.digest.Algorithm+"-"+p.digest.Hex)
	if p.owner != "" {
		name += "@" + url.PathEscape(p.owner)
	}
	return name
}
