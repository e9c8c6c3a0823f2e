// Package policy says which digest of a tag answers, by which rule, why, and until when.
//
// It promises to ask nobody and to keep nothing: the same rules, bindings, facts and time give
// the same verdict. What is known of a digest comes from a [Known], of which only what the rules
// need is asked, and which may say that it does not know.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/config/unit"
	"forebay/internal/wire"
)

// Rule is one rule of a policy. All that it says must hold of a digest that answers.
type Rule struct {
	Name    string
	Match   []Pattern // of tags; none: all
	Except  []Pattern
	Observe bool // only tells what it would do

	Age        time.Duration // for which a tag must have had a digest; 0: none
	FirstSight FirstSight
	Digests    Digests
	Freeze     time.Time // later moves do not count; zero: they do
	Deny       []Term
	Allow      []Term // none: everything
	Signed     bool   // [Known.Signed] is asked
	Judge      bool   // [Known.Judged] is asked
}

// FirstSight says what becomes of the digest that a tag had when it was first seen, until it is
// old enough.
type FirstSight string

// The ways: it answers; nothing does; it answers if the image says that it was made long enough ago.
const (
	Serve   FirstSight = "serve"
	Hold    FirstSight = "hold"
	Created FirstSight = "created"
)

// Digests says which manifests are given to those who ask by digest.
type Digests string

// Those that no list denies; of those, the ones that are signed and that the judge allows, where the
// rule wants that ("" is the same); of those, the ones that a tag has had; and had for long enough.
const (
	AnyDigest     Digests = "any"
	CheckedDigest Digests = "checked"
	KnownDigest   Digests = "known"
	AgedDigest    Digests = "aged"
)

// Pattern is a pattern of names such as docker.io/library/nginx:1.*, in which * stands for any
// text, slashes too. One without a tag is of all tags. docker.io/library/ may be left out.
type Pattern struct {
	text   string
	match  *regexp.Regexp
	tagged bool
}

// ParsePattern reads a pattern. What no name can be is none: a rule by it would be about nothing.
func ParsePattern(s string) (Pattern, error) {
	match, err := wire.CompilePattern(s)
	switch outside := sets.ReplaceAllString(s, ""); {
	case err != nil:
	case strings.Trim(outside, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-*?") != "", strings.Contains(s, "//"):
		err = errors.New("is no pattern of images: use one such as docker.io/library/* or ghcr.io/owner/app:v1*")
	case strings.HasPrefix(strings.ToLower(s), "sha256:"):
		_, err = wire.ParseDigest(s)
	}
	return Pattern{s, match, strings.LastIndexByte(s, ':') > strings.LastIndexByte(s, '/')}, err
}

// sets are those of characters in a pattern.
var sets = regexp.MustCompile(`\[[^\]]+\]`)

func (p Pattern) String() string { return p.text }

// Matches reports whether the pattern is of a tag; "" stands for what no tag names.
func (p Pattern) Matches(repo, tag string) bool {
	if p.tagged {
		repo += ":" + tag
	}
	return wire.MatchesName(p.match, repo)
}

func anyMatches(all []Pattern, repo, tag string) bool {
	return slices.ContainsFunc(all, func(p Pattern) bool { return p.Matches(repo, tag) })
}

// Freeze is an operator's wish that tags stay as they are.
type Freeze struct {
	Match Pattern
	At    time.Time // later moves do not count
	Until time.Time // zero: until it is lifted
	Why   string
}

// Promotion is an operator's wish that a digest answers now, until the tag gets one that is old enough.
type Promotion struct {
	Digest v1.Hash
	At     time.Time
	Why    string
}

// Policy is a set of rules with what operators decided. It is not changed once it is used.
type Policy struct {
	Version    uint64
	Rules      []Rule
	Freezes    []Freeze
	Promotions map[string]Promotion // by repository:tag
}

// Concerns reports whether any rule is about a tag.
func (p *Policy) Concerns(repo, tag string) bool {
	return len(p.rules(repo, tag)) > 0 || p.Promotions[repo+":"+tag] != (Promotion{}) ||
		slices.ContainsFunc(p.Freezes, func(f Freeze) bool { return f.Match.Matches(repo, tag) })
}

// ByDigest reports whether anything may be refused to who asks by digest.
func (p *Policy) ByDigest() bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool {
		return !r.Observe && (len(r.Deny)+len(r.Allow) > 0 || r.Digests == KnownDigest || r.Digests == AgedDigest || r.vouched())
	})
}

