// Package nodesetup points the containerd of a machine at a mirror, and takes that back.
//
// It promises that what was there stays as it was, and that nothing is written that would stop
// the runtime from starting or that it would not read. It never changes containerd's own configuration, which is
// read only at its start.
package nodesetup

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
)

// Node is the machine whose containerd is pointed at a mirror.
type Node struct {
	Root   string // where the machine's file system is: "/", or where a container has it mounted
	Mirror string // URL
}

// ErrUnfit means that containerd is set up in a way in which it would not read what is written,
// or would not start with it.
var ErrUnfit = errors.New("containerd of this machine cannot be pointed at a mirror by hosts.toml")

const (
	begin = "# forebay begin: this block comes and goes with the mirror"
	end   = "# forebay end"
)

// configs are where containerd's configuration is, those that a distribution writes first.
func configs() []string {
	return []string{
		"var/lib/rancher/k3s/agent/etc/containerd/config.toml",
		"var/lib/rancher/rke2/agent/etc/containerd/config.toml",
		"etc/containerd/config.toml",
	}
}

// Install writes the mirror into the hosts.toml for all registries that have none of their own,
// after what others wrote there. It returns the file's name on the machine, and whether it was
// changed.
func (n Node) Install() (file string, changed bool, err error) {
	if u, err := url.Parse(n.Mirror); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.ContainsAny(n.Mirror, "\"\\\n") {
		return "", false, fmt.Errorf("%q is no URL of a mirror, such as http://127.0.0.1:5000", n.Mirror)
	}
	return n.edit(func(rest string) (string, error) {
		if strings.Contains(rest, `[host."`+n.Mirror+`"]`) || strings.Contains(rest, `[host.'`+n.Mirror+`']`) {
			return rest, nil // somebody has written it already, and takes care of it
		}
		// "referrers" among the capabilities would make containerd before 2.2 drop the whole file. Without
		// "server" the registry itself is tried last.
		return rest + begin + "\n[host.\"" + n.Mirror + "\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"2s\"\n" + end + "\n", nil
	})
}

// Remove takes back what Install has written.
func (n Node) Remove() (file string, changed bool, err error) {
	return n.edit(func(rest string) (string, error) { return rest, nil })
}

// edit has change make the new text from that of others.
func (n Node) edit(change func(rest string) (string, error)) (string, bool, error) {
	root, err := os.OpenRoot(n.Root)
	if err != nil {
		return "", false, err
	}
	defer func() { _ = root.Close() }() // nothing is written through it
	dir, err := hostsFolder(root)
	if err != nil {
		return "", false, err
	}
	file := path.Join(dir, "_default", "hosts.toml")
	old, err := readFile(root, file)
	if err != nil {
		return "", false, err
	}
	rest, err := without(old)
	if err != nil {
		return "", false, fmt.Errorf("%q: %w", "/"+file, err)
	}
	text, err := change(rest)
	if err != nil || text == old {
		return "/" + file, false, err
	}
	if text == "" {
		if err := root.Remove(file); err != nil {
			return "", false, err
		}
		_ = root.Remove(path.Dir(file)) // which has something of others, or goes
		return "/" + file, true, nil
	}
	return "/" + file, true, replace(root, file, text)
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

// replace writes a file whole: containerd reads it at every pull.
func replace(root *os.Root, name, text string) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	temporary := name + ".forebay"
	if err := root.WriteFile(temporary, []byte(text), 0o644); err != nil {
		return err
	}
	return root.Rename(temporary, name)
}

func readFile(root *os.Root, name string) (string, error) {
	b, err := root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

var (
	heading = regexp.MustCompile(`^\s*\[+([^\]]+)\]`)
	folders = regexp.MustCompile(`^\s*config_path\s*=\s*["']([^"']*)["']`)
)

// hostsFolder returns where containerd looks for hosts.toml, below the root of the machine, or
// [ErrUnfit] with what to change. Its configuration is read line by line: of all that TOML allows,
// nobody writes these keys in another way.
func hostsFolder(root *os.Root) (string, error) {
	for _, name := range configs() {
		text, err := readFile(root, name)
		if err != nil {
			return "", err
		}
		if text == "" {
			continue
		}
		section, dir, old := "", "", ""
		for line := range strings.Lines(text) {
			if m := heading.FindStringSubmatch(line); m != nil {
				section = strings.TrimSpace(m[1])
				if strings.Contains(section, ".registry.mirrors") || strings.Contains(section, ".registry.configs") {
					old = section
				}
				continue
			}
			if m := folders.FindStringSubmatch(line); m != nil && strings.HasSuffix(section, ".registry") {
				dir = m[1]
			}
		}
		switch {
		case dir != "" && old != "":
			return "", fmt.Errorf("%w: %q has both config_path and [%s], with which its CRI plugin does not load: move the latter to a hosts.toml", ErrUnfit, "/"+name, old)
		case dir == "":
			return "", fmt.Errorf("%w: %q sets no config_path in […registry]: set it to \"/etc/containerd/certs.d\" and restart containerd", ErrUnfit, "/"+name)
		case strings.Contains(dir, ":"):
			return "", fmt.Errorf("%w: config_path in %q names several folders, of which containerd 2.2 and newer read none: name one", ErrUnfit, "/"+name)
		case !path.IsAbs(dir):
			return "", fmt.Errorf("%w: config_path in %q is %q, which is no absolute path", ErrUnfit, "/"+name, dir)
		}
		return strings.TrimPrefix(path.Clean(dir), "/"), nil
	}
	return "", fmt.Errorf("%w: there is no configuration of containerd in /%s", ErrUnfit, strings.Join(configs(), ", /"))
}
