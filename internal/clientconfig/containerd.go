package clientconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
)

// ErrUnfit means that containerd is set up in a way in which it would not read what is written,
// or would not start with it.
var ErrUnfit = errors.New("containerd of this machine cannot be pointed at a mirror by hosts.toml")

// certsD is where containerd has its hosts.toml, if it is not told otherwise.
const certsD = "etc/containerd/certs.d"

// ContainerdConfigs are where containerd's configuration is, those that a distribution writes first.
func ContainerdConfigs() []string {
	return []string{
		"var/lib/rancher/k3s/agent/etc/containerd/config.toml",
		"var/lib/rancher/rke2/agent/etc/containerd/config.toml",
		"etc/containerd/config.toml",
	}
}

// hostsTOML keeps the mirror in the hosts.toml for all registries that have none of their own.
func hostsTOML(m mirror) func(string, bool) (string, error) {
	// "referrers" among the capabilities would make containerd before 2.2 drop the whole file. Without
	// "server" the registry itself is tried last.
	text := fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"2s\"\n", m.url)
	if m.CA != "" {
		text += fmt.Sprintf("  ca = %q\n", "/"+certsD+"/_default/"+caName)
	}
	add := block(text)
	return func(old string, put bool) (string, error) {
		rest, err := without(old)
		if err == nil && put && (strings.Contains(rest, `[host."`+m.url+`"]`) || strings.Contains(rest, `[host.'`+m.url+`']`)) {
			return rest, nil // somebody has written it already, and takes care of it
		}
		return add(old, put)
	}
}

// caName is the file with the certificate of who signed that of the mirror, beside hosts.toml.
const caName = "forebay-ca.pem"

var (
	heading = regexp.MustCompile(`^\s*\[+([^\]]+)\]`)
	folders = regexp.MustCompile(`^\s*config_path\s*=\s*["']([^"']*)["']`)
	// hinders is a section that containerd does not take beside config_path. It takes mirrors and
	// configs without any in it, which its own default has, and logins in configs, which k3s writes.
	hinders = regexp.MustCompile(`\.registry\.(mirrors\..|configs\..*\.tls$)`)
)

// imports is the key of other files that containerd reads behind its own, a list that may take several lines.
var imports = regexp.MustCompile(`(?m)^\s*imports\s*=\s*\[([^\]]*)\]`)

// imported returns what a configuration of containerd takes from other files, in order: by names or patterns, a
// relative one from its own folder (containerd-config.toml(5)).
func imported(root *os.Root, name, text string) (texts []string) {
	m := imports.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	for line := range strings.Lines(m[1]) {
		for pattern := range strings.SplitSeq(BareTOML(line), ",") {
			if pattern = strings.Trim(pattern, "\"' \t"); pattern == "" {
				continue
			}
			if !path.IsAbs(pattern) {
				pattern = path.Join("/", path.Dir(name), pattern)
			}
			files, _ := fs.Glob(root.FS(), path.Join(Real(root, path.Dir(pattern)[1:]), path.Base(pattern))) // none for what is no pattern
			for _, file := range files {
				if more, err := readFile(root, file); err == nil { // what cannot be read is doctor's to tell of the others
					texts = append(texts, more)
				}
			}
		}
	}
	return texts
}

// HostsFolder returns where containerd looks for hosts.toml, below the root of the machine, or
// [ErrUnfit] with what to change. Its configuration is read line by line: of all that TOML allows,
// nobody writes these keys in another way.
func HostsFolder(root *os.Root) (string, error) {
	for _, name := range ContainerdConfigs() {
		text, err := readFile(root, name)
		if err != nil {
			return "", err
		}
		if text == "" {
			continue
		}
		for _, more := range imported(root, name, text) {
			text += "\n" + more
		}
		section, dir, old := "", "", ""
		for line := range strings.Lines(text) {
			if m := heading.FindStringSubmatch(line); m != nil {
				section = strings.TrimSpace(m[1])
				if hinders.MatchString(section) {
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
	return "", fmt.Errorf("%w: there is no configuration of containerd in /%s", ErrUnfit, strings.Join(ContainerdConfigs(), ", /"))
}
