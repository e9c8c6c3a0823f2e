package config

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"forebay/config/fault"
	"forebay/config/key"
	"forebay/config/parse"
)

// decoder puts the values of one source into a configuration and gathers faults.
type decoder struct {
	fault.Collector
	config *Config
	name   string // of the file
	folder string // that relative file names in the file start from
}

// file decodes the YAML text of the file.
func (d *decoder) file(text []byte) {
	root, ok := d.document(text)
	if !ok || null(root) {
		return
	}
	d.section(root, "", append(d.config.fields(), field{
		Name: "upstreams", Kind: key.Section, Doc: "registries",
	}))
}

// document parses the text and returns its root, which is nil for an empty text.
func (d *decoder) document(text []byte) (*yaml.Node, bool) {
	loader, err := yaml.NewLoader(strings.NewReader(string(text)))
	if err != nil {
		d.syntax(err)
		return nil, false
	}
	var first, second yaml.Node
	if err := loader.Load(&first); errors.Is(err, io.EOF) {
		return nil, true
	} else if err != nil {
		d.syntax(err)
		return nil, false
	}
	if err := loader.Load(&second); err == nil {
		d.Add(d.at(&second), "", "a second document starts here: use only one")
		return nil, false
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
		return nil, false
	}
	if first.Kind == yaml.DocumentNode {
		if len(first.Content) == 0 {
			return nil, true
		}
		return first.Content[0], true
	}
	return &first, true
}

// syntaxQuote finds text of the file in a message of the YAML library, which might be
// part of a password ("unknown anchor 'hunter2'" for *hunter2).
var syntaxQuote = regexp.MustCompile(`'[^']{4,}'|"[^"]{4,}"|` + "`[^`]{4,}`")

func (d *decoder) syntax(err error) {
	at := Origin{Source: fault.FromFile, Name: d.name}
	message := "cannot be read"
	var fault *yaml.LoadError
	if errors.As(err, &fault) {
		at.Line, at.Column = fault.Mark.Line, max(fault.Mark.Column, 1)
		message = fault.Message
		if from := fault.ContextMark; from.Line > 0 && strings.Contains(message, "end of") { // what never ends is wrong where it begins
			at.Line, at.Column = from.Line, max(from.Column, 1)
			message = fault.ContextMsg + " that begins here: " + message
		}
	}
	message = parse.Clip(syntaxQuote.ReplaceAllString(message, "…"))
	if strings.Contains(message, "anchor") {
		message += " (a value that starts with * or & needs quotes)"
	} else if strings.Contains(message, "cannot start any token") {
		message += " (a tab: use blanks; a value that starts with @, ` or % needs quotes)"
	}
	d.Add(at, "", "not YAML: %s", message)
}

func (d *decoder) at(n *yaml.Node) Origin {
	return Origin{Source: fault.FromFile, Name: d.name, Line: n.Line, Column: n.Column}
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	// An alias cannot stand for an alias, so one step is enough.
	if n != nil && n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// null reports whether a value was left out: `key:` or `key: null` keep the default.
func null(n *yaml.Node) bool {
	return n == nil || n.Kind == 0 || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// section decodes a mapping whose keys are fields.
func (d *decoder) section(n *yaml.Node, path string, fields []field) {
	d.mapping(n, path, func(key *yaml.Node, value *yaml.Node) {
		at := join(path, key.Value)
		f := find(fields, key.Value)
		switch {
		case f == nil:
			d.unknown(key, path, fields)
		case at == "upstreams":
			d.upstreams(value)
		default:
			d.value(value, at, f)
		}
	})
}

// mapping calls each for every key of a mapping that occurs for the first time.
func (d *decoder) mapping(n *yaml.Node, path string, each func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.Add(d.at(n), path, "is %s: a mapping of KEY: VALUE lines is needed", shape(n))
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content) && !d.More; i += 2 {
		key, value := n.Content[i], follow(n.Content[i+1])
		if key.Kind != yaml.ScalarNode {
			d.Add(d.at(key), path, "a key is %s: it must be a word", shape(key))
			continue
		}
		if key.ShortTag() == "!!merge" {
			d.Add(d.at(key), path, "merging with << is not supported: repeat the keys")
			continue
		}
		if line, twice := lines[key.Value]; twice {
			d.Add(d.at(key), join(path, parse.Clip(key.Value)), "is already set on line %d", line)
			continue
		}
		lines[key.Value] = key.Line
		each(key, value)
	}
}

// shape names what a node is, for errors. It never gives its text.
func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		return "a single value"
	default:
		return "something else"
	}
}

