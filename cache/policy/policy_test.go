package policy

import (
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The clock of these tests: days after a day.
func day(n float64) time.Time {
	return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n * 24 * float64(time.Hour)))
}

func digest(name string) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64-len(name)) + name}
}

// The digests have one letter each.
var a, b, c, d = digest("a"), digest("b"), digest("c"), digest("d")

// world is what is known in a test.
type world struct {
	facts    map[v1.Hash]Facts
	signed   map[v1.Hash]bool
	judged   map[v1.Hash]Answer
	children map[v1.Hash][]v1.Hash
	updated  map[v1.Hash]time.Time
	limited  error
	asked    int
	dates    int
}

func (w *world) Facts(d v1.Hash, _ bool) Facts {
	w.asked++
	if f, ok := w.facts[d]; ok {
		return f
	}
	return Facts{Size: -1}
}
func (w *world) Updated(_ string, d v1.Hash) (time.Time, error) {
	w.dates++
	return w.updated[d], w.limited
}
func (w *world) Signed(d v1.Hash, _ string) Answer {
	return Answer{Yes: w.signed[d], Why: "nobody known signed it"}
}
func (w *world) Judged(d v1.Hash, _ string) Answer { return w.judged[d] }
func (w *world) Includes(of, d v1.Hash) bool {
	for _, child := range w.children[of] {
		if child == d {
			return true
		}
	}
	return false
}

func (w *world) Within(d v1.Hash) iter.Seq[v1.Hash] {
	return func(yield func(v1.Hash) bool) {
		for of := range w.children {
			if w.Includes(of, d) && !yield(of) {
				return
			}
		}
	}
}

