package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"

	"forebay/internal/wire"
)

// AllPlatforms as the only platform asked for stands for every platform of an index.
const AllPlatforms = "all"

// CheckPlatforms returns what is wrong with names of platforms: nil for [AllPlatforms] alone.
func CheckPlatforms(names []string) error {
	if len(names) == 1 && names[0] == AllPlatforms {
		return nil
	}
	for _, p := range names {
		if _, err := wire.Platform(p); err != nil {
			return err
		}
	}
	return nil
}

// Wanted returns the digests of the children of an index that clients use on the platforms
// of those names.
func (m *Document) Wanted(names []string) map[string]bool {
	wanted := map[string]bool{}
	for _, name := range names {
		for _, child := range m.matching(name) {
			wanted[child.Digest] = true
		}
	}
	return wanted
}

// matching returns which children are for a platform, by the rules of containerd
// (platforms.Only): linux/arm64 is linux/arm64/v8, and where there is no linux/arm/v7, or
// linux/amd64/v3, the best that runs there is taken instead. Those of Windows are taken for
// every version of it unless one is named. If none is declared for the platform, it may be
// any of those that do not say what they are for, such as an index within the index.
func (m *Document) matching(name string) []Descriptor {
	if name == AllPlatforms {
		return m.Manifests
	}
	wanted, err := platforms.Parse(name)
	if err != nil {
		return nil // kept by an older version, or by nobody
	}
	matcher := platforms.Only(wanted)
	var best, silent []Descriptor
	for _, child := range m.Manifests {
		switch {
		case child.Name() == Attestation:
		case child.Platform.silent():
			silent = append(silent, child)
		case !matcher.Match(child.Platform.spec()):
		case len(best) == 0 || matcher.Less(child.Platform.spec(), best[0].Platform.spec()):
			best = []Descriptor{child}
		case !matcher.Less(best[0].Platform.spec(), child.Platform.spec()):
			best = append(best, child)
		}
	}
	if len(best) == 0 {
		return silent
	}
	return best
}

// silent reports whether a descriptor does not say what it is for.
func (p *Platform) silent() bool { return p == nil || p.OS == "" && p.Architecture == "" }

func (p *Platform) spec() platforms.Platform {
	return platforms.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}

// Has returns an error if a platform is asked for that an index does not have. A manifest
// that is no index does not say what it is for.
func (m *Document) Has(names []string) error {
	if !m.IsIndex() {
		return nil
	}
	for _, name := range names {
		if name != AllPlatforms && len(m.matching(name)) == 0 {
			there := "no images"
			if all := m.platforms(); len(all) > 0 {
				there = strings.Join(all, ", ")
			}
			return fmt.Errorf("it has no platform %s, but %s", name, there)
		}
	}
	return nil
}

// platforms returns what an index has, for people: each once.
func (m *Document) platforms() []string {
	var names []string
	for _, child := range m.Manifests {
		if name := child.Name(); name != Attestation && name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
