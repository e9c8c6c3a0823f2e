package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/wire"
)

// Which images an archive has, and how they are called.

// found names the images of another tool's archive.
func (s *unpacking) found(images []Image) error {
	if len(images) == 0 {
		return faultf("it holds no image")
	}
	if len(images) > imagesMost {
		return faultf("%d images are more than %d", len(images), imagesMost)
	}
	if s.As != "" {
		if err := s.nameAll(images); err != nil {
			return err
		}
	}
	names := map[string]v1.Hash{}
	for i := range images {
		one := &images[i]
		if bareTag(one.Name) {
			return &NamelessError{Digest: one.Digest.Hash, Tag: one.Name}
		}
		if one.Name == "" {
			return &NamelessError{Digest: one.Digest.Hash}
		}
		if err := one.check(); err != nil {
			return err
		}
		if d, twice := names[one.Name]; twice && d != one.Digest.Hash {
			return faultf("it names %s twice", one.Name)
		} else if !twice {
			s.out.Images = append(s.out.Images, *one)
		}
		names[one.Name] = one.Digest.Hash
	}
	return s.names(s.out.Images)
}

// nameAll gives the images the name that was asked for: one image, or all tags of a repository.
func (s *unpacking) nameAll(images []Image) error {
	var named, tags int
	for _, i := range images {
		if !i.Refers {
			named++
		}
		if bareTag(i.Name) {
			tags++
		}
	}
	if named > 1 && (named > tags || withTag(s.As, "x") == s.As) {
		return fmt.Errorf("it holds %d images, and one name cannot be for all of them", named)
	}
	for i := range images {
		if !images[i].Refers {
			images[i].Name = withTag(s.As, images[i].Name)
		}
	}
	return nil
}

// NamelessError is that an archive does not say what its image is called: [Unpacking.As] can.
type NamelessError struct {
	Digest v1.Hash
	Tag    string // all that it says; "" for nothing
}

func (e *NamelessError) Error() string {
	if e.Tag == "" {
		return fmt.Sprintf("it does not say what its image %s is called", e.Digest)
	}
	return fmt.Sprintf("it does not say what its image %s is called, only that it is %q", e.Digest, e.Tag)
}

// bareTag reports whether a name is only a tag, as skopeo and oras write it.
func bareTag(name string) bool { return name != "" && !strings.ContainsAny(name, "/:@") }

// withTag gives the name as the tag that an archive knows, if it has none itself.
func withTag(as, known string) string {
	if strings.Contains(as[strings.LastIndexByte(as, '/')+1:], ":") || strings.Contains(as, "@") {
		return as
	}
	if bareTag(known) {
		return as + ":" + known
	}
	if i := strings.LastIndexByte(known, ':'); i > strings.LastIndexByte(known, '/') && !strings.Contains(known, "@") {
		return as + known[i:]
	}
	return as
}

// layoutImages returns the images of index.json.
func (s *unpacking) layoutImages() ([]Image, error) {
	var index struct {
		Manifests []struct {
			MediaType    string            `json:"mediaType"`
			Digest       wire.Digest       `json:"digest"`
			Size         int64             `json:"size"`
			ArtifactType string            `json:"artifactType"`
			Annotations  map[string]string `json:"annotations"`
			Platform     *v1.Platform      `json:"platform"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(s.index, &index); err != nil {
		return nil, faultf("%s: %w", indexName, err)
	}
	var images []Image
	var unnamed []Image
	var attached []attachment
	seen := map[string]bool{}
	platforms := map[string]bool{} // of those without a name
	for _, m := range index.Manifests {
		image := Image{Name: m.Annotations[imageNameAnnotation], Digest: m.Digest, MediaType: m.MediaType, Size: m.Size}
		if image.Name == "" {
			image.Name = m.Annotations[refNameAnnotation]
		}
		if _, err := wire.ParseDigest(image.Name); err == nil {
			image.Name = "" // as containerd's CRI calls images beside their names
		}
		if err := (Blob{m.Digest, m.Size}).check(); err != nil {
			return nil, faultf("%s: %w", indexName, err)
		}
		key := image.Name + "\x00" + image.Digest.String()
		if seen[key] {
			continue
		}
		seen[key] = true
		switch suffix := attachedBy[path.Base(m.Annotations["kind"])]; {
		case suffix != "":
			attached = append(attached, attachment{image, suffix})
		case image.Name == "":
			unnamed = append(unnamed, image)
			if m.Platform != nil {
				platforms[m.Platform.String()] = true
			}
		default:
			images = append(images, image)
		}
	}
	switch {
	case len(images)+len(attached) == 0 && len(unnamed) > 1 && len(platforms) == len(unnamed):
		return s.indexItself()
	case len(images) == 0:
		return append(unnamed, s.attach(unnamed, attached)...), nil
	}
	named := map[v1.Hash]bool{}
	for _, i := range images {
		named[i.Digest.Hash] = true
	}
	unnamed = slices.DeleteFunc(unnamed, func(u Image) bool { return named[u.Digest.Hash] })
	images = append(images, s.attach(images, attached)...)
	return append(images, s.referring(images, unnamed)...), nil
}

// indexItself returns index.json as an image: such that lists the platforms of one, and no images
// by name, is the index of that image (layout.Write of go-containerregistry).
func (s *unpacking) indexItself() ([]Image, error) {
	b := blobOf(s.index)
	err := s.take(&file{name: indexName}, b, bytes.NewReader(s.index))
	return []Image{{Digest: b.Digest, MediaType: string(types.OCIImageIndex), Size: b.Size}}, err
}

// attachedBy has the suffixes of the tags by which cosign attaches things to an image, by the kind
// that cosign save, and Hauler, say of them in index.json.
var attachedBy = map[string]string{"sigs": ".sig", "atts": ".att", "sboms": ".sbom"}

// attachment is what is attached to the image of the same name, or to the only one if both have none.
type attachment struct {
	Image
	suffix string
}

// attach returns what is attached, by the names that it has at a registry.
func (s *unpacking) attach(to []Image, attached []attachment) []Image {
	var all []Image
	for _, a := range attached {
		i := slices.IndexFunc(to, func(i Image) bool { return i.Name == a.Name && (a.Name != "" || len(to) == 1) })
		if i < 0 {
			s.out.Notes = append(s.out.Notes, fmt.Sprintf("%s was left out, which is attached to an image that it does not name", a.Digest))
			continue
		}
		repo := to[i].Name
		if s.As != "" {
			repo = s.As
		}
		a.Name = fmt.Sprintf("%s:%s-%s%s", RepositoryOf(repo), to[i].Digest.Algorithm, to[i].Digest.Hex, a.suffix)
		a.Refers = true
		all = append(all, a.Image)
	}
	return all
}

// referring gives manifests without a name, which are signatures and the like, that of
// the repository, if there is only one.
func (s *unpacking) referring(images, unnamed []Image) []Image {
	if len(unnamed) == 0 {
		return nil
	}
	repos := map[string]bool{}
	repo := ""
	for _, i := range images {
		repo = i.Name
		if s.As != "" {
			repo = s.As
		}
		repo = RepositoryOf(repo)
		repos[repo] = true
	}
	if len(repos) > 1 || s.As == "" && bareTag(images[0].Name) {
		s.out.Notes = append(s.out.Notes, fmt.Sprintf("%d manifests without a name were left out", len(unnamed)))
		return nil
	}
	for i := range unnamed {
		unnamed[i].Name = repo + "@" + unnamed[i].Digest.String()
		unnamed[i].Refers = true
	}
	return unnamed
}
