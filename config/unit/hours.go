package unit

import (
	"fmt"
	"strings"
	"time"

	"forebay/internal/wire"
)

// Hours is a rate that holds at some hours of each day.
type Hours struct {
	From, To time.Duration // since midnight; To may be before From, on the next day
	Bytes    int64         // a second; 0: no bound
}

// ParseHours reads hours as people write them: "08:00-18:00=5MiB", "22:00-06:00=auto".
func ParseHours(s string) (h Hours, err error) {
	hours, size, _ := strings.Cut(s, "=")
	from, to, _ := strings.Cut(hours, "-")
	if h.From, err = clock(from); err == nil {
		h.To, err = clock(to)
	}
	if err == nil && size != "auto" {
		h.Bytes, err = ParseSize(size)
	}
	if err != nil || h.From == h.To {
		return Hours{}, fmt.Errorf("%q is not usable: use hours of the day and bytes a second, such as 08:00-18:00=5MiB, or auto for no bound", wire.Clip(s, 64))
	}
	return h, nil
}

func clock(s string) (time.Duration, error) {
	t, err := time.Parse("15:04", s)
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, err
}

// String returns the hours as [ParseHours] reads them.
func (h Hours) String() string {
	size := "auto"
	if h.Bytes > 0 {
		size = FormatSize(h.Bytes)
	}
	at := func(d time.Duration) string { return time.Time{}.Add(d).Format("15:04") }
	return at(h.From) + "-" + at(h.To) + "=" + size
}

// Hold reports whether the hours hold at a time, by its own clock.
func (h Hours) Hold(t time.Time) bool {
	at := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	if h.From < h.To {
		return h.From <= at && at < h.To
	}
	return at >= h.From || at < h.To
}
