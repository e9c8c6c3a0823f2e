// Package govern is the part of the admin API that is about the policy: what waits, what operators
// decide, and snapshots.
//
// It promises that every name and list from outside is checked and bounded, and that who decided
// something is written down with it. It knows no HTTP status: package admin turns errors into those.
package govern

import (
	"context"
	"net/http"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/policy"
	"forebay/internal/rules"
	"forebay/internal/wire"
)

// Call is one request of an operator.
type Call struct {
	Who    string                   // the operator, as rules name identities
	Query  func(name string) string // a parameter, of those that the route takes
	Path   func(name string) string // a part of the path
	Decode func(to any) error       // reads the body
	// Ref reads the name of one image; one without a tag is of latest.
	Ref func(s string) (wire.Reference, error)
}

// Route is one thing that can be asked for.
type Route struct {
	Method, Path string
	Query        []string // parameters
	Changes      bool     // it needs the role to operate
	Request      any      // an example of the body; nil for none
	Answer       any      // an example of the answer; nil for none
	Handle       func(ctx context.Context, r *rules.Rules, c Call) (any, error)
}

// Status is that of an answer: of what was made, or of what there is.
func (r Route) Status() int {
	if r.Method == http.MethodPost && (r.Path == "/promotions" || r.Path == "/freezes" || r.Path == "/snapshots") {
		return http.StatusCreated
	}
	return http.StatusOK
}

// tag reads the name of a tag.
func (c Call) tag(s string) (wire.Reference, error) {
	ref, err := c.Ref(s)
	if err == nil && ref.HasDigest() {
		err = &wire.RouteError{Fault: wire.BadTag, Text: wire.Clip(s, 120) + " names a digest: name a tag"}
	}
	return ref, err
}

// Routes are all of them. They hold no state.
func Routes() []Route {
	return []Route{
		{Method: http.MethodGet, Path: "/policy", Answer: Decisions{}, Handle: decisions},
		{Method: http.MethodGet, Path: "/policy/report", Answer: Report{}, Handle: report},
		{Method: http.MethodPost, Path: "/policy/test", Changes: true, Request: TestRequest{}, Answer: Standing{}, Handle: with(test)},
		{Method: http.MethodPost, Path: "/promotions", Changes: true, Request: PromotionRequest{}, Answer: Promotion{}, Handle: with(promote)},
		{Method: http.MethodDelete, Path: "/promotions", Query: []string{"ref"}, Changes: true, Handle: withdraw},
		{Method: http.MethodPost, Path: "/freezes", Changes: true, Request: Freeze{}, Answer: Freeze{}, Handle: with(freeze)},
		{Method: http.MethodDelete, Path: "/freezes", Query: []string{"pattern"}, Changes: true, Handle: thaw},
		{Method: http.MethodPost, Path: "/snapshots", Changes: true, Request: SnapshotRequest{}, Answer: Snapshot{}, Handle: with(create)},
		{Method: http.MethodGet, Path: "/snapshots/{name}", Answer: Snapshot{}, Handle: show},
		{Method: http.MethodDelete, Path: "/snapshots/{name}", Changes: true, Handle: drop},
		{Method: http.MethodGet, Path: "/snapshots/{name}/diff", Query: []string{"with"}, Answer: SnapshotDiff{}, Handle: diff},
		{Method: http.MethodPost, Path: "/snapshots/{name}/promote", Changes: true, Request: SnapshotPromotion{}, Answer: SnapshotPromoted{}, Handle: with(promoteSnapshot)},
	}
}

// with reads the body of a request for what handles it.
func with[T any](handle func(ctx context.Context, r *rules.Rules, c Call, in T) (any, error)) func(context.Context, *rules.Rules, Call) (any, error) {
	return func(ctx context.Context, r *rules.Rules, c Call) (any, error) {
		var in T
		if err := c.Decode(&in); err != nil {
			return nil, err
		}
		return handle(ctx, r, c, in)
	}
}

