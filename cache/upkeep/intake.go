package upkeep

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/sums"
	"forebay/internal/wire"
)

var (
	// ErrContent means that content is not what it was said to be: its digest or its size is
	// another, or a manifest is none.
	ErrContent = errors.New("content is not what it is said to be")
	// ErrNoImport means that an import is not known (any more).
	ErrNoImport = errors.New("no such import: it has ended, or the mirror was started anew: begin it again")
	// ErrBusy means that no further import can begin now.
	ErrBusy = errors.New("too many imports at once")
)

const (
	// importsMost bounds the imports at a time. Each remembers what it has brought, some 150
	// bytes for each thing.
	importsMost = 32
	// importIdle is how long an import may do nothing, as one does whose command was killed.
	importIdle = time.Hour
)

// Import is one import, and knows what it has brought. Content is not had by naming it:
// whoever made the archive could name what he may not read. So an import brings the bytes
// of all that its images are to get, also of what is kept here already, and only what has come
// is linked; but for what the repository holds itself, and what a signature vouches for.
//
// Its methods may be called concurrently. Its owner calls End.
type Import struct {
	ID string // for who calls from outside; cannot be guessed

	k       *Keeper
	opts    ImportOptions
	vouched map[v1.Hash]bool // of opts

	mu      sync.Mutex
	brought map[v1.Hash]bool // guarded by mu
	busy    int              // guarded by mu; calls in progress
	used    time.Time        // guarded by mu; when the last call ended
}

// imports are those that have not ended. The zero value is ready for use.
type imports struct {
	mu   sync.Mutex
	open map[string]*Import // guarded by mu; by ID
}

// ImportOptions says what is known of an import.
type ImportOptions struct {
	Signed *Signed // nil for what is not signed, or was not verified
	// MayBeOlder is whether it may be older than what was taken in, and move tags back.
	MayBeOlder bool
}

// Begin begins an import. The error may be [ErrBusy] or [ErrOlder].
func (k *Keeper) Begin(o ImportOptions) (*Import, error) {
	if err := k.signers.check(o.Signed, o.MayBeOlder, false); err != nil {
		return nil, fmt.Errorf("begin an import: %w", err)
	}
	i := &Import{ID: rand.Text(), k: k, opts: o, vouched: map[v1.Hash]bool{}, brought: map[v1.Hash]bool{}, used: time.Now()}
	if o.Signed != nil {
		for _, d := range o.Signed.Vouched {
			i.vouched[d] = true
		}
	}
	k.imports.mu.Lock()
	defer k.imports.mu.Unlock()
	if !k.imports.makeRoom() {
		return nil, fmt.Errorf("begin an import: %w", ErrBusy)
	}
	k.imports.open[i.ID] = i
	return i, nil
}

// makeRoom forgets imports that have done nothing for long, and the one that has for the
// longest when there are too many. mu is held. It reports whether there is room for one more.
func (all *imports) makeRoom() bool {
	if all.open == nil {
		all.open = map[string]*Import{}
	}
	var idle []*Import
	for _, i := range all.open {
		if _, free := i.idleSince(); free {
			idle = append(idle, i)
		}
	}
	slices.SortFunc(idle, func(a, b *Import) int {
		x, _ := a.idleSince()
		y, _ := b.idleSince()
		return cmp.Or(x.Compare(y), cmp.Compare(a.ID, b.ID))
	})
	for _, i := range idle {
		if since, free := i.idleSince(); free && (len(all.open) >= importsMost || time.Since(since) > importIdle) {
			delete(all.open, i.ID)
		}
	}
	return len(all.open) < importsMost
}

// FindImport returns an import that has not ended. The error is [ErrNoImport].
func (k *Keeper) FindImport(id string) (*Import, error) {
	k.imports.mu.Lock()
	defer k.imports.mu.Unlock()
	i := k.imports.open[id]
	if i == nil {
		return nil, ErrNoImport
	}
	return i, nil
}

// End ends an import. What it has brought and no image has got stays as long as there is room:
// a file that is refused is not to take that of others.
func (i *Import) End() {
	i.k.imports.mu.Lock()
	defer i.k.imports.mu.Unlock()
	delete(i.k.imports.open, i.ID)
	i.mu.Lock()
	defer i.mu.Unlock()
	for d := range i.brought {
		if !i.k.imports.bringing(d) {
			i.k.Store.EndAwait(d)
		}
	}
}

// bringing reports whether an import that has not ended has brought d. mu is held.
func (all *imports) bringing(d v1.Hash) bool {
	for _, i := range all.open {
		if i.hasBrought(d) {
			return true
		}
	}
	return false
}

