package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/config/unit"
	"forebay/internal/wire"
)

// Term is one entry of a list: a digest, a pattern of images, or conditions that must all hold.
type Term struct {
	text  string
	conds []func(*trial, candidate) (truth, string)
}

func (t Term) String() string { return t.text }

// truth is what is known of something; the text that comes with it says why it is unknown.
type truth uint8

const (
	no truth = iota
	yes
	unknown
)

// ParseTerm reads a term: "sha256:…", "docker.io/library/*", or conditions with spaces between
// them, such as "platform=windows/* size>5GiB"; NAME@DIGEST is a pattern and a digest.
func ParseTerm(s string) (Term, error) {
	t := Term{text: strings.Join(strings.Fields(s), " ")}
	for _, word := range strings.Fields(strings.ReplaceAll(s, "@", " ")) {
		cond, err := parseCondition(word)
		if err != nil {
			return Term{}, fmt.Errorf("%.80q: %w", word, err)
		}
		t.conds = append(t.conds, cond)
	}
	if len(t.conds) == 0 {
		return Term{}, errors.New("is empty: use a digest, a pattern of images or conditions, such as platform=windows/*")
	}
	return t, nil
}

// Nothing is a list of terms that is about nothing.
func Nothing() []Term {
	return []Term{{"nothing", []func(*trial, candidate) (truth, string){func(*trial, candidate) (truth, string) { return no, "" }}}}
}

// is tells whether a term is about a digest. What is asked for last is what has to be fetched.
func (t Term) is(c *trial, one candidate) (truth, string) {
	is, because := yes, ""
	for _, cond := range t.conds {
		switch now, why := cond(c, one); now {
		case no:
			return no, ""
		case unknown:
			is, because = unknown, why
		}
	}
	return is, because
}

func truthOf(b bool) (truth, string) {
	if b {
		return yes, ""
	}
	return no, ""
}

func parseCondition(word string) (func(*trial, candidate) (truth, string), error) {
	at := strings.IndexAny(word, "=<>")
	if at < 0 {
		if d, err := wire.ParseDigest(word); err == nil {
			return ofDigest(d), nil
		}
		p, err := ParsePattern(word)
		return func(c *trial, _ candidate) (truth, string) { return truthOf(p.Matches(c.repo, c.tag)) }, err
	}
	key, op, value := word[:at], word[at], word[at+1:]
	if op == '=' {
		return parseEqual(key, value)
	}
	more := op == '>'
	switch key {
	case "size":
		n, err := unit.ParseSize(value)
		return ofFacts(true, func(f Facts, _ time.Time) bool { return f.Size >= 0 && f.Size != n && (f.Size > n) == more }), err
	case "created":
		day, err := ParseInstant(value)
		return ofFacts(true, func(f Facts, _ time.Time) bool { return !f.Created.IsZero() && f.Created.After(day) == more }), err
	case "old":
		d, err := unit.ParseDuration(value)
		return ofFacts(true, func(f Facts, now time.Time) bool { return !f.Created.IsZero() && (now.Sub(f.Created) > d) == more }), err
	case "age":
		d, err := unit.ParseDuration(value)
		return func(c *trial, one candidate) (truth, string) { return truthOf((c.now.Sub(one.Since) > d) == more) }, err
	}
	return nil, fmt.Errorf("%q cannot be compared: use size, age, old or created", key)
}

func parseEqual(key, value string) (func(*trial, candidate) (truth, string), error) {
	if key == "digest" {
		d, err := wire.ParseDigest(value)
		return ofDigest(d), err
	}
	match, err := wire.CompilePattern(value)
	if err == nil && value == "" {
		err = errors.New("has no value")
	}
	if err != nil {
		return nil, err
	}
	switch key {
	case "upstream":
		return func(c *trial, _ candidate) (truth, string) {
			upstream, _, _ := strings.Cut(c.repo, "/")
			return truthOf(match.MatchString(upstream))
		}, nil
	case "repository":
		return func(c *trial, _ candidate) (truth, string) {
			upstream, name, _ := strings.Cut(c.repo, "/")
			return truthOf(match.MatchString(name) || upstream == wire.Hub && match.MatchString(strings.TrimPrefix(name, "library/")))
		}, nil
	case "tag":
		return func(c *trial, _ candidate) (truth, string) { return truthOf(match.MatchString(c.tag)) }, nil
	case "media_type":
		return ofFacts(false, func(f Facts, _ time.Time) bool { return match.MatchString(f.MediaType) }), nil
	case "platform":
		return platforms(match), nil
	}
	return nil, fmt.Errorf("there is no %q: use digest, upstream, repository, tag, media_type, platform, size, age, old or created", key)
}

// platforms allows an image that has one for a platform, and denies one that has no other: what
// others have is dealt with when it is asked for.
func platforms(match *regexp.Regexp) func(*trial, candidate) (truth, string) {
	return func(c *trial, one candidate) (truth, string) {
		return ofFacts(false, func(f Facts, _ time.Time) bool {
			if c.allowing {
				return slices.ContainsFunc(f.Platforms, match.MatchString)
			}
			return len(f.Platforms) > 0 && !slices.ContainsFunc(f.Platforms, func(p string) bool { return !match.MatchString(p) })
		})(c, one)
	}
}

func ofDigest(d v1.Hash) func(*trial, candidate) (truth, string) {
	return func(_ *trial, one candidate) (truth, string) { return truthOf(one.Digest == d) }
}

func ofFacts(deep bool, is func(Facts, time.Time) bool) func(*trial, candidate) (truth, string) {
	return func(c *trial, one candidate) (truth, string) {
		f := c.known.Facts(one.Digest, deep)
		if f.Unknown != nil {
			return unknown, f.Unknown.Error()
		}
		return truthOf(is(f, c.now))
	}
}

// ParseInstant reads a day, or a time as RFC 3339 writes it, of which the seconds and the zone may
// be left out. Without a zone it is in UTC.
func ParseInstant(s string) (time.Time, error) {
	if t, ok := wire.Instant(s); ok {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%.40q is no time: use 2026-11-01 or 2026-11-01T12:00Z", s)
}
