package server

import "testing"

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{
		":5000": "127.0.0.1:5000", "0.0.0.0:5000": "127.0.0.1:5000", "[::]:5000": "127.0.0.1:5000",
		"127.0.0.2:1": "127.0.0.2:1", "mirror.lan:80": "mirror.lan:80", "[::1]:80": "[::1]:80",
	} {
		if got := Reachable(listen); got != want {
			t.Errorf("Reachable(%q) = %q, want %q", listen, got, want)
		}
	}
}