// use says that a call is in progress, until done.
func (i *Import) use() (done func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.busy++
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.busy--
		i.used = time.Now()
	}
}

// idleSince returns when the last call ended; free is false while one is in progress.
func (i *Import) idleSince() (since time.Time, free bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.used, i.busy == 0
}

func (i *Import) bring(d v1.Hash) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.brought[d] = true
}

func (i *Import) hasBrought(d v1.Hash) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.brought[d]
}

// gives reports whether a repository may get d by this import.
func (i *Import) gives(repo Repo, d v1.Hash) bool {
	return i.vouched[d] || i.hasBrought(d) || i.k.holds(repo, d)
}

// holds reports whether a repository has the right to d, as a blob or as a manifest.
func (k *Keeper) holds(repo Repo, d v1.Hash) bool {
	return k.Store.Linked(repo, index.Blob, d) || k.Store.Linked(repo, index.Manifest, d)
}

// Lacking returns those of the digests that the import has to bring for images of these
// repositories: not what it has brought, and what each of them holds. Those stay until then.
func (i *Import) Lacking(repos []Repo, all []v1.Hash) (lacking []v1.Hash) {
	defer i.use()()
	for _, d := range all {
		foreign := func(r Repo) bool { return !i.k.holds(r, d) }
		had := i.hasBrought(d) || len(repos) > 0 && !slices.ContainsFunc(repos, foreign)
		if !had || !i.k.expect(d) {
			lacking = append(lacking, d)
		}
	}
	return lacking
}

// expect says that content which is kept already is about to be named by an import, so
// that it stays until then. It reports whether it is kept.
func (k *Keeper) expect(d v1.Hash) bool {
	k.Store.Await(d) // first, so that it is not evicted in between
	if _, ok := k.Store.DiskSize(d); ok {
		return true
	}
	k.Store.EndAwait(d)
	return false
}

// TakeIn stores the size bytes of r as the content d, once their digest is right. No
// repository gets it by that: see [Import.Admit]. Content that is here already is compared
// with what r has, and not written again: had tells of that. The error is [ErrContent] when
// the bytes are others or not as many, and [store.ErrNoRoom] when they do not fit.
func (i *Import) TakeIn(ctx context.Context, d v1.Hash, size int64, r io.Reader) (had bool, err error) {
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return false, fmt.Errorf("take in: %w: %w", ErrContent, err)
	}
	if size < 0 {
		return false, fmt.Errorf("take in %s: %w: its size is not known", d, ErrContent)
	}
	defer i.use()()
	had, err = i.k.take(ctx, d, size, func(part *disk.Partial) (func() error, error) {
		return func() error { return part.Commit(size) }, receive(ctx, part, d, size, r)
	})
	if had && err == nil {
		err = receive(ctx, nil, d, size, r)
	}
	if err != nil {
		return false, fmt.Errorf("take in %s: %w", d, err)
	}
	i.bring(d)
	return had, nil
}

// TakeUnnamed is [Import.TakeIn] of content whose digest nobody knows yet: it is found out
// while the content is written, and returned.
func (i *Import) TakeUnnamed(ctx context.Context, size int64, r io.Reader) (d v1.Hash, had bool, err error) {
	defer i.use()()
	d, had, err = i.k.takeUnnamed(ctx, size, r)
	if err != nil {
		return v1.Hash{}, false, fmt.Errorf("take in: %w", err)
	}
	i.bring(d)
	return d, had, nil
}

func (k *Keeper) takeUnnamed(ctx context.Context, size int64, r io.Reader) (d v1.Hash, had bool, err error) {
	if size < 0 {
		return d, false, fmt.Errorf("%w: its size is not known", ErrContent)
	}
	reserved, err := k.reserve(ctx, size)
	if err != nil {
		return d, false, err
	}
	defer reserved.Release()
	part, err := k.Store.Disk.Unnamed()
	if err != nil {
		return d, false, err
	}
	defer func() { err = errors.Join(err, part.Discard()) }()
	if err := part.Truncate(0); err != nil {
		return d, false, err
	}
	if d, err = digest(ctx, "sha256", size, r, writing(part)); err != nil || k.expect(d) {
		return d, err == nil, err
	}
	k.Store.Await(d)
	if err := k.Store.Take(d, size, reserved, func() error { return part.CommitAs(d, size) }); err != nil {
		k.Store.EndAwait(d)
		return d, false, err
	}
	return d, false, nil
}

