package wire

import (
	"net/netip"
	"strings"
	"testing"
)

func FuzzHost(f *testing.F) {
	for _, s := range []string{"a.b:1", "[::1]:5000", "::1", "[fe80::1%25e]:1", "[[::]]", "a:b:c", "[1.2.3.4]", "%", "]:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port := Host(s)
		if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil || host != "["+a.String()+"]" {
			return
		}
		if again, none := Host(host); again != host || none != "" {
			t.Errorf("Host(%q) = %q %q, which reads as %q %q", s, host, port, again, none)
		}
	})
}

func TestHost(t *testing.T) {
	for in, want := range map[string][2]string{
		"mirror.lan":             {"mirror.lan", ""},
		"Mirror.LAN:5000":        {"mirror.lan", "5000"},
		"mirror.lan.":            {"mirror.lan", ""},
		"mirror.lan.:5000":       {"mirror.lan", "5000"},
		"10.0.0.1:5000":          {"10.0.0.1", "5000"},
		"[::1]":                  {"[::1]", ""},
		"[::1]:5000":             {"[::1]", "5000"},
		"::1":                    {"[::1]", ""},
		"[0:0:0:0:0:0:0:1]:5000": {"[::1]", "5000"},
		"2001:DB8::0:1":          {"[2001:db8::1]", ""},
		"[2001:DB8::1]:443":      {"[2001:db8::1]", "443"},
		"[fe80::1%eth0]:5000":    {"[fe80::1]", "5000"},
		"[fe80::1%25eth0]:5000":  {"[fe80::1]", "5000"},
		"[::ffff:10.0.0.1]:5000": {"[::ffff:10.0.0.1]", "5000"},
		// What is no host stays what it is.
		"":           {"", ""},
		":5000":      {"", "5000"},
		"[::1":       {"[::1", ""},
		"[[::1]]:1":  {"[[::1]]", "1"},
		"[10.0.0.1]": {"[10.0.0.1]", ""},
		"a:b:c":      {"a:b:c", ""},
	} {
		host, port := Host(in)
		if got := [2]string{host, port}; got != want {
			t.Errorf("Host(%q) = %q, want %q", in, got, want)
		}
		if again, _ := Host(host); again != host {
			t.Errorf("Host(%q) = %q, want itself", host, again)
		}
	}
}