// Ages reports whether it matters how long a tag has had a digest.
func (p *Policy) Ages() bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Age > 0 })
}

// rules returns those about a tag.
func (p *Policy) rules(repo, tag string) (all []*Rule) {
	for i := range p.Rules {
		if r := &p.Rules[i]; r.About(repo, tag) {
			all = append(all, r)
		}
	}
	return all
}

// Binding is that a tag had a digest.
type Binding struct {
	Digest v1.Hash
	Since  time.Time // when it was first seen
	Until  time.Time // when it was last known to be so; zero: it is so
}

// Facts are what is known of an image.
type Facts struct {
	MediaType string
	Size      int64     // bytes of all its layers, of an index those of the largest image; -1: it does not say
	Created   time.Time // zero: it does not say
	Platforms []string
	// Unknown is why nothing is known now, which may change; nil for what is all that can be known.
	Unknown error
}

// Answer is what is known of something that is asked elsewhere.
type Answer struct {
	Yes   bool
	Wait  bool      // it is not known yet
	Why   string    // not; or who vouches for it
	Until time.Time // when to ask again; zero: never
}

// Known tells what is known of digests of the repository that a verdict is about.
type Known interface {
	// Facts tells of a digest. Without deep, Size and Created may be left out: they are in other content.
	Facts(d v1.Hash, deep bool) Facts
	// Updated says since when the registry says that a tag has a digest; zero if it does not say. With an
	// error it may say later.
	Updated(tag string, d v1.Hash) (time.Time, error)
	// Signed says whether a digest has a signature that a rule accepts.
	Signed(d v1.Hash, rule string) Answer
	// Judged says what the judge of a rule says of a digest.
	Judged(d v1.Hash, rule string) Answer
	// Includes reports whether d belongs to what of names: as an image of an index, or as a referrer.
	Includes(of, d v1.Hash) bool
	// Within goes through what d belongs to so that whoever vouches for that vouches for d: indexes that
	// name it, and of what no client runs, what it is about.
	Within(d v1.Hash) iter.Seq[v1.Hash]
}

// Verdict is which digest answers.
type Verdict struct {
	Digest v1.Hash // zero: none may
	// Passed are those that do not, though the tag had them later, the latest first; all of them
	// if none answers.
	Passed []Passed
	// Until is when the verdict has to be made anew, though nothing has changed; zero: never.
	Until time.Time
	// Would is the verdict if the rules that only observe were enforced; nil if it is the same.
	Would *Verdict
}

// Passed is a digest that does not answer.
type Passed struct {
	Binding

	Rule string
	Why  string
	Due  time.Time // when it will, if nothing changes; zero: not by time
	// Overrule says that a promotion would have it answer, as far as this rule goes.
	Overrule bool
}

// Refused returns why no digest answers: the latest.
func (v *Verdict) Refused() Passed {
	if v.Digest != (v1.Hash{}) || len(v.Passed) == 0 {
		return Passed{}
	}
	return v.Passed[0]
}

const (
	// candidatesMost bounds how many digests of a tag are looked at, since facts may have to be fetched.
	candidatesMost = 50
	// retryAfter is how soon something is asked for again that could not be found out.
	retryAfter = time.Minute
)

