package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/disk"
	"forebay/cache/evict"
	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/sums"
	"forebay/internal/wire"
)

// ErrContent means that content is not what it was said to be: its digest or its size is
// another, or a manifest is none.
var ErrContent = errors.New("content is not what it is said to be")

// arrivingFor is how long content that was taken in waits for the image that it belongs
// to: an import that was cut is run again within it, or loses what it brought to others.
const arrivingFor = 24 * time.Hour

// arrivals are what was taken in and belongs to no repository yet. It is neither evicted
// nor garbage. The zero value is ready for use.
type arrivals struct {
	mu    sync.Mutex
	until map[proof]time.Time // guarded by mu
}

func (a *arrivals) add(d v1.Hash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until == nil {
		a.until = map[proof]time.Time{}
	}
	a.until[proofOf(d)] = time.Now().Add(arrivingFor)
}

func (a *arrivals) remove(d v1.Hash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.until, proofOf(d))
}

// has reports whether d is waiting; what waited too long is forgotten.
func (a *arrivals) has(d v1.Hash) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.until[proofOf(d)]
	if ok && time.Now().After(until) {
		delete(a.until, proofOf(d))
		return false
	}
	return ok
}

// Held returns the size of content that is kept here, whoever holds it. It grants nothing:
// it is for operators.
func (c *Cache) Held(d v1.Hash) (size int64, ok bool) { return c.storedSize(d) }

// Content opens kept content by its digest alone, whoever holds it: for operators, never
// for clients. What is only in the bucket returns to the disk first. The caller closes the
// file and compares what it reads with the digest.
func (c *Cache) Content(d v1.Hash) (*os.File, int64, error) {
	f, size, err := c.disk.Blob(d)
	if _, stored := c.inBucket(d); stored && errors.Is(err, fs.ErrNotExist) && c.refetch(c.ctx, d) {
		f, size, err = c.disk.Blob(d)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: %w", d, ErrNotKept)
		}
		return nil, 0, err
	}
	return f, size, nil
}

// Expect says that content which is kept already is about to be named by an import, so
// that it stays until then. It reports whether it is kept.
func (c *Cache) Expect(d v1.Hash) bool {
	c.arriving.add(d) // first, so that it is not evicted in between
	if _, ok := c.keptSize(d); ok {
		return true
	}
	c.arriving.remove(d)
	return false
}

// TakeIn stores the size bytes of r as the content d, once their digest is right. No
// repository gets it by that: see [Cache.Admit]. Content that is here already is not read
// from r. The error is [ErrContent] when the bytes are others or not as many, and
// [ErrNoRoom] when they do not fit.
func (c *Cache) TakeIn(ctx context.Context, d v1.Hash, size int64, r io.Reader) error {
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return fmt.Errorf("take in: %w: %w", ErrContent, err)
	}
	if size < 0 {
		return fmt.Errorf("take in %s: %w: its size is not known", d, ErrContent)
	}
	if err := c.takeIn(ctx, d, size, r); err != nil {
		c.arriving.remove(d)
		return fmt.Errorf("take in %s: %w", d, err)
	}
	return nil
}

func (c *Cache) takeIn(ctx context.Context, d v1.Hash, size int64, r io.Reader) error {
	if c.Expect(d) {
		return nil
	}
	c.arriving.add(d)
	if err := c.space.reserve(ctx, size); err != nil {
		if errors.Is(err, ErrNoRoom) {
			err = fmt.Errorf("%w: it has %s", ErrNoRoom, humanize.IBytes(uint64(size)))
		}
		return err
	}
	defer c.space.release(size)
	part, err := c.claimPartial(ctx, d)
	if err != nil || part == nil {
		return err
	}
	if err := c.receive(ctx, part, size, r); err != nil {
		return errors.Join(err, part.Discard())
	}
	if err := part.Commit(size); err != nil {
		return errors.Join(err, part.Discard())
	}
	c.space.add(d, size, evict.Blob)
	defer c.upload(d, size)
	return c.update(func(b *index.Batch) error {
		return b.PutBlob(d, index.BlobInfo{Size: size, Added: time.Now()})
	})
}