// reserve promises room for size bytes. What the bounds of the folder allow may still be more
// than the file system has: it is refused before a byte is written.
func (k *Keeper) reserve(ctx context.Context, size int64) (*store.Reservation, error) {
	reserved := &store.Reservation{Room: k.Store.Room}
	err := reserved.Grow(ctx, size, 0)
	if err == nil {
		free, _, ferr := k.Store.Disk.Free()
		if ferr == nil && uint64(size) > free {
			reserved.Release()
			err = fmt.Errorf("%w: %s are free on its file system", store.ErrNoRoom, humanize.IBytes(free))
		}
	}
	if errors.Is(err, store.ErrNoRoom) {
		err = fmt.Errorf("%w: it has %s", err, humanize.IBytes(uint64(size)))
	}
	return reserved, err
}

// take makes content of size bytes part of the store: write brings it to a partial file,
// verifies it, and returns what publishes it. had is whether it was there before.
func (k *Keeper) take(ctx context.Context, d v1.Hash, size int64, write func(*disk.Partial) (publish func() error, err error)) (had bool, err error) {
	if k.expect(d) {
		return true, nil
	}
	k.Store.Await(d)
	defer func() {
		if err != nil {
			k.Store.EndAwait(d)
		}
	}()
	reserved, err := k.reserve(ctx, size)
	if err != nil {
		return false, err
	}
	defer reserved.Release()
	part, err := k.claimPartial(ctx, d)
	if err != nil || part == nil {
		return part == nil, err
	}
	publish, err := write(part)
	if err == nil {
		err = k.Store.Take(d, size, reserved, publish)
	}
	if err != nil && !k.published(d) {
		err = errors.Join(err, part.Discard())
	}
	return false, err
}

// published reports whether content is on the disk.
func (k *Keeper) published(d v1.Hash) bool {
	_, ok := k.Store.DiskSize(d)
	return ok
}

// claimPartial returns the partial file of d. A fill that runs is waited for; when it has
// brought the content, the file is nil.
func (k *Keeper) claimPartial(ctx context.Context, d v1.Hash) (*disk.Partial, error) {
	for {
		if f := k.Cache.Fills().Of(d); f != nil {
			select {
			case <-f.Done():
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		part, err := k.Store.Disk.Partial(d)
		switch {
		case err == nil:
			return part, nil
		case !errors.Is(err, disk.ErrInUse):
			return nil, err
		}
		if _, ok := k.Store.DiskSize(d); ok {
			return nil, nil
		}
		select { // a fill that has just begun or ended, or another import
		case <-time.After(claimAgain):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// claimAgain is how often a partial file is asked for that somebody else writes.
const claimAgain = 20 * time.Millisecond

// receive reads the size bytes of r and compares them with the digest d, writing them to a
// partial file if there is one.
func receive(ctx context.Context, part *disk.Partial, d v1.Hash, size int64, r io.Reader) error {
	write := func([]byte, int64) error { return nil }
	if part != nil {
		if err := part.Truncate(0); err != nil {
			return err
		}
		write = writing(part)
	}
	got, err := digest(ctx, d.Algorithm, size, r, write)
	if err == nil && got != d {
		err = fmt.Errorf("%w: it has the digest %s", ErrContent, got)
	}
	return err
}

// digest reads the size bytes of r, which may be followed by others, has each piece written
// with its offset, and returns their digest. They are hashed beside the writing.
func digest(ctx context.Context, algorithm string, size int64, r io.Reader, write func(b []byte, at int64) error) (v1.Hash, error) {
	sum, err := sums.New(algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	defer sum.End()
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return v1.Hash{}, err
		}
		buf := sum.Buffer()
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at)])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return v1.Hash{}, fmt.Errorf("read: %w", err)
		}
		if n == 0 || err != nil {
			return v1.Hash{}, fmt.Errorf("%w: it ends after %d of %d bytes", ErrContent, at+int64(n), size)
		}
		sum.Write(buf[:n])
		if err := write(buf[:n], at); err != nil {
			return v1.Hash{}, err
		}
		at += int64(n)
	}
	return sum.Sum(), nil
}

// flushPiece is how many bytes are given to the disk at a time while more come.
const flushPiece = 16 << 20

// writing returns what writes pieces one after the other to a partial file.
func writing(part *disk.Partial) func(b []byte, at int64) error {
	var flushed int64
	return func(b []byte, at int64) error {
		if _, err := part.WriteAt(b, at); err != nil {
			return err
		}
		if at += int64(len(b)); at-flushed < flushPiece {
			return nil
		}
		err := part.Flush(flushed, at-flushed)
		flushed = at
		return err
	}
}
