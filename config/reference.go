package config

import (
	"fmt"
	"io"
	"strings"
)

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
		at := join(path, f.name)
		if f.kind == section {
			referenceSection(b, at, f.fields)
			continue
		}
		fmt.Fprintf(b, "\n### `%s`\n\n%s\n\n", at, f.doc)
		fmt.Fprintf(b, "* Allowed: %s%s\n", f.what, f.example())
		if texts := strings.Join(f.get(), ", "); texts != "" {
			fmt.Fprintf(b, "* Default: `%s`\n", texts)
		}
		fmt.Fprintf(b, "* Variable: `%s`%s\n", Variable(at), onlyTexts(f))
		referenceRecord(b, "", f)
	}
}

// referenceRecord lists the keys that a mapping in a list has.
func referenceRecord(b *strings.Builder, path string, f field) {
	if f.kind == records {
		b.WriteString("* Keys of a mapping:\n")
	}
	if f.kind != records && f.kind != section {
		return
	}
	for _, key := range f.fields {
		at := join(path, key.name)
		if key.kind == section {
			referenceRecord(b, at, key)
			continue
		}
		fmt.Fprintf(b, "  * `%s`, %s: %s\n", at, key.what, key.doc)
	}
}

// onlyTexts says what a variable cannot hold.
func onlyTexts(f field) string {
	if f.kind == records {
		return ", which cannot hold mappings"
	}
	return ""
}

// example adds to what is allowed how it is written, where that is not plain.
func (f field) example() string {
	switch f.what {
	case "a duration":
		return ", such as `500ms`, `30s`, `5m`, `2h`, `1d`"
	case "a size":
		return ", such as `500MiB`, `100GiB` (1024³), `100GB` (1000³), or `auto`"
	case "a file name":
		return "; a relative one starts from the folder of the configuration file, or from the working folder when it comes from a variable or a flag"
	}
	return ""
}

const referenceHead = "# Configuration\n" + `
Every setting has a default, so no configuration is needed. Each can be given in one
YAML file, as an environment variable, and the common ones as flags of ` + "`forebay serve`" + `.
A flag has precedence over a variable, a variable over the file, the file over the default.

* The file is the one that ` + "`--config`" + ` or ` + "`FOREBAY_CONFIG`" + ` names, else ` + "`" + DefaultFile + "`" + ` if it is there.
* The variable of a key is ` + "`FOREBAY_`" + ` and the key's path in capitals, with an underscore for every
  character that is no letter or digit: ` + "`upstreams.docker.io.username`" + ` is ` + "`FOREBAY_UPSTREAMS_DOCKER_IO_USERNAME`" + `.
  Elements of lists are separated by commas, and so are the HOST=UPSTREAM pairs of ` + "`FOREBAY_HOSTS`" + `. An empty variable counts as not set.
* A password can be in a file of its own: ` + "`password_file`" + `, or ` + "`FOREBAY_UPSTREAMS_DOCKER_IO_PASSWORD_FILE`" + `.
* ` + "`upstreams`" + ` names the registries that are mirrored and replaces the default ones, which are docker.io,
  gcr.io, ghcr.io, mcr.microsoft.com, public.ecr.aws, quay.io and registry.k8s.io, all anonymous. List docker.io too if you want it.
  ` + "`FOREBAY_UPSTREAMS=docker.io,ghcr.io`" + ` does the same; a registry that the file also names keeps its settings from there.
* An unknown key and a bad value are refused at start, all at once, each with its line, and so is a variable that is a
  setting but for a slip. Variables that Kubernetes and docker set for a service named "forebay" are not taken for settings; of
  others that mean nothing there is a warning.

` + "`forebay config check FILE`" + ` tells whether a file is right. ` + "`forebay config print`" + ` shows the values in
effect and where each comes from, with passwords masked; a masked password stays masked when the output is used as a file.

This page is made by ` + "`go test ./config -run TestReference -update`" + `.
`
