// Package terminal is what a command prints: tables, figures and names for people, JSON for
// programs, and how far something is.
//
// It promises that a terminal takes no orders from what a registry said: names and texts of
// others go through [Printable], in tables by themselves.
package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Table writes rows in columns. Its owner calls Flush.
type Table struct{ w *tabwriter.Writer }

func NewTable(w io.Writer, head ...string) *Table {
	t := &Table{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	if len(head) > 0 {
		t.Row(head...)
	}
	return t
}

func (t *Table) Row(cells ...string) {
	for i, c := range cells {
		cells[i] = Printable(strings.NewReplacer("\n", " ", "\t", " ").Replace(c))
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

func (t *Table) Flush() error { return t.w.Flush() }

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
