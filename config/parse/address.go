package parse

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"forebay/internal/wire"
)

// Address checks the address of a listener: "HOST:PORT" or ":PORT".
func Address(s string) (string, error) {
	const allowed = "use HOST:PORT or :PORT, such as :5000, 127.0.0.1:5000 or [::1]:5000"
	switch {
	case s == "":
		return "", fmt.Errorf("is empty: %s", allowed)
	case strings.Contains(s, "://"):
		return "", fmt.Errorf("%q has a scheme: %s", Clip(s), allowed)
	case digits(s):
		return "", fmt.Errorf("%q has no colon: write %q", Clip(s), ":"+Clip(s))
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is not an address: %s", Clip(s), allowed)
	}
	if !usablePort(port, 0) {
		return "", fmt.Errorf("%q has no usable port: use a number from 0 to 65535, 0 being any free one", Clip(s))
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostPattern.MatchString(strings.ToLower(host)) {
		return "", fmt.Errorf("%q has no usable host: %s", Clip(s), allowed)
	}
	return s, nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// hostPattern is a host name of RFC 1123 in lower case, or an IPv4 address.
var hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*$`)

// Host checks a host name or an address with or without a port, as in a Host header, and
// returns it as it is compared.
func Host(s string) (string, error) {
	const allowed = "use a host name, with a port if it has one, such as registry.example.com or registry.example.com:5000; an IPv6 address in brackets"
	switch {
	case s == "":
		return "", fmt.Errorf("is empty: %s", allowed)
	case strings.Contains(s, "://"):
		return "", fmt.Errorf("%q has a scheme: %s", urlClip(s), allowed)
	case strings.Contains(s, "/"):
		return "", fmt.Errorf("%q has a path: %s", Clip(s), allowed)
	case len(s) > 253:
		return "", fmt.Errorf("%q is too long: at most 253 characters", Clip(s))
	}
	host, port := wire.Host(s)
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	six := err == nil && addr.Is6() && host == "["+addr.String()+"]"
	switch {
	case six && strings.Contains(s, "%"):
		return "", fmt.Errorf("%q has a zone, which others do not know: write %q", Clip(s), host)
	case !six && s != strings.ToLower(s):
		return "", fmt.Errorf("%q has capitals: write %q", Clip(s), strings.ToLower(Clip(s)))
	case port == "" && strings.HasSuffix(s, ":") || port != "" && !usablePort(port, 1):
		return "", fmt.Errorf("%q has no usable port: use a number from 1 to 65535", Clip(s))
	case !six && !hostPattern.MatchString(host):
		return "", fmt.Errorf("%q is not a host name: %s", Clip(s), allowed)
	case port == "":
		return host, nil
	}
	return host + ":" + port, nil
}

func usablePort(s string, least int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= least && n <= 65535 && digits(s)
}

// UpstreamName checks the public name of a registry. Like docker, it tells a
// registry from the first part of a repository name by a dot, a port or "localhost".
func UpstreamName(s string) (string, error) {
	name, err := Host(s)
	if err != nil {
		return "", err
	}
	if !strings.ContainsAny(name, ".:") && name != "localhost" {
		return "", fmt.Errorf("%q is not a registry's name: it needs a dot or a port, as image references do, such as docker.io or registry.example.com:5000", Clip(s))
	}
	return name, nil
}

// endpointPath is the part of an endpoint between its host and /v2/.
var endpointPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*$`)

// Endpoint checks the base URL of a registry and returns it without a slash at its
// end. Some registries live below a path, which comes before /v2/.
func Endpoint(s string) (string, error) {
	const allowed = "use http:// or https://, a host, and what comes before /v2/ if there is something, such as https://registry.example.com:5000"
	u, err := URL(s, allowed)
	if err != nil {
		return "", err
	}
	if u.User != nil {
		return "", fmt.Errorf("%q holds a user: put it into username and password_file", urlClip(s))
	}
	base := strings.TrimRight(u.EscapedPath(), "/")
	if before, ok := strings.CutSuffix(base, "/v2"); ok {
		return "", fmt.Errorf("%q ends in /v2, which is added by itself: write %q", Clip(s), u.Scheme+"://"+u.Host+before)
	}
	if before, behind, ok := strings.Cut(base, "/v2/"); ok { // as containerd's hosts.toml has it with override_path
		return "", fmt.Errorf("%q names repositories behind /v2/: write {url: %q, rewrite: {to: %q}, tags: true}, with credentials of its own if it needs them",
			Clip(s), u.Scheme+"://"+u.Host+before, behind+"/")
	}
	if base == "/v1" { // where docker keeps its login, which is taken for the registry
		return "", fmt.Errorf("%q is of an API that is gone: write %q", Clip(s), u.Scheme+"://"+u.Host)
	}
	if !endpointPath.MatchString(base) || path.Clean("/"+base) != "/"+strings.TrimPrefix(base, "/") {
		return "", fmt.Errorf("%q has an unusual path: %s", Clip(s), allowed)
	}
	return u.Scheme + "://" + u.Host + base, nil
}

// Proxy checks the URL of a proxy.
func Proxy(s string) (string, error) {
	const allowed = "use http://, https:// or socks5://, a host and a port, such as http://proxy.example.com:3128"
	if s == "" {
		return "", nil
	}
	u, err := URL(s, allowed, "socks5", "socks5h")
	if err != nil {
		return "", err
	}
	if u.User != nil {
		return "", fmt.Errorf("%q holds a user: put it into proxy_username and proxy_password_file", urlClip(s))
	}
	if strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("%q has a path: %s", Clip(s), allowed)
	}
	return u.Scheme + "://" + u.Host, nil
}

