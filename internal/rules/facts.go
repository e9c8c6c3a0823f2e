package rules

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/index"
	"forebay/cache/policy"
	"forebay/internal/manifest"
	"forebay/internal/wire"
)

// known is what is known of digests, for one ruling.
type known struct {
	r    *Rules
	ctx  context.Context // of the ruling
	repo Repo
	tag  string
}

const (
	// configMost bounds the configuration of an image that is read: real ones have some KiB.
	configMost = 4 << 20
	// earliest is before any image was made; tools that build reproducibly write 1970, and say
	// nothing by that.
	earliest = 2013
)

// Facts are those of an image: of its manifest, and with deep those of its configuration and of
// one image of an index. What is not kept is fetched.
func (k *known) Facts(d v1.Hash, deep bool) policy.Facts {
	f, ok := k.r.facts.Get(d)
	if ok && (f.Size >= 0 || !f.Created.IsZero() || !deep) {
		return f
	}
	m, err := k.r.cache.Unruled(k.ctx, k.repo, d)
	if err != nil {
		return policy.Facts{Unknown: err}
	}
	f = policy.Facts{MediaType: string(m.Desc.MediaType), Size: -1}
	doc, ok := manifest.Parse(m.Bytes)
	if !ok {
		return f
	}
	f.Created = annotated(doc)
	var children []manifest.Descriptor
	for _, child := range doc.Manifests {
		if name := child.Name(); name != manifest.Attestation {
			children = append(children, child)
			f.Platforms = append(f.Platforms, name)
		}
	}
	switch {
	case len(children) > 0 && deep:
		err = k.ofChild(&f, children)
	case doc.Config != nil && (deep || len(f.Platforms) == 0):
		err = k.ofConfig(&f, doc)
	}
	if err != nil {
		return policy.Facts{Unknown: err}
	}
	k.r.facts.Add(d, f)
	return f
}

// annotated returns when a document says that it was made.
func annotated(doc *manifest.Document) time.Time {
	at, err := time.Parse(time.RFC3339, doc.Annotations["org.opencontainers.image.created"])
	if err != nil || at.Year() < earliest {
		return time.Time{}
	}
	return at
}

// ofChild adds what an index does not say itself, by those of its images that are kept, or by the first.
func (k *known) ofChild(f *policy.Facts, children []manifest.Descriptor) error {
	here := slices.DeleteFunc(slices.Clone(children), func(c manifest.Descriptor) bool {
		d, ok := c.Hash()
		return !ok || !k.r.store.Serves(k.repo, d)
	})
	if len(here) == 0 {
		here = children[:1]
	}
	for _, child := range here {
		d, ok := child.Hash()
		if !ok {
			continue
		}
		one := k.Facts(d, true)
		if one.Unknown != nil {
			return one.Unknown
		}
		f.Size = max(f.Size, one.Size)
		if one.Created.After(f.Created) {
			f.Created = one.Created
		}
	}
	return nil
}

// ofConfig adds what the configuration of an image says.
func (k *known) ofConfig(f *policy.Facts, doc *manifest.Document) error {
	f.Size = 0
	for _, l := range doc.Layers {
		f.Size += max(l.Size, 0)
	}
	d, ok := doc.Config.Hash()
	if !ok || doc.Config.Size > configMost || !isConfig(doc.Config.MediaType) {
		return nil
	}
	text, err := Content{k.r.cache, k.repo}.Blob(k.ctx, v1.Descriptor{Digest: d, Size: doc.Config.Size})
	if err != nil {
		return err
	}
	var config struct {
		manifest.Platform

		Created time.Time `json:"created"`
	}
	if json.Unmarshal(text, &config) == nil { // else it says nothing that can be read
		if config.Created.Year() >= earliest && config.Created.After(f.Created) {
			f.Created = config.Created
		}
		if name := config.String(); name != "" {
			f.Platforms = []string{name}
		}
	}
	return nil
}

// isConfig reports whether a media type is that of an image's configuration.
func isConfig(mediaType string) bool {
	return mediaType == string(types.DockerConfigJSON) || mediaType == string(types.OCIConfigJSON)
}

// Updated asks the registry of the repository.
func (k *known) Updated(tag string, d v1.Hash) (time.Time, error) {
	if k.r.opts.Updated == nil || tag == "" {
		return time.Time{}, nil
	}
	return k.r.opts.Updated(k.ctx, k.repo, tag, d)
}

// Signed says whether a digest has a signature that a rule accepts.
func (k *known) Signed(d v1.Hash, rule string) policy.Answer {
	if k.r.opts.Signed == nil {
		return policy.Answer{Why: "signatures are not verified here"}
	}
	a := k.r.opts.Signed(k.ctx, k.repo, d, rule)
	k.r.signed.Add(ruled{subject{k.repo, d}, rule}, a)
	return a
}

