package wire

import "testing"

func TestParseContentRange(t *testing.T) {
	tests := []struct {
		in   string
		want ContentRange
		ok   bool
	}{
		{"bytes 0-0/1", ContentRange{0, 1, 1}, true},
		{"bytes 100-199/200", ContentRange{100, 200, 200}, true},
		{" Bytes  5-9/* ", ContentRange{5, 10, -1}, true},
		{"bytes */200", ContentRange{-1, -1, 200}, true},
		{"bytes */0", ContentRange{-1, -1, 0}, true},
		{"bytes */*", ContentRange{-1, -1, -1}, true},
		{"bytes 0-200/200", ContentRange{}, false},
		{"bytes 9-5/10", ContentRange{}, false},
		{"bytes -5/10", ContentRange{}, false},
		{"bytes 5-/10", ContentRange{}, false},
		{"bytes 0-1", ContentRange{}, false},
		{"bytes 0-1/-2", ContentRange{}, false},
		{"bytes +0-1/2", ContentRange{}, false},
		{"bytes 0-9999999999999999999/*", ContentRange{}, false},
		{"items 0-1/2", ContentRange{}, false},
		{"bytes=0-1/2", ContentRange{}, false},
		{"", ContentRange{}, false},
	}
	for _, test := range tests {
		got, err := ParseContentRange(test.in)
		if got != test.want || (err == nil) != test.ok {
			t.Errorf("ParseContentRange(%q) = %+v, %v; want %+v, ok %v", test.in, got, err, test.want, test.ok)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 0-99/200")
	f.Add("bytes */200")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseContentRange(s)
		if err != nil {
			return
		}
		unsatisfied := r.Start == -1 && r.End == -1
		ranged := r.Start >= 0 && r.End > r.Start && (r.Size == -1 || r.End <= r.Size)
		if r.Size < -1 || (!unsatisfied && !ranged) {
			t.Errorf("ParseContentRange(%q) = %+v", s, r)
		}
	})
}
