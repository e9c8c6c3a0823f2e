package imageset

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// gitlabWords are the keys of a pipeline that are no jobs.
func gitlabWords() []string {
	return []string{"after_script", "before_script", "cache", "default", "image", "include", "services", "spec", "stages", "variables", "workflow"}
}

func isGitLab(root *yaml.Node) bool {
	if has(root, "script") || has(root, "language") || has(root, "kind") {
		return false // of Travis, for one
	}
	for key, v := range pairs(root) {
		switch {
		case key.Value == "default" && (has(v, "image") || has(v, "services")), key.Value == "stages" && is(v, yaml.SequenceNode) && scalars(v):
			return true
		case key.Value == "task" || strings.HasSuffix(key.Value, "_task"): // of Cirrus
			return false
		case has(v, "script"), is(v, yaml.MappingNode) && has(v, "trigger"), has(v, "extends") && has(v, "image"), has(v, "stage") && has(v, "image"):
			return true
		}
	}
	includes := value(root, "include")
	all := []*yaml.Node{includes}
	if is(includes, yaml.SequenceNode) {
		all = items(includes)
	}
	return slices.ContainsFunc(all, func(n *yaml.Node) bool {
		return text(n) != "" || slices.ContainsFunc([]string{"local", "remote", "project", "template", "component"}, func(key string) bool { return has(n, key) })
	})
}

// A pipeline may begin with a document that declares its inputs.
func isGitLabHeader(root *yaml.Node) bool {
	return is(value(root, "spec", "inputs"), yaml.MappingNode) && !has(root, "apiVersion")
}

func (r *reader) gitlabHeader(root *yaml.Node) {
	r.inputs = map[string][]string{}
	for k, v := range pairs(value(root, "spec", "inputs")) {
		if s := text(value(v, "default")); s != "" {
			r.inputs[k.Value] = []string{s}
		}
	}
}

var gitlabInput = regexp.MustCompile(`\$\[\[ *inputs\.([\w-]+) *\]\]`)

// gitlab reads the images and services of all jobs, those of hidden ones too.
func (r *reader) gitlab(root *yaml.Node) {
	r.gitlabIncludes(value(root, "include"))
	r.gitlabJob(root, root, nil)
	for key, job := range pairs(root) {
		if key.Value == "default" || !slices.Contains(gitlabWords(), key.Value) {
			var jobs []pipelineJob
			for _, n := range items(value(job, "parallel", "matrix")) {
				jobs = append(jobs, r.jobs(n)...)
			}
			r.gitlabJob(root, job, jobs)
			if include := value(job, "trigger", "include"); include != nil {
				r.gitlabIncludes(include)
			}
		}
	}
}

func (r *reader) gitlabJob(root, job *yaml.Node, jobs []pipelineJob) {
	depth := 0
	var lookup func(name string) (string, bool)
	lookup = func(name string) (string, bool) {
		for _, variables := range []*yaml.Node{value(job, "variables"), value(root, "variables")} {
			v := value(variables, name)
			if is(v, yaml.MappingNode) {
				v = value(v, "value")
			}
			if is(v, yaml.ScalarNode) && depth < expandDepth { // it may name others
				depth++
				s, err := expand(v.Value, lookup)
				depth--
				return s, err == nil
			}
		}
		return r.lookup()(name)
	}
	expanding := expanded(lookup, jobs)
	names := func(s string) (all []string, err error) {
		given, err := substitute(s, gitlabInput, func(name string) []string { return r.inputs[name] })
		for _, one := range given {
			if err == nil && strings.Contains(one, "$[[") {
				_, err = plain(one)
			}
			if err == nil {
				given, err = expanding(one)
				all = append(all, given...)
			}
		}
		return all, err
	}
	one := func(n *yaml.Node) {
		n = referenced(root, n)
		r.image(n, names, text(value(n, "docker", "platform")), "name")
	}
	if image := value(job, "image"); image != nil {
		one(image)
	}
	services := referenced(root, value(job, "services"))
	if services != nil && !is(services, yaml.SequenceNode) && services.ShortTag() != "!!null" {
		r.fault(services.Line, errors.New("services are no list"))
		return
	}
	for _, service := range items(services) {
		if service.Tag == "!reference" {
			if all := referenced(root, service); is(all, yaml.SequenceNode) {
				for _, s := range items(all) {
					one(s)
				}
				continue
			}
		}
		one(service)
	}
}

// referenced returns what a !reference of GitLab stands for.
func referenced(root, n *yaml.Node) *yaml.Node {
	for range extendsMax {
		if n == nil || n.Tag != "!reference" {
			return n
		}
		var keys []string
		for _, key := range items(n) {
			keys = append(keys, text(key))
		}
		next := value(root, keys...)
		if next == nil {
			return n // a list, which is no name
		}
		n = next
	}
	return n
}

func (r *reader) gitlabIncludes(n *yaml.Node) {
	all := []*yaml.Node{n}
	if is(n, yaml.SequenceNode) {
		all = items(n)
	}
	for _, one := range all {
		if one == nil {
			continue
		}
		local := one
		if is(one, yaml.MappingNode) {
			local = value(one, "local")
		}
		file, content, err := r.beside(strings.TrimPrefix(text(local), "/"))
		if err != nil {
			r.note(one.Line, "what a pipeline of GitLab includes is not followed from here: give the whole pipeline, as glab ci config compile makes it")
			continue
		}
		file.yaml(content, file.gitlab)
	}
}
