// Package rule is what the configuration says of a policy: its keys, and the rule that they come to.
//
// It promises that whatever it takes can be used as it is. It reads no files.
package rule

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"forebay/cache/policy"
	"forebay/config/key"
	"forebay/config/parse"
	"forebay/internal/secret"
)

// Policy is a rule about which digest of a tag answers.
type Policy struct {
	Name          string
	Match, Except []string // patterns of tags
	Mode          Mode     // Default ModeEnforce
	Age           time.Duration
	FirstSight    policy.FirstSight // Default policy.Serve
	Digests       policy.Digests    // Default policy.CheckedDigest
	Freeze        string            // an instant; empty: none
	Deny, Allow   []string          // terms
	// DenyFrom and AllowFrom are files and URLs with terms.
	DenyFrom, AllowFrom []string
	SignedBy            []string // names of signers, of which one must have signed
	Judge               Judge
}

// Judge is asked by HTTP what it thinks of a digest, unless URL is empty.
type Judge struct {
	URL         string
	Headers     secret.Text // from Headers or HeadersFile
	HeadersFile string
	Timeout     time.Duration // Default 5s
	OnError     OnError       // Default OnErrorWait
}

// Mode says whether a rule acts.
type Mode string

// ModeObserve only tells what it would do.
const (
	ModeEnforce Mode = "enforce"
	ModeObserve Mode = "observe"
)

// OnError says what counts while a judge cannot be asked.
type OnError string

// The answers that count.
const (
	OnErrorWait  OnError = "wait"
	OnErrorAllow OnError = "allow"
	OnErrorDeny  OnError = "deny"
)

// Default returns a rule of which nothing is given.
func Default() Policy {
	return Policy{Mode: ModeEnforce, FirstSight: policy.Serve, Digests: policy.CheckedDigest, Judge: Judge{Timeout: 5 * time.Second, OnError: OnErrorWait}}
}

// Fields returns the keys.
func (r *Policy) Fields() []key.Key {
	const terms = " Each is a digest, a pattern of images as in `match`, or conditions that must all hold, with spaces between them: `digest=`, `upstream=`, `repository=`, `tag=`, `media_type=`, `platform=` with patterns; `size>5GiB`, `age<3d` (since when the tag has it), `old>2y` and `created<2024-01-01` (by the image's own word) with `<` or `>`."
	const from = " From files and URLs with one term in each line, `#` before comments. They are read again every minute; while one cannot be read, what it said last counts."
	return []key.Key{
		{Name: "name", What: "a word", Doc: "What answers, logs and the audit log call the rule: letters, digits, `-`, `_` and `.`.",
			Set: key.Into(&r.Name, parse.Word), Get: func() []string { return []string{r.Name} }},
		key.Texts("match", &r.Match, "patterns", imagePattern, "Tags that the rule is about, such as `docker.io/library/*`, `nginx:1.*`, `ghcr.io/owner/app`. `*` stands for any text, slashes too; without a tag all tags are meant; `docker.io/library/` may be left out. Default: all."),
		key.Texts("except", &r.Except, "patterns", imagePattern, "Tags of those that it is not about."),
		key.Choice("mode", &r.Mode, []Mode{ModeEnforce, ModeObserve}, "`enforce`: what the rule says is done. `observe`: it is only told, by metrics, `forebay policy report` and the log."),
		key.Duration("age", &r.Age, 0, 3650*parse.Day, "For how long a tag must have had a digest, upstream, before that answers. It counts from when this mirror saw it first, which looks at such tags once a day at least. 0: no time."),
		key.Choice("first_sight", &r.FirstSight, []policy.FirstSight{policy.Serve, policy.Hold, policy.Created}, "What becomes of the digest that a tag has when it is seen here for the first time, as long as it is not old enough. `serve`: it answers. `hold`: none does. `created`: it answers if Docker Hub says that the tag has it for long enough; elsewhere, and where that cannot be asked, if it says itself that it was made long enough ago, which its maker may have made up."),
		key.Choice("digests", &r.Digests, []policy.Digests{policy.CheckedDigest, policy.AnyDigest, policy.KnownDigest, policy.AgedDigest}, "What clients get that ask by digest. `checked`: what lists, `signed_by` and `judge` allow, and the images of an index for which that holds. `any`: what no list denies. `known`: as `checked`, and only what a tag of the repository is known to have had, with what belongs to it. `aged`: only if it has had it for `age`."),
		{Name: "freeze", What: "a time", Doc: "Moves of tags after that time do not count: `2026-11-01`, or `2026-11-01T12:00Z`. `forebay freeze` does the same at once. Empty: they do.",
			Set: key.Into(&r.Freeze, func(s string) (string, error) {
				if s == "" {
					return "", nil
				}
				_, err := policy.ParseInstant(s)
				if s == "now" {
					err = errors.New("now would be another time at each start: use a date, or forebay freeze")
				}
				return s, err
			}), Get: func() []string { return []string{r.Freeze} }},
		key.Texts("deny", &r.Deny, "terms", policyTerm, "What does not answer."+terms),
		key.Texts("allow", &r.Allow, "terms", policyTerm, "What may answer, and nothing else, as terms of `deny`. Empty: everything."),
		key.Texts("deny_from", &r.DenyFrom, "file names and URLs", source, "Further terms of `deny`."+from),
		key.Texts("allow_from", &r.AllowFrom, "file names and URLs", source, "Further terms of `allow`."+from),
		key.Texts("signed_by", &r.SignedBy, "names of `signers`", parse.Word, "One of these must have signed a digest before it answers; a tag that moves to one that is not signed goes on at the last that is. Signatures are looked for among the referrers and by the tag scheme of cosign, through this mirror. Whoever signs after the push is waited for: it is looked at again after a minute, and then less and less often."),
		{Name: "judge", Kind: key.Section, Fields: r.Judge.fields(), Doc: "Who is asked by HTTP before a digest answers that is new here, such as a scanner."},
	}
}

