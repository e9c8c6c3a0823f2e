package upkeep

import (
	"context"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// Locked is what a tag points to.
type Locked struct {
	Desc      v1.Descriptor
	Platforms []LockedPlatform // of an index that is kept, in its order
	Pulls     int64            // that it took: 0, or 1 for an index that was fetched
}

// LockedPlatform is an image of an index.
type LockedPlatform struct {
	Platform string
	Digest   v1.Hash
	Size     int64 // of its manifest, in bytes
}

// Lock asks the upstream what a tag points to, by a HEAD, which no registry counts as a
// pull, however fresh the tag is; of an upstream that must not be asked it tells what is
// known. d, unless it is zero, stands in place of the tag. The platforms of an index are
// told if it is kept; with fetch one that is not is fetched for that.
func (k *Keeper) Lock(ctx context.Context, repo Repo, tag string, d v1.Hash, fetch bool) (*Locked, error) {
	if err := k.Cache.Configured(repo); err != nil {
		return nil, err
	}
	l := &Locked{}
	var err error
	if l.Desc, err = k.pointsTo(ctx, repo, tag, d); err != nil {
		return nil, err
	}
	if fetch && manifest.IsIndexType(string(l.Desc.MediaType)) && !k.Store.Serves(repo, l.Desc.Digest) {
		m, err := k.Cache.Manifest(ctx, repo, l.Desc.Digest.String(), false)
		if err != nil {
			return nil, err
		}
		if m.Result == cache.Miss {
			l.Pulls++
		}
	}
	if !k.Store.Serves(repo, l.Desc.Digest) {
		return l, nil
	}
	doc, ok := k.Store.Document(repo, l.Desc.Digest)
	if !ok {
		return l, nil
	}
	for _, child := range doc.Manifests {
		d, ok := child.Hash()
		if name := child.Name(); ok && name != manifest.Attestation {
			l.Platforms = append(l.Platforms, LockedPlatform{name, d, child.Size})
		}
	}
	return l, nil
}

// pointsTo returns what a tag points to, or a digest if there is one.
func (k *Keeper) pointsTo(ctx context.Context, repo Repo, tag string, d v1.Hash) (v1.Descriptor, error) {
	if d != (v1.Hash{}) {
		m, err := k.Cache.Manifest(ctx, repo, d.String(), true)
		if err != nil {
			return v1.Descriptor{}, err
		}
		return m.Desc, nil
	}
	if !k.Cache.MayAsk(repo) {
		if t, known, err := k.Cache.Tag(repo, tag); err != nil || known {
			return t.Desc, err
		}
	}
	if _, err := k.Cache.Confirm(ctx, repo, tag); err != nil { // which tells what is wrong where nobody may be asked
		return v1.Descriptor{}, err
	}
	m, err := k.Cache.Manifest(ctx, repo, tag, true) // by the policy another may answer
	if err != nil {
		return v1.Descriptor{}, err
	}
	return m.Desc, nil
}

// Refreshed says what a refresh found.
type Refreshed struct {
	Digest wire.Digest `json:"digest"` // what the tag points to now
	// Before is what it pointed to before; empty when it was not known.
	Before    string    `json:"before,omitempty"`
	Moved     bool      `json:"moved"`
	Kept      bool      `json:"kept"` // the manifest it points to now is here
	CheckedAt time.Time `json:"checked_at"`
}

// Refresh asks the upstream what a tag points to, however fresh it is and whatever was
// answered before. If it moved, the new manifest is fetched; its layers are when somebody
// pulls them. The tag stays as it is when the upstream fails.
func (k *Keeper) Refresh(ctx context.Context, repo Repo, tag string) (*Refreshed, error) {
	if err := k.Cache.Configured(repo); err != nil {
		return nil, err
	}
	before, known, err := k.Cache.Tag(repo, tag)
	if err != nil {
		return nil, err
	}
	k.Cache.ForgetAbsence(repo, tag)
	found, err := k.Cache.Confirm(ctx, repo, tag)
	if err != nil {
		return nil, err
	}
	r := &Refreshed{Digest: wire.Digest{Hash: found.Digest}, Moved: !known, CheckedAt: time.Now()}
	if known {
		r.Before, r.Moved = before.Desc.Digest.String(), before.Desc.Digest != found.Digest
	}
	if r.Moved {
		// A tag must not be left pointing to what cannot be served.
		if _, err := k.Cache.Manifest(ctx, repo, tag, false); err != nil && pull.KindOf(err) != pull.NotFound && pull.DetailOf(err) != pull.ByPolicy {
			return nil, err
		}
	}
	r.Kept = k.Store.Serves(repo, found.Digest)
	return r, nil
}
