package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"forebay/internal/wire"
)

// The parsers of single values. Their errors say what is wrong and what is allowed,
// and complete the sentence "KEY: …".

const day = 24 * time.Hour

// parseAddress checks the address of a listener: "HOST:PORT" or ":PORT".
func parseAddress(s string) (string, error) {
	const allowed = "use HOST:PORT or :PORT, such as :5000, 127.0.0.1:5000 or [::1]:5000"
	switch {
	case s == "":
		return "", fmt.Errorf("is empty: %s", allowed)
	case strings.Contains(s, "://"):
		return "", fmt.Errorf("%q has a scheme: %s", clip(s), allowed)
	case digits(s):
		return "", fmt.Errorf("%q has no colon: write %q", clip(s), ":"+clip(s))
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is not an address: %s", clip(s), allowed)
	}
	if !usablePort(port, 0) {
		return "", fmt.Errorf("%q has no usable port: use a number from 0 to 65535, 0 being any free one", clip(s))
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostPattern.MatchString(strings.ToLower(host)) {
		return "", fmt.Errorf("%q has no usable host: %s", clip(s), allowed)
	}
	return s, nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// hostPattern is a host name of RFC 1123 in lower case, or an IPv4 address.
var hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*$`)

// parseHost checks a host name or an address with or without a port, as in a Host header, and
// returns it as it is compared.
func parseHost(s string) (string, error) {
	const allowed = "use a host name, with a port if it has one, such as registry.example.com or registry.example.com:5000; an IPv6 address in brackets"
	switch {
	case s == "":
		return "", fmt.Errorf("is empty: %s", allowed)
	case strings.Contains(s, "://"):
		return "", fmt.Errorf("%q has a scheme: %s", urlClip(s), allowed)
	case strings.Contains(s, "/"):
		return "", fmt.Errorf("%q has a path: %s", clip(s), allowed)
	case len(s) > 253:
		return "", fmt.Errorf("%q is too long: at most 253 characters", clip(s))
	}
	host, port := wire.Host(s)
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	six := err == nil && addr.Is6() && host == "["+addr.String()+"]"
	switch {
	case six && strings.Contains(s, "%"):
		return "", fmt.Errorf("%q has a zone, which others do not know: write %q", clip(s), host)
	case !six && s != strings.ToLower(s):
		return "", fmt.Errorf("%q has capitals: write %q", clip(s), strings.ToLower(clip(s)))
	case port == "" && strings.HasSuffix(s, ":") || port != "" && !usablePort(port, 1):
		return "", fmt.Errorf("%q has no usable port: use a number from 1 to 65535", clip(s))
	case !six && !hostPattern.MatchString(host):
		return "", fmt.Errorf("%q is not a host name: %s", clip(s), allowed)
	case port == "":
		return host, nil
	}
	return host + ":" + port, nil
}

func usablePort(s string, least int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= least && n <= 65535 && digits(s)
}

// parseUpstreamName checks the public name of a registry. Like docker, it tells a
// registry from the first part of a repository name by a dot, a port or "localhost".
func parseUpstreamName(s string) (string, error) {
	name, err := parseHost(s)
	if err != nil {
		return "", err
	}
	if !strings.ContainsAny(name, ".:") && name != "localhost" {
		return "", fmt.Errorf("%q is not a registry's name: it needs a dot or a port, as image references do, such as docker.io or registry.example.com:5000", clip(s))
	}
	return name, nil
}

// endpointPath is the part of an endpoint between its host and /v2/.
var endpointPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*$`)

// parseEndpoint checks the base URL of a registry and returns it without a slash at its
// end. Some registries live below a path, which comes before /v2/.
func parseEndpoint(s string) (string, error) {
	const allowed = "use http:// or https://, a host, and what comes before /v2/ if there is something, such as https://registry.example.com:5000"
	u, err := parseURL(s, allowed)
	if err != nil {
		return "", err
	}
	if u.User != nil {
		return "", fmt.Errorf("%q holds a user: put it into username and password_file", urlClip(s))
	}
	base := strings.TrimRight(u.EscapedPath(), "/")
	if before, ok := strings.CutSuffix(base, "/v2"); ok {
		return "", fmt.Errorf("%q ends in /v2, which is added by itself: write %q", clip(s), u.Scheme+"://"+u.Host+before)
	}
	if before, behind, ok := strings.Cut(base, "/v2/"); ok { // as containerd's hosts.toml has it with override_path
		return "", fmt.Errorf("%q names repositories behind /v2/: write {url: %q, rewrite: {to: %q}, tags: true}, with credentials of its own if it needs them",
			clip(s), u.Scheme+"://"+u.Host+before, behind+"/")
	}
	if !endpointPath.MatchString(base) || path.Clean("/"+base) != "/"+strings.TrimPrefix(base, "/") {
		return "", fmt.Errorf("%q has an unusual path: %s", clip(s), allowed)
	}
	return u.Scheme + "://" + u.Host + base, nil
}

// parseProxy checks the URL of an HTTP proxy.
func parseProxy(s string) (string, error) {
	const allowed = "use http:// or https://, a host and a port, such as http://proxy.example.com:3128"
	if s == "" {
		return "", nil
	}
	u, err := parseURL(s, allowed)
	if err != nil {
		return "", err
	}
	if u.User != nil {
		return "", fmt.Errorf("%q holds a user: put it into proxy_username and proxy_password_file", urlClip(s))
	}
	if strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("%q has a path: %s", clip(s), allowed)
	}
	return u.Scheme + "://" + u.Host, nil
}

