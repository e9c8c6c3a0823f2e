package govern

import (
	"testing"

	"forebay/internal/wire"
)

// A freeze that matches nothing is worse than none: its operator believes that the tags stay.
func TestWhatIsFrozenIsAPatternOfWhatIsNamed(t *testing.T) {
	c := Call{Ref: (&wire.Registries{Default: wire.Hub, Names: map[string]string{"docker.io": wire.Hub, "index.docker.io": wire.Hub, "ghcr.io": "ghcr.io"}}).Reference}
	for s, want := range map[string]string{
		"nginx":                             "nginx",
		"nginx:1.27":                        "nginx:1.27",
		"docker.io/library/*":               "docker.io/library/*",
		"ghcr.io/a/b:1":                     "ghcr.io/a/b:1",
		"docker://nginx":                    "docker.io/library/nginx",
		"docker://ghcr.io/a/b:1":            "ghcr.io/a/b:1",
		"index.docker.io/library/nginx:1.2": "docker.io/library/nginx:1.2",
		"GHCR.io/a/b":                       "ghcr.io/a/b",
	} {
		if got, err := c.pattern(s); got != want || err != nil {
			t.Errorf("pattern(%q) = %q, %v; want %q", s, got, err, want)
		}
	}
	for _, s := range []string{"", "Nginx", "nginx/", "ghcr.io", "quay.io/a/b", "https://docker.io/library/nginx", "nginx@sha256:14af26f098e66f3e8718117fa30b3027a91e0937a10be1dead2c2ce77879d345"} {
		if got, err := c.pattern(s); err == nil {
			t.Errorf("pattern(%q) = %q, want an error", s, got)
		}
	}
}