// Standing is what the policy says of a tag.
type Standing struct {
	Ref      string    `json:"ref"`
	PointsTo string    `json:"points_to"` // upstream, as it is known
	Since    time.Time `json:"since"`     // when it was first seen to
	Answers  string    `json:"answers"`   // digest that clients get; empty: none
	// Decided is why the digest that it points to was promoted, here or where it was imported from.
	Decided *wire.Decision `json:"decided,omitempty"`
	Passed  []Passed       `json:"passed"` // digests that do not answer, though the tag had them later, the latest first
	Until   time.Time      `json:"until,omitzero"`
	// Would is the digest that clients would get if all rules were enforced, where that differs;
	// "none" for none.
	Would       string   `json:"would,omitempty"`
	WouldPassed []Passed `json:"would_passed"` // those that would not answer then
}

// Passed is a digest that does not answer.
type Passed struct {
	Digest string    `json:"digest"`
	Since  time.Time `json:"since"`
	Rule   string    `json:"rule"`
	Why    string    `json:"why"`
	Due    time.Time `json:"due,omitzero"` // when it will answer, if nothing changes
}

func standingOf(s rules.Standing) Standing {
	out := Standing{
		Ref: s.Repo.String() + ":" + s.Tag, PointsTo: s.PointsTo.String(), Since: s.Since, Answers: wire.DigestText(s.Verdict.Digest), Decided: s.Decided,
		Passed: passedOf(s.Verdict.Passed), Until: s.Verdict.Until, WouldPassed: []Passed{},
	}
	if w := s.Verdict.Would; w != nil {
		if out.Would = wire.DigestText(w.Digest); out.Would == "" {
			out.Would = "none"
		}
		out.WouldPassed = passedOf(w.Passed)
	}
	return out
}

func passedOf(all []policy.Passed) []Passed {
	list := []Passed{}
	for _, p := range all {
		list = append(list, Passed{p.Digest.String(), p.Since, p.Rule, p.Why, p.Due})
	}
	return list
}

// Report is what the policy changes.
type Report struct {
	Tags []Standing `json:"tags"`
	More bool       `json:"more,omitempty"` // there are more than are told
}

func report(ctx context.Context, r *rules.Rules, _ Call) (any, error) {
	all, more, err := r.Report(ctx)
	out := Report{Tags: []Standing{}, More: more}
	for _, s := range all {
		out.Tags = append(out.Tags, standingOf(s))
	}
	return out, err
}

// TestRequest asks what the policy says of a tag, for which a registry may be asked.
type TestRequest struct {
	Ref string `json:"ref"`
}

func test(ctx context.Context, r *rules.Rules, c Call, in TestRequest) (any, error) {
	ref, err := c.tag(in.Ref)
	if err != nil {
		return nil, err
	}
	s, err := r.Test(ctx, repoOf(ref), ref.Tag)
	if err != nil {
		return nil, err
	}
	return standingOf(*s), nil
}

func repoOf(ref wire.Reference) rules.Repo {
	return rules.Repo{Upstream: ref.Upstream, Name: ref.Repository}
}

// Decisions are what operators decided.
type Decisions struct {
	Promotions []Promotion `json:"promotions"`
	Freezes    []Freeze    `json:"freezes"`
	Snapshots  []Snapshot  `json:"snapshots"` // without their images
}

func decisions(_ context.Context, r *rules.Rules, _ Call) (any, error) {
	out := Decisions{Promotions: []Promotion{}, Freezes: []Freeze{}, Snapshots: []Snapshot{}}
	promotions, err := r.Promotions()
	if err != nil {
		return nil, err
	}
	for _, p := range promotions {
		out.Promotions = append(out.Promotions, promotionOf(p))
	}
	freezes, err := r.Freezes()
	if err != nil {
		return nil, err
	}
	for _, f := range freezes {
		out.Freezes = append(out.Freezes, freezeOf(f))
	}
	snapshots, err := r.Snapshots()
	for _, s := range snapshots {
		out.Snapshots = append(out.Snapshots, snapshotOf(s, nil))
	}
	return out, err
}

