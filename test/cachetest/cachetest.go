// Package cachetest has an upstream in memory, for tests of the cache in virtual time.
//
// It counts what it is asked and misbehaves on request. What real HTTP does is tested
// against the test hub.
package cachetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/pull"
)

// Script is an upstream of one blob, in memory so that tests run in virtual time. What
// real HTTP does is tested against the test hub.
type Script struct {
	Data     []byte
	Chunk    int           // bytes per Read
	Pace     time.Duration // before every Read
	Latency  time.Duration // before every answer
	NoRanges bool
	Unsized  bool

	sync.Mutex // guards what follows

	Opens  [][2]int64
	Sent   int64
	Faults []Fault // taken one per open, in order
}

// Fault is what one answer does wrong.
type Fault struct {
	Err     error // instead of an answer
	Cut     int64 // break off after so many bytes; 0 means never
	Cleanly bool  // the cut looks like an end
	Flip    bool  // one bit of the first byte is wrong
}

// OpenBlob is that of an upstream.
func (s *Script) OpenBlob(ctx context.Context, _ string, _ v1.Hash, off, end int64) (*pull.Body, error) {
	<-time.After(s.Latency)
	s.Lock()
	defer s.Unlock()
	s.Opens = append(s.Opens, [2]int64{off, end})
	var f Fault
	if len(s.Faults) > 0 {
		f, s.Faults = s.Faults[0], s.Faults[1:]
	}
	if f.Err != nil {
		return nil, f.Err
	}
	size := int64(len(s.Data))
	b := &pull.Body{Offset: off, End: size, Size: size, Ranged: off > 0 || end >= 0}
	if end >= 0 {
		b.End = min(end, size)
	}
	if s.NoRanges && b.Ranged {
		b.Offset, b.End, b.Ranged = 0, size, false
	}
	data := bytes.Clone(s.Data[b.Offset:b.End])
	if f.Flip && len(data) > 0 {
		data[0] ^= 1
	}
	if s.Unsized {
		b.End, b.Size = -1, -1
	}
	b.ReadCloser = &answer{s: s, ctx: ctx, data: data, fault: f}
	return b, nil
}

type answer struct {
	s     *Script
	ctx   context.Context
	data  []byte
	sent  int64
	fault Fault
}

func (a *answer) Read(p []byte) (int, error) {
	if a.s.Pace > 0 {
		select {
		case <-time.After(a.s.Pace):
		case <-a.ctx.Done():
			return 0, a.ctx.Err()
		}
	}
	if a.ctx.Err() != nil {
		return 0, a.ctx.Err()
	}
	if a.fault.Cut > 0 && a.sent >= a.fault.Cut {
		if a.fault.Cleanly {
			return 0, io.EOF
		}
		return 0, io.ErrUnexpectedEOF
	}
	if len(a.data) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(a.data), a.s.Chunk)
	if a.fault.Cut > 0 {
		n = min(n, int(a.fault.Cut-a.sent))
	}
	copy(p, a.data[:n])
	a.data = a.data[n:]
	a.sent += int64(n)
	a.s.Lock()
	a.s.Sent += int64(n)
	a.s.Unlock()
	return n, nil
}

func (a *answer) Close() error { return nil }

