package config

import (
	_ "embed" // for what comes before the keys
	"fmt"
	"io"
	"strings"

	"forebay/config/key"
)

//go:embed reference_head.md
var referenceHead string

// Reference writes a description of every key, in Markdown, with the default and the
// environment variable of each.
func Reference(w io.Writer) error {
	var b strings.Builder
	b.WriteString(referenceHead)
	c := defaults()
	b.WriteString("\n## The keys\n")
	referenceSection(&b, "", c.fields())
	b.WriteString("\n## The keys of an upstream\n\nBelow `upstreams.NAME`, NAME being the registry's public name, such as `docker.io` or `registry.example.com:5000`.\n")
	u := defaultUpstream("NAME")
	referenceSection(&b, "upstreams.NAME", u.fields())
	_, err := io.WriteString(w, b.String())
	return err
}

func referenceSection(b *strings.Builder, path string, fields []field) {
	for _, f := range fields {
		at := join(path, f.Name)
		if f.Kind == key.Section {
			referenceSection(b, at, f.Fields)
			continue
		}
		fmt.Fprintf(b, "\n### `%s`\n\n%s\n\n", at, f.Doc)
		fmt.Fprintf(b, "* Allowed: %s%s\n", f.What, example(f))
		if texts := strings.Join(f.Get(), ", "); texts != "" {
			fmt.Fprintf(b, "* Default: `%s`\n", texts)
		}
		fmt.Fprintf(b, "* Variable: `%s`%s\n", Variable(at), onlyTexts(f))
		if Live(at) && !strings.HasPrefix(at, "upstreams.") {
			b.WriteString("* Change: at SIGHUP\n")
		}
		referenceRecord(b, "", f)
	}
}

// referenceRecord lists the keys that a mapping in a list has.
func referenceRecord(b *strings.Builder, path string, f field) {
	if f.Kind == key.Records {
		b.WriteString("* Keys of a mapping:\n")
	}
	if f.Kind != key.Records && f.Kind != key.Section {
		return
	}
	for _, k := range f.Fields {
		at := join(path, k.Name)
		if k.Kind == key.Section {
			referenceRecord(b, at, k)
			continue
		}
		fmt.Fprintf(b, "  * `%s`, %s: %s\n", at, k.What, k.Doc)
	}
}

// onlyTexts says what a variable cannot hold.
func onlyTexts(f field) string {
	if f.Kind == key.Records {
		return ", which cannot hold mappings"
	}
	return ""
}

// example adds to what is allowed how it is written, where that is not plain.
func example(f field) string {
	switch f.What {
	case "a duration":
		return ", such as `500ms`, `30s`, `5m`, `2h`, `1d`"
	case "a size":
		return ", such as `500MiB`, `100GiB` (1024³), `100GB` (1000³), or `auto`"
	case "a file name":
		return "; a relative one starts from the folder of the configuration file, or from the working folder when it comes from a variable or a flag"
	}
	return ""
}
