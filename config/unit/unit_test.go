package unit

import (
	"testing"
	"time"
)

func TestWhatIsWrittenIsReadAsTheSame(t *testing.T) {
	for _, d := range []time.Duration{0, time.Millisecond, 90 * time.Second, 36 * time.Hour, 36500 * day} {
		if got, err := ParseDuration(FormatDuration(d)); got != d || err != nil {
			t.Errorf("%s is read as %s, %v", FormatDuration(d), got, err)
		}
	}
	for _, n := range []int64{0, 1, 1000, 1 << 20, 3 << 40, 1 << 60} {
		if got, err := ParseSize(FormatSize(n)); got != n || err != nil {
			t.Errorf("%s is read as %d, %v", FormatSize(n), got, err)
		}
	}
	for _, text := range []string{"", "5", "-1s", "1x", "36501d", "d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("duration %q is read as %s", text, got)
		}
	}
	for _, text := range []string{"", "GiB", "1XB", "99999999PiB", "-1"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("size %q is read as %d", text, got)
		}
	}
}
