package prefetch

import (
	"strings"
	"testing"
	"time"
)

func TestSchedulesFollowTheClockOnTheWall(t *testing.T) {
	for _, tt := range []struct {
		expression, zone, after string
		want                    []string
	}{
		{"0 3 * * *", "", "2026-01-01T00:00:00Z", []string{"2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"}},
		{"0 3 * * *", "Asia/Tokyo", "2026-01-01T00:00:00Z", []string{"2026-01-01T18:00:00Z"}},
		{"30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", []string{
			"2026-03-28T01:30:00Z",
			"2026-03-29T01:30:00Z", // 02:30 does not exist that day: 03:30 of summer time
			"2026-03-30T00:30:00Z",
		}},
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", []string{
			"2026-10-25T01:30:00Z", // the second of two
			"2026-10-26T01:30:00Z",
		}},
		{"0 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", []string{
			"2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z", // once, though 02:00 and 03:00 are the same moment
		}},
		{"@weekly", "America/New_York", "2026-03-02T00:00:00Z", []string{"2026-03-08T05:00:00Z", "2026-03-15T04:00:00Z"}},
		{"0 0 29 2 *", "", "2026-01-01T00:00:00Z", []string{"2028-02-29T00:00:00Z"}},
	} {
		s, err := ParseSchedule(tt.expression, tt.zone)
		if err != nil {
			t.Errorf("ParseSchedule(%q, %q): %v", tt.expression, tt.zone, err)
			continue
		}
		at, err := time.Parse(time.RFC3339, tt.after)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range tt.want {
			at = s.Next(at)
			if got := at.UTC().Format(time.RFC3339); got != want {
				t.Errorf("%q in %q: due %s, want %s", tt.expression, tt.zone, got, want)
			}
		}
	}
}

func TestSchedulesThatCannotBe(t *testing.T) {
	for expression, zone := range map[string]string{
		"": "", "* * * *": "", "61 * * * *": "", "TZ=": "", "TZ=Europe/Berlin 0 3 * * *": "", "@every 1s": "", "0 0 30 2 *": "",
		"0 3 * * *": "Mars/Olympus", "0 4 * * *": "Local", "0 5 * * *": "../../etc/passwd",
	} {
		if _, err := ParseSchedule(expression, zone); err == nil || strings.Contains(err.Error(), "panic") {
			t.Errorf("ParseSchedule(%q, %q) = %v, want an error", expression, zone, err)
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	f.Add("0 3 * * *", "Europe/Berlin")
	f.Add("*/5 1-3,7 1 JAN MON-FRI", "")
	f.Add("@daily", "UTC")
	f.Fuzz(func(t *testing.T, expression, zone string) {
		s, err := ParseSchedule(expression, zone)
		if err != nil {
			return
		}
		at := time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC)
		for range 5 {
			next := s.Next(at)
			if next.IsZero() {
				return
			}
			if !next.After(at) {
				t.Fatalf("%q in %q: due %s after %s", expression, zone, next, at)
			}
			at = next
		}
	})
}
