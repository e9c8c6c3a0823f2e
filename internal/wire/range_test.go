package wire

import (
	"math"
	"testing"
)

func TestParseRange(t *testing.T) {
	rows := []struct {
		header string
		form   RangeForm
		want   ByteRange
	}{
		{"", NoRange, ByteRange{}},
		{"bytes=0-1", OneRange, ByteRange{0, 1}},
		{"bytes=500-1499", OneRange, ByteRange{500, 1499}},
		{"bytes=500-", OneRange, ByteRange{500, -1}},
		{"bytes=-500", OneRange, ByteRange{-1, 500}},
		{"bytes=500-0", OneRange, ByteRange{500, 0}},
		{"Bytes = 0- ,", OneRange, ByteRange{0, -1}},
		{"bytes=0-1,5-6", ManyRanges, ByteRange{}},
		{"bytes=99999999999999999999-", OneRange, ByteRange{math.MaxInt64, -1}},
		{"items=0-1", NoRange, ByteRange{}},
		{"bytes=", NoRange, ByteRange{}},
		{"bytes=-", NoRange, ByteRange{}},
		{"bytes=a-b", NoRange, ByteRange{}},
		{"bytes=1--2", NoRange, ByteRange{}},
		{"bytes=0-1,x", NoRange, ByteRange{}},
		{"bytes 0-1", NoRange, ByteRange{}},
	}
	for _, row := range rows {
		if got, form := ParseRange(row.header); got != row.want || form != row.form {
			t.Errorf("ParseRange(%q) = %v, %d, want %v, %d", row.header, got, form, row.want, row.form)
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
	f.Fuzz(func(t *testing.T, header string, size int64) {
		r, form := ParseRange(header)
		if form != OneRange || size < 0 {
			return
		}
		off, end, ok := r.Resolve(size)
		if ok && (off < 0 || off >= end || end > size) {
			t.Errorf("ParseRange(%q) in %d bytes = [%d, %d), which is no range of it", header, size, off, end)
		}
	})
}
