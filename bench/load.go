//go:build linux

package main

import (
	"context"
)

// loadMethods are what the child can do that makes load.
func loadMethods() methods {
	return methods{
		"fetch":  method(fetchAll),
		"hammer": method(hammer.run),
		"pull":   method(pulls.run),
	}
}

// load is the child, seen by its parent.
type load struct{ *child }

func startLoad(ctx context.Context, dir string, on cpus) (*load, error) {
	c, err := startChild(ctx, childLoad, dir, on)
	if err != nil {
		return nil, err
	}
	return &load{c}, nil
}

// fetch gets all downloads at the same time.
func (l *load) fetch(d downloads) ([]fetched, error) { return ask[[]fetched](l.child, "fetch", d) }

// fetchOne gets one download.
func (l *load) fetchOne(d download) (fetched, error) {
	all, err := l.fetch(downloads{List: []download{d}})
	if err != nil {
		return fetched{}, err
	}
	return all[0], nil
}

// hammer asks for one thing over and over.
func (l *load) hammer(h hammer) (hammered, error) { return ask[hammered](l.child, "hammer", h) }
