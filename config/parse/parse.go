// Package parse reads single values of the configuration.
//
// It promises errors that say what is wrong and what is allowed, and that complete the sentence
// "KEY: …". None of them repeats what may be a password.
package parse

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
	"unicode"
	"unicode/utf8"

	"github.com/robfig/cron/v3"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/publicsuffix"

	"forebay/internal/wire"
)

// Day is how durations are told in days.
const Day = 24 * time.Hour

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

// Plain checks a text that is used as it is: names of users and files.
func Plain(s string) (string, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("holds a control character or a line break")
	}
	return s, nil
}

// PinPattern checks a pattern of image names. What its parts match is the cache's business.
func PinPattern(s string) (string, error) {
	const allowed = "use a name such as nginx:1.27, or a pattern such as ghcr.io/owner/*:v*"
	if s == "" {
		return "", fmt.Errorf("is empty: %s", allowed)
	}
	if len(s) > 512 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-*?[]") != "" {
		return "", fmt.Errorf("%q is not a pattern of image names: %s", Clip(s), allowed)
	}
	if _, err := wire.CompilePattern(s); err != nil || strings.Count(s, "[") != strings.Count(s, "]") {
		return "", fmt.Errorf("%q has no set of characters between [ and ]: %s", Clip(s), allowed)
	}
	if !strings.ContainsAny(s[strings.LastIndexByte(s, '/')+1:], ":*") {
		return "", fmt.Errorf("%q names no tag: add one, or :* for all tags", Clip(s))
	}
	return s, nil
}

// Absolute returns file as seen from folder, or "" for "".
func Absolute(folder, file string) (string, error) {
	if file == "" || filepath.IsAbs(file) {
		return file, nil
	}
	return filepath.Abs(filepath.Join(folder, file))
}

// OneOf returns the option that s spells.
func OneOf[T ~string](s string, options []T) (T, error) {
	if slices.Contains(options, T(s)) {
		return T(s), nil
	}
	return "", fmt.Errorf("%q is not known: use %s%s", Clip(s), Either(options), DidYouMean(s, options))
}

// Either joins options for a sentence: "a, b or c".
func Either[T ~string](options []T) string {
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

// Clip bounds what is quoted in the texts of errors.
func Clip(s string) string { return wire.Clip(s, 80) }

// DidYouMean returns `: did you mean "…"?` for the option nearest to s, or "".
func DidYouMean[T ~string](s string, options []T) string {
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
	for _, option := range options { // short for the word
		if rest, ok := strings.CutPrefix(strings.ToLower(s), strings.ToLower(string(option))); ok && best == "" && len(option) > 2 && !strings.Contains(rest, "_") {
			best = string(option)
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

// SetName is what a set of images, a group or a network may be called.
var SetName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

// ImageName checks the name of an image; which registry it means is the mirror's business.
func ImageName(s string) (string, error) {
	names := map[string]string{wire.Hub: wire.Hub}
	if first, _, several := strings.Cut(s, "/"); several && strings.ContainsAny(first, ".:") {
		names[strings.ToLower(first)] = strings.ToLower(first)
	}
	if _, err := (&wire.Registries{Default: wire.Hub, Names: names}).Reference(s); err != nil {
		return "", fmt.Errorf("%q is no name of an image: use one such as nginx:1.27", Clip(s))
	}
	return s, nil
}

// Platform checks a platform such as linux/arm64, or all.
func Platform(s string) (string, error) {
	if s == "all" {
		return s, nil
	}
	p, err := wire.Platform(s)
	if err != nil {
		return "", fmt.Errorf("%w, or all", err)
	}
	return p, nil
}

// Cron checks a schedule. What it lets through, internal/prefetch understands.
func Cron(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if strings.Contains(s, "=") || strings.HasPrefix(s, "@every") {
		return "", fmt.Errorf("%q is no schedule: use five fields, such as 0 3 * * *, or @daily; the time zone has a key of its own", Clip(s))
	}
	spec, err := cron.ParseStandard(s)
	if err != nil {
		return "", fmt.Errorf("%q is no schedule (%s): use five fields, such as 0 3 * * *, or @daily", Clip(s), Clip(err.Error()))
	}
	if spec.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return "", fmt.Errorf("%q is never due: there is no such day", Clip(s))
	}
	return s, nil
}

// Zone checks the name of a time zone.
func Zone(s string) (string, error) {
	if _, err := time.LoadLocation(s); err != nil || s == "Local" {
		return "", fmt.Errorf("%q is no time zone: use a name such as Europe/Berlin, or UTC", Clip(s))
	}
	return s, nil
}

// Listener checks the address of a listener.
func Listener(s string) (string, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !filepath.IsAbs(path) || len(path) > 107 {
			return "", fmt.Errorf("%q has no usable path: use an absolute one of at most 107 bytes", Clip(s))
		}
		return s, nil
	}
	if name, ok := strings.CutPrefix(s, "systemd:"); ok {
		if !SetName.MatchString(name) {
			return "", fmt.Errorf("%q names no socket: use the FileDescriptorName of the .socket unit", Clip(s))
		}
		return s, nil
	}
	return Address(s)
}

// Who checks an identity in a rule of access.
func Who(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, " \t,") {
		return "", fmt.Errorf("%q names nobody: use anyone, known, group:NAME, or the name of a user, a token, network:NAME or certificate:NAME", Clip(s))
	}
	if kind, _, ok := strings.Cut(s, ":"); ok && slices.Contains([]string{"user", "token", "networks", "groups", "team"}, kind) {
		return "", fmt.Errorf("%q is not known: users and tokens are named as they are, others group:NAME, network:NAME or certificate:NAME", Clip(s))
	}
	return s, nil
}

// Operator checks an identity that has a role: one that has proved who it is.
func Operator(s string) (string, error) {
	if kind, _, _ := strings.Cut(s, ":"); kind == "anyone" || kind == "network" {
		return "", fmt.Errorf("%q proves nothing, so that a web page could ask in its name: use known, group:NAME, certificate:NAME, or the name of a user or a token", Clip(s))
	}
	return Who(s)
}

// What checks a pattern of upstream/repository in a rule of access.
func What(s string) (string, error) {
	const allowed = "use upstream/repository, such as docker.io/library/*, or ghcr.io for all of it"
	if s == "" || len(s) > 512 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_./:-*?[]") != "" {
		return "", fmt.Errorf("%q is not a pattern of repositories: %s", Clip(s), allowed)
	}
	if _, err := wire.CompilePattern(s); err != nil || strings.Count(s, "[") != strings.Count(s, "]") {
		return "", fmt.Errorf("%q has no set of characters between [ and ]: %s", Clip(s), allowed)
	}
	first, _, _ := strings.Cut(s, "/")
	if !strings.ContainsAny(first, ".:*?[") && first != "localhost" {
		return "", fmt.Errorf("%q begins with no registry: %s", Clip(s), allowed)
	}
	return s, nil
}

