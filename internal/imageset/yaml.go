package imageset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// yaml reads all documents of a text, each with read.
func (r *reader) yaml(text []byte, read func(root *yaml.Node)) {
	if start := bytes.TrimLeft(text, " \t\r\n"); len(start) > 0 && (start[0] == '{' || start[0] == '/') {
		plain, err := withoutComments(text)
		if err != nil {
			r.fault(0, err)
			return
		}
		text = plain
	}
	if at := jsonLines.FindIndex(text); at != nil && text[0] == '{' {
		r.fault(bytes.Count(text[:at[1]], []byte("\n"))+1, errors.New("is one JSON text behind the other, as docker images and docker ps write them, which is not read: give one text, or the names alone, one a line"))
		return
	}
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
		read(root)
	}
}

// jsonLines matches the end of an object with which a line ends, and the beginning of another.
var jsonLines = regexp.MustCompile(`\}\r?\n\{`)

func (r *reader) syntax(err error) {
	line, message := 0, err.Error()
	var fault *yaml.LoadError
	if errors.As(err, &fault) {
		line, message = fault.Mark.Line, fault.Message
	}
	r.fault(line, fmt.Errorf("not YAML: %s", clip(message)))
}

// document reads a document of which nobody has said what it is.
func (r *reader) document(root *yaml.Node) {
	if root.Kind == yaml.ScalarNode && text(root) == "" {
		return
	}
	entries, faults, notes := len(r.entries), len(r.faults), r.notes
	defer func() {
		if !isGitLabHeader(root) && len(r.entries) == entries && len(r.faults) == faults && r.notes == notes && len(r.seen) == 0 && !isObject(root) {
			r.unnamed(root)
		}
	}()
	for _, n := range items(root) { // a list of names in YAML, among which may be mappings
		if is(root, yaml.SequenceNode) && is(n, yaml.ScalarNode) && text(n) != "" {
			r.add(n.Line, n.Value)
		}
	}
	if isAnsible(root) {
		r.ansible(root)
		return
	}
	for _, d := range dialects() {
		if root.Kind == yaml.MappingNode && d.is(root) {
			d.read(r, root)
			return
		}
	}
	r.objects(root, false)
}

// dialect is a kind of document that has keys of its own for images.
type dialect struct {
	is   func(root *yaml.Node) bool
	read func(r *reader, root *yaml.Node)
}

// dialects are tried in this order. What is none of them is looked through for keys that are
// called image, as objects of Kubernetes are.
func dialects() []dialect {
	return []dialect{
		{isDrone, (*reader).steps},
		{isObject, func(r *reader, root *yaml.Node) { r.objects(root, true) }},
		{isZarf, (*reader).zarf},
		{isForeign, (*reader).foreign},
		{isGitHub, (*reader).github},
		{isAction, (*reader).action},
		{isCircle, (*reader).circle},
		{isBitbucket, (*reader).bitbucket},
		{isCloudBuild, (*reader).cloudBuild},
		{isBuildkite, func(r *reader, root *yaml.Node) { r.objects(root, true) }},
		{isWoodpecker, (*reader).steps},
		{isConcourse, (*reader).concourse},
		{isRegsync, (*reader).regsync},
		{isAzure, (*reader).azure},
		{isBake, (*reader).bake},
		{isDevcontainer, (*reader).devcontainer},
		{isCompose, func(r *reader, root *yaml.Node) { r.compose(root) }},
		{isGitLabHeader, (*reader).gitlabHeader},
		{isGitLab, (*reader).gitlab},
		{isKustomization, (*reader).kustomization},
		{isSkopeo, (*reader).skopeo},
	}
}

func isObject(root *yaml.Node) bool {
	return text(value(root, "apiVersion")) != "" && text(value(root, "kind")) != ""
}

// isForeign reports whether a document is for a program that says itself which images there
// are: what the document names is not all, or not what is pulled.
func isForeign(root *yaml.Node) bool { return foreignTo(root) != "" }

func foreignTo(root *yaml.Node) string {
	switch {
	case has(root, "apiVersion", "name", "version") || has(root, "dependencies", "digest", "generated"):
		return "is the description of a Helm chart: give what the chart makes, as by helm template CHART | forebay prefetch -f -"
	case strings.Contains(text(value(root, "$schema")), "renovate") || has(root, "packageRules"):
		return "is a configuration of Renovate, which names no images to pull: give the files that it watches"
	case is(value(root, "releases"), yaml.SequenceNode) && (has(root, "repositories") || slices.ContainsFunc(items(value(root, "releases")), func(n *yaml.Node) bool { return has(n, "chart") })):
		return "is a helmfile, whose charts name the images: give what helmfile template makes"
	case has(root, "configVersion", "project"):
		return "is a configuration of werf, whose images are built: give what werf render makes"
	case text(value(root, "bomFormat")) == "CycloneDX" || has(root, "spdxVersion"):
		return "is a bill of materials, which says what is in images: list the images"
	case has(root, "defaultBaseImage") || has(root, "baseImageOverrides"):
		return "is a configuration of ko: give what ko resolve makes, and list the base images"
	}
	return ""
}

