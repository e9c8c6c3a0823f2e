package wire

import (
	"math"
	"slices"
	"strings"
)

// ByteRange is one range of a Range header, not yet measured against a size.
type ByteRange struct {
	First int64 // position of the first byte, or -1 for the last Last bytes ("-500")
	Last  int64 // position of the last byte, or -1 for the end ("500-")
}

// RangesMost bounds the ranges of one request. Each costs a header of a part and a read, which is a
// hundred times a range of one byte; podman and stargz take the whole where it is too much.
const RangesMost = 64

// ParseRange reads a Range header. It returns nil for one that is to be ignored (RFC 9110, 14.2):
// none, another unit, malformed, or more than [RangesMost] ranges.
// A range that runs backwards ("500-0") is returned as it is and satisfies no size,
// since the OCI conformance suite wants 416 for it.
func ParseRange(header string) []ByteRange {
	unit, set, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return nil
	}
	var all []ByteRange
	for set != "" {
		var spec string
		spec, set, _ = strings.Cut(set, ",")
		if spec = strings.Trim(spec, " \t"); spec == "" {
			continue
		}
		r, ok := parseRangeSpec(spec)
		if !ok || len(all) == RangesMost {
			return nil
		}
		all = append(all, r)
	}
	return all
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

// Span is the bytes [Off, End) of a blob.
type Span struct{ Off, End int64 }

// Spans returns what ranges mean in a blob of size bytes, in the order in which they were asked for.
// Those that overlap are one, in the place of the first (RFC 9110, 15.3.7.2), so that all together
// are no longer than the blob. Those outside of it are left out; one that runs backwards makes the
// whole set satisfy nothing.
func Spans(ranges []ByteRange, size int64) []Span {
	var all []Span
	for _, r := range ranges {
		if r.First >= 0 && r.Last >= 0 && r.Last < r.First {
			return nil
		}
		off, end, ok := r.Resolve(size)
		if !ok {
			continue
		}
		all = merge(all, Span{off, end})
	}
	return all
}

// merge adds a span to some that do not overlap.
func merge(all []Span, s Span) []Span {
	place := len(all)
	kept := all[:0]
	for _, have := range all {
		if have.Off < s.End && s.Off < have.End {
			s = Span{min(s.Off, have.Off), max(s.End, have.End)}
			place = min(place, len(kept))
		} else {
			kept = append(kept, have)
		}
	}
	return slices.Insert(kept, min(place, len(kept)), s)
}
