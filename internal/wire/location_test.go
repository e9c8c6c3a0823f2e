package wire

import (
	"net/url"
	"testing"
)

func TestLocate(t *testing.T) {
	base := &url.URL{Scheme: "https", Host: "registry.test:8443", Path: "/v2/a/blobs/x", RawQuery: "q=1"}
	for _, test := range []struct{ location, want string }{
		{"https://cdn.test//a/./b?c=%2F", "https://cdn.test//a/./b?c=%2F"},
		{" /a//b?c#d ", "https://registry.test:8443/a//b?c"},
		{"//cdn.test/a", "https://cdn.test/a"},
		{"y?c=d", "https://registry.test:8443/v2/a/blobs/y?c=d"},
		{"?c=d", "https://registry.test:8443/v2/a/blobs/x?c=d"},
		{"http://registry.test/pulp/x?validate_token=y", "https://registry.test:8443/pulp/x?validate_token=y"},
		{"http://Registry.test:80/x", "https://registry.test:8443/x"},
		{"http://registry.test:8443/x", "https://registry.test:8443/x"},
		{"http://registry.test:8080/x", "http://registry.test:8080/x"}, // another server
		{"http://cdn.test/x", "http://cdn.test/x"},
		{"", ""},
		{"https://%zz/", ""},
	} {
		u, err := Locate(base, test.location)
		if got := text(u); got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("Locate(%q) = %q, %v; want %q", test.location, got, err, test.want)
		}
	}
	plain := &url.URL{Scheme: "http", Host: "registry.test"}
	if u, err := Locate(plain, "http://registry.test:8080/x"); err != nil || text(u) != "http://registry.test:8080/x" {
		t.Errorf("Locate of another port = %v, %v; want it as it is", u, err)
	}
}

// text returns a URL as a text, "" for none.
func text(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.String()
}
