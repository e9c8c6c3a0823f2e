package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/logkey"
	"forebay/internal/sums"
	"forebay/internal/wire"
)

// A sync costs a disk the same for one file as for hundreds. So content that is whole and has
// its digest is taken in at once and settles later, together with others: it is synced, gets
// its name below blobs/, and the name is synced, in this order. Until then it is read from
// where it is, and nothing but a loss of power can tell the difference. After a kill what was
// put is found by its name ([Store.takeUnsettled]), and a fill goes on with the whole file that
// it finds, since [Partial.Seal] notes that it is.

// unsettled is content that is not on the disk for good yet.
type unsettled struct {
	digest v1.Hash
	file   *os.File // stays open, so that it learns of errors of the disk that concern it
	name   string
	size   int64
	part   *Partial // nil for what was put
	waited bool     // part was not sealed: its owner waits, and ends it after an error

	removed bool // guarded by Store.mu; its file is gone, and it is no content any more
}

const (
	// wholeSuffix ends the names of files that were put and have not settled.
	wholeSuffix = ".whole"
	// syncAllFrom is from how many files or folders on one sync of the file system is cheaper
	// than one for each. It writes what others have written there, too.
	syncAllFrom = 8
)

// Put commits b under d. It is meant for small things such as manifests, and does nothing when
// the same bytes are there already. They survive a kill at once, and a loss of power when they
// have settled. The error is [ErrMismatch] when b does not have the digest d.
func (s *Store) Put(d v1.Hash, b []byte) error {
	if err := s.put(d, b); err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	return nil
}

func (s *Store) put(d v1.Hash, b []byte) error {
	name, err := blobName(d)
	if err != nil {
		return err
	}
	if got, err := sums.Of(d.Algorithm, b); err != nil || got != d {
		return fmt.Errorf("%w: it has %s", ErrMismatch, got.Hex)
	}
	if s.holds(name, b) || s.unsettledOf(d) != nil {
		return nil
	}
	u := &unsettled{digest: d, name: fmt.Sprintf("%s.%d%s", part{digest: d}.name(), s.puts.Add(1), wholeSuffix), size: int64(len(b))}
	if u.file, err = s.create(u.name, blobMode); err != nil {
		return err
	}
	if _, err := s.writeAt(u.file, u.name, b, 0); err != nil {
		return errors.Join(err, u.file.Close(), s.removeIfThere(u.name))
	}
	s.take(u)
	return nil
}

// take makes u the content of its digest until it has settled.
func (s *Store) take(u *unsettled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.unsettled[u.digest] != nil { // of another fill, or removed just now
		s.mu.Unlock()
		_, _ = s.Settle() // what is lost of others is told of at their next use
		s.mu.Lock()
	}
	s.unsettled[u.digest] = u
	s.unsettledBytes += u.size
}

// unsettledOf returns the content of d that has not settled, or nil. Who does not find it there
// finds its name below blobs/ after that, if there is any.
func (s *Store) unsettledOf(d v1.Hash) *unsettled {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.unsettled[d]; u != nil && !u.removed {
		return u
	}
	return nil
}

// Unsettled returns how much has not settled.
func (s *Store) Unsettled() (files int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unsettled), s.unsettledBytes
}

// Settle makes all that was put or sealed before it is called survive a loss of power. It
// returns what the disk has lost, which is not there any more, and what went wrong. Those who call it at
// the same time wait for each other.
func (s *Store) Settle() (lost []v1.Hash, err error) {
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.Lock()
	group := slices.Collect(maps.Values(s.unsettled))
	s.mu.Unlock()
	for u, fault := range s.settle(group) {
		if !passes(fault) {
			lost = append(lost, u.digest)
		}
		err = errors.Join(err, fmt.Errorf("commit blob %s: %w", u.digest, fault))
	}
	return lost, err
}

// passes reports whether a fault is one of the process and not of the disk: too many open files.
// What could not be named for that stays unsettled.
func passes(fault error) bool {
	return errors.Is(fault, syscall.EMFILE) || errors.Is(fault, syscall.ENFILE)
}

// settle syncs and names the files of a group. It returns what was lost.
func (s *Store) settle(group []*unsettled) (faults map[*unsettled]error) {
	faults = map[*unsettled]error{}
	s.syncFiles(group, faults)
	s.nameFiles(group, faults)
	for _, u := range group {
		s.hasSettled(u, faults[u])
	}
	return faults
}

// syncFiles makes the bytes of a group survive a loss of power.
func (s *Store) syncFiles(group []*unsettled, faults map[*unsettled]error) {
	together := len(group) >= syncAllFrom && s.syncAll() == nil
	for _, u := range group {
		var err error
		if together {
			err = s.wasSynced(u.file, u.name)
		} else {
			err = s.sync(u.file, u.name)
		}
		if err == nil {
			continue
		}
		faults[u] = err
		if u.part != nil {
			u.part.failedSync(err)
		}
	}
}

// nameFiles gives the synced files of a group the names of their blobs, for good. When the last
// step, the sync of the folders, does not work, the names are taken back: what is lost is
// forgotten, and a file that nobody knows would stay for ever.
func (s *Store) nameFiles(group []*unsettled, faults map[*unsettled]error) {
	named := make(map[string][]*unsettled, len(group)) // by folder
	parents := map[string]bool{}                       // of folders that are new
	for _, u := range group {
		if faults[u] != nil || s.isRemoved(u) {
			continue
		}
		shard, err := s.giveName(u, parents)
		switch {
		case err == nil:
			named[shard] = append(named[shard], u)
		case !s.isRemoved(u):
			faults[u] = err
		}
	}
	if len(named)+len(parents) >= syncAllFrom && s.syncAll() == nil {
		s.knowShards(named)
		return
	}
	var err error
	for parent := range parents {
		err = errors.Join(err, s.syncDir(parent))
	}
	for shard, files := range named {
		if err := errors.Join(err, s.syncDir(shard)); err != nil && (!passes(err) || s.syncAll() != nil) {
			for _, u := range files {
				if faults[u] = err; !passes(err) { // else the name is synced later
					faults[u] = errors.Join(err, s.removeIfThere(path.Join(shard, u.digest.Hex)))
				}
			}
			delete(named, shard)
		}
	}
	s.knowShards(named)
}

