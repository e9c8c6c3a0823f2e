package imageset

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Files of systems that run pipelines. Each has places of its own for images, so that one that
// is not understood is not passed over: an image is a text, or a mapping that names one.

// image takes in what stands where an image belongs: a name, or a mapping with one under one of
// the keys.
func (r *reader) image(n *yaml.Node, names func(s string) ([]string, error), platform string, keys ...string) {
	at := n
	if is(n, yaml.MappingNode) {
		at = nil
		for _, key := range keys {
			if v := value(n, key); at == nil && v != nil {
				at = v
			}
		}
		if at == nil {
			r.fault(n.Line, fmt.Errorf("an image without %s", strings.Join(keys, " or ")))
			return
		}
	}
	switch {
	case n == nil || n.ShortTag() == "!!null" || is(at, yaml.ScalarNode) && text(at) == "":
		return
	case !is(at, yaml.ScalarNode):
		r.fault(at.Line, errors.New("is no name of an image"))
		return
	}
	all, err := names(text(at))
	if err != nil {
		r.fault(at.Line, err)
	}
	for _, one := range all {
		if platform == "" {
			r.add(at.Line, one)
		} else {
			r.add(at.Line, one, platform)
		}
	}
}

// plain is for files without variables.
func plain(s string) ([]string, error) {
	if variable.MatchString(s) {
		return nil, fmt.Errorf("%q holds a variable, which has no value here: give the file in which it is replaced", clip(s))
	}
	return []string{s}, nil
}

