package imageset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// yaml reads all documents of a text.
func (r *reader) yaml(text []byte, compose bool) {
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		r.syntax(err)
		return
	}
	for {
		var doc yaml.Node
		if err := loader.Load(&doc); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			r.syntax(err)
			return
		}
		root := &doc
		if root.Kind == yaml.DocumentNode {
			if len(root.Content) == 0 {
				continue
			}
			root = root.Content[0]
		}
		if compose {
			r.compose(root)
			continue
		}
		r.document(root)
	}
}

func (r *reader) syntax(err error) {
	line, message := 0, err.Error()
	var fault *yaml.LoadError
	if errors.As(err, &fault) {
		line, message = fault.Mark.Line, fault.Message
	}
	r.fault(line, fmt.Errorf("not YAML: %s", clip(message)))
}

// document reads one object of Kubernetes, or any other document.
func (r *reader) document(root *yaml.Node) {
	w := &yamlWalk{r: r, seen: map[*yaml.Node]bool{}}
	if root.Kind == yaml.SequenceNode && scalars(root) {
		for _, n := range root.Content { // a list of names in YAML
			r.add(n.Line, n.Value)
		}
		return
	}
	w.walk(root, 0)
}

// yamlWalk looks for images in a document. Aliases make a document a graph: each node is
// looked at once, so that a small document cannot cause much work.
type yamlWalk struct {
	r    *reader
	seen map[*yaml.Node]bool
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
		if namesNoImage(n) {
			return
		}
		w.related(n)
		for i := 0; i+1 < len(n.Content); i += 2 {
			w.pair(n.Content[i], follow(n.Content[i+1]), depth)
		}
	case yaml.SequenceNode, yaml.DocumentNode:
		for _, child := range n.Content {
			w.walk(child, depth+1)
		}
	}
}

// namesNoImage reports whether n is an object whose texts are for programs, or that
// describes the fields of others.
func namesNoImage(n *yaml.Node) bool {
	switch text(value(n, "kind")) {
	case "ConfigMap", "Secret", "CustomResourceDefinition":
		return text(value(n, "apiVersion")) != ""
	}
	return false
}

// pair looks at one key of a mapping.
func (w *yamlWalk) pair(key, v *yaml.Node, depth int) {
	if v == nil {
		return
	}
	exact := key.Value == "image"
	switch {
	case v.Kind == yaml.ScalarNode && exact:
		w.named(v)
	case v.Kind == yaml.ScalarNode && strings.HasSuffix(key.Value, "Image"):
		w.suspected(v)
	case v.Kind == yaml.MappingNode && (exact || strings.HasSuffix(key.Value, "Image")):
		if !w.split(v) {
			w.walk(v, depth+1)
		}
	default:
		w.walk(v, depth+1)
	}
}

// named takes in the value of a key that is called image.
func (w *yamlWalk) named(v *yaml.Node) {
	s := strings.TrimSpace(v.Value)
	switch {
	case s == "" || v.ShortTag() == "!!null" || v.ShortTag() == "!!bool":
	case strings.Contains(s, "{{"):
		w.r.fault(v.Line, fmt.Errorf("%q is a template: give what it makes, as by helm template", clip(s)))
	default:
		w.r.add(v.Line, s)
	}
}

// suspected adds the value of a key such as sidecarImage, which operators have, if it can
// only be the name of an image: other keys with such names hold pictures.
func (w *yamlWalk) suspected(v *yaml.Node) {
	ref, err := w.r.o.Registries.Reference(v.Value)
	if err != nil || ref.Tag == "" && !ref.HasDigest() {
		return
	}
	w.r.add(v.Line, v.Value)
}

// split takes in an image in parts, as Helm's values and many operators have it:
// registry, repository, tag, digest; or as a volume of a pod has it: reference.
func (w *yamlWalk) split(n *yaml.Node) bool {
	if whole := text(value(n, "reference")); whole != "" {
		w.named(value(n, "reference"))
		return true
	}
	name := text(value(n, "repository"))
	tag, digest := text(value(n, "tag")), text(value(n, "digest"))
	if digest == "" {
		digest = text(value(n, "sha"))
		if digest != "" && !strings.Contains(digest, ":") {
			digest = "sha256:" + digest
		}
	}
	if name == "" {
		return false
	}
	at := value(n, "repository")
	if tag == "" && digest == "" {
		w.r.fault(at.Line, fmt.Errorf("image %q has neither tag nor digest here, so that its chart decides: give what helm template makes", clip(name)))
		return true
	}
	if host := text(value(n, "registry")); host != "" {
		name = host + "/" + name
	}
	if tag != "" {
		name += ":" + tag
	}
	if digest != "" {
		name += "@" + digest
	}
	at = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name, Line: at.Line}
	w.named(at)
	return true
}

// relatedPrefix is what operators call the variables that name the images they start
// (Operator Lifecycle Manager, "relatedImages").
const relatedPrefix = "RELATED_IMAGE_"

// related takes in an environment variable that names an image.
func (w *yamlWalk) related(n *yaml.Node) {
	if !strings.HasPrefix(text(value(n, "name")), relatedPrefix) {
		return
	}
	if v := value(n, "value"); text(v) != "" {
		w.named(v)
	}
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// value returns the value of a key of a mapping, of one merged into it too; nil if it has
// none.
func value(n *yaml.Node, key string) *yaml.Node { return valueIn(n, key, map[*yaml.Node]bool{}) }

// valueIn looks into each mapping once, however often it is merged.
func valueIn(n *yaml.Node, key string, seen map[*yaml.Node]bool) *yaml.Node {
	n = follow(n)
	if n == nil || n.Kind != yaml.MappingNode || seen[n] || len(seen) > mergesMax {
		return nil
	}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value {
		case key:
			return follow(n.Content[i+1])
		case "<<":
			merges = append(merges, follow(n.Content[i+1]))
		}
	}
	seen[n] = true
	for _, m := range merges {
		if m == nil {
			continue
		}
		all := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			all = m.Content
		}
		for _, one := range all {
			if v := valueIn(one, key, seen); v != nil {
				return v
			}
		}
	}
	return nil
}

// mergesMax bounds the mappings that are merged into one.
const mergesMax = 100

// text returns the value of a scalar, without the space around it; "" of anything else.
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		return ""
	}
	return strings.TrimSpace(n.Value)
}

func scalars(n *yaml.Node) bool {
	for _, child := range n.Content {
		if child.Kind != yaml.ScalarNode {
			return false
		}
	}
	return len(n.Content) > 0
}
