package imageset

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"forebay/internal/manifest"
	"forebay/internal/wire"
)

// A Dockerfile is taken apart by BuildKit's own parser, and its variables are replaced by
// BuildKit's own lexer: continuations, directives, heredocs and patterns are what they are to
// a build. What the instructions mean is read here (dockerfile2llb, for which there would be
// ten times the dependencies, wants a build and not a list).

// building is what a Dockerfile is built with.
type building struct {
	args map[string]string
	// contexts are the other sources of the build: their names stand for no images.
	contexts map[string]bool
	// platforms are those that the build is for. None means those of the caller.
	platforms []string
	line      int // of the file, before the first of the Dockerfile
}

// dockerfile reads the images that a build pulls: those of FROM that are no stages, of
// COPY --from and RUN --mount=from=, and the one that a syntax directive names.
func (r *reader) dockerfile(text []byte, b building) {
	fault := func(line int, err error) { r.fault(b.line+line, err) }
	if len(bytes.TrimSpace(text)) == 0 {
		return
	}
	if syntax, _, at, ok := parser.DetectSyntax(text); ok {
		if other, given := b.args["BUILDKIT_SYNTAX"]; given {
			syntax = other
		}
		r.add(b.line+at[0].Start.Line, syntax)
	}
	file, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		line := 0
		if at := (*parser.LocationError)(nil); errors.As(err, &at) && len(at.Locations) > 0 && len(at.Locations[0]) > 0 {
			line = at.Locations[0][0].Start.Line
		}
		fault(line, fmt.Errorf("not a Dockerfile: %s", clip(err.Error())))
		return
	}
	for _, n := range file.AST.Children {
		if _, known := command.Commands[strings.ToLower(n.Value)]; !known {
			fault(n.StartLine, fmt.Errorf("%q is no instruction of a Dockerfile", clip(n.Value)))
			return
		}
	}
	readings := b.platforms
	if len(readings) == 0 {
		readings = r.o.Platforms
	}
	if len(readings) == 0 {
		readings = []string{wire.MachinePlatform()}
	}
	for _, p := range readings {
		d := &docker{r: r, b: b, lexer: shell.NewLex(file.EscapeToken), args: map[string]string{}, stages: map[string]bool{}}
		if err := d.automatic(p); err != nil {
			fault(0, err)
			return
		}
		d.read(file.AST.Children)
		if !d.differs {
			return // every other platform would read the same
		}
	}
}

// docker is one reading of a Dockerfile, for one platform.
type docker struct {
	r        *reader
	b        building
	lexer    *shell.Lex
	platform string            // "" stands for all
	args     map[string]string // of the scope of FROM
	bound    map[string]bool   // those of args that depend on the platform
	stages   map[string]bool   // by name in lower case
	from     int               // how many FROM there were
	differs  bool              // another platform may give other images
}

// automatic sets the arguments that BuildKit sets itself. The platforms that are asked for
// are those of the build and those of the machine that it runs on.
func (d *docker) automatic(platform string) error {
	d.bound = map[string]bool{"TARGETPLATFORM": true, "BUILDPLATFORM": true}
	var p platforms.Platform
	if platform != manifest.AllPlatforms {
		var err error
		if d.platform, err = wire.Platform(platform); err != nil {
			return err
		}
		p = platforms.MustParse(d.platform)
	}
	for _, side := range []string{"TARGET", "BUILD"} {
		for name, v := range map[string]string{"PLATFORM": d.platform, "OS": p.OS, "OSVERSION": p.OSVersion, "ARCH": p.Architecture, "VARIANT": p.Variant} {
			d.args[side+name], d.bound[side+name] = v, true
		}
	}
	d.args["TARGETSTAGE"] = "default"
	for name := range d.args {
		if v, given := d.b.args[name]; given {
			d.args[name] = v
			delete(d.bound, name)
		}
	}
	return nil
}

func (d *docker) fault(n *parser.Node, err error) { d.r.fault(d.b.line+n.StartLine, err) }

