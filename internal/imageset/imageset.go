// Package imageset reads which images a file names: plain lists, Kubernetes manifests and
// what Helm makes of charts, Compose files, Dockerfiles, lock files and wanted lists.
//
// It promises that every image that it returns is in the file, at the line that it reports,
// and that it never leaves an image out silently: what it cannot understand is an error.
// Files come from outside: their size, their depth and their number of images are bounded.
// Nothing here asks a registry.
package imageset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"forebay/internal/wire"
)

// Format is what a file is.
type Format string

// The formats. Auto finds out by the content.
const (
	Auto       Format = "auto"
	List       Format = "list"       // a name a line
	Kubernetes Format = "kubernetes" // any YAML or JSON with images in it; pipelines too if found out
	Compose    Format = "compose"
	Dockerfile Format = "dockerfile"
	Lock       Format = "lock"
	Wanted     Format = "wanted"
	Quadlet    Format = "quadlet" // units of podman
)

// Formats returns the names of all formats.
func Formats() []Format {
	return []Format{Auto, List, Kubernetes, Compose, Dockerfile, Lock, Wanted, Quadlet}
}

// ParseFormat reads the name of a format. Empty is Auto.
func ParseFormat(s string) (Format, error) {
	if s == "" {
		return Auto, nil
	}
	names := make([]string, 0, len(Formats()))
	for _, f := range Formats() {
		if string(f) == s {
			return f, nil
		}
		names = append(names, string(f))
	}
	return "", fmt.Errorf("%q is no format of image lists: use one of %s", clip(s), strings.Join(names, ", "))
}

// Position is a place in a file.
type Position struct {
	File string // as it was given to Read
	Line int    // from 1; 0 is the file as a whole
}

func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Entry is one image that a file names.
type Entry struct {
	// Ref is the meaning of the name. It always has a tag or a digest. Lock files have both:
	// the digest says what to fetch, and the tag which name it is for.
	Ref wire.Reference
	// Platforms are those that the file asks for. None means those of the caller.
	Platforms []string
	// Blob says that the digest is that of a blob and not of a manifest, as in wanted lists only.
	Blob bool
	// Since and Decided are what a lock file says of a tag beside its digest.
	Since   time.Time
	Decided *wire.Decision
	At      Position
}

// Fault is something in a file that cannot be understood.
type Fault struct {
	At  Position
	Err error
}

func (f Fault) Error() string { return f.At.String() + ": " + f.Err.Error() }
func (f Fault) Unwrap() error { return f.Err }

// Faults are all that is wrong with a file.
type Faults []Fault

// faultsTold bounds the text of faults.
const faultsTold = 20

func (f Faults) Error() string {
	var lines []string
	for i, fault := range f {
		if i == faultsTold {
			lines = append(lines, fmt.Sprintf("and %d more", len(f)-faultsTold))
			break
		}
		lines = append(lines, fault.Error())
	}
	return strings.Join(lines, "\n")
}

// Options says how to read. Registries is required.
type Options struct {
	Registries *wire.Registries // what names mean
	Format     Format           // empty is Auto
	// Lookup returns the value of a variable that a Compose file names. nil: none is set.
	Lookup func(name string) (value string, ok bool)
	// BuildArgs are arguments that a Dockerfile declares before its first FROM.
	BuildArgs map[string]string
	// Platforms are those that the images are wanted for, which choose among the stages of a
	// Dockerfile. None means that of this machine.
	Platforms []string
	// Note is told of what the file leads to and what is not read: other files, charts. nil
	// tells nobody.
	Note func(Fault)
}

// Bounds of what is read.
const (
	fileMax    = 32 << 20 // the output of Helm for a whole platform has some 5 MB
	filesMax   = 100      // that one file leads to
	entriesMax = 100_000
	faultsMax  = 1000
)

// Read returns the images that r names, each once for the same platforms, in the order of
// the file. name is the file's name, for positions. The error is [Faults] when the file is
// read and something in it is wrong; the images that were understood are returned with it.
func Read(name string, r io.Reader, o Options) ([]Entry, error) {
	return (&reader{name: name, o: o, found: &found{seen: map[string]bool{}}}).all(r)
}

// ReadFile is Read of a file. YAML files that it includes by a relative name are read too,
// and the .env beside a Compose file.
func ReadFile(name string, o Options) (_ []Entry, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return (&reader{name: name, dir: filepath.Dir(name), o: o, found: &found{seen: map[string]bool{}}}).all(f)
}

