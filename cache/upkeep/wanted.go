package upkeep

import (
	"slices"

	"forebay/cache/image"
	"forebay/cache/index"
	"forebay/cache/wanted"
)

// Wanted returns what clients asked for in vain while its registry was not to be
// contacted, and what has not come since by another way, sorted by name.
func (k *Keeper) Wanted() []wanted.Wanted {
	list := k.Cache.Wanted()
	return slices.DeleteFunc(list.All(), func(w wanted.Wanted) bool {
		if !k.arrived(w) {
			return false
		}
		list.Drop(w)
		return true
	})
}

// arrived reports whether something that was wanted can be served now.
func (k *Keeper) arrived(w wanted.Wanted) bool {
	repo, tag, d, ok := image.ParseName(w.Ref)
	if !ok {
		return true // nothing that could be asked for
	}
	if w.Blob {
		_, kept := k.Store.Size(d)
		return kept && k.Store.Linked(repo, index.Blob, d)
	}
	if tag != "" {
		t, known, err := k.Cache.Tag(repo, tag)
		if err != nil || !known {
			return false
		}
		d = t.Desc.Digest
	}
	if !k.Store.Serves(repo, d) {
		return false
	}
	return k.Images.Of(repo, tag, d).State != image.Incomplete
}
