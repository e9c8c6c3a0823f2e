package upkeep

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/disk"
	"forebay/cache/image"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/logkey"
	"forebay/internal/manifest"
	"forebay/internal/sums"
	"forebay/internal/wire"
)

// ErrContent means that content is not what it was said to be: its digest or its size is
// another, or a manifest is none.
var ErrContent = errors.New("content is not what it is said to be")

// Held returns the size of content that is kept here, whoever holds it. It grants nothing:
// it is for operators.
func (k *Keeper) Held(d v1.Hash) (size int64, ok bool) { return k.Store.Size(d) }

// Content opens kept content by its digest alone, whoever holds it: for operators, never
// for clients. What is only in the bucket returns to the disk first. The caller closes the
// file and compares what it reads with the digest.
func (k *Keeper) Content(d v1.Hash) (*os.File, int64, error) {
	f, size, err := k.Store.Disk.Blob(d)
	if _, stored := k.Store.BucketSize(d); stored && errors.Is(err, fs.ErrNotExist) && k.refetch(k.Cache.Life(), d) {
		f, size, err = k.Store.Disk.Blob(d)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: %w", d, store.ErrNotKept)
		}
		return nil, 0, err
	}
	return f, size, nil
}

// Expect says that content which is kept already is about to be named by an import, so
// that it stays until then. It reports whether it is kept.
func (k *Keeper) Expect(d v1.Hash) bool {
	k.Store.Await(d) // first, so that it is not evicted in between
	if _, ok := k.Store.DiskSize(d); ok {
		return true
	}
	k.Store.EndAwait(d)
	return false
}

// TakeIn stores the size bytes of r as the content d, once their digest is right. No
// repository gets it by that: see [Keeper.Admit]. Content that is here already is not read
// from r. The error is [ErrContent] when the bytes are others or not as many, and
// [store.ErrNoRoom] when they do not fit.
func (k *Keeper) TakeIn(ctx context.Context, d v1.Hash, size int64, r io.Reader) error {
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return fmt.Errorf("take in: %w: %w", ErrContent, err)
	}
	if size < 0 {
		return fmt.Errorf("take in %s: %w: its size is not known", d, ErrContent)
	}
	_, err := k.take(ctx, d, size, func(part *disk.Partial) (func() error, error) {
		return func() error { return part.Commit(size) }, k.receive(ctx, part, size, r)
	})
	if errors.Is(err, store.ErrNoRoom) {
		err = fmt.Errorf("%w: it has %s", err, humanize.IBytes(uint64(size)))
	}
	if err != nil {
		return fmt.Errorf("take in %s: %w", d, err)
	}
	return nil
}

// take makes content of size bytes part of the store: write brings it to a partial file,
// verifies it, and returns what publishes it. had is whether it was there before.
func (k *Keeper) take(ctx context.Context, d v1.Hash, size int64, write func(*disk.Partial) (publish func() error, err error)) (had bool, err error) {
	if k.Expect(d) {
		return true, nil
	}
	k.Store.Await(d)
	defer func() {
		if err != nil {
			k.Store.EndAwait(d)
		}
	}()
	if err := k.Store.Room.Reserve(ctx, size); err != nil {
		return false, err
	}
	defer k.Store.Room.Release(size)
	part, err := k.claimPartial(ctx, d)
	if err != nil || part == nil {
		return part == nil, err
	}
	publish, err := write(part)
	if err == nil {
		err = k.Store.Take(d, size, publish)
	}
	if err != nil && !k.published(d) {
		err = errors.Join(err, part.Discard())
	}
	return false, err
}

// published reports whether content is on the disk.
func (k *Keeper) published(d v1.Hash) bool {
	_, ok := k.Store.DiskSize(d)
	return ok
}

