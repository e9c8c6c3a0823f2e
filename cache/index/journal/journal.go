// Package journal keeps a text file of the links, tags, pins and decisions that an index was told
// of, so that they survive the loss of its database.
//
// It promises that a line is read as it was written or not at all. Lines that the disk did
// not take are not an error: the journal is to be rewritten then, see [Journal.Wasteful].
package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/index/durable"
	"forebay/cache/index/row"
	"forebay/internal/wire"
)

// The journal is a text file of one change a line, in the order of the changes:
//
//	forebay refs 1 <run>
//	<checksum> +link <upstream> <repository> <kind> <digest> <size> <ms> <media type>
//	<checksum> -link <upstream> <repository> <kind> <digest> <ms>
//	<checksum> +tag <upstream> <repository> <tag> <digest> <size> <ms> <media type>
//	<checksum> -tag <upstream> <repository> <tag> <ms>
//	<checksum> +was <upstream> <repository> <tag> <digest> <ms> <ms>
//	<checksum> +pin <upstream> <repository> <tag or digest> <ms> <platform,platform>
//	<checksum> -pin <upstream> <repository> <tag or digest> <ms>
//	<checksum> +decision <name> <ms> <text>
//	<checksum> -decision <name> <ms>
//
// Old removals have no time. Lines of kinds that this program does not know are whole as others are,
// and are passed over.
//
// A tag that moved has +was for what it pointed to before, with when that was seen first and last.
// The checksum is the CRC-32C of the rest of the line, in hexadecimal. The run is a random
// number that tells this file from one that was rewritten. The time is in milliseconds
// since 1970. Blanks, per cent signs and control characters in names are
// written as %XX; an empty text is a lone per cent sign. Lines that cannot be read, as a
// torn last one, are passed over.
const journalHeader = "forebay refs 1 "

const (
	// maxLine is more than any line of ours has.
	maxLine = 16 << 10
	// Slack is how far a journal may outgrow twice its live content before it is
	// rewritten, so that small ones are left alone.
	Slack = 1 << 20
)

// tmpSuffix is of the file that a rewrite makes.
const tmpSuffix = ".tmp"

// RemoveLeftovers removes what a rewrite left that was killed.
func RemoveLeftovers(path string) error { return durable.RemoveIfThere(path + tmpSuffix) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Journal appends lines. Its methods may be called concurrently, but for StartRewrite with
// Rewrite, which only one caller does, and Close.
type Journal struct {
	path  string
	fault durable.Fault

	mu        sync.Mutex
	f         *os.File // guarded by mu
	run       uint64   // guarded by mu; of the header; 0 if that was damaged
	size      int64    // guarded by mu; bytes in the file
	dirty     bool     // guarded by mu; written since the last sync
	spoiled   bool     // guarded by mu; lines are missing: it must be rewritten
	rewriting bool     // guarded by mu
	tail      []byte   // guarded by mu; appended since the rewrite began
	shipping  bool     // guarded by mu; removals behind shipped outlive a rewrite
	shipped   row.Mark // guarded by mu; see Shipped
	removals  int64    // guarded by mu; bytes of those that outlived one
}

// Open opens a journal, or makes one, and ends a torn last line. The error is [row.ErrNewer] when a
// newer program wrote it.
func Open(path string, fault durable.Fault) (*Journal, error) {
	f, err := fault.Create(path, os.O_RDWR|os.O_APPEND)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{path: path, f: f, fault: fault}
	if err := j.begin(); err != nil {
		return nil, fmt.Errorf("open journal: %w", errors.Join(err, f.Close()))
	}
	return j, nil
}

// begin reads the header of an old file or writes that of a new one.
func (j *Journal) begin() error {
	info, err := j.f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q is not a regular file", j.path)
	}
	if j.size = info.Size(); j.size == 0 {
		j.run = rand.Uint64()
		return j.write(header(j.run))
	}
	b := make([]byte, min(j.size, maxLine))
	if _, err := j.f.ReadAt(b, 0); err != nil {
		return err
	}
	first, _, _ := bytes.Cut(b, []byte{'\n'})
	if j.run, err = parseHeader(first); err != nil {
		return err
	}
	last := make([]byte, 1)
	if _, err := j.f.ReadAt(last, j.size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	return j.write([]byte("\n")) // ends a torn line, so that the next stands alone
}

// HeaderSize is the size of a journal without entries.
const HeaderSize = int64(len(journalHeader) + 16 + 1)

func header(run uint64) []byte { return fmt.Appendf(nil, "%s%016x\n", journalHeader, run) }

// parseHeader returns the run of a first line, 0 if it is damaged. The error is
// [row.ErrNewer] when a newer program wrote it.
func parseHeader(b []byte) (uint64, error) {
	f := strings.Fields(string(b))
	if len(f) < 3 || f[0] != "forebay" || f[1] != "refs" {
		return 0, nil
	}
	if v, err := strconv.Atoi(f[2]); err != nil || v > 1 {
		if err == nil {
			return 0, fmt.Errorf("%w: the journal has form %d, this program knows 1", row.ErrNewer, v)
		}
		return 0, nil
	}
	if len(f) != 4 {
		return 0, nil
	}
	run, err := strconv.ParseUint(f[3], 16, 64)
	if err != nil {
		return 0, nil
	}
	return run, nil
}

// Since calls fn for the sound lines from a position on and counts the others.
func (j *Journal) Since(off int64, fn func(Entry) error) (bad int, err error) {
	return readLines(io.NewSectionReader(j.f, off, j.At().Off-off), fn)
}

// At returns the end of the journal.
func (j *Journal) At() row.Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	return row.Mark{Run: j.run, Off: j.size}
}

