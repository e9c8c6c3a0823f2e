package wire

import (
	"strings"
	"testing"
)

func TestMatchesETag(t *testing.T) {
	rows := []struct {
		values []string
		want   bool
	}{
		{nil, false},
		{[]string{`"` + digestA + `"`}, true},
		{[]string{digestA}, true},
		{[]string{`W/"` + digestA + `"`}, true},
		{[]string{`"other", "` + digestA + `"`}, true},
		{[]string{`"other"`, digestA}, true},
		{[]string{"*"}, true},
		{[]string{`"other"`}, false},
		{[]string{`"`}, false},
		{[]string{""}, false},
	}
	for _, row := range rows {
		if got := MatchesETag(row.values, digestA); got != row.want {
			t.Errorf("MatchesETag(%q) = %t, want %t", row.values, got, row.want)
		}
		strong := row.want && !strings.HasPrefix(row.values[0], "W/")
		if got := NamesETag(row.values, digestA); got != strong {
			t.Errorf("NamesETag(%q) = %t, want %t", row.values, got, strong)
		}
	}
}

func TestAccepts(t *testing.T) {
	const index = "application/vnd.oci.image.index.v1+json"
	rows := []struct {
		values []string
		want   bool
	}{
		{nil, true},
		{[]string{""}, true},
		{[]string{" , "}, true},
		{[]string{"*/*"}, true},
		{[]string{"application/*"}, true},
		{[]string{"text/*"}, false},
		{[]string{index}, true},
		{[]string{"Application/VND.oci.image.index.v1+json; charset=utf-8"}, true},
		{[]string{"application/vnd.oci.image.manifest.v1+json", index}, true},
		{[]string{"application/vnd.oci.image.manifest.v1+json, */*"}, true},
		{[]string{"application/vnd.oci.image.manifest.v1+json"}, false},
		{[]string{index + ";q=0"}, false},
		{[]string{index + "; q=0.000"}, false},
		{[]string{index + ";q=0.5"}, true},
		{[]string{index + ";q=1.0"}, true},
	}
	for _, row := range rows {
		if got := Accepts(row.values, index); got != row.want {
			t.Errorf("Accepts(%q) = %t, want %t", row.values, got, row.want)
		}
	}
}

func FuzzConditional(f *testing.F) {
	f.Add(`W/"x", *`, "application/json;q=0.1, */*")
	f.Add(`"`, ";q=,,=;")
	f.Fuzz(func(t *testing.T, etags, accept string) {
		MatchesETag([]string{etags}, digestA)
		if !Accepts([]string{accept, "*/*"}, "application/json") {
			t.Errorf("Accepts(%q, */*) = false, want true", accept)
		}
	})
}
