// Package fill downloads one blob and serves it to any number of readers while it arrives.
//
// It promises that no reader gets the last byte of a blob before the digest of the whole is
// right, and that a blob is downloaded once however many read it. It does not ask who may
// read but by what its caller proved: see [Holder].
//
// A fill is in one of these states, and never goes back:
//
//	waiting ──▶ arriving ──▶ verified   the digest is right: readers get all of it
//	   │           ├───────▶ unkept     our disk refused it: readers are served past it
//	   └───────────┴───────▶ failed     readers get what is there, and end short
//
// A verified one is kept after its readers have got its last byte, and goes on until then: who
// comes in between finds it. What is small arrives in memory, all else in a partial file.
//
// Waiting ends with the first answer of a source, of which there may be several: the same blob
// of different repositories, each with its readers. When one fails the next goes on, and only
// its own readers, unless they may have the bytes anyway, learn of that. A kept file that is verified beside its
// first reading is a fill too: it begins as arriving, with all of its bytes there.
//
// Lock order: Set.mu, then Fill.mu. Neither is held across I/O.
package fill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"math"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"forebay/cache/disk"
	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/internal/sums"
)

// ToEnd as the end of a range is the end of the blob, wherever that is.
const ToEnd = math.MaxInt64

var (
	// errSize: the upstream contradicts the size that it told before.
	errSize = errors.New("size was told wrong")
	// ErrAbandoned: the last reader has left, and fills are not to go on then.
	ErrAbandoned = fmt.Errorf("nobody waits for it any more: %w", context.Canceled)
	// ErrCancelled: an operator has ended it. What has come is kept for the next one.
	ErrCancelled = fmt.Errorf("an operator has ended it: %w", store.ErrClosed)
)

// state is where a fill stands: see the package comment.
type state uint8

const (
	waiting state = iota
	arriving
	verified // from here on nothing more arrives
	unkept
	failed
)

// Fill is one blob on its way to the disk, or a kept one that is being verified. Workers
// write ranges of it. Whoever has the bytes that follow what is hashed in hand hashes them;
// what came before its turn is read back. Readers follow at their own pace, through files of
// their own.
type Fill struct {
	Digest v1.Hash
	Domain string     // within which readers share it; "" while a kept file is only verified
	Repo   store.Repo // on whose behalf it was begun
	// Trace is of the fill's span, for those who wait for it; not valid without one.
	Trace    trace.SpanContext
	counts   *Counts
	log      *zap.Logger
	verifies bool // a kept file is only being verified
	// mismatched is told of wrong content that was passed through; nil when nobody counts.
	mismatched func(store.Repo, error)

	target              // what it writes to and its readers read from
	memory      *Memory // that mem is of, until it is given back; guarded by mu
	done        chan struct{}
	kick        chan struct{} // capacity 1: a reader wants bytes that nobody is fetching
	connections connections   // guarded by mu

	mu      sync.Mutex
	state   state
	err     error // why it is unkept or failed
	ended   bool  // done is closed
	lost    error // why a verified one was not kept
	size    int64 // -1 while unknown
	have    spans // ranges written to the file
	hashed  int64 // length of the prefix in sum
	hashing bool  // somebody uses sum, who is the only one then
	sum     hash.Hash
	readers map[*reader]struct{}
	sources []*source // to be asked in this order; not empty
	attempt *attempt  // at the first answer; nil when none is going on
	holders int       // who has the fill open, see Holder
	all     bool      // somebody wants more than pieces
	stopped bool      // an operator has ended it
	// ending: it ends without the blob, and nobody may come to it any more.
	ending  bool
	changed signal
}

// target is where a fill goes: memory, or a file.
type target struct {
	mem     []byte        // as long as the blob; nil for a file. Set before ready is closed
	part    *disk.Partial // nil when a kept file is verified, and before ready is closed
	file    *os.File      // what workers write and the hasher reads; owned by the fill
	ready   chan struct{} // closed when mem, or part and file are there, or partErr
	partErr error         // why there is no part
	reopen  func() (*os.File, error)
}

// connections are those of a fill to its source.
type connections struct {
	active     []*worker // in progress
	limit      int       // allowed now
	noRanges   bool      // the upstream ignores Range
	near       int64     // see sizing
	rechecking bool      // a look at readers that wait for a fast connection is due
}

