package wire

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseChallenges(t *testing.T) {
	bearer := func(pairs ...string) Challenge {
		c := Challenge{Scheme: "bearer", Params: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			c.Params[pairs[i]] = pairs[i+1]
		}
		return c
	}
	basic := Challenge{Scheme: "basic", Params: map[string]string{"realm": "https://x/"}}
	negotiate := Challenge{Scheme: "negotiate", Params: map[string]string{}}
	hub := bearer("realm", "https://auth.docker.io/token", "service", "registry.docker.io")
	hubScope := bearer("realm", "https://auth.docker.io/token", "service", "registry.docker.io",
		"scope", "repository:ai/smollm2:pull", "error", "insufficient_scope")

	tests := []struct {
		values []string
		want   []Challenge
	}{
		{[]string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`}, []Challenge{hub}},
		{[]string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:ai/smollm2:pull",error="insufficient_scope"`}, []Challenge{hubScope}},
		{[]string{`bearer REALM = "https://auth.docker.io/token" , , Service="registry.docker.io",`}, []Challenge{hub}},
		{[]string{`Bearer realm=https://auth.docker.io/token,service=registry.docker.io`}, []Challenge{hub}},
		{[]string{`Bearer realm="https://quay.io/v2/auth",scope=repository:ns/repo:pull`}, []Challenge{bearer("realm", "https://quay.io/v2/auth", "scope", "repository:ns/repo:pull")}},
		{[]string{"Negotiate", `Basic realm="https://x/"`, `Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`}, []Challenge{negotiate, basic, hub}},
		{[]string{`Negotiate, Basic realm="https://x/", Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`}, []Challenge{negotiate, basic, hub}},
		{[]string{`Bearer realm="https://a/\"b\\", scope="repository:a/b:pull,push"`}, []Challenge{bearer("realm", `https://a/"b\`, "scope", "repository:a/b:pull,push")}},
		{[]string{`Bearer realm="https://never-closed`}, []Challenge{bearer("realm", "https://never-closed")}},
		{[]string{`Bearer realm="https://first/",realm="https://second/"`}, []Challenge{bearer("realm", "https://first/")}},
		{[]string{`realm="https://no-scheme/"`}, nil},
		{[]string{`Bearer`, `realm="https://of-no-scheme/"`}, []Challenge{bearer()}},
		{[]string{""}, nil},
		{[]string{`"""((("`}, nil},
		{nil, nil},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.values, "|"), func(t *testing.T) {
			got, err := ParseChallenges(test.values)
			if err != nil {
				t.Fatalf("ParseChallenges(%q): %v", test.values, err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("ParseChallenges(%q): -want +got\n%s", test.values, diff)
			}
		})
	}
}

func TestParseChallengesIsBounded(t *testing.T) {
	half := "Bearer realm=\"" + strings.Repeat("x", 4<<10) + "\""
	if _, err := ParseChallenges([]string{half}); err != nil {
		t.Errorf("ParseChallenges of 4 KiB: %v", err)
	}
	if got, err := ParseChallenges([]string{half, half}); err == nil {
		t.Errorf("ParseChallenges of more than 8 KiB in two headers = %d challenges, want an error", len(got))
	}
}

func TestFindChallenge(t *testing.T) {
	list, err := ParseChallenges([]string{`Basic realm="a", Bearer realm="b"`})
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := FindChallenge(list, "bearer"); !ok || c.Params["realm"] != "b" {
		t.Errorf("FindChallenge(bearer) = %v, %v; want realm b", c, ok)
	}
	if c, ok := FindChallenge(list, "negotiate"); ok {
		t.Errorf("FindChallenge(negotiate) = %v, want none", c)
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a:b:pull"`)
	f.Add(`Negotiate, Basic realm=x y="\"`)
	f.Add("=,=\"\x00")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseChallenges([]string{s})
		if err != nil {
			if len(s) <= challengeMax {
				t.Errorf("ParseChallenges(%q): %v", s, err)
			}
			return
		}
		for _, c := range list {
			if c.Scheme == "" || c.Scheme != strings.ToLower(c.Scheme) || c.Params == nil {
				t.Errorf("ParseChallenges(%q) has %+v", s, c)
			}
			for name, value := range c.Params {
				if name == "" || name != strings.ToLower(name) || len(value) > len(s) {
					t.Errorf("ParseChallenges(%q) has parameter %q=%q", s, name, value)
				}
			}
		}
	})
}