// giveName renames the file of u to the name of its blob, in a folder that it returns.
func (s *Store) giveName(u *unsettled, parents map[string]bool) (shard string, err error) {
	name, err := blobName(u.digest)
	if err != nil {
		return "", err
	}
	shard = path.Dir(name)
	if u.part != nil { // what was put is read-only already
		err = s.chmod(u.name, blobMode)
	}
	if err == nil {
		err = s.renameToBlob(u.name, name, parents)
	}
	if err == nil || s.isNamed(u, name) {
		return shard, nil
	}
	// A folder has the name. An empty one is nobody's.
	if info, lerr := s.root.Lstat(name); lerr != nil || !info.IsDir() || s.removeIfThere(name) != nil {
		return shard, err
	}
	return shard, s.rename(u.name, name)
}

// isNamed reports whether the file of u has the name of its blob: there was no descriptor to sync that
// by.
func (s *Store) isNamed(u *unsettled, name string) bool {
	file, err := u.file.Stat()
	if err != nil {
		return false
	}
	there, err := s.root.Lstat(name)
	return err == nil && os.SameFile(file, there)
}

// renameToBlob gives a file the name of a blob, whose folder it makes, and notes which parents
// must be synced for that.
func (s *Store) renameToBlob(from, name string, parents map[string]bool) error {
	shard := path.Dir(name)
	s.mu.Lock()
	known := s.shards[shard]
	s.mu.Unlock()
	if known {
		if err := s.rename(from, name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// It is new, or an operator has removed it while it was empty.
	if err := s.makeShard(shard, parents); err != nil {
		return err
	}
	return s.rename(from, name)
}

// makeShard makes a folder of blobs, and notes which parents must be synced for that.
func (s *Store) makeShard(shard string, parents map[string]bool) error {
	parents[path.Dir(shard)] = true
	err := s.mkdir(shard)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed more than one folder
		if err = s.root.MkdirAll(path.Dir(shard), dirMode); err == nil {
			parents["."], parents[blobsDir] = true, true
			err = s.mkdir(shard)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// knowShards notes which folders are there and synced.
func (s *Store) knowShards(named map[string][]*unsettled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for shard := range named {
		s.shards[shard] = true
	}
}

// hasSettled takes off what has settled, or was lost.
func (s *Store) hasSettled(u *unsettled, fault error) {
	if fault != nil && (u.waited || passes(fault)) {
		return // its owner ends it, or it settles later
	}
	s.mu.Lock()
	if s.unsettled[u.digest] == u {
		delete(s.unsettled, u.digest)
		s.unsettledBytes -= u.size
	}
	s.mu.Unlock()
	if u.part != nil {
		u.part.hasSettled(fault == nil)
	}
	// None of these failures can harm a blob. What is left is swept, or taken in at the next start.
	_ = u.file.Close()
	if fault != nil {
		_ = s.removeIfThere(u.name)
	}
	if u.part != nil {
		_ = s.removeIfThere(u.part.metaName())
		s.unclaim(u.part.part)
	}
}

func (s *Store) isRemoved(u *unsettled) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return u.removed
}

// removeUnsettled removes content that has not settled. What is settling just now loses its
// file, or has the name already that its caller removes after this. fills is whether the file is
// one of a fill, which is in use until a settling is over.
func (s *Store) removeUnsettled(d v1.Hash) (fills bool, err error) {
	s.mu.Lock()
	u := s.unsettled[d]
	if u != nil {
		u.removed = true
	}
	s.mu.Unlock()
	if u == nil {
		return false, nil
	}
	return u.part != nil, s.removeIfThere(u.name)
}

// takeUnsettled takes in what was put before a kill and had not settled. A loss of power may
// have left anything of it.
func (s *Store) takeUnsettled() error {
	var group []*unsettled
	err := s.entries(partialDir, func(e fs.DirEntry) error {
		if !strings.HasSuffix(e.Name(), wholeSuffix) {
			return nil
		}
		name := path.Join(partialDir, e.Name())
		u, err := s.readUnsettled(name)
		if err != nil {
			s.log.Info("content that was not synced is of no use", logkey.Path(name), logkey.Err(err))
			return s.removeIfThere(name)
		}
		group = append(group, u)
		return nil
	})
	for u, fault := range s.settle(group) { // which a full disk is reason enough for, and none not to start
		s.log.Warn("content of before the start not kept", logkey.Digest(u.digest), logkey.Err(fault))
	}
	return err
}

func (s *Store) readUnsettled(name string) (*unsettled, error) {
	digest, _, _ := strings.Cut(path.Base(name), ".")
	algorithm, hex, _ := strings.Cut(digest, "-")
	d, err := wire.ParseDigest(algorithm + ":" + hex)
	if err != nil {
		return nil, err
	}
	f, info, err := s.openRegular(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	sum, err := sums.Hash(d.Algorithm)
	if err == nil {
		_, err = io.Copy(sum, f)
	}
	if err == nil {
		err = sums.CheckHash(d, sum)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &unsettled{digest: d, file: f, name: name, size: info.Size()}, nil
}
