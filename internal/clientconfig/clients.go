package clientconfig

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// mirror is a [Mirror] in parts.
type mirror struct {
	Mirror
	url, host string
	plain     bool // by http
}

// client is a program that pulls images.
type client struct {
	name  string
	setup func(m mirror) Setup
}

func clients() []client {
	return []client{
		{"dockerd", dockerd},
		{"containerd", containerd},
		{"podman", func(m mirror) Setup { return containersImage(m, "", "podman info --format '{{.Registries}}'") }},
		{"crio", func(m mirror) Setup {
			return containersImage(m, "systemctl reload crio", "crictl pull docker.io/library/busybox")
		}},
		{"buildkit", buildkit},
		{"k3s", func(m mirror) Setup { return rancher(m, "k3s") }},
		{"rke2", func(m mirror) Setup { return rancher(m, "rke2") }},
		{"kind", kind},
		{"minikube", minikube},
		{"talos", talos},
		{"kaniko", kaniko},
		{"github-actions", githubActions},
		{"gitlab-runner", gitlabRunner},
	}
}

// withCA adds the certificate of a mirror below a folder that is for its host.
func withCA(m mirror, folder string, files ...File) []File {
	if m.CA != "" {
		files = append(files, File{folder + "/" + m.host + "/ca.crt", certificate(m.CA)})
	}
	return files
}

func dockerd(m mirror) Setup {
	s := Setup{
		Files: withCA(m, "etc/docker/certs.d", File{"etc/docker/daemon.json", daemonJSON(m.url)}),
		Then:  "systemctl reload docker",
		Check: "docker info | grep -A2 'Registry Mirrors'",
		Traps: []string{
			"it is for Docker Hub only: of other registries write " + m.host + "/ghcr.io/owner/app, or use the containerd image store (Docker 28) and /etc/docker/certs.d/ghcr.io/hosts.toml",
			"with the containerd image store a /etc/docker/certs.d/docker.io/hosts.toml turns registry-mirrors off",
			"a user and password in the URL are refused; rootless it is ~/.config/docker/daemon.json, Docker Desktop has it in Settings, Docker Engine",
			"when the mirror fails, dockerd goes to Docker Hub and says nothing of it",
		},
	}
	if m.plain {
		s.Traps = append(s.Traps, "insecure-registries is needed only for names that begin with "+m.host)
	}
	return s
}

// DaemonJSON returns the text of a daemon.json as dockerd reads it: without the byte order mark that editors
// of Windows begin a file with (moby 44777), and nothing for what is blank.
func DaemonJSON(text string) string { return strings.TrimSpace(strings.TrimPrefix(text, "\ufeff")) }