func (d *docker) read(all []*parser.Node) {
	total := 0
	names := map[string]bool{}
	for _, n := range all {
		if strings.EqualFold(n.Value, command.From) {
			total++
			if name := stageName(n); name != "" {
				names[name] = true
			}
		}
	}
	for _, n := range all {
		switch strings.ToLower(n.Value) {
		case command.Arg:
			if d.from == 0 { // FROM sees no others
				d.declare(n)
			}
		case command.From:
			d.base(n)
		case command.Copy, command.Run:
			d.sources(n, n, names, total)
		case command.Onbuild:
			if n.Next != nil && len(n.Next.Children) > 0 {
				d.sources(n, n.Next.Children[0], names, -1) // numbers are of another Dockerfile
			}
		}
	}
	if total == 0 {
		d.r.fault(d.b.line, errors.New("has no FROM: is it a Dockerfile?"))
	}
}

// stageName returns the name that FROM gives, "" if none.
func stageName(from *parser.Node) string {
	if w := words(from); len(w) == 3 && strings.EqualFold(w[1], "as") {
		return strings.ToLower(w[2])
	}
	return ""
}

// words returns the arguments of an instruction.
func words(n *parser.Node) (all []string) {
	for n = n.Next; n != nil; n = n.Next {
		all = append(all, n.Value)
	}
	return all
}

// declare reads an ARG before the first FROM.
func (d *docker) declare(n *parser.Node) {
	for _, one := range words(n) {
		name, v, given := strings.Cut(one, "=")
		bound := false
		if arg, ok := d.b.args[name]; ok {
			v = arg
		} else if !given {
			continue
		} else {
			var err error
			if v, bound, err = d.expand(v); err != nil {
				d.fault(n, err)
				continue
			}
		}
		d.args[name] = v
		d.bound[name] = bound
	}
}

// Get and Keys are how the lexer looks at the arguments.
func (d *docker) Get(name string) (string, bool) { v, ok := d.args[name]; return v, ok }

// Keys returns the names of all arguments.
func (d *docker) Keys() []string { return slices.Sorted(maps.Keys(d.args)) }

// expand replaces the variables of a word. bound says that the result depends on the
// platform. To BuildKit a variable without a value is empty; here it is an error, since an
// image of another name would be fetched.
func (d *docker) expand(s string) (out string, bound bool, err error) {
	strict := *d.lexer
	strict.SkipUnsetEnv = true
	partly, err := strict.ProcessWordWithMatches(s, d)
	if err != nil {
		return "", false, err
	}
	needed := withoutUnused(partly.Result, partly.Unmatched)
	for name := range partly.Unmatched {
		if usedBare(needed, name) {
			return "", false, fmt.Errorf("variable %s is not set: give a default by ${%s:-DEFAULT} or ARG before the first FROM, or a build argument", clip(name), clip(name))
		}
	}
	got, err := d.lexer.ProcessWordWithMatches(s, d)
	if err != nil {
		return "", false, err
	}
	for name := range got.Matched {
		bound = bound || d.bound[name]
	}
	if bound && d.platform == "" {
		return "", false, errAll
	}
	return got.Result, bound, nil
}

// errAll means that what is read differs by platform, and no one platform is asked for.
var errAll = errors.New("depends on the platform: name the platforms instead of all")

// left matches a variable that was left as it is, with the operator, if any, that says what
// happens when it has no value.
var left = regexp.MustCompile(`\$(?:\{(\w+)(:?[-+?])?|(\w+))`)

// withoutUnused takes away what stands behind :+ of variables that have no value.
func withoutUnused(s string, unset map[string]struct{}) string {
	for from := 0; ; {
		at := present.FindStringSubmatchIndex(s[from:])
		if at == nil {
			return s
		}
		start, depth, end := from+at[0], 1, from+at[1]
		for ; end < len(s) && depth > 0; end++ {
			switch s[end] {
			case '{':
				depth++
			case '}':
				depth--
			}
		}
		if _, ok := unset[s[from+at[2]:from+at[3]]]; ok {
			s = s[:start] + s[end:]
			from = start
		} else {
			from += at[1]
		}
	}
}

