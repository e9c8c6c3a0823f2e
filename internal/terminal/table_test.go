package terminal

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

func filled(room int, form Form) string {
	var b strings.Builder
	t := NewTable(&b, "NAME", "STATE", "SIZE")
	t.Form, t.room = form, room
	t.Row("registry.example.internal:5000/platform/team-name/a-rather-long-service-name", "complete", "1.2 GiB")
	t.Row("nginx", "incomplete, pinned", "4 KiB")
	if err := t.Flush(); err != nil {
		panic(err)
	}
	return b.String()
}

func TestATableFitsItsTerminal(t *testing.T) {
	for _, room := range []int{40, 60, 80, 120} {
		text := filled(room, Fitting)
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > room {
				t.Errorf("%d columns: a line of %d:\n%s", room, n, text)
			}
		}
		if !strings.Contains(text, "1.2 GiB") || !strings.Contains(text, "service-name") && room > 40 {
			t.Errorf("%d columns: short cells or the end of a long one are lost:\n%s", room, text)
		}
	}
	if text := filled(40, Wide); strings.Contains(text, "…") {
		t.Errorf("wide, but shortened:\n%s", text)
	}
	if got, want := filled(40, Names), "registry.example.internal:5000/platform/team-name/a-rather-long-service-name\nnginx\n"; got != want {
		t.Errorf("names:\n%s\nwant\n%s", got, want)
	}
}

func TestNoColourButOnATerminal(t *testing.T) {
	var b strings.Builder
	if Colours(&b) || Coloured(&b, Red, "x") != "x" {
		t.Error("a file gets colours")
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if !Colours(tty) || !strings.HasPrefix(Coloured(tty, Red, "x"), "\x1b[31m") {
		t.Error("a terminal gets none")
	}
	t.Setenv("NO_COLOR", "1")
	if Colours(tty) {
		t.Error("NO_COLOR is not heard")
	}
}

// What does not fit is counted, and the beginning stays: troubles come first.
func TestAScreenShowsItsBeginning(t *testing.T) {
	var b strings.Builder
	s := NewScreen(&b) // of 24 rows, as what is no terminal counts
	s.WriteString("first\n" + strings.Repeat("line\n", 40))
	if err := s.Show(); err != nil {
		t.Fatal(err)
	}
	shown := strings.TrimPrefix(b.String(), "\x1b[H\x1b[2J")
	if n := strings.Count(shown, "\n"); n != 23 || !strings.HasPrefix(shown, "first\n") || !strings.Contains(shown, "… and 19 more lines") {
		t.Errorf("%d lines:\n%s", n, shown)
	}
}