// value decodes the value of one field.
func (d *decoder) value(n *yaml.Node, path string, f *field) {
	if null(n) {
		if n != nil && n.Anchor != "" {
			d.Add(d.at(n), path, "is an anchor without a value: a value that starts with & needs quotes")
		}
		return
	}
	switch f.Kind {
	case key.Section:
		d.section(n, path, f.Fields)
	case key.List:
		if n.Kind != yaml.SequenceNode {
			d.Add(d.at(n), path, "is %s: %s is needed, such as [A, B]", shape(n), f.What)
			return
		}
		d.config.origins[path] = d.at(n)
		f.Clear()
		for _, element := range n.Content {
			d.scalar(follow(element), path, f, func(text string) error {
				if f.File && text != "" {
					var err error
					if text, err = parse.Absolute(d.folder, text); err != nil {
						return err
					}
				}
				return f.Set(text)
			})
		}
	case key.Records:
		d.records(n, path, f)
	case key.Table:
		d.config.origins[path] = d.at(n)
		f.Clear()
		d.mapping(n, path, func(key, value *yaml.Node) {
			if f.Lists {
				value = listed(value)
			}
			d.scalar(value, join(path, parse.Clip(key.Value)), f, func(text string) error {
				return f.Set(key.Value + "=" + text)
			})
		})
	default:
		d.config.origins[path] = d.at(n)
		d.scalar(n, path, f, func(text string) error {
			if f.File && (f.Plain == "" || text != f.Plain) {
				var err error
				if text, err = parse.Absolute(d.folder, text); err != nil {
					return err
				}
			}
			return f.Set(text)
		})
	}
}

// listed turns a list of texts, as the value in a table, into the one text that variables have.
func listed(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return n
	}
	var texts []string
	for _, element := range n.Content {
		if element = follow(element); element.Kind != yaml.ScalarNode {
			return n
		}
		texts = append(texts, element.Value)
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.Join(texts, " "), Line: n.Line, Column: n.Column}
}

// records decodes a list whose elements are texts or mappings.
func (d *decoder) records(n *yaml.Node, path string, f *field) {
	if n.Kind != yaml.SequenceNode {
		d.Add(d.at(n), path, "is %s: %s is needed, such as [A, B]", shape(n), f.What)
		return
	}
	d.config.origins[path] = d.at(n)
	f.Clear()
	for i, node := range n.Content {
		node = follow(node)
		at := nth(path, i)
		if node.Kind != yaml.MappingNode {
			d.scalar(node, path, f, f.Set)
			continue
		}
		d.config.origins[at] = d.at(node)
		d.section(node, at, f.Element())
	}
}

// nth returns the path of an element of a list, counted from 1.
func nth(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i+1) }

// scalar calls set with the text of one value.
func (d *decoder) scalar(n *yaml.Node, path string, f *field, set func(string) error) {
	switch {
	case d.More:
	case n.Kind != yaml.ScalarNode:
		d.Add(d.at(n), path, "is %s: %s is needed", shape(n), f.What)
	case n.Style&yaml.TaggedStyle != 0:
		d.Add(d.at(n), path, "has a tag: write the value without it")
	default:
		if err := set(n.Value); err != nil {
			d.Add(d.at(n), path, "%s", err)
		}
	}
}

// upstreams decodes the map of registries, which replaces the default ones.
func (d *decoder) upstreams(n *yaml.Node) {
	if null(n) {
		return
	}
	if n.Kind == yaml.MappingNode {
		d.config.origins["upstreams"] = d.at(n)
	}
	d.mapping(n, "upstreams", func(key, value *yaml.Node) {
		path := join("upstreams", parse.Clip(key.Value))
		if key.Value == AnyRegistry {
			u := defaultUpstream(AnyRegistry)
			d.config.Others, d.config.origins[path] = &u, d.at(key)
			if !null(value) {
				d.section(value, path, u.fields())
			}
			return
		}
		name, err := parse.UpstreamName(key.Value)
		if err != nil {
			d.Add(d.at(key), path, "%s", err)
			return
		}
		if path = join("upstreams", name); d.config.Upstream(name) != nil {
			d.Add(d.at(key), path, "is already set: %q is another spelling", parse.Clip(key.Value))
			return
		}
		u := defaultUpstream(name)
		d.config.origins[path] = d.at(key)
		if !null(value) {
			d.section(value, path, u.fields())
		}
		d.config.Upstreams = append(d.config.Upstreams, u)
	})
}

// unknown reports a key that is not there, with the one that was probably meant.
func (d *decoder) unknown(key *yaml.Node, path string, fields []field) {
	at := join(path, parse.Clip(key.Value))
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	hint := parse.DidYouMean(key.Value, names)
	if hint == "" {
		if elsewhere := d.elsewhere(key.Value, path); elsewhere != "" {
			hint = fmt.Sprintf(": did you mean %q?", elsewhere)
		} else {
			hint = ": known here are " + strings.Join(names, ", ")
		}
	}
	d.Add(d.at(key), at, "is not a key%s", hint)
}

// elsewhere returns the path of a field of that name in another section, or "".
func (d *decoder) elsewhere(name, path string) string {
	var u Upstream
	if !strings.HasPrefix(path, "upstreams.") && find(u.fields(), name) != nil {
		return "upstreams.NAME." + name
	}
	for _, f := range d.config.fields() {
		if f.Name == name {
			return name
		}
		if find(f.Fields, name) != nil {
			return f.Name + "." + name
		}
	}
	return ""
}

func find(fields []field, name string) *field {
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i]
		}
	}
	return nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// folderOf returns the folder of a file, as an parse.Absolute name where that is possible.
func folderOf(file string) string {
	folder, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return filepath.Dir(file)
	}
	return folder
}
