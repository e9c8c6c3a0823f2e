package rules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/event"
	"forebay/cache/image"
	"forebay/cache/index"
	"forebay/cache/policy"
	"forebay/cache/store"
	"forebay/internal/logkey"
	"forebay/internal/wire"
)

// What operators decided is in the index under these names, each followed by what it is about.
const (
	promotions = "promote/"
	freezes    = "freeze/"
	snapshots  = "snapshot/"
	elsewhere  = "elsewhere/" // promotions of where an image was imported from
)

// record is what is kept of a promotion or a freeze.
type record struct {
	Digest string    `json:"digest,omitempty"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero"`
	Made   time.Time `json:"made,omitzero"`
	Why    string    `json:"why,omitempty"`
	Who    string    `json:"who,omitempty"`
}

// decided adds what operators decided to a policy. What cannot be read is told and passed over.
func (r *Rules) decided(p *policy.Policy) error {
	err := r.records(promotions, func(of string, rec record) {
		if d, err := wire.ParseDigest(rec.Digest); err == nil {
			p.Promotions[of] = policy.Promotion{Digest: d, At: rec.At, Why: rec.Why}
		}
	})
	return errors.Join(err, r.records(freezes, func(of string, rec record) {
		if match, err := policy.ParsePattern(of); err == nil {
			p.Freezes = append(p.Freezes, policy.Freeze{Match: match, At: rec.At, Until: rec.Until, Why: rec.Why})
		}
	}))
}

// Look has the policy go by decisions that came otherwise than by this process: from the bucket.
func (r *Rules) Look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, next := r.current.Load(), policy.Policy{Promotions: map[string]policy.Promotion{}}
	same := func(a, b policy.Freeze) bool {
		return a.Match.String() == b.Match.String() && a.At.Equal(b.At) && a.Until.Equal(b.Until)
	}
	err := r.decided(&next)
	if err == nil && (!maps.EqualFunc(now.Promotions, next.Promotions, func(a, b policy.Promotion) bool { return a.Digest == b.Digest && a.At.Equal(b.At) }) || !slices.EqualFunc(now.Freezes, next.Freezes, same)) {
		err = r.renew()
	}
	if err != nil {
		r.log.Error("what operators decided cannot be read", logkey.Err(err))
	}
}

// each calls fn for what was decided under names that begin with prefix, by name, with what follows that. read
// reads what was decided; of what cannot be read it tells, and reports false. [index.ErrStop] ends it well.
func (r *Rules) each(prefix string, fn func(rest string, read func(to any) bool) error) error {
	return r.store.Index.Decisions(prefix, func(d index.Decision) error {
		return fn(strings.TrimPrefix(d.Name, prefix), func(to any) bool {
			err := json.Unmarshal([]byte(d.Text), to)
			if err != nil {
				r.log.Error("decision of an operator cannot be read", logkey.Reference(d.Name), logkey.Err(err))
			}
			return err == nil
		})
	})
}

// one reads what was decided under a name into to, and reports whether anything was.
func (r *Rules) one(name string, to any) (known bool, err error) {
	err = r.each(name, func(rest string, read func(any) bool) error {
		known = rest == "" && read(to)
		return index.ErrStop
	})
	return known, err
}

// records calls fn for the promotions or the freezes.
func (r *Rules) records(prefix string, fn func(of string, rec record)) error {
	return r.each(prefix, func(of string, read func(any) bool) error {
		if rec := (record{}); read(&rec) {
			fn(of, rec)
		}
		return nil
	})
}

// decide keeps records, and has the policy go by them from now on.
func (r *Rules) decide(fn func(*index.Batch) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.store.Update(fn); err != nil {
		return err
	}
	return errors.Join(r.store.Index.Sync(), r.renew())
}

// put keeps what was decided under a name: a record, a snapshot or an entry of one.
func put(b *index.Batch, name string, what any) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	return b.Decide(index.Decision{Name: name, Text: string(text)})
}

// query is an error of who asked.
func query(format string, args ...any) error {
	return fmt.Errorf("%w: %s", store.ErrQuery, fmt.Sprintf(format, args...))
}

// checkWhy returns why a reason is too long.
func checkWhy(why string) error {
	if len(why) > wire.ReasonMost {
		return query("the reason has %d bytes: use at most %d", len(why), wire.ReasonMost)
	}
	return nil
}

// reason checks why somebody decides something that wants a reason.
func reason(why string) (string, error) {
	if why = strings.TrimSpace(why); why == "" {
		return "", query("say why: a reason is kept with it, and goes into the log")
	}
	return why, checkWhy(why)
}

// Promotion is a digest that answers for a tag by the wish of an operator.
type Promotion struct {
	Repo   Repo
	Tag    string
	Digest v1.Hash
	Was    v1.Hash // what answered before; zero for nothing
	At     time.Time
	Why    string
	Who    string
}

