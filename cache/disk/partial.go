package disk

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxMeta bounds the metadata of a partial file: some 30,000 ranges, far more than a fill makes.
const maxMeta = 1 << 20

// State says what a partial file holds. It has no checksum of the bytes on purpose: after
// a loss of power they may be missing although they were written, so that whoever resumes
// must compute the digest from the bytes as they are read back.
type State struct {
	Size int64      `json:"size"` // bytes of the whole blob, -1 while unknown
	Have [][2]int64 `json:"have"` // [off, end) written, ascending, not overlapping
}

// valid reports whether the ranges make sense for a file of length bytes.
func (st State) valid(length int64) bool {
	if st.Size < -1 || (st.Size >= 0 && length > st.Size) {
		return false
	}
	var last int64
	for _, r := range st.Have {
		if r[0] < last || r[1] <= r[0] || r[1] > length {
			return false
		}
		last = r[1]
	}
	return true
}

// phase is where a Partial is in its life.
type phase uint8

const (
	filling phase = iota
	sealed        // whole, and to settle
	committed
	ended // discarded, released, or lost
)

// Partial is a blob that is being filled. Its owner must end it with exactly one successful
// Commit, Discard or Release; later ends do nothing. All methods may be called concurrently.
type Partial struct {
	s    *Store
	part         // which it is
	name string  // of the partial file
	as   v1.Hash // what it is committed as
	file *os.File

	mu      sync.Mutex
	phase   phase // guarded by mu
	state   State // guarded by mu; the last one saved or read
	known   bool  // guarded by mu; state is set
	syncErr error // guarded by mu; see Commit
}

// Partial is [Store.PartialOf] of nobody in particular.
func (s *Store) Partial(d v1.Hash) (*Partial, error) { return s.PartialOf(d, "") }

// PartialOf opens the partial file of d that owner fills, or makes it. What an earlier fill
// of the same owner left is kept if its metadata is sound, see Meta; else the file is empty.
// Different owners never see each other's bytes. The error is [ErrInUse] while another
// Partial of d and owner lives.
func (s *Store) PartialOf(d v1.Hash, owner string) (*Partial, error) {
	if _, err := blobName(d); err != nil {
		return nil, fmt.Errorf("open partial blob: %w", err)
	}
	which := part{d, owner}
	if !s.claim(which) {
		return nil, fmt.Errorf("open partial blob %s: %w", d, ErrInUse)
	}
	p := &Partial{s: s, part: which, name: which.name(), as: d}
	if err := p.open(); err != nil {
		s.unclaim(which)
		return nil, fmt.Errorf("open partial blob %s: %w", d, err)
	}
	return p, nil
}

// unnamedOwner is the owner of partial files whose digest is not known yet.
const unnamedOwner = "unnamed"

// Unnamed makes a partial file for content whose digest is found out as it comes: see
// [Partial.CommitAs]. Until then it has a digest of nothing.
func (s *Store) Unnamed() (*Partial, error) {
	return s.PartialOf(v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256([]byte(rand.Text())))}, unnamedOwner)
}

// CommitAs is [Partial.Commit] of a file from [Store.Unnamed], as the blob d.
func (p *Partial) CommitAs(d v1.Hash, size int64) error {
	if _, err := blobName(d); err != nil {
		return fmt.Errorf("commit blob: %w", err)
	}
	p.mu.Lock()
	p.as = d
	p.mu.Unlock()
	return p.Commit(size)
}

// HasPartial is [Store.HasPartialOf] of nobody in particular.
func (s *Store) HasPartial(d v1.Hash) bool { return s.HasPartialOf(d, "") }

// HasPartialOf reports whether a fill of d by owner left a file, or is running.
func (s *Store) HasPartialOf(d v1.Hash, owner string) bool {
	if _, err := blobName(d); err != nil {
		return false
	}
	_, err := s.sizeOf(part{d, owner}.name())
	return err == nil
}

