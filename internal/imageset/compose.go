package imageset

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"go.yaml.in/yaml/v4"
)

// Compose files are read here and not by compose-go, which tells no lines, reads every file
// that a project names (env_file, secrets), refuses what its schema does not know yet, and
// takes a variable without a value for empty. Its reader of .env files is used.

func isCompose(root *yaml.Node) bool {
	if is(value(root, "services"), yaml.MappingNode) {
		return true
	}
	// Files of models or includes alone.
	for _, m := range items(value(root, "models")) {
		if has(m, "model") {
			return true
		}
	}
	for _, one := range items(value(root, "include")) {
		if has(one, "path") {
			return true
		}
	}
	return false
}

// project is a Compose file with what its variables mean.
type project struct {
	r      *reader
	root   *yaml.Node
	lookup func(name string) (string, bool)
}

// layer is a service, or what it extends: a mapping of one project.
type layer struct {
	*project
	n *yaml.Node
}

// compose reads what a Compose file pulls: the images of services that are not built, those
// that are mounted, models, and what the Dockerfiles within it name. Profiles choose among
// the services when these are started, and do not count.
func (r *reader) compose(root *yaml.Node) {
	r.project(root, r.lookup())
}

func (r *reader) lookup() func(string) (string, bool) {
	if r.o.Lookup == nil {
		return func(string) (string, bool) { return "", false }
	}
	return r.o.Lookup
}

func (r *reader) project(root *yaml.Node, lookup func(string) (string, bool)) {
	if is(root, yaml.ScalarNode) && text(root) == "" {
		return
	}
	p := &project{r: r, root: root, lookup: withEnv(r, root.Line, lookup)}
	services := value(root, "services")
	if !is(services, yaml.MappingNode) && !has(root, "include") && !has(root, "models") {
		r.fault(root.Line, errors.New("has no services: is it a Compose file?"))
		return
	}
	for _, one := range items(value(root, "include")) {
		p.include(one)
	}
	for _, m := range items(value(root, "models")) {
		p.name(value(m, "model"), "")
	}
	all, made := map[*yaml.Node][]layer{}, map[string]bool{}
	for _, service := range pairs(services) {
		if all[service] = p.layers(service, 0); lookUp(all[service], "build").n != nil {
			if image := lookUp(all[service], "image"); image.n != nil {
				made[image.called()] = true
			}
		}
	}
	for name, service := range pairs(services) {
		p.service(name.Value, all[service], made)
	}
}

// withEnv returns lookup, and after it what the .env beside the file says.
func withEnv(r *reader, line int, lookup func(string) (string, bool)) func(string) (string, bool) {
	_, content, err := r.beside(".env")
	if err != nil {
		return lookup
	}
	set, err := dotenv.ParseWithLookup(bytes.NewReader(content), lookup)
	if err != nil { // its text may show what the file has
		r.fault(line, errors.New("the .env beside it cannot be read: it has no lines of NAME=VALUE"))
		return lookup
	}
	return func(name string) (string, bool) {
		if v, ok := lookup(name); ok {
			return v, true
		}
		v, ok := set[name]
		return v, ok
	}
}

// include reads the files of an include.
func (p *project) include(n *yaml.Node) {
	if at := cmp.Or(value(n, "env_file"), value(n, "project_directory")); at != nil {
		p.r.note(at.Line, "what variables are in a file that is included is told elsewhere, which is not read: give the whole project, as docker compose config makes it")
	}
	for _, f := range each(cmp.Or(value(n, "path"), n)) {
		p.other(f, func(other *project) { other.r.project(other.root, p.lookup) })
	}
}

// other reads a file that this one names.
func (p *project) other(at *yaml.Node, read func(*project)) {
	name, err := expand(text(at), p.lookup)
	var r *reader
	var content []byte
	if err == nil {
		r, content, err = p.r.beside(name)
	}
	if err != nil {
		p.r.fault(at.Line, fmt.Errorf("file %q: %w: give the whole project, as docker compose config makes it", clip(text(at)), err))
		return
	}
	r.yaml(content, func(root *yaml.Node) { read(&project{r: r, root: root, lookup: p.lookup}) })
}

// extendsMax bounds services that extend others.
const extendsMax = 20

// layers returns a service and what it extends, the nearest first.
func (p *project) layers(service *yaml.Node, depth int) []layer {
	all := []layer{{p, service}}
	extends := value(service, "extends")
	if extends == nil {
		return all
	}
	if depth == extendsMax {
		p.r.fault(extends.Line, fmt.Errorf("services extend each other more than %d deep", extendsMax))
		return all
	}
	name := cmp.Or(text(extends), text(value(extends, "service")))
	from := func(other *project) {
		base := value(other.root, "services", name)
		if base == nil {
			p.r.fault(extends.Line, fmt.Errorf("there is no service %q to extend", clip(name)))
			return
		}
		all = append(all, other.layers(base, depth+1)...)
	}
	if file := value(extends, "file"); text(file) != "" {
		p.other(file, from)
	} else {
		from(p)
	}
	return all
}

// lookUp returns what the nearest layer says of a key: its n is nil if none does.
func lookUp(layers []layer, key string) layer {
	for _, l := range layers {
		v := value(l.n, key)
		if v != nil && v.Tag == "!reset" { // "removed", whatever stands behind it
			break
		}
		if v != nil && v.ShortTag() != "!!null" {
			return layer{l.project, v}
		}
	}
	return layer{}
}

