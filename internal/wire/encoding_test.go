package wire

import (
	"net/http"
	"testing"
)

func TestContentEncoding(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   string
	}{
		{nil, ""}, {[]string{""}, ""}, {[]string{"Identity"}, ""}, {[]string{"utf-8"}, ""}, {[]string{"aws-chunked"}, ""}, {[]string{"application/gzip"}, ""},
		{[]string{"GZIP"}, "gzip"}, {[]string{"aws-chunked,gzip"}, "gzip"}, {[]string{"gzip", "identity , zstd"}, "gzip,zstd"}, {[]string{"br"}, "br"},
	} {
		if got := ContentEncoding(http.Header{"Content-Encoding": test.values}); got != test.want {
			t.Errorf("ContentEncoding(%q) = %q, want %q", test.values, got, test.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x01\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add("identity, gzip", []byte("x"))
	f.Fuzz(func(t *testing.T, encoding string, body []byte) {
		const most = 1 << 10
		got, err := Decode(encoding, body, most)
		if err == nil && len(got) > most && len(got) > len(body) {
			t.Errorf("Decode(%q, %d bytes) has %d bytes", encoding, len(body), len(got))
		}
	})
}
