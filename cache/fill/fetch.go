package fill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/disk"
	"forebay/cache/store"
	"forebay/internal/logkey"
	"forebay/internal/sums"
)

// sizing says how a download is cut up, in bytes. Tests use smaller ones.
type sizing struct {
	// first is what the first request for a blob of unknown size asks for, and the
	// smallest segment.
	first int64
	// whole is the size up to which one plain GET fetches a blob whose size its manifest
	// told: several connections would not be faster.
	whole int64
	// segment bounds what one connection is given at a time.
	segment int64
	// near is how far ahead of a connection a reader waits for it rather than have
	// another one opened at its place. It must be larger than block, so that a worker
	// that is cut short never has the other's bytes in its hands: no byte of the file is
	// written twice, and what the hasher saw is what readers get.
	near int64
	// block is what a connection reads at a time, at most readBlock.
	block int
}

// usual brings nearly all layers with one request (66 % of those that registries hold are
// under 1 MiB), whose Content-Range tells how large a larger one is.
var usual = sizing{first: 8 << 20, whole: 16 << 20, segment: 64 << 20, near: 1 << 20, block: readBlock}

// atOnce asks once for the whole, of a source where each request costs and pieces gain
// nothing. Readers of far ranges get requests of their own.
var atOnce = sizing{first: ToEnd / 2, whole: ToEnd, segment: ToEnd / 2, near: 1 << 20, block: readBlock}

const (
	// urgentExtra is how many connections beyond the limit readers of far ranges may have.
	urgentExtra = 4
	// readBlock is what a connection, and the hasher, read at a time; larger blocks gain
	// nothing measurable and fall out of the processor's cache.
	readBlock = 256 << 10
	// flushEvery is how many bytes are written before the kernel is told to write them
	// back, so that the sync before the commit finds little to do.
	flushEvery = 8 << 20
	// Small is up to how many bytes a blob arrives in memory, if there is room for it. It is
	// verified whole before its first byte goes out, so that its failure is a status and not a
	// short body.
	Small = 1 << 20
	// saveEvery is how often the state of a partial fill is noted: what a killed process
	// may lose of it.
	saveEvery = 500 * time.Millisecond
	// fruitlessMost is how many attempts in a row may bring next to nothing.
	fruitlessMost = 5
	// progressLeast is what an attempt must bring to count as progress.
	progressLeast = 64 << 10
	// reserveStep is what a fill of unknown size reserves at a time, and pieceStep one of pieces.
	reserveStep = 64 << 20
	pieceStep   = 4 << 20
	// lingers is how long a fill of pieces waits for the next reader, to spare him the start of one.
	lingers = 10 * time.Second
)

// buffers are what connections read into: bounded by connections, not by blobs.
var buffers = sync.Pool{New: func() any { b := make([]byte, readBlock); return &b }}

// Options configures a download. Digest, Domain, Source with its lane, Partial and Owner are required.
type Options struct {
	Digest v1.Hash
	Domain string // readers outside of it do not join
	Source Source // the first one
	// Partial makes or opens the partial file. Resumes is whether an earlier fill left one.
	Partial func() (*disk.Partial, error)
	Resumes bool
	Owner   Owner
	// SizeGuess is the size by the manifest, -1 when unknown: it shapes requests and proves nothing.
	SizeGuess int64
	AtOnce    bool  // ask for the whole with one request
	Parallel  int   // connections at once; 0 means 1
	MaxBytes  int64 // larger blobs are not kept; 0 means no limit
	// Room is where what is written is reserved; nil means without bounds.
	Room *store.Room
	// Memory is where what is small arrives; nil means in files, like all else.
	Memory *Memory
	// CancelAbandoned ends the fill when nobody holds it any more.
	CancelAbandoned bool
	// OnlyPieces has it fetch nothing but what ranges ask for, as long as nobody wants the whole.
	// What came is kept for a while after the last of them has left.
	OnlyPieces bool
	Counts     *Counts     // nil when nobody counts
	Log        *zap.Logger // nil means no logging
}

// Content is a verified blob: in a partial file, or in memory.
type Content struct {
	Part  *disk.Partial // nil for one in memory
	File  *os.File      // of Part, as it was verified
	Bytes []byte
	Size  int64
	// Reserved is what the fill may write, of which nothing is needed once it counts as kept.
	Reserved *store.Reservation
}

