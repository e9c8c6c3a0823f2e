// Package unit reads and writes durations and sizes as people do: 1d12h, 100GiB.
//
// It promises that what it writes it reads as the same, and that its errors complete the
// sentence "KEY: …" with what is allowed.
package unit

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"forebay/internal/wire"
)

// ParseDuration reads Go's notation with days in front: 90s, 1h30m, 7d, 1d12h.
func ParseDuration(s string) (time.Duration, error) {
	const allowed = "use a number with a unit, such as 500ms, 30s, 5m, 2h or 1d"
	if s == "" {
		return 0, fmt.Errorf("is empty: %s", allowed)
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil && s != "0" {
		return 0, fmt.Errorf("%q has no unit: %s", wire.Clip(s, 80), allowed)
	}
	rest, negative := strings.CutPrefix(s, "-")
	if negative {
		return 0, fmt.Errorf("%q is negative: %s", wire.Clip(s, 80), allowed)
	}
	var days time.Duration
	if number, after, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration: %s", wire.Clip(s, 80), allowed)
		}
		if n > uint64(durationMost/day) {
			return 0, fmt.Errorf("%q is more than %s", wire.Clip(s, 80), FormatDuration(durationMost))
		}
		days, rest = time.Duration(n)*day, after
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration: %s", wire.Clip(s, 80), allowed)
	}
	if d > durationMost-days {
		return 0, fmt.Errorf("%q is more than %s", wire.Clip(s, 80), FormatDuration(durationMost))
	}
	return days + d, nil
}

const day = 24 * time.Hour

// durationMost keeps sums of a time and a duration from overflowing.
const durationMost = 36500 * day

// FormatDuration is the inverse of ParseDuration, without zero parts: 1h, not 1h0m0s.
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	if days := d / day; days > 0 {
		fmt.Fprintf(&b, "%dd", days)
		d %= day
	}
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{time.Hour, "h"}, {time.Minute, "m"}} {
		if n := d / unit.length; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			d %= unit.length
		}
	}
	if d > 0 {
		b.WriteString(d.String())
	}
	return b.String()
}

// sizeUnits are the units of sizes, by what is written in lower case.
func sizeUnits() map[string]int64 {
	return map[string]int64{
		"": 1, "b": 1,
		"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50,
	}
}

var sizePattern = regexp.MustCompile(`^([0-9]{1,18}(?:\.[0-9]{1,6})?) ?([a-zA-Z]*)$`)

// ParseSize reads a number of bytes: 100GiB (1024³), 100GB (1000³), 1.5TiB, 1048576.
func ParseSize(s string) (int64, error) {
	const allowed = "use a number with a unit, such as 500MiB, 100GiB or 1.5TB"
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size: %s", wire.Clip(s, 80), allowed)
	}
	unit, ok := sizeUnits()[strings.ToLower(m[2])]
	if !ok {
		return 0, fmt.Errorf("%q has no known unit: %s", wire.Clip(s, 80), allowed)
	}
	if n, err := strconv.ParseInt(m[1], 10, 64); err == nil {
		if n > math.MaxInt64/unit {
			return 0, fmt.Errorf("%q is too large: at most 8192PiB", wire.Clip(s, 80))
		}
		return n * unit, nil
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil || f*float64(unit) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large: at most 8192PiB", wire.Clip(s, 80))
	}
	return int64(f * float64(unit)), nil
}

// FormatSize writes the largest unit that loses nothing.
func FormatSize(n int64) string {
	for _, unit := range []string{"PiB", "TiB", "GiB", "MiB", "KiB", "PB", "TB", "GB", "MB", "KB"} {
		size := sizeUnits()[strings.ToLower(unit)]
		if n >= size && n%size == 0 {
			return strconv.FormatInt(n/size, 10) + unit
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}
