package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forebay/config/parse"
	"forebay/config/unit"
)

// FuzzLoad checks that no file makes Load panic or hang, that a fault always says
// something, and that what loads can be printed and loaded again.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("listen: ':5000'\nupstreams: {docker.io: {tag_ttl: 1m, endpoints: [https://a]}}"))
	f.Add([]byte("a: &a [*a]\n<<: *a\nhosts: {a.lan: docker.io}"))
	f.Add([]byte("storage: {max_size: 1.5GiB, s3: {}}\nlog: {level: warn}\n---\n"))
	f.Add([]byte("upstreams: {a.b: {endpoints: [https://a.b, {url: https://c, rewrite: {from: x/}}], tag_rules: [{match: a, ttl: forever}, b=0], fallback_credentials: [anonymous]}}"))
	f.Add([]byte("upstreams:\n  x.y:\n    username: !!binary aGk=\n    password: |\n      two\n      lines\n"))
	folder := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		name := filepath.Join(folder, "forebay.yaml")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(Sources{File: name, Root: true})
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a text")
			}
			return
		}
		var b bytes.Buffer
		if err := c.Print(&b); err != nil {
			t.Fatalf("Print: %v", err)
		}
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(Sources{File: name, Root: true}); err != nil {
			t.Errorf("printed configuration does not load: %v\n%s", err, b.String())
		}
	})
}

// FuzzValues checks that what the parsers of single values accept is what they write.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"1d2h3m4.5s", "0", "1.5TiB", "7GB", "docker.io:5000", "https://a.b:5000/", "http://u:p@h", "[::1]:5000", "::1", "[fe80::1%e]:1", "http://[2001:DB8::1]:5", "a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := unit.ParseDuration(s); err == nil {
			if again, err := unit.ParseDuration(unit.FormatDuration(d)); err != nil || again != d {
				t.Errorf("unit.ParseDuration(%q) = %d, written as %q, read as %d, %v", s, d, unit.FormatDuration(d), again, err)
			}
		}
		if n, err := unit.ParseSize(s); err == nil {
			if again, err := unit.ParseSize(unit.FormatSize(n)); err != nil || again != n || n < 0 {
				t.Errorf("unit.ParseSize(%q) = %d, written as %q, read as %d, %v", s, n, unit.FormatSize(n), again, err)
			}
		}
		for name, read := range map[string]func(string) (string, error){
			"Address": parse.Address, "Host": parse.Host, "Endpoint": parse.Endpoint,
			"Proxy": parse.Proxy, "UpstreamName": parse.UpstreamName,
		} {
			v, err := read(s)
			if err != nil {
				continue
			}
			if again, err := read(v); err != nil || again != v {
				t.Errorf("%s(%q) = %q, which it reads as %q, %v", name, s, v, again, err)
			}
			if strings.ContainsAny(v, "@ \n?#") {
				t.Errorf("%s(%q) = %q, which is not plain", name, s, v)
			}
		}
	})
}
