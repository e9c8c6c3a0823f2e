package fill

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"forebay/cache/store"
	"forebay/internal/lane"
	"forebay/internal/pull"
)

const (
	// sourcesMost bounds the sources of one fill. Further readers are served all the same.
	sourcesMost = 8
	// patience is how long a reader waits for the first answer of another repository's
	// source before its own is asked instead. Registries answer well within it.
	patience = time.Second
)

var (
	// ErrUnproven: nothing says yet that the repository may have the blob.
	ErrUnproven = errors.New("the repository has not proven that it holds the blob")
)

// Source is where the bytes of a fill come from, on behalf of one repository.
type Source struct {
	Repo store.Repo // on whose behalf it is asked
	// Open opens the bytes [off, end) of the blob, end -1 being its end; off 0 with end -1
	// asks without a range. The body is closed by the fill. See pull.Body for what an
	// upstream may answer.
	Open func(ctx context.Context, off, end int64) (*pull.Body, error)
	Lane *lane.Lane // of its connections; nil when it is not downloaded from
	// Piece is whether only pieces of the blob are wanted: ranges that end before it does, or
	// count from its end. At and End are the first of them, in a blob that is said to have Size
	// bytes; 0 when nobody said.
	Piece         bool
	At, End, Size int64
}

// source is one of the sources of a fill.
type source struct {
	Source
	proven bool  // its repository may have the bytes: it is known to, or its registry sends them
	asked  bool  // it was begun with
	gave   bool  // some of what is there
	err    error // why it is not asked any more
}

// attempt is what goes on until the first answer of a fill.
type attempt struct {
	stop     context.CancelFunc
	overtook bool // another source is to be asked in its place
}

// Holder is one who has a fill open on behalf of a repository. It must call LetGo once.
type Holder struct {
	*Fill
	source *source
}

// hold adds one who reads on behalf of the repository of from. With proven that may have the
// bytes, whoever brings them, and from is one more to ask for them; else it must be a source
// already, and gets none before that has answered. The error is [ErrAbandoned] when the fill
// is about to end without the blob, [ErrUnproven], or why the source failed.
func (f *Fill) hold(from Source, proven bool) (*Holder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending {
		return nil, ErrAbandoned
	}
	i := slices.IndexFunc(f.sources, func(s *source) bool { return s.Repo == from.Repo })
	var s *source
	switch {
	case i >= 0:
		s = f.sources[i]
		s.proven = s.proven || proven
		if s.err != nil && !s.proven {
			return nil, s.err
		}
	case !proven:
		return nil, ErrUnproven
	default:
		s = &source{Source: from, proven: true}
		if len(f.sources) < sourcesMost {
			f.sources = append(f.sources, s)
		}
	}
	f.holders++
	if !from.Piece && !f.all {
		f.all = true
		f.nudge()
	}
	return &Holder{f, s}, nil
}

// LetGo ends the hold.
func (h *Holder) LetGo() {
	h.mu.Lock()
	h.holders--
	h.mu.Unlock()
	h.nudge()
	h.giveBack()
}

// Ready waits until the blob's first answer is in and the holder may have it, and for a blob
// of at most small bytes until the whole is verified. It returns the size, -1 while that is
// unknown. The error is ctx's, [ErrUnproven], or why there will be no blob for this holder:
// what was said to other repositories it never gets. With store.ErrUnkept it is sent past
// the disk.
func (h *Holder) Ready(ctx context.Context, small int64) (size int64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	waitFrom := time.Now()
	for {
		switch s := h.source; {
		case !s.proven && s.err != nil:
			return h.size, s.err
		case h.state == failed:
			return h.size, h.failure(s)
		case !s.proven && h.state >= arriving:
			return h.size, ErrUnproven // another source brings it
		case h.state > arriving, s.proven && h.state == arriving && (h.size < 0 || h.size > small):
			return h.size, h.err
		}
		if err := h.awaitChange(ctx, patience-time.Since(waitFrom)); err != nil {
			return h.size, err
		}
	}
}

