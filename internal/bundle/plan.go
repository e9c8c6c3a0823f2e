package bundle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/manifest"
)

// Contents is all that belongs to an image.
type Contents struct {
	Image
	Parts     []Part // each once, those that lead to others before what they lead to
	Referrers []Referrer
}

// Part is a thing that belongs to an image.
type Part struct {
	Blob
	Manifest  bool // leads to others: a manifest or an index
	MediaType string
}

// Referrer is a signature or the like of an image; what belongs to it is among the image's parts.
type Referrer struct {
	Blob
	MediaType string
	Tag       string // that stands for it in the repository of the image; "" for none
}

// ErrOnePlatform is that an archive for docker load cannot hold an image for several platforms.
var ErrOnePlatform = errors.New("docker load takes one platform")

// Plan gathers what an archive is to hold, image by image: each thing once, and none that
// the other side has. Make one with [NewPlan].
type Plan struct {
	has    map[v1.Hash]bool // of the other side
	seen   map[v1.Hash]bool
	names  map[string]v1.Hash
	docker bool
	single map[string]v1.Hash // for docker load: the manifest of the one platform, by name
	out    Packing
}

// NewPlan returns an empty plan; docker makes it one of an archive for docker load.
func NewPlan(docker bool) *Plan {
	return &Plan{has: map[v1.Hash]bool{}, seen: map[v1.Hash]bool{}, names: map[string]v1.Hash{}, docker: docker, single: map[string]v1.Hash{}}
}

// LeaveOut says what the other side has. It must be called before Add.
func (p *Plan) LeaveOut(blobs []Blob) {
	for _, b := range blobs {
		p.has[b.Digest.Hash] = true
	}
}

// Add plans an image with its referrers. The error may be [ErrOnePlatform].
func (p *Plan) Add(c Contents) error {
	p.image(c.Image)
	repo := RepositoryOf(c.Name)
	for _, r := range c.Referrers {
		name := repo + "@" + r.Digest.String()
		if r.Tag != "" {
			name = repo + ":" + r.Tag
		}
		size := r.Size
		for _, part := range c.Parts {
			if part.Digest == r.Digest {
				size = part.Size
			}
		}
		p.image(Image{Name: name, Digest: r.Digest, MediaType: r.MediaType, Size: size, Refers: true})
	}
	for _, part := range c.Parts {
		p.part(part)
	}
	if !p.docker {
		return nil
	}
	only := slices.IndexFunc(c.Parts, func(part Part) bool { return part.Manifest && !manifest.IsIndexType(part.MediaType) })
	if only < 0 || len(c.Platforms) > 1 {
		return fmt.Errorf("%s: %w", c.Name, ErrOnePlatform)
	}
	p.single[c.Name] = c.Parts[only].Digest.Hash
	return nil
}

// Packing returns what was planned. For docker load the manifests are read from src.
func (p *Plan) Packing(ctx context.Context, src Source) (*Packing, error) {
	var err error
	if p.docker {
		p.out.Docker, err = dockerManifest(ctx, src, p.out.Images, p.single)
	}
	return &p.out, err
}

// image takes in a name. One that is there already gets the platforms of both.
func (p *Plan) image(i Image) {
	if d, have := p.names[i.Name]; have && d == i.Digest.Hash {
		for n := range p.out.Images {
			if have := &p.out.Images[n]; have.Name == i.Name {
				have.Platforms = union(have.Platforms, i.Platforms)
				have.Left = slices.DeleteFunc(have.Left, func(s string) bool { return slices.Contains(have.Platforms, s) })
			}
		}
		return
	}
	p.names[i.Name] = i.Digest.Hash
	p.out.Images = append(p.out.Images, i)
}

func (p *Plan) part(part Part) {
	if p.seen[part.Digest.Hash] {
		return
	}
	p.seen[part.Digest.Hash] = true
	switch {
	case p.has[part.Digest.Hash]:
		p.out.Assumed = append(p.out.Assumed, part.Blob)
	case part.Manifest:
		p.out.Manifests = append(p.out.Manifests, part.Blob)
	default:
		p.out.Blobs = append(p.out.Blobs, part.Blob)
	}
}

// RepositoryOf takes tag and digest from a name in full.
func RepositoryOf(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}