// Signature is what a rule that wants an image signed found when it looked at it last.
type Signature struct {
	Rule  string `json:"rule"`
	State string `json:"state"`         // verified, refused, unknown: not looked at since the start, or it could not be
	Why   string `json:"why,omitempty"` // who has signed it, or what is wrong
}

// Signatures returns what is known of an image's signatures, of each rule that wants some. Nothing is
// looked at for it.
func (r *Rules) Signatures(repo Repo, tag string, d v1.Hash) (all []Signature) {
	rules := r.current.Load().Rules
	for i := range rules {
		rule := &rules[i]
		if !rule.Signed || !rule.About(repo.String(), tag) {
			continue
		}
		found, known := r.signed.Get(ruled{subject{repo, d}, rule.Name})
		s := Signature{Rule: rule.Name, State: "unknown", Why: found.Why}
		switch {
		case !known:
			s.Why = "nobody has pulled it since the start"
		case found.Yes:
			s.State = "verified"
		case !found.Wait:
			s.State = "refused"
		}
		all = append(all, s)
	}
	return all
}

// Includes reports whether of, as far as it is kept, names d, or d refers to it.
func (k *known) Includes(of, d v1.Hash) bool {
	doc, ok := k.r.store.Document(k.repo, of)
	if ok && doc.Names(d) {
		return true
	}
	if ok && slices.ContainsFunc(k.r.images.Known(k.repo, of), func(c manifest.Descriptor) bool { return c.Digest == d.String() }) {
		return true
	}
	_, kept := k.r.store.LinkOf(k.repo, index.Manifest, d)
	if !kept {
		return false
	}
	refers, ok := k.r.store.Document(k.repo, d)
	return ok && refers.Subject != nil && refers.Subject.Digest == of.String()
}

const (
	// indexesMost bounds the indexes of a repository that are looked through for what names a digest: some
	// 20 ms from a cold disk. refetchedMost bounds those that are fetched for it, since they were evicted.
	indexesMost   = 1000
	refetchedMost = 4
)

// Within goes through the indexes here that name d. Of what no client runs it goes through what that is about,
// too: whoever can push can name anything as the subject of an image.
func (k *known) Within(d v1.Hash) iter.Seq[v1.Hash] {
	return func(yield func(v1.Hash) bool) {
		at := subject{k.repo, d}
		each := func(all []v1.Hash) bool { // whether to go on
			for _, of := range all {
				if !yield(of) {
					k.r.within.Add(at, of)
					return false
				}
			}
			return true
		}
		if last, ok := k.r.within.Get(at); ok && !yield(last) || !each(k.indexesOf(d)) {
			return
		}
		for _, of := range k.subjectsOf(d) {
			if !each(append(k.indexesOf(of), of)) {
				return
			}
		}
	}
}

// indexesOf returns the indexes of the repository that name d.
func (k *known) indexesOf(d v1.Hash) (all []v1.Hash) {
	var kept, evicted []v1.Hash
	err := k.r.store.Index.Links(k.repo, index.Manifest, func(one v1.Hash, l index.Link) error {
		if types.MediaType(l.MediaType).IsIndex() {
			kept = append(kept, one)
		}
		if len(kept) == indexesMost {
			return index.ErrStop
		}
		return k.ctx.Err()
	})
	if err != nil && !errors.Is(err, index.ErrStop) {
		k.r.store.Unknown(err)
	}
	for _, one := range kept {
		if doc, here := k.r.store.Document(k.repo, one); !here {
			evicted = append(evicted, one)
		} else if doc.Names(d) {
			all = append(all, one)
		}
	}
	for _, one := range evicted[:min(len(evicted), refetchedMost)] {
		if len(all) > 0 {
			break
		}
		if doc := k.document(one); doc != nil && doc.Names(d) {
			all = append(all, one)
		}
	}
	return all
}

// document returns a manifest of the repository, which is fetched if need be; nil if it cannot be had.
func (k *known) document(d v1.Hash) *manifest.Document {
	m, err := k.r.cache.Unruled(k.ctx, k.repo, d)
	if err != nil {
		return nil
	}
	doc, _ := manifest.Parse(m.Bytes)
	return doc
}

// subjectsOf returns what a manifest is about that no client runs: by itself, and by tags of cosign.
func (k *known) subjectsOf(d v1.Hash) (all []v1.Hash) {
	doc := k.document(d)
	if doc == nil || doc.Runs() {
		return nil
	}
	if doc.Subject != nil {
		if of, ok := doc.Subject.Hash(); ok {
			all = append(all, of)
		}
	}
	err := k.r.store.Index.TagsAfter(k.repo, "sha256-", func(tag string, t index.Tag) error {
		name, found := strings.CutPrefix(tag, "sha256-")
		if !found {
			return index.ErrStop
		}
		hex, _, _ := strings.Cut(name, ".")
		if of, err := wire.ParseDigest("sha256:" + hex); err == nil && t.Desc.Digest == d {
			all = append(all, of)
		}
		return k.ctx.Err()
	})
	if err != nil {
		k.r.store.Unknown(err)
	}
	return all
}
