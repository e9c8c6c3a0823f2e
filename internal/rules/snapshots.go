package rules

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	"forebay/internal/manifest"
	"forebay/internal/wire"
)

// A snapshot is the record snapshot/NAME, and one record snapshot/NAME/IMAGE for each tag. The
// former is written last and removed first, so that a part of a snapshot is never one.

// Snapshot is what tags answered with at one time, under a name.
type Snapshot struct {
	Name     string    `json:"-"`
	Made     time.Time `json:"made"`
	AsOf     time.Time `json:"as_of,omitzero"` // the time that it is of, if that is another
	Patterns []string  `json:"patterns"`
	Images   int       `json:"images"`
	Why      string    `json:"why,omitempty"`
	Who      string    `json:"who,omitempty"`
}

// Entry is a tag of a snapshot.
type Entry struct {
	Repo      Repo      `json:"-"`
	Tag       string    `json:"-"`
	Digest    v1.Hash   `json:"digest"`
	MediaType string    `json:"media_type"`
	Size      int64     `json:"size"`
	Since     time.Time `json:"since,omitzero"` // when the tag was first seen to have it
}

// Ref is the tag as people write it.
func (e Entry) Ref() string { return image.Name(e.Repo, e.Tag, v1.Hash{}) }

const (
	snapshotsMost = 200
	entriesMost   = 20_000
	entriesAtOnce = 1000
)

// CheckSnapshot returns why a name is none of a snapshot.
func CheckSnapshot(name string) error {
	if !wire.ValidSnapshot(name) {
		return query("%.80q is no name of a snapshot: use up to 64 lower-case letters, digits, dots, dashes and underscores, a letter first", name)
	}
	return nil
}

// Create makes a snapshot of the tags that patterns match, or of all without any, as they answer now,
// or as they were at a time.
func (r *Rules) Create(ctx context.Context, s Snapshot) (*Snapshot, error) {
	if err := CheckSnapshot(s.Name); err != nil {
		return nil, err
	}
	var match []policy.Pattern
	for _, text := range s.Patterns {
		p, err := policy.ParsePattern(text)
		if err != nil || text == "" {
			return nil, query("%.80q is no pattern of images", text)
		}
		match = append(match, p)
	}
	all, err := r.Snapshots()
	switch {
	case err != nil:
		return nil, err
	case checkWhy(s.Why) != nil:
		return nil, checkWhy(s.Why)
	case slices.ContainsFunc(all, func(one Snapshot) bool { return one.Name == s.Name }):
		return nil, query("there is a snapshot %s already: drop it first, or use another name", s.Name)
	case len(all) >= snapshotsMost:
		return nil, query("there are %d snapshots already: drop some", len(all))
	}
	s.Made = time.Now()
	entries, err := r.take(ctx, match, s.AsOf)
	switch {
	case err != nil:
		return nil, err
	case len(entries) == 0:
		return nil, query("no tag that is known here matches")
	}
	s.Images = len(entries)
	return &s, r.keep(s, entries)
}

// take returns what tags answer with, or had at a time.
func (r *Rules) take(ctx context.Context, match []policy.Pattern, at time.Time) (entries []Entry, err error) {
	err = r.store.Index.EachTag(func(repo Repo, tag string, t index.Tag) error {
		if len(match) > 0 && !slices.ContainsFunc(match, func(p policy.Pattern) bool { return p.Matches(repo.String(), tag) }) {
			return ctx.Err()
		}
		one, ok := r.entryAt(ctx, repo, tag, t, at)
		if !ok {
			return ctx.Err()
		}
		if len(entries) == entriesMost {
			return query("more than %d tags match: use narrower patterns", entriesMost)
		}
		entries = append(entries, one)
		return ctx.Err()
	})
	return entries, err
}

// entryAt is what a tag answers with, or what it had at a time if that is not zero.
func (r *Rules) entryAt(ctx context.Context, repo Repo, tag string, t index.Tag, at time.Time) (Entry, bool) {
	e := Entry{Repo: repo, Tag: tag}
	if at.IsZero() {
		ruling := r.Tag(ctx, repo, tag, t)
		if e.Digest, e.Since = ruling.Digest, ruling.Since; !ruling.Ruled {
			e.Digest, e.Since = t.Desc.Digest, t.ChangedAt
		}
	} else {
		for _, b := range r.bindings(repo, tag, t) {
			if !b.Since.After(at) {
				e.Digest, e.Since = b.Digest, b.Since
				break
			}
		}
	}
	if e.Digest == (v1.Hash{}) {
		return e, false
	}
	e.MediaType, e.Size = string(t.Desc.MediaType), t.Desc.Size
	if e.Digest != t.Desc.Digest {
		link, _ := r.store.LinkOf(repo, index.Manifest, e.Digest)
		e.MediaType, e.Size = link.MediaType, link.Size
	}
	return e, true
}

