package imageset

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Files of programs that carry images from registry to registry or into archives.

// isSkopeo is of what skopeo sync --src yaml reads: registries by name.
func isSkopeo(root *yaml.Node) bool {
	return slices.ContainsFunc(items(root), func(n *yaml.Node) bool {
		return is(value(n, "images"), yaml.MappingNode) && !slices.ContainsFunc(items(value(n, "images")), func(tags *yaml.Node) bool {
			return !is(tags, yaml.SequenceNode) && text(tags) != ""
		}) || has(n, "images-by-tag-regex") || has(n, "images-by-semver")
	})
}

func (r *reader) skopeo(root *yaml.Node) {
	for registry, n := range pairs(root) {
		for name, tags := range pairs(value(n, "images")) {
			if len(items(tags)) == 0 {
				r.fault(name.Line, fmt.Errorf("all tags of %q are wanted: name them", clip(name.Value)))
			}
			for _, tag := range items(tags) {
				separator := ":"
				if strings.Contains(text(tag), ":") {
					separator = "@"
				}
				r.add(tag.Line, registry.Value+"/"+name.Value+separator+text(tag))
			}
		}
		for _, key := range []string{"images-by-tag-regex", "images-by-semver"} {
			for name := range pairs(value(n, key)) {
				r.fault(name.Line, fmt.Errorf("%q is chosen among its tags by %s: name the tags", clip(name.Value), key))
			}
		}
	}
}

// isRegsync is of regsync.
func isRegsync(root *yaml.Node) bool {
	return slices.ContainsFunc(items(value(root, "sync")), func(n *yaml.Node) bool { return has(n, "source") && has(n, "type") })
}

func (r *reader) regsync(root *yaml.Node) {
	for _, n := range items(value(root, "sync")) {
		source := value(n, "source")
		if kind := text(value(n, "type")); kind != "image" {
			r.fault(n.Line, fmt.Errorf("of %q a whole %s is wanted: name the images", clip(text(source)), clip(kind)))
			continue
		}
		r.image(source, plain, text(value(n, "platform")))
	}
}

// isConcourse is of pipelines of Concourse.
func isConcourse(root *yaml.Node) bool {
	return has(root, "image_resource", "run") || is(value(root, "jobs"), yaml.SequenceNode) && slices.ContainsFunc(items(value(root, "jobs")), func(job *yaml.Node) bool { return has(job, "plan") })
}

// concourse reads resources that are images, whatever they are for: it fetches all of them.
func (r *reader) concourse(root *yaml.Node) {
	w := &yamlWalk{r: r, declared: true}
	look := func(n *yaml.Node) {
		source := value(n, "source")
		repository, tag := value(source, "repository"), text(value(source, "tag"))
		switch kind := text(value(n, "type")); {
		case kind != "registry-image" && kind != "docker-image" || text(repository) == "":
		case tag == "" && (has(source, "semver_constraint") || has(source, "variant")):
			r.fault(repository.Line, fmt.Errorf("%q is chosen among its tags: name the tag", clip(text(repository))))
		default:
			w.joined(repository, text(repository), tag, text(value(n, "version", "digest")))
		}
	}
	for _, one := range slices.Concat(items(value(root, "resource_types")), items(value(root, "resources"))) {
		look(one)
	}
	eachPair(func(key, v *yaml.Node) bool {
		if key.Value == "image_resource" {
			look(v)
		}
		return true
	}, root)
}

// isBuildkite is of pipelines of Buildkite: their steps have keys that others have not.
func isBuildkite(root *yaml.Node) bool {
	return slices.ContainsFunc(items(value(root, "steps")), func(step *yaml.Node) bool {
		return has(step, "command") || has(step, "label") || is(value(step, "plugins"), yaml.SequenceNode)
	})
}

// isAnsible is of playbooks and lists of tasks: each has a name, or what it is done with.
func isAnsible(root *yaml.Node) bool {
	return is(root, yaml.SequenceNode) && slices.ContainsFunc(items(root), func(n *yaml.Node) bool {
		return has(n, "hosts") || slices.ContainsFunc(ansibleModules, func(module string) bool { return ansibleTask(n, module) != nil })
	})
}

// ansibleModules take images by name and tag.
var ansibleModules = []string{"docker_image", "docker_image_pull", "podman_image"}

// ansibleTask returns the arguments of a task that uses a module, by its full name or its last part.
func ansibleTask(task *yaml.Node, module string) *yaml.Node {
	for k, v := range pairs(task) {
		if k.Value == module || strings.HasSuffix(k.Value, "."+module) {
			return v
		}
	}
	return nil
}

func (r *reader) ansible(root *yaml.Node) {
	w := &yamlWalk{r: r, seen: map[*yaml.Node]bool{}, declared: true}
	w.walk(root, 0)
	eachPair(func(key, v *yaml.Node) bool {
		module := key.Value[strings.LastIndexByte(key.Value, '.')+1:]
		if !slices.Contains(ansibleModules, module) || !is(v, yaml.MappingNode) {
			return true
		}
		if source := text(value(v, "source")); source == "build" || source == "load" || text(value(v, "state")) == "absent" {
			return false
		}
		if name := value(v, "name"); name != nil {
			w.joined(name, text(name), text(value(v, "tag")), "")
		}
		return false
	}, root)
}