// present matches the beginning of what counts if a variable has a value.
var present = regexp.MustCompile(`\$\{(\w+):?\+`)

// usedBare reports whether a variable stands in a text without such an operator.
func usedBare(s, name string) bool {
	return slices.ContainsFunc(left.FindAllStringSubmatch(s, -1), func(m []string) bool {
		return m[3] == name || m[1] == name && m[2] == ""
	})
}

// base reads FROM [--platform=P] IMAGE [AS NAME].
func (d *docker) base(n *parser.Node) {
	d.from++
	w := words(n)
	name := stageName(n)
	switch {
	case len(w) == 0:
		d.fault(n, errors.New("FROM names no image"))
		return
	case len(w) != 1 && name == "":
		d.fault(n, fmt.Errorf("FROM has %d words: write FROM IMAGE or FROM IMAGE AS NAME", len(w)))
		return
	}
	if name != "" {
		defer func() { d.stages[name] = true }()
	}
	if d.b.contexts[name] && name != "" {
		return // the stage is replaced
	}
	image, bound, err := d.expand(w[0])
	if err != nil {
		d.fault(n, err)
		return
	}
	d.differs = d.differs || bound
	if image == "" {
		d.fault(n, errors.New("FROM names no image: its argument is empty"))
		return
	}
	chosen := slices.Clone(d.b.platforms)
	if bound {
		chosen = []string{d.platform}
	}
	for _, flag := range n.Flags {
		v, ok := strings.CutPrefix(flag, "--platform=")
		if !ok {
			d.fault(n, fmt.Errorf("FROM has the flag %s, which is not understood", clip(flag)))
			return
		}
		p, depends, err := d.expand(v)
		if errors.Is(err, errAll) {
			continue // whatever it is, all are wanted
		}
		if err == nil && p == "" {
			err = errors.New("--platform is empty")
		}
		if err == nil {
			p, err = wire.Platform(p)
		}
		if err != nil {
			d.fault(n, err)
			return
		}
		d.differs = d.differs || depends && p != d.platform
		if !depends || p != d.platform {
			chosen = []string{p}
		}
	}
	if d.stages[strings.ToLower(image)] {
		return
	}
	d.pulled(n, image, chosen)
}

// pulled takes in an image unless it is another context or nothing at all.
func (d *docker) pulled(n *parser.Node, image string, platforms []string) {
	if image != "scratch" && !d.b.contexts[strings.ToLower(image)] {
		d.r.add(d.b.line+n.StartLine, image, platforms...)
	}
}

// sources reads the flags of COPY and RUN for images that content is taken from. total is
// how many stages there are.
func (d *docker) sources(at, n *parser.Node, stages map[string]bool, total int) {
	take := func(name string) {
		i, err := strconv.Atoi(name)
		switch {
		case err == nil && total >= 0 && (i < 0 || i >= total) && strings.EqualFold(n.Value, command.Copy):
			d.fault(at, fmt.Errorf("there is no stage %d", i))
		case err == nil || name == "" || name == "context" || stages[strings.ToLower(name)]:
		case strings.Contains(name, "$"):
			d.fault(at, fmt.Errorf("%q: a source of files cannot be a variable: name a stage that is FROM it", clip(name)))
		default:
			d.pulled(at, name, nil)
		}
	}
	for _, flag := range n.Flags {
		name, v, _ := strings.Cut(flag, "=")
		switch {
		case name == "--from" && strings.EqualFold(n.Value, command.Copy):
			take(v)
		case name == "--mount" && strings.EqualFold(n.Value, command.Run):
			options, err := csv.NewReader(strings.NewReader(v)).Read()
			if err != nil {
				d.fault(at, fmt.Errorf("--mount=%s: %w", clip(v), err))
				continue
			}
			for _, option := range options {
				if key, from, ok := strings.Cut(option, "="); ok && strings.EqualFold(key, "from") {
					take(from)
				}
			}
		}
	}
}
