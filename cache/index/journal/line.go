package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/index/row"
	"forebay/internal/wire"
)

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