func parseURL(s, allowed string) (*url.URL, error) {
	if s == "" {
		return nil, fmt.Errorf("is empty: %s", allowed)
	}
	u, err := url.Parse(s)
	if err != nil {
		// The parser's error repeats the whole URL, and with it any password.
		return nil, fmt.Errorf("%q is not a URL: %s", urlClip(s), allowed)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
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
	return clip(s)
}

// parsePlain checks a text that is used as it is: names of users and files.
func parsePlain(s string) (string, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("holds a control character or a line break")
	}
	return s, nil
}

// parsePinPattern checks a pattern of image names. What its parts match is the cache's business.
func parsePinPattern(s string) (string, error) {
	const allowed = "use a name such as nginx:1.27, or a pattern such as ghcr.io/owner/*:v*"
	if s == "" {
		return "", fmt.Errorf("is empty: %s", allowed)
	}
	if len(s) > 512 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-*?[]") != "" {
		return "", fmt.Errorf("%q is not a pattern of image names: %s", clip(s), allowed)
	}
	if _, err := wire.CompilePattern(s); err != nil || strings.Count(s, "[") != strings.Count(s, "]") {
		return "", fmt.Errorf("%q has no set of characters between [ and ]: %s", clip(s), allowed)
	}
	if !strings.ContainsAny(s[strings.LastIndexByte(s, '/')+1:], ":*") {
		return "", fmt.Errorf("%q names no tag: add one, or :* for all tags", clip(s))
	}
	return s, nil
}

// absolute returns file as seen from folder, or "" for "".
func absolute(folder, file string) (string, error) {
	if file == "" || filepath.IsAbs(file) {
		return file, nil
	}
	return filepath.Abs(filepath.Join(folder, file))
}

// oneOf returns the option that s spells.
func oneOf[T ~string](s string, options []T) (T, error) {
	if slices.Contains(options, T(s)) {
		return T(s), nil
	}
	return "", fmt.Errorf("%q is not known: use %s%s", clip(s), either(options), didYouMean(s, options))
}

// either joins options for a sentence: "a, b or c".
func either[T ~string](options []T) string {
	var b strings.Builder
	for i, option := range options {
		switch {
		case i == 0:
		case i == len(options)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(option))
	}
	return b.String()
}

// clip bounds what is quoted in the texts of errors.
func clip(s string) string { return wire.Clip(s, 80) }

// didYouMean returns `: did you mean "…"?` for the option nearest to s, or "".
func didYouMean[T ~string](s string, options []T) string {
	best, least := "", 3 // more than two slips is another word
	if len(s) > 64 {
		return ""
	}
	for _, option := range options {
		// Two slips make any three letters into any others.
		if d := distance(strings.ToLower(s), strings.ToLower(string(option))); d < least && d*2 < len(option) {
			best, least = string(option), d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// distance counts the insertions, deletions and replacements of bytes that lead from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
