package manifest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/wire"
)

// indexOf returns an index with an image for each platform. "-" stands for one that does not
// say what it is for, and "!" for an attestation.
func indexOf(t *testing.T, platforms ...string) *Document {
	t.Helper()
	var all []string
	for i, p := range platforms {
		rest := `"platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}`
		switch p {
		case "!":
		case "-":
			rest = `"mediaType":"application/vnd.oci.image.index.v1+json"`
		default:
			f := strings.Split(p+"//", "/")
			system, version, _ := strings.Cut(strings.TrimSuffix(f[0], ")"), "(")
			rest = fmt.Sprintf(`"platform":{"os":%q,"architecture":%q,"variant":%q,"os.version":%q}`, system, f[1], f[2], version)
		}
		all = append(all, fmt.Sprintf(`{"digest":"%d",%s}`, i, rest))
	}
	doc, ok := Parse([]byte(`{"manifests":[` + strings.Join(all, ",") + `]}`))
	if !ok {
		t.Fatalf("no index of %q", platforms)
	}
	return doc
}

func TestPlatformsOfAnIndex(t *testing.T) {
	for _, row := range []struct{ have, wanted, want string }{
		{"linux/amd64 linux/arm64", "linux/amd64", "0"},
		{"linux/amd64 linux/arm64/v8", "linux/arm64", "1"},
		{"linux/arm64", "linux/arm64/v8", "0"},
		{"linux/arm64", "linux/aarch64", "0"},
		{"linux/aarch64", "linux/arm64", "0"}, // as some builders wrote it
		{"linux/arm/v7", "linux/arm", "0"},
		{"linux/arm", "linux/arm/v7", "0"},
		{"linux/arm/v5 linux/arm/v6", "linux/arm/v7", "1"},
		{"linux/arm/v6 linux/arm/v7", "linux/arm/v7", "1"},
		{"linux/arm/v7", "linux/arm/v6", ""},
		{"linux/amd64 linux/amd64/v2", "linux/amd64/v3", "1"},
		{"linux/amd64", "linux/amd64/v3", "0"},
		{"linux/amd64/v3", "linux/amd64", ""},
		{"linux/386 linux/amd64", "linux/amd64", "1"},
		{"linux/386", "linux/amd64", "0"},
		{"linux/arm/v7", "linux/arm64", "0"},
		{"linux/s390x", "linux/amd64", ""},
		{"windows(10.0.17763.1)/amd64 windows(10.0.20348.2)/amd64", "windows/amd64", "01"},
		{"windows(10.0.17763.1)/amd64 windows(10.0.20348.2)/amd64", "windows(10.0.20348.2)/amd64", "1"},
		{"unknown/unknown linux/amd64", "linux/amd64", "1"},
		{"unknown/unknown", "linux/amd64", ""},
		{"! linux/amd64", "linux/amd64", "1"},
		{"!", "linux/amd64", ""},
		{"- -", "linux/amd64", "01"}, // whatever they are for
		{"- linux/amd64", "linux/amd64", "1"},
		{"- linux/amd64", "linux/arm64", "0"},
		{"- ! linux/amd64", "all", "012"},
		{"linux/amd64 linux/arm64 linux/s390x", "linux/arm64 linux/s390x", "12"},
		{"linux/amd64", "no platform", ""},
		{"linux/amd64", "", ""},
	} {
		doc, names := indexOf(t, strings.Fields(row.have)...), strings.Split(row.wanted, " ")
		wanted, got := doc.Wanted(names), ""
		for _, child := range doc.Manifests {
			if wanted[child.Digest] {
				got += child.Digest
			}
		}
		if got != row.want {
			t.Errorf("Wanted(%q) of %q = %q, want %q", names, row.have, got, row.want)
		}
		if err := doc.Has(names); (err == nil) != (row.want != "") {
			t.Errorf("Has(%q) of %q = %v", names, row.have, err)
		}
	}
}

func TestWhatIsThereIsTold(t *testing.T) {
	for have, want := range map[string]string{
		"linux/s390x linux/s390x ! windows(10.0.1)/amd64": "it has no platform linux/amd64, but linux/s390x, windows(10.0.1)/amd64",
		"unknown/unknown": "it has no platform linux/amd64, but unknown/unknown",
		"!":               "it has no platform linux/amd64, but no images",
		"":                "it has no platform linux/amd64, but no images",
	} {
		if err := indexOf(t, strings.Fields(have)...).Has([]string{"linux/amd64"}); err == nil || err.Error() != want {
			t.Errorf("Has of %q: %v, want %q", have, err, want)
		}
	}
}

func TestNamesOfChildrenAreReadAgain(t *testing.T) {
	doc := indexOf(t, "linux/arm64/v8", "windows(10.0.1)/amd64", "!", "-")
	var got []string
	for _, child := range doc.Manifests {
		got = append(got, child.Name())
	}
	if diff := cmp.Diff([]string{"linux/arm64/v8", "windows(10.0.1)/amd64", Attestation, ""}, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for _, name := range got[:2] {
		if _, err := wire.Platform(name); err != nil {
			t.Errorf("Platform(%q): %v", name, err)
		}
	}
	hostile := &Platform{OS: "li\nnux", Architecture: strings.Repeat("a", 200), Variant: "v,8", OSVersion: "1,2"}
	if got := hostile.String(); len(got) > 96 || strings.ContainsAny(got, "\n,") {
		t.Errorf("String = %q, want a short line", got)
	}
}

func TestNamesOfPlatformsAreChecked(t *testing.T) {
	for _, bad := range [][]string{{"nonsense"}, {AllPlatforms, "linux/amd64"}, {"linux/a/b/c/d"}} {
		if CheckPlatforms(bad) == nil {
			t.Errorf("CheckPlatforms(%q) = nil", bad)
		}
	}
	for _, good := range [][]string{nil, {AllPlatforms}, {"linux", "x86_64", "windows(10.0.17763)/amd64"}} {
		if err := CheckPlatforms(good); err != nil {
			t.Errorf("CheckPlatforms(%q) = %v", good, err)
		}
	}
}