// daemonJSON keeps the mirror first among the registry-mirrors of dockerd.
func daemonJSON(url string) func(string, bool) (string, error) {
	return func(old string, put bool) (string, error) {
		all := map[string]json.RawMessage{}
		var mirrors []string
		if text := DaemonJSON(old); text != "" {
			if err := json.Unmarshal([]byte(text), &all); err != nil || all == nil {
				return "", fmt.Errorf("is no JSON object: %w", cmp.Or(err, errors.New("it is null")))
			}
		}
		if raw, ok := all["registry-mirrors"]; ok {
			if err := json.Unmarshal(raw, &mirrors); err != nil {
				return "", fmt.Errorf("registry-mirrors is no list of texts: %w", err)
			}
		}
		next := first(mirrors, url, put)
		if len(mirrors) == len(next) && (len(next) == 0 || strings.TrimSuffix(mirrors[0], "/") == next[0]) {
			return old, nil
		}
		delete(all, "registry-mirrors")
		if len(next) > 0 {
			raw, err := json.Marshal(next)
			if err != nil {
				return "", err
			}
			all["registry-mirrors"] = raw
		}
		if len(all) == 0 {
			return "", nil
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err := e.Encode(all)
		return b.String(), err
	}
}

func containerd(m mirror) Setup {
	s := Setup{
		Files: []File{{certsD + "/_default/hosts.toml", hostsTOML(m)}},
		Check: "crictl pull docker.io/library/busybox, or: ctr images pull --hosts-dir /etc/containerd/certs.d docker.io/library/busybox:latest",
		Traps: []string{
			`it is read only with config_path = "/etc/containerd/certs.d" in /etc/containerd/config.toml, below [plugins."io.containerd.grpc.v1.cri".registry] (containerd 1.5 to 1.7) or [plugins."io.containerd.cri.v1.images".registry] (2.x), and after one restart`,
			"name one folder there: of two, joined by a colon, as is the default from 2.2 on, none is read",
			"config_path beside […registry.mirrors] or […registry.configs] stops the CRI plugin from loading",
			`"referrers" among the capabilities makes containerd before 2.2 drop the file and go to the registry silently, as any unknown word there does`,
			"a registry with a hosts.toml of its own does not read this one; for docker.io write server = \"https://registry-1.docker.io\" there, never https://docker.io",
		},
	}
	if m.CA != "" {
		s.Files = append(s.Files, File{certsD + "/_default/" + caName, certificate(m.CA)})
	}
	return s
}

func containersImage(m mirror, then, check string) Setup {
	var b strings.Builder
	for _, name := range append([]string{"docker.io"}, m.Registries...) {
		fmt.Fprintf(&b, "[[registry]]\nprefix = %q\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n", name, name, m.host+"/"+name)
		if m.plain {
			b.WriteString("insecure = true\n")
		}
		b.WriteString("\n")
	}
	return Setup{
		Files: withCA(m, "etc/containers/certs.d", File{"etc/containers/registries.conf.d/50-forebay.conf", own(strings.TrimSuffix(b.String(), "\n"))}),
		Then:  then, Check: check,
		Traps: []string{
			"there is no word for all registries: each has its block, and a file behind this one in the folder replaces the block of the same prefix",
			"the name of the registry belongs into the location, since these programs send none beside it",
			"once the mirror has given a manifest, the blobs are not looked for at the registry",
		},
	}
}

func buildkit(m mirror) Setup {
	var b strings.Builder
	var headings []string
	for _, name := range append([]string{"docker.io"}, m.Registries...) {
		headings = append(headings, fmt.Sprintf("[registry.%q]", name))
		fmt.Fprintf(&b, "[registry.%q]\n  mirrors = [%q]\n", name, m.host)
	}
	s := Setup{
		Then:  "systemctl restart buildkit, or: docker buildx create --use --name forebay --buildkitd-config /etc/buildkit/buildkitd.toml",
		Check: "docker buildx build --no-cache --pull - <<< 'FROM busybox'",
		Traps: []string{
			"the scheme belongs into the block of the mirror, and not into mirrors",
			"builds by the docker driver, which is buildx's default, go by daemon.json of dockerd",
		},
	}
	if m.plain {
		fmt.Fprintf(&b, "[registry.%q]\n  http = true\n", m.host)
	} else if m.CA != "" {
		fmt.Fprintf(&b, "[registry.%q]\n  ca = [\"/etc/buildkit/%s\"]\n", m.host, caName)
		s.Files = append(s.Files, File{"etc/buildkit/" + caName, certificate(m.CA)})
	}
	headings = append(headings, fmt.Sprintf("[registry.%q]", m.host))
	s.Files = append([]File{{"etc/buildkit/buildkitd.toml", block(b.String(), headings...)}}, s.Files...)
	return s
}

func rancher(m mirror, what string) Setup {
	s := Setup{
		Files: []File{{"etc/rancher/" + what + "/registries.yaml", registriesYAML(m, what)}},
		Then:  "systemctl restart " + what + " (on agents " + what + "-agent)",
		Check: "crictl pull docker.io/library/busybox",
		Traps: []string{
			"an endpoint that is listed twice, or with a path that is not whole (…/v2/docker.io), is not used",
			"a block of its own for a registry goes before \"*\"",
			"without --disable-default-registry-endpoint the registry itself is asked last",
		},
	}
	if m.CA != "" {
		s.Files = append(s.Files, File{"etc/rancher/" + what + "/" + caName, certificate(m.CA)})
	}
	return s
}

// registriesYAML keeps the mirror first among the endpoints of all registries, and what it needs to
// be trusted. Comments and what else there is stay.
func registriesYAML(m mirror, what string) func(string, bool) (string, error) {
	return func(old string, put bool) (string, error) {
		doc := yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
		remarks := remarksOf(old)
		if remarks != old {
			if err := yaml.Load([]byte(old), &doc); err != nil {
				return "", fmt.Errorf("is no YAML: %w", err)
			}
		}
		top := doc.Content[0]
		if top.Tag == "!!null" { // a document without content
			top.Kind, top.Tag, top.Value = yaml.MappingNode, "", ""
		}
		endpoints, err := below(top, yaml.SequenceNode, "mirrors", "*", "endpoint")
		if err != nil {
			return "", err
		}
		var list []string
		for _, n := range endpoints.Content {
			list = append(list, n.Value)
		}
		next, ca := first(list, m.url, put), "/etc/rancher/"+what+"/"+caName
		trusted, ours := true, m.CA != "" // as it should be, and for us to say
		if !put {
			ours = strings.Contains(old, ca)
		}
		if ours {
			file, err := below(top, yaml.ScalarNode, "configs", m.host, "tls", "ca_file")
			if err != nil {
				return "", err
			}
			switch trusted = put == (file.Value == ca); {
			case put:
				file.Value = ca
			case !trusted:
				*file = yaml.Node{Kind: yaml.ScalarNode}
			}
		}
		if slices.Equal(next, list) && trusted {
			return old, nil
		}
		was := endpoints.Content
		endpoints.Content = nil
		for _, url := range next {
			node := &yaml.Node{Kind: yaml.ScalarNode, Value: url}
			if at := slices.Index(list, url); at >= 0 {
				node = was[at] // with its comments
			}
			endpoints.Content = append(endpoints.Content, node)
		}
		prune(top, "mirrors", "*", "endpoint")
		if ours {
			prune(top, "configs", m.host, "tls", "ca_file")
		}
		if len(top.Content) == 0 {
			return remarks, nil
		}
		var b bytes.Buffer
		if remarks == old && old != "" {
			b.WriteString(strings.TrimRight(old, "\n") + "\n")
		}
		e := yaml.NewEncoder(&b)
		e.SetIndent(2)
		if err := e.Encode(&doc); err != nil {
			return "", err
		}
		return b.String(), e.Close()
	}
}

// remarksOf returns what a text of YAML begins with that says nothing to programs, all of it where it has
// no more than that: blank lines and comments.
func remarksOf(text string) string {
	end := 0
	for line := range strings.Lines(text) {
		if bare := strings.TrimSpace(line); bare != "" && !strings.HasPrefix(bare, "#") {
			break
		}
		end += len(line)
	}
	return text[:end]
}

// below returns what is at the end of a path of keys, each of which is added if it is not there.
func below(n *yaml.Node, kind yaml.Kind, keys ...string) (*yaml.Node, error) {
	for i, key := range keys {
		if n.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("%s is no mapping: write the mirror there by hand", cmp.Or(strings.Join(keys[:i], "."), "it"))
		}
		want := kind
		if i < len(keys)-1 {
			want = yaml.MappingNode
		}
		n = member(n, key, want)
	}
	if n.Kind != kind {
		return nil, fmt.Errorf("%s is of another kind than it should be: write the mirror there by hand", strings.Join(keys, "."))
	}
	return n, nil
}

