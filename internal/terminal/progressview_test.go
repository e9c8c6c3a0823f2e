package terminal

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"forebay/internal/admin"
	"forebay/internal/prefetch"
)

func someProgress(images, active int) admin.PrefetchSnapshot {
	s := admin.PrefetchSnapshot{Images: images, Done: images - active, Failed: 2}
	for i := range active {
		p := admin.Progress{Items: int64(i), ItemsTotal: 9, Bytes: int64(i) << 30, BytesTotal: 10 << 30}
		s.Active = append(s.Active, admin.PrefetchActive{Ref: fmt.Sprintf("registry.example.com:5000/%s/app-%d:1.2.3", strings.Repeat("team/", i*4), i), Progress: p})
		s.Total.Bytes += p.Bytes
		s.Total.BytesTotal += p.BytesTotal
	}
	return s
}

func TestBarsFitTheTerminal(t *testing.T) {
	for _, columns := range []int{1, 20, 40, 60, 80, 120, 300} {
		for _, rows := range []int{1, 4, 24} {
			v := &View{rate: 123456789, size: func() (int, int) { return columns, rows }}
			lines := v.bars(someProgress(12, 8))
			for _, line := range lines {
				if n := utf8.RuneCountInString(line); n >= max(columns, 2) {
					t.Errorf("at %d columns a line has %d characters: %q", columns, n, line)
				}
			}
			if len(lines) > max(rows-1, 2) {
				t.Errorf("at %d rows there are %d lines", rows, len(lines))
			}
		}
	}
	v := &View{rate: 5 << 20, size: func() (int, int) { return 120, 24 }}
	lines := v.bars(someProgress(3, 2))
	want := []string{"app-1:1.2.3", "[###", " 10%", "1.0 GiB of 10 GiB"}
	for _, text := range want {
		if !strings.Contains(lines[1], text) {
			t.Errorf("line %q lacks %q", lines[1], text)
		}
	}
	if last := lines[len(lines)-1]; !strings.Contains(last, "1 of 3, 2 bad") || !strings.Contains(last, "5.0 MiB/s") || !strings.Contains(last, "left") {
		t.Errorf("the line of all is %q", last)
	}
}

func TestBarsAreRedrawnInOneWriteAndTakenAway(t *testing.T) {
	var out writes
	columns := 80
	now := time.Unix(0, 0)
	v := &View{w: &out, kind: "bars", named: map[string]bool{}, meter: newRate(now), size: func() (int, int) { return columns, 24 },
		now: func() time.Time { now = now.Add(time.Second); return now }}
	v.Show(someProgress(3, 2))
	v.Show(someProgress(3, 2))
	if len(out) != 2 || !strings.Contains(out[1], "\x1b[3A\r") || !strings.HasSuffix(out[1], "\x1b[J") {
		t.Errorf("writes are %q", []string(out))
	}
	columns = 40 // what is there has wrapped
	v.Show(someProgress(3, 2))
	if !strings.Contains(out[2], "\x1b[6A\r") {
		t.Errorf("after a resize: %q", out[2])
	}
	v.Finish(&admin.PrefetchReport{})
	if all := strings.Join(out, ""); !strings.HasSuffix(all, "\x1b[?25h") || strings.Count(all, "\x1b[?25l") != 1 {
		t.Errorf("the cursor is not given back: %q", all)
	}
}

type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

func TestLinesTellEachImageOnce(t *testing.T) {
	var out bytes.Buffer
	v := &View{w: &out, kind: "lines", named: map[string]bool{}, meter: newRate(time.Now()), now: time.Now}
	one := admin.PrefetchEnded{Ref: "a:1", State: prefetch.Fetched, Bytes: 1 << 20}
	two := admin.PrefetchEnded{Ref: "b:\x1b[31m1", State: prefetch.Failed, Error: "no"}
	v.Show(admin.PrefetchSnapshot{Images: 3, Done: 1, Ended: []admin.PrefetchEnded{one}})
	v.Show(admin.PrefetchSnapshot{Images: 3, Done: 1, Ended: []admin.PrefetchEnded{one}})
	v.Show(admin.PrefetchSnapshot{Images: 3, Done: 2, Ended: []admin.PrefetchEnded{one, two}})
	v.Finish(&admin.PrefetchReport{Images: []admin.PrefetchedImage{{Ref: "a:1"}, {Ref: two.Ref}, {Ref: "c:1", State: prefetch.Kept}}})
	if want := "fetched a:1, 1.0 MiB\nfailed b:�[31m1\nkept c:1\n"; out.String() != want {
		t.Errorf("lines are %q, want %q", out.String(), want)
	}
}