// Tag returns the verdict on a tag with at least one binding, the latest first.
func (p *Policy) Tag(repo, tag string, bindings []Binding, known Known, now time.Time) Verdict {
	rules := p.rules(repo, tag)
	c := trial{p: p, repo: repo, tag: tag, known: known, now: now}
	c.rules = slices.DeleteFunc(slices.Clone(rules), func(r *Rule) bool { return r.Observe })
	v := c.run(bindings)
	if len(c.rules) == len(rules) {
		return v
	}
	c.rules, c.until = rules, time.Time{}
	would := c.run(bindings)
	v.Until = earliest(v.Until, would.Until)
	if would.Digest != v.Digest {
		v.Would = &would
	}
	return v
}

// trial is one run of rules over what a tag has had.
type trial struct {
	p         *Policy
	repo, tag string
	rules     []*Rule
	known     Known
	now       time.Time
	until     time.Time
	allowing  bool // what is looked at is what allows
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// candidate is a digest that may answer.
type candidate struct {
	Binding

	first    bool // nothing is known of the time before it
	promoted bool
}

// candidates are what a tag has had, the latest first. What it had when an operator promoted a
// digest gives way to that.
func (c *trial) candidates(bindings []Binding) (all []candidate) {
	promoted := c.p.Promotions[c.repo+":"+c.tag]
	for i, b := range bindings {
		if promoted.At.IsZero() || b.Since.After(promoted.At) {
			all = append(all, candidate{Binding: b, first: i == len(bindings)-1})
		}
	}
	if !promoted.At.IsZero() {
		all = append(all, candidate{Binding: Binding{Digest: promoted.Digest, Since: promoted.At}, promoted: true})
	}
	return all[:min(len(all), candidatesMost)]
}

func (c *trial) run(bindings []Binding) (v Verdict) {
	for _, one := range c.candidates(bindings) {
		passed := c.judge(one)
		if passed == nil {
			v.Digest = one.Digest
			break
		}
		v.Passed = append(v.Passed, *passed)
		if passed.Due.After(c.now) {
			c.until = earliest(c.until, passed.Due)
		}
	}
	v.Until = c.until
	return v
}

// judge returns why a digest does not answer; nil if it does.
func (c *trial) judge(one candidate) *Passed {
	for i := range c.p.Freezes {
		f := &c.p.Freezes[i]
		if !f.Match.Matches(c.repo, c.tag) || !f.Until.IsZero() && !f.Until.After(c.now) {
			continue
		}
		if one.Since.After(f.At) && !one.promoted && !one.first {
			c.until = earliest(c.until, f.Until)
			return &Passed{one.Binding, "freeze " + f.Match.text, because("it is frozen since "+stamp(f.At), f.Why), f.Until, true}
		}
	}
	for _, r := range c.rules {
		for i, look := range []func(*Rule, candidate) (string, time.Time){c.frozen, c.young, c.listed, c.asked} {
			if why, due := look(r, one); why != "" {
				return &Passed{one.Binding, r.Name, why, due, i < 2}
			}
		}
	}
	return nil
}

func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04Z") }

func (c *trial) frozen(r *Rule, one candidate) (string, time.Time) {
	if r.Freeze.IsZero() || !one.Since.After(r.Freeze) || one.promoted || one.first && r.FirstSight != Hold {
		return "", time.Time{}
	}
	return "it is frozen since " + stamp(r.Freeze), time.Time{}
}

// held is for how long a tag has had a digest, as far as somebody looked.
func (c *trial) held(b Binding) time.Duration {
	if b.Until.IsZero() {
		return c.now.Sub(b.Since)
	}
	return b.Until.Sub(b.Since)
}

func (c *trial) young(r *Rule, one candidate) (why string, due time.Time) {
	held := c.held(one.Binding)
	if r.Age == 0 || one.promoted || held >= r.Age || one.first && r.FirstSight == Serve {
		return "", due
	}
	if one.Until.IsZero() {
		due = one.Since.Add(r.Age)
	}
	why = fmt.Sprintf("the tag has had it for %s, and %s are wanted", span(held), span(r.Age))
	if !one.Until.IsZero() {
		why = fmt.Sprintf("the tag had it for %s, and %s are wanted", span(held), span(r.Age))
	}
	if !one.first || r.FirstSight != Created {
		return why, due
	}
	// What the registry says goes before what the image does, which its maker may have made up.
	switch at, err := c.known.Updated(c.tag, one.Digest); {
	case err != nil:
		c.retry()
		return why + "; since when its registry has it there is not known: " + err.Error(), due
	case !at.IsZero() && c.now.Sub(at) >= r.Age:
		return "", due
	case !at.IsZero():
		return "its registry has it there for " + span(c.now.Sub(at)) + ", and " + span(r.Age) + " are wanted", earliest(due, at.Add(r.Age))
	}
	switch f := c.known.Facts(one.Digest, true); {
	case f.Unknown != nil:
		c.retry()
		return why + "; when it was made is not known: " + f.Unknown.Error(), due
	case f.Created.IsZero():
		return why + "; it does not say when it was made", due
	case c.now.Sub(f.Created) >= r.Age:
		return "", due
	default:
		return "it was made " + span(c.now.Sub(f.Created)) + " ago, and " + span(r.Age) + " are wanted", earliest(due, f.Created.Add(r.Age))
	}
}

// span is a duration for people: in days, or shorter.
func span(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
	}
	return unit.FormatDuration(max(d, 0).Truncate(time.Minute))
}

