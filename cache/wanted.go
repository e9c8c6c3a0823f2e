package cache

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/statefile"
	"forebay/internal/wire"
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
	// wantedFileMost is far more than wantedMost entries of the longest names take.
	wantedFileMost = 16 << 20
	wantedEvery    = time.Second // how soon it is written
	// holdersMost bounds the tags of a repository that are looked at for who needs a blob.
	holdersMost = 200
)

// wants is the list of what is wanted. Its zero value is empty.
type wants struct {
	file string

	mu    sync.Mutex
	list  map[string]*Wanted // guarded by mu; by Ref, with a mark for blobs
	dirty bool               // guarded by mu; there is something to write

	writing sync.Mutex // held while the file is written
}

// openWants reads the list that an earlier run left.
func (c *Cache) openWants() {
	c.wants.file = filepath.Join(c.opts.Dir, wantedName)
	c.wants.list = map[string]*Wanted{}
	var list []Wanted
	if err := statefile.Read(c.wants.file, wantedFileMost, &list); err != nil {
		list = nil
		c.log.Warn("list of what is wanted is lost", logkey.Err(err))
	}
	for _, w := range list {
		if len(c.wants.list) < wantedMost && w.Ref != "" {
			c.wants.list[w.key()] = &w
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
		w := Wanted{Ref: refString(repo, tag, d), Blob: blob}
		if blob {
			if holder := c.holderOf(repo, d); holder != "" {
				w = Wanted{Ref: holder}
			}
		}
		c.wants.add(w, time.Now())
	}
	return offlineError(repo)
}

// holderOf returns the image of a tag that needs a blob, "" if none is known.
func (c *Cache) holderOf(repo Repo, d v1.Hash) string {
	found, n := "", 0
	_ = c.index.Tags(repo, func(tag string, t index.Tag) error { // without an answer it is wanted as a blob
		if n++; n > holdersMost {
			return index.ErrStop
		}
		if c.needs(repo, t.Desc.Digest, d, 0) {
			found = refString(repo, tag, v1.Hash{})
			return index.ErrStop
		}
		return nil
	})
	return found
}

// needs reports whether the kept manifest of leads to the blob d.
func (c *Cache) needs(repo Repo, of, d v1.Hash, depth int) bool {
	doc, ok := c.doc(repo, of)
	if !ok || depth > imageDepth {
		return false
	}
	if slices.ContainsFunc(doc.blobs(), func(p Part) bool { return p.Digest == d }) {
		return true
	}
	return slices.ContainsFunc(doc.Manifests, func(child descriptor) bool {
		h, ok := child.digest()
		return ok && c.needs(repo, h, d, depth+1)
	})
}

func (w *wants) add(one Wanted, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty = true
	if known := w.list[one.key()]; known != nil {
		known.Count++
		known.Last = now
		return
	}
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
	list := c.wants.sorted()
	return slices.DeleteFunc(list, func(w Wanted) bool {
		if !c.arrived(w) {
			return false
		}
		c.wants.drop(w)
		return true
	})
}

// arrived reports whether something that was wanted can be served now.
func (c *Cache) arrived(w Wanted) bool {
	repo, tag, d, ok := parseRef(w.Ref)
	if !ok {
		return true // nothing that could be asked for
	}
	if w.Blob {
		_, kept := c.storedSize(d)
		return kept && c.linked(repo, index.Blob, d)
	}
	if tag != "" {
		t, err := c.tag(repo, tag)
		if err != nil || t == nil {
			return false
		}
		d = t.Desc.Digest
	}
	if !c.keeps(repo, d) {
		return false
	}
	image := c.image(repo, tag, d, false)
	return image.State != Incomplete
}

// parseRef takes apart what refString made.
func parseRef(s string) (repo Repo, tag string, d v1.Hash, ok bool) {
	name, digest, byDigest := strings.Cut(s, "@")
	if byDigest {
		h, err := wire.ParseDigest(digest)
		if err != nil {
			return repo, "", d, false
		}
		d = h
	} else {
		colon := strings.LastIndexByte(s, ':')
		if colon < strings.LastIndexByte(s, '/') || colon < 0 {
			return repo, "", d, false
		}
		name, tag = s[:colon], s[colon+1:]
	}
	upstream, rest, ok := strings.Cut(name, "/")
	return Repo{Upstream: upstream, Name: rest}, tag, d, ok
}

// ClearWanted empties the list and returns how much there was.
func (c *Cache) ClearWanted() (int, error) {
	c.wants.mu.Lock()
	n := len(c.wants.list)
	clear(c.wants.list)
	c.wants.dirty = true
	c.wants.mu.Unlock()
	return n, c.wants.write()
}

func (w *wants) drop(one Wanted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.list, one.key())
	w.dirty = true
}

func (w *wants) sorted() []Wanted {
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
func (w *wants) write() error {
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

// keepWants writes the list soon after it changed, until ctx is done.
func (c *Cache) keepWants(ctx context.Context) {
	tick := time.NewTicker(wantedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := c.wants.write(); err != nil && c.told.first(wantedName) {
				c.log.Warn("list of what is wanted is not written", logkey.Err(err))
			}
		}
	}
}