// hauler reads the lists of Hauler.
func (w *yamlWalk) hauler(n *yaml.Node, kind string) {
	switch kind {
	case "Images":
		for _, one := range items(value(n, "spec", "images")) {
			w.r.image(value(one, "name"), plain, text(value(one, "platform")))
		}
	case "Charts":
		w.r.note(n.Line, "the images of charts are not in this file: give what helm template makes of each")
	}
}

// ocMirror reads an ImageSetConfiguration of oc-mirror as far as it names images.
func (w *yamlWalk) ocMirror(n *yaml.Node) {
	mirror := value(n, "mirror")
	for _, one := range items(value(mirror, "additionalImages")) {
		w.r.image(value(one, "name"), plain, "")
	}
	for _, key := range []string{"platform", "operators", "helm"} {
		if v := value(mirror, key); len(items(v)) > 0 {
			w.r.fault(v.Line, fmt.Errorf("mirror.%s stands for images that are not in this file: give the mapping.txt that a dry run of oc-mirror writes", key))
		}
	}
}

// zarf reads the components of a package of Zarf: images, and charts that are artifacts.
func (r *reader) zarf(root *yaml.Node) {
	for _, c := range items(value(root, "components")) {
		for _, image := range items(value(c, "images")) {
			r.image(image, plain, "")
		}
		for _, chart := range items(value(c, "charts")) {
			url := value(chart, "url")
			switch version := text(value(chart, "version")); {
			case strings.HasPrefix(text(url), "oci://") && version != "":
				r.add(url.Line, text(url)+":"+version)
			case url != nil:
				r.note(url.Line, fmt.Sprintf("chart %q is not in a registry, and what it makes not in this file: zarf dev find-images tells its images", clip(text(url))))
			}
		}
	}
}

func isZarf(root *yaml.Node) bool { return text(value(root, "kind")) == "ZarfPackageConfig" }

// strangers are files for programs, by the beginning of a line, with what to give instead.
var strangers = []struct {
	line *regexp.Regexp
	what string
}{
	{regexp.MustCompile(`^VERSION( --\S+)* \d`), "an Earthfile, which is not read: list what its FROM lines name"},
	{regexp.MustCompile(`^\s*(pipeline|node|podTemplate)\b.*\{|^\s*agent\s*\{|^#!.*groovy|^@Library\b`), "a Jenkinsfile, which is a program: list what its agents name"},
	{regexp.MustCompile(`^\s*(docker_build|k8s_yaml|docker_compose|custom_build)\(|^load\(`), "a Tiltfile, which is a program: give the files that it names"},
	{regexp.MustCompile(`^[A-Z_]+\s*[:?+]?=|^\.PHONY:|^[\w./-]+:(\s|$)`), "a Makefile, or settings of a program: list the images"},
	{regexp.MustCompile(`^\s*[\w."-]+\s*=\s*["'\[{]|^\[\[?[\w. "-]+\]\]?\s*$`), "TOML, which is not read: list the images"},
	{regexp.MustCompile(`^(REPOSITORY|IMAGE)\s+TAG\b`), "a table for people: give the names alone, with their tags, one a line"},
	{regexp.MustCompile(`^(?i)(image|name|repository|registry)[,;]`), "a table with commas, which is not read: give the names alone, one a line"},
	{regexp.MustCompile(`^(Vagrant\.|(require|import|def|func|package) )`), "a program: list the images that it names"},
}

// hint is what to give in place of a text in HCL (bake, Nomad, Terraform).
func hclHint(text []byte) string {
	switch {
	case jobOfNomad.Match(text):
		return "is HCL, which is not read: give what nomad job run -output makes of it"
	case bakeFile.Match(text):
		return "is HCL, which is not read: give what docker buildx bake prints of it as JSON"
	}
	return "is HCL, which is not read: list the images"
}

var (
	jobOfNomad = regexp.MustCompile(`(?m)^job\s+"`)
	bakeFile   = regexp.MustCompile(`(?m)^(target|group|function)\s+"`)
)

// stranger returns what a text is that is no list, by its first lines; "" for a list.
func stranger(lines [][]byte) string {
	for _, line := range lines {
		for _, s := range strangers {
			if s.line.Match(line) {
				return s.what
			}
		}
	}
	return ""
}

// unnamed tells that nothing in a document is known to name an image.
func (r *reader) unnamed(root *yaml.Node) {
	r.note(cmp.Or(root.Line, 1), "nothing here is known to name an image: list the images if that is wrong")
}

var errComment = errors.New("a /* has no */")

// withoutComments blanks the comments of JSON that has some (devcontainer.json, tsconfig's way),
// so that lines stay what they are. YAML's reader takes the commas too many.
func withoutComments(text []byte) ([]byte, error) {
	out := slices.Clone(text)
	for i := 0; i < len(out); i++ {
		switch {
		case out[i] == '"':
			for i++; i < len(out) && out[i] != '"'; i++ {
				if out[i] == '\\' {
					i++
				}
			}
		case out[i] == '/' && i+1 < len(out) && out[i+1] == '/':
			for ; i < len(out) && out[i] != '\n'; i++ {
				out[i] = ' '
			}
		case out[i] == '/' && i+1 < len(out) && out[i+1] == '*':
			for end := false; !end; i++ {
				if i+1 >= len(out) {
					return nil, errComment
				}
				if end = out[i] == '*' && out[i+1] == '/'; end {
					out[i+1] = ' '
				}
				if out[i] != '\n' {
					out[i] = ' '
				}
			}
		}
	}
	return out, nil
}