func pattern(t *testing.T, s string) Pattern {
	t.Helper()
	p, err := ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func terms(t *testing.T, all ...string) (list []Term) {
	t.Helper()
	for _, s := range all {
		one, err := ParseTerm(s)
		if err != nil {
			t.Fatalf("ParseTerm(%q): %v", s, err)
		}
		list = append(list, one)
	}
	return list
}

const week = 7 * 24 * time.Hour

// was is a former binding that ended with the next one, is the present one.
func was(d v1.Hash, from, to float64) Binding { return Binding{d, day(from), day(to)} }
func is(d v1.Hash, from float64) Binding      { return Binding{Digest: d, Since: day(from)} }

func TestTag(t *testing.T) {
	nginx, tag := "docker.io/library/nginx", "1.27"
	moved := []Binding{is(b, 10), was(a, 0, 10)} // from a to b on day 10
	aged := Rule{Name: "aged", Age: week, FirstSight: Serve}
	with := func(r Rule, change func(*Rule)) Rule { change(&r); return r }
	tests := []struct {
		name     string
		rules    []Rule
		freezes  []Freeze
		promoted *Promotion
		bindings []Binding
		world    world
		at       float64
		want     v1.Hash
		rule     string  // that passed the latest
		why      string  // in its words
		until    float64 // 0: never
		would    v1.Hash
	}{
		{name: "no rule", bindings: moved, at: 10, want: b},
		{name: "moved just now", rules: []Rule{aged}, bindings: moved, at: 10.5, want: a, rule: "aged", why: "had it for 12h, and 7 days", until: 17},
		{name: "old enough", rules: []Rule{aged}, bindings: moved, at: 17, want: b},
		{name: "first sight is served", rules: []Rule{aged}, bindings: []Binding{is(a, 0)}, at: 0, want: a},
		{name: "first sight stays when the tag moves", rules: []Rule{aged}, bindings: []Binding{is(b, 1), was(a, 0, 1)}, at: 1, want: a, rule: "aged", until: 8},
		{name: "first sight is held", rules: []Rule{with(aged, func(r *Rule) { r.FirstSight = Hold })}, bindings: []Binding{is(a, 0)}, at: 1, rule: "aged", why: "for 1d", until: 7},
		{name: "first sight was made long ago", rules: []Rule{with(aged, func(r *Rule) { r.FirstSight = Created })}, bindings: []Binding{is(a, 10)},
			world: world{facts: map[v1.Hash]Facts{a: {Created: day(1)}}}, at: 10, want: a},
		{name: "first sight was made lately", rules: []Rule{with(aged, func(r *Rule) { r.FirstSight = Created })}, bindings: []Binding{is(a, 10)},
			world: world{facts: map[v1.Hash]Facts{a: {Created: day(8)}}}, at: 10, rule: "aged", why: "made 2 days ago", until: 15},
		{name: "first sight says nothing of when it was made", rules: []Rule{with(aged, func(r *Rule) { r.FirstSight = Created })}, bindings: []Binding{is(a, 10)},
			at: 10, rule: "aged", why: "does not say", until: 17},
		{name: "what it says cannot be had", rules: []Rule{with(aged, func(r *Rule) { r.FirstSight = Created })}, bindings: []Binding{is(a, 10)},
			world: world{facts: map[v1.Hash]Facts{a: {Unknown: errors.New("down")}}}, at: 10, rule: "aged", why: "down", until: 10 + 1./24/60},
		{name: "its registry has it for long, whatever it says", rules: []Rule{with(aged, func(r *Rule) { r.FirstSight = Created })}, bindings: []Binding{is(a, 10)},
			world: world{facts: map[v1.Hash]Facts{a: {Created: day(9)}}, updated: map[v1.Hash]time.Time{a: day(2)}}, at: 10, want: a},
		{name: "its registry got it lately, whatever it says", rules: []Rule{with(aged, func(r *Rule) { r.FirstSight = Created })}, bindings: []Binding{is(a, 10)},
			world: world{facts: map[v1.Hash]Facts{a: {Created: day(-900)}}, updated: map[v1.Hash]time.Time{a: day(8)}}, at: 10, rule: "aged", why: "registry has it there for 2 days", until: 15},
		{name: "its registry cannot be asked now", rules: []Rule{with(aged, func(r *Rule) { r.FirstSight = Created })}, bindings: []Binding{is(a, 10)},
			world: world{facts: map[v1.Hash]Facts{a: {Created: day(1)}}, limited: errors.New("enough for now")}, at: 10, rule: "aged", why: "enough for now", until: 10 + 1./24/60},
		{name: "withdrawn before it was old", rules: []Rule{aged}, bindings: []Binding{is(c, 12), was(b, 10, 12), was(a, 0, 10)}, at: 18, want: a, rule: "aged", until: 19},
		{name: "moves every day", rules: []Rule{aged}, bindings: []Binding{is(d, 30), was(c, 29, 30), was(b, 28, 29), was(a, 0, 28)}, at: 30.5, want: a, rule: "aged", until: 37},
		{name: "back to what it had", rules: []Rule{aged}, bindings: []Binding{is(a, 12), was(b, 10, 12), was(a, 0, 10)}, at: 12, want: a, rule: "aged", until: 19},
		{name: "nobody looked", rules: []Rule{aged}, bindings: []Binding{is(c, 30), was(b, 10, 11), was(a, 0, 10)}, at: 30, want: a, rule: "aged", until: 37},
		{name: "another tag", rules: []Rule{with(aged, func(r *Rule) { r.Match = []Pattern{pattern(t, "docker.io/library/nginx:2.*")} })}, bindings: moved, at: 10, want: b},
		{name: "an exception", rules: []Rule{with(aged, func(r *Rule) { r.Except = []Pattern{pattern(t, "nginx")} })}, bindings: moved, at: 10, want: b},
		{name: "observed", rules: []Rule{with(aged, func(r *Rule) { r.Observe = true })}, bindings: moved, at: 10, want: b, until: 17, would: a},
		{name: "promoted", rules: []Rule{aged}, promoted: &Promotion{Digest: b, At: day(11)}, bindings: moved, at: 11, want: b},
		{name: "promoted before the next move", rules: []Rule{aged}, promoted: &Promotion{Digest: b, At: day(11)}, bindings: []Binding{is(c, 12), was(b, 10, 12), was(a, 0, 10)}, at: 13, want: b, rule: "aged", until: 19},
		{name: "promoted, and the next is old", rules: []Rule{aged}, promoted: &Promotion{Digest: b, At: day(11)}, bindings: []Binding{is(c, 12), was(b, 10, 12), was(a, 0, 10)}, at: 19, want: c},
		{name: "promoted to the former", promoted: &Promotion{Digest: a, At: day(11)}, bindings: moved, at: 40, want: a},
		{name: "promoted, and denied", rules: []Rule{{Name: "no", Deny: terms(t, b.String())}}, promoted: &Promotion{Digest: b, At: day(11)}, bindings: moved, at: 11, rule: "no", why: "denied"},
		{name: "frozen by rule", rules: []Rule{{Name: "f", Freeze: day(5)}}, bindings: moved, at: 99, want: a, rule: "f", why: "frozen since 2026-11-06"},
		{name: "frozen before it was seen", rules: []Rule{{Name: "f", Freeze: day(5)}}, bindings: []Binding{is(b, 12), was(a, 10, 12)}, at: 12, want: a, rule: "f"},
		{name: "frozen and not to be seen", rules: []Rule{{Name: "f", Freeze: day(5), FirstSight: Hold}}, bindings: []Binding{is(a, 10)}, at: 12, rule: "f"},
		{name: "frozen by hand", freezes: []Freeze{{Match: pattern(t, "nginx:*"), At: day(9), Until: day(20), Why: "release"}}, bindings: moved, at: 12, want: a, rule: "freeze nginx:*", why: "release", until: 20},
		{name: "thawed", freezes: []Freeze{{Match: pattern(t, "nginx:*"), At: day(9), Until: day(20)}}, bindings: moved, at: 20, want: b},
		{name: "frozen, and promoted", freezes: []Freeze{{Match: pattern(t, "*"), At: day(9)}}, promoted: &Promotion{Digest: b, At: day(11)}, bindings: moved, at: 12, want: b},
		{name: "denied by digest", rules: []Rule{{Name: "no", Deny: terms(t, b.String())}}, bindings: moved, at: 10, want: a, rule: "no", why: "denied: sha256:"},
		{name: "denied by name and digest", rules: []Rule{{Name: "no", Deny: terms(t, "library/*@"+b.String())}}, bindings: moved, at: 10, want: a, rule: "no", why: "denied: library/*@sha256:"},
		{name: "denied by a short name", rules: []Rule{{Name: "no", Deny: terms(t, "upstream=docker.io repository=nginx "+b.String())}}, bindings: moved, at: 10, want: a, rule: "no", why: "denied"},
		{name: "denied elsewhere", rules: []Rule{{Name: "no", Deny: terms(t, "ghcr.io/o/a@"+b.String())}}, bindings: moved, at: 10, want: b},
		{name: "denied altogether", rules: []Rule{{Name: "no", Deny: terms(t, "docker.io/library/*")}}, bindings: moved, at: 10, rule: "no"},
		{name: "not allowed", rules: []Rule{{Name: "few", Allow: terms(t, "ghcr.io/*", "upstream=quay.io")}}, bindings: moved, at: 10, rule: "few", why: "nothing allows it"},
		{name: "allowed by platform", rules: []Rule{{Name: "few", Allow: terms(t, "platform=linux/arm64")}}, bindings: moved, at: 10, want: b,
			world: world{facts: map[v1.Hash]Facts{b: {Platforms: []string{"linux/amd64", "linux/arm64"}}}}},
		{name: "of other platforms too", rules: []Rule{{Name: "no", Deny: terms(t, "platform=windows/*")}}, bindings: moved, at: 10, want: b,
			world: world{facts: map[v1.Hash]Facts{b: {Platforms: []string{"linux/amd64", "windows/amd64"}}}}},
		{name: "of no other platform", rules: []Rule{{Name: "no", Deny: terms(t, "platform=windows/*")}}, bindings: moved, at: 10, want: a, rule: "no",
			world: world{facts: map[v1.Hash]Facts{b: {Platforms: []string{"windows/amd64"}}}}},
		{name: "too large", rules: []Rule{{Name: "no", Deny: terms(t, "size>1GiB created>2026-01-01")}}, bindings: moved, at: 10, want: a, rule: "no",
			world: world{facts: map[v1.Hash]Facts{b: {Size: 2 << 30, Created: day(0)}}}},
		{name: "one of two conditions", rules: []Rule{{Name: "no", Deny: terms(t, "size>1GiB created<2026-01-01")}}, bindings: moved, at: 10, want: b,
			world: world{facts: map[v1.Hash]Facts{b: {Size: 2 << 30, Created: day(0)}}}},
		{name: "too old", rules: []Rule{{Name: "no", Deny: terms(t, "old>365d")}}, bindings: moved, at: 10, want: a, rule: "no",
			world: world{facts: map[v1.Hash]Facts{b: {Created: day(-400)}}}},
		{name: "not known to be denied", rules: []Rule{{Name: "no", Deny: terms(t, "size>1GiB")}}, bindings: moved, at: 10, want: a, rule: "no", why: "not known", until: 10 + 1./24/60,
			world: world{facts: map[v1.Hash]Facts{b: {Unknown: errors.New("down")}}}},
		{name: "the last signed", rules: []Rule{{Name: "signed", Signed: true}}, bindings: moved, at: 10, want: a, rule: "signed", why: "nobody known",
			world: world{signed: map[v1.Hash]bool{a: true}}},
		{name: "none signed", rules: []Rule{{Name: "signed", Signed: true}}, bindings: moved, at: 10, rule: "signed"},
		{name: "the judge waits", rules: []Rule{{Name: "scan", Judge: true}}, bindings: moved, at: 10, want: a, rule: "scan", why: "scanning", until: 10.5,
			world: world{judged: map[v1.Hash]Answer{a: {Yes: true}, b: {Wait: true, Why: "scanning", Until: day(10.5)}}}},
		{name: "old and signed", rules: []Rule{aged, {Name: "signed", Signed: true}}, bindings: []Binding{is(c, 20), was(b, 10, 20), was(a, 0, 10)}, at: 21, want: a, rule: "aged", until: 27,
			world: world{signed: map[v1.Hash]bool{a: true, c: true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &Policy{Rules: tt.rules, Freezes: tt.freezes}
			if tt.promoted != nil {
				p.Promotions = map[string]Promotion{nginx + ":" + tag: *tt.promoted}
			}
			v := p.Tag(nginx, tag, tt.bindings, &tt.world, day(tt.at))
			var passed Passed
			if len(v.Passed) > 0 {
				passed = v.Passed[0]
			}
			if v.Digest != tt.want || passed.Rule != tt.rule || !strings.Contains(passed.Why, tt.why) {
				t.Errorf("Tag on day %v = %+v, want %s, by %q: %q", tt.at, v, tt.want, tt.rule, tt.why)
			}
			if want := day(tt.until); tt.until == 0 != v.Until.IsZero() || tt.until != 0 && v.Until.Sub(want).Abs() > time.Second {
				t.Errorf("the verdict holds until %s, want %s", v.Until, want)
			}
			var would v1.Hash
			if v.Would != nil {
				would = v.Would.Digest
			}
			if would != tt.would {
				t.Errorf("the rules that observe would say %s, want %s", would, tt.would)
			}
		})
	}
}

// What a verdict costs is what it needs: a rule of age asks for no fact.
func TestAgeNeedsNoFacts(t *testing.T) {
	w := &world{}
	p := &Policy{Rules: []Rule{{Age: week, FirstSight: Serve}}}
	p.Tag("docker.io/library/nginx", "1", []Binding{is(b, 10), was(a, 0, 10)}, w, day(11))
	if w.asked != 0 {
		t.Errorf("%d facts were asked for, want none", w.asked)
	}
}

// A moved tag reaches nobody before its time, at whatever minute somebody asks.
func TestNoMinuteTooEarly(t *testing.T) {
	p := &Policy{Rules: []Rule{{Name: "aged", Age: week, FirstSight: Serve}}}
	bindings := []Binding{is(b, 10), was(a, 0, 10)}
	until := time.Time{}
	for at := day(10); at.Before(day(18)); at = at.Add(time.Minute) {
		v := p.Tag("docker.io/library/nginx", "1", bindings, &world{}, at)
		want := a
		if !at.Before(day(17)) {
			want = b
		}
		if v.Digest != want {
			t.Fatalf("at %s: %s, want %s", at, v.Digest, want)
		}
		if !until.IsZero() && at.Before(until) != (v.Digest == a) {
			t.Fatalf("at %s: %s, though the verdict before was to hold until %s", at, v.Digest, until)
		}
		if v.Digest == a {
			until = v.Until
		}
	}
}

func TestDigest(t *testing.T) {
	const repo = "ghcr.io/owner/app"
	tags := []Named{{"1", []Binding{is(b, 10), was(a, 0, 10)}}, {"2", []Binding{is(c, 0)}}}
	child := digest("1")
	w := &world{children: map[v1.Hash][]v1.Hash{a: {child}}, signed: map[v1.Hash]bool{a: true}, judged: map[v1.Hash]Answer{a: {Yes: true}}, facts: map[v1.Hash]Facts{d: {Platforms: []string{"windows/amd64"}}}}
	rule := func(change func(*Rule)) Rule {
		r := Rule{Name: "r", Age: week, FirstSight: Serve}
		change(&r)
		return r
	}
	aged := rule(func(r *Rule) { r.Digests = AgedDigest })
	tests := []struct {
		name     string
		rule     Rule
		promoted v1.Hash // for tag 1
		digest   v1.Hash
		at       float64
		why      string // "" if it is given
	}{
		{"any", rule(func(*Rule) {}), v1.Hash{}, d, 11, ""},
		{"known", rule(func(r *Rule) { r.Digests = KnownDigest }), v1.Hash{}, b, 11, ""},
		{"child of known", rule(func(r *Rule) { r.Digests = KnownDigest }), v1.Hash{}, child, 11, ""},
		{"not known", rule(func(r *Rule) { r.Digests = KnownDigest }), v1.Hash{}, d, 11, "no tag"},
		{"aged", aged, v1.Hash{}, a, 11, ""},
		{"child of aged", aged, v1.Hash{}, child, 11, ""},
		{"too young", aged, v1.Hash{}, b, 11, "for 1d"},
		{"old enough", aged, v1.Hash{}, b, 17, ""},
		{"promoted", aged, b, b, 11, ""},
		{"aged and never seen", aged, v1.Hash{}, d, 11, "no tag"},
		{"only observed", rule(func(r *Rule) { r.Digests, r.Observe = AgedDigest, true }), v1.Hash{}, d, 11, ""},
		{"of other tags", rule(func(r *Rule) { r.Digests, r.Match = KnownDigest, []Pattern{pattern(t, repo+":3")} }), v1.Hash{}, d, 11, ""},
		{"denied", Rule{Name: "r", Deny: terms(t, "digest="+b.String())}, v1.Hash{}, b, 11, "denied"},
		{"denied platform", Rule{Name: "r", Deny: terms(t, "platform=windows/*")}, v1.Hash{}, d, 11, "denied"},
		{"allowed by its tag", Rule{Name: "r", Allow: terms(t, repo+":1")}, v1.Hash{}, child, 11, ""},
		{"not allowed by its tag", Rule{Name: "r", Allow: terms(t, repo+":1")}, v1.Hash{}, c, 11, "nothing allows"},
	}
	for _, by := range []struct {
		name string
		rule Rule
	}{{"signed", Rule{Name: "r", Signed: true}}, {"judged", Rule{Name: "r", Judge: true}}} {
		with := func(which Digests) Rule { r := by.rule; r.Digests = which; return r }
		for name, why := range map[v1.Hash]string{a: "", child: "", b: map[string]string{"signed": "no valid signature", "judged": "judge does not allow"}[by.name]} {
			for _, which := range []Digests{"", CheckedDigest, KnownDigest} {
				add := tests[0]
				add.name, add.rule, add.digest, add.why = by.name+" "+string(which)+" "+name.Hex, with(which), name, why
				tests = append(tests, add)
			}
			add := tests[0]
			add.name, add.rule, add.digest = by.name+" any "+name.Hex, with(AnyDigest), name
			tests = append(tests, add)
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &Policy{Rules: []Rule{tt.rule}}
			if given := tt.why == ""; !given && !p.ByDigest() && !tt.rule.Observe {
				t.Error("ByDigest says that nothing may be refused")
			}
			if tt.promoted != (v1.Hash{}) {
				p.Promotions = map[string]Promotion{repo + ":1": {Digest: tt.promoted, At: day(10.5)}}
			}
			refused, _ := p.Digest(repo, tt.digest, tags, w, day(tt.at))
			if refused == nil != (tt.why == "") || refused != nil && !strings.Contains(refused.Why, tt.why) {
				t.Errorf("Digest on day %v = %+v, want %q", tt.at, refused, tt.why)
			}
		})
	}
}

func TestParseTermRefuses(t *testing.T) {
	for _, s := range []string{"", "size=3", "size>many", "colour=red", "old>soon", "created<yesterday", "digest=abc", "upstream=", "platform=[", "a=b=c",
		// What matches no name denies nothing.
		"docker.io/a,ghcr.io/b", "https://ghcr.io/a", "'sha256:" + a.Hex + "'", "\ufeffdocker.io/a", a.String()[:40], strings.ToUpper(a.String()), "sha256:" + strings.ToUpper(a.Hex), "docker.io/a@latest@x,"} {
		if one, err := ParseTerm(s); err == nil {
			t.Errorf("ParseTerm(%q) = %v, want an error", s, one)
		}
	}
}

func TestPatternMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern, repo, tag string
		want               bool
	}{
		{"nginx", "docker.io/library/nginx", "1", true},
		{"nginx:1.*", "docker.io/library/nginx", "1.27", true},
		{"nginx:1.*", "docker.io/library/nginx", "2", false},
		{"docker.io/nginx", "docker.io/library/nginx", "1", true},
		{"docker.io/nginx:1.*", "docker.io/library/nginx", "1.27", true},
		{"docker.io/nginx", "docker.io/other/nginx", "1", false},
		{"docker.io/nginx", "ghcr.io/library/nginx", "1", false},
		{"docker.io/*", "docker.io/library/nginx", "1", true},
		{"docker.io/*", "ghcr.io/a/b", "1", false},
		{"*:latest", "ghcr.io/a/b", "latest", true},
		{"reg:5000/app", "reg:5000/app", "1", true},
		{"owner/app", "docker.io/owner/app", "1", true},
	} {
		if got := pattern(t, tt.pattern).Matches(tt.repo, tt.tag); got != tt.want {
			t.Errorf("%s.Matches(%s, %s) = %t, want %t", tt.pattern, tt.repo, tt.tag, got, tt.want)
		}
	}
}