// PromotionRequest has a tag answer with a digest.
type PromotionRequest struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest,omitempty"` // empty: what the tag points to
	Reason string `json:"reason"`
}

// Promotion is a digest that answers for a tag by the wish of an operator.
type Promotion struct {
	Ref    string    `json:"ref"`
	Digest string    `json:"digest"`
	Was    string    `json:"was,omitempty"` // what answered before
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
}

func promotionOf(p rules.Promotion) Promotion {
	return Promotion{p.Repo.String() + ":" + p.Tag, p.Digest.String(), wire.DigestText(p.Was), p.At, p.Why, p.Who}
}

func promote(ctx context.Context, r *rules.Rules, c Call, in PromotionRequest) (any, error) {
	ref, err := c.tag(in.Ref)
	if err != nil {
		return nil, err
	}
	var d v1.Hash
	if in.Digest != "" {
		if d, err = wire.ParseDigest(in.Digest); err != nil {
			return nil, &wire.RouteError{Fault: wire.BadDigest, Text: err.Error()}
		}
	}
	p, err := r.Promote(ctx, repoOf(ref), ref.Tag, d, in.Reason, c.Who)
	if err != nil {
		return nil, err
	}
	return promotionOf(*p), nil
}

func withdraw(_ context.Context, r *rules.Rules, c Call) (any, error) {
	ref, err := c.tag(c.Query("ref"))
	if err != nil {
		return nil, err
	}
	return nil, r.Withdraw(repoOf(ref), ref.Tag, "", c.Who)
}

// Freeze is a pattern of tags that stay as they were. Made and By are not looked at in a request.
type Freeze struct {
	Pattern string    `json:"pattern"`
	At      time.Time `json:"at,omitzero"`    // later moves do not count; of a request: now if it is left out
	Until   time.Time `json:"until,omitzero"` // absent: until it is lifted
	Made    time.Time `json:"made,omitzero"`
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by,omitempty"`
}

func freezeOf(f rules.Freeze) Freeze { return Freeze{f.Pattern, f.At, f.Until, f.Made, f.Why, f.Who} }

// pattern returns one of what s names: names may be written in ways that no pattern knows, such as
// docker://alpine and index.docker.io/library/alpine.
func (c Call) pattern(s string) (string, error) {
	if strings.ContainsAny(s, "*?[") {
		return s, nil
	}
	ref, err := c.tag(s)
	if err != nil {
		return "", err
	}
	name := repoOf(ref).String()
	if strings.LastIndexByte(s, ':') > strings.LastIndexByte(s, '/') {
		name += ":" + ref.Tag
	}
	if match, err := wire.CompilePattern(s); err == nil && wire.MatchesName(match, name) {
		return s, nil
	}
	return name, nil
}

func freeze(_ context.Context, r *rules.Rules, c Call, in Freeze) (_ any, err error) {
	if in.Pattern, err = c.pattern(in.Pattern); err != nil {
		return nil, err
	}
	if err := r.Freeze(rules.Freeze{Pattern: in.Pattern, At: in.At, Until: in.Until, Why: in.Reason, Who: c.Who}); err != nil {
		return nil, err
	}
	all, err := r.Freezes()
	for _, f := range all {
		if f.Pattern == in.Pattern {
			in = freezeOf(f)
		}
	}
	return in, err
}

func thaw(_ context.Context, r *rules.Rules, c Call) (any, error) {
	return nil, r.Thaw(c.Query("pattern"), c.Who)
}

// SnapshotRequest makes a snapshot.
type SnapshotRequest struct {
	Name     string    `json:"name"`
	Patterns []string  `json:"patterns,omitempty"` // none: all tags that are known
	AsOf     time.Time `json:"as_of,omitzero"`     // absent: as tags answer now
	Reason   string    `json:"reason,omitempty"`
}

