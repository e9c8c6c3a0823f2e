package wire

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestParseRange(t *testing.T) {
	rows := []struct {
		header string
		want   []ByteRange
	}{
		{"", nil},
		{"bytes=0-1", []ByteRange{{0, 1}}},
		{"bytes=500-1499", []ByteRange{{500, 1499}}},
		{"bytes=500-", []ByteRange{{500, -1}}},
		{"bytes=-500", []ByteRange{{-1, 500}}},
		{"bytes=500-0", []ByteRange{{500, 0}}},
		{"Bytes = 0- ,", []ByteRange{{0, -1}}},
		{"bytes=0-1,5-6", []ByteRange{{0, 1}, {5, 6}}},
		{"bytes=99999999999999999999-", []ByteRange{{math.MaxInt64, -1}}},
		{"items=0-1", nil},
		{"bytes=", nil},
		{"bytes=-", nil},
		{"bytes=a-b", nil},
		{"bytes=1--2", nil},
		{"bytes=0-1,x", nil},
		{"bytes 0-1", nil},
		{"bytes=" + strings.Repeat("7-7,", RangesMost), slices.Repeat([]ByteRange{{7, 7}}, RangesMost)},
		{"bytes=" + strings.Repeat("7-7,", RangesMost+1), nil},
	}
	for _, row := range rows {
		if got := ParseRange(row.header); !slices.Equal(got, row.want) {
			t.Errorf("ParseRange(%.50q) = %v, want %v", row.header, got, row.want)
		}
	}
}

func TestOverlappingRangesAreOne(t *testing.T) {
	rows := []struct {
		header string
		want   []Span
	}{
		{"bytes=0-9,20-29", []Span{{0, 10}, {20, 30}}},
		{"bytes=20-29,0-9", []Span{{20, 30}, {0, 10}}},
		{"bytes=0-9,10-19", []Span{{0, 10}, {10, 20}}}, // podman counts the parts that it asked for
		{"bytes=0-9,9-19", []Span{{0, 20}}},
		{"bytes=0-99,0-99,0-99", []Span{{0, 100}}},
		{"bytes=40-49,0-9,5-45", []Span{{0, 50}}},
		{"bytes=0-9,40-49,80-89,5-45", []Span{{0, 50}, {80, 90}}},
		{"bytes=80-89,0-9,40-49,5-45,99-", []Span{{80, 90}, {0, 50}, {99, 100}}},
		{"bytes=-10,95-,0-0", []Span{{90, 100}, {0, 1}}},
		{"bytes=200-300,5-9", []Span{{5, 10}}},
		{"bytes=200-300,-0", nil},
		{"bytes=50-0,1-2", nil},
		{"bytes=1-2,50-0", nil},
	}
	for _, row := range rows {
		if got := Spans(ParseRange(row.header), 100); !slices.Equal(got, row.want) {
			t.Errorf("Spans(%q) of 100 bytes = %v, want %v", row.header, got, row.want)
		}
	}
}

func TestResolveRange(t *testing.T) {
	rows := []struct {
		r        ByteRange
		size     int64
		off, end int64
		ok       bool
	}{
		{ByteRange{0, 0}, 10, 0, 1, true},
		{ByteRange{2, 5}, 10, 2, 6, true},
		{ByteRange{2, 10}, 10, 2, 10, true}, // one past the end
		{ByteRange{9, -1}, 10, 9, 10, true},
		{ByteRange{-1, 3}, 10, 7, 10, true},
		{ByteRange{-1, 30}, 10, 0, 10, true},
		{ByteRange{-1, 0}, 10, 0, 0, false},
		{ByteRange{10, -1}, 10, 0, 0, false},
		{ByteRange{5, 0}, 10, 0, 0, false},
		{ByteRange{0, -1}, 0, 0, 0, false},
	}
	for _, row := range rows {
		if off, end, ok := row.r.Resolve(row.size); off != row.off || end != row.end || ok != row.ok {
			t.Errorf("%v.Resolve(%d) = %d, %d, %t, want %d, %d, %t", row.r, row.size, off, end, ok, row.off, row.end, row.ok)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	f.Add("bytes=0-1", int64(10))
	f.Add("bytes=-5,7-", int64(3))
	f.Add("bytes=9223372036854775807-9223372036854775807", int64(math.MaxInt64))
	f.Add("bytes=0-9,5-14,-3,2-2", int64(20))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		ranges := ParseRange(header)
		if len(ranges) == 0 || size < 0 {
			return
		}
		spans := Spans(ranges, size)
		left := size
		for i, s := range spans {
			if s.Off < 0 || s.Off >= s.End || s.End > size || len(spans) > len(ranges) {
				t.Errorf("Spans(%q) in %d bytes has [%d, %d), which is no range of it", header, size, s.Off, s.End)
			}
			if left -= s.End - s.Off; left < 0 {
				t.Errorf("Spans(%q) of %d bytes has more than all", header, size)
			}
			for _, other := range spans[:i] {
				if other.Off < s.End && s.Off < other.End {
					t.Errorf("Spans(%q) of %d bytes has %v and %v, which overlap", header, size, other, s)
				}
			}
		}
		for _, r := range ranges {
			off, end, ok := r.Resolve(size)
			if !ok || len(spans) == 0 {
				continue
			}
			if !slices.ContainsFunc(spans, func(s Span) bool { return s.Off <= off && end <= s.End }) {
				t.Errorf("Spans(%q) of %d bytes = %v, which lacks [%d, %d)", header, size, spans, off, end)
			}
		}
	})
}
