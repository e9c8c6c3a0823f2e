package imageset

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// dockerfile reads the images that a build pulls: those of FROM that are no stages, of
// COPY --from and RUN --mount=from=, and the one that a syntax directive names.
func (r *reader) dockerfile(s string) {
	d := &docker{r: r, args: map[string]string{}, stages: map[string]bool{}}
	lines := strings.Split(strings.ReplaceAll(s, "\r\n", "\n"), "\n")
	d.directives(lines)
	for i := 0; i < len(lines); {
		number := i + 1
		var instruction string
		instruction, i = d.logical(lines, i)
		word, rest, _ := strings.Cut(strings.TrimSpace(instruction), " ")
		if word == "" {
			continue
		}
		d.instruction(number, strings.ToUpper(word), strings.TrimSpace(rest))
		i = heredocs(instruction, strings.ToUpper(word), lines, i)
	}
	if d.from == 0 && len(r.faults) == 0 {
		r.fault(0, errors.New("has no FROM: is it a Dockerfile?"))
	}
}

// docker is what is known at a line of a Dockerfile.
type docker struct {
	r      *reader
	escape byte
	args   map[string]string // declared before the first FROM, with a value
	stages map[string]bool   // by name in lower case
	from   int               // how many FROM there were
}

var directive = regexp.MustCompile(`^#\s*([a-zA-Z]+)\s*=\s*(\S+)\s*$`)

// directives reads the comments at the start that are orders to the parser.
func (d *docker) directives(lines []string) {
	d.escape = '\\'
	for i, line := range lines {
		m := directive.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			return
		}
		switch strings.ToLower(m[1]) {
		case "escape":
			if m[2] == "`" {
				d.escape = '`'
			}
		case "syntax":
			d.r.add(i+1, m[2])
		}
	}
}

// logical returns the instruction that begins at line i, its continuations joined, and
// where the next begins. Comments and blank lines between continuations are dropped.
func (d *docker) logical(lines []string, i int) (string, int) {
	var b strings.Builder
	for ; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if strings.HasPrefix(line, "#") {
			if b.Len() == 0 {
				return "", i + 1
			}
			continue
		}
		if line == "" && b.Len() > 0 {
			continue
		}
		if line != "" && line[len(line)-1] == d.escape {
			b.WriteString(line[:len(line)-1])
			b.WriteByte(' ')
			continue
		}
		b.WriteString(strings.ReplaceAll(line, "\t", " "))
		return b.String(), i + 1
	}
	return b.String(), i
}

var heredoc = regexp.MustCompile(`<<-?\s*["']?([a-zA-Z_][a-zA-Z0-9_.]*)["']?`)

// heredocs skips the texts that follow an instruction, which may look like instructions.
func heredocs(instruction, word string, lines []string, i int) int {
	if word != "RUN" && word != "COPY" && word != "ADD" {
		return i
	}
	for _, m := range heredoc.FindAllStringSubmatch(instruction, -1) {
		for at := i; at < len(lines); at++ {
			if strings.TrimLeft(lines[at], "\t") == m[1] {
				i = at + 1
				break
			}
		}
	}
	return i
}

func (d *docker) instruction(line int, word, rest string) {
	switch word {
	case "ARG":
		if d.from == 0 {
			d.declare(line, rest)
		}
	case "FROM":
		d.base(line, rest)
	case "COPY", "RUN", "ADD":
		d.sources(line, word, rest)
	case "ONBUILD":
		inner, after, _ := strings.Cut(rest, " ")
		if inner = strings.ToUpper(inner); inner == "COPY" || inner == "RUN" {
			d.sources(line, inner, strings.TrimSpace(after))
		}
	}
}