// reader reads one text.
type reader struct {
	name string
	dir  string // in which files that it includes are; "" if none are read
	line int    // of the file, before the first of the text
	o    Options
	*found
}

// found is what a file and those that it includes name.
type found struct {
	entries []Entry
	seen    map[string]bool
	faults  Faults
	files   int // how many were included
	// inputs are those that a pipeline of GitLab declares, with their defaults.
	inputs map[string][]string
	// assigned is how many values of variables were looked at.
	assigned int
	notes    int // how many were told
}

func (r *reader) all(in io.Reader) ([]Entry, error) {
	text, err := io.ReadAll(io.LimitReader(in, fileMax+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", r.name, err)
	}
	r.text(text)
	if len(r.faults) > 0 {
		return r.entries, r.faults
	}
	return r.entries, nil
}

func (r *reader) text(text []byte) {
	if len(text) > fileMax {
		r.fault(0, fmt.Errorf("is larger than %d MiB", fileMax>>20))
		return
	}
	text, _, err := transform.Bytes(unicode.BOMOverride(transform.Nop), text) // PowerShell's > makes UTF-16
	if err != nil || bytes.IndexByte(text, 0) >= 0 {
		r.fault(0, errors.New("is no text: name a list of images, a manifest, a Compose file, a Dockerfile, a lock file or a wanted list"))
		return
	}
	r.read(text)
}

// beside returns a reader of the file that is called name in the file that r reads, and its
// text. Only YAML is read, so that a file of strangers shows nobody others that are here.
func (r *reader) beside(name string) (*reader, []byte, error) {
	switch path.Ext(name) {
	case ".yml", ".yaml", ".json", ".env":
	default:
		if path.Base(name) != ".env" {
			return nil, nil, errNotFollowed
		}
	}
	if r.dir == "" || filepath.IsAbs(name) || strings.ContainsAny(name, "$*:") {
		return nil, nil, errNotFollowed
	}
	if r.files++; r.files > filesMax {
		return nil, nil, fmt.Errorf("leads to more than %d files", filesMax)
	}
	full := filepath.Join(r.dir, filepath.FromSlash(name))
	f, err := os.Open(full)
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, nil, err
	}
	return &reader{name: full, dir: filepath.Dir(full), o: r.o, found: r.found}, text, nil
}

// errNotFollowed means that a file is elsewhere, or that only one file was given.
var errNotFollowed = errors.New("is not followed from here")

func (r *reader) read(text []byte) {
	format := r.o.Format
	if format == "" || format == Auto {
		format = Detect(text)
	}
	switch format {
	case List:
		r.list(text)
	case Compose:
		r.yaml(text, func(root *yaml.Node) { r.compose(root) })
	case Dockerfile:
		r.dockerfile(text, building{args: r.o.BuildArgs})
	case Lock:
		r.lock(text)
	case Wanted:
		r.wanted(text)
	case Quadlet:
		r.quadlet(string(text))
	default:
		if r.o.Format == Kubernetes {
			r.yaml(text, func(root *yaml.Node) { r.objects(root, true) })
			return
		}
		r.yaml(text, r.document)
	}
}

// latest is the tag of a name without one, as for every client.
const latest = "latest"

// add takes in an image as it is written on a line. A platform that is empty is none.
func (r *reader) add(line int, written string, platforms ...string) {
	ref, err := r.o.Registries.Reference(written)
	if err != nil {
		r.fault(line, err)
		return
	}
	switch {
	case ref.HasDigest():
		ref.Tag = "" // the digest counts, for every client
	case ref.Tag == "":
		ref.Tag = latest
	}
	platforms = slices.DeleteFunc(platforms, func(p string) bool { return p == "" })
	r.put(Entry{Ref: ref, Platforms: platforms, At: Position{r.name, r.line + line}})
}

// put takes in an entry that is not there yet.
func (r *reader) put(e Entry) {
	for i, p := range e.Platforms {
		usual, err := wire.Platform(p)
		if err != nil {
			r.fault(e.At.Line-r.line, err)
			return
		}
		e.Platforms[i] = usual
	}
	key := e.Ref.String() + " " + strings.Join(e.Platforms, ",")
	if r.seen[key] {
		return
	}
	if len(r.entries) == entriesMax {
		if !r.seen[""] {
			r.seen[""] = true
			r.fault(e.At.Line-r.line, fmt.Errorf("names more than %d images: use several files", entriesMax))
		}
		return
	}
	r.seen[key] = true
	r.entries = append(r.entries, e)
}

