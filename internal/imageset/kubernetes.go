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

// objects looks through a document for images: an object of Kubernetes, whatever its kind, or
// what is in no format that is known. declared says that it is what it says it is; values of
// Helm charts say nothing, and name images in parts of which the chart makes whole ones.
func (r *reader) objects(root *yaml.Node, declared bool) {
	w := &yamlWalk{r: r, seen: map[*yaml.Node]bool{}, declared: declared || r.o.Format == Kubernetes}
	w.walk(root, 0)
}

// yamlWalk looks for images in a document. Aliases make a document a graph: each node is
// looked at once, so that a small document cannot cause much work.
type yamlWalk struct {
	r        *reader
	seen     map[*yaml.Node]bool
	declared bool
	refused  bool                // what is there was said to be for a chart
	params   map[string][]string // parameters of the object with their values and defaults
}

// yamlDepth bounds the nesting of a document.
const yamlDepth = 200

func (w *yamlWalk) walk(n *yaml.Node, depth int) {
	n = follow(n)
	if n == nil || w.seen[n] {
		return
	}
	w.seen[n] = true
	if depth > yamlDepth {
		w.r.fault(n.Line, fmt.Errorf("is nested more than %d deep", yamlDepth))
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		w.mapping(n, depth)
	case yaml.SequenceNode, yaml.DocumentNode:
		for _, child := range n.Content {
			w.walk(child, depth+1)
		}
	}
}

func (w *yamlWalk) mapping(n *yaml.Node, depth int) {
	if isObject(n) {
		outer := *w
		defer func() { w.declared, w.params = outer.declared, outer.params }()
		w.declared, w.params = true, w.parameters(n)
		for name, values := range outer.params {
			if len(w.params[name]) == 0 {
				w.params[name] = values
			}
		}
		if w.special(n) {
			return
		}
	}
	w.parted(n)
	if from := value(n, "name"); text(value(n, "kind")) == "DockerImage" && text(from) != "" { // of OpenShift
		w.named(from)
	}
	if repository := value(n, "repository"); !w.declared && text(repository) != "" && !strings.Contains(repository.Value, "://") && (has(n, "tag") || has(n, "registry")) {
		w.values(repository)
	}
	// What a cluster has seen is no more than what it was asked for, by other names.
	observed := has(n, "status") && (has(n, "metadata") || has(n, "spec"))
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i].Value; !(key == "status" && observed) && !(w.declared && slices.Contains(labels, key)) {
			w.pair(n, key, follow(n.Content[i+1]), depth)
		}
	}
}

// labels are mappings with keys that their users make up.
var labels = []string{"labels", "matchLabels", "nodeSelector"}

// parameters are what an object says of its own parameters (Tekton's params, Argo's and
// OpenShift's parameters), by their names.
func (w *yamlWalk) parameters(n *yaml.Node) map[string][]string {
	all := map[string][]string{}
	eachPair(func(k, v *yaml.Node) bool {
		if (k.Value == "params" || k.Value == "parameters") && is(v, yaml.SequenceNode) {
			for _, p := range items(v) {
				if name := text(value(p, "name")); name != "" {
					w.parameter(all, name, value(p, "value"))
					w.parameter(all, name, value(p, "default"))
				}
			}
		}
		return true
	}, n)
	return all
}

// parameter adds the values of a parameter: one, several of a matrix, or the parts of an object.
func (w *yamlWalk) parameter(all map[string][]string, name string, v *yaml.Node) {
	for _, one := range each(v) {
		of := pipelineJob{}
		w.r.assign(of, name, one, 1)
		for name, s := range of {
			if !slices.Contains(all[name], s) && len(all[name]) < variantsMax {
				all[name] = append(all[name], s)
			}
		}
	}
}

