// Package clientconfig says what to put where so that a client pulls through a mirror, puts it there,
// and takes it back.
//
// It promises that what was there stays as it was, and that nothing is written that would stop a
// client from starting or that it would not read. It never changes containerd's own configuration,
// which is read only at its start.
package clientconfig

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Mirror is what a client is pointed at.
type Mirror struct {
	URL        string   // as the client reaches it: scheme, host and port
	CA         string   // PEM of who signed its certificate; empty if the client trusts it anyway
	Registries []string // for clients that must be told of each, beside Docker Hub's
}

// Setup is what to do for one client.
type Setup struct {
	Files     []File
	Elsewhere string // what goes to a place that is no file of this machine
	Then      string // command after that; empty if it is read at every pull
	Check     string // command that shows whether it took
	Traps     []string
}

// File is one that is written, or written into.
type File struct {
	Name string // on the machine, from its root on and without the first slash
	// edit returns the text with the mirror in it, or without it, of what is there; "" removes
	// the file.
	edit func(old string, put bool) (string, error)
}

// Text returns what a machine gets that has no such file.
func (f File) Text() string {
	text, err := f.edit("", true)
	if err != nil {
		panic("clientconfig: " + f.Name + " cannot be begun: " + err.Error())
	}
	return text
}

// Clients returns the names of all clients.
func Clients() []string {
	var names []string
	for _, c := range clients() {
		names = append(names, c.name)
	}
	return names
}

// For returns what to do for a client.
func For(client string, m Mirror) (*Setup, error) {
	u, err := url.Parse(m.URL)
	if err != nil || !isHost(u.Host) || u.Scheme != "http" && u.Scheme != "https" || strings.ContainsAny(m.URL, "\"'\\\n ") || u.User != nil {
		return nil, fmt.Errorf("%q is no URL of a mirror, such as http://127.0.0.1:5000", m.URL)
	}
	if u.Path = strings.TrimSuffix(u.Path, "/"); u.Path != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("%q has something behind the host, which clients take for a part of names: leave it out", m.URL)
	}
	if m.CA != "" && u.Scheme == "http" {
		return nil, errors.New("a mirror by http:// has no certificate: leave the CA out, or write https://")
	}
	var names []string // each once: of a table that is there twice, buildkitd does not start
	for _, name := range m.Registries {
		if !isHost(name) {
			return nil, fmt.Errorf("%q is no name of a registry, such as ghcr.io", name)
		}
		if name = strings.ToLower(name); name != "docker.io" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	m.Registries = names
	for _, c := range clients() {
		if c.name == client {
			s := c.setup(mirror{Mirror: m, url: u.Scheme + "://" + u.Host, host: u.Host, plain: u.Scheme == "http"})
			return &s, nil
		}
	}
	return nil, fmt.Errorf("%q is no client that is known here: there are %s", client, strings.Join(Clients(), ", "))
}

var hostName = regexp.MustCompile(`^([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?$`)

// isHost reports whether clients take a text for a host in every place of their files. A zone of IPv6 they do
// not: dockerd does not start with one.
func isHost(s string) bool {
	port := hostName.FindStringSubmatch(s)
	if port == nil {
		return false
	}
	_, err := strconv.ParseUint(strings.TrimPrefix(cmp.Or(port[2], ":80"), ":"), 10, 16)
	return err == nil
}

// String is for people to follow: each file with its text, then what to do.
func (s *Setup) String() string {
	var b strings.Builder
	for _, f := range s.Files {
		fmt.Fprintf(&b, "# /%s\n%s\n", f.Name, strings.TrimRight(f.Text(), "\n")+"\n")
	}
	if s.Elsewhere != "" {
		b.WriteString(s.Elsewhere + "\n")
	}
	if s.Then != "" {
		fmt.Fprintf(&b, "# then: %s\n", s.Then)
	}
	if s.Check != "" {
		fmt.Fprintf(&b, "# does it take? %s\n", s.Check)
	}
	for _, trap := range s.Traps {
		fmt.Fprintf(&b, "# mind: %s\n", trap)
	}
	return b.String()
}

