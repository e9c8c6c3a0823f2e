package wire

import (
	"runtime"
	"strings"
	"testing"
)

func TestNamesOfPlatforms(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/x86-64": "linux/amd64", "Linux/AMD64": "linux/amd64",
		"linux/amd64/v1": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3", "x86_64": "linux/amd64",
		"linux/arm64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "linux/aarch64": "linux/arm64", "aarch64": "linux/arm64", "arm64": "linux/arm64",
		"linux/arm64/v9": "linux/arm64/v9", "arm64/v8": "linux/arm64", "arm/v6": "linux/arm/v6", "linux": "linux/" + runtime.GOARCH,
		"linux/arm": "linux/arm/v7", "linux/armhf": "linux/arm/v7", "armhf": "linux/arm/v7", "linux/arm/7": "linux/arm/v7", "arm": "linux/arm/v7",
		"linux/armel": "linux/arm/v6", "linux/arm/v6": "linux/arm/v6", "linux/arm/v5": "linux/arm/v5",
		"linux/i386": "linux/386", "linux/386": "linux/386", "linux/riscv64": "linux/riscv64", "linux/ppc64le": "linux/ppc64le",
		"windows/amd64": "windows/amd64", "windows(10.0.20348.2227)/amd64": "windows(10.0.20348.2227)/amd64", "macos/arm64": "darwin/arm64",
		"unknown/unknown": "unknown/unknown",
	} {
		got, err := Platform(in)
		if err != nil || got != want {
			t.Errorf("Platform(%q) = %q, %v, want %q", in, got, err, want)
		}
		if again, err := Platform(got); err != nil || again != got {
			t.Errorf("Platform(%q) = %q, %v, want it unchanged", got, again, err)
		}
	}
	for _, in := range []string{"", "/", "linux/", "/amd64", "linux/arm/v7/x", "linux/a,b", "linux/a b", "*", "linux/*", "nonsense", "linux/a\n", strings.Repeat("a", 70) + "/b"} {
		if got, err := Platform(in); err == nil || !strings.Contains(err.Error(), "is not a platform") {
			t.Errorf("Platform(%q) = %q, %v, want an error", in, got, err)
		}
	}
}

func FuzzPlatform(f *testing.F) {
	for _, s := range []string{"linux/arm64/v8", "armhf", "windows(10.0.17763+win32k)/amd64", "a(b/c", "%2f/%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Platform(s)
		if err != nil {
			return
		}
		if again, err := Platform(got); err != nil || again != got {
			t.Errorf("Platform(%q) = %q, which is read as %q, %v", s, got, again, err)
		}
		if strings.ContainsAny(got, ", \n") {
			t.Errorf("Platform(%q) = %q, which cannot be in a list", s, got)
		}
	})
}
