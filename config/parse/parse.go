// Package parse reads single values of the configuration.
//
// It promises errors that say what is wrong and what is allowed, and that complete the sentence
// "KEY: …". None of them repeats what may be a password.
package parse

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/robfig/cron/v3"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/publicsuffix"

	"forebay/internal/registries"
	"forebay/internal/wire"
)

// Day is how durations are told in days.
const Day = 24 * time.Hour

// Plain checks a text that is used as it is: names of users and files.
func Plain(s string) (string, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("holds a control character or a line break")
	}
	return s, nil
}

// unexpanded matches $NAME, ${NAME}, and both and ~ as parts of a file's name.
var unexpanded = regexp.MustCompile(`^\$\w+$|\$\{\w+\}|/(~|\$\w+)(/|$)`)

// Unexpanded reports whether a value looks as if a shell were to read it first.
func Unexpanded(s string) bool { return unexpanded.MatchString(s) }

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
	if err := begins(s); err != nil {
		return "", err
	}
	if !strings.ContainsAny(s[strings.LastIndexByte(s, '/')+1:], ":*") {
		return "", fmt.Errorf("%q names no tag: add one, or :* for all tags", Clip(s))
	}
	return s, nil
}

// Within returns a pattern of repositories of a registry, which people may write as clients do: with
// the registry, unless that is any ("*"), and without library/.
func Within(registry, pattern string) string {
	if registry != "*" {
		pattern = strings.TrimPrefix(pattern, registry+"/")
	}
	if repo, _, _ := strings.Cut(pattern, ":"); registry == registries.Hub && repo != "" && !strings.ContainsAny(repo, "/*?[") {
		return "library/" + pattern
	}
	return pattern
}

// begins refuses patterns that no name matches, as names begin otherwise.
func begins(s string) error {
	first, _, several := strings.Cut(s, "/")
	switch known := registries.Find(first).Name; {
	case strings.Contains(s, "://"):
		return fmt.Errorf("%q has a scheme: leave it out", Clip(s))
	case several && known != first:
		return fmt.Errorf("%q matches nothing: write %s in the place of %s", Clip(s), Clip(known), Clip(first))
	}
	return nil
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
	if err := begins(s); err != nil {
		return "", err
	}
	first, rest, _ := strings.Cut(s, "/")
	switch {
	case !strings.ContainsAny(first, ".:*?[") && first != "localhost":
		return "", fmt.Errorf("%q begins with no registry: %s", Clip(s), allowed)
	case strings.Contains(rest, ":"):
		return "", fmt.Errorf("%q names a tag, and rights are those to a repository: %s", Clip(s), allowed)
	case first == wire.Hub && rest != "" && !strings.ContainsAny(rest, "/*?["):
		return wire.Hub + "/library/" + rest, nil
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
