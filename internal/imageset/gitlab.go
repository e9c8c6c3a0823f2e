package imageset

import (
	"cmp"
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
	return slices.ContainsFunc(each(value(root, "include")), func(n *yaml.Node) bool {
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

// gitlab reads the images and services of all jobs, as each has them: its own, those of what it
// extends, or those of all, with its own variables in them. Hidden jobs that others extend are
// read with these.
func (r *reader) gitlab(root *yaml.Node) {
	r.gitlabIncludes(value(root, "include"))
	general := []*yaml.Node{value(root, "default"), root}
	extended, inherited := map[*yaml.Node]bool{}, false
	for _, job := range pairs(root) {
		for _, base := range gitlabLayers(root, job, nil)[1:] {
			extended[base] = true
		}
	}
	for key, job := range pairs(root) {
		if slices.Contains(gitlabWords(), key.Value) {
			continue
		}
		if trigger := value(job, "trigger"); trigger != nil { // has no script to run anywhere
			r.gitlabIncludes(value(trigger, "include"))
			continue
		}
		layers := gitlabLayers(root, job, nil)
		own := nearest(layers, "image") != nil || nearest(layers, "services") != nil
		if strings.HasPrefix(key.Value, ".") && (extended[job] || !own) {
			continue
		}
		inherited = inherited || !own
		r.gitlabJob(root, append(layers, general...))
	}
	if !inherited || has(root, "include") { // whose jobs have it too
		r.gitlabJob(root, general)
	}
}

// gitlabLayers adds to all a job and what it extends, the nearest first, each once.
func gitlabLayers(root, job *yaml.Node, all []*yaml.Node) []*yaml.Node {
	if len(all) > 0 && (job == nil || slices.Contains(all, job) || len(all) == mergesMax) {
		return all
	}
	all = append(all, job)
	for _, base := range slices.Backward(each(value(job, "extends"))) {
		all = gitlabLayers(root, value(root, text(base)), all)
	}
	return all
}

// nearest returns what the first of some mappings that has a key says of it.
func nearest(layers []*yaml.Node, key string) *yaml.Node {
	for _, l := range layers {
		if v := value(l, key); v != nil {
			return v
		}
	}
	return nil
}

// gitlabJob reads a job, of which layers are what it is made of, the nearest first.
func (r *reader) gitlabJob(root *yaml.Node, layers []*yaml.Node) {
	var jobs []pipelineJob
	for _, n := range items(value(nearest(layers, "parallel"), "matrix")) {
		jobs = append(jobs, r.jobs(n)...)
	}
	depth := 0
	var lookup func(name string) (string, bool)
	lookup = func(name string) (string, bool) {
		for _, l := range layers {
			v := value(l, "variables", name)
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
	if image := nearest(layers, "image"); image != nil {
		one(image)
	}
	services := referenced(root, nearest(layers, "services"))
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
	for _, one := range each(n) {
		file, content, err := r.beside(strings.TrimPrefix(text(cmp.Or(value(one, "local"), one)), "/"))
		if err != nil {
			r.note(one.Line, "what a pipeline of GitLab includes is not followed from here: give the whole pipeline, as glab ci config compile makes it")
			continue
		}
		file.yaml(content, file.gitlab)
	}
}
