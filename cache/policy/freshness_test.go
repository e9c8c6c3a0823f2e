package policy

import (
	"testing"
	"time"
)

func TestTagRuleMatches(t *testing.T) {
	for _, tc := range []struct {
		match, name string
		want        bool
	}{
		{"library/*:latest", "library/nginx:latest", true},
		{"library/*:latest", "acme/nginx:latest", false},
		{"*:v[0-9]*.[0-9]*.[0-9]*", "acme/team/app:v1.27.3", true},
		{"*:v[0-9]*.[0-9]*.[0-9]*", "acme/team/app:v1.27", false},
		{"*:?.?", "a:1.2", true},
		{"*@sha256:*", "a@sha256:00", true},
		{"a.b:c", "aXb:c", false},
	} {
		t.Run(tc.match+" "+tc.name, func(t *testing.T) {
			f, err := NewFreshness(time.Minute, []TagRule{{tc.match, time.Hour}})
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Of(tc.name) == time.Hour; got != tc.want {
				t.Errorf("%q matches %q: %t, want %t", tc.match, tc.name, got, tc.want)
			}
		})
	}
	if _, err := NewFreshness(0, []TagRule{{"a[b", 0}}); err == nil {
		t.Error(`NewFreshness("a[b") = nil error`)
	}
}
