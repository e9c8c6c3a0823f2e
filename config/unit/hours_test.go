package unit

import (
	"testing"
	"time"
)

func TestHoursAreReadWrittenAndHold(t *testing.T) {
	at := func(clock string) time.Time {
		when, err := time.Parse("15:04", clock)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for _, tt := range []struct {
		text       string
		bytes      int64
		holds, not []string
	}{
		{"08:00-18:00=5MiB", 5 << 20, []string{"08:00", "17:59"}, []string{"07:59", "18:00", "00:00"}},
		{"22:00-06:00=auto", 0, []string{"22:00", "23:59", "00:00", "05:59"}, []string{"06:00", "21:59", "12:00"}},
		{"00:00-12:30=128KiB", 128 << 10, []string{"00:00", "12:29"}, []string{"12:30", "23:59"}},
	} {
		h, err := ParseHours(tt.text)
		if err != nil || h.Bytes != tt.bytes || h.String() != tt.text {
			t.Errorf("ParseHours(%q) = %s, %v", tt.text, h, err)
		}
		for _, clock := range tt.holds {
			if !h.Hold(at(clock)) {
				t.Errorf("%s does not hold at %s", h, clock)
			}
		}
		for _, clock := range tt.not {
			if h.Hold(at(clock)) {
				t.Errorf("%s holds at %s", h, clock)
			}
		}
	}
	for _, text := range []string{"", "08:00", "08:00-18:00", "08:00-18:00=", "08:00-18:00=fast", "08:00-08:00=1MiB", "8-18=1MiB", "25:00-26:00=1MiB", "08:00=1MiB"} {
		if h, err := ParseHours(text); err == nil {
			t.Errorf("ParseHours(%q) = %s, want an error", text, h)
		}
	}
}
