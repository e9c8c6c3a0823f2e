package doctor

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"forebay/internal/clientconfig"
	"forebay/internal/registries"
)

const hub = "docker.io"

// dockerd looks at daemon.json.
func (l *look) dockerd() {
	const name = "etc/docker/daemon.json"
	text, ok := l.read(name)
	if !ok {
		return
	}
	l.has("dockerd")
	var c struct {
		Mirrors []string `json:"registry-mirrors"`
	}
	if text = clientconfig.DaemonJSON(text); text == "" {
		text = "{}"
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		l.wrong("/"+name, "is not what dockerd reads: "+err.Error(), "correct it: dockerd does not start with it")
		return
	}
	if len(c.Mirrors) == 0 {
		l.wrong("/"+name, "names no registry-mirrors: dockerd goes to Docker Hub", "forebay client-config dockerd --url http://MIRROR:5000 --install")
	}
	for _, m := range c.Mirrors {
		switch u, err := url.Parse(m); {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			l.wrong("/"+name, fmt.Sprintf("registry-mirrors has %q, which is no URL: dockerd does not start with it", m), "write http:// or https:// and the host")
		case u.User != nil:
			l.wrong("/"+name, "registry-mirrors has a user in a URL, which dockerd refuses", "leave it out: such a mirror lets clients in by network or certificate")
		case strings.Trim(u.Path, "/") != "":
			l.wrong("/"+name, fmt.Sprintf("registry-mirrors has %q with a path, for which dockerd asks in a place where there may be no mirror", m), "leave the path out: "+u.Scheme+"://"+u.Host)
			l.uses(u.Scheme + "://" + u.Host)
		default:
			l.uses(m)
		}
	}
	// With the containerd image store it takes the place of registry-mirrors (moby 28).
	if text, ok := l.read("etc/docker/certs.d/docker.io/hosts.toml"); ok && !slices.ContainsFunc(c.Mirrors, func(m string) bool { return strings.Contains(text, strings.TrimSuffix(m, "/")) }) {
		l.wrong("/etc/docker/certs.d/docker.io/hosts.toml", "takes the place of registry-mirrors with the containerd image store, and does not name its mirror", "write the mirror there, or remove it")
	}
}