func newFill(d v1.Hash, domain string, from Source, counts *Counts, log *zap.Logger) (*Fill, error) {
	sum, err := sums.Hash(d.Algorithm)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = zap.NewNop()
	}
	if counts == nil {
		counts = &Counts{}
	}
	f := &Fill{
		Digest: d, Domain: domain, Repo: from.Repo, counts: counts, log: log,
		target:      target{ready: make(chan struct{})},
		done:        make(chan struct{}),
		kick:        make(chan struct{}, 1),
		connections: connections{limit: 1, near: usual.near},
		size:        -1,
		sum:         sum,
		readers:     make(map[*reader]struct{}),
		sources:     []*source{{Source: from}},
	}
	f.changed.init(&f.mu)
	return f, nil
}

// Done is closed when the fill has ended.
func (f *Fill) Done() <-chan struct{} { return f.done }

// State returns the size, -1 while unknown, and whether and how the fill has ended.
func (f *Fill) State() (size int64, ended bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size, f.ended, f.err
}

// Arrived returns how many bytes are there, and why the blob is not kept, if the fill has ended
// so.
func (f *Fill) Arrived() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have.total(), cmp.Or(f.err, f.lost)
}

// Ending reports whether the fill ends, or has ended, without the blob.
func (f *Fill) Ending() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ending
}

// abandon gives the fill up if nobody has it open, and either always says so or nothing has
// come yet: then nobody has got a byte of it, and nothing is lost.
func (f *Fill) abandon(always bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holders > 0 || !always && f.state > waiting {
		return false
	}
	f.ending = true
	return true
}

// setArriving lets those go on who wait for the first answer. f.mu is held.
func (f *Fill) setArriving() {
	if f.state == waiting {
		f.state = arriving
		f.changed.all()
	}
}

// setSize records the size of the whole blob, which must not change. f.mu is held.
func (f *Fill) setSize(size, most int64) error {
	if f.size >= 0 && f.size != size {
		return f.invalid(fmt.Errorf("size of %s changed from %d to %d bytes: %w", f.Digest, f.size, size, errSize))
	}
	f.size = size
	if most > 0 && size > most {
		return fmt.Errorf("%d bytes are more than the store may hold: %w", size, store.ErrTooLarge)
	}
	return nil
}

// settled says how the fill came out: err nil means verified. It is called once, and tells those
// who wait.
func (f *Fill) settled(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setArriving()
	f.err = err
	switch {
	case err == nil:
		f.state = verified
	case errors.Is(err, store.ErrUnkept):
		f.state = unkept
	default:
		f.state = failed
	}
	f.changed.all()
	f.changed.stop()
}

// Verified reports whether all of the blob is there and right, kept or not.
func (f *Fill) Verified() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == verified
}

// end ends the fill after settled; lost is why a verified blob was not kept.
func (f *Fill) end(lost error) {
	f.mu.Lock()
	f.ended, f.lost = true, lost
	f.mu.Unlock()
	close(f.done)
}

// cancelled reports whether an operator has ended the fill, to which nobody comes then.
func (f *Fill) cancelled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ending = f.ending || f.stopped
	return f.stopped
}

// nudge makes the download look for work again.
func (f *Fill) nudge() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

func (f *Fill) invalid(err error) error {
	return &pull.Error{Kind: pull.Invalid, Upstream: f.Repo.Upstream, Op: "fill " + f.Digest.String(), Err: err}
}

// Status is how a fill stands, for people and metrics.
type Status struct {
	Upstream, Repository string
	Digest               v1.Hash
	Bytes                int64 // that have arrived
	Size                 int64 // of the whole; -1 while unknown
	Holders              int   // who has it open
	Waiting              int   // readers that have all that has arrived
	Verifying            bool
}

// Status returns how the fill stands; false when it has ended.
func (f *Fill) Status() (s Status, running bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s = Status{Upstream: f.Repo.Upstream, Repository: f.Repo.Name, Digest: f.Digest,
		Bytes: f.have.total(), Size: f.size, Holders: f.holders, Verifying: f.verifies}
	for r := range f.readers {
		if r.waiting {
			s.Waiting++
		}
	}
	return s, !f.ended
}