// awaitChange waits until something changed. After left the holder's own source is asked, if
// that of another has not answered yet. h.mu is held.
func (h *Holder) awaitChange(ctx context.Context, left time.Duration) error {
	if h.state != waiting || h.source.asked || len(h.sources) < 2 {
		return h.changed.wait(ctx)
	}
	if left <= 0 {
		h.overtake(h.source)
		return h.changed.wait(ctx)
	}
	short, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	if err := h.changed.wait(short); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// overtake asks s before all others. f.mu is held.
func (f *Fill) overtake(s *source) {
	i := slices.Index(f.sources, s)
	if i < 0 || s.err != nil {
		return
	}
	s.asked = true
	f.sources = slices.Insert(slices.Delete(f.sources, i, i+1), 0, s)
	if f.attempt != nil {
		f.attempt.overtook = true
		f.attempt.stop()
	}
}

// failure returns why the fill failed, for one of its sources. f.mu is held.
func (f *Fill) failure(s *source) error {
	if s.err != nil {
		return s.err
	}
	return f.err
}

// current returns the source to ask: the first that has not failed. f.mu is held.
func (f *Fill) current() *source {
	for _, s := range f.sources {
		if s.err == nil {
			return s
		}
	}
	return f.sources[0]
}

// changeOver gives a source up for the next one that has not failed, if there is one. What is
// there is gone on with: it has the digest in the end, or is of no use to anybody. f.mu is held.
func (f *Fill) changeOver(s *source, err error) bool {
	if s.err == nil {
		s.err = err
	}
	if next := f.current(); next.err == nil {
		f.changed.all() // those who read on behalf of s learn its error
		return true
	}
	s.err = nil // the last one ends the fill, with the error of that
	return false
}

// open asks the sources in turn for the bytes [off, end) until one answers, which is w's then.
// Unless w has a place in a lane already, it waits for one of the source's, which is given
// back when the body is closed.
func (t *download) open(ctx context.Context, w *worker, off, end int64) (*pull.Body, error) {
	for {
		try, stop := context.WithCancel(ctx)
		a := &attempt{stop: stop}
		t.mu.Lock()
		s := t.current()
		s.asked, w.from = true, s
		if t.state == waiting {
			t.attempt = a
		}
		t.mu.Unlock()
		body, err := s.ask(try, w.extra != nil, off, end)
		if again := t.asked(ctx, a, s, err); !again && err == nil {
			body.ReadCloser = closing{body.ReadCloser, stop}
			return body, nil
		} else if err == nil {
			_ = body.Close() // another source is to be asked in its place
		} else if !again {
			stop()
			return nil, err
		}
		stop()
	}
}

// asked takes in how an attempt at s ended. It reports whether another source is to be asked.
func (t *download) asked(ctx context.Context, a *attempt, s *source, err error) (again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.attempt == a {
		t.attempt = nil
	}
	switch {
	case a.overtook:
		return ctx.Err() == nil
	case err == nil:
		s.proven, s.gave = true, true
		t.changed.all()
		return false
	}
	return ctx.Err() == nil && t.changeOver(s, err)
}

// ask opens the bytes [off, end), in a place of the lane unless it is placed already.
func (s *source) ask(ctx context.Context, placed bool, off, end int64) (*pull.Body, error) {
	if placed {
		return s.Open(ctx, off, end)
	}
	if err := s.Lane.Enter(ctx); err != nil {
		if errors.Is(err, lane.ErrFull) {
			err = &pull.Error{Kind: pull.Overloaded, Upstream: s.Repo.Upstream, Op: "get blob of " + s.Repo.Name, Err: err}
		}
		return nil, err
	}
	body, err := s.Open(ctx, off, end)
	if err != nil {
		s.Lane.Leave()
		return nil, err
	}
	body.ReadCloser = closing{body.ReadCloser, s.Lane.Leave}
	return body, nil
}

// closing calls done after it was closed.
type closing struct {
	io.ReadCloser
	done func()
}

func (c closing) Close() error {
	defer c.done()
	return c.ReadCloser.Close()
}
