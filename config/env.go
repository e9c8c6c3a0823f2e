package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"forebay/config/fault"
	"forebay/config/key"
	"forebay/config/parse"
)

// Every key can be given as an environment variable: FOREBAY_ and the key's path in
// capitals, where every character that is no letter or digit becomes an underscore:
//
//	listen                        FOREBAY_LISTEN
//	storage.max_size              FOREBAY_STORAGE_MAX_SIZE
//	upstreams.docker.io.username  FOREBAY_UPSTREAMS_DOCKER_IO_USERNAME
//
// FOREBAY_UPSTREAMS is the comma-separated list of all registries to mirror. Those that
// the file also names keep their settings from there. FOREBAY_CONFIG names the file, and
// FOREBAY_ADMIN is the server that the operator's commands ask.

const envPrefix = "FOREBAY_"

// orchestrator matches NAME=VALUE of what Kubernetes (service links) and docker (links) set for
// a service whose name starts with "forebay". They are not ours.
var orchestrator = regexp.MustCompile(`^FOREBAY(_[A-Z0-9_]+)?_(SERVICE_HOST=|SERVICE_PORT(_[A-Z0-9_]+)?=|` +
	`PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z_]+)?=|PORT=(tcp|udp|sctp)://|NAME=/|ENV_)`)

// setting is a field with its path.
type setting struct {
	path  string
	field *field
}

// chooseUpstreams settles which registries there are, before their keys are decoded
// from the environment.
func (d *decoder) chooseUpstreams(env map[string]string) {
	const variable = envPrefix + "UPSTREAMS"
	origin, inFile := d.config.origins["upstreams"]
	switch {
	case strings.TrimSpace(env[variable]) != "":
		at := Origin{Source: fault.FromEnv, Name: variable}
		d.config.origins["upstreams"] = at
		var names []string
		for _, name := range parse.List(env[variable]) {
			name, err := parse.UpstreamName(name)
			if err != nil {
				d.Add(at, "upstreams", "%s", err)
				continue
			}
			names = append(names, name)
		}
		d.config.useUpstreams(names)
	case len(d.config.Upstreams) > 0:
	case !inFile || d.config.Others != nil:
		d.config.useWellKnown()
	case len(d.Faults) == 0:
		d.Add(origin, "upstreams", "names no registry: name one, such as docker.io: {}, or remove the key to mirror the well-known ones")
	}
}

// environment decodes the variables that start with FOREBAY_. An empty one is taken
// as not set, since that is how compose files and templates leave them out.
func (d *decoder) environment(env map[string]string) {
	settings := d.settings()
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !strings.HasPrefix(name, envPrefix) || name == envPrefix+"UPSTREAMS" || name == envPrefix+"CONFIG" || name == envPrefix+"ADMIN" {
			continue
		}
		at := Origin{Source: fault.FromEnv, Name: name}
		switch matches := settings[name]; {
		case len(matches) == 0:
			if !orchestrator.MatchString(name + "=" + env[name]) {
				d.unknownVariable(at, settings)
			}
		case env[name] == "":
		case len(matches) == 1:
			d.text(at, matches[0].path, matches[0].field, env[name])
		default:
			paths := make([]string, len(matches))
			for i, m := range matches {
				paths[i] = m.path
			}
			d.Add(at, "", "may mean %s: set the key in the file instead", parse.Either(paths))
		}
	}
}

// settings returns all fields that a variable can set, by the variable's name. Two
// names of registries may come out the same.
func (d *decoder) settings() map[string][]setting {
	m := map[string][]setting{}
	var walk func(path string, fields []field)
	walk = func(path string, fields []field) {
		for i := range fields {
			f := &fields[i]
			at := join(path, f.Name)
			if f.Kind == key.Section {
				walk(at, f.Fields)
				continue
			}
			m[Variable(at)] = append(m[Variable(at)], setting{at, f})
		}
	}
	walk("", d.config.fields())
	for path, u := range d.config.configured() {
		if u != d.config.Others { // whose name is none in a variable's
			walk(path, u.fields())
		}
	}
	return m
}

// Variable returns the name of the environment variable for the path of a key.
func Variable(path string) string {
	return envPrefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		default:
			return '_'
		}
	}, path)
}

// unknownVariable refuses what is meant for us, and warns of what others may have set.
func (d *decoder) unknownVariable(at Origin, settings map[string][]setting) {
	hint := parse.DidYouMean(at.Name, slices.Sorted(maps.Keys(settings)))
	switch {
	case strings.HasPrefix(at.Name, envPrefix+"UPSTREAMS_"):
		if hint == "" {
			hint = ": name the registry in FOREBAY_UPSTREAMS or in the file; there are " + strings.Join(d.config.UpstreamNames(), ", ")
		}
		d.Add(at, "", "is for no key of a registry that is configured%s", hint)
	case hint != "":
		d.Add(at, "", "is not a setting%s", hint)
	default:
		d.config.foreign = append(d.config.foreign, Fault{Where: at, Problem: "is not a setting, and does nothing"})
	}
}
