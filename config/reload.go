package config

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// Live reports whether a running program takes up a change of the key. Which registries are
// mirrored is for the next start.
func Live(key string) bool {
	return slices.ContainsFunc([]string{
		"upstreams.", "hosts", "trusted_networks", "fallback", "catalog", "limits.", "log.level", "log.access", "admin_token", "auth.", "operators.", "access", "authentication", "policies", "signers", "as_of", "notify",
	}, func(live string) bool {
		return key == live || strings.HasSuffix(live, ".") && strings.HasPrefix(key, live) || strings.HasPrefix(key, live+"[") || key == live+"_file"
	})
}

// Differing returns the keys that mean something else in next, sorted. A secret that is in a file
// differs when the file does.
func (c *Config) Differing(next *Config) []string {
	was, is := c.values(), next.values()
	maps.DeleteFunc(was, func(key, value string) bool {
		now, there := is[key]
		same := there && now == value
		if same {
			delete(is, key)
		}
		return same
	})
	maps.Copy(was, is)
	return slices.Sorted(maps.Keys(was))
}

// values returns the value of each key as a text. They are secret.
func (c *Config) values() map[string]string {
	all := map[string]string{"upstreams": strings.Join(c.UpstreamNames(), ",")}
	note := func(path string, f field) {
		all[path] = strings.Join(f.Get(), "\n")
		if f.Secret != nil {
			all[path] = f.Secret()
		}
	}
	walk("", c.fields(), note)
	for path, u := range c.configured() {
		walk(path, u.fields(), note)
	}
	return all
}

// configured are the upstreams that the configuration names, with the paths of their keys, and
// what it says of those that clients name.
func (c *Config) configured() iter.Seq2[string, *Upstream] {
	return func(yield func(string, *Upstream) bool) {
		for i := range c.Upstreams {
			if u := &c.Upstreams[i]; !u.Stranger && !yield("upstreams."+u.Name, u) {
				return
			}
		}
		if c.Others != nil {
			yield("upstreams."+AnyRegistry, c.Others)
		}
	}
}

// UpstreamNames returns the names of the upstreams that were configured, sorted.
func (c *Config) UpstreamNames() []string {
	var names []string
	for _, u := range c.configured() {
		if u != c.Others {
			names = append(names, u.Name)
		}
	}
	return names
}
