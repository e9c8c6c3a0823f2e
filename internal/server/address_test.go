package server

import "testing"

func TestReachable(t *testing.T) {
	for listen, want := range map[string][2]string{ // with IPv4 and without
		":5000": {"127.0.0.1:5000", "[::1]:5000"}, "0.0.0.0:5000": {"127.0.0.1:5000", "[::1]:5000"}, "[::]:5000": {"127.0.0.1:5000", "[::1]:5000"},
		"127.0.0.2:1": {"127.0.0.2:1", "127.0.0.2:1"}, "mirror.lan:80": {"mirror.lan:80", "mirror.lan:80"}, "[::1]:80": {"[::1]:80", "[::1]:80"},
	} {
		for i, there := range []bool{true, false} {
			if got := reachable(listen, func() bool { return there }); got != want[i] {
				t.Errorf("reachable(%q) where IPv4 is %t = %q, want %q", listen, there, got, want[i])
			}
		}
	}
}