// write appends b whole or, as far as the disk lets it, not at all.
func (j *Journal) write(b []byte) error {
	var n int
	err := j.fault.Before(durable.StepAppend, j.path)
	if err == nil {
		n, err = j.f.Write(b)
	}
	if err == nil {
		j.size += int64(n)
		j.dirty = true
		return nil
	}
	if n > 0 && j.f.Truncate(j.size) != nil {
		j.size += int64(n)
	}
	return err
}

// Append adds lines and returns the new end. When they cannot be written, the caller goes on
// and the journal is rewritten as soon as the disk allows.
func (j *Journal) Append(lines []byte) row.Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(lines) == 0 {
		return row.Mark{Run: j.run, Off: j.size}
	}
	if j.rewriting {
		j.tail = append(j.tail, lines...)
	}
	if err := j.write(lines); err != nil {
		j.spoiled = true
	}
	return row.Mark{Run: j.run, Off: j.size}
}

// Spoil makes the next compaction rewrite the journal.
func (j *Journal) Spoil() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spoiled = true
}

// Wasteful reports whether the file should be rewritten; live is how many of its bytes are
// not obsolete.
func (j *Journal) Wasteful(live int64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.spoiled || j.size > 2*(live+j.removals)+Slack
}

// Sync makes what was appended survive a loss of power.
func (j *Journal) Sync() error {
	j.mu.Lock()
	f, dirty := j.f, j.dirty
	j.dirty = false
	j.mu.Unlock()
	if !dirty {
		return nil
	}
	if err := j.fault.Sync(f); err != nil { // not under the lock: updates go on
		j.mu.Lock()
		replaced := j.f != f
		j.spoiled = j.spoiled || !replaced
		j.dirty = true
		j.mu.Unlock()
		if replaced {
			return j.Sync() // rewritten meanwhile: what was appended is in the new file
		}
		return fmt.Errorf("sync journal: %w", err)
	}
	return nil
}

// Close syncs and closes the journal.
func (j *Journal) Close() error {
	return errors.Join(j.Sync(), j.f.Close())
}

// StartRewrite begins to gather what is appended meanwhile.
func (j *Journal) StartRewrite() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rewriting, j.tail, j.spoiled = true, nil, false
}