func (r *reader) fault(line int, err error) {
	at := Position{r.name, r.line + line}
	told := slices.ContainsFunc(r.faults, func(f Fault) bool { return f.At == at && f.Err.Error() == err.Error() })
	if len(r.faults) < faultsMax && !told {
		r.faults = append(r.faults, Fault{at, err})
	}
}

func (r *reader) note(line int, text string) {
	r.notes++
	if r.o.Note != nil {
		r.o.Note(Fault{Position{r.name, r.line + line}, errors.New(text)})
	}
}

// Detect finds out what a text is. Kubernetes stands for all YAML and JSON, of which each
// document is looked at by itself.
func Detect(text []byte) Format {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0 || line[0] == '#':
			continue
		case quadletSection.Match(line):
			return Quadlet
		case bytes.HasPrefix(line, []byte("//")) || bytes.HasPrefix(line, []byte("/*")): // JSON, or a program
			if plain, err := withoutComments(text); err == nil && strings.IndexByte("{[", append(bytes.TrimSpace(plain), '{')[0]) < 0 {
				return List
			}
			return Kubernetes
		case line[0] == '[' && tomlTable.Match(line):
			return List
		case line[0] == '{' || line[0] == '[':
			return detectJSON(text)
		case dockerStart.Match(line):
			return Dockerfile
		case bytes.HasPrefix(line, []byte("---")), bytes.HasPrefix(line, []byte("%YAML")), bytes.HasPrefix(line, []byte("- ")),
			bytes.HasSuffix(line, []byte(":")), yamlPair.Match(line):
			return Kubernetes
		default:
			return List
		}
	}
	return List
}

var (
	// What a Dockerfile starts with; no name of an image is followed by another word.
	dockerStart = regexp.MustCompile(`^(?i:from|arg)\s+\S`)
	mapped      = regexp.MustCompile(`^[^\s=]+/[^\s=]+=[^\s=]+/[^\s=]+$`)
	tomlTable   = regexp.MustCompile(`^\[\[?[A-Za-z][\w.-]*\]\]?$`)
	yamlPair    = regexp.MustCompile(`^("[^"]*"|'[^']*'|[^\s#]+)\s*:\s`)
	// Blocks of HCL, at the left edge: of bake, Nomad, Terraform, Waypoint.
	hcl       = regexp.MustCompile(`(?m)^(target|group|variable|function|job|resource|module|data|locals|provider|terraform|project)(\s+"[^"\n]*")*\s*(=\s*)?\{`)
	lockKey   = regexp.MustCompile(`^\s*\{\s*"` + lockVersionKey + `"\s*:`)
	wantedKey = regexp.MustCompile(`^\s*\{\s*"wanted"\s*:`)
)

func detectJSON(text []byte) Format {
	switch {
	case lockKey.Match(text):
		return Lock
	case wantedKey.Match(text):
		return Wanted
	}
	return Kubernetes
}

// list reads a name a line. What follows a # at the start of a line or after a space is a
// comment.
func (r *reader) list(text []byte) {
	if at := hcl.FindIndex(text); at != nil {
		r.fault(bytes.Count(text[:at[0]], []byte("\n"))+1, errors.New(hclHint(text)))
		return
	}
	if what := stranger(bytes.SplitN(text, []byte("\n"), 21)); what != "" {
		r.fault(1, errors.New("is "+what))
		return
	}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		s := string(line)
		if i := strings.IndexByte(s, '#'); i == 0 || i > 0 && (s[i-1] == ' ' || s[i-1] == '\t') {
			s = s[:i]
		}
		s = strings.TrimSpace(s)
		switch {
		case s == "":
		case strings.HasPrefix(s, "-P ") && strings.Contains(s, "="): // .actrc: the images of act's platforms
			r.add(number, s[strings.IndexByte(s, '=')+1:])
		case mapped.MatchString(s): // mapping.txt of oc-mirror: SOURCE=TARGET
			r.add(number, s[:strings.IndexByte(s, '=')])
		case strings.ContainsAny(s, " \t"):
			r.fault(number, fmt.Errorf("%q is no name of an image: write one name a line, such as nginx:1.27", clip(s)))
		default:
			r.add(number, s)
		}
	}
}

// clip bounds what is quoted in the texts of errors.
func clip(s string) string { return wire.Clip(s, 80) }