// Owner is told how a fill went.
type Owner interface {
	// Admit waits, before its readers get the last byte of a verified blob, as long as so many
	// others are not on the disk yet that no more should be given out.
	Admit()
	// Keep makes a verified blob part of the store, for the repositories that have proven that
	// they hold it. Its readers have got it all by then. A Part must be sealed or committed, which
	// takes File over.
	Keep(repos []store.Repo, c Content) error
	// Link is told of a repository that came to a blob of size bytes, and has proven that it holds it,
	// while it was being kept.
	Link(repo store.Repo, size int64) error
	// Failed learns why there is no blob by the source of a repository: because of that, or of
	// our own disk, or of what came. gave is whether any of what came was its.
	Failed(repo store.Repo, gave bool, err error)
	// Mismatched is told of wrong content of a repository that was passed through.
	Mismatched(repo store.Repo, err error)
}

// download fetches a fill. All of it but the workers runs in one goroutine.
type download struct {
	*Fill
	opts      Options
	sizing    sizing
	preparing sync.Once // closes ready
	reserved  store.Reservation
	results   chan result
	readBack  chan error // how reading back what came before its turn ended
	fruitless int        // attempts in a row without progress
	pausing   bool
	guessed   bool // the first request asked where the first reader wants to begin
	resume    <-chan time.Time
	linger    <-chan time.Time // nil while somebody reads
	saved     [][2]int64       // ranges noted last
}

// New returns a fill that downloads a blob, and what runs it to its end in a goroutine of its
// caller's: it returns when everything that it started has stopped, and how the fill ended.
func New(o Options) (f *Fill, run func(context.Context) error, err error) {
	size := usual
	if o.AtOnce {
		size = atOnce
	}
	d, err := newDownload(o, size)
	if err != nil {
		return nil, nil, err
	}
	return d.Fill, d.run, nil
}

func newDownload(o Options, s sizing) (*download, error) {
	f, err := newFill(o.Digest, o.Domain, o.Source, o.Counts, o.Log)
	if err != nil {
		return nil, err
	}
	o.Parallel = max(o.Parallel, 1)
	d := &download{Fill: f, opts: o, sizing: s, reserved: store.Reservation{Room: o.Room}, results: make(chan result), readBack: make(chan error)}
	f.mismatched, f.connections.near, f.reopen, f.memory = o.Owner.Mismatched, s.near, d.openReader, o.Memory
	return d, nil
}

// run downloads and verifies the blob, and ends the fill.
func (t *download) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	if t.opts.Resumes {
		t.preparing.Do(t.prepare) // what is there decides what is asked for
	}
	err := t.fetch(ctx, &running)
	stop()
	running.Wait()
	t.finish(err)
	t.reserved.Release()
	t.counts.ended(cmp.Or(t.err, t.lost))
	return cmp.Or(t.err, t.lost)
}

// prepare makes the place for what comes: memory, or the partial file with what an earlier fill
// left.
func (t *download) prepare() {
	defer close(t.ready)
	t.mu.Lock()
	size := t.size
	t.mu.Unlock()
	if size >= 0 && size <= Small && !t.opts.Resumes && t.opts.Memory.take(size) {
		t.mem = make([]byte, size)
		return
	}
	part, err := t.opts.Partial()
	if err != nil {
		t.partErr = fmt.Errorf("%w: %w", store.ErrUnkept, err)
		return
	}
	t.part, t.file = part, part.File()
	if s, ok := part.Meta(); ok && t.opts.Resumes {
		t.mu.Lock()
		t.have, t.size = spans(s.Have), s.Size
		t.counts.Resumed.Add(1)
		t.changed.all()
		t.mu.Unlock()
	}
}

// openReader opens the partial file for one reader, once it is there. Of what is in memory there
// is none.
func (t *download) openReader() (*os.File, error) {
	<-t.ready
	if t.partErr != nil || t.mem != nil {
		return nil, t.partErr
	}
	return t.part.OpenReader()
}