// known returns what is known of a tag, for which its registry is asked if nothing is.
func (r *Rules) known(ctx context.Context, repo Repo, tag string) (index.Tag, error) {
	t, known, err := r.cache.Tag(repo, tag)
	if err == nil && !known {
		if _, err = r.cache.Confirm(ctx, repo, tag); err == nil {
			t, known, err = r.cache.Tag(repo, tag)
		}
	}
	if err == nil && !known {
		err = fmt.Errorf("%s: %w", image.Name(repo, tag, v1.Hash{}), store.ErrNotKept)
	}
	return t, err
}

// Promote has a tag answer with a digest from now on, until it gets another that is old enough; the
// zero digest is what the tag points to. A manifest that is not kept is fetched, so that it is known
// to be there. Lists, signatures and judges are asked about it all the same.
func (r *Rules) Promote(ctx context.Context, repo Repo, tag string, d v1.Hash, why, who string) (*Promotion, error) {
	why, err := reason(why)
	if err != nil {
		return nil, err
	}
	t, err := r.known(ctx, repo, tag)
	if err != nil {
		return nil, err
	}
	if d == (v1.Hash{}) {
		d = t.Desc.Digest
	}
	if _, err := r.cache.Unruled(ctx, repo, d); err != nil {
		return nil, fmt.Errorf("promote %s: %w", image.Name(repo, tag, d), err)
	}
	before := r.Tag(ctx, repo, tag, t)
	p := &Promotion{Repo: repo, Tag: tag, Digest: d, Was: before.Digest, At: time.Now(), Why: why, Who: who}
	err = r.decide(func(b *index.Batch) error {
		return put(b, promotions+image.Name(repo, tag, v1.Hash{}), record{Digest: d.String(), At: p.At, Why: why, Who: who})
	})
	if err != nil {
		return nil, err
	}
	r.tellDecided(event.Promoted, repo, tag, d, p.Was, why, who)
	if after := r.Tag(ctx, repo, tag, t); after.Err != nil || after.Digest != d {
		v, _ := r.Verdict(ctx, repo, tag, t)
		for _, passed := range v.Passed {
			if passed.Digest == d {
				return p, fmt.Errorf("%w: %s is promoted, and does not answer: policy %s: %s", ErrDenied, image.Name(repo, tag, d), passed.Rule, passed.Why)
			}
		}
	}
	return p, nil
}

// ErrDenied means that a rule that no operator can overrule stands against it.
var ErrDenied = errors.New("denied by policy")

func (r *Rules) tellDecided(kind event.Kind, repo Repo, tag string, d, was v1.Hash, detail, who string) {
	e := event.Of(kind, repo, d)
	e.Tag, e.Was, e.Detail, e.Actor = tag, was, detail, who
	r.store.Tell(e)
}

// Withdraw takes a promotion back.
func (r *Rules) Withdraw(repo Repo, tag, why, who string) error {
	name := image.Name(repo, tag, v1.Hash{})
	p, ok := r.current.Load().Promotions[name]
	if !ok {
		return fmt.Errorf("%s is not promoted: %w", name, store.ErrNotKept)
	}
	if err := r.decide(func(b *index.Batch) error { return b.Undecide(promotions + name) }); err != nil {
		return err
	}
	r.tellDecided(event.Promoted, repo, tag, v1.Hash{}, p.Digest, "withdrawn: "+why, who)
	return nil
}

// Promotions lists what is promoted, by name.
func (r *Rules) Promotions() (list []Promotion, err error) {
	err = r.records(promotions, func(of string, rec record) {
		repo, tag, _, ok := image.ParseName(of)
		d, derr := wire.ParseDigest(rec.Digest)
		if ok && derr == nil {
			list = append(list, Promotion{Repo: repo, Tag: tag, Digest: d, At: rec.At, Why: rec.Why, Who: rec.Who})
		}
	})
	return list, err
}

// Decided returns why a tag has a digest, if an operator promoted it: here, or where it was imported
// from. nil: none did.
func (r *Rules) Decided(repo Repo, tag string, d v1.Hash) (*wire.Decision, error) {
	for _, from := range []string{promotions, elsewhere} {
		var rec record
		known, err := r.one(from+image.Name(repo, tag, v1.Hash{}), &rec)
		if err != nil || known && rec.Digest == d.String() {
			return &wire.Decision{At: rec.At, Reason: rec.Why, By: rec.Who, Elsewhere: from == elsewhere}, err
		}
	}
	return nil, nil
}

// Note keeps, for people, why a tag that is imported has its digest where it comes from; nil for no
// reason. No ruling goes by it.
func (r *Rules) Note(repo Repo, tag string, d v1.Hash, why *wire.Decision) error {
	name := elsewhere + image.Name(repo, tag, v1.Hash{})
	if why == nil {
		if known, err := r.one(name, &record{}); err != nil || !known {
			return err
		}
		return r.store.Update(func(b *index.Batch) error { return b.Undecide(name) })
	}
	return r.store.Update(func(b *index.Batch) error {
		return put(b, name, record{Digest: d.String(), At: why.At, Why: why.Reason, Who: why.By})
	})
}