// Rewrite replaces the file by what emit writes and by what was appended since
// StartRewrite. The old file stays in place when anything fails.
func (j *Journal) Rewrite(emit func(io.Writer) error) (err error) {
	tmp := j.path + tmpSuffix
	defer func() {
		j.mu.Lock()
		j.rewriting, j.tail = false, nil
		j.spoiled = j.spoiled || err != nil
		j.mu.Unlock()
		if err != nil {
			err = fmt.Errorf("rewrite journal: %w", errors.Join(err, durable.RemoveIfThere(tmp)))
		}
	}()
	if err := j.fault.RemoveIfThere(tmp); err != nil {
		return err
	}
	f, err := j.fault.Create(tmp, os.O_RDWR|os.O_EXCL|os.O_APPEND)
	if err != nil {
		return err
	}
	run := rand.Uint64()
	removals, err := j.unshippedRemovals()
	size := int64(0)
	if err == nil {
		size, err = writeLines(f, run, removals, emit)
	}
	if err == nil {
		err = j.fault.Sync(f)
	}
	if err == nil {
		err = j.swap(f, tmp, run, size, int64(len(removals)))
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return j.fault.SyncFolder(filepath.Dir(j.path))
}

func writeLines(f *os.File, run uint64, first []byte, emit func(io.Writer) error) (int64, error) {
	w := bufio.NewWriterSize(f, 64<<10)
	_, err := w.Write(append(header(run), first...))
	if err == nil {
		err = emit(w)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// swap puts the new file in place of the old one.
func (j *Journal) swap(f *os.File, tmp string, run uint64, size, removals int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := f.Write(j.tail); err != nil {
		return err
	}
	if err := j.fault.Rename(tmp, j.path); err != nil {
		return err
	}
	_ = j.f.Close() // replaced: nothing in it matters any more
	j.f, j.run, j.size = f, run, size+int64(len(j.tail))
	j.dirty, j.spoiled, j.removals = true, false, removals
	return nil
}

// LinkLine returns the line that says that a repository holds a digest.
func LinkLine(r row.Repo, k row.Kind, d v1.Hash, l row.Link) []byte {
	return line("+link", r.Upstream, r.Name, k.String(), d.String(), number(l.Size), number(millis(l.At)), l.MediaType)
}

// UnlinkLine returns the line that takes the right to a digest from a repository.
func UnlinkLine(r row.Repo, k row.Kind, d v1.Hash, at time.Time) []byte {
	return line("-link", r.Upstream, r.Name, k.String(), d.String(), number(millis(at)))
}

// TagLine returns the line that says what a tag points to.
func TagLine(r row.Repo, tag string, t row.Tag) []byte {
	return line("+tag", r.Upstream, r.Name, tag, t.Desc.Digest.String(), number(t.Desc.Size), number(millis(t.ChangedAt)), string(t.Desc.MediaType))
}

// UntagLine returns the line that forgets a tag and its former bindings.
func UntagLine(r row.Repo, tag string, at time.Time) []byte {
	return line("-tag", r.Upstream, r.Name, tag, number(millis(at)))
}

// WasLine returns the line that says what a tag pointed to before.
func WasLine(r row.Repo, tag string, b row.Binding) []byte {
	return line("+was", r.Upstream, r.Name, tag, b.Digest.String(), number(millis(b.FirstSeen)), number(millis(b.LastSeen)))
}

// DecisionLine returns the line that says what an operator decided.
func DecisionLine(d row.Decision) []byte {
	return line("+decision", d.Name, number(millis(d.At)), d.Text)
}

// UndecideLine returns the line that forgets a decision.
func UndecideLine(name string, at time.Time) []byte {
	return line("-decision", name, number(millis(at)))
}

// PinLine returns the line that says that an image is pinned.
func PinLine(p row.Pin) []byte {
	return line("+pin", p.Repo.Upstream, p.Repo.Name, p.Ref, number(millis(p.At)), strings.Join(p.Platforms, ","))
}

// UnpinLine returns the line that forgets a pin.
func UnpinLine(r row.Repo, ref string, at time.Time) []byte {
	return line("-pin", r.Upstream, r.Name, ref, number(millis(at)))
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// line returns the fields as a line with its checksum.
func line(op string, fields ...string) []byte {
	b := make([]byte, 9, 256)
	b = append(b, op...)
	for _, f := range fields {
		b = append(b, ' ')
		b = appendEscaped(b, f)
	}
	copy(b, fmt.Sprintf("%08x ", crc32.Checksum(b[9:], castagnoli)))
	return append(b, '\n')
}

func appendEscaped(b []byte, s string) []byte {
	if s == "" {
		return append(b, '%')
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '%' || c == 0x7f {
			b = append(b, '%', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

func unescape(s string) (string, error) {
	if s == "%" {
		return "", nil
	}
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errLine
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", errLine
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}

var (
	// errLine means that a journal line is damaged.
	errLine = errors.New("journal line cannot be read")
	// errUnknown means that a newer program, or another, wrote it.
	errUnknown = errors.New("journal line is of no kind that this program knows")
)

// Line is a journal line as it stands, of any kind.
type Line struct {
	Remove bool
	Noun   string // "link", "tag", "pin", or what this program does not know
	Fields []string
}

// Bytes returns the line with checksum and end.
func (l Line) Bytes() []byte {
	op := "+"
	if l.Remove {
		op = "-"
	}
	return line(op+l.Noun, l.Fields...)
}

// ParseLine reads a line without its end.
func ParseLine(b []byte) (Line, error) {
	sum, rest, ok := bytes.Cut(b, []byte{' '})
	if !ok || len(sum) != 8 {
		return Line{}, errLine
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(rest, castagnoli) {
		return Line{}, errLine
	}
	fields := strings.Split(string(rest), " ")
	for i, f := range fields {
		if fields[i], err = unescape(f); err != nil {
			return Line{}, err
		}
	}
	op := fields[0]
	if len(op) < 2 || op[0] != '+' && op[0] != '-' {
		return Line{}, errLine
	}
	return Line{Remove: op[0] == '-', Noun: op[1:], Fields: fields[1:]}, nil
}

// Entry is what a journal line says. A link has a kind, a tag has a tag, a pin has a pinned reference,
// and a decision has a name. What a tag pointed to before has a tag and Was.
type Entry struct {
	Remove   bool
	Pin      row.Pin
	Decision row.Decision
	Was      row.Binding
	Repo     row.Repo
	Kind     row.Kind
	Tag      string
	Desc     v1.Descriptor
	At       time.Time // of a link, a tag, and of what is removed; zero in old removals
}

func parseLine(b []byte) (Entry, error) {
	l, err := ParseLine(b)
	if err != nil {
		return Entry{}, err
	}
	return l.Entry()
}

// Entry returns what the line says.
func (l Line) Entry() (e Entry, err error) {
	f := l.Fields
	var key, rest int // how many fields name the thing, and follow
	switch l.Noun {
	case "link":
		key, rest = 4, 3
	case "tag":
		key, rest = 3, 4
	case "was", "pin":
		key, rest = 3, 2
		if l.Noun == "was" {
			rest = 3
		}
	case "decision":
		key, rest = 1, 2
	default:
		return e, errUnknown
	}
	if l.Remove {
		rest = 0
		if len(f) == key+1 {
			if e.At, err = parseMillis(f[key]); err != nil {
				return Entry{}, errLine
			}
			f = f[:key]
		}
	}
	if len(f) != key+rest || l.Remove && l.Noun == "was" {
		return Entry{}, errLine
	}
	e.Remove = l.Remove
	if err := e.parse(l.Noun, f); err != nil {
		return Entry{}, errLine
	}
	return e, nil
}

// parse reads the fields of a noun, of which a removal has only those that name the thing.
func (e *Entry) parse(noun string, f []string) (err error) {
	if noun == "decision" {
		return e.parseDecision(f)
	}
	repo := row.Repo{Upstream: f[0], Name: f[1]}
	if err := repo.Check(); err != nil {
		return err
	}
	if noun == "pin" {
		e.Pin = row.Pin{Repo: repo, Ref: f[2]}
		return e.parsePin(f[3:])
	}
	e.Repo = repo
	if noun == "link" {
		if e.Kind, err = parseKind(f[2]); err != nil {
			return err
		}
	} else if e.Tag = f[2]; row.CheckName("tag", e.Tag) != nil {
		return errLine
	}
	if len(f) == 3 {
		return nil
	}
	d, err := wire.ParseDigest(f[3])
	switch {
	case err != nil:
		return err
	case noun == "was":
		e.Was.Digest = d
		return errors.Join(parseTime(&e.Was.FirstSeen, f[4]), parseTime(&e.Was.LastSeen, f[5]))
	}
	if e.Desc.Digest = d; len(f) == 4 {
		return nil
	}
	return e.parseRest(f[4:])
}

// parsePin reads time and platforms.
func (e *Entry) parsePin(f []string) error {
	if _, err := row.PinKey(e.Pin.Repo, e.Pin.Ref); err != nil || len(f) == 0 {
		return err
	}
	if f[1] != "" {
		e.Pin.Platforms = strings.Split(f[1], ",")
	}
	return errors.Join(parseTime(&e.Pin.At, f[0]), e.Pin.Check())
}

// parseDecision reads name, time and text.
func (e *Entry) parseDecision(f []string) error {
	e.Decision.Name = f[0]
	if len(f) == 1 {
		return e.Decision.Check()
	}
	e.Decision.Text = f[2]
	return errors.Join(parseTime(&e.Decision.At, f[1]), e.Decision.Check())
}

func parseTime(at *time.Time, s string) (err error) {
	*at, err = parseMillis(s)
	return err
}

// parseMillis reads what millis made.
func parseMillis(s string) (time.Time, error) {
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ms == 0 {
		return time.Time{}, err
	}
	return time.UnixMilli(ms), nil
}

// parseRest reads size, time and media type.
func (e *Entry) parseRest(f []string) (err error) {
	if e.Desc.Size, err = strconv.ParseInt(f[0], 10, 64); err != nil {
		return err
	}
	if e.At, err = parseMillis(f[1]); err != nil {
		return err
	}
	e.Desc.MediaType = types.MediaType(f[2])
	return row.CheckMediaType(f[2])
}

func parseKind(s string) (row.Kind, error) {
	for _, k := range []row.Kind{row.Manifest, row.Blob} {
		if s == k.String() {
			return k, nil
		}
	}
	return 0, errLine
}

// Read calls fn for every sound line of a journal, in order, and counts the others.
// The error is [row.ErrNewer] when a newer program wrote it, else fn's or the reader's.
func Read(r io.Reader, fn func(Entry) error) (bad int, err error) {
	in, err := body(r)
	if err != nil || in == nil {
		return 0, err
	}
	return readLines(in, fn)
}

// body passes over the header; nil when there is nothing else.
func body(r io.Reader) (*bufio.Reader, error) {
	in := bufio.NewReaderSize(r, maxLine)
	first, _ := in.Peek(len(journalHeader) + 32)
	first, _, _ = bytes.Cut(first, []byte{'\n'})
	run, err := parseHeader(first)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	if run != 0 {
		if _, err := in.ReadSlice('\n'); err != nil {
			return nil, nil // there is only a torn header
		}
	}
	return in, nil
}

// readLines calls fn for what every sound line says that is of a known kind, and counts those that
// are not sound.
func readLines(r io.Reader, fn func(Entry) error) (bad int, err error) {
	return scan(bufio.NewReaderSize(r, maxLine), func(b []byte) (bool, error) {
		e, err := parseLine(b)
		if err != nil {
			return errors.Is(err, errUnknown), nil
		}
		return true, fn(e)
	})
}

// scan calls fn for every line that has an end, without it, and counts those of which fn says that
// they are not sound, and the others.
func scan(in *bufio.Reader, fn func([]byte) (sound bool, err error)) (bad int, err error) {
	for {
		b, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			err = skipLine(in)
			b = []byte("too long to be ours")
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return bad, fmt.Errorf("read journal: %w", err)
		}
		torn := err != nil
		if b = bytes.TrimSuffix(b, []byte{'\n'}); len(b) > 0 {
			sound := false
			if !torn {
				if sound, err = fn(b); err != nil {
					return bad, err
				}
			}
			if !sound {
				bad++
			}
		}
		if torn {
			return bad, nil
		}
	}
}

// skipLine reads to the end of a line that does not fit into the buffer.
func skipLine(in *bufio.Reader) error {
	for {
		_, err := in.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}
