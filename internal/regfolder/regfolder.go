// Package regfolder reads the storage folder of a distribution registry, version 2 or 3,
// plain or pull-through cache.
//
// It promises to look at nothing outside the folder, whatever links lie in it, and to
// change nothing. What it returns is not verified: whoever takes content in compares it
// with its digest. The folder may be in use; what changes meanwhile may be missed.
//
// The layout, below docker/registry/v2:
//
//	blobs/<algorithm>/<2 hex>/<hex>/data
//	repositories/<name>/_layers/<algorithm>/<hex>/link
//	repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link
//	repositories/<name>/_manifests/tags/<tag>/current/link
//
// A link is a file that holds a digest. The file scheduler-state.json of a pull-through cache
// is not used.
package regfolder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/manifest"
	"forebay/internal/wire"
)

const (
	top = "docker/registry/v2"
	// linkMost bounds a link: a digest of the longest algorithm has 135 bytes.
	linkMost = 256
	// depthMost bounds how many parts a repository's name may have.
	depthMost = 32
)

// Folder is an open storage folder. The caller must call Close.
type Folder struct {
	root *os.Root
	base string // of the layout, "" when the folder is docker/registry/v2 itself
}

// Open opens a storage folder: the rootdirectory of a registry's configuration, or the
// folder docker/registry/v2 in it.
func Open(dir string) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	for _, base := range []string{top, ""} {
		info, err := root.Stat(path.Join(base, "repositories"))
		if err == nil && info.IsDir() {
			return &Folder{root: root, base: base}, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a link to another disk, say
			_ = root.Close()
			return nil, fmt.Errorf("%q: %w: links out of the folder are not followed, name the folder docker/registry/v2 itself", dir, err)
		}
	}
	_ = root.Close() // nothing was written
	return nil, fmt.Errorf("%q is no storage folder of a registry: it has no %s/repositories", dir, top)
}

// Close closes the folder. Files that were handed out stay open.
func (f *Folder) Close() error { return f.root.Close() }

// Root is a manifest or an index that a repository holds.
type Root struct {
	Tag    string // empty for what no tag names
	Digest v1.Hash
	Seen   time.Time // when the registry wrote the tag
}

// Repository is what a repository holds.
type Repository struct {
	Name  string
	Roots []Root // tags first
	// Content is all that its manifests lead to and that is in the folder, manifests first.
	Content []Blob
	Faults  []string // what could not be read, for people
	Strays  []string // what no registry makes, by its path; no images are lost by it
}

// Blob is content in the folder.
type Blob struct {
	Digest v1.Hash
	Size   int64
}

// Visitor is told of what is in a folder.
type Visitor struct {
	Repository func(name string) error // its error ends the visit
	Odd        func(name string)       // of what no repository can be called
	Stray      func(name string)       // what tools leave among the repositories
}

// Visit tells of every repository, in order.
func (f *Folder) Visit(ctx context.Context, v Visitor) error { return f.descend(ctx, "", 0, v) }

