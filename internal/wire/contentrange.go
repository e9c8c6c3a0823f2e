package wire

import (
	"fmt"
	"strings"
)

// ContentRange is what a Content-Range header says (RFC 9110, section 14.4).
type ContentRange struct {
	Start int64 // position of the first byte; -1 in the unsatisfied form "bytes */N"
	End   int64 // position after the last byte; -1 in the unsatisfied form
	Size  int64 // size of the whole; -1 when it is given as "*"
}

// ParseContentRange reads "bytes 0-99/200", "bytes 0-99/*" and "bytes */200".
func ParseContentRange(s string) (ContentRange, error) {
	unit, spec, _ := strings.Cut(strings.TrimSpace(s), " ")
	if !strings.EqualFold(unit, "bytes") {
		return ContentRange{}, fmt.Errorf("content range %q is not in bytes", clip(s))
	}
	span, total, ok := strings.Cut(strings.TrimSpace(spec), "/")
	if !ok {
		return ContentRange{}, fmt.Errorf("content range %q has no size", clip(s))
	}
	r := ContentRange{Start: -1, End: -1, Size: -1}
	if total != "*" {
		if r.Size, ok = parseCount(total); !ok {
			return ContentRange{}, fmt.Errorf("content range %q has a bad size", clip(s))
		}
	}
	if span == "*" {
		return r, nil
	}
	first, last, _ := strings.Cut(span, "-")
	start, okFirst := parseCount(first)
	end, okLast := parseCount(last)
	if !okFirst || !okLast || end < start || (r.Size >= 0 && end >= r.Size) {
		return ContentRange{}, fmt.Errorf("content range %q has bad positions", clip(s))
	}
	r.Start, r.End = start, end+1
	return r, nil
}

// FormatRange returns the Range header for the bytes [off, end), end -1 being the end of the whole; "" for all.
func FormatRange(off, end int64) string {
	switch {
	case end >= 0:
		return fmt.Sprintf("bytes=%d-%d", off, end-1)
	case off > 0:
		return fmt.Sprintf("bytes=%d-", off)
	}
	return ""
}

// parseCount reads up to 18 decimal digits and nothing else, so that nothing overflows.
func parseCount(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}
