package imageset

import (
	"slices"
	"strings"

	"forebay/internal/wire"
)

// Names returns what names mean that stand in no file but somewhere that is called origin.
func Names(origin string, names []string, registries *wire.Registries) ([]Entry, error) {
	r := &reader{name: origin, o: Options{Registries: registries}, found: &found{seen: map[string]bool{}}}
	for _, name := range names {
		r.add(0, strings.TrimSpace(name))
	}
	if len(r.faults) > 0 {
		return r.entries, r.faults
	}
	return r.entries, nil
}

// Unique drops entries that repeat the name, digest and platforms of an earlier one.
func Unique(entries []Entry) []Entry {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool {
		key := e.Ref.String() + " " + strings.Join(e.Platforms, ",")
		again := seen[key]
		seen[key] = true
		return again
	})
}