// keep writes a snapshot down, and has it held.
func (r *Rules) keep(s Snapshot, entries []Entry) error {
	err := inParts(entries, r.store.Update, func(b *index.Batch, e Entry) error { return put(b, snapshots+s.Name+"/"+e.Ref(), e) })
	if err == nil {
		err = r.store.Update(func(b *index.Batch) error { return put(b, snapshots+s.Name, s) })
	}
	if err != nil {
		return err
	}
	r.images.Pins.List() // holds it from now on
	r.tellDecided(event.SnapshotMade, Repo{}, s.Name, v1.Hash{}, v1.Hash{}, s.Why, s.Who)
	return r.store.Settle()
}

// inParts makes a change for each entry, some at a time.
func inParts(entries []Entry, update func(func(*index.Batch) error) error, change func(*index.Batch, Entry) error) error {
	for part := range slices.Chunk(entries, entriesAtOnce) {
		err := update(func(b *index.Batch) error {
			for _, e := range part {
				if err := change(b, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Snapshots lists the snapshots by name.
func (r *Rules) Snapshots() (list []Snapshot, err error) {
	err = r.each(snapshots, func(name string, read func(any) bool) error {
		if s := (Snapshot{Name: name}); !strings.Contains(name, "/") && read(&s) {
			list = append(list, s)
		}
		return nil
	})
	return list, err
}

// Snapshot returns a snapshot with its tags.
func (r *Rules) Snapshot(name string) (*Snapshot, []Entry, error) {
	if err := CheckSnapshot(name); err != nil {
		return nil, nil, err
	}
	s := &Snapshot{Name: name}
	known, err := r.one(snapshots+name, s)
	if err == nil && !known {
		err = fmt.Errorf("there is no snapshot %s: %w", name, store.ErrNotKept)
	}
	if err != nil {
		return nil, nil, err
	}
	var entries []Entry
	err = r.eachEntry(name, func(e Entry) { entries = append(entries, e) })
	return s, entries, err
}

func (r *Rules) eachEntry(name string, fn func(Entry)) error {
	return r.each(snapshots+name+"/", func(ref string, read func(any) bool) error {
		if repo, tag, _, ok := image.ParseName(ref); ok {
			if e := (Entry{Repo: repo, Tag: tag}); read(&e) {
				fn(e)
			}
		}
		return nil
	})
}

// Drop forgets a snapshot. What it held stays until it is evicted like all else.
func (r *Rules) Drop(name, who string) error {
	_, entries, err := r.Snapshot(name)
	if err != nil {
		return err
	}
	if err := r.store.Update(func(b *index.Batch) error { return b.Undecide(snapshots + name) }); err != nil {
		return err
	}
	if err := inParts(entries, r.store.Update, func(b *index.Batch, e Entry) error { return b.Undecide(snapshots + name + "/" + e.Ref()) }); err != nil {
		return err
	}
	r.images.Pins.List()
	r.tellDecided(event.SnapshotDropped, Repo{}, name, v1.Hash{}, v1.Hash{}, "", who)
	return r.store.Index.Sync()
}

// snapshotPins are what snapshots name, the oldest snapshots first.
func (r *Rules) snapshotPins() (pins []index.Pin) {
	all, err := r.Snapshots()
	if err != nil {
		r.log.Error("snapshots cannot be read", logkey.Err(err))
	}
	for _, s := range all {
		err := r.eachEntry(s.Name, func(e Entry) {
			pins = append(pins, index.Pin{Repo: e.Repo, Ref: e.Digest.String(), At: s.Made})
		})
		if err != nil {
			r.log.Error("snapshot cannot be read", logkey.Reference(s.Name), logkey.Err(err))
		}
	}
	slices.SortStableFunc(pins, func(a, b index.Pin) int { return a.At.Compare(b.At) })
	return pins
}

// PromoteSnapshot has every tag of a snapshot answer with what that says.
func (r *Rules) PromoteSnapshot(ctx context.Context, name, why, who string) (n int, err error) {
	_, entries, err := r.Snapshot(name)
	if err != nil {
		return 0, err
	}
	if why, err = reason(why); err != nil {
		return 0, err
	}
	now := time.Now()
	err = inParts(entries, r.decide, func(b *index.Batch, e Entry) error {
		n++
		return errors.Join(ctx.Err(), put(b, promotions+e.Ref(), record{Digest: e.Digest.String(), At: now, Why: "snapshot " + name + ": " + why, Who: who}))
	})
	if err != nil {
		return 0, err
	}
	r.tellDecided(event.Promoted, Repo{}, name, v1.Hash{}, v1.Hash{}, "snapshot: "+why, who)
	return n, nil
}

// Change is a tag by which two snapshots differ.
type Change struct {
	Ref      string
	From, To *Entry   // nil in the snapshot that does not have it
	Added    []string // layers that only To has, as far as both are kept
	Removed  []string
}

// Diff returns what is another in snapshot b than in a, by name.
func (r *Rules) Diff(a, b string) ([]Change, error) {
	_, from, err := r.Snapshot(a)
	if err != nil {
		return nil, err
	}
	_, to, err := r.Snapshot(b)
	if err != nil {
		return nil, err
	}
	changes := map[string]*Change{}
	for i := range from {
		changes[from[i].Ref()] = &Change{Ref: from[i].Ref(), From: &from[i]}
	}
	for i := range to {
		ref := to[i].Ref()
		if changes[ref] == nil {
			changes[ref] = &Change{Ref: ref}
		}
		changes[ref].To = &to[i]
	}
	var list []Change
	for _, c := range changes {
		if c.From != nil && c.To != nil {
			if c.From.Digest == c.To.Digest {
				continue
			}
			was, is := r.layers(*c.From), r.layers(*c.To)
			c.Added, c.Removed = without(is, was), without(was, is)
		}
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b Change) int { return cmp.Compare(a.Ref, b.Ref) })
	return list, nil
}

// layers are the blobs of an image, as far as it is kept.
func (r *Rules) layers(e Entry) (all []string) {
	_ = manifest.Walk{ // none of its functions fails
		Manifest: func(n manifest.Node) (*manifest.Document, error) {
			doc, _ := r.store.Document(e.Repo, n.Digest)
			return doc, nil
		},
		Blob: func(_ manifest.Node, b manifest.Blob) error {
			all = append(all, b.Digest.String())
			return nil
		},
	}.Run(manifest.Descriptor{Digest: e.Digest.String()})
	slices.Sort(all)
	return slices.Compact(all)
}

func without(all, these []string) (rest []string) {
	for _, s := range all {
		if _, has := slices.BinarySearch(these, s); !has {
			rest = append(rest, s)
		}
	}
	return rest
}

// ErrNotThen means that a tag was not known at a time, or is not in a snapshot.
var ErrNotThen = errors.New("not known then")

// AsOf returns what a tag had at a time, or has in a snapshot; at is one of them. Nobody is asked.
func (r *Rules) AsOf(ctx context.Context, repo Repo, tag, at string) (Entry, error) {
	ref := image.Name(repo, tag, v1.Hash{})
	if wire.ValidSnapshot(at) {
		e := Entry{Repo: repo, Tag: tag}
		if err := r.exists(at); err != nil {
			return e, err
		}
		known, err := r.one(snapshots+at+"/"+ref, &e)
		if err == nil && !known {
			err = fmt.Errorf("%s is not in snapshot %s: %w", ref, at, ErrNotThen)
		}
		return e, err
	}
	when, err := policy.ParseInstant(at)
	if err != nil {
		return Entry{}, err
	}
	t, known, err := r.cache.Tag(repo, tag)
	if err != nil {
		return Entry{}, err
	}
	if known {
		if e, ok := r.entryAt(ctx, repo, tag, t, when); ok {
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("%s was not known here at %s: %w", ref, when.UTC().Format(time.RFC3339), ErrNotThen)
}

// exists returns an error unless there is a snapshot.
func (r *Rules) exists(name string) error {
	known, err := r.one(snapshots+name, &Snapshot{})
	if err == nil && !known {
		err = fmt.Errorf("there is no snapshot %s: %w", name, ErrNotThen)
	}
	return err
}

// Answer returns what a tag answers with, or what a snapshot says of it.
func (r *Rules) Answer(ctx context.Context, repo Repo, tag, snapshot string) (Entry, error) {
	if snapshot != "" {
		e, err := r.AsOf(ctx, repo, tag, snapshot)
		if errors.Is(err, ErrNotThen) {
			err = fmt.Errorf("%w: %w", store.ErrNotKept, err)
		}
		return e, err
	}
	t, known, err := r.cache.Tag(repo, tag)
	if err != nil || !known {
		return Entry{Repo: repo, Tag: tag}, err // whoever asks for its contents is told
	}
	e, ok := r.entryAt(ctx, repo, tag, t, time.Time{})
	if !ok {
		return e, r.Tag(ctx, repo, tag, t).Err
	}
	return e, nil
}

// TagsAsOf returns the tags of a repository that were known at a time, or are in a snapshot, sorted.
func (r *Rules) TagsAsOf(ctx context.Context, repo Repo, at string) (tags []string, err error) {
	if wire.ValidSnapshot(at) {
		if err := r.exists(at); err != nil {
			return nil, err
		}
		err = r.each(snapshots+at+"/"+repo.String()+":", func(tag string, _ func(any) bool) error {
			tags = append(tags, tag)
			return ctx.Err()
		})
		return tags, err
	}
	when, err := policy.ParseInstant(at)
	if err != nil {
		return nil, err
	}
	err = r.store.Index.Tags(repo, func(tag string, t index.Tag) error {
		since := t.ChangedAt
		for _, b := range t.History {
			if b.FirstSeen.Before(since) {
				since = b.FirstSeen
			}
		}
		if !since.After(when) {
			tags = append(tags, tag)
		}
		return ctx.Err()
	})
	return tags, err
}

// History returns what a tag has had, the latest first; what a rule keeps from answering is among it.
func (r *Rules) History(repo Repo, tag string) ([]policy.Binding, error) {
	t, known, err := r.cache.Tag(repo, tag)
	if err != nil {
		return nil, err
	}
	if !known {
		return nil, fmt.Errorf("%s: %w", image.Name(repo, tag, v1.Hash{}), ErrNotThen)
	}
	return r.bindings(repo, tag, t), nil
}