// special reads objects that name images in a way of their own, or none.
func (w *yamlWalk) special(n *yaml.Node) bool {
	group, _, _ := strings.Cut(text(value(n, "apiVersion")), "/")
	kind := text(value(n, "kind"))
	elsewhere := func(command string) bool {
		w.r.note(n.Line, fmt.Sprintf("%s %q stands for objects that are not in this file: give what %s makes", kind, clip(text(value(n, "metadata", "name"))), command))
		return true
	}
	switch {
	case group == "content.hauler.cattle.io":
		w.hauler(n, kind)
		return true
	case group == "mirror.openshift.io" && kind == "ImageSetConfiguration":
		w.ocMirror(n)
		return true
	case group == "kubeadm.k8s.io":
		return elsewhere("kubeadm config images list")
	case group == "install.istio.io", group == "sailoperator.io":
		return elsewhere("istioctl manifest generate")
	case group == "pkg.crossplane.io":
		if from := value(n, "spec", "package"); from != nil {
			w.named(from)
		}
		return true
	case group == "extensions.istio.io" && kind == "WasmPlugin":
		if url := value(n, "spec", "url"); !strings.Contains(text(url), "://") || strings.HasPrefix(text(url), "oci://") {
			w.named(url)
		}
		return true
	case group == "upgrade.cattle.io" && kind == "Plan":
		spec := value(n, "spec")
		if !has(spec, "version") {
			w.r.fault(n.Line, errors.New("the version of a Plan, which is the tag of its images, is what its channel tells: name it"))
			return true
		}
		for _, key := range []string{"prepare", "upgrade"} {
			w.versioned(value(spec, key, "image"), text(value(spec, "version")))
		}
		return true
	case group == "k0s.k0sproject.io":
		eachPair(func(_, v *yaml.Node) bool {
			w.versioned(value(v, "image"), text(value(v, "version")))
			return true
		}, value(n, "spec", "images"))
		return true
	case kind == "BuildConfig":
		w.build(n)
	case strings.HasSuffix(group, "kyverno.io"), strings.HasSuffix(group, "gatekeeper.sh"), group == "policy.sigstore.dev":
		return true // patterns of images that others may use
	case kind == "ConfigMap" && group == "v1", kind == "Secret" && group == "v1", kind == "CustomResourceDefinition":
		return true // texts for programs, and descriptions of fields
	case group == "skaffold":
		w.r.fault(n.Line, errors.New("is a configuration of skaffold, whose images are built: give what skaffold render makes"))
		return true
	case group == "kustomize.config.k8s.io":
		w.r.kustomization(n)
		return true
	case group == "argoproj.io" && (kind == "Application" || kind == "ApplicationSet"):
		return elsewhere("argocd app manifests")
	case group == "helm.toolkit.fluxcd.io", group == "helm.cattle.io":
		return elsewhere("helm template")
	case group == "kustomize.toolkit.fluxcd.io":
		return elsewhere("flux build kustomization")
	case group == "image.toolkit.fluxcd.io":
		return true // what is looked at for new tags
	case group == "source.toolkit.fluxcd.io" && kind == "OCIRepository":
		w.fluxSource(value(n, "spec"))
		return true
	}
	return false
}

// versioned takes in an image whose tag is the version that stands beside it.
func (w *yamlWalk) versioned(image *yaml.Node, version string) {
	if ref, err := w.r.o.Registries.Reference(text(image)); err == nil && ref.Tag == "" && !ref.HasDigest() && version != "" {
		w.joined(image, text(image), strings.ReplaceAll(version, "+", "-"), "")
	} else if image != nil {
		w.named(image)
	}
}

// build reads the Dockerfile that a BuildConfig of OpenShift holds, and takes away where its
// image goes.
func (w *yamlWalk) build(n *yaml.Node) {
	w.seen[value(n, "spec", "output")] = true
	if inline := value(n, "spec", "source", "dockerfile"); text(inline) != "" {
		w.r.dockerfile([]byte(inline.Value), building{line: textLine(inline)})
	}
}

// fluxSource reads the artifact of an OCIRepository of Flux.
func (w *yamlWalk) fluxSource(spec *yaml.Node) {
	url, ref := value(spec, "url"), value(spec, "ref")
	if url == nil {
		return
	}
	if has(ref, "semver") && !has(ref, "digest") {
		w.r.fault(url.Line, fmt.Errorf("%q is chosen among its tags by semver: name the tag", clip(text(url))))
		return
	}
	w.joined(url, text(url), text(value(ref, "tag")), text(value(ref, "digest")))
}

// kustomization reads what a kustomization puts in place of other images.
func (r *reader) kustomization(root *yaml.Node) {
	for _, key := range []string{"resources", "bases", "components", "helmCharts", "patches", "patchesStrategicMerge", "generators", "transformers"} {
		if all := value(root, key); len(items(all)) > 0 {
			r.note(all.Line, "the files of a kustomization are not followed: give what kubectl kustomize makes")
			break
		}
	}
	for _, image := range items(value(root, "images")) {
		at := cmp.Or(value(image, "newName"), value(image, "name"))
		tag, digest := text(value(image, "newTag")), text(value(image, "digest"))
		switch {
		case text(at) == "":
			r.fault(image.Line, errors.New("an image of a kustomization has no name"))
		case tag == "" && digest == "" && has(image, "newName"):
			r.fault(at.Line, fmt.Errorf("image %q has neither newTag nor digest here: give what kubectl kustomize makes", clip(text(at))))
		case tag != "" || digest != "":
			(&yamlWalk{r: r, declared: true}).joined(at, text(at), tag, digest)
		}
	}
}