// HasWholeOf reports whether a fill of d by owner left all of the blob, as after a kill that came
// before it had settled.
func (s *Store) HasWholeOf(d v1.Hash, owner string) bool {
	if _, err := blobName(d); err != nil {
		return false
	}
	p := &Partial{s: s, name: part{d, owner}.name()}
	state, err := p.readMeta()
	return err == nil && state.Size >= 0 && len(state.Have) == 1 && state.Have[0] == [2]int64{0, state.Size}
}

func (s *Store) claim(p part) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse[p] {
		return false
	}
	s.inUse[p] = true
	return true
}

func (s *Store) unclaim(p part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inUse, p)
}

func (p *Partial) metaName() string { return p.name + ".json" }

// open takes over the file of an earlier fill or makes a new one.
func (p *Partial) open() error {
	f, state, err := p.reopen()
	if err == nil {
		p.file, p.state, p.known = f, state, true
		return nil
	}
	// There is nothing that can be continued: no file, no sound metadata, or no regular file.
	if err := errors.Join(p.s.removeIfThere(p.metaName()), p.s.removeIfThere(p.name)); err != nil {
		return err
	}
	p.file, err = p.s.create(p.name, partialMode)
	return err
}

// reopen opens what an earlier fill left.
func (p *Partial) reopen() (*os.File, State, error) {
	state, err := p.readMeta()
	if err != nil {
		return nil, State{}, err
	}
	f, info, err := p.s.openRegular(p.name, os.O_RDWR)
	if errors.Is(err, fs.ErrPermission) {
		// The process was killed in Commit, after it had made the file read-only.
		if err = p.s.chmod(p.name, partialMode); err == nil {
			f, info, err = p.s.openRegular(p.name, os.O_RDWR)
		}
	}
	if err != nil {
		return nil, State{}, err
	}
	if !state.valid(info.Size()) {
		_ = f.Close()
		return nil, State{}, errors.New("metadata does not fit the file")
	}
	return f, state, nil
}

func (p *Partial) readMeta() (State, error) {
	b, err := p.s.readSmall(p.metaName(), maxMeta)
	if err != nil {
		return State{}, err
	}
	return decodeState(b)
}

func decodeState(b []byte) (State, error) {
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		return State{}, fmt.Errorf("read metadata: %w", err)
	}
	return st, nil
}

// Digest returns the digest that the whole blob must have.
func (p *Partial) Digest() v1.Hash { return p.digest }

// File returns the file, open for reading and writing, owned by the Partial and closed
// when it ends. Its offset is shared by all who use it: prefer WriteAt and ReadAt.
func (p *Partial) File() *os.File { return p.file }

// WriteAt writes to the file. Ranges may be written in any order; gaps take no space.
func (p *Partial) WriteAt(b []byte, off int64) (int, error) {
	return p.s.writeAt(p.file, p.name, b, off)
}

// Truncate sets the length of the file, as when what an upstream claimed turned out wrong.
func (p *Partial) Truncate(size int64) error { return p.s.truncate(p.file, p.name, size) }

// Flush asks the kernel to begin writing [off, off+n) to the disk and does not wait, so
// that the sync in Commit has little left to do. It makes nothing durable.
func (p *Partial) Flush(off, n int64) error { return startWriteBack(p.file, off, n) }

// Meta returns what an earlier fill left, or what was saved last. false means that the
// file is new and empty.
func (p *Partial) Meta() (State, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.known
}

// SaveMeta keeps st for a resume after a restart. Every range in it must have been
// written before. It is atomic and not synced.
func (p *Partial) SaveMeta(st State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != filling {
		return fmt.Errorf("save state of partial blob %s: %w", p.digest, fs.ErrClosed)
	}
	b, err := json.Marshal(st)
	if err == nil && len(b) > maxMeta {
		err = fmt.Errorf("%d bytes are more than %d", len(b), maxMeta)
	}
	if err == nil {
		err = p.s.replaceFile(p.metaName(), b)
	}
	if err != nil {
		return fmt.Errorf("save state of partial blob %s: %w", p.digest, err)
	}
	p.state, p.known = st, true
	return nil
}

// replaceFile puts b in place of what name held, never a part of it.
func (s *Store) replaceFile(name string, b []byte) error {
	tmp := name + tmpSuffix
	if err := s.removeIfThere(tmp); err != nil {
		return err
	}
	err := s.writeFile(tmp, b, false)
	if err == nil {
		err = s.rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, s.removeIfThere(tmp))
	}
	return nil
}