// called is the whole name of an image, with its tag; what it says if that is no name.
func (l layer) called() string {
	name, err := expand(text(l.n), l.lookup)
	ref, no := l.r.o.Registries.Reference(name)
	if err != nil || no != nil {
		return text(l.n)
	}
	ref.Tag = cmp.Or(ref.Tag, latest)
	return ref.String()
}

// service reads a service. made are the images that services of the project are built as.
func (p *project) service(name string, layers []layer, made map[string]bool) {
	image, build, platform := lookUp(layers, "image"), lookUp(layers, "build"), ""
	if at := lookUp(layers, "platform"); at.n != nil {
		var err error
		if platform, err = expand(text(at.n), at.lookup); err != nil {
			at.r.fault(at.n.Line, err)
			return
		}
	}
	switch {
	case build.n != nil:
		build.build("service", name, platform)
	case text(lookUp(layers, "pull_policy").n) == "never":
	case image.n != nil && !made[image.called()]:
		image.name(image.n, platform)
	}
	if provider := lookUp(layers, "provider"); text(value(provider.n, "type")) == "model" {
		provider.name(value(provider.n, "options", "model"), "")
	}
	for _, l := range layers {
		for _, v := range items(value(l.n, "volumes")) {
			if text(value(v, "type")) == "image" {
				l.name(value(v, "source"), platform)
			}
		}
	}
}

// name takes in the name of an image.
func (p *project) name(at *yaml.Node, platform string) {
	if at == nil {
		return
	}
	name, err := expand(text(at), p.lookup)
	switch {
	case err != nil:
		p.r.fault(at.Line, err)
	case name != "":
		p.r.add(at.Line, name, platform)
	}
}

// build reads what a service, or a target of bake, is built from, as far as the file says it.
func (l layer) build(kind, name, platform string) {
	contexts, inlined := "additional_contexts", "dockerfile_inline"
	if kind == "target" {
		contexts, inlined = "contexts", "dockerfile-inline"
	}
	b := building{args: map[string]string{}, contexts: map[string]bool{}}
	inline := value(l.n, inlined)
	for k, v := range settings(value(l.n, "args"), l.lookup) {
		if s, err := expand(v, l.lookup); err == nil {
			b.args[k] = s
		} else if inline != nil {
			l.r.fault(l.n.Line, fmt.Errorf("argument %s: %w", clip(k), err))
		}
	}
	maps.Copy(b.args, l.r.o.BuildArgs)
	l.contexts(value(l.n, contexts), b.contexts)
	for _, p := range items(value(l.n, "platforms")) {
		b.platforms = append(b.platforms, text(p))
	}
	if platform != "" && len(b.platforms) == 0 {
		b.platforms = []string{platform}
	}
	if inline == nil {
		from := text(l.n)
		if from == "" {
			from = cmp.Or(text(value(l.n, "context")), ".")
		}
		file := cmp.Or(text(value(l.n, "dockerfile")), "Dockerfile")
		l.r.note(l.n.Line, fmt.Sprintf("%s %q is built: what it is built from is in %s, which is a file of its own", kind, clip(name), clip(path.Join(from, file))))
		return
	}
	s, err := inline.Value, error(nil)
	if kind == "service" {
		s, err = expandText(s, l.lookup)
	}
	if err != nil {
		l.r.fault(inline.Line, err)
		return
	}
	b.line = textLine(inline)
	l.r.dockerfile([]byte(s), b)
}

// contexts reads what else a build has for its sources, and notes their names.
func (p *project) contexts(n *yaml.Node, names map[string]bool) {
	take := func(at *yaml.Node, name, source string) {
		names[strings.ToLower(name)] = true
		source, err := expand(source, p.lookup)
		if err != nil {
			p.r.fault(at.Line, err)
			return
		}
		if strings.HasPrefix(source, "docker-image://") {
			p.r.add(at.Line, source)
		}
	}
	for k, v := range pairs(n) {
		take(v, k.Value, text(v))
	}
	if is(n, yaml.SequenceNode) {
		for _, one := range items(n) {
			name, source, _ := strings.Cut(text(one), "=")
			take(one, name, source)
		}
	}
}

func isBake(root *yaml.Node) bool {
	return is(value(root, "target"), yaml.MappingNode) && !has(root, "services") &&
		slices.ContainsFunc(items(value(root, "target")), func(t *yaml.Node) bool {
			return slices.ContainsFunc([]string{"dockerfile", "dockerfile-inline", "context", "contexts", "inherits", "tags", "target"}, func(key string) bool { return has(t, key) })
		})
}

// bake reads the JSON of docker buildx bake.
func (r *reader) bake(root *yaml.Node) {
	variables := map[string]string{}
	for k, v := range pairs(value(root, "variable")) {
		variables[k.Value] = text(value(v, "default"))
	}
	p := &project{r: r, root: root, lookup: func(name string) (string, bool) {
		if v, ok := r.lookup()(name); ok {
			return v, true
		}
		v, ok := variables[name]
		return v, ok
	}}
	for name, target := range pairs(value(root, "target")) {
		if has(target, "matrix") {
			r.fault(target.Line, fmt.Errorf("target %q stands for several by its matrix: give what docker buildx bake prints of it", clip(name.Value)))
			continue
		}
		layer{p, target}.build("target", name.Value, "")
	}
}