// member returns the value of a key, a new one if there is none.
func member(n *yaml.Node, key string, kind yaml.Kind) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			if n.Content[i+1].Tag == "!!null" {
				n.Content[i+1] = &yaml.Node{Kind: kind}
			}
			return n.Content[i+1]
		}
	}
	name, value := &yaml.Node{Kind: yaml.ScalarNode, Value: key}, &yaml.Node{Kind: kind}
	if key == "*" || strings.Contains(key, ":") {
		name.Style = yaml.DoubleQuotedStyle
	}
	n.Content = append(n.Content, name, value)
	return value
}

// prune takes out what is at the end of a path of keys if it is without content, and then what is left so above it.
func prune(n *yaml.Node, keys ...string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != keys[0] {
			continue
		}
		value := n.Content[i+1]
		if len(keys) > 1 {
			prune(value, keys[1:]...)
		}
		if value.Value == "" && len(value.Content) == 0 {
			n.Content = slices.Delete(n.Content, i, i+2)
		}
		return
	}
}

// hostsLines are what containerd reads, for machines that are made anew.
const hostsLines = `[host.%q]
  capabilities = ["pull", "resolve"]
  dial_timeout = "2s"
`

func kind(m mirror) Setup {
	copyCA, ca := "", ""
	if m.CA != "" {
		copyCA, ca = "  docker cp ca.pem \"$node:/etc/containerd/certs.d/_default/"+caName+"\"\n", "  ca = \"/etc/containerd/certs.d/_default/"+caName+"\"\n"
	}
	return Setup{
		Elsewhere: fmt.Sprintf("for node in $(kind get nodes); do\n  docker exec \"$node\" mkdir -p /etc/containerd/certs.d/_default\n%s  docker exec -i \"$node\" cp /dev/stdin /etc/containerd/certs.d/_default/hosts.toml <<'EOF'\n%s%sEOF\ndone\n", copyCA, fmt.Sprintf(hostsLines, m.url), ca),
		Check:     "docker exec kind-control-plane crictl pull docker.io/library/busybox",
		Traps: []string{
			"nodes are containers: " + m.host + " must be reachable from there, which localhost is not",
			"node images before kind 0.27 need config_path by containerdConfigPatches",
		},
	}
}