// claimPartial returns the partial file of d. A fill that runs is waited for; when it has
// brought the content, the file is nil.
func (k *Keeper) claimPartial(ctx context.Context, d v1.Hash) (*disk.Partial, error) {
	for {
		if f := k.Cache.Filling(d); f != nil {
			select {
			case <-f.Done():
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		part, err := k.Store.Disk.Partial(d)
		switch {
		case err == nil:
			return part, nil
		case !errors.Is(err, disk.ErrInUse):
			return nil, err
		}
		if _, ok := k.Store.DiskSize(d); ok {
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
func (k *Keeper) receive(ctx context.Context, part *disk.Partial, size int64, r io.Reader) error {
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
func (r Root) Name() string { return image.Name(r.Repo, r.Tag, r.Desc.Digest) }

// Admitted says what an import came to for one image.
type Admitted struct {
	Ref       string
	Digest    v1.Hash
	Before    string   // what the tag pointed to, if that was something else
	Platforms []string // of an index: those that are here
	Omitted   []string // of an index: those that are not
	// Missing are the things of those platforms that are not here, at most 100 one by one.
	Missing      []image.Part
	MissingCount int64
	MissingBytes int64
	Pinned       bool
}

// linksAtOnce bounds the links of one transaction of the index.
const linksAtOnce = 1000

// Admit gives a repository the right to an image whose content was taken in before, and
// binds its tag as if the registry had confirmed it now: by the word of the operator, not
// of the registry. What of the image is not here gets no link, and is told. Every manifest
// on the way is compared with its digest, and every size with what its manifest says. The
// tag is bound last. The error is [ErrContent] for an image that is not sound, and
// [store.ErrNotKept] when its manifest is not here; nothing is bound then.
func (k *Keeper) Admit(ctx context.Context, root Root) (*Admitted, error) {
	if err := k.Cache.Configured(root.Repo); err != nil {
		return nil, err
	}
	a := admission{k: k, root: root, done: Admitted{Ref: root.Name(), Digest: root.Desc.Digest}}
	if err := a.run(ctx); err != nil {
		return nil, fmt.Errorf("admit %s: %w", root.Name(), err)
	}
	return &a.done, nil
}

// admission is one run of Admit.
type admission struct {
	k     *Keeper
	root  Root
	links []store.Link
	docs  []*admittedDoc
	done  Admitted
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
	k, repo := a.k, a.root.Repo
	if _, ok := k.Store.DiskSize(a.root.Desc.Digest); !ok {
		return fmt.Errorf("its manifest is not here: %w", store.ErrNotKept)
	}
	root := manifest.Describe(a.root.Desc)
	walk := manifest.Walk{
		Manifest: func(n manifest.Node) (*manifest.Document, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return a.manifest(n)
		},
		Blob: a.blob, Child: a.child, TooDeep: ErrContent,
	}
	if err := walk.Run(root); err != nil {
		return err
	}
	for links := range slices.Chunk(a.links, linksAtOnce) {
		if err := k.Store.Update(func(b *index.Batch) error { return store.PutLinks(b, repo, links...) }); err != nil {
			return err
		}
	}
	for _, d := range a.docs {
		if err := a.refer(d); err != nil {
			return err
		}
	}
	k.Cache.ForgetFailures(repo)
	for _, l := range a.links {
		k.Store.EndAwait(l.Digest)
		k.Cache.ForgetUnfetched(repo, l.Digest)
	}
	if err := a.bind(); err != nil {
		return err
	}
	for _, d := range a.docs {
		k.Images.Pins.Kept(d.desc.Digest, d.bytes)
	}
	k.log.Info("image imported", logkey.Reference(a.done.Ref), logkey.Digest(a.root.Desc.Digest), logkey.Count(len(a.links)))
	return nil
}

// bind binds the tag, now that all it leads to has its links.
func (a *admission) bind() error {
	if a.root.Tag == "" {
		return nil
	}
	before, known, err := a.k.Cache.Tag(a.root.Repo, a.root.Tag)
	if err != nil {
		return err
	}
	if known && before.Desc.Digest != a.root.Desc.Digest {
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
	if known && before.CheckedAt.After(at) {
		return nil // what is known here is newer
	}
	return a.k.Cache.BindAt(a.root.Repo, a.root.Tag, desc, at)
}

// manifest takes in a manifest that is kept.
func (a *admission) manifest(n manifest.Node) (*manifest.Document, error) {
	b, err := a.k.Store.Read(n.Digest, manifest.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrContent, err)
	}
	if err := sums.Check(n.Digest, b); err != nil {
		a.k.Store.Condemn(n.Digest, nil, err)
		return nil, fmt.Errorf("%w: manifest %s: %w", ErrContent, n.Digest, err)
	}
	if n.Size > 0 && n.Size != int64(len(b)) {
		return nil, fmt.Errorf("%w: manifest %s has %d bytes, and is said to have %d", ErrContent, n.Digest, len(b), n.Size)
	}
	doc, found, err := readAdmitted(b, n)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", n.Digest, err)
	}
	a.docs = append(a.docs, found)
	a.links = append(a.links, store.ManifestLink(found.desc))
	return doc, nil
}

// child takes in one platform of an index, if it is here.
func (a *admission) child(child manifest.Descriptor, _ bool) (bool, error) {
	d, ok := child.Hash()
	if !ok {
		return false, fmt.Errorf("%w: an index names the digest %.100q", ErrContent, child.Digest)
	}
	_, kept := a.k.Store.DiskSize(d)
	if name := child.Name(); name != "" && name != manifest.Attestation {
		if kept {
			a.done.Platforms = append(a.done.Platforms, name)
		} else {
			a.done.Omitted = append(a.done.Omitted, name)
		}
	}
	return kept, nil
}

// blob takes in a configuration or a layer.
func (a *admission) blob(_ manifest.Node, b manifest.Blob) error {
	kept, ok := a.k.Store.DiskSize(b.Digest)
	if !ok {
		a.done.MissingCount++
		a.done.MissingBytes += max(b.Size, 0)
		if len(a.done.Missing) < failuresMost {
			a.done.Missing = append(a.done.Missing, image.Part{Digest: b.Digest, Role: b.Role, MediaType: b.MediaType, Size: b.Size, State: image.Missing})
		}
		return nil
	}
	if b.Size >= 0 && kept != b.Size {
		return fmt.Errorf("%w: %s %s has %d bytes, and its manifest says %d", ErrContent, b.Role, b.Digest, kept, b.Size)
	}
	a.links = append(a.links, store.BlobLink(b.Digest, kept))
	return nil
}

// readAdmitted reads a manifest, of which a descriptor may say the media type.
func readAdmitted(b []byte, n manifest.Node) (*manifest.Document, *admittedDoc, error) {
	doc, ok := manifest.Parse(b)
	if !ok || !doc.IsIndex() && doc.Config == nil && doc.Layers == nil && doc.FSLayers == nil {
		return nil, nil, fmt.Errorf("%w: it is no manifest", ErrContent)
	}
	kind := cmp.Or(doc.MediaType, n.MediaType)
	if kind == "" {
		kind = string(types.OCIManifestSchema1) // the only form that may leave it out, with its index
		if doc.IsIndex() {
			kind = string(types.OCIImageIndex)
		}
	}
	found := &admittedDoc{
		desc:  v1.Descriptor{MediaType: types.MediaType(kind), Digest: n.Digest, Size: int64(len(b))},
		bytes: b, artifactType: doc.ArtifactType, annotations: doc.Annotations,
	}
	if doc.Subject != nil {
		found.subject, _ = doc.Subject.Hash()
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
	k, repo := a.k, a.root.Repo
	kept, at, known, err := k.Store.Index.Doc(repo, index.ReferrerList, d.subject.String())
	if err != nil {
		return err
	}
	var list []json.RawMessage
	if !known || json.Unmarshal(kept, &list) != nil {
		list, at = nil, time.Unix(0, 0)
	}
	for _, one := range list {
		var have manifest.Descriptor
		if json.Unmarshal(one, &have) == nil && have.Digest == d.desc.Digest.String() {
			return nil
		}
	}
	// OCI distribution 1.1, "Listing referrers": the manifest.Descriptor with the type of the
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
	return k.Store.Update(func(b *index.Batch) error {
		return b.PutDoc(repo, index.ReferrerList, d.subject.String(), text, at)
	})
}
