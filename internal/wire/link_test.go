package wire

import (
	"strings"
	"testing"
)

func TestNextLink(t *testing.T) {
	tests := []struct {
		values []string
		want   string // "" means none
	}{
		{[]string{`</v2/a/tags/list?last=b&n=2>; rel="next"`}, "/v2/a/tags/list?last=b&n=2"},
		{[]string{`</v2/a/tags/list?last=b&n=2>;rel=next`}, "/v2/a/tags/list?last=b&n=2"},
		{[]string{`<https://h/x>; title="a, b; c"; REL="Prev Next"`}, "https://h/x"},
		{[]string{`</first>; rel="prev", </second>; rel="next"`}, "/second"},
		{[]string{`</first>; rel="prev"`, `</second>; rel="next"`}, "/second"},
		{[]string{`</a,b>; rel="next"`}, "/a,b"},
		{[]string{`</a>; rel="prev"; rel="next"`}, ""},
		{[]string{`</a>; rel="nextish"`}, ""},
		{[]string{`</a>`}, ""},
		{[]string{`<>; rel="next"`}, ""},
		{[]string{`</a; rel="next"`}, ""},
		{[]string{`</a>; title="never closed, </b>; rel="next"`}, ""},
		{[]string{"<" + strings.Repeat("a", linkMax) + `>; rel="next"`, `</b>; rel="next"`}, "/b"},
		{nil, ""},
	}
	for _, test := range tests {
		got, ok := NextLink(test.values)
		if got != test.want || ok != (test.want != "") {
			t.Errorf("NextLink(%.80q) = %q, %v; want %q", test.values, got, ok, test.want)
		}
	}
}

func FuzzNextLink(f *testing.F) {
	f.Add(`</v2/a/tags/list?last=b&n=2>; rel="next"`)
	f.Add(`<a>; x="\", <b>; rel=next`)
	f.Fuzz(func(t *testing.T, s string) {
		target, ok := NextLink([]string{s})
		if ok != (target != "") || !strings.Contains(s, target) {
			t.Errorf("NextLink(%q) = %q, %v", s, target, ok)
		}
	})
}
