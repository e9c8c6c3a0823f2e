package parse

import (
	"fmt"
	"testing"
)

func TestEngineOf(t *testing.T) {
	for text, want := range map[string]string{
		"valkey://valkey.lan":        "{[valkey.lan:6379]  false }",
		"redis://u@10.0.0.1:7000":    "{[10.0.0.1:7000] u false }",
		"rediss://[::1]":             "{[[::1]:6379]  true }",
		"sentinel://a,b:1,c/forebay": "{[a:26379 b:1 c:26379]  false forebay}",
		"sentinel://a,b":             "names no master: sentinel://HOST,HOST/MASTER",
		"http://a":                   `has the scheme "http", want valkey, valkeys, redis, rediss or sentinel`,
		"redis://u:p@a":              "has a password, which belongs into a file: set password_file beside it",
		"redis://a/3":                "has something behind the host: nothing may follow it",
		"redis://a?db=3":             "has something behind the host: nothing may follow it",
		"redis://a,b":                "has several hosts, which only sentinel:// takes",
		"redis://":                   "has no host",
		"valkey.lan:6379":            "is no URL, such as valkey://HOST:6379",
	} {
		e, err := EngineOf(text)
		got := fmt.Sprint(e)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("EngineOf(%q) = %s, want %s", text, got, want)
		}
	}
}
