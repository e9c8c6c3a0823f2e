package wire

import (
	"math"
	"strings"
)

// RangeForm says what a Range header asks for.
type RangeForm uint8

// The forms of a Range header.
const (
	NoRange    RangeForm = iota // none, another unit, or malformed: to be ignored (RFC 9110, 14.2)
	OneRange                    // exactly one range of bytes
	ManyRanges                  // several
)

// ByteRange is one range of a Range header, not yet measured against a size.
type ByteRange struct {
	First int64 // position of the first byte, or -1 for the last Last bytes ("-500")
	Last  int64 // position of the last byte, or -1 for the end ("500-")
}

// ParseRange reads a Range header. The range is set for [OneRange] only.
// A range that runs backwards ("500-0") is returned as it is and satisfies no size,
// since the OCI conformance suite wants 416 for it.
func ParseRange(header string) (ByteRange, RangeForm) {
	unit, set, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return ByteRange{}, NoRange
	}
	var found ByteRange
	n := 0
	for set != "" {
		var spec string
		spec, set, _ = strings.Cut(set, ",")
		if spec = strings.Trim(spec, " \t"); spec == "" {
			continue
		}
		r, ok := parseRangeSpec(spec)
		if !ok {
			return ByteRange{}, NoRange
		}
		found = r
		n++
	}
	switch n {
	case 0:
		return ByteRange{}, NoRange
	case 1:
		return found, OneRange
	default:
		return ByteRange{}, ManyRanges
	}
}

func parseRangeSpec(spec string) (ByteRange, bool) {
	first, last, ok := strings.Cut(spec, "-")
	if !ok || first == "" && last == "" {
		return ByteRange{}, false
	}
	r := ByteRange{First: -1, Last: -1}
	if first != "" {
		if r.First, ok = parsePosition(first); !ok {
			return ByteRange{}, false
		}
	}
	if last != "" {
		if r.Last, ok = parsePosition(last); !ok {
			return ByteRange{}, false
		}
	}
	return r, true
}

// parsePosition reads decimal digits; a number too large for us stays the largest, which
// is past the end of every blob.
func parsePosition(s string) (int64, bool) {
	var n int64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxInt64-9)/10 {
			n = math.MaxInt64
			continue
		}
		n = n*10 + int64(c-'0')
	}
	return n, s != ""
}

// Resolve returns the bytes [off, end) that r means in a blob of size bytes, cut to
// its end, and false when there are none. regclient asks for one byte past the end.
func (r ByteRange) Resolve(size int64) (off, end int64, ok bool) {
	switch {
	case r.First < 0: // the last Last bytes
		if r.Last <= 0 || size == 0 {
			return 0, 0, false
		}
		return max(0, size-r.Last), size, true
	case r.First >= size, r.Last >= 0 && r.Last < r.First:
		return 0, 0, false
	case r.Last < 0 || r.Last >= size:
		return r.First, size, true
	default:
		return r.First, r.Last + 1, true
	}
}