// Apply puts the mirror into the files below root, or with put false takes it out, and returns the
// names of those that it has changed. All are read before the first is written.
func (s *Setup) Apply(root string, put bool) (changed []string, err error) {
	if len(s.Files) == 0 {
		return nil, errors.New("this is no setting of a file on this machine: do what is printed")
	}
	machine, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = machine.Close() }() // nothing is written through it
	type writing struct{ name, text string }
	var all []writing
	for _, f := range s.Files {
		name, dir := f.Name, certsD
		if rest, ok := strings.CutPrefix(name, certsD); ok {
			if dir, err = HostsFolder(machine); err != nil {
				return nil, err
			}
			name = dir + rest
		}
		name = Real(machine, name)
		old, err := readFile(machine, name)
		if err != nil {
			return nil, err
		}
		text, err := f.edit(old, put)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", "/"+name, err)
		}
		if text = strings.ReplaceAll(text, "/"+certsD+"/_default/"+caName, "/"+dir+"/_default/"+caName); text != old {
			all = append(all, writing{name, text})
		}
	}
	for _, w := range all {
		if w.text != "" {
			err = replace(machine, w.name, w.text)
		} else if err = machine.Remove(w.name); err == nil {
			_ = machine.Remove(path.Dir(w.name)) // which has something of others, or goes
		}
		if err != nil {
			return changed, err
		}
		changed = append(changed, "/"+w.name)
	}
	return changed, nil
}

// replace writes a file whole: containerd reads its hosts.toml at every pull.
func replace(root *os.Root, name, text string) error {
	mode := fs.FileMode(0o644)
	if info, err := root.Stat(name); err == nil {
		mode = info.Mode().Perm()
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	temporary := name + ".forebay"
	if err := root.WriteFile(temporary, []byte(text), mode); err != nil {
		return err
	}
	return root.Rename(temporary, name)
}

// linksMost bounds how many links a name may lead through, as Linux does (path_resolution(7)).
const linksMost = 40

// Real returns the name, below the root of a machine, of what a name there leads to. A link to /opt/x
// means that of the machine, and is no way out of its root, as it is to [os.Root].
func Real(root *os.Root, name string) string {
	for links, end := 0, 0; end < len(name) && links < linksMost; {
		next := strings.IndexByte(name[end+1:], '/')
		if end += next + 1; next < 0 {
			end = len(name)
		}
		target, err := root.Readlink(name[:end])
		if err != nil {
			continue // no link, or not there
		}
		if !path.IsAbs(target) {
			target = path.Join("/", path.Dir(name[:end]), target)
		}
		name, end = path.Join(target, name[end:])[1:], 0
		links++
	}
	return name
}

func readFile(root *os.Root, name string) (string, error) {
	b, err := root.ReadFile(Real(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

const (
	begin = "# forebay begin: this block comes and goes with the mirror"
	end   = "# forebay end"
)

// block keeps a text as a block behind what others wrote. Where that has one of the keys of others
// already, a second would not be read, or the whole file not.
func block(text string, others ...string) func(string, bool) (string, error) {
	return func(old string, put bool) (string, error) {
		rest, err := without(old)
		if err != nil || !put {
			return rest, err
		}
		for _, key := range others {
			for line := range strings.Lines(rest) {
				if strings.ReplaceAll(BareTOML(line), "'", `"`) == key {
					return "", fmt.Errorf("has %s already: write the mirror there by hand", key)
				}
			}
		}
		return rest + begin + "\n" + text + end + "\n", nil
	}
}

// BareTOML returns a line of TOML without what programs do not read: the space around it, and a comment.
func BareTOML(line string) string {
	var quote rune
	for i, r := range line {
		switch {
		case quote == 0 && r == '#':
			return strings.TrimSpace(line[:i])
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		case r == quote:
			quote = 0
		}
	}
	return strings.TrimSpace(line)
}

// own keeps a file that is ours alone.
func own(text string) func(string, bool) (string, error) {
	return func(old string, put bool) (string, error) {
		switch {
		case old != "" && !strings.HasPrefix(old, begin+"\n"):
			return "", errors.New("is there and not ours: move it away")
		case !put:
			return "", nil
		}
		return begin + "\n" + text, nil
	}
}

// certificate keeps the certificate of a mirror, in a folder that is for its host.
func certificate(pem string) func(string, bool) (string, error) {
	return func(_ string, put bool) (string, error) {
		if !put {
			return "", nil
		}
		return pem, nil
	}
}

// without returns a text without our block.
func without(text string) (string, error) {
	before, rest, ok := strings.Cut(text, begin+"\n")
	if !ok {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		return text, nil
	}
	_, after, ok := strings.Cut(rest, end+"\n")
	if !ok {
		return "", fmt.Errorf("the line %q is missing, so that it cannot be told what is ours", end)
	}
	return before + after, nil
}

// first returns a list with one at its begin, or without it.
func first(list []string, one string, put bool) []string {
	rest := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.TrimSuffix(s, "/") == one })
	if put {
		return append([]string{one}, rest...)
	}
	return rest
}