func minikube(m mirror) Setup {
	flags := "--registry-mirror=" + m.url
	if m.plain {
		flags += " --insecure-registry=" + m.host
	}
	s := Setup{
		Elsewhere: "# with docker in it (the default)\nminikube start " + flags + "\n\n# with containerd: ~/.minikube/files/etc/containerd/certs.d/_default/hosts.toml, before minikube start\n" + fmt.Sprintf(hostsLines, m.url),
		Check:     "minikube ssh -- docker info | grep -A2 'Registry Mirrors'",
		Traps:     []string{"flags of start are for a machine that is made anew: minikube delete before"},
	}
	if m.CA != "" {
		s.Traps = append(s.Traps, "put the CA into ~/.minikube/certs and start with --embed-certs")
	}
	return s
}

// talos has documents of their own for registries since 1.12 (RegistryMirrorConfig, RegistryTLSConfig).
func talos(m mirror) Setup {
	ca, before := "", ""
	if m.CA != "" {
		ca = fmt.Sprintf("---\napiVersion: v1alpha1\nkind: RegistryTLSConfig\nname: %q\nca: |\n  %s\n", m.host, strings.ReplaceAll(strings.TrimSpace(m.CA), "\n", "\n  "))
		before = fmt.Sprintf("    config:\n      %q:\n        tls:\n          ca: %s\n", m.host, base64.StdEncoding.EncodeToString([]byte(m.CA)))
	}
	return Setup{
		Elsewhere: fmt.Sprintf("# talosctl patch machineconfig --patch @forebay.yaml\napiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: \"*\"\nendpoints:\n  - url: %q\n%s"+
			"\n# the same before Talos 1.12\nmachine:\n  registries:\n    mirrors:\n      \"*\":\n        endpoints: [%q]\n%s", m.url, ca, m.url, before),
		Check: "talosctl image pull docker.io/library/busybox:latest",
		Traps: []string{"with skipFallback the registry itself is not asked when the mirror fails"},
	}
}

func kaniko(m mirror) Setup {
	host, insecure := m.host, ""
	if !strings.ContainsAny(host, ".:") { // a bare word is no registry to go-containerregistry
		host += map[bool]string{true: ":80", false: ":443"}[m.plain]
	}
	if m.plain {
		insecure = " --insecure-registry=" + host
	}
	var maps []string
	for _, name := range m.Registries {
		maps = append(maps, name+"="+host+"/"+host+"/"+name)
	}
	text := "# arguments of the executor\n--registry-mirror=" + host + insecure + "\n"
	if len(maps) > 0 {
		text += "--registry-map=" + strings.Join(maps, ";") + "\n"
	}
	s := Setup{
		Elsewhere: text,
		Traps: []string{
			"--registry-mirror takes a host and no URL, and is for Docker Hub only",
			"--skip-default-registry-fallback keeps it from the registry when the mirror fails",
			"in --registry-map the mirror stands twice: with HOST/quay.io alone kaniko 1.24 asks quay.io itself, since a name that begins with a host is that host's (its issue 3313)",
		},
	}
	if m.CA != "" {
		s.Traps = append(s.Traps, "--registry-certificate="+host+"=/path/ca.pem makes it trust the mirror")
	}
	return s
}

func githubActions(m mirror) Setup {
	buildkitd := fmt.Sprintf("      [registry.\"docker.io\"]\n        mirrors = [%q]\n", m.host)
	if m.plain {
		buildkitd += fmt.Sprintf("      [registry.%q]\n        http = true\n", m.host)
	}
	return Setup{
		Elsewhere: "# for docker pull, as a step\n- run: |\n    echo '{\"registry-mirrors\": [\"" + m.url + "\"]}' | sudo tee /etc/docker/daemon.json && sudo systemctl restart docker\n\n# for builds\n- uses: docker/setup-buildx-action@v3\n  with:\n    buildkitd-config-inline: |\n" + buildkitd,
		Traps: []string{
			"runners of GitHub must reach the mirror, which then needs https:// and to be told who may pull",
			"images of container: and services: are pulled before the first step: on your own runners set the daemon of the machine",
		},
	}
}

func gitlabRunner(m mirror) Setup {
	return Setup{
		Elsewhere: fmt.Sprintf("# config.toml of the runner\n[[runners.docker.services]]\n  name = \"docker:dind\"\n  command = [\"--registry-mirror\", %q]\n\n# or in .gitlab-ci.yml\nservices:\n  - name: docker:dind\n    command: [\"--registry-mirror\", %q]\n", m.url, m.url),
		Traps: []string{
			"images of jobs are pulled by the daemon of the runner: set that, too (forebay client-config dockerd)",
			"in the network of a job names may mean nothing: use an address, or a name that is known there",
		},
	}
}
