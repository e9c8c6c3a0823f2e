package dial

import (
	"net"
	"net/url"
	"strings"
)

// HostPort returns the lower-case "host:port" of u, with the scheme's port if it has none.
func HostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
		switch u.Scheme {
		case "http":
			port = "80"
		case "socks5", "socks5h":
			port = "1080"
		}
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// Localhost reports whether host is a name of the machine that we run on.
func Localhost(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