func isKustomization(root *yaml.Node) bool {
	return !has(root, "apiVersion") && !has(root, "kind") && has(root, "resources") && (has(root, "images") || has(root, "namespace") || has(root, "patches")) ||
		strings.HasPrefix(text(value(root, "kind")), "Kustomization")
}

var (
	imageKey  = regexp.MustCompile(`(?i)image(name|ref|reference|ur[il])?$|^container$`)
	imagesKey = regexp.MustCompile(`(?i)images$|^repo(tags|digests)$`) // the latter of docker, podman and crictl
)

// several looks at what is called images: names, or images in parts.
func (w *yamlWalk) several(v *yaml.Node, depth int) {
	if depth > yamlDepth || w.seen[v] {
		return
	}
	w.seen[v] = true
	for _, one := range items(v) {
		name := value(one, "name")
		switch {
		case is(one, yaml.ScalarNode):
			if ref, err := w.r.o.Registries.Reference(text(one)); err == nil && ref.Tag == "" && !ref.HasDigest() && one.ShortTag() == "!!str" {
				w.r.note(one.Line, fmt.Sprintf("%q has neither tag nor digest, and is not taken for an image", clip(text(one))))
			}
			w.suspected(one)
		case is(one, yaml.MappingNode) && (has(one, "repository") || has(one, "reference")) && w.split(one, false):
		case is(name, yaml.ScalarNode) && !has(one, "image"):
			w.suspected(name)
			w.walk(one, depth+1)
		default:
			w.walk(one, depth+1)
		}
	}
}

// pair looks at one key of the mapping n.
func (w *yamlWalk) pair(n *yaml.Node, key string, v *yaml.Node, depth int) {
	if v == nil {
		return
	}
	exact := key == "image"
	switch {
	case is(v, yaml.ScalarNode) && w.declared && located.MatchString(v.Value):
		w.suspected(v)
	case is(v, yaml.ScalarNode) && exact:
		w.whole(n, v)
	case is(v, yaml.ScalarNode) && imageKey.MatchString(key):
		w.suspected(v)
	case is(v, yaml.ScalarNode) && key == "bundle" && has(n, "name"): // of Tekton
		w.named(v)
	case is(v, yaml.ScalarNode) && key == "manifest" && w.declared && strings.Contains(v.Value, "\n"): // of Argo
		w.embedded(v)
	case is(v, yaml.ScalarNode) && key == "resolver" && v.Value == "bundles": // of Tekton
		w.bundle(n)
	case is(v, yaml.SequenceNode) && w.declared && (key == "args" || key == "command"):
		w.flags(v)
	case is(v, yaml.SequenceNode) && w.declared && key == "env":
		w.environment(v)
		w.walk(v, depth+1)
	case strings.EqualFold(key, "repoDigests") && len(items(cmp.Or(value(n, "repoTags"), value(n, "RepoTags")))) > 0: // the same once more
	case imagesKey.MatchString(key):
		w.several(v, depth)
	case is(v, yaml.MappingNode) && imageKey.MatchString(key):
		if !w.split(v, exact) {
			w.walk(v, depth+1)
		}
	case exact && is(v, yaml.SequenceNode):
		for _, one := range items(v) {
			if is(one, yaml.ScalarNode) {
				w.named(one)
			} else {
				w.walk(one, depth+1)
			}
		}
	default:
		w.walk(v, depth+1)
	}
}

// bundle takes in the bundle that a resolver of Tekton reads.
func (w *yamlWalk) bundle(n *yaml.Node) {
	for _, p := range items(value(n, "params")) {
		if v := value(p, "value"); text(value(p, "name")) == "bundle" && text(v) != "" {
			w.named(v)
		}
	}
}

// embedded reads an object that is the text of another's field.
func (w *yamlWalk) embedded(v *yaml.Node) {
	inner := &reader{name: w.r.name, o: w.r.o, found: w.r.found, line: w.r.line + textLine(v)}
	inner.yaml([]byte(v.Value), func(root *yaml.Node) {
		(&yamlWalk{r: inner, seen: map[*yaml.Node]bool{}, declared: true, params: w.params}).walk(root, 0)
	})
}

