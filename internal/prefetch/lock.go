package prefetch

import (
	"context"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/upkeep"
	"forebay/internal/imageset"
	"forebay/internal/wire"
)

// Locked is what tags were found to point to.
type Locked struct {
	File   imageset.LockFile `json:"lock"`
	Pulls  int64             `json:"pulls"` // that it took
	Failed []LockFault       `json:"failed,omitempty"`
}

// LockFault is an image whose digest could not be found out, and why.
type LockFault struct {
	Ref   string `json:"ref"`
	At    string `json:"at,omitempty"`
	Error string `json:"error"`
}

// lockAtOnce bounds the HEADs in progress.
const lockAtOnce = 8

// Lock asks registries what the tags of entries point to, by HEAD. It does not look at a
// digest that comes with a tag. With children it also reports the platforms of indexes; it
// fetches those that are not kept, and each of these is a pull.
func Lock(ctx context.Context, k *upkeep.Keeper, entries []imageset.Entry, children bool, tell func(upkeep.Progress)) (*Locked, error) {
	l := &Locked{File: imageset.LockFile{Version: imageset.LockVersion, Images: []imageset.LockedImage{}}}
	var mu sync.Mutex
	progress := upkeep.Progress{ItemsTotal: int64(len(entries))}
	slots := make(chan struct{}, lockAtOnce)
	var running sync.WaitGroup
	for _, e := range entries {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-slots }()
			image, pulls, err := lockOne(ctx, k, e, children)
			mu.Lock()
			defer mu.Unlock()
			l.Pulls += pulls
			progress.Items++
			if err != nil {
				progress.Faults++
				l.Failed = append(l.Failed, LockFault{Name(e.Ref), e.At.String(), err.Error()})
			} else {
				l.File.Images = append(l.File.Images, image)
			}
			tell(progress)
		})
	}
	running.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return l, nil
}

func lockOne(ctx context.Context, k *upkeep.Keeper, e imageset.Entry, children bool) (imageset.LockedImage, int64, error) {
	d := e.Ref.Digest
	if e.Ref.Tag != "" {
		d = v1.Hash{}
	}
	found, err := k.Lock(ctx, cache.Repo{Upstream: e.Ref.Upstream, Name: e.Ref.Repository}, e.Ref.Tag, d, children)
	if err != nil {
		return imageset.LockedImage{}, 0, err
	}
	image := imageset.LockedImage{
		Ref: Name(e.Ref), Digest: wire.Digest{Hash: found.Desc.Digest}, MediaType: string(found.Desc.MediaType), Size: found.Desc.Size,
	}
	for _, p := range found.Platforms {
		image.Platforms = append(image.Platforms, imageset.LockedPlatform{Platform: p.Platform, Digest: wire.Digest{Hash: p.Digest}, Size: p.Size})
	}
	return image, found.Pulls, nil
}
