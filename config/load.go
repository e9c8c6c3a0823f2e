package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forebay/config/fault"
	"forebay/config/parse"
	"forebay/config/unit"
)

// DefaultFile is read when no file is named, if it is there.
const DefaultFile = "/etc/forebay/forebay.yaml"

// fileMost bounds the size of a configuration file and of a password file.
const fileMost = 1 << 20

// Flag is a setting that was given on the command line.
type Flag struct {
	Name  string // "--storage-dir"
	Key   string // "storage.dir"
	Value string
}

// Sources says where settings come from. The zero value gives the defaults, but for
// the storage folder, which needs Root or Env.
type Sources struct {
	// File names the YAML file. Empty: the one that FOREBAY_CONFIG names, else
	// DefaultFile if it exists.
	File  string
	Env   []string // NAME=VALUE, as from os.Environ
	Flags []Flag
	Root  bool // the process may write to system folders
}

// Load returns the configuration that the sources give together. Its error is of type
// [Faults], unless the file itself cannot be read.
func Load(s Sources) (*Config, error) {
	env := environment(s.Env)
	name, text, err := readFile(s.File, env)
	if err != nil {
		return nil, err
	}
	c := defaults()
	c.File = name
	d := &decoder{config: c, name: name, folder: folderOf(name)}
	if name != "" {
		d.file(text)
	}
	d.chooseUpstreams(env)
	d.environment(env)
	d.flags(s.Flags)
	d.storageDir(s.Root, env)
	slices.SortFunc(c.Upstreams, func(a, b Upstream) int { return strings.Compare(a.Name, b.Name) })
	d.check()
	if err := d.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// environment returns the variables by name; the last of one name counts, as in exec.
func environment(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, entry := range env {
		if name, value, ok := strings.Cut(entry, "="); ok {
			m[name] = value
		}
	}
	return m
}

// readFile returns the name and text of the file to use; no name when there is none.
func readFile(name string, env map[string]string) (string, []byte, error) {
	if name == "" {
		name = env["FOREBAY_CONFIG"]
	}
	optional := name == ""
	if optional {
		name = DefaultFile
	}
	text, err := readBounded(name)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("read configuration: %w", err)
	}
	return name, text, nil
}

// readBounded reads a file of at most fileMost bytes.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, fileMost+1))
	if err != nil {
		return nil, err
	}
	if len(text) > fileMost {
		return nil, fmt.Errorf("%q is larger than %s", name, unit.FormatSize(fileMost))
	}
	return text, nil
}

// storageDir sets the default folder, which depends on the user.
func (d *decoder) storageDir(root bool, env map[string]string) {
	s := &d.config.Storage
	if s.Dir != "" {
		return
	}
	if origin, given := d.config.origins["storage.dir"]; given {
		d.Add(origin, "storage.dir", "is empty: name a folder")
		return
	}
	switch {
	case root:
		s.Dir = "/var/lib/forebay"
	case filepath.IsAbs(env["XDG_DATA_HOME"]): // relative ones are to be ignored, says the XDG specification
		s.Dir = filepath.Join(env["XDG_DATA_HOME"], "forebay")
	case filepath.IsAbs(env["HOME"]):
		s.Dir = filepath.Join(env["HOME"], ".local", "share", "forebay")
	default:
		d.Add(Origin{}, "storage.dir", "has no default, since neither XDG_DATA_HOME nor HOME is set: set it, or FOREBAY_STORAGE_DIR")
	}
}

// flags decodes what the command line says.
func (d *decoder) flags(flags []Flag) {
	for _, flag := range flags {
		at := Origin{Source: fault.FromFlag, Name: flag.Name}
		f := d.lookup(flag.Key)
		if f == nil {
			// Flags are our own, so this is not a user's mistake.
			panic("config: flag " + flag.Name + " is for no key: " + flag.Key)
		}
		d.text(at, flag.Key, f, flag.Value)
	}
}

// lookup returns the field of a path outside of upstreams, or nil.
func (d *decoder) lookup(path string) *field {
	fields := d.config.fields()
	for {
		name, rest, more := strings.Cut(path, ".")
		f := find(fields, name)
		if f == nil || !more {
			return f
		}
		fields, path = f.Fields, rest
	}
}

// text sets a field from one text: a variable or a flag. Lists and tables are
// separated by commas.
func (d *decoder) text(at Origin, path string, f *field, text string) {
	d.config.origins[path] = at
	if f.File && (f.Plain == "" || text != f.Plain) {
		name, err := parse.Absolute("", text)
		if err != nil {
			d.Add(at, path, "%s", err)
			return
		}
		text = name
	}
	if f.Clear == nil {
		if err := f.Set(text); err != nil {
			d.Add(at, path, "%s", err)
		}
		return
	}
	f.Clear()
	for key := range d.config.origins {
		if strings.HasPrefix(key, path+"[") { // of mappings that are there no more
			delete(d.config.origins, key)
		}
	}
	for _, element := range parse.List(text) {
		if err := f.Set(element); err != nil {
			d.Add(at, path, "%s", err)
		}
	}
}