// retry has the verdict made again soon.
func (c *trial) retry() { c.until = earliest(c.until, c.now.Add(retryAfter)) }

func (c *trial) listed(r *Rule, one candidate) (string, time.Time) {
	for _, t := range r.Deny {
		switch is, why := t.is(c, one); is {
		case yes:
			return "it is denied: " + t.text, time.Time{}
		case unknown:
			c.retry()
			return "it is not known whether it is denied (" + t.text + "): " + why, c.now.Add(retryAfter)
		}
	}
	if len(r.Allow) == 0 {
		return "", time.Time{}
	}
	var because string
	c.allowing = true
	defer func() { c.allowing = false }()
	for _, t := range r.Allow {
		is, why := t.is(c, one)
		if is == yes {
			return "", time.Time{}
		}
		because = cmp.Or(because, why)
	}
	if because != "" {
		c.retry()
		return "it is not known whether it is allowed: " + because, c.now.Add(retryAfter)
	}
	return "nothing allows it", time.Time{}
}

// signatureTag is of a signature, an attestation or an SBOM (cosign), which nobody signs.
var signatureTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.(sig|att|sbom))?$`)

// asked is what others say: who verifies signatures, and the judge.
func (c *trial) asked(r *Rule, one candidate) (string, time.Time) {
	ask := func(a Answer, otherwise string) (string, time.Time) {
		c.until = earliest(c.until, a.Until)
		if a.Yes {
			return "", time.Time{}
		}
		due := time.Time{}
		if a.Wait {
			due = a.Until
		}
		return because(otherwise, a.Why), due
	}
	if r.Signed && !signatureTag.MatchString(c.tag) {
		if why, due := ask(c.known.Signed(one.Digest, r.Name), "it has no valid signature"); why != "" {
			return why, due
		}
	}
	if r.Judge {
		if why, due := ask(c.known.Judged(one.Digest, r.Name), "the judge does not allow it"); why != "" {
			return why, due
		}
	}
	return "", time.Time{}
}

// Named is a tag with what it has had, the latest first.
type Named struct {
	Tag      string
	Bindings []Binding
}

// Digest returns why a manifest is not given to those who ask for it by its digest; nil if it is.
// until is as that of a [Verdict]. tags are those of the repository.
func (p *Policy) Digest(repo string, d v1.Hash, tags []Named, known Known, now time.Time) (refused *Passed, until time.Time) {
	var had []Named // what has it, or what it belongs to
	for _, t := range tags {
		t.Bindings = slices.DeleteFunc(slices.Clone(t.Bindings), func(b Binding) bool { return b.Digest != d && !known.Includes(b.Digest, d) })
		if len(t.Bindings) > 0 {
			had = append(had, t)
		}
	}
	c := trial{p: p, repo: repo, known: known, now: now}
	one := candidate{Binding: Binding{Digest: d, Since: now}}
	for _, t := range had {
		if first := t.Bindings[len(t.Bindings)-1].Since; first.Before(one.Since) {
			one.Since = first
		}
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		about := r.ofRepository(repo) || slices.ContainsFunc(had, func(t Named) bool { return r.About(repo, t.Tag) })
		if r.Observe || !about {
			continue
		}
		why, due := c.listedOf(r, one, had)
		if why == "" {
			why, due = c.wanted(r, d, had, tags)
		}
		if why == "" && r.vouched() {
			why, due = c.vouched(r, one)
		}
		if why != "" {
			return &Passed{one.Binding, r.Name, why, due, false}, earliest(c.until, due)
		}
	}
	return nil, c.until
}

// listedOf is listed for what is asked for by digest: by any of the tags that have it.
func (c *trial) listedOf(r *Rule, one candidate, had []Named) (why string, due time.Time) {
	defer func() { c.tag = "" }()
	for i := range max(len(had), 1) {
		if i < len(had) {
			c.tag = had[i].Tag
		}
		if why, due = c.listed(r, one); why == "" {
			return "", due
		}
	}
	return why, due
}

// vouched reports whether somebody has to vouch for what is asked for by digest.
func (r *Rule) vouched() bool { return (r.Signed || r.Judge) && r.Digests != AnyDigest }

// vouched is asked for what is asked for by digest, or for what it belongs to.
func (c *trial) vouched(r *Rule, one candidate) (why string, due time.Time) {
	for of := range c.known.Within(one.Digest) {
		if why, _ := c.asked(r, candidate{Binding: Binding{Digest: of}}); why == "" {
			return "", due
		}
	}
	return c.asked(r, one)
}

// About reports whether a rule is about a tag; "" stands for what no tag names.
func (r *Rule) About(repo, tag string) bool {
	return (len(r.Match) == 0 || anyMatches(r.Match, repo, tag)) && !anyMatches(r.Except, repo, tag)
}

// ofRepository reports whether a rule is about a repository with all its tags.
func (r *Rule) ofRepository(repo string) bool {
	return (len(r.Match) == 0 || slices.ContainsFunc(r.Match, func(p Pattern) bool { return !p.tagged && p.Matches(repo, "") })) && !anyMatches(r.Except, repo, "")
}

// wanted is by what a rule says of digests.
func (c *trial) wanted(r *Rule, d v1.Hash, had, all []Named) (why string, due time.Time) {
	switch r.Digests {
	case KnownDigest:
		if len(had) > 0 || slices.ContainsFunc(all, func(t Named) bool { return c.p.Promotions[c.repo+":"+t.Tag].Digest == d }) {
			return "", due
		}
		return "no tag is known to have had it", due
	case AgedDigest:
		why = "no tag is known to have had it"
		for _, t := range all {
			if p := c.p.Promotions[c.repo+":"+t.Tag]; !p.At.IsZero() && (p.Digest == d || c.known.Includes(p.Digest, d)) {
				return "", time.Time{}
			}
		}
		defer func() { c.tag = "" }()
		for _, t := range had {
			c.tag = t.Tag
			whole := slices.IndexFunc(all, func(one Named) bool { return one.Tag == t.Tag })
			oldest := all[whole].Bindings[len(all[whole].Bindings)-1]
			for _, b := range t.Bindings {
				young, when := c.young(r, candidate{Binding: b, first: b == oldest})
				if young == "" {
					return "", time.Time{}
				}
				why, due = young, earliest(due, when)
			}
		}
		return why, due
	}
	return "", due
}