// fetch starts workers until the blob is whole or nothing more can be got.
func (t *download) fetch(ctx context.Context, running *sync.WaitGroup) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for reading := false; ; {
		if whole, err := t.judge(); whole {
			return t.over(err)
		}
		if !t.pausing {
			t.start(ctx, running)
		}
		t.lingerIfIdle()
		if !reading && t.isBehind() {
			reading = true
			running.Go(func() {
				err := t.catchUp(ctx)
				select {
				case t.readBack <- err:
				case <-ctx.Done():
				}
			})
		}
		select {
		case err := <-t.readBack:
			if reading = false; err != nil {
				return t.over(err)
			}
		case r := <-t.results:
			if err := t.take(r); err != nil {
				return err
			}
		case <-t.kick:
			if t.cancelled() {
				return fmt.Errorf("fill %s: %w", t.Digest, ErrCancelled)
			}
			if t.abandon(t.opts.CancelAbandoned) {
				return fmt.Errorf("fill %s: %w", t.Digest, ErrAbandoned)
			}
		case <-t.resume:
			t.pausing, t.resume = false, nil
		case <-t.linger:
			if t.linger = nil; t.abandon(true) {
				return fmt.Errorf("pieces of %s: %w", t.Digest, ErrAbandoned)
			}
		case <-tick.C:
			t.save()
		case <-ctx.Done():
			return store.ErrClosed
		}
	}
}

// onlyPieces reports whether nothing but pieces is to be fetched. t.mu is held.
func (t *download) onlyPieces() bool { return t.opts.OnlyPieces && !t.all }

// lingerIfIdle begins or ends the wait for another reader of pieces.
func (t *download) lingerIfIdle() {
	t.mu.Lock()
	idle := t.onlyPieces() && t.holders == 0 && len(t.connections.active) == 0
	t.mu.Unlock()
	switch {
	case !idle:
		t.linger = nil
	case t.linger == nil:
		t.linger = time.After(lingers)
	}
}

// over says what a fill has come to, so that nobody comes to what ends without the blob.
func (t *download) over(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ending = failing(err)
	return err
}

func (t *download) isBehind() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.behind()
}

// start opens as many connections as the plan has work for.
func (t *download) start(ctx context.Context, running *sync.WaitGroup) {
	for {
		w := t.plan()
		if w == nil {
			return
		}
		running.Go(func() {
			r := result{w: w}
			r.moved, r.err = t.connect(ctx, w)
			select {
			case t.results <- r:
			case <-ctx.Done():
			}
		})
	}
}

// take takes a worker off and decides how to go on after it. An error ends the fill.
func (t *download) take(r result) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &t.connections
	if i := slices.Index(c.active, r.w); i >= 0 {
		c.active = slices.Delete(c.active, i, i+1)
	}
	if r.err == nil || r.moved >= progressLeast {
		t.fruitless = 0
	}
	switch {
	case r.err == nil:
		return nil
	case errors.Is(r.err, errSize) && t.fruitless == 0:
		// One odd answer is no reason to give up what is there.
	case errors.Is(r.err, store.ErrUnkept), errors.Is(r.err, sums.ErrMismatch), t.state == waiting:
		// The upstream has retried already what nobody answered, and all sources were asked.
		t.ending = failing(r.err)
		return final(r.err)
	case len(c.active) > 0 && r.moved == 0 && oneTooMany(r.err):
		c.limit = 1
		return nil
	}
	if r.moved < progressLeast {
		t.fruitless++
	}
	if t.fruitless >= fruitlessMost {
		if r.w.from == nil || !t.changeOver(r.w.from, r.err) {
			t.ending = true
			return final(r.err)
		}
		t.fruitless = 0
	}
	t.counts.Broken.Add(1)
	t.log.Warn("transfer broke off", logkey.Digest(t.Digest), logkey.Upstream(t.Repo.Upstream),
		logkey.Repository(t.Repo.Name), logkey.Bytes(r.moved), logkey.Err(r.err))
	if t.fruitless > 0 {
		pause := 100 * time.Millisecond << t.fruitless
		t.pausing, t.resume = true, time.After(pause/2+rand.N(pause))
	}
	return nil
}

// failing reports whether err leaves nothing for who comes now: what our own disk refuses is sent
// past it to him, too.
func failing(err error) bool { return err != nil && !errors.Is(err, store.ErrUnkept) }

// final returns the error of a fill that err ends. Where the upstream contradicts the
// size that it told, perhaps to an earlier fill that this one goes on with, what is there
// is of no use: it must be dropped, or every later fill would stumble over it too.
func final(err error) error {
	if errors.Is(err, errSize) {
		return fmt.Errorf("%w: %w", sums.ErrMismatch, err)
	}
	return err
}