// declare reads an ARG before the first FROM. FROM sees no others.
func (d *docker) declare(line int, rest string) {
	for _, one := range strings.Fields(rest) {
		name, v, given := strings.Cut(one, "=")
		if arg, ok := d.r.o.BuildArgs[name]; ok {
			d.args[name] = arg
			continue
		}
		if !given {
			continue
		}
		v, err := expand(unquote(v), d.lookup)
		if err != nil {
			d.r.fault(line, err)
			continue
		}
		d.args[name] = v
	}
}

// automatic are the arguments that BuildKit sets itself, to what the build is for.
var automatic = regexp.MustCompile(`^(BUILD|TARGET)(PLATFORM|OS|ARCH|VARIANT)$`)

func (d *docker) lookup(name string) (string, bool) {
	v, ok := d.args[name]
	return v, ok
}

// base reads FROM [--platform=P] IMAGE [AS NAME].
func (d *docker) base(line int, rest string) {
	d.from++
	words := strings.Fields(rest)
	platform := ""
	for len(words) > 0 && strings.HasPrefix(words[0], "--") {
		flag, v, _ := strings.Cut(words[0], "=")
		if flag == "--platform" {
			platform = unquote(v)
		}
		words = words[1:]
	}
	if len(words) == 0 {
		d.r.fault(line, errors.New("FROM names no image"))
		return
	}
	name := unquote(words[0])
	if len(words) == 3 && strings.EqualFold(words[1], "as") {
		defer func() { d.stages[strings.ToLower(words[2])] = true }()
	} else if len(words) != 1 {
		d.r.fault(line, fmt.Errorf("FROM has %d words: write FROM IMAGE or FROM IMAGE AS NAME", len(words)))
		return
	}
	name, err := expand(name, d.lookup)
	if err != nil {
		d.r.fault(line, d.explain(err))
		return
	}
	if name == "" {
		d.r.fault(line, errors.New("FROM names no image: its argument is empty"))
		return
	}
	platforms, err := d.platform(platform)
	if err != nil {
		d.r.fault(line, d.explain(err))
		return
	}
	d.pulled(line, name, platforms)
}

// platform reads the value of --platform. The automatic arguments stand for the
// platforms that the caller is asked for.
func (d *docker) platform(s string) ([]string, error) {
	bare := strings.Trim(s, "${}")
	if s == "" || automatic.MatchString(bare) {
		if _, given := d.args[bare]; !given {
			return nil, nil
		}
	}
	p, err := expand(s, d.lookup)
	if err != nil || p == "" {
		return nil, err
	}
	return []string{p}, nil
}

// explain says how an argument gets a value here.
func (d *docker) explain(err error) error {
	return fmt.Errorf("%w (here: a default of ARG before the first FROM, or a build argument)", err)
}

// pulled takes in an image unless it is a stage or nothing at all.
func (d *docker) pulled(line int, name string, platforms []string) {
	if d.stages[strings.ToLower(name)] || name == "scratch" {
		return
	}
	d.r.add(line, name, platforms...)
}

// sources reads the flags of COPY and RUN for images that content is taken from.
func (d *docker) sources(line int, word, rest string) {
	for _, flag := range strings.Fields(rest) {
		if !strings.HasPrefix(flag, "--") {
			return // flags come first
		}
		name, v, _ := strings.Cut(flag, "=")
		switch {
		case name == "--from" && word == "COPY":
			d.source(line, v)
		case name == "--mount" && word == "RUN":
			for part := range strings.SplitSeq(unquote(v), ",") {
				if key, from, ok := strings.Cut(part, "="); ok && key == "from" {
					d.source(line, from)
				}
			}
		}
	}
}

// source adds what content is copied from, if it is an image and not a stage.
func (d *docker) source(line int, name string) {
	name = unquote(name)
	if _, err := strconv.Atoi(name); err == nil {
		return
	}
	if strings.Contains(name, "$") {
		d.r.fault(line, fmt.Errorf("%q: a source of files cannot be a variable: name a stage that is FROM it", clip(name)))
		return
	}
	if name != "" && name != "context" {
		d.pulled(line, name, nil)
	}
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}