// replaced is for files whose variables a pattern finds.
func replaced(pattern *regexp.Regexp, values func(name string) []string) func(string) ([]string, error) {
	return func(s string) (names []string, err error) {
		all, err := substitute(s, pattern, values)
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			if _, err = plain(one); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
}

// expanded is for files with variables in the manner of a shell, some of which have several
// values, one for each job of a matrix.
func expanded(lookup func(string) (string, bool), several map[string][]string) func(string) ([]string, error) {
	return func(s string) ([]string, error) {
		todo := []map[string]string{{}}
		for _, name := range slices.Sorted(maps.Keys(several)) {
			if !strings.Contains(s, name) {
				continue
			}
			var next []map[string]string
			for _, one := range todo {
				for _, v := range several[name] {
					with := maps.Clone(one)
					with[name] = v
					next = append(next, with)
				}
			}
			if todo = next; len(todo) > variantsMax {
				return nil, fmt.Errorf("%q stands for more than %d names", clip(s), variantsMax)
			}
		}
		var all []string
		for _, set := range todo {
			one, err := expand(s, func(name string) (string, bool) {
				if v, ok := set[name]; ok {
					return v, true
				}
				return lookup(name)
			})
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
		return all, nil
	}
}

// matrix gathers the values of a mapping from names to a value or to several, or of a list
// of such mappings.
func matrix(n *yaml.Node, all map[string][]string) {
	if is(n, yaml.SequenceNode) {
		for _, one := range items(n) {
			matrix(one, all)
		}
		return
	}
	for k, v := range pairs(n) {
		values := []*yaml.Node{v}
		if is(v, yaml.SequenceNode) {
			values = items(v)
		}
		for _, one := range values {
			if s := text(one); s != "" && !slices.Contains(all[k.Value], s) && len(all[k.Value]) < variantsMax {
				all[k.Value] = append(all[k.Value], s)
			}
		}
	}
}

// GitHub Actions, and what copies it: Gitea and Forgejo.

func isGitHub(root *yaml.Node) bool {
	jobs := value(root, "jobs")
	if !is(jobs, yaml.MappingNode) {
		return false
	}
	if has(root, "on") {
		return true
	}
	return slices.ContainsFunc(items(jobs), func(job *yaml.Node) bool { return has(job, "runs-on") || has(job, "uses") })
}

var githubExpression = regexp.MustCompile(`\$\{\{ *([\w.-]+) *\}\}`)

func (r *reader) github(root *yaml.Node) {
	inputs := map[string][]string{}
	for _, event := range items(value(root, "on")) {
		for k, v := range pairs(value(event, "inputs")) {
			if s := text(value(v, "default")); s != "" {
				inputs["inputs."+k.Value] = append(inputs["inputs."+k.Value], s)
			}
		}
	}
	for _, job := range items(value(root, "jobs")) {
		chosen := map[string][]string{}
		strategy := value(job, "strategy", "matrix")
		for k, v := range pairs(strategy) {
			switch k.Value {
			case "include":
				matrix(v, chosen)
			case "exclude":
			default:
				if is(v, yaml.SequenceNode) {
					matrix(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{k, v}}, chosen)
				}
			}
		}
		names := replaced(githubExpression, func(name string) []string {
			if key, ok := strings.CutPrefix(name, "matrix."); ok {
				return chosen[key]
			}
			return inputs[name]
		})
		r.image(value(job, "container"), names, "", "image")
		for _, service := range items(value(job, "services")) {
			r.image(service, names, "", "image")
		}
		if uses := value(job, "uses"); uses != nil {
			r.note(uses.Line, fmt.Sprintf("workflow %q is a file of its own, which is not followed", clip(text(uses))))
		}
		r.githubSteps(value(job, "steps"), names)
	}
}

// githubSteps reads the actions that are images. Others are repositories, not images.
func (r *reader) githubSteps(steps *yaml.Node, names func(string) ([]string, error)) {
	for _, step := range items(steps) {
		if uses := value(step, "uses"); strings.HasPrefix(text(uses), "docker://") {
			r.image(uses, names, "")
		}
	}
}

// isAction is of the description of an action.
func isAction(root *yaml.Node) bool { return has(value(root, "runs"), "using") }

func (r *reader) action(root *yaml.Node) {
	runs := value(root, "runs")
	image := value(runs, "image")
	if strings.HasPrefix(text(image), "docker://") {
		r.image(image, plain, "")
	} else if image != nil {
		r.note(image.Line, fmt.Sprintf("the action is built from %s, which is a file of its own", clip(text(image))))
	}
	r.githubSteps(value(runs, "steps"), plain)
}

// GitLab CI.

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

// gitlab reads the images and services of all jobs, those of hidden ones too.
func (r *reader) gitlab(root *yaml.Node) {
	r.gitlabIncludes(value(root, "include"))
	r.gitlabJob(root, root, nil)
	for key, job := range pairs(root) {
		if key.Value == "default" || !slices.Contains(gitlabWords(), key.Value) {
			several := map[string][]string{}
			matrix(value(job, "parallel", "matrix"), several)
			r.gitlabJob(root, job, several)
			if include := value(job, "trigger", "include"); include != nil {
				r.gitlabIncludes(include)
			}
		}
	}
}

func (r *reader) gitlabJob(root, job *yaml.Node, several map[string][]string) {
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
	names := expanded(lookup, several)
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

// Woodpecker and Drone.

func isDrone(root *yaml.Node) bool {
	switch text(value(root, "kind")) {
	case "pipeline":
		return !has(root, "apiVersion")
	case "secret", "signature", "template", "cron":
		return has(root, "kind") && !has(root, "apiVersion") && !has(root, "metadata")
	}
	return false
}

func isWoodpecker(root *yaml.Node) bool {
	if has(root, "pool") || has(root, "jobs") || has(root, "stages") {
		return false
	}
	for _, key := range []string{"steps", "pipeline"} {
		if slices.ContainsFunc(items(value(root, key)), func(step *yaml.Node) bool { return has(step, "image") }) {
			return true
		}
	}
	return false
}

// steps reads what runs in the containers of a pipeline.
func (r *reader) steps(root *yaml.Node) {
	several := map[string][]string{}
	choices := value(root, "matrix")
	if include := value(choices, "include"); include != nil {
		choices = include
	}
	matrix(choices, several)
	names := expanded(r.lookup(), several)
	platform := ""
	if p := value(root, "platform"); is(p, yaml.MappingNode) && has(p, "arch") {
		platform = strings.Trim(text(value(p, "os"))+"/"+text(value(p, "arch")), "/")
	} else if is(p, yaml.ScalarNode) {
		platform = text(p)
	}
	for _, key := range []string{"clone", "steps", "pipeline", "services"} {
		for _, step := range items(value(root, key)) {
			if image := value(step, "image"); image != nil {
				r.image(image, names, platform)
			}
		}
	}
}

// CircleCI.

func isCircle(root *yaml.Node) bool {
	return is(value(root, "jobs"), yaml.MappingNode) && has(root, "version") && (has(root, "workflows") || has(root, "orbs") || has(root, "executors") ||
		slices.ContainsFunc(items(value(root, "jobs")), func(job *yaml.Node) bool { return has(job, "docker") || has(job, "machine") }))
}

var circleParameter = regexp.MustCompile(`<< *(?:pipeline\.)?parameters\.([\w-]+) *>>`)

func (r *reader) circle(root *yaml.Node) {
	if orbs := value(root, "orbs"); orbs != nil {
		r.note(orbs.Line, "the images of orbs are not in this file: give what circleci config process makes")
	}
	for _, key := range []string{"executors", "jobs"} {
		for _, job := range items(value(root, key)) {
			values := map[string][]string{}
			for _, all := range []*yaml.Node{value(job, "parameters"), value(root, "parameters")} {
				for k, v := range pairs(all) {
					if s := text(value(v, "default")); s != "" && len(values[k.Value]) == 0 {
						values[k.Value] = []string{s}
					}
				}
			}
			names := replaced(circleParameter, func(name string) []string { return values[name] })
			docker := value(job, "docker")
			if docker == nil {
				docker = value(job, "executor", "docker")
			}
			for _, container := range items(docker) {
				r.image(container, names, "", "image")
			}
		}
	}
}

// Bitbucket Pipelines.

func isBitbucket(root *yaml.Node) bool {
	p := value(root, "pipelines")
	return has(p, "default") || has(p, "branches") || has(p, "custom") || has(p, "pull-requests") || has(p, "tags")
}

func (r *reader) bitbucket(root *yaml.Node) {
	names := expanded(r.lookup(), nil)
	r.image(value(root, "image"), names, "", "name")
	for _, service := range items(value(root, "definitions", "services")) {
		if image := value(service, "image"); image != nil {
			r.image(image, names, "", "name")
		}
	}
	eachPair(func(key, v *yaml.Node) bool {
		switch {
		case key.Value == "image":
			r.image(v, names, "", "name")
			return false
		case key.Value == "pipe" && strings.HasPrefix(text(v), "docker://"):
			r.image(v, names, "")
		case key.Value == "pipe" && text(v) != "":
			r.note(v.Line, fmt.Sprintf("pipe %q is an image of which the repository of the pipe says the name", clip(text(v))))
		}
		return true
	}, value(root, "definitions", "steps"), value(root, "pipelines"))
}

// Google Cloud Build: what a step is called is its image.

func isCloudBuild(root *yaml.Node) bool {
	steps := items(value(root, "steps"))
	return len(steps) > 0 && !has(root, "jobs") && !has(root, "runs") && !slices.ContainsFunc(steps, func(step *yaml.Node) bool {
		return !strings.Contains(text(value(step, "name")), "/") && !has(step, "entrypoint") && !has(step, "args") ||
			slices.ContainsFunc([]string{"image", "uses", "task", "bash", "commands", "command", "plugins"}, func(key string) bool { return has(step, key) })
	})
}

func (r *reader) cloudBuild(root *yaml.Node) {
	values := settings(value(root, "substitutions"), r.lookup())
	names := expanded(func(name string) (string, bool) {
		if v, ok := values[name]; ok {
			return v, true
		}
		return r.lookup()(name)
	}, nil)
	for _, step := range items(value(root, "steps")) {
		r.image(value(step, "name"), names, "")
	}
}

// Azure Pipelines.

func isAzure(root *yaml.Node) bool {
	return !has(root, "kind") && (has(root, "pool") || has(root, "trigger") && (has(root, "steps") || has(root, "jobs") || has(root, "stages") || has(root, "resources")) ||
		len(items(value(root, "resources", "containers"))) > 0 || is(value(root, "stages"), yaml.SequenceNode) && !scalars(value(root, "stages")) ||
		is(value(root, "jobs"), yaml.SequenceNode))
}

func (r *reader) azure(root *yaml.Node) {
	aliases := map[string]bool{}
	for _, c := range items(value(root, "resources", "containers")) {
		aliases[text(value(c, "container"))] = true
		r.image(c, plain, "", "image")
	}
	eachPair(func(key, v *yaml.Node) bool {
		switch {
		case key.Value == "resources", key.Value == "inputs", key.Value == "variables":
			return false
		case key.Value == "container" && !aliases[text(v)]:
			if text(value(v, "alias")) == "" || has(v, "image") {
				r.image(v, plain, "", "image")
			}
			return false
		case key.Value == "services":
			for _, service := range items(v) {
				if !aliases[text(service)] {
					r.image(service, plain, "", "image")
				}
			}
			return false
		case key.Value == "template" && text(v) != "":
			r.note(v.Line, fmt.Sprintf("template %q is a file of its own, which is not followed", clip(text(v))))
		}
		return true
	}, root)
}

// Development containers (containers.dev): features are artifacts in registries.

func isDevcontainer(root *yaml.Node) bool {
	return is(value(root, "features"), yaml.MappingNode) && (has(root, "image") || has(root, "build") || has(root, "dockerComposeFile")) ||
		has(root, "image") && (has(root, "customizations") || has(root, "remoteUser") || has(root, "postCreateCommand"))
}

func (r *reader) devcontainer(root *yaml.Node) {
	r.image(value(root, "image"), plain, "")
	if file := value(root, "build", "dockerfile"); file != nil {
		r.note(file.Line, fmt.Sprintf("the container is built from %s, which is a file of its own", clip(text(file))))
	}
	for key := range pairs(value(root, "features")) {
		if s := key.Value; strings.Contains(s, "/") && !strings.HasPrefix(s, ".") && !strings.HasPrefix(s, "https://") {
			r.image(key, plain, "")
		}
	}
}
