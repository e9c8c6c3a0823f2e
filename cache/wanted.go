package cache

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/image"
	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/statefile"
)

// Wanted is something that clients asked for while its registry was not to be contacted.
type Wanted struct {
	// Ref is an image by tag or by digest. Of Blob the digest is that of a blob which no
	// kept image of a tag needs.
	Ref   string    `json:"ref"`
	Blob  bool      `json:"blob,omitempty"`
	Count int64     `json:"count"` // how often it was asked for
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

const (
	wantedName = "wanted.json"
	// wantedMost bounds the list: names come from clients. What was asked for longest ago
	// makes room.
	wantedMost = 10_000
	// wantedOfClient bounds what one client adds between two starts: a tenth, so that none
	// alone pushes out what others want, or steers what is fetched on the connected side.
	wantedOfClient = wantedMost / 10
	// wantedFileMost is far more than wantedMost entries of the longest names take.
	wantedFileMost = 16 << 20
	wantedEvery    = time.Second // how soon it is written
	// holdersMost bounds the tags of a repository that are looked at for who needs a blob.
	holdersMost = 200
)

// wantedList is the list of what is wanted. Its zero value is empty.
type wantedList struct {
	file string

	mu    sync.Mutex
	list  map[string]*Wanted // guarded by mu; by Ref, with a mark for blobs
	added map[string]int     // guarded by mu; what each client has added
	dirty bool               // guarded by mu; there is something to write

	writing sync.Mutex // held while the file is written
}

// openWanted reads the list that an earlier run left.
func (c *Cache) openWanted() {
	c.wanted.file = filepath.Join(c.opts.Store.Dir, wantedName)
	c.wanted.list, c.wanted.added = map[string]*Wanted{}, map[string]int{}
	var list []Wanted
	if err := statefile.Read(c.wanted.file, wantedFileMost, &list); err != nil {
		list = nil
		c.log.Warn("list of what is wanted is lost", logkey.Err(err))
	}
	for _, w := range list {
		if len(c.wanted.list) < wantedMost && w.Ref != "" {
			c.wanted.list[w.key()] = &w
		}
	}
}

func (w *Wanted) key() string {
	if w.Blob {
		return "blob " + w.Ref
	}
	return w.Ref
}

// offlineMiss is the answer of an upstream that must not be asked, for what a client wants
// of it: a tag, or the digest of a manifest or of a blob. It is noted as wanted.
func (c *Cache) offlineMiss(ctx context.Context, repo Repo, tag string, d v1.Hash, blob bool) error {
	if pull.Client(ctx) != "" { // not for what we or operators want
		w := Wanted{Ref: image.Name(repo, tag, d), Blob: blob}
		if blob {
			if holder := c.holderOf(repo, d); holder != "" {
				w = Wanted{Ref: holder}
			}
		}
		c.wanted.add(w, pull.Client(ctx), time.Now())
	}
	return offlineError(repo)
}

// holderOf returns the image of a tag that needs a blob, "" if none is known.
func (c *Cache) holderOf(repo Repo, d v1.Hash) string {
	found, n := "", 0
	_ = c.store.Index.Tags(repo, func(tag string, t index.Tag) error { // without an answer it is wanted as a blob
		if n++; n > holdersMost {
			return index.ErrStop
		}
		if c.images.Needs(repo, t.Desc.Digest, d) {
			found = image.Name(repo, tag, v1.Hash{})
			return index.ErrStop
		}
		return nil
	})
	return found
}

func (w *wantedList) add(one Wanted, client string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known := w.list[one.key()]; known != nil {
		w.dirty = true
		known.Count++
		known.Last = now
		return
	}
	if _, counted := w.added[client]; w.added[client] >= wantedOfClient || !counted && len(w.added) >= wantedMost {
		return
	}
	w.added[client]++
	w.dirty = true
	if len(w.list) >= wantedMost {
		var oldest *Wanted
		for _, other := range w.list {
			if oldest == nil || other.Last.Before(oldest.Last) {
				oldest = other
			}
		}
		delete(w.list, oldest.key())
	}
	one.Count, one.First, one.Last = 1, now, now
	w.list[one.key()] = &one
}

// Wanted returns what clients asked for in vain while its registry was not to be
// contacted, and what has not come since by another way, sorted by name.
func (c *Cache) Wanted() []Wanted {
	list := c.wanted.sorted()
	return slices.DeleteFunc(list, func(w Wanted) bool {
		if !c.arrived(w) {
			return false
		}
		c.wanted.drop(w)
		return true
	})
}

// arrived reports whether something that was wanted can be served now.
func (c *Cache) arrived(w Wanted) bool {
	repo, tag, d, ok := image.ParseName(w.Ref)
	if !ok {
		return true // nothing that could be asked for
	}
	if w.Blob {
		_, kept := c.store.Size(d)
		return kept && c.store.Linked(repo, index.Blob, d)
	}
	if tag != "" {
		t, err := c.tag(repo, tag)
		if err != nil || t == nil {
			return false
		}
		d = t.Desc.Digest
	}
	if !c.store.Serves(repo, d) {
		return false
	}
	return c.images.Of(repo, tag, d).State != image.Incomplete
}

// ClearWanted empties the list and returns how much there was.
func (c *Cache) ClearWanted() (int, error) {
	c.wanted.mu.Lock()
	n := len(c.wanted.list)
	clear(c.wanted.list)
	c.wanted.dirty = true
	c.wanted.mu.Unlock()
	return n, c.wanted.write()
}

func (w *wantedList) drop(one Wanted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.list, one.key())
	w.dirty = true
}

func (w *wantedList) sorted() []Wanted {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]Wanted, 0, len(w.list))
	for _, one := range w.list {
		list = append(list, *one)
	}
	slices.SortFunc(list, func(a, b Wanted) int { return strings.Compare(a.key(), b.key()) })
	return list
}

// write replaces the file if there is something new.
func (w *wantedList) write() error {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	dirty := w.dirty
	w.dirty = false
	w.mu.Unlock()
	if !dirty {
		return nil
	}
	err := statefile.Write(w.file, w.sorted())
	if err != nil { // the next time, then
		w.mu.Lock()
		w.dirty = true
		w.mu.Unlock()
	}
	return err
}

// keepWanted writes the list soon after it changed, until ctx is done.
func (c *Cache) keepWanted(ctx context.Context) {
	tick := time.NewTicker(wantedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := c.wanted.write(); err != nil && c.known.warned.first(key{what: aFile, ref: wantedName}) {
				c.log.Warn("list of what is wanted is not written", logkey.Err(err))
			}
		}
	}
}