// claimPartial returns the partial file of d. A fill that runs is waited for; when it has
// brought the content, the file is nil.
func (c *Cache) claimPartial(ctx context.Context, d v1.Hash) (*disk.Partial, error) {
	for {
		if f := c.running(d); f != nil {
			select {
			case <-f.done:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		part, err := c.disk.Partial(d)
		switch {
		case err == nil:
			return part, nil
		case !errors.Is(err, disk.ErrInUse):
			return nil, err
		}
		if _, ok := c.keptSize(d); ok {
			return nil, nil
		}
		select { // a fill that has just begun or ended, or another import
		case <-time.After(claimAgain):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// claimAgain is how often a partial file is asked for that somebody else writes.
const claimAgain = 20 * time.Millisecond

// flushPiece is how many bytes are given to the disk at a time while more come.
const flushPiece = 16 << 20

// receive writes the bytes of r to a partial file and compares them with its digest. They
// are hashed beside the writing.
func (c *Cache) receive(ctx context.Context, part *disk.Partial, size int64, r io.Reader) error {
	if err := part.Truncate(0); err != nil {
		return err
	}
	sum, err := sums.New(part.Digest().Algorithm)
	if err != nil {
		return err
	}
	defer sum.End()
	var at, flushed int64
	for at < size {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf := sum.Buffer()
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at)])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read: %w", err)
		}
		if n == 0 || err != nil {
			return fmt.Errorf("%w: it ends after %d of %d bytes", ErrContent, at+int64(n), size)
		}
		sum.Write(buf[:n])
		if _, err := part.WriteAt(buf[:n], at); err != nil {
			return err
		}
		if at += int64(n); at-flushed >= flushPiece {
			if err := part.Flush(flushed, at-flushed); err != nil {
				return err
			}
			flushed = at
		}
	}
	if got := sum.Sum(); got != part.Digest() {
		return fmt.Errorf("%w: it has the digest %s", ErrContent, got)
	}
	return nil
}

// Root is a manifest or an index with the name that it has in a repository.
type Root struct {
	Repo Repo
	Tag  string // empty for what is named by digest only
	Desc v1.Descriptor
	// Confirmed is when the registry said so last; the zero time means now. A tag that is
	// older than its time to live is confirmed at the next pull, or served as stale.
	Confirmed time.Time
}

// Name returns "docker.io/library/nginx:1.27", or with the digest when there is no tag.
func (r Root) Name() string { return refString(r.Repo, r.Tag, r.Desc.Digest) }

// Admitted says what an import came to for one image.
type Admitted struct {
	Ref       string   `json:"ref"`
	Digest    v1.Hash  `json:"digest"`
	Before    string   `json:"before,omitempty"`    // what the tag pointed to, if that was something else
	Platforms []string `json:"platforms,omitempty"` // of an index: those that are here
	Left      []string `json:"left,omitempty"`      // of an index: those that are not
	// Missing are the things of those platforms that are not here, at most 100 one by one.
	Missing      []Part `json:"missing,omitempty"`
	MissingCount int64  `json:"missing_count"`
	MissingBytes int64  `json:"missing_bytes"`
	Pinned       bool   `json:"pinned,omitempty"`
}

// linksAtOnce bounds the links of one transaction of the index.
const linksAtOnce = 1000

// Admit gives a repository the right to an image whose content was taken in before, and
// binds its tag as if the registry had confirmed it now: by the word of the operator, not
// of the registry. What of the image is not here gets no link, and is told. Every manifest
// on the way is compared with its digest, and every size with what its manifest says. The
// tag is bound last. The error is [ErrContent] for an image that is not sound, and
// [ErrNotKept] when its manifest is not here; nothing is bound then.
func (c *Cache) Admit(ctx context.Context, root Root) (*Admitted, error) {
	if _, err := c.origin(root.Repo); err != nil {
		return nil, err
	}
	a := admission{c: c, root: root, seen: map[v1.Hash]bool{}, done: Admitted{Ref: root.Name(), Digest: root.Desc.Digest}}
	if err := a.run(ctx); err != nil {
		return nil, fmt.Errorf("admit %s: %w", root.Name(), err)
	}
	return &a.done, nil
}

// admission is one run of Admit.
type admission struct {
	c     *Cache
	root  Root
	seen  map[v1.Hash]bool
	links []newLink
	docs  []*admittedDoc
	done  Admitted
}

type newLink struct {
	kind index.Kind
	desc v1.Descriptor
}

// admittedDoc is a manifest on the way, with what the list of referrers tells of it.
type admittedDoc struct {
	desc         v1.Descriptor
	bytes        []byte
	subject      v1.Hash // zero without one
	artifactType string
	annotations  map[string]string
}

func (a *admission) run(ctx context.Context) error {
	c, repo := a.c, a.root.Repo
	if _, ok := c.keptSize(a.root.Desc.Digest); !ok {
		return fmt.Errorf("its manifest is not here: %w", ErrNotKept)
	}
	if err := a.manifest(ctx, a.root.Desc, 0); err != nil {
		return err
	}
	for links := range slices.Chunk(a.links, linksAtOnce) {
		err := c.update(func(b *index.Batch) error {
			var errs []error
			for _, l := range links {
				errs = append(errs, b.PutLink(repo, l.kind, l.desc.Digest, linkOf(l.desc)))
			}
			return errors.Join(errs...)
		})
		if err != nil {
			return err
		}
	}
	for _, d := range a.docs {
		if err := a.refer(d); err != nil {
			return err
		}
	}
	c.forgetAbsence(repo)
	for _, l := range a.links {
		c.arriving.remove(l.desc.Digest)
		c.unfetched.remove(l.desc.Digest)
	}
	if err := a.bind(); err != nil {
		return err
	}
	for _, d := range a.docs {
		c.pinKept(d.desc.Digest, d.bytes)
	}
	c.log.Info("image imported", logkey.Reference(a.done.Ref), logkey.Digest(a.root.Desc.Digest), logkey.Count(len(a.links)))
	return nil
}

// bind binds the tag, now that all it leads to has its links.
func (a *admission) bind() error {
	if a.root.Tag == "" {
		return nil
	}
	before, err := a.c.tag(a.root.Repo, a.root.Tag)
	if err != nil {
		return err
	}
	if before != nil && before.Desc.Digest != a.root.Desc.Digest {
		a.done.Before = before.Desc.Digest.String()
	}
	desc := a.root.Desc
	if len(a.docs) > 0 {
		desc = a.docs[0].desc // with the media type and the size that it was found to have
	}
	at := a.root.Confirmed
	if at.IsZero() {
		at = time.Now()
	}
	if before != nil && before.CheckedAt.After(at) {
		return nil // what is known here is newer
	}
	return a.c.bindAt(a.root.Repo, a.root.Tag, desc, at)
}

// manifest takes in a manifest that is kept, and what it leads to.
func (a *admission) manifest(ctx context.Context, desc v1.Descriptor, depth int) error {
	d := desc.Digest
	if a.seen[d] {
		return nil
	}
	a.seen[d] = true
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth > imageDepth {
		return fmt.Errorf("%w: indexes are nested more than %d deep", ErrContent, imageDepth)
	}
	b, err := a.c.readKept(d, manifestMax)
	if err != nil {
		return fmt.Errorf("%w: manifest: %w", ErrContent, err)
	}
	if err := matches(d, b); err != nil {
		a.c.condemnKept(d, err)
		return fmt.Errorf("%w: manifest %s: %w", ErrContent, d, err)
	}
	if desc.Size > 0 && desc.Size != int64(len(b)) {
		return fmt.Errorf("%w: manifest %s has %d bytes, and is said to have %d", ErrContent, d, len(b), desc.Size)
	}
	doc, found, err := readAdmitted(b, desc)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	a.docs = append(a.docs, found)
	a.links = append(a.links, newLink{index.Manifest, found.desc})
	for _, part := range doc.blobs() {
		if err := a.blob(part); err != nil {
			return err
		}
	}
	for _, child := range doc.Manifests {
		if err := a.child(ctx, child, depth); err != nil {
			return err
		}
	}
	return nil
}

// child takes in one platform of an index, if it is here.
func (a *admission) child(ctx context.Context, child descriptor, depth int) error {
	d, ok := child.digest()
	if !ok {
		return fmt.Errorf("%w: an index names the digest %.100q", ErrContent, child.Digest)
	}
	name := child.name()
	if _, kept := a.c.keptSize(d); !kept {
		if name != "" && name != attestation {
			a.done.Left = append(a.done.Left, name)
		}
		return nil
	}
	if name != "" && name != attestation {
		a.done.Platforms = append(a.done.Platforms, name)
	}
	return a.manifest(ctx, v1.Descriptor{MediaType: types.MediaType(child.MediaType), Size: child.Size, Digest: d}, depth+1)
}

// blob takes in a configuration or a layer.
func (a *admission) blob(part Part) error {
	if a.seen[part.Digest] {
		return nil
	}
	a.seen[part.Digest] = true
	kept, ok := a.c.keptSize(part.Digest)
	if !ok {
		part.State = Missing
		a.done.MissingCount++
		a.done.MissingBytes += max(part.Size, 0)
		if len(a.done.Missing) < failuresMost {
			a.done.Missing = append(a.done.Missing, part)
		}
		return nil
	}
	if part.Size >= 0 && kept != part.Size {
		return fmt.Errorf("%w: %s %s has %d bytes, and its manifest says %d", ErrContent, part.Role, part.Digest, kept, part.Size)
	}
	a.links = append(a.links, newLink{index.Blob, v1.Descriptor{Digest: part.Digest, Size: kept}})
	return nil
}

// readAdmitted reads a manifest, of which a descriptor may say the media type.
func readAdmitted(b []byte, desc v1.Descriptor) (*contentDoc, *admittedDoc, error) {
	doc, ok := parseDoc(b)
	if !ok || !doc.isIndex() && doc.Config == nil && doc.Layers == nil && doc.FSLayers == nil {
		return nil, nil, fmt.Errorf("%w: it is no manifest", ErrContent)
	}
	var more struct {
		ArtifactType string            `json:"artifactType"`
		Annotations  map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(b, &more); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrContent, err)
	}
	kind := doc.MediaType
	if kind == "" {
		kind = string(desc.MediaType)
	}
	if kind == "" {
		kind = string(types.OCIManifestSchema1) // the only form that may leave it out, with its index
		if doc.isIndex() {
			kind = string(types.OCIImageIndex)
		}
	}
	found := &admittedDoc{
		desc:  v1.Descriptor{MediaType: types.MediaType(kind), Digest: desc.Digest, Size: int64(len(b))},
		bytes: b, artifactType: more.ArtifactType, annotations: more.Annotations,
	}
	if doc.Subject != nil {
		found.subject, _ = doc.Subject.digest()
	}
	if found.artifactType == "" && doc.Config != nil {
		found.artifactType = doc.Config.MediaType
	}
	return doc, found, nil
}