func (f *Folder) descend(ctx context.Context, name string, depth int, v Visitor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := f.list(path.Join("repositories", name))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "_manifests" }) {
		if !wire.ValidRepository(name) {
			v.Odd(name)
		} else if err := v.Repository(name); err != nil {
			return err
		}
	}
	for _, e := range entries {
		child := path.Join(name, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "_"):
		case foreign(e):
			v.Stray(child)
		case !e.IsDir():
			v.Odd(child) // a link may have been a repository: the registry makes none
		case e.Name() == "lost+found": // of a file system, and for root alone
		case depth >= depthMost:
			v.Odd(child)
		default:
			if err := f.descend(ctx, child, depth+1, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// list returns the entries of a folder in order, none for one that is not there.
func (f *Folder) list(name string) ([]fs.DirEntry, error) {
	d, err := f.root.Open(path.Join(f.base, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// Read returns what a repository holds. The error is ctx's; what cannot be read is among
// the faults.
func (f *Folder) Read(ctx context.Context, name string) (*Repository, error) {
	r := reading{f: f, repo: &Repository{Name: name}, seen: map[v1.Hash]bool{}}
	manifests := path.Join("repositories", name, "_manifests")
	r.tags(path.Join(manifests, "tags"))
	for _, root := range r.repo.Roots {
		if err := r.image(ctx, root.Digest); err != nil {
			return nil, err
		}
	}
	r.revisions(path.Join(manifests, "revisions"))
	for _, root := range r.repo.Roots {
		if err := r.image(ctx, root.Digest); err != nil {
			return nil, err
		}
	}
	r.repo.Content = slices.Concat(r.manifests, r.blobs)
	return r.repo, nil
}

// reading is one run of Read.
type reading struct {
	f         *Folder
	repo      *Repository
	seen      map[v1.Hash]bool
	manifests []Blob
	blobs     []Blob
}

func (r *reading) fault(format string, args ...any) {
	r.repo.Faults = append(r.repo.Faults, fmt.Sprintf(format, args...))
}

// foreign reports whether an entry is a file, where a registry has folders only, or a folder that it
// never makes, as the @eaDir and .snapshot of file servers: no name in it begins like that.
func foreign(e fs.DirEntry) bool {
	return e.Type().IsRegular() || e.IsDir() && strings.ContainsAny(e.Name()[:1], "@.")
}

// stray notes an entry that is none of a registry's.
func (r *reading) stray(dir string, e fs.DirEntry) bool {
	if !foreign(e) {
		return false
	}
	r.repo.Strays = append(r.repo.Strays, strings.TrimPrefix(path.Join(dir, e.Name()), "repositories/"))
	return true
}

func (r *reading) tags(dir string) {
	entries, err := r.f.list(dir)
	if err != nil {
		r.fault("tags cannot be listed: %s", err)
	}
	for _, e := range entries {
		if r.stray(dir, e) {
			continue
		}
		if !wire.ValidTag(e.Name()) {
			r.fault("%.200q is not the name of a tag", e.Name())
			continue
		}
		d, at, err := r.f.link(path.Join(dir, e.Name(), "current", "link"))
		if err != nil {
			r.fault("tag %s cannot be read: %s", e.Name(), err)
			continue
		}
		r.repo.Roots = append(r.repo.Roots, Root{Tag: e.Name(), Digest: d, Seen: at})
	}
}

// revisions adds the manifests that no tag leads to.
func (r *reading) revisions(dir string) {
	algorithms, err := r.f.list(dir)
	if err != nil {
		r.fault("manifests cannot be listed: %s", err)
	}
	for _, a := range algorithms {
		if r.stray(dir, a) {
			continue
		}
		entries, err := r.f.list(path.Join(dir, a.Name()))
		if err != nil {
			r.fault("manifests cannot be listed: %s", err)
			continue
		}
		for _, e := range entries {
			if r.stray(path.Join(dir, a.Name()), e) {
				continue
			}
			named, err := wire.ParseDigest(a.Name() + ":" + e.Name())
			if err != nil {
				r.fault("%.200q is not the name of a manifest", a.Name()+"/"+e.Name())
				continue
			}
			if r.seen[named] {
				continue
			}
			d, at, err := r.f.link(path.Join(dir, a.Name(), e.Name(), "link"))
			switch {
			case errors.Is(err, fs.ErrNotExist): // it was deleted, or its time in a cache was over: of that the folder stays
			case err != nil:
				r.fault("manifest %s cannot be read: %s", named, err)
			case d != named:
				r.fault("manifest %s has a link to %s", named, d)
			default:
				r.repo.Roots = append(r.repo.Roots, Root{Digest: d, Seen: at})
			}
		}
	}
}

// link reads a link and when it was written.
func (f *Folder) link(name string) (v1.Hash, time.Time, error) {
	b, at, err := f.small(name, linkMost)
	if err != nil {
		return v1.Hash{}, at, err
	}
	d, err := wire.ParseDigest(strings.TrimSpace(string(b)))
	return d, at, err
}

// small reads a file of at most limit bytes.
func (f *Folder) small(name string, limit int64) ([]byte, time.Time, error) {
	file, info, err := f.regular(name)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer file.Close()
	if info.Size() > limit {
		return nil, time.Time{}, fmt.Errorf("%q has %d bytes, at most %d are read", name, info.Size(), limit)
	}
	b, err := io.ReadAll(io.LimitReader(file, limit))
	return b, info.ModTime(), err
}

// regular opens a file that is no link, pipe or device.
func (f *Folder) regular(name string) (*os.File, fs.FileInfo, error) {
	name = path.Join(f.base, name)
	// It is checked before opening, since opening a pipe waits for its other end.
	before, err := f.root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%q is not a regular file", name)
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !os.SameFile(before, info) {
		err = fmt.Errorf("%q was replaced", name)
	}
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// Blob opens content. The caller closes the file and compares it with its digest.
func (f *Folder) Blob(d v1.Hash) (*os.File, int64, error) {
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return nil, 0, err
	}
	file, info, err := f.regular(dataName(d))
	if err != nil {
		return nil, 0, err
	}
	return file, info.Size(), nil
}

func dataName(d v1.Hash) string { return path.Join("blobs", d.Algorithm, d.Hex[:2], d.Hex, "data") }

// image adds a manifest and what it refers to. Platforms of an index that are not in the
// folder are left out: a cache has only those that somebody pulled.
func (r *reading) image(ctx context.Context, d v1.Hash) error {
	return manifest.Walk{
		Seen:     r.seen,
		Manifest: func(n manifest.Node) (*manifest.Document, error) { return r.manifest(n), ctx.Err() },
		Blob: func(_ manifest.Node, b manifest.Blob) error {
			r.blob(b.Digest)
			return nil
		},
	}.Run(manifest.Descriptor{Digest: d.String()})
}

// manifest reads a manifest, nil if it cannot be read.
func (r *reading) manifest(n manifest.Node) *manifest.Document {
	b, _, err := r.f.small(dataName(n.Digest), manifest.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) && n.Depth > 0 {
		return nil
	}
	if err != nil {
		r.fault("manifest %s cannot be read: %s", n.Digest, err)
		return nil
	}
	doc, ok := manifest.Parse(b)
	if !ok {
		r.fault("manifest %s cannot be read: it is none", n.Digest)
		return nil
	}
	for _, digest := range doc.Invalid() {
		r.fault("manifest %s names the digest %.100q", n.Digest, digest)
	}
	r.manifests = append(r.manifests, Blob{Digest: n.Digest, Size: int64(len(b))})
	return doc
}

func (r *reading) blob(d v1.Hash) {
	info, err := r.f.root.Lstat(path.Join(r.f.base, dataName(d)))
	switch {
	case errors.Is(err, fs.ErrNotExist): // a cache has what somebody pulled
	case err != nil:
		r.fault("blob %s cannot be read: %s", d, err)
	case !info.Mode().IsRegular():
		r.fault("blob %s is not a regular file", d)
	default:
		r.blobs = append(r.blobs, Blob{Digest: d, Size: info.Size()})
	}
}