// BlobOf returns noise of so many bytes, and its digest.
func BlobOf(size int, seed uint64) ([]byte, v1.Hash) {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i+8 <= size; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	sum := sha256.Sum256(b)
	return b, v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// Registry is a whole upstream in memory, for tests in virtual time. It counts what it is
// asked; real HTTP is tested against the test hub.
type Registry struct {
	sync.Mutex // guards what follows

	manifests map[string][]byte // by repo@digest
	tags      map[string]v1.Hash
	blobs     map[string]*Script // by repo@digest
	calls     map[string]int     // by method
	Down      error              // answer to everything
	Slow      time.Duration
	NoHead    bool
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{manifests: map[string][]byte{}, tags: map[string]v1.Hash{}, blobs: map[string]*Script{}, calls: map[string]int{}}
}

// DigestOf returns the digest of b.
func DigestOf(b []byte) v1.Hash {
	sum := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

func (r *Registry) Push(repo, tag string, b []byte) v1.Hash {
	r.Lock()
	defer r.Unlock()
	d := DigestOf(b)
	r.manifests[repo+"@"+d.String()] = b
	r.tags[repo+":"+tag] = d
	return d
}

func (r *Registry) Put(repo string, s *Script) v1.Hash {
	r.Lock()
	defer r.Unlock()
	if s.Chunk == 0 {
		s.Chunk = 64 << 10
	}
	d := DigestOf(s.Data)
	r.blobs[repo+"@"+d.String()] = s
	return d
}

func (r *Registry) Fail(err error) {
	r.Lock()
	defer r.Unlock()
	r.Down = err
}

func (r *Registry) Count(method string) int {
	r.Lock()
	defer r.Unlock()
	return r.calls[method]
}

func (r *Registry) enter(ctx context.Context, method string) error {
	r.Lock()
	r.calls[method]++
	err, slow := r.Down, r.Slow
	r.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return &pull.Error{Kind: pull.Timeout, Err: ctx.Err()}
	}
	return err
}

func (r *Registry) find(repo, ref string) (v1.Descriptor, []byte, error) {
	r.Lock()
	defer r.Unlock()
	key := repo + "@" + ref
	if d, ok := r.tags[repo+":"+ref]; ok {
		key = repo + "@" + d.String()
	}
	b, ok := r.manifests[key]
	if !ok {
		return v1.Descriptor{}, nil, &pull.Error{Kind: pull.NotFound, Op: key}
	}
	says := struct {
		MediaType types.MediaType `json:"mediaType"`
	}{types.OCIManifestSchema1}
	_ = json.Unmarshal(b, &says) // what says nothing is of that type
	return v1.Descriptor{MediaType: says.MediaType, Digest: DigestOf(b), Size: int64(len(b))}, b, nil
}

func (r *Registry) Resolve(ctx context.Context, repo, ref string) (v1.Descriptor, error) {
	if err := r.enter(ctx, "Resolve"); err != nil {
		return v1.Descriptor{}, err
	}
	if r.NoHead {
		return v1.Descriptor{}, &pull.Error{Kind: pull.Unsupported}
	}
	desc, _, err := r.find(repo, ref)
	return desc, err
}

func (r *Registry) Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	if err := r.enter(ctx, "Manifest"); err != nil {
		return v1.Descriptor{}, nil, err
	}
	return r.find(repo, ref)
}

// Blob returns a blob that repo holds.
func (r *Registry) Blob(repo string, d v1.Hash) (*Script, error) {
	r.Lock()
	defer r.Unlock()
	s, ok := r.blobs[repo+"@"+d.String()]
	if !ok {
		return nil, &pull.Error{Kind: pull.NotFound}
	}
	return s, nil
}

func (r *Registry) StatBlob(ctx context.Context, repo string, d v1.Hash) (int64, error) {
	if err := r.enter(ctx, "StatBlob"); err != nil {
		return 0, err
	}
	s, err := r.Blob(repo, d)
	if err != nil {
		return 0, err
	}
	return int64(len(s.Data)), nil
}

func (r *Registry) OpenBlob(ctx context.Context, repo string, d v1.Hash, off, end int64) (*pull.Body, error) {
	if err := r.enter(ctx, "OpenBlob"); err != nil {
		return nil, err
	}
	s, err := r.Blob(repo, d)
	if err != nil {
		return nil, err
	}
	return s.OpenBlob(ctx, repo, d, off, end)
}

func (r *Registry) Tags(ctx context.Context, repo string) ([]string, error) {
	if err := r.enter(ctx, "Tags"); err != nil {
		return nil, err
	}
	return []string{"b", "a", "b"}, nil
}

func (r *Registry) TagsPage(ctx context.Context, repo, _ string) ([]string, string, error) {
	tags, err := r.Tags(ctx, repo)
	return tags, "", err
}

func (r *Registry) Referrers(ctx context.Context, _ string, _ v1.Hash) ([]json.RawMessage, error) {
	if err := r.enter(ctx, "Referrers"); err != nil {
		return nil, err
	}
	return []json.RawMessage{json.RawMessage(`{"digest":"x"}`)}, nil
}

// ManifestOf returns a manifest of nothing, which is another for each text.
func ManifestOf(text string) []byte {
	return []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","annotations":{"t":"` + text + `"}}`)
}

// Low reports that there is plenty of budget.
func (r *Registry) Low() bool { return false }

// AtReserve reports that there is plenty of budget.
func (r *Registry) AtReserve() bool { return false }

// AtLastShare reports that there is plenty of budget.
func (r *Registry) AtLastShare() bool { return false }

// Bind lets a tag point to a digest that was pushed before.
func (r *Registry) Bind(repo, tag string, d v1.Hash) {
	r.Lock()
	defer r.Unlock()
	r.tags[repo+":"+tag] = d
}

// Calls returns how often each method was called.
func (r *Registry) Calls() map[string]int {
	r.Lock()
	defer r.Unlock()
	return maps.Clone(r.calls)
}

// Unbind takes a tag away.
func (r *Registry) Unbind(repo, tag string) {
	r.Lock()
	defer r.Unlock()
	delete(r.tags, repo+":"+tag)
}
