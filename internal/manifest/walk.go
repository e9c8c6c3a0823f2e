package manifest

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Depth bounds indexes within indexes, and referrers of referrers. No builder makes indexes
// deeper than two.
const Depth = 3

// Node is a manifest or an index that a walk comes to.
type Node struct {
	Descriptor // as it was named
	Digest     v1.Hash
	Depth      int // 0 is the root
}

// Walk goes through all that an image is made of, each thing once: a manifest before what
// it leads to, its blobs before its children, and what refers to it after those. It ends at
// the first error of a function, which it returns. Functions that are nil are not called.
type Walk struct {
	// Manifest is told of a manifest, and returns its document: nil when nothing of it is to
	// be looked at.
	Manifest func(n Node) (*Document, error)
	// Blob is told of a blob of a manifest.
	Blob func(n Node, b Blob) error
	// Platforms are those that are wanted of an index.
	Platforms []string
	// Child reports whether a child of an index belongs to the image, and is told whether it is
	// among those for Platforms. nil means all. What attests others of its index is asked for
	// after them.
	Child func(child Descriptor, wanted bool) (bool, error)
	// Referrers returns what is known to refer to a manifest.
	Referrers func(n Node) ([]Descriptor, error)
	// Seen is what walks before this one came to, and what this one does. nil means nothing.
	Seen map[v1.Hash]bool
	// Repeats has Manifest told of a manifest each time that it is named, and Blob of all
	// blobs.
	Repeats bool
	// TooDeep is the error for what is nested more than Depth deep; nil passes it over.
	TooDeep error
}

// Run walks from root.
func (w Walk) Run(root Descriptor) error {
	if w.Seen == nil {
		w.Seen = map[v1.Hash]bool{}
	}
	return w.manifest(root, 0)
}

// again reports whether d was seen before, and is not to be told of again.
func (w *Walk) again(d v1.Hash) bool {
	was := w.Seen[d]
	w.Seen[d] = true
	return was && !w.Repeats
}

func (w *Walk) manifest(desc Descriptor, depth int) error {
	d, ok := desc.Hash()
	if !ok {
		return nil
	}
	if depth > Depth {
		if w.TooDeep != nil {
			return fmt.Errorf("%w: indexes are nested more than %d deep", w.TooDeep, Depth)
		}
		return nil
	}
	if w.again(d) {
		return nil
	}
	n := Node{Descriptor: desc, Digest: d, Depth: depth}
	doc, err := w.Manifest(n)
	if err != nil || doc == nil {
		return err
	}
	if err := w.blobs(n, doc); err != nil {
		return err
	}
	wanted := doc.Wanted(w.Platforms)
	for _, child := range doc.inOrder() {
		belongs := true
		if w.Child != nil {
			if belongs, err = w.Child(child, wanted[child.Digest]); err != nil {
				return err
			}
		}
		if !belongs {
			continue
		}
		if err := w.manifest(child, depth+1); err != nil {
			return err
		}
	}
	return w.referrers(n)
}

func (w *Walk) blobs(n Node, doc *Document) error {
	if w.Blob == nil {
		return nil
	}
	for _, b := range doc.Blobs() {
		if w.again(b.Digest) {
			continue
		}
		if err := w.Blob(n, b); err != nil {
			return err
		}
	}
	return nil
}

func (w *Walk) referrers(n Node) error {
	if w.Referrers == nil {
		return nil
	}
	all, err := w.Referrers(n)
	if err != nil {
		return err
	}
	for _, r := range all {
		if err := w.manifest(r, n.Depth+1); err != nil {
			return err
		}
	}
	return nil
}

// inOrder returns the children of an index, attestations after what they are about.
func (m *Document) inOrder() []Descriptor {
	var first, last []Descriptor
	for _, child := range m.Manifests {
		if child.Name() == Attestation {
			last = append(last, child)
		} else {
			first = append(first, child)
		}
	}
	return append(first, last...)
}