// whole takes in the value of a key that is called image. What the operators of some kinds
// want beside it belongs to it: repository, tag, digest.
func (w *yamlWalk) whole(n, v *yaml.Node) {
	name := text(v)
	ref, err := w.r.o.Registries.Reference(name)
	tag := part(n, "tag", "imageTag")
	digest := checksum(part(n, "digest", "imageDigest", "sha", "imageSha"))
	// Operators of NVIDIA, for one: repository nvcr.io/nvidia, image driver, version 535.
	if repository := part(n, "repository"); repository != "" && name != "" && err == nil && !strings.Contains(name, "/") {
		name = repository + "/" + name
		tag = cmp.Or(tag, part(n, "version"))
	}
	switch {
	case name == "":
		return
	case err == nil && (ref.Tag != "" || ref.HasDigest()):
		tag = ""
		if ref.HasDigest() {
			digest = ""
		}
	}
	if tag == "" && digest == "" && name == text(v) {
		w.named(v)
		return
	}
	if !w.declared {
		w.values(v)
		return
	}
	w.joined(v, name, tag, digest)
}

// part returns the first of some keys that has a text.
func part(n *yaml.Node, keys ...string) string {
	for _, key := range keys {
		if s := text(value(n, key)); s != "" {
			return s
		}
	}
	return ""
}

// checksum returns a digest of which only the digits are written, as a digest.
func checksum(s string) string {
	if s == "" || strings.Contains(s, ":") {
		return s
	}
	return "sha256:" + s
}

// values says that a document is for a chart.
func (w *yamlWalk) values(at *yaml.Node) {
	if !w.refused {
		w.refused = true
		w.r.fault(at.Line, errors.New("an image in parts, as in the values of a Helm chart, which alone makes whole names of them: give what it makes, as by helm template CHART -f FILE | forebay prefetch -f -"))
	}
}

// named takes in a name.
func (w *yamlWalk) named(v *yaml.Node) {
	s := text(v)
	if s == "" || v.ShortTag() == "!!bool" {
		return
	}
	if s == "auto" && w.declared { // of gateways
		w.r.note(v.Line, "auto stands for the image that Istio's injector puts there: name that one too")
		return
	}
	if idOnly.MatchString(s) {
		return // what a runtime calls an image on its machine, which nobody can pull
	}
	for _, one := range w.variants(v, s) {
		w.r.add(v.Line, one)
	}
}

