package disktest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/pull"
)

// source is a registry in memory whose content is the same in every process, so that one
// that takes over from a killed one knows what it should find. Real HTTP has its own tests.
type source struct {
	mu        sync.Mutex
	manifests map[string][]byte // by repository@digest
	types     map[v1.Hash]types.MediaType
	tags      map[string]v1.Hash // by repository:tag
	blobs     map[string][]byte  // by repository@digest
	cut       map[v1.Hash]bool   // blobs whose transfer stalls in the middle
}

// image is what the source has under a tag.
type image struct {
	repo, tag string
	root      v1.Hash   // index or manifest
	manifests []v1.Hash // root included
	blobs     []v1.Hash
}

func digestOf(b []byte) v1.Hash {
	sum := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// noise returns n bytes that a name decides.
func noise(name string, n int) []byte {
	seed := sha256.Sum256([]byte(name))
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

func newSource() *source {
	return &source{manifests: map[string][]byte{}, types: map[v1.Hash]types.MediaType{}, tags: map[string]v1.Hash{}, blobs: map[string][]byte{}, cut: map[v1.Hash]bool{}}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// blob adds content to a repository.
func (s *source) blob(repo string, b []byte) v1.Descriptor {
	d := digestOf(b)
	s.blobs[repo+"@"+d.String()] = b
	return v1.Descriptor{MediaType: types.OCILayer, Size: int64(len(b)), Digest: d}
}

func (s *source) manifest(repo string, kind types.MediaType, doc any) v1.Descriptor {
	b := mustJSON(doc)
	d := digestOf(b)
	s.manifests[repo+"@"+d.String()] = b
	s.types[d] = kind
	return v1.Descriptor{MediaType: kind, Size: int64(len(b)), Digest: d}
}

// single adds an image of one platform with layers named and sized.
func (s *source) single(repo, tag, architecture string, layers map[string]int, order ...string) (image, v1.Descriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := image{repo: repo, tag: tag}
	config := s.blob(repo, mustJSON(map[string]string{"os": "linux", "architecture": architecture, "of": repo + tag}))
	i.blobs = append(i.blobs, config.Digest)
	var list []v1.Descriptor
	for _, name := range order {
		l := s.blob(repo, noise(name, layers[name]))
		list = append(list, l)
		i.blobs = append(i.blobs, l.Digest)
	}
	m := s.manifest(repo, types.OCIManifestSchema1, map[string]any{"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "config": config, "layers": list})
	i.root, i.manifests = m.Digest, []v1.Hash{m.Digest}
	s.tags[repo+":"+tag] = m.Digest
	return i, m
}

// index adds an index of images that are there.
func (s *source) index(repo, tag string, children ...v1.Descriptor) v1.Hash {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.manifest(repo, types.OCIImageIndex, map[string]any{"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": children})
	s.tags[repo+":"+tag] = m.Digest
	return m.Digest
}

func (s *source) find(repo, ref string) (v1.Descriptor, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.tags[repo+":"+ref]; ok {
		ref = d.String()
	}
	b, ok := s.manifests[repo+"@"+ref]
	if !ok {
		return v1.Descriptor{}, nil, &pull.Error{Kind: pull.NotFound, Op: repo + "@" + ref}
	}
	d := digestOf(b)
	return v1.Descriptor{MediaType: s.types[d], Digest: d, Size: int64(len(b))}, b, nil
}

func (s *source) Resolve(_ context.Context, repo, ref string) (v1.Descriptor, error) {
	desc, _, err := s.find(repo, ref)
	return desc, err
}

func (s *source) Manifest(_ context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	return s.find(repo, ref)
}

func (s *source) content(repo string, d v1.Hash) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[repo+"@"+d.String()]
	if !ok {
		return nil, false, &pull.Error{Kind: pull.NotFound, Op: repo + "@" + d.String()}
	}
	return b, s.cut[d], nil
}

func (s *source) StatBlob(_ context.Context, repo string, d v1.Hash) (int64, error) {
	b, _, err := s.content(repo, d)
	return int64(len(b)), err
}

func (s *source) OpenBlob(ctx context.Context, repo string, d v1.Hash, off, end int64) (*pull.Body, error) {
	b, cut, err := s.content(repo, d)
	if err != nil {
		return nil, err
	}
	size := int64(len(b))
	body := &pull.Body{Offset: off, End: size, Size: size, Ranged: off > 0 || end >= 0}
	if end >= 0 {
		body.End = min(end, size)
	}
	var r io.Reader = bytes.NewReader(b[off:body.End])
	if cut {
		r = io.MultiReader(io.LimitReader(r, size/2), stalled{ctx})
	}
	body.ReadCloser = io.NopCloser(r)
	return body, nil
}

// stalled is a transfer that nothing comes from any more.
type stalled struct{ ctx context.Context }

func (s stalled) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func (s *source) Low() bool { return false }

func (s *source) AtReserve() bool { return false }

func (s *source) AtLastShare() bool { return false }

func (s *source) Tags(context.Context, string) ([]string, error) { return []string{"1"}, nil }

func (s *source) TagsPage(context.Context, string, string) ([]string, string, error) {
	return []string{"1"}, "", nil
}

func (s *source) Referrers(context.Context, string, v1.Hash) ([]json.RawMessage, error) {
	return nil, nil
}
