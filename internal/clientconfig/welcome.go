package clientconfig

import (
	"fmt"
	"net/url"
	"strings"
)

// Welcome is what people are told who have started a mirror.
type Welcome struct {
	URL       string   // of the mirror, for programs on its machine
	Name      string   // by which other machines reach that; "" when they do not
	Mirrors   []string // names of the registries that it mirrors
	Hub       bool     // Docker Hub is among them
	Example   string   // an image of one of them
	Dashboard string   // "" for none
}

// Text says how to point clients at the mirror, in a form to copy.
func (w Welcome) Text() string {
	here, insecure := "", strings.HasPrefix(w.URL, "http://")
	var b strings.Builder
	fmt.Fprintf(&b, "\nForebay mirrors %s at %s", strings.Join(w.Mirrors, ", "), w.URL)
	if u, err := url.Parse(w.URL); err == nil {
		here = u.Host
		if w.Name != "" {
			fmt.Fprintf(&b, "\n(from other machines: %s://%s:%s)", u.Scheme, w.Name, u.Port())
		}
	}
	b.WriteString("\n")
	if w.Hub {
		fmt.Fprintf(&b, `
dockerd, for Docker Hub: /etc/docker/daemon.json, then systemctl reload docker
  { "registry-mirrors": ["%s"] }
`, w.URL)
	}
	fmt.Fprintf(&b, `
podman, for Docker Hub: /etc/containers/registries.conf.d/forebay.conf
  [[registry]]
  location = "docker.io"
  [[registry.mirror]]
  location = "%s"
  insecure = %t

containerd, for all registries: /etc/containerd/certs.d/_default/hosts.toml,
with config_path = "/etc/containerd/certs.d" in its config.toml
  [host."%s"]
    capabilities = ["pull", "resolve"]

Any client, by name:
  %s/%s

`, here, insecure, w.URL, here, w.Example)
	if w.Dashboard != "" {
		fmt.Fprintf(&b, "Dashboard: %s\n\n", w.Dashboard)
	}
	return b.String()
}
