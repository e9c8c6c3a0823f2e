//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTableAndPlotsSayWhatWasMeasured(t *testing.T) {
	all := []peer{{name: "ours"}, {name: "theirs"}, {name: "direct"}}
	r := newResults(all)
	for _, v := range []float64{3, 1, 2} {
		r.add("cold blob, MiB/s", all[0], v)
		r.add("cold blob, MiB/s", all[1], v*100)
	}
	r.note("gone", all[1], "404")
	want := "on it\n\n| | ours | theirs | direct |\n|---|---|---|---|\n| cold blob, MiB/s | 2.00 | 200 | – |\n| gone | – | 404 | – |\n"
	if got := r.table("on it"); got != want {
		t.Errorf("table is\n%swant\n%s", got, want)
	}
	plot := r.plot("cold blob, MiB/s")
	d := xml.NewDecoder(strings.NewReader(plot))
	bars := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, plot)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 2 || !strings.Contains(plot, ">200<") {
		t.Errorf("%d bars, want 2:\n%s", bars, plot)
	}
	name := filepath.Join(t.TempDir(), "x.md")
	if err := os.WriteFile(name, []byte("a\n"+sectionBegin+"old\n"+sectionEnd+"z\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replaceSection(name, "new\n"); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(name); string(text) != "a\n"+sectionBegin+"new\n"+sectionEnd+"z\n" {
		t.Errorf("the document is\n%s", text)
	}
	if err := replaceSection(os.DevNull, "x"); err == nil {
		t.Error("a document without a place for it is changed")
	}
}