// Freeze is a pattern of tags that stay as they were.
type Freeze struct {
	Pattern string
	At      time.Time // later moves do not count
	Until   time.Time // zero: until it is lifted
	Made    time.Time
	Why     string
	Who     string
}

// freezesMost bounds the freezes: each is compared with each tag once.
const freezesMost = 200

// Freeze has tags stay as they were at a time, until another or until it is lifted.
func (r *Rules) Freeze(f Freeze) error {
	f.Made = time.Now()
	if f.At.IsZero() {
		f.At = f.Made
	}
	if _, err := policy.ParsePattern(f.Pattern); err != nil || f.Pattern == "" {
		return query("%.80q is no pattern of images: use one such as docker.io/library/* or ghcr.io/owner/app:1.*", f.Pattern)
	}
	switch now := r.current.Load().Freezes; {
	case f.At.After(f.Made):
		return query("%s has not come yet: tags can be frozen as they are or as they were", f.At.UTC().Format(time.RFC3339))
	case !f.Until.IsZero() && !f.Until.After(f.Made):
		return query("%s is over: a freeze ends later", f.Until.UTC().Format(time.RFC3339))
	case checkWhy(f.Why) != nil:
		return checkWhy(f.Why)
	case len(now) >= freezesMost && !slices.ContainsFunc(now, func(one policy.Freeze) bool { return one.Match.String() == f.Pattern }):
		return query("there are %d freezes already: lift some", len(now))
	}
	err := r.decide(func(b *index.Batch) error {
		return put(b, freezes+f.Pattern, record{At: f.At, Until: f.Until, Made: f.Made, Why: f.Why, Who: f.Who})
	})
	if err == nil {
		r.tellDecided(event.Frozen, Repo{}, f.Pattern, v1.Hash{}, v1.Hash{}, f.Why, f.Who)
	}
	return err
}

// Thaw lifts a freeze.
func (r *Rules) Thaw(pattern, who string) error {
	if !slices.ContainsFunc(r.current.Load().Freezes, func(f policy.Freeze) bool { return f.Match.String() == pattern }) {
		return fmt.Errorf("there is no freeze of %s: %w", wire.Clip(pattern, 120), store.ErrNotKept)
	}
	err := r.decide(func(b *index.Batch) error { return b.Undecide(freezes + pattern) })
	if err == nil {
		r.tellDecided(event.Thawed, Repo{}, pattern, v1.Hash{}, v1.Hash{}, "", who)
	}
	return err
}

// Freezes lists the freezes, those that are over included.
func (r *Rules) Freezes() (list []Freeze, err error) {
	err = r.records(freezes, func(of string, rec record) {
		list = append(list, Freeze{Pattern: of, At: rec.At, Until: rec.Until, Made: rec.Made, Why: rec.Why, Who: rec.Who})
	})
	return list, err
}

// Standing is what the policy says of a tag.
type Standing struct {
	Repo     Repo
	Tag      string
	PointsTo v1.Hash // upstream
	Since    time.Time
	Decided  *wire.Decision // why it does, or is imported; nil: no operator decided it
	Verdict  policy.Verdict
}

// standing is what is known of a tag beside what the policy says.
func (r *Rules) standing(repo Repo, tag string, t index.Tag, v policy.Verdict) (Standing, error) {
	decided, err := r.Decided(repo, tag, t.Desc.Digest)
	return Standing{repo, tag, t.Desc.Digest, t.ChangedAt, decided, v}, err
}

// Test says what the policy says of one tag as it is known, and what it would say if rules that only
// observe were enforced.
func (r *Rules) Test(ctx context.Context, repo Repo, tag string) (*Standing, error) {
	t, err := r.known(ctx, repo, tag)
	if err != nil {
		return nil, err
	}
	v, _ := r.Verdict(ctx, repo, tag, t)
	s, err := r.standing(repo, tag, t, v)
	return &s, err
}

// reportMost bounds a report.
const reportMost = 10_000

// Report says what the policy says of each tag that it keeps from answering with what it points to,
// or would if rules that only observe were enforced. more says that there are more.
func (r *Rules) Report(ctx context.Context) (list []Standing, more bool, err error) {
	err = r.store.Index.EachTag(func(repo Repo, tag string, t index.Tag) error {
		if !r.Concerns(repo, tag) {
			return ctx.Err()
		}
		if v, _ := r.Verdict(ctx, repo, tag, t); v.Digest != t.Desc.Digest || v.Would != nil {
			if len(list) == reportMost {
				more = true
				return index.ErrStop
			}
			s, err := r.standing(repo, tag, t, v)
			if err != nil {
				return err
			}
			list = append(list, s)
		}
		return ctx.Err()
	})
	return list, more, err
}