// URL checks a URL of one of the schemes; allowed says in errors what is.
func URL(s, allowed string, schemes ...string) (*url.URL, error) {
	if s == "" {
		return nil, fmt.Errorf("is empty: %s", allowed)
	}
	u, err := url.Parse(s)
	if err != nil {
		// The parser's error repeats the whole URL, and with it any password.
		return nil, fmt.Errorf("%q is not a URL: %s", urlClip(s), allowed)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && !slices.Contains(schemes, u.Scheme):
		return nil, fmt.Errorf("%q has no usable scheme: %s", urlClip(s), allowed)
	case u.Opaque != "" || u.Hostname() == "":
		return nil, fmt.Errorf("%q has no host: %s", urlClip(s), allowed)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#"):
		return nil, fmt.Errorf("%q has a query or fragment: %s", urlClip(s), allowed)
	}
	u.Host = strings.ToLower(u.Host)
	name := u.Hostname()
	if strings.Contains(name, "%") {
		return nil, fmt.Errorf("%q has a zone: link-local addresses are never contacted", urlClip(s))
	}
	if host, _ := wire.Host(name); strings.HasPrefix(host, "[") {
		u.Host = strings.Replace(u.Host, "["+name+"]", host, 1)
	}
	if net.ParseIP(name) == nil && !hostPattern.MatchString(name) {
		return nil, fmt.Errorf("%q has no usable host: %s", urlClip(s), allowed)
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("%q has no usable port: use a number from 1 to 65535", urlClip(s))
		}
	}
	return u, nil
}

// urlClip returns a URL for an error text, without what may be a user and password
// and without its query, which may be a signature.
func urlClip(s string) string {
	s, _, _ = strings.Cut(s, "?")
	if at := strings.LastIndex(s, "@"); at >= 0 {
		scheme := ""
		if i := strings.Index(s[:at], "://"); i >= 0 {
			scheme = s[:i+3]
		}
		s = scheme + "…@" + s[at+1:]
	}
	return Clip(s)
}

func hostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// PublicHost reads a name that an authority certifies.
func PublicHost(s string) (string, error) {
	name, err := Host(s)
	if err != nil || !strings.Contains(strings.Trim(name, "."), ".") || strings.ContainsAny(name, ":*") {
		return "", fmt.Errorf("%q is no name that can be certified: use one such as mirror.example.com, without a port", Clip(s))
	}
	return name, nil
}

// HTTPS checks the URL of what is only asked over TLS.
func HTTPS(s string) error {
	u, err := URL(s, "use https:// and a host")
	if err == nil && u.Scheme != "https" {
		err = fmt.Errorf("%q is not encrypted: use https://", Clip(s))
	}
	return err
}

// EveryAddress reports whether a listener at host is reached at every address of the machine.
func EveryAddress(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// Loopback reports whether host is this machine and no other can reach it there.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// PlainHTTP reports whether others can listen on the way to a URL.
func PlainHTTP(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Scheme == "http" && !Loopback(u.Hostname())
}
