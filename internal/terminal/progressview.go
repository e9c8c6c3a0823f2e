package terminal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"forebay/internal/admin"
)

// View shows on standard error how far a prefetch is: by bars on a terminal, else by a
// line for each image that is done, or a JSON object for each look.
type View struct {
	w    io.Writer
	kind string // "bars", "lines", "json" or "none"
	size func() (columns, rows int)
	now  func() time.Time

	ended int             // images that were done at the last look
	named map[string]bool // images that a line was written for
	drawn []int           // widths of the lines that are on the terminal
	meter *rateMeter
	rate  float64 // bytes a second
	last  time.Time
}

const (
	// drawEvery bounds how often the terminal is drawn.
	drawEvery = 100 * time.Millisecond
	// barWidth is how wide the bar of an image is, in characters.
	barWidth = 30
	// Names of images get at most so much of a line.
	nameMost = 48
)

func NewView(w io.Writer, kind string) *View {
	if kind == "auto" {
		kind = "lines"
		if Is(w) {
			kind = "bars"
		}
	}
	return &View{meter: newRate(time.Now()), named: map[string]bool{}, w: w, kind: kind, now: time.Now, size: func() (int, int) { return terminalSize(w) }}
}

// terminalSize returns the size of the terminal that w is, 80 by 24 when it does not say.
func terminalSize(w io.Writer) (columns, rows int) {
	if f, ok := w.(*os.File); ok {
		if columns, rows, ok := windowSize(f); ok {
			return columns, rows
		}
	}
	return 80, 24
}

// Show takes in how far it is.
func (v *View) Show(s admin.PrefetchSnapshot) {
	now := v.now()
	if v.kind == "none" || v.kind != "lines" && now.Sub(v.last) < drawEvery && s.Done < s.Images {
		return
	}
	v.last = now
	v.rate = v.meter.at(now, s.Total.Bytes)
	switch v.kind {
	case "lines":
		_, _ = io.WriteString(v.w, v.news(s)) // a terminal that is gone is no failure
	case "json":
		_ = json.NewEncoder(v.w).Encode(s)
	case "bars":
		v.draw(v.bars(s))
	}
}

// Finish shows what has ended since the last look.
func (v *View) Finish(r *admin.PrefetchReport) {
	defer v.Close()
	if v.kind != "lines" {
		return
	}
	var b strings.Builder
	for _, image := range r.Images {
		if !v.named[image.Ref] {
			b.WriteString(endedLine(admin.PrefetchEnded{Ref: image.Ref, State: image.State, Bytes: image.Bytes, Error: image.Error}))
		}
	}
	_, _ = io.WriteString(v.w, b.String())
}

// Close takes the bars off the terminal.
func (v *View) Close() {
	if v.kind == "bars" && len(v.drawn) > 0 {
		v.draw(nil)
		_, _ = io.WriteString(v.w, "\x1b[?25h")
	}
	v.drawn = nil
}

// news returns a line for each image that is done since the last look.
func (v *View) news(s admin.PrefetchSnapshot) string {
	fresh := s.Done - v.ended
	v.ended = s.Done
	if fresh <= 0 {
		return ""
	}
	var b strings.Builder
	for _, e := range s.Ended[max(len(s.Ended)-fresh, 0):] { // Finish tells those that are missing
		v.named[e.Ref] = true
		b.WriteString(endedLine(e))
	}
	return b.String()
}

func endedLine(e admin.PrefetchEnded) string {
	line := string(e.State) + " " + Printable(e.Ref)
	if e.Bytes > 0 {
		line += ", " + Bytes(e.Bytes)
	}
	return line + "\n"
}

