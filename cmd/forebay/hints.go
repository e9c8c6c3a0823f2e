package main

import (
	"cmp"
	"net"
	"os"

	"forebay/config"
	"forebay/internal/clientconfig"
	"forebay/internal/server"
)

// clientHints says how to point clients at the mirror, in a form to copy. addr is the
// address that it listens on, hostname the name of this machine or "".
func clientHints(c *config.Config, addr net.Addr, hostname string) string {
	w := clientconfig.Welcome{URL: baseURL(c, addr), Mirrors: c.UpstreamNames(), Hub: c.Upstream("docker.io") != nil, Example: exampleImage(c), Dashboard: dashboardURL(c)}
	if tcp, ok := addr.(*net.TCPAddr); ok && hostname != "" && (tcp.IP == nil || tcp.IP.IsUnspecified()) {
		w.Name = hostname
	}
	return w.Text()
}

// hostname is the name of this machine, "" when it has none: it is only shown.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// reachableURL returns the URL under which other machines reach the mirror, as far as its
// configuration tells: by the name of this machine if it listens on all addresses.
func reachableURL(c *config.Config) string {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = cmp.Or(hostname(), "localhost")
	}
	scheme := "http://"
	if c.TLS.Enabled() {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port)
}

// dashboardURL returns where a browser on this machine finds the page; "" without one.
func dashboardURL(c *config.Config) string {
	if c.AdminListen == "" {
		return ""
	}
	scheme := "http://"
	if c.AdminTLS.Enabled() {
		scheme = "https://"
	}
	return scheme + server.Reachable(c.AdminListen) + "/"
}

// baseURL returns the URL under which this machine reaches the mirror.
func baseURL(c *config.Config, addr net.Addr) string {
	scheme := "http://"
	if c.TLS.Enabled() {
		scheme = "https://"
	}
	return scheme + server.Reachable(addr.String())
}

// exampleImage names an image that there is.
func exampleImage(c *config.Config) string {
	if c.Upstream("docker.io") != nil {
		return "docker.io/library/busybox:latest"
	}
	return c.Upstreams[0].Name + "/NAME:TAG"
}