// containerd looks at its configuration and all hosts.toml.
func (l *look) containerd() {
	if !slices.ContainsFunc(clientconfig.ContainerdConfigs(), func(name string) bool { _, err := l.root.Stat(clientconfig.Real(l.root, name)); return err == nil }) {
		return
	}
	l.has("containerd")
	dir, err := clientconfig.HostsFolder(l.root)
	if err != nil {
		wrong, do, _ := strings.Cut(strings.TrimPrefix(err.Error(), clientconfig.ErrUnfit.Error()+": "), ": ")
		l.wrong("containerd", wrong+": every pull goes to the registry itself", do)
		return
	}
	folders, err := fs.ReadDir(l.root.FS(), clientconfig.Real(l.root, dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.wrong("/"+dir, err.Error(), "look at it as root")
	}
	hosts := 0
	for _, f := range folders {
		name := path.Join(dir, f.Name(), "hosts.toml")
		if text, ok := l.read(name); ok {
			hosts++
			l.hosts("/"+name, f.Name(), text)
		}
	}
	if hosts == 0 {
		l.wrong("/"+dir, "has no hosts.toml: containerd goes to the registries themselves", "forebay client-config containerd --url http://MIRROR:5000 --install")
	}
}

// line is a line of TOML that means something here: what nobody writes in another way.
type line struct{ section, key, value string }

// lines reads a file of TOML as far as single lines go.
func lines(text string) (all []line) {
	section := ""
	for raw := range strings.Lines(text) {
		raw = clientconfig.BareTOML(raw)
		if strings.HasPrefix(raw, `["`) || strings.HasPrefix(raw, "['") {
			continue // of a list that began on a line before
		}
		if strings.HasPrefix(raw, "[") {
			if end := strings.LastIndex(raw, "]"); end > 0 {
				section = strings.ReplaceAll(strings.Trim(raw[:end], "[] \t"), "'", `"`)
				if strings.HasPrefix(section, "host.") { // an address of IPv6 ends with a bracket too
					section = strings.TrimPrefix(strings.ReplaceAll(raw[:end], "'", `"`), "[")
				}
				all = append(all, line{section: section})
			}
			continue
		}
		if key, value, ok := strings.Cut(raw, "="); ok {
			all = append(all, line{section, strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"'`)})
		}
	}
	return all
}

// itself reports whether a host is that of a registry, which a list of mirrors may end with.
func itself(registry, host string) bool {
	return host == registry || slices.Contains(registries.Find(registry).Aliases, host)
}

// texts returns those of a list in TOML, or the one that is in no list.
func texts(value string) (all []string) {
	for _, text := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(`[]",'`, r) }) {
		if text = strings.TrimSpace(text); text != "" {
			all = append(all, text)
		}
	}
	return all
}

// hosts looks at a hosts.toml, for a registry or for all (hosts.toml of containerd's documentation).
func (l *look) hosts(name, registry, text string) {
	keys := []string{"server", "capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"}
	capabilities := []string{"pull", "resolve", "push"}
	mirrors := 0
	var paths []string // hosts that have one to which containerd adds /v2
	for _, at := range lines(text) {
		host, isHost := strings.CutPrefix(at.section, `host."`)
		host, below, _ := strings.Cut(host, `"`)
		switch {
		case isHost && below != "": // its header, or the rewrite of k3s
		case at.key == "" && isHost:
			u, err := url.Parse(host)
			if err != nil || u.Host == "" {
				mirrors++
				l.wrong(name, fmt.Sprintf("%q is taken for a host by https://", host), "write http:// before it if the mirror has no certificate")
				continue
			}
			if itself(registry, u.Host) {
				continue
			}
			mirrors++
			if where := strings.TrimSuffix(u.Path, "/"); where != "" && where != "/"+registry && !strings.HasSuffix(where, "/v2") {
				paths = append(paths, host)
			}
			l.uses(u.Scheme + "://" + u.Host)
		case at.key == "":
		case !slices.Contains(keys, at.key):
			l.wrong(name, fmt.Sprintf("has the key %s, which containerd does not read", at.key), "remove it")
		case at.key == "server" && (at.value == "https://docker.io" || at.value == "https://index.docker.io"):
			l.wrong(name, "server is "+at.value+", which is no registry", "write https://registry-1.docker.io")
		case at.key == "capabilities":
			for _, c := range texts(at.value) {
				if !slices.Contains(capabilities, strings.ToLower(c)) {
					l.wrong(name, fmt.Sprintf("has the capability %q, over which containerd before 2.2 drops the whole file and goes to the registry silently", c), `write ["pull", "resolve"]`)
				}
			}
		case (at.key == "ca" || at.key == "client") && strings.HasPrefix(host, "http://"):
			l.wrong(name, "has "+at.key+" for a host by http://, which makes containerd try https:// first", "remove it, or write https://")
		case at.key == "ca":
			for _, file := range texts(at.value) {
				if !path.IsAbs(file) {
					file = path.Join(path.Dir(name), file)
				}
				l.authorities = append(l.authorities, file)
				if _, ok := l.read(strings.TrimPrefix(file, "/")); !ok {
					l.wrong(name, fmt.Sprintf("names the certificate %q, which is not there", file), "put it there: without it every request to the mirror fails")
				}
			}
		case at.key == "override_path" && at.value == "true":
			paths = slices.DeleteFunc(paths, func(with string) bool { return with == host })
		}
	}
	for _, host := range paths {
		l.wrong(name, "the host "+host+" has a path and no override_path, so that containerd asks below PATH/v2", "leave the path out")
	}
	if mirrors == 0 && registries.WellKnown(registry) && (strings.Contains(text, "https://registry-1.docker.io") || strings.Contains(text, "https://"+registry)) {
		l.wrong(name, "names the registry itself and no mirror, and keeps "+registry+" from the hosts.toml for all", "remove it, or write the mirror there")
	}
}

// containersImage looks at what podman, skopeo, buildah and CRI-O read: of the blocks for one prefix
// the last counts (containers-registries.conf(5)).
func (l *look) containersImage() {
	names := []string{"etc/containers/registries.conf"}
	more, _ := fs.ReadDir(l.root.FS(), clientconfig.Real(l.root, "etc/containers/registries.conf.d")) // none is none
	for _, f := range more {
		if strings.HasSuffix(f.Name(), ".conf") {
			names = append(names, "etc/containers/registries.conf.d/"+f.Name())
		}
	}
	type block struct {
		file, prefix, location string
		insecure               bool
		mirrors                []string // URLs, with what stands behind the host
	}
	blocks := map[string]*block{}
	for _, name := range names {
		text, ok := l.read(name)
		if !ok {
			continue
		}
		l.has("podman")
		var all []*block
		for _, at := range lines(text) {
			var now *block
			if len(all) > 0 {
				now = all[len(all)-1]
			}
			switch {
			case at.section == "registry" && at.key == "":
				all = append(all, &block{file: "/" + name})
			case at.section == "registry.mirror" && at.key == "" && now == nil:
				l.wrong("/"+name, "has a [[registry.mirror]] before any [[registry]]", "write it behind that of its registry")
			case now == nil:
			case at.section == "registry" && at.key == "prefix":
				now.prefix = at.value
			case at.section == "registry" && at.key == "location":
				now.location = at.value
			case at.section == "registry" && at.key == "insecure":
				now.insecure = at.value == "true"
			case at.section == "registry.mirror" && at.key == "":
				now.mirrors = append(now.mirrors, "https://")
			case at.section == "registry.mirror" && at.key == "location":
				now.mirrors[len(now.mirrors)-1] += at.value
			case at.section == "registry.mirror" && at.key == "insecure" && at.value == "true":
				last := &now.mirrors[len(now.mirrors)-1]
				*last = "http" + strings.TrimPrefix(*last, "https")
			}
		}
		for _, b := range all {
			b.prefix = cmp.Or(b.prefix, b.location)
			host, rest, _ := strings.Cut(b.location, "/")
			if host != "" && !itself(b.prefix, host) && (b.prefix == hub || strings.HasPrefix(rest, b.prefix)) { // in place of the registry
				b.mirrors = append(b.mirrors, map[bool]string{true: "http://", false: "https://"}[b.insecure]+b.location)
			}
			blocks[b.prefix] = b
		}
	}
	for prefix, b := range blocks {
		for _, m := range b.mirrors {
			scheme, host, _ := strings.Cut(m, "://")
			host, rest, _ := strings.Cut(host, "/")
			l.uses(scheme + "://" + host)
			if prefix != hub && !strings.HasPrefix(rest, prefix) {
				l.wrong(b.file, fmt.Sprintf("the mirror of %s is %q: these programs do not say which registry they mean, so that Docker Hub is asked", prefix, strings.TrimPrefix(m, scheme+"://")), "write "+host+"/"+prefix)
			}
		}
	}
	if b := blocks[hub]; len(blocks) > 0 && (b == nil || len(b.mirrors) == 0) {
		where := "/etc/containers"
		if b != nil {
			where = b.file
		}
		l.wrong(where, "docker.io has no mirror by the last block that is for it: podman goes to the registry", "forebay client-config podman --url http://MIRROR:5000 --install, in a file behind this one")
	}
}

// rancher looks at the registries.yaml of k3s or rke2.
func (l *look) rancher(what string) {
	name := "etc/rancher/" + what + "/registries.yaml"
	text, ok := l.read(name)
	if !ok {
		return
	}
	l.has(what)
	var c struct {
		Mirrors map[string]struct {
			Endpoint []string `yaml:"endpoint"`
		} `yaml:"mirrors"`
		Configs map[string]struct {
			TLS struct {
				CA string `yaml:"ca_file"`
			} `yaml:"tls"`
		} `yaml:"configs"`
	}
	loader, err := yaml.NewLoader(strings.NewReader(text))
	if err == nil {
		err = loader.Load(&c)
	}
	if err != nil && !errors.Is(err, io.EOF) { // of comments alone, which say nothing
		l.wrong("/"+name, "is not what "+what+" reads: "+err.Error(), "correct it")
		return
	}
	for _, of := range c.Configs {
		if of.TLS.CA != "" {
			l.authorities = append(l.authorities, of.TLS.CA)
		}
	}
	for registry, m := range c.Mirrors {
		seen := map[string]bool{}
		for _, e := range m.Endpoint {
			u, err := url.Parse(e)
			switch {
			case err != nil || u.Host == "":
				l.wrong("/"+name, fmt.Sprintf("the endpoint %q of %s is no URL", e, registry), "write http:// or https:// before it")
				continue
			case seen[e]:
				l.wrong("/"+name, fmt.Sprintf("the endpoint %s of %s is there twice, so that none is used", e, registry), "remove one")
			case strings.Trim(u.Path, "/") != "" && !strings.HasPrefix(u.Path, "/v2"):
				l.wrong("/"+name, fmt.Sprintf("the endpoint %s has a path that is not whole", e), "leave it out, or write "+u.Scheme+"://"+u.Host+"/v2"+u.Path)
			}
			seen[e] = true
			if !itself(registry, u.Host) {
				l.uses(u.Scheme + "://" + u.Host)
			}
		}
		if len(m.Endpoint) == 0 {
			l.wrong("/"+name, registry+" has no endpoint, which goes before what is said for all", "write the mirror there")
		}
	}
}