// save notes the state of the partial fill for a restart, if it has changed.
func (t *download) save() {
	t.mu.Lock()
	if len(t.have) == 0 || t.mem != nil {
		t.mu.Unlock()
		return // there may be no file yet, or there is none
	}
	s := disk.State{Size: t.size, Have: slices.Clone([][2]int64(t.have))}
	t.mu.Unlock()
	if slices.Equal(s.Have, t.saved) {
		return
	}
	t.saved = s.Have
	if err := t.part.SaveMeta(s); err != nil {
		t.log.Debug("state of a partial fill not noted", logkey.Digest(t.Digest), logkey.Err(err))
	}
}

// finish keeps or drops what came, and ends the fill.
func (t *download) finish(err error) {
	t.preparing.Do(func() { // nothing has come, and readers must not wait for a file
		t.partErr = fs.ErrClosed
		close(t.ready)
	})
	if err == nil {
		t.opts.Owner.Admit()
		t.settled(nil)
		t.keep()
		return
	}
	switch {
	case errors.Is(err, sums.ErrMismatch):
		err = t.invalid(err)
		t.drop()
	case errors.Is(err, store.ErrUnkept):
		// Readers go on from what is there, through descriptors of their own.
		defer t.drop()
	default:
		if t.part == nil {
			break
		}
		t.save()
		if rerr := t.part.Release(); rerr != nil {
			t.log.Warn("partial fill not kept", logkey.Digest(t.Digest), logkey.Err(rerr))
		}
	}
	t.tellFailed(err)
	t.settled(err)
	t.end(nil)
	t.giveBack()
}

// keep makes the verified blob part of the store.
func (t *download) keep() {
	linked := map[store.Repo]bool{}
	t.mu.Lock()
	repos := t.proven(linked)
	t.mu.Unlock()
	err := t.opts.Owner.Keep(repos, Content{Part: t.part, File: t.file, Bytes: t.mem, Size: t.size, Reserved: &t.reserved})
	if err != nil {
		t.log.Error("blob not kept", logkey.Digest(t.Digest), logkey.Err(err))
		err = fmt.Errorf("%w: %w", store.ErrUnkept, err)
		defer t.drop() // readers have what they need
	}
	t.tellFailed(err)
	for err == nil {
		late, none := t.late(linked)
		if none {
			break
		}
		for _, repo := range late {
			if lerr := t.opts.Owner.Link(repo, t.size); lerr != nil { // it proves it again
				t.log.Warn("blob not linked", logkey.Repository(repo.Name), logkey.Digest(t.Digest), logkey.Err(lerr))
			}
		}
	}
	t.end(err)
	t.giveBack()
}

// giveBack gives the memory of a fill that has ended back, once nobody reads it.
func (f *Fill) giveBack() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended && f.holders == 0 && f.mem != nil && f.memory != nil {
		f.memory.give(int64(len(f.mem)))
		f.memory = nil
	}
}

// late returns proven for a blob that is kept. When there are none the fill has ended: who comes from
// now on finds the blob in the store.
func (t *download) late(linked map[store.Repo]bool) (repos []store.Repo, none bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	repos = t.proven(linked)
	t.ended = len(repos) == 0
	return repos, t.ended
}

// proven returns the repositories that may have the blob and are not among those that are linked, and
// puts them there. t.mu is held.
func (t *download) proven(linked map[store.Repo]bool) (repos []store.Repo) {
	for _, s := range t.sources {
		if s.proven && !linked[s.Repo] {
			linked[s.Repo] = true
			repos = append(repos, s.Repo)
		}
	}
	return repos
}

// tellFailed tells the owner of the sources that failed: all of them, when the fill did.
func (t *download) tellFailed(err error) {
	t.mu.Lock()
	sources := slices.Clone(t.sources) // none comes to what ends; of those here nothing changes
	t.mu.Unlock()
	for _, s := range sources {
		if why := cmp.Or(s.err, err); why != nil {
			t.opts.Owner.Failed(s.Repo, s.gave, why)
		}
	}
}

func (t *download) drop() {
	if t.part == nil {
		return
	}
	if err := t.part.Discard(); err != nil {
		t.log.Warn("partial fill not removed", logkey.Digest(t.Digest), logkey.Err(err))
	}
}
