package main

import (
	"fmt"
	"net"
	"strings"

	"forebay/config"
	"forebay/internal/server"
)

// clientHints says how to point clients at the mirror, in a form to copy. addr is the
// address that it listens on, hostname the name of this machine or "".
func clientHints(c *config.Config, addr net.Addr, hostname string) string {
	here, url := server.Reachable(addr.String()), baseURL(c, addr)
	scheme, _, _ := strings.Cut(url, here)
	var b strings.Builder
	fmt.Fprintf(&b, "\nForebay mirrors %s at %s", strings.Join(c.UpstreamNames(), ", "), url)
	if _, port, err := net.SplitHostPort(here); err == nil && hostname != "" && everywhere(addr) {
		fmt.Fprintf(&b, "\n(from other machines: %s%s)", scheme, net.JoinHostPort(hostname, port))
	}
	b.WriteString("\n")
	if c.Upstream("docker.io") != nil {
		fmt.Fprintf(&b, `
dockerd, for Docker Hub: /etc/docker/daemon.json, then systemctl reload docker
  { "registry-mirrors": ["%s"] }
`, url)
	}
	fmt.Fprintf(&b, `
containerd, for all registries: /etc/containerd/certs.d/_default/hosts.toml,
with config_path = "/etc/containerd/certs.d" in its config.toml
  [host."%s"]
    capabilities = ["pull", "resolve"]

Any client, by name:
  %s/%s

`, url, here, exampleImage(c))
	return b.String()
}

// baseURL returns the URL under which this machine reaches the mirror.
func baseURL(c *config.Config, addr net.Addr) string {
	scheme := "http://"
	if c.TLS.Enabled() {
		scheme = "https://"
	}
	return scheme + server.Reachable(addr.String())
}

func everywhere(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && (tcp.IP == nil || tcp.IP.IsUnspecified())
}

// exampleImage names an image that there is.
func exampleImage(c *config.Config) string {
	if c.Upstream("docker.io") != nil {
		return "docker.io/library/busybox:latest"
	}
	return c.Upstreams[0].Name + "/NAME:TAG"
}