func (j *Judge) fields() []key.Key {
	return []key.Key{
		{Name: "url", What: "a URL", Doc: "Gets a POST of JSON with `ref`, `digest`, `media_type` and `platforms`, and answers `{\"decision\": \"allow\", \"reason\": \"…\"}`, with `allow`, `deny` or `wait`. It may be on a private address. What it allows or denies is remembered until `expires` of the answer, or for a day. Empty: nobody is asked.",
			Set: key.Into(&j.URL, func(s string) (string, error) {
				if s == "" {
					return "", nil
				}
				return s, hook(s)
			}), Get: func() []string { return []string{j.URL} }},
		key.Secret("headers", &j.Headers, "Headers that it wants, as `name=value` pairs separated by commas. Prefer `headers_file`."),
		key.SecretFile("headers_file", &j.HeadersFile, "File with those pairs, all in one line."),
		key.Duration("timeout", &j.Timeout, 100*time.Millisecond, 15*time.Second, "How long it has for its answer."),
		key.Choice("on_error", &j.OnError, []OnError{OnErrorWait, OnErrorAllow, OnErrorDeny}, "What counts while it fails or says nothing useful: `wait` leaves a tag at what was allowed before."),
	}
}

// imagePattern reads a pattern of images, with or without a tag.
func imagePattern(s string) (string, error) {
	if strings.ContainsAny(s, ":*") {
		return parse.PinPattern(s)
	}
	if _, err := parse.PinPattern(s + ":*"); err != nil {
		return "", err
	}
	return s, nil
}

func policyTerm(s string) (string, error) {
	t, err := policy.ParseTerm(s)
	return t.String(), err
}

func source(s string) (string, error) {
	if strings.Contains(s, "://") {
		return s, hook(s)
	}
	return parse.Plain(s)
}

// hook reports why a text is no URL that is asked.
func hook(s string) error {
	if u, err := url.Parse(s); err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return errors.New("is no URL to ask: use https:// and a host, and headers for a user or token")
	}
	return nil
}

// Fault returns what is missing in the rule, "" for nothing.
func (r *Policy) Fault() string {
	switch {
	case r.Name == "":
		return "needs a name"
	case !r.acts():
		return "does nothing: set age, freeze, deny, allow, digests, signed_by or judge"
	case r.Digests == policy.AgedDigest && r.Age == 0:
		return "has digests: aged and no age"
	case r.FirstSight == policy.Created && r.Age == 0:
		return "has first_sight: created and no age"
	}
	return ""
}

// acts reports whether a rule says anything.
func (r *Policy) acts() bool {
	return r.Age > 0 || r.Freeze != "" || r.Digests == policy.KnownDigest || r.Digests == policy.AgedDigest || len(r.Deny)+len(r.Allow)+len(r.DenyFrom)+len(r.AllowFrom) > 0 || len(r.SignedBy) > 0 || r.Judge.URL != ""
}

// Rule returns what the rule says in the configuration alone.
func (r *Policy) Rule() (policy.Rule, error) {
	out := policy.Rule{Name: r.Name, Observe: r.Mode == ModeObserve, Age: r.Age, FirstSight: r.FirstSight, Digests: r.Digests, Signed: len(r.SignedBy) > 0, Judge: r.Judge.URL != ""}
	var err error
	fail := func(one error) {
		if err == nil && one != nil {
			err = fmt.Errorf("policy %s: %w", r.Name, one)
		}
	}
	for _, list := range []struct {
		from []string
		to   *[]policy.Pattern
	}{{r.Match, &out.Match}, {r.Except, &out.Except}} {
		for _, s := range list.from {
			p, one := policy.ParsePattern(s)
			fail(one)
			*list.to = append(*list.to, p)
		}
	}
	for _, list := range []struct {
		from []string
		to   *[]policy.Term
	}{{r.Deny, &out.Deny}, {r.Allow, &out.Allow}} {
		for _, s := range list.from {
			t, one := policy.ParseTerm(s)
			fail(one)
			*list.to = append(*list.to, t)
		}
	}
	if r.Freeze != "" {
		var one error
		out.Freeze, one = policy.ParseInstant(r.Freeze)
		fail(one)
	}
	return out, err
}
