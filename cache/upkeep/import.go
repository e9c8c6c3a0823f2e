package upkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/image"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/logkey"
	"forebay/internal/manifest"
	"forebay/internal/sums"
	"forebay/internal/wire"
)

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

// Root is a manifest or an index with the name that it has in a repository.
type Root struct {
	Repo Repo
	Tag  string // empty for what is named by digest only
	Desc v1.Descriptor
	// Confirmed is when the registry said so last; the zero time means now. A tag that is
	// older than its time to live is confirmed at the next pull, or served as stale. One that
	// was confirmed later here stays as it is, unless [ImportOptions.MayBeOlder].
	Confirmed time.Time
	// Since is when the tag was first seen there to point to it; zero when that is not known.
	Since time.Time
}

// Name returns "docker.io/library/nginx:1.27", or with the digest when there is no tag.
func (r Root) Name() string { return image.Name(r.Repo, r.Tag, r.Desc.Digest) }

// Admitted says what an import came to for one image.
type Admitted struct {
	Ref       string
	Digest    v1.Hash
	Before    string   // what the tag pointed to, if that was something else
	Stays     string   // what the tag goes on to point to, since that was confirmed later
	Platforms []string // of an index: those that are here
	Omitted   []string // of an index: those that are not
	// Missing are the things of those platforms that the repository does not get, at most 100 one by one.
	Missing      []image.Part
	MissingCount int64
	MissingBytes int64
}

// linksAtOnce bounds the links of one transaction of the index.
const linksAtOnce = 1000

// Admit gives a repository the right to an image, and binds its tag as if the registry had
// confirmed it now: by the word of the operator, not of the registry. Linked is what the
// import has brought, what a signature vouches for, and what the repository holds already.
// All else that the image names is missing and is told, whether it is kept or not: else an
// archive of two small files could get whatever it names. Every manifest on the way is compared
// with its digest, and every size with what its manifest says. The tag is bound last. The
// error is [ErrContent] for an image that is not sound, [store.ErrNotKept] when its manifest is
// missing, and [ErrOlder] when a newer bundle came meanwhile; nothing is bound then.
func (i *Import) Admit(ctx context.Context, root Root) (*Admitted, error) {
	if err := i.k.Cache.Configured(root.Repo); err != nil {
		return nil, err
	}
	defer i.use()()
	if err := i.k.signers.check(i.opts.Signed, i.opts.MayBeOlder, true); err != nil {
		return nil, fmt.Errorf("admit %s: %w", root.Name(), err)
	}
	a := admission{k: i.k, in: i, root: root, done: Admitted{Ref: root.Name(), Digest: root.Desc.Digest}}
	if err := a.run(ctx); err != nil {
		return nil, fmt.Errorf("admit %s: %w", root.Name(), err)
	}
	if err := i.k.Store.Settle(); err != nil { // what was here already may have come a moment ago
		return nil, fmt.Errorf("admit %s: %w", root.Name(), err)
	}
	return &a.done, nil
}

// admission is one run of Admit.
type admission struct {
	k     *Keeper
	in    *Import
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
	if _, ok := a.size(a.root.Desc.Digest); !ok {
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
	desc := a.root.Desc
	if len(a.docs) > 0 {
		desc = a.docs[0].desc // with the media type and the size that it was found to have
	}
	at := a.root.Confirmed
	if at.IsZero() {
		at = time.Now()
	}
	moves := known && before.Desc.Digest != a.root.Desc.Digest
	if known && before.CheckedAt.After(at) && !(moves && a.in.opts.MayBeOlder) {
		if moves {
			a.done.Stays = before.Desc.Digest.String()
		}
		return nil
	}
	if moves {
		a.done.Before = before.Desc.Digest.String()
	}
	return a.k.Cache.BindAt(a.root.Repo, a.root.Tag, desc, at, a.root.Since)
}

// size returns the size of content that the repository may get, if it is on the disk.
func (a *admission) size(d v1.Hash) (int64, bool) {
	if !a.in.gives(a.root.Repo, d) {
		return 0, false
	}
	return a.k.Store.DiskSize(d)
}

// manifest takes in a manifest that the repository may get.
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
	_, kept := a.size(d)
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
	kept, ok := a.size(b.Digest)
	if !ok {
		a.done.MissingCount++
		a.done.MissingBytes += max(b.Size, 0)
		if len(a.done.Missing) < failuresMost {
			a.done.Missing = append(a.done.Missing, image.Part{Digest: wire.Digest{Hash: b.Digest}, Role: b.Role, MediaType: b.MediaType, Size: b.Size, State: image.Missing})
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
	if !ok {
		return nil, nil, fmt.Errorf("%w: it is no manifest", ErrContent)
	}
	kind, err := manifest.TypeOf(n.MediaType, b)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrContent, err)
	}
	found := &admittedDoc{
		desc:  v1.Descriptor{MediaType: kind, Digest: n.Digest, Size: int64(len(b))},
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