// refer adds a manifest to the list of the referrers of its subject. Where a registry may
// be asked the list is asked for again at the next occasion: there may be others.
func (a *admission) refer(d *admittedDoc) error {
	if d.subject == (v1.Hash{}) {
		return nil
	}
	c, repo := a.c, a.root.Repo
	kept, at, known, err := c.index.Doc(repo, index.ReferrerList, d.subject.String())
	if err != nil {
		return err
	}
	var list []json.RawMessage
	if !known || json.Unmarshal(kept, &list) != nil {
		list, at = nil, time.Unix(0, 0)
	}
	for _, one := range list {
		var have descriptor
		if json.Unmarshal(one, &have) == nil && have.Digest == d.desc.Digest.String() {
			return nil
		}
	}
	// OCI distribution 1.1, "Listing referrers": the descriptor with the type of the
	// artifact and the annotations of the manifest.
	entry, err := json.Marshal(v1.Descriptor{
		MediaType: d.desc.MediaType, Size: d.desc.Size, Digest: d.desc.Digest,
		Annotations: d.annotations, ArtifactType: d.artifactType,
	})
	if err != nil {
		return err
	}
	text, err := json.Marshal(append(list, entry))
	if err != nil {
		return err
	}
	return c.update(func(b *index.Batch) error {
		return b.PutDoc(repo, index.ReferrerList, d.subject.String(), text, at)
	})
}