func (r *reader) foreign(root *yaml.Node) { r.fault(root.Line, errors.New(foreignTo(root))) }

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// mergesMax bounds the mappings that are merged into one.
const mergesMax = 100

// pairs are the keys and values of a mapping, its own before those of mappings that are
// merged into it, each key once. Of anything else there are none.
func pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(k, v *yaml.Node) bool) {
		keys := map[string]bool{}
		seen := map[*yaml.Node]bool{}
		todo := []*yaml.Node{n}
		for len(todo) > 0 && len(seen) < 2*mergesMax { // each may come in a list of its own
			m := follow(todo[0])
			todo = todo[1:]
			if m == nil || seen[m] {
				continue
			}
			seen[m] = true
			var merged []*yaml.Node
			switch {
			case m.Kind == yaml.SequenceNode && len(seen) > 1: // of mappings to merge
				merged = m.Content
			case m.Kind == yaml.MappingNode:
				for i := 0; i+1 < len(m.Content); i += 2 {
					key := m.Content[i]
					if key.Value == "<<" {
						merged = append(merged, m.Content[i+1])
						continue
					}
					if keys[key.Value] {
						continue
					}
					keys[key.Value] = true
					if v := follow(m.Content[i+1]); v != nil && !yield(key, v) {
						return
					}
				}
			}
			todo = slices.Concat(merged[:min(len(merged), mergesMax)], todo)
		}
	}
}

// eachPair calls fn for every key with its value at and below the roots, each mapping once, and
// does not go into the value when fn says false.
func eachPair(fn func(key, v *yaml.Node) (into bool), roots ...*yaml.Node) {
	seen := map[*yaml.Node]bool{}
	var walk func(n *yaml.Node, depth int)
	walk = func(n *yaml.Node, depth int) {
		if n = follow(n); n == nil || seen[n] || depth > yamlDepth {
			return
		}
		seen[n] = true
		for key, v := range pairs(n) {
			if fn(key, v) {
				walk(v, depth+1)
			}
		}
		if is(n, yaml.SequenceNode) {
			for _, child := range n.Content {
				walk(child, depth+1)
			}
		}
	}
	for _, root := range roots {
		walk(root, 0)
	}
}

// value returns the value of a key of a mapping; nil if it has none. Of several keys it goes
// down from one to the next.
func value(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		var found *yaml.Node
		for k, v := range pairs(n) {
			if k.Value == key {
				found = v
				break
			}
		}
		if n = found; n == nil {
			return nil
		}
	}
	return follow(n)
}

// has reports whether a mapping has all of the keys.
func has(n *yaml.Node, keys ...string) bool {
	for _, key := range keys {
		if value(n, key) == nil {
			return false
		}
	}
	return true
}

// items are the elements of a sequence, or the values of a mapping.
func items(n *yaml.Node) (all []*yaml.Node) {
	if n = follow(n); n == nil {
		return nil
	}
	if n.Kind == yaml.SequenceNode {
		for _, child := range n.Content {
			if child = follow(child); child != nil {
				all = append(all, child)
			}
		}
		return all
	}
	for _, v := range pairs(n) {
		all = append(all, v)
	}
	return all
}

// each are the elements of a sequence, or what stands alone in its place.
func each(n *yaml.Node) []*yaml.Node {
	if n = follow(n); n == nil || n.Kind == yaml.SequenceNode {
		return items(n)
	}
	return []*yaml.Node{n}
}

// settings are what a mapping says by key, or a sequence by KEY=VALUE. What has no value
// there has that of lookup.
func settings(n *yaml.Node, lookup func(string) (string, bool)) map[string]string {
	all := map[string]string{}
	take := func(name, v string, given bool) {
		if !given {
			v, given = lookup(name)
		}
		if given {
			all[name] = v
		}
	}
	for k, v := range pairs(n) {
		if is(v, yaml.ScalarNode) {
			take(k.Value, v.Value, v.ShortTag() != "!!null")
		}
	}
	if is(n, yaml.SequenceNode) {
		for _, one := range items(n) {
			take(strings.Cut(text(one), "="))
		}
	}
	return all
}

func is(n *yaml.Node, kind yaml.Kind) bool { return n != nil && n.Kind == kind }

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

// textLine returns the line of a file on which the text of a scalar begins: that after the
// key for texts in blocks.
func textLine(n *yaml.Node) int {
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return n.Line
	}
	return n.Line - 1
}
