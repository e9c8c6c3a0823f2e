package upkeep

import (
	"context"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/cache/vanished"
	"forebay/internal/logkey"
)

const (
	// lookEvery is how often what may be gone is looked after.
	lookEvery = time.Minute
	// goneShare bounds what is pinned since it is gone, of what may be stored, and goneTags how many tags,
	// and goneTagsOfOne of one repository: a mirror must not fill up with what nobody else has any more.
	goneShare     = 0.1
	goneTags      = 500
	goneTagsOfOne = 50
)

// lookAfterGone has registries asked again for what they say is gone, by HEADs, pins what is, and undoes
// that when it is back, until ctx is done.
func (k *Keeper) lookAfterGone(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, v := range k.Cache.Gone().Due(time.Now()) {
			if tag := orProbe(&v); k.Cache.MayAsk(v.Repo()) && ctx.Err() == nil {
				k.Cache.ForgetAbsence(v.Repo(), tag)
				_, _ = k.Cache.Confirm(ctx, v.Repo(), tag) // its answer is observed
			}
		}
		k.pinGone()
	}
}

func orProbe(v *vanished.Vanished) string {
	if v.Tag != "" {
		return v.Tag
	}
	return v.Probe
}

// pinGone pins what is gone, within its bounds, and lets go what is back.
func (k *Keeper) pinGone() {
	list := k.Cache.Gone()
	for _, v := range list.Unhandled() {
		if v.Back {
			k.letGo(&v)
			continue
		}
		k.keepGone(&v)
		list.Pin(&v)
	}
}

// letGo undoes what was done since something was gone.
func (k *Keeper) letGo(v *vanished.Vanished) {
	for _, tag := range v.Pinned {
		if err := k.Images.Pins.Remove(context.Background(), v.Repo(), tag, v1.Hash{}); err != nil {
			k.log.Warn("what is back stays pinned", logkey.Reference(v.Name()), logkey.Err(err))
		}
	}
	k.Cache.Gone().Drop(v)
}

// ForgetGone takes something off the list of what is gone, by its name, and its pins away.
func (k *Keeper) ForgetGone(name string) error {
	v, known := k.Cache.Gone().Find(name)
	if !known {
		return store.ErrNotKept
	}
	k.letGo(&v)
	return nil
}

// keepGone pins what is kept of something that is gone.
func (k *Keeper) keepGone(v *vanished.Vanished) {
	tags := []string{v.Tag}
	if v.Tag == "" {
		tags = k.latestTags(v.Repo())
	}
	bytes, pinned := int64(0), 0
	for _, other := range k.Cache.Gone().All() {
		bytes, pinned = bytes+other.Bytes, pinned+len(other.Pinned)
	}
	for _, tag := range tags {
		if _, mine, err := k.Images.Pins.Record(v.Repo(), tag); err != nil || mine {
			continue // an operator's, which stays when it is back
		}
		if pinned+len(v.Pinned) >= goneTags {
			v.NotPinned = "too many tags are pinned that are gone"
			return
		}
		t, known, err := k.Cache.Tag(v.Repo(), tag)
		if err != nil || !known || !k.Store.Serves(v.Repo(), t.Desc.Digest) {
			v.NotPinned = "nothing is kept of " + tag
			continue
		}
		pin, err := k.Images.Pins.Put(context.Background(), v.Repo(), tag, t.Desc.Digest, nil)
		if err != nil {
			v.NotPinned = err.Error()
			continue
		}
		if most := k.Store.MaxBytes(); most > 0 && float64(bytes+v.Bytes+pin.Bytes) > goneShare*float64(most) {
			v.NotPinned = "what is pinned and gone would take more than a tenth of the store"
			_ = k.Images.Pins.Remove(context.Background(), v.Repo(), tag, v1.Hash{})
			continue
		}
		v.Pinned, v.Bytes = append(v.Pinned, tag), v.Bytes+pin.Bytes
	}
	k.log.Warn("gone from its registry", logkey.Reference(v.Name()), zap.Strings("pinned", v.Pinned), logkey.Bytes(v.Bytes), zap.String("not-pinned", v.NotPinned))
}

// latestTags returns some of the tags of a repository, those first that changed last.
func (k *Keeper) latestTags(repo Repo) []string {
	type dated struct {
		name string
		at   time.Time
	}
	var all []dated
	_ = k.Store.Index.Tags(repo, func(tag string, t index.Tag) error { // without an answer there are none
		all = append(all, dated{tag, t.ChangedAt})
		return nil
	})
	slices.SortFunc(all, func(a, b dated) int { return b.at.Compare(a.at) })
	var names []string
	for _, t := range all[:min(len(all), goneTagsOfOne)] {
		names = append(names, t.name)
	}
	return names
}
