package config

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"

	"forebay/config/key"
)

// Print writes all values that are in effect as YAML that can be read again. Secrets
// are masked. Where a value is not the default, a comment says where it comes from.
func (c *Config) Print(w io.Writer) error {
	root := c.sectionNode("", c.fields())
	upstreams := &yaml.Node{Kind: yaml.MappingNode}
	for path, u := range c.configured() {
		upstreams.Content = append(upstreams.Content, text(u.Name), c.sectionNode(path, u.fields()))
	}
	root.Content = append(root.Content, text("upstreams"), upstreams)
	var b bytes.Buffer
	dumper, err := yaml.NewDumper(&b)
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	if err := dumper.Dump(root); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	if err := dumper.Close(); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	_, err = w.Write(b.Bytes())
	return err
}

// sectionNode returns the mapping of fields. Unset texts and empty lists are left out.
func (c *Config) sectionNode(path string, fields []field) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fields {
		at := join(path, f.Name)
		value := c.fieldNode(at, f)
		if value == nil {
			continue
		}
		key := text(f.Name)
		if from := c.origins[at].String(); from != "" {
			if value.Kind == yaml.ScalarNode {
				value.LineComment = "# " + from
			} else {
				key.HeadComment = "# " + from
			}
		}
		n.Content = append(n.Content, key, value)
	}
	return n
}

// fieldNode returns the value of one field, nil for none.
func (c *Config) fieldNode(path string, f field) *yaml.Node {
	if f.Kind == key.Section {
		n := c.sectionNode(path, f.Fields)
		if len(n.Content) == 0 {
			return nil
		}
		return n
	}
	if f.Kind == key.Records {
		return c.recordsNode(path, f)
	}
	texts := f.Get()
	switch {
	case len(texts) == 0, f.Kind == key.Scalar && texts[0] == "":
		return nil
	case f.Kind == key.List:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for _, t := range texts {
			n.Content = append(n.Content, text(t))
		}
		return n
	case f.Kind == key.Table:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, t := range texts {
			key, value, _ := strings.Cut(t, "=")
			n.Content = append(n.Content, text(key), text(value))
		}
		return n
	default:
		return bare(texts[0])
	}
}

// recordsNode returns the list of records, nil for none.
func (c *Config) recordsNode(path string, f field) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for i, e := range f.Elements() {
		if e.Fields == nil {
			n.Content = append(n.Content, text(e.Text))
			continue
		}
		n.Content = append(n.Content, c.sectionNode(nth(path, i), e.Fields))
	}
	if len(n.Content) == 0 {
		return nil
	}
	return n
}

// text returns a scalar that is read as a string, quoted where it must be.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

// bare returns a scalar whose type is left to its text, so that numbers and true are
// not quoted.
func bare(s string) *yaml.Node {
	var n yaml.Node
	if err := yaml.Load([]byte(s), &n); err == nil && n.Kind == yaml.DocumentNode && len(n.Content) == 1 &&
		n.Content[0].Kind == yaml.ScalarNode && n.Content[0].Value == s && !null(n.Content[0]) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: n.Content[0].Tag, Value: s}
	}
	return text(s)
}