// Snapshot is what tags answered with at one time.
type Snapshot struct {
	Name     string          `json:"name"`
	Made     time.Time       `json:"made"`
	AsOf     time.Time       `json:"as_of,omitzero"`
	Patterns []string        `json:"patterns"`
	Count    int             `json:"count"`
	Reason   string          `json:"reason,omitempty"`
	By       string          `json:"by,omitempty"`
	Images   []SnapshotImage `json:"images"` // empty in a list of snapshots
}

// SnapshotImage is a tag of a snapshot.
type SnapshotImage struct {
	Ref    string    `json:"ref"`
	Digest string    `json:"digest"`
	Since  time.Time `json:"since,omitzero"` // when the tag was first seen to have it
}

func snapshotOf(s rules.Snapshot, entries []rules.Entry) Snapshot {
	out := Snapshot{Name: s.Name, Made: s.Made, AsOf: s.AsOf, Patterns: append([]string{}, s.Patterns...), Count: s.Images, Reason: s.Why, By: s.Who, Images: []SnapshotImage{}}
	for _, e := range entries {
		out.Images = append(out.Images, imageOf(e))
	}
	return out
}

func imageOf(e rules.Entry) SnapshotImage { return SnapshotImage{e.Ref(), e.Digest.String(), e.Since} }

func create(ctx context.Context, r *rules.Rules, c Call, in SnapshotRequest) (any, error) {
	s, err := r.Create(ctx, rules.Snapshot{Name: in.Name, Patterns: in.Patterns, AsOf: in.AsOf, Why: in.Reason, Who: c.Who})
	if err != nil {
		return nil, err
	}
	return snapshotOf(*s, nil), nil
}

func show(_ context.Context, r *rules.Rules, c Call) (any, error) {
	s, entries, err := r.Snapshot(c.Path("name"))
	if err != nil {
		return nil, err
	}
	return snapshotOf(*s, entries), nil
}

func drop(_ context.Context, r *rules.Rules, c Call) (any, error) {
	return nil, r.Drop(c.Path("name"), c.Who)
}

// SnapshotDiff is how a snapshot differs from an earlier one.
type SnapshotDiff struct {
	Changes []SnapshotChange `json:"changes"`
}

// SnapshotChange is a tag by which they differ.
type SnapshotChange struct {
	Ref           string    `json:"ref"`
	From          string    `json:"from,omitempty"` // digest; absent: it is not in the first
	To            string    `json:"to,omitempty"`   // digest; absent: it is not in the second
	Since         time.Time `json:"since,omitzero"` // when the tag was first seen to have To
	AddedLayers   []string  `json:"added_layers"`
	RemovedLayers []string  `json:"removed_layers"`
}

func diff(_ context.Context, r *rules.Rules, c Call) (any, error) {
	all, err := r.Diff(c.Path("name"), c.Query("with"))
	if err != nil {
		return nil, err
	}
	out := SnapshotDiff{Changes: []SnapshotChange{}}
	for _, one := range all {
		change := SnapshotChange{Ref: one.Ref, AddedLayers: append([]string{}, one.Added...), RemovedLayers: append([]string{}, one.Removed...)}
		if one.From != nil {
			change.From = one.From.Digest.String()
		}
		if one.To != nil {
			change.To, change.Since = one.To.Digest.String(), one.To.Since
		}
		out.Changes = append(out.Changes, change)
	}
	return out, nil
}

// SnapshotPromotion has every tag of a snapshot answer with what that says.
type SnapshotPromotion struct {
	Reason string `json:"reason"`
}

// SnapshotPromoted says how many those are.
type SnapshotPromoted struct {
	Promoted int `json:"promoted"`
}

func promoteSnapshot(ctx context.Context, r *rules.Rules, c Call, in SnapshotPromotion) (any, error) {
	n, err := r.PromoteSnapshot(ctx, c.Path("name"), in.Reason, c.Who)
	return SnapshotPromoted{n}, err
}