var (
	idOnly = regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}$`)
	// What stands for parameters: $(params.name) and $(tt.params.name) of Tekton, {{inputs.parameters.name}} of Argo,
	// ${NAME} of templates of OpenShift.
	parameter = regexp.MustCompile(`\$\((?:inputs\.|tt\.)?params(?:\.|\[["'])([\w.-]+?)(?:["']\])?\)|\{\{ *(?:workflow|inputs)\.parameters\.([\w.-]+) *\}\}|\$\{(\w+)\}`)
	variable  = regexp.MustCompile(`\{\{|\$[({]|<<|\$\[\[`)
)

// variants returns the names that a text stands for.
func (w *yamlWalk) variants(at *yaml.Node, s string) []string {
	all, err := substitute(s, parameter, func(name string) []string { return w.params[name] })
	switch {
	case err != nil:
		w.r.fault(at.Line, err)
		return nil
	case slices.ContainsFunc(all, func(s string) bool { return variable.MatchString(s) }):
		w.r.fault(at.Line, fmt.Errorf("%q is a template: give what it makes, as by helm template", clip(s)))
		return nil
	}
	return all
}

// variantsMax bounds what one text stands for.
const variantsMax = 256

// substitute replaces what a pattern finds by each of the values that the group which
// matched has. What has none stays.
func substitute(s string, pattern *regexp.Regexp, values func(name string) []string) ([]string, error) {
	done, todo := []string{}, []string{s}
	for from := 0; len(todo) > 0; from++ {
		if len(done)+len(todo) > variantsMax || from > variantsMax*10 {
			return nil, fmt.Errorf("%q stands for more than %d names", clip(s), variantsMax)
		}
		one := todo[0]
		todo = todo[1:]
		replaced := false
		for _, m := range pattern.FindAllStringSubmatchIndex(one, -1) {
			name := ""
			for g := 2; g+1 < len(m); g += 2 {
				if m[g] >= 0 {
					name = one[m[g]:m[g+1]]
				}
			}
			all := values(name)
			if len(all) == 0 || len(one) > expandMax {
				continue
			}
			for _, v := range all {
				todo = append(todo, one[:m[0]]+v+one[m[1]:])
			}
			replaced = true
			break
		}
		if !replaced {
			done = append(done, one)
		}
	}
	return done, nil
}

// suspected adds the value of a key such as sidecarImage, which operators have, if it can
// only be the name of an image: other keys with such names hold pictures.
func (w *yamlWalk) suspected(v *yaml.Node) {
	ref, err := w.r.o.Registries.Reference(text(v))
	if err != nil || ref.Tag == "" && !ref.HasDigest() {
		return
	}
	w.named(v)
}

// split takes in an image in parts, as many operators have it: registry, repository, tag,
// digest; or as a volume of a pod has it: reference.
func (w *yamlWalk) split(n *yaml.Node, exact bool) bool {
	if whole := value(n, "reference"); text(whole) != "" {
		w.named(whole)
		return true
	}
	at := cmp.Or(value(n, "repository"), value(n, "repo"))
	if text(at) == "" && exact {
		at = value(n, "name")
	}
	if url := value(n, "url"); at == nil && text(url) != "" { // of Render
		w.suspected(url)
		return false
	}
	name := text(at)
	if name == "" {
		return false
	}
	if !w.declared {
		w.values(at)
		return true
	}
	tag, digest := part(n, "tag"), checksum(part(n, "digest", "sha"))
	ref, err := w.r.o.Registries.Reference(name)
	if tag == "" && digest == "" && (err != nil || ref.Tag == "" && !ref.HasDigest()) {
		w.r.fault(at.Line, fmt.Errorf("image %q has neither tag nor digest here, so that its chart decides: give what helm template makes", clip(name)))
		return true
	}
	if host := part(n, "registry"); host != "" {
		name = host + "/" + name
	}
	w.joined(at, name, tag, digest)
	return true
}

// joined takes in an image of which the parts are known.
func (w *yamlWalk) joined(at *yaml.Node, name, tag, digest string) {
	if tag != "" {
		name += ":" + tag
	}
	if digest != "" {
		name += "@" + digest
	}
	w.named(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name, Line: at.Line})
}

// parted takes in an image in parts whose keys say that they are parts of one.
func (w *yamlWalk) parted(n *yaml.Node) {
	at, tag := cmp.Or(value(n, "imageRepository"), value(n, "imageName")), part(n, "imageTag")
	switch name := text(at); {
	case !w.declared && text(value(n, "hub")) != "" && has(n, "tag"): // of Istio
		w.values(value(n, "hub"))
	case name == "" || tag == "":
	case !w.declared:
		w.values(at)
	default:
		if host := part(n, "imageRegistry"); host != "" {
			name = host + "/" + name
		}
		w.joined(at, name, tag, "")
	}
}

// relatedPrefix is what operators call the variables that name the images they start
// (Operator Lifecycle Manager, "relatedImages").
const relatedPrefix = "RELATED_IMAGE_"

// environment takes in variables that name images, which a program that has them starts.
func (w *yamlWalk) environment(env *yaml.Node) {
	for _, one := range items(env) {
		name, v := text(value(one, "name")), value(one, "value")
		switch {
		case text(v) == "":
		case strings.HasPrefix(name, relatedPrefix):
			w.named(v)
		case strings.HasSuffix(name, "_IMAGE"):
			w.suspected(v)
		case strings.HasSuffix(name, "_IMAGES"): // of Strimzi: VERSION=NAME a line
			for _, one := range strings.Fields(v.Value) {
				w.suspected(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: one[strings.IndexByte(one, '=')+1:], Line: v.Line})
			}
		}
	}
}

var (
	// imageFlag is an argument such as --acme-http01-solver-image=NAME, or the first of two.
	imageFlag = regexp.MustCompile(`^--?[\w.-]*image(?:=(\S+))?$`)
	// hostFlag is an argument whose value has the name of a host before the first slash.
	hostFlag = regexp.MustCompile(`^--?[\w.-]+=([\w-]+(?:\.[\w-]+)+(?::\d+)?/\S+)$`)
	// located is a name with a scheme, whatever the key.
	located = regexp.MustCompile(`^(oci|docker)://`)
)

// flags takes in what the arguments of a program name, such as the images that an operator
// starts. Of what is in no registry that is configured it takes none: it may be anything.
func (w *yamlWalk) flags(all *yaml.Node) {
	next := false
	for _, one := range items(all) {
		s := text(one)
		m := imageFlag.FindStringSubmatch(s)
		if m == nil {
			m = hostFlag.FindStringSubmatch(s)
		}
		switch {
		case m != nil && m[1] != "":
			w.suspected(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: m[1], Line: one.Line})
		case next:
			w.suspected(one)
		}
		next = m != nil && m[1] == ""
	}
}