// bars returns the lines: one for each image in progress, as far as there is room, and
// one for all.
func (v *View) bars(s admin.PrefetchSnapshot) []string {
	columns, rows := v.size()
	width := columns - 1 // the last column would wrap on some terminals
	head := fmt.Sprintf("%d of %d", s.Done, s.Images)
	if s.Failed > 0 {
		head += fmt.Sprintf(", %d bad", s.Failed)
	}
	names := utf8.RuneCountInString(head)
	for _, a := range s.Active {
		names = max(names, utf8.RuneCountInString(a.Ref))
	}
	names = min(names, nameMost, max(width-50, width/3))
	var lines []string
	room := max(min(len(s.Active), rows-3), 0)
	for _, a := range s.Active[:room] {
		lines = append(lines, barLine(width, names, Printable(a.Ref), shareOf(a.Progress), figures(a.Progress, true)))
	}
	if more := len(s.Active) - room; more > 0 {
		lines = append(lines, clipTo(fmt.Sprintf("and %s", Count(int64(more), "image more", "images more")), width))
	}
	all := len(s.Active)+s.Done == s.Images
	text := figures(s.Total, all)
	if r := v.rate; r >= 1 {
		text += "  " + Bytes(int64(r)) + "/s"
		if left := s.Total.BytesTotal - s.Total.Bytes; all && left > 0 {
			text += "  " + leftText(time.Duration(float64(left)/r*float64(time.Second))) + " left"
		}
	}
	return append(lines, barLine(width, names, head, wholeShare(s), text))
}

// figures are the bytes that have come, of how many if all of those are known.
func figures(p admin.Progress, all bool) string {
	switch {
	case p.BytesTotal == 0:
		return ""
	case !all:
		return Bytes(p.Bytes)
	}
	return Bytes(p.Bytes) + " of " + Bytes(p.BytesTotal)
}

// shareOf is how much of an image is there, from 0 to 1; -1 while that is not known.
func shareOf(p admin.Progress) float64 {
	switch {
	case p.BytesTotal > 0:
		return min(float64(p.Bytes)/float64(p.BytesTotal), 1)
	case p.ItemsTotal > 0:
		return min(float64(p.Items)/float64(p.ItemsTotal), 1)
	}
	return -1
}

// wholeShare is how much of all is there: by bytes once all images are begun, else by images.
func wholeShare(s admin.PrefetchSnapshot) float64 {
	if s.Images == 0 {
		return 1
	}
	if len(s.Active)+s.Done == s.Images && s.Total.BytesTotal > 0 {
		return shareOf(s.Total)
	}
	share := float64(s.Done)
	for _, a := range s.Active {
		share += max(shareOf(a.Progress), 0)
	}
	return share / float64(s.Images)
}

// barLine is a line of exactly known width at most: name, bar, percentage, figures. What
// has no room is left out, the bar first.
func barLine(width, names int, name string, share float64, text string) string {
	percent := "  ?%"
	if share >= 0 {
		percent = fmt.Sprintf("%3.0f%%", share*100)
	}
	line := padTo(name, names) + " "
	room := width - utf8.RuneCountInString(line) - len(percent) - 3 - 2 - utf8.RuneCountInString(text)
	if room = min(room, barWidth); room >= 5 {
		full := int(max(share, 0) * float64(room))
		line += "[" + strings.Repeat("#", full) + strings.Repeat(".", room-full) + "] "
	}
	return clipTo(strings.TrimRight(line+percent+"  "+text, " "), width)
}

// padTo makes s exactly n characters long; of a long one the middle is left out, since an
// image differs from others by its end.
func padTo(s string, n int) string {
	r := []rune(s)
	switch {
	case len(r) <= n:
		return s + strings.Repeat(" ", n-len(r))
	case n < 5:
		return string(r[:n])
	}
	tail := n * 2 / 3
	return string(r[:n-tail-1]) + "…" + string(r[len(r)-tail:])
}

func clipTo(s string, n int) string {
	r := []rune(s)
	return string(r[:min(len(r), max(n, 0))])
}

// draw replaces the lines on the terminal in one write, so that nothing flickers.
func (v *View) draw(lines []string) {
	columns, _ := v.size()
	up := 0
	for _, width := range v.drawn { // a terminal made narrower has wrapped what was there
		up += max((width+columns-1)/columns, 1)
	}
	var b bytes.Buffer
	if len(v.drawn) == 0 {
		b.WriteString("\x1b[?25l") // no cursor running about
	}
	if up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", up)
	}
	b.WriteString("\r")
	v.drawn = v.drawn[:0]
	for _, line := range lines {
		b.WriteString(line + "\x1b[K\r\n")
		v.drawn = append(v.drawn, utf8.RuneCountInString(line))
	}
	b.WriteString("\x1b[J")
	_, _ = v.w.Write(b.Bytes()) // a terminal that is gone is no failure
}
