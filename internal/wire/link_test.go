package wire

import (
	"strings"
	"testing"
)

func TestNextLink(t *testing.T) {
	const bad = "cannot be read"
	tests := []struct {
		values []string
		want   string // "" means none
	}{
		{[]string{`</v2/a/tags/list?last=b&n=2>; rel="next"`}, "/v2/a/tags/list?last=b&n=2"},
		{[]string{`</v2/a/tags/list?last=b&n=2>;rel=next`}, "/v2/a/tags/list?last=b&n=2"},
		{[]string{`/v2/a/tags/list?last=b&n=2; rel="next"`}, "/v2/a/tags/list?last=b&n=2"},
		{[]string{`https://h/v2/a/tags/list?last=b&n=2`}, "https://h/v2/a/tags/list?last=b&n=2"},
		{[]string{` < /v2/a/tags/list?last=b > ; rel='next'`}, "/v2/a/tags/list?last=b"},
		{[]string{`<https://h/x>; title="a, b; c"; REL="Prev Next"`}, "https://h/x"},
		{[]string{`<https://h/x>; Rel = NEXT ; type=json`}, "https://h/x"},
		{[]string{`</first>; rel="prev", </second>; rel="next"`}, "/second"},
		{[]string{`</first>; rel="prev"`, `</second>; rel="next"`}, "/second"},
		{[]string{`/first; rel=first, /second; rel=next, /third; rel=last`}, "/second"},
		{[]string{`</plain>, </second>; rel="next"`}, "/second"},
		{[]string{`</a,b>; rel="next"`}, "/a,b"},
		{[]string{`</a>; rel="prev"; rel="next"`}, ""},
		{[]string{`</a>; rel="nextish"`}, ""},
		{[]string{`</a>; rel="last"`}, ""},
		{[]string{`</a>`}, "/a"},
		{[]string{`</a; rel="next"`}, "/a"},
		{[]string{"", " , "}, ""},
		{[]string{`<>; rel="next"`}, bad},
		{[]string{`; rel="next"`}, bad},
		{[]string{`<>`, `</b>; rel=prev`}, bad},
		{[]string{"<" + strings.Repeat("a", linkMax) + `>; rel="next"`}, bad},
		{[]string{"<" + strings.Repeat("a", linkMax) + `>; rel="next"`, `</b>; rel="next"`}, "/b"},
		{nil, ""},
	}
	for _, test := range tests {
		got, err := NextLink(test.values)
		if err != nil {
			got = bad
		}
		if got != test.want {
			t.Errorf("NextLink(%.80q) = %q, %v; want %q", test.values, got, err, test.want)
		}
	}
}

func FuzzNextLink(f *testing.F) {
	f.Add(`</v2/a/tags/list?last=b&n=2>; rel="next"`)
	f.Add(`<a>; x="\", <b>; rel=next`)
	f.Fuzz(func(t *testing.T, s string) {
		target, err := NextLink([]string{s})
		if err != nil && target != "" || !strings.Contains(s, target) {
			t.Errorf("NextLink(%q) = %q, %v", s, target, err)
		}
	})
}