// OpenReader opens the blob's file once more, with an offset of its own; the caller closes
// it. It works while the blob is filled and after it was committed (until it is removed).
func (p *Partial) OpenReader() (*os.File, error) {
	p.mu.Lock() // so that it does not end meanwhile
	defer p.mu.Unlock()
	if p.phase == ended {
		return nil, fmt.Errorf("read partial blob %s: %w", p.digest, fs.ErrClosed)
	}
	f, _, err := p.s.openRegular(p.name, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) { // it was renamed
		f, _, err = p.s.openBlob(p.as)
	}
	if err != nil {
		return nil, fmt.Errorf("read partial blob %s: %w", p.digest, err)
	}
	return f, nil
}

// Commit makes the file the blob, for good: when it returns nil, neither a crash nor a
// loss of power takes it back. The caller has checked that the first size bytes have the
// digest; a file of another length is refused with [ErrMismatch]. A blob that is already
// there is replaced. It closes File.
//
// After an error the Partial still has to be ended, by Discard or Release; OpenReader then
// works only if the error came before the file was renamed. An error of the sync is final,
// since the kernel may have dropped the bytes and reports that once.
func (p *Partial) Commit(size int64) error {
	err := p.seal(size)
	if err == nil {
		u := &unsettled{digest: p.as, file: p.file, name: p.name, size: size, part: p, waited: true}
		if err = p.s.settle([]*unsettled{u})[u]; err != nil {
			p.unseal()
		}
	}
	if err != nil && !errors.Is(err, errCommitted) {
		return fmt.Errorf("commit blob %s: %w", p.digest, err)
	}
	return nil
}

// Seal is Commit, but that the blob survives a kill at once and a loss of power only when it has
// settled. After an error the Partial still has to be ended; what is lost later ends by itself.
func (p *Partial) Seal(size int64) error {
	if err := p.seal(size); err != nil {
		if errors.Is(err, errCommitted) {
			return nil
		}
		return fmt.Errorf("seal blob %s: %w", p.digest, err)
	}
	// That it is whole is noted for a fill after a kill, which then fetches nothing. Without
	// room for the note it is fetched again.
	if b, err := json.Marshal(State{Size: size, Have: [][2]int64{{0, size}}}); err == nil {
		_ = p.s.replaceFile(p.metaName(), b)
	}
	p.s.take(&unsettled{digest: p.digest, file: p.file, name: p.name, size: size, part: p})
	return nil
}

// errCommitted: there is nothing more to do.
var errCommitted = errors.New("is committed")

// seal says that the file is whole.
func (p *Partial) seal(size int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.phase == committed, p.phase == sealed:
		return errCommitted
	case p.phase == ended:
		return fs.ErrClosed
	case p.syncErr != nil:
		return p.syncErr
	}
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != size {
		return fmt.Errorf("%w: the file has %d bytes, %d were verified", ErrMismatch, info.Size(), size)
	}
	p.phase = sealed
	return nil
}

func (p *Partial) unseal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = filling
}

func (p *Partial) failedSync(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.syncErr = err
}

// hasSettled ends a sealed Partial.
func (p *Partial) hasSettled(well bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase = ended; well {
		p.phase = committed
	}
}

// Discard closes and removes the partial file. After a Commit it does nothing.
func (p *Partial) Discard() error { return p.end(true) }

// Release closes the partial file and keeps it for a later Partial of the same digest,
// unless nothing was saved by SaveMeta or the disk has lost bytes of it. After a Commit it
// does nothing.
func (p *Partial) Release() error { return p.end(false) }

func (p *Partial) end(remove bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != filling {
		return nil
	}
	p.phase = ended
	err := p.file.Close()
	if remove || p.syncErr != nil || !p.known {
		err = errors.Join(err, p.s.removeIfThere(p.metaName()), p.s.removeIfThere(p.name))
	}
	p.s.unclaim(p.part)
	if err != nil {
		return fmt.Errorf("close partial blob %s: %w", p.digest, err)
	}
	return nil
}
