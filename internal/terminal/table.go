// Package terminal is what a command prints: tables, figures and names for people, JSON for
// programs, and how far something is.
//
// It promises that a terminal takes no orders from what a registry said: names and texts of
// others go through [Printable], in tables by themselves.
package terminal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Table writes rows in columns, which fit the terminal if it is one: the widest are shortened in
// their middle. Its owner calls Flush.
type Table struct {
	Form Form

	w    io.Writer
	head bool
	rows [][]string
	room int // columns; 0 means those of the terminal that w is, if it is one
}

// Form is how a table is written.
type Form string

// The forms.
const (
	Fitting Form = "table" // shortened to the width of the terminal
	Wide    Form = "wide"  // nothing is shortened
	Names   Form = "name"  // the first column alone, without its title
)

// NewTable returns a table with titles, or without any.
func NewTable(w io.Writer, head ...string) *Table {
	t := &Table{w: w, head: len(head) > 0}
	if t.head {
		t.Row(head...)
	}
	return t
}

func (t *Table) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = Printable(strings.NewReplacer("\n", " ", "\t", " ").Replace(c))
	}
	t.rows = append(t.rows, row)
}

// gap is what stands between two columns, and cellLeast how short a cell is made at most.
const (
	gap       = "  "
	cellLeast = 8
)

func (t *Table) Flush() error {
	var b strings.Builder
	if t.Form == Names && t.head {
		for _, row := range t.rows[1:] {
			b.WriteString(row[0] + "\n")
		}
		_, err := io.WriteString(t.w, b.String())
		return err
	}
	widths := t.widths()
	colours := Colours(t.w)
	for n, row := range t.rows {
		for i, cell := range row {
			short := shorten(cell, widths[i])
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(short))
			if colours && !(t.head && n == 0) {
				short = coloured(short)
			}
			if b.WriteString(short); i < len(row)-1 {
				b.WriteString(pad + gap)
			}
		}
		line := strings.TrimRight(b.String(), " ")
		b.Reset()
		if _, err := fmt.Fprintln(t.w, line); err != nil {
			return err
		}
	}
	return nil
}

// widths are those of the columns.
func (t *Table) widths() []int {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	room := cmp.Or(t.room, columns(t.w))
	if t.Form == Wide || room == 0 || len(widths) == 0 {
		return widths
	}
	for {
		all, widest := len(gap)*(len(widths)-1), 0
		for i, w := range widths {
			if all += w; w > widths[widest] {
				widest = i
			}
		}
		if all <= room || widths[widest] <= cellLeast {
			return widths
		}
		widths[widest]--
	}
}

// shorten leaves out the middle of what is longer than most.
func shorten(s string, most int) string {
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	head := (most - 1) / 2
	return string(runes[:head]) + "…" + string(runes[len(runes)-(most-1-head):])
}

// Screen gathers what is to be shown at once, and shows as much as fits the terminal.
type Screen struct {
	strings.Builder
	to io.Writer
}

// NewScreen returns a screen for the terminal that to is.
func NewScreen(to io.Writer) *Screen { return &Screen{to: to} }

// Show shows what was gathered in place of what was there before, and forgets it.
func (s *Screen) Show() error {
	_, rows := terminalSize(s.to)
	lines := strings.Split(strings.TrimRight(s.String(), "\n"), "\n")
	if len(lines) >= rows {
		more := len(lines) - (rows - 2)
		lines = append(lines[:max(rows-2, 0)], fmt.Sprintf("… and %d more lines, which do not fit", more))
	}
	s.Reset()
	_, err := io.WriteString(s.to, "\x1b[H\x1b[2J"+strings.Join(lines, "\n")+"\n")
	return err
}

// columns is the width of the terminal that w is; 0 when it is none.
func columns(w io.Writer) int {
	if s, ok := w.(*Screen); ok {
		w = s.to
	}
	if !Is(w) {
		return 0
	}
	c, _ := terminalSize(w)
	return c
}

// Colours reports whether w shows colours: a terminal does, unless NO_COLOR says otherwise
// (https://no-color.org).
func Colours(w io.Writer) bool {
	return columns(w) > 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// The colours of the terminal, which its user has chosen.
const (
	Red    = "\x1b[31m"
	Yellow = "\x1b[33m"
	Green  = "\x1b[32m"
	plain  = "\x1b[0m"
)

// Coloured is s in a colour, where w shows any.
func Coloured(w io.Writer, colour, s string) string {
	if !Colours(w) {
		return s
	}
	return colour + s + plain
}

// coloured gives a state its colour, which only repeats what the word says.
func coloured(cell string) string {
	colour := ""
	switch word, _, _ := strings.Cut(cell, ","); strings.TrimSpace(word) {
	case "complete", "answers", "done", "yes", "kept":
		colour = Green
	case "incomplete", "degraded", "running", "partial", "unknown":
		colour = Yellow
	case "fails", "failed", "limited", "absent":
		colour = Red
	}
	if colour == "" {
		return cell
	}
	return colour + cell + plain
}

// Bytes is a number of bytes for people.
func Bytes(n int64) string {
	if n < 0 {
		return "?"
	}
	return humanize.IBytes(uint64(n))
}

// Ago is a time for people.
func Ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return humanize.Time(t)
}

// Moment is a time of this machine's clock with how far it is away: "07:04, in 2 hours"; "" for none.
func Moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	layout := time.TimeOnly
	if local := t.Local(); local.Format(time.DateOnly) != time.Now().Format(time.DateOnly) {
		layout = time.DateTime
	}
	return t.Local().Format(layout) + ", " + humanize.Time(t)
}

// Used is the minute of a last use for people.
func Used(t time.Time) string {
	if !t.IsZero() && time.Since(t) < 2*time.Minute {
		return "just now"
	}
	return Ago(t)
}

// ShortDigest is enough of a digest to tell it from others.
func ShortDigest(d v1.Hash) string {
	return d.Algorithm + ":" + d.Hex[:min(len(d.Hex), 12)]
}

// Count is a number of things for people.
func Count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return humanize.Comma(n) + " " + many
}

// Is reports whether people look at w.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// WriteJSON writes v for programs.
func WriteJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// Printable keeps a terminal from taking orders: parts of texts come from registries.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '�'
	}, s)
}

// OrDash shows an empty cell as a dash.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