// Match checks a pattern of REPOSITORY:TAG.
func Match(s string) (string, error) {
	if s == "" {
		return "", errors.New("is empty: use a pattern, such as library/*:latest")
	}
	if _, err := Plain(s); err != nil {
		return "", err
	}
	if _, err := wire.CompilePattern(s); err != nil {
		return "", fmt.Errorf("%q has a [ without its ], or a set between them that means nothing", Clip(s))
	}
	return s, nil
}

// Traces reads the URL of a collector.
func Traces(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is no URL of a collector: use http:// or https:// with a host and perhaps a path, and headers for what is secret", Clip(s))
	}
	return s, nil
}

// Currency checks the name of a currency.
func Currency(s string) (string, error) {
	const most = 8
	if n := utf8.RuneCountInString(s); n < 1 || n > most || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }) {
		return "", fmt.Errorf("%q is not usable: use 1 to %d characters, such as EUR", Clip(s), most)
	}
	return s, nil
}

// bucketName is what S3 and its likes allow in names of buckets.
var bucketName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{1,61}[a-zA-Z0-9]$`)

// Bucket checks the name of a bucket.
func Bucket(s string) (string, error) {
	if s != "" && !bucketName.MatchString(s) {
		return "", errors.New("is not the name of a bucket: 3 to 63 letters, digits, dots and hyphens, without s3://")
	}
	return s, nil
}

// BucketURL checks the URL of an object store.
func BucketURL(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", errors.New("is not a URL: write it as https://host:port")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("must not have user, query or fragment")
	}
	return strings.TrimRight(s, "/"), nil
}

// Prefix checks what stands before the names of objects.
func Prefix(s string) (string, error) {
	if _, err := Plain(s); err != nil {
		return "", err
	}
	s = strings.Trim(s, "/")
	if len(s) > 512 {
		return "", errors.New("is longer than 512 bytes")
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "." || part == ".." || part == "" && s != "" {
			return "", errors.New("has an empty part, or one of dots")
		}
	}
	return s, nil
}

var accountNumber = regexp.MustCompile(`^[0-9]{12}$`)

// Account checks the number of an AWS account.
func Account(s string) (string, error) {
	if s != "" && !accountNumber.MatchString(s) {
		return "", errors.New("is not the number of an account: 12 digits, in quotes")
	}
	return s, nil
}

// SameOwner reports whether two endpoints seem to have one owner: the same host, or hosts of
// one registrable domain. The owner of an address or a short name cannot be known.
func SameOwner(one, two string) bool {
	a, b := hostOf(one), hostOf(two)
	if a == b || net.ParseIP(a) != nil || net.ParseIP(b) != nil || !strings.Contains(a, ".") || !strings.Contains(b, ".") {
		return true
	}
	x, errX := publicsuffix.EffectiveTLDPlusOne(a)
	y, errY := publicsuffix.EffectiveTLDPlusOne(b)
	return errX == nil && errY == nil && x == y
}

func hostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// HeaderPairs reads headers as pairs of name=value, separated by commas. They may be secret.
func HeaderPairs(text string) (map[string]string, error) {
	pairs := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, errors.New("needs pairs of name=value, separated by commas: one of them is none") // which may be a secret
		}
		pairs[name] = value
	}
	return pairs, nil
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

// List splits at commas; spaces around an element do not count.
func List(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	elements := strings.Split(text, ",")
	for i := range elements {
		elements[i] = strings.TrimSpace(elements[i])
	}
	return elements
}

// Pairs returns "key=value" for a map, sorted by key.
func Pairs(m map[string]string) []string {
	all := make([]string, 0, len(m))
	for key, value := range m {
		all = append(all, key+"="+value)
	}
	slices.Sort(all)
	return all
}

// Word reads a name that the operator gives something.
func Word(text string) (string, error) {
	if !SetName.MatchString(text) {
		return "", fmt.Errorf("%q is no name: use up to 64 letters, digits, dots, dashes and underscores", Clip(text))
	}
	return text, nil
}

// Kind reads the kind of an event.
func Kind(text string) (string, error) {
	if text == "" || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return "", fmt.Errorf("%q is no kind of event: `forebay notify --kinds` lists them", Clip(text))
	}
	return text, nil
}
