package imageset

import (
	"cmp"
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
		r.add(at.Line, one, platform)
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

// expanded is for files with variables in the manner of a shell, which each job of a matrix has
// with other values.
func expanded(lookup func(string) (string, bool), jobs []pipelineJob) func(string) ([]string, error) {
	if len(jobs) == 0 {
		jobs = []pipelineJob{nil}
	}
	return func(s string) (all []string, err error) {
		for _, of := range jobs {
			one, err := expand(s, func(name string) (string, bool) {
				if v, ok := of[name]; ok {
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

// pipelineJob is one of those that a matrix makes: what its variables are. Those of a value that is a
// mapping have names of several parts (os.image).
type pipelineJob map[string]string

// Bounds of matrices: GitHub makes at most 256 jobs of one, and aliases make much of little.
const (
	jobsMax    = 1024
	assignsMax = 1_000_000 // in all files
	assignsTo  = 5         // parts of a name
)

// jobs returns what a matrix makes: each value of each name with each of every other.
func (r *reader) jobs(n *yaml.Node) []pipelineJob {
	all := []pipelineJob{{}}
	for k, v := range pairs(n) {
		values := each(v)
		if len(values) == 0 {
			continue
		}
		if len(all)*len(values) > jobsMax {
			r.fault(k.Line, fmt.Errorf("makes more than %d jobs", jobsMax))
			return all
		}
		var next []pipelineJob
		for _, one := range all {
			for _, v := range values {
				with := maps.Clone(one)
				r.assign(with, k.Value, v, 1)
				next = append(next, with)
			}
		}
		all = next
	}
	return all
}

func (r *reader) assign(to pipelineJob, name string, v *yaml.Node, depth int) {
	if r.assigned++; r.assigned > assignsMax || depth > assignsTo {
		if r.assigned == assignsMax+1 {
			r.fault(v.Line, fmt.Errorf("has more than %d values of variables", assignsMax))
		}
		return
	}
	if s := text(v); s != "" {
		to[name] = s
	}
	for k, part := range pairs(v) {
		r.assign(to, name+"."+k.Value, part, depth+1)
	}
}

// agrees reports whether what both jobs have is the same.
func (j pipelineJob) agrees(other pipelineJob) bool {
	for name, v := range other {
		if mine, ok := j[name]; ok && mine != v {
			return false
		}
	}
	return true
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
		names := r.githubNames(value(job, "strategy", "matrix"), inputs)
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

// githubNames returns how the jobs of a matrix read a name: those that lack one of its variables
// have no such image.
func (r *reader) githubNames(matrix *yaml.Node, inputs map[string][]string) func(string) ([]string, error) {
	jobs := r.githubJobs(matrix)
	return func(s string) (all []string, err error) {
		for _, of := range jobs {
			some, none := replaced(githubExpression, func(name string) []string {
				if key, ok := strings.CutPrefix(name, "matrix."); ok {
					if v, ok := of[key]; ok {
						return []string{v}
					}
					return nil
				}
				return inputs[strings.TrimPrefix(name, "github.event.")]
			})(s)
			all, err = append(all, some...), cmp.Or(err, none)
		}
		if len(all) > 0 {
			return all, nil
		}
		return nil, err
	}
}

// githubJobs returns the jobs of a matrix with those that it excludes and includes.
func (r *reader) githubJobs(matrix *yaml.Node) []pipelineJob {
	plain := &yaml.Node{Kind: yaml.MappingNode}
	for k, v := range pairs(matrix) {
		if k.Value != "include" && k.Value != "exclude" && is(v, yaml.SequenceNode) {
			plain.Content = append(plain.Content, k, v)
		}
	}
	jobs := r.jobs(plain)
	for _, n := range items(value(matrix, "exclude")) {
		for _, not := range r.jobs(n) {
			jobs = slices.DeleteFunc(jobs, func(j pipelineJob) bool { return j.agrees(not) })
		}
	}
	base := len(jobs)
	for _, n := range items(value(matrix, "include")) {
		for _, more := range r.jobs(n) {
			alone := true
			for _, j := range jobs[:base] {
				if j.agrees(more) && len(jobs) < jobsMax {
					both := maps.Clone(j)
					maps.Copy(both, more)
					jobs, alone = append(jobs, both), false
				}
			}
			if alone {
				jobs = append(jobs, more)
			}
		}
	}
	return jobs
}

// githubSteps reads the actions that are images. Others are repositories, not images.
func (r *reader) githubSteps(steps *yaml.Node, names func(string) ([]string, error)) {
	for _, step := range items(steps) {
		uses := value(step, "uses")
		switch action, _, _ := strings.Cut(text(uses), "@"); {
		case strings.HasPrefix(action, "docker://"):
			r.image(uses, names, "")
		case action == "docker/setup-qemu-action":
			r.image(value(step, "with", "image"), names, "")
		case action == "docker/setup-buildx-action":
			options := value(step, "with", "driver-opts")
			for one := range strings.FieldsFuncSeq(text(options), func(c rune) bool { return c == '\n' || c == ',' }) {
				if image, ok := strings.CutPrefix(strings.TrimSpace(one), "image="); ok {
					r.image(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: image, Line: options.Line}, names, "")
				}
			}
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
	var jobs []pipelineJob
	if include := value(root, "matrix", "include"); include != nil {
		for _, n := range items(include) {
			jobs = append(jobs, r.jobs(n)...)
		}
	} else {
		jobs = r.jobs(value(root, "matrix"))
	}
	names := expanded(r.lookup(), jobs)
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
	used := map[*yaml.Node]bool{}
	for called, job := range pairs(value(root, "jobs")) {
		of := r.circleDocker(root, job, r.circleGiven(root, called.Value))
		at := value(job, "executor")
		names, _ := substitute(cmp.Or(text(at), text(value(at, "name"))), circleParameter, of)
		for _, name := range names {
			executor, given := value(root, "executors", name), map[string][]string{}
			for k, v := range pairs(at) {
				given[k.Value], _ = substitute(text(v), circleParameter, of)
			}
			if used[executor] = true; executor != nil {
				r.circleDocker(root, executor, given)
			}
		}
	}
	for _, executor := range items(value(root, "executors")) {
		if !used[executor] {
			r.circleDocker(root, executor, map[string][]string{})
		}
	}
}

// circleDocker reads the containers of a job or an executor with the parameters that it is given, and returns what
// its parameters are.
func (r *reader) circleDocker(root, n *yaml.Node, values map[string][]string) func(name string) []string {
	for _, all := range []*yaml.Node{value(n, "parameters"), value(root, "parameters")} {
		for k, v := range pairs(all) {
			if s := text(value(v, "default")); s != "" && len(values[k.Value]) == 0 {
				values[k.Value] = []string{s}
			}
		}
	}
	of := func(name string) []string { return values[name] }
	for _, container := range items(cmp.Or(value(n, "docker"), value(n, "executor", "docker"))) {
		r.image(container, replaced(circleParameter, of), "", "image")
	}
	return of
}

// circleGiven are the parameters with which workflows call a job.
func (r *reader) circleGiven(root *yaml.Node, called string) map[string][]string {
	all := map[string][]string{}
	for _, workflow := range items(value(root, "workflows")) {
		for _, one := range items(value(workflow, "jobs")) {
			given := value(one, called)
			for _, parameters := range []*yaml.Node{given, value(given, "matrix", "parameters")} {
				for k, v := range pairs(parameters) {
					for _, one := range each(v) {
						if s := text(one); s != "" && len(all[k.Value]) <= variantsMax {
							all[k.Value] = append(all[k.Value], s)
						}
					}
				}
			}
		}
	}
	return all
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
		name := text(value(step, "name"))
		return !strings.ContainsAny(name, "/:") && !has(step, "entrypoint") && !has(step, "args") || strings.Contains(name, " ") ||
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
	return is(value(root, "features"), yaml.MappingNode) && (slices.ContainsFunc(items(value(root, "features")), func(n *yaml.Node) bool { return has(n, "resolved", "integrity") }) || has(root, "image") || has(root, "build") || has(root, "dockerComposeFile")) ||
		has(root, "image") && (has(root, "customizations") || has(root, "remoteUser") || has(root, "postCreateCommand"))
}

func (r *reader) devcontainer(root *yaml.Node) {
	r.image(value(root, "image"), plain, "")
	if file := value(root, "build", "dockerfile"); file != nil {
		r.note(file.Line, fmt.Sprintf("the container is built from %s, which is a file of its own", clip(text(file))))
	}
	for key, v := range pairs(value(root, "features")) {
		if resolved := value(v, "resolved"); text(resolved) != "" { // of devcontainer-lock.json
			r.image(resolved, plain, "")
		} else if s := key.Value; strings.Contains(s, "/") && !strings.HasPrefix(s, ".") && !strings.HasPrefix(s, "https://") {
			r.image(key, plain, "")
		}
	}
}
