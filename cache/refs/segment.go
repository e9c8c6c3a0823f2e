package refs

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"forebay/cache/index/journal"
	"forebay/cache/tier"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

const (
	folder = "refs"
	// suffix sets segments apart from the lease.
	suffix = ".journal"
	// readAhead is what all segments that are read at once may hold in memory, each at least
	// readLeast and at most readMost.
	readAhead = 64 << 20
	readLeast = 256 << 10
	readMost  = 8 << 20
	// triesMost is how often a part of a segment is asked for.
	triesMost = 3
)

// newName names a segment. They sort by the time when they were put.
func newName() string {
	return fmt.Sprintf("%s/%019d-%016x%s", folder, time.Now().UnixNano(), rand.Uint64(), suffix)
}

// segments lists the segments in the bucket, by the time when they were put.
func (r *Refs) segments(ctx context.Context) ([]tier.File, error) {
	var all []tier.File
	err := r.o.Files.ListFiles(ctx, folder, func(f tier.File) error {
		if strings.HasSuffix(f.Name, suffix) && f.Size > 0 {
			all = append(all, f)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b tier.File) int { return cmp.Compare(a.Name, b.Name) })
	return all, err
}

// encode returns lines as a segment: sorted by what they are about, and reduced.
func encode(lines []journal.Line) []byte {
	type keyed struct {
		key string
		journal.Line
	}
	var all []keyed
	for _, l := range lines {
		if key, ok := keyOf(l); ok {
			all = append(all, keyed{key, l})
		}
	}
	slices.SortStableFunc(all, func(a, b keyed) int { return cmp.Compare(a.key, b.key) })
	b := journal.Header(rand.Uint64())
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].key == all[0].key {
			n++
		}
		group := make([]journal.Line, n)
		for i := range group {
			group[i] = all[i].Line
		}
		for _, l := range reduce(all[0].key, group, time.Time{}) {
			b = append(b, l.Bytes()...)
		}
		all = all[n:]
	}
	return b
}

// errGone means that somebody merged a segment into another meanwhile.
var errGone = errors.New("segment was merged meanwhile")

// stream reads the lines of a segment.
type stream struct {
	place int // among the others: which of them is older
	name  string
	next  func() (journal.Line, bool)
	stop  func()

	line journal.Line // the next one
	key  string
	bad  int
	err  error
}

// open begins to read a segment. The caller calls stop.
func (r *Refs) open(ctx context.Context, place int, f tier.File, ahead int64) *stream {
	s := &stream{place: place, name: f.Name}
	in := bufio.NewReader(&parts{ctx: ctx, files: r.o.Files, f: f, ahead: ahead})
	var lines iter.Seq[journal.Line] = func(yield func(journal.Line) bool) {
		enough := errors.New("enough")
		bad, err := journal.ReadLines(in, func(l journal.Line) error {
			if !yield(l) {
				return enough
			}
			return nil
		})
		s.bad += bad
		if !errors.Is(err, enough) {
			s.err = err
		}
	}
	s.next, s.stop = iter.Pull(lines)
	return s
}

// advance goes to the next line, and reports false at the end. Lines that are not in order count as
// damage.
func (s *stream) advance() bool {
	for {
		l, ok := s.next()
		if !ok {
			return false
		}
		key, ok := keyOf(l)
		if ok && key >= s.key {
			s.line, s.key = l, key
			return true
		}
		s.bad++
	}
}

// parts reads a file part by part, so that no connection waits for who reads.
type parts struct {
	ctx   context.Context // of the one reading it lives for
	files tier.Files
	f     tier.File
	ahead int64
	off   int64
	buf   []byte
}

func (p *parts) Read(b []byte) (int, error) {
	if len(p.buf) == 0 {
		if p.off >= p.f.Size {
			return 0, io.EOF
		}
		var err error
		for try := range triesMost {
			if try > 0 && p.ctx.Err() != nil {
				break
			}
			if p.buf, err = p.fetch(); err == nil {
				break
			}
			if pull.KindOf(err) == pull.NotFound {
				return 0, fmt.Errorf("%s: %w", p.f.Name, errGone)
			}
		}
		if err != nil {
			return 0, err
		}
		p.off += int64(len(p.buf))
	}
	n := copy(b, p.buf)
	p.buf = p.buf[n:]
	return n, nil
}

func (p *parts) fetch() ([]byte, error) {
	end := min(p.off+p.ahead, p.f.Size)
	body, _, err := p.files.OpenFile(p.ctx, p.f.Name, p.off, end)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if body.Offset != p.off {
		return nil, fmt.Errorf("%s: another part came than was asked for", p.f.Name)
	}
	b := make([]byte, end-p.off)
	if _, err := io.ReadFull(body, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", p.f.Name, err)
	}
	return b, nil
}

// streams are those that have a line, by what that is about, and older ones first.
type streams []*stream

func (s streams) Len() int { return len(s) }
func (s streams) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(s[i].key, s[j].key), cmp.Compare(s[i].place, s[j].place)) < 0
}
func (s streams) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *streams) Push(x any)   { *s = append(*s, x.(*stream)) }
func (s *streams) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// read calls fn with what remains of all lines in some segments about each thing, in order, and returns
// the segments with lines that could not be read. The error is errGone when one is not there any more.
func (r *Refs) read(ctx context.Context, files []tier.File, forget time.Time, fn func([]journal.Line) error) (damaged []string, err error) {
	ahead := int64(min(max(readAhead/max(len(files), 1), readLeast), readMost))
	var all []*stream
	defer func() {
		for _, s := range all {
			s.stop()
		}
	}()
	var h streams
	for i, f := range files {
		s := r.open(ctx, i, f, ahead)
		all = append(all, s)
		if s.advance() {
			h = append(h, s)
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		key := h[0].key
		var group []journal.Line
		for len(h) > 0 && h[0].key == key {
			group = append(group, h[0].line)
			if h[0].advance() {
				heap.Fix(&h, 0)
			} else {
				heap.Pop(&h)
			}
		}
		if err := fn(reduce(key, group, forget)); err != nil {
			return nil, err
		}
	}
	for _, s := range all {
		if s.err != nil {
			return nil, s.err
		}
		if s.bad > 0 {
			damaged = append(damaged, s.name)
			r.log.Error("lines of the bucket's record of links and tags are damaged", zap.String("segment", s.name), logkey.Count(s.bad))
		}
	}
	r.damaged.Store(int64(len(damaged)))
	return damaged, nil
}

// put makes a segment. Nobody else has its name, so that it needs no condition, and to put it twice
// does no harm.
func (r *Refs) put(ctx context.Context, b []byte) error {
	return r.o.Files.PutFile(ctx, newName(), bytes.NewReader(b), int64(len(b)), tier.Condition{})
}
